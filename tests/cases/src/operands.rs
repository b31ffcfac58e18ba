//! Attentions to test: their specifications from one shape and layout, and how their keys are drawn.

use linc_tile::Elem;
use linc_tile::library::attention::efficient::{EfficientBackwardSpec, EfficientForwardSpec};
use linc_tile::library::attention::softmax::{Kept, SoftmaxBackwardSpec, SoftmaxForwardSpec};
use linc_tile::library::attention::{HeadShape, HeadStrides};

use crate::Random;

/// The tensors of one attention, `[B, N, heads, D]` each, all of one element type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Operands {
    /// Element type of q, k, v, out and their gradients.
    pub elem: Elem,
    /// Sizes.
    pub shape: HeadShape,
    /// Layout of what there is for each query head: q, out, dout, dq.
    pub query: HeadStrides,
    /// Layout of what there is for each key/value head: k, v, dk, dv.
    pub key: HeadStrides,
}

impl Operands {
    /// Dense tensors.
    pub fn contiguous(elem: Elem, shape: HeadShape) -> Operands {
        let HeadShape { seq, heads, kv_heads, head_dim, .. } = shape;
        let query = HeadStrides::contiguous(seq, heads, head_dim);
        Operands { elem, shape, query, key: HeadStrides::contiguous(seq, kv_heads, head_dim) }
    }

    /// Softmax attention in tiles of so many queries and keys. Every machine can have its scores either way round; an even
    /// length has them as GPUs do.
    pub fn softmax(
        &self,
        causal: bool,
        scale: f64,
        (block_q, block_k): (usize, usize),
    ) -> SoftmaxForwardSpec {
        let Operands { elem, shape, query: q, key: k } = *self;
        let kept = if shape.seq.is_multiple_of(2) { Kept::Left } else { Kept::Right };
        SoftmaxForwardSpec {
            elem,
            shape,
            causal,
            documents: false,
            scale,
            block_q,
            block_k,
            kept,
            q,
            k,
            v: k,
            out: q,
        }
    }

    /// Its gradients, with the same tiles.
    pub fn softmax_gradients(&self, forward: &SoftmaxForwardSpec) -> SoftmaxBackwardSpec {
        let SoftmaxForwardSpec {
            elem,
            shape,
            causal,
            documents,
            scale,
            block_q,
            block_k,
            kept,
            q,
            k,
            v,
            out,
        } = *forward;
        let (dout, dq, dk, dv) = (self.query, self.query, self.key, self.key);
        SoftmaxBackwardSpec {
            elem,
            shape,
            causal,
            documents,
            scale,
            block_q,
            block_k,
            kept,
            q,
            k,
            v,
            out,
            dout,
            dq,
            dk,
            dv,
        }
    }

    /// Linear attention in chunks of so many tokens.
    pub fn linear(&self, chunk: usize, temperature: f64) -> EfficientForwardSpec {
        let Operands { elem, shape, query: q, key: k } = *self;
        EfficientForwardSpec { elem, shape, chunk, temperature, documents: false, q, k, v: k, out: q }
    }

    /// Its gradients, with the same chunks; `whole` as in [`EfficientBackwardSpec`].
    pub fn linear_gradients(&self, forward: &EfficientForwardSpec, whole: bool) -> EfficientBackwardSpec {
        let EfficientForwardSpec { elem, shape, chunk, temperature, documents, q, k, v, .. } = *forward;
        let (dout, dq, dk, dv) = (self.query, self.query, self.key, self.key);
        EfficientBackwardSpec { elem, shape, chunk, temperature, documents, whole, q, k, v, dout, dq, dk, dv }
    }
}

/// Positions of tokens in documents `[B, N]`, of lengths that begin and end everywhere in tiles of 64, some at their start and
/// several in one; each sequence begins with another one.
pub fn positions(shape: &HeadShape) -> Vec<i32> {
    const LENGTHS: [i32; 9] = [20, 44, 64, 1, 1, 90, 3, 33, 150];
    let of_sequence = |sequence: usize| {
        let lengths = LENGTHS.iter().cycle().skip(2 * sequence);
        lengths.flat_map(|length| 0..*length).take(shape.seq)
    };
    (0..shape.batch).flat_map(of_sequence).collect()
}

/// How keys are drawn; all other operands are normal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Keys {
    /// N(0, 1)
    Normal,
    /// Uniform between minus and plus this.
    Uniform(f64),
    /// From minus to plus this along the sequence.
    Ramp(f64),
    /// 25 more every seven tokens, from -100 on.
    Steps,
    /// N(0, 1), but for one token of 100 and a later one with every other feature at -100.
    Spike,
}

impl Keys {
    /// All distributions that a linear attention must be safe for: some of them break a chunk whose reference is not
    /// checked against the range of its keys.
    pub const ALL: [Keys; 7] = [
        Keys::Normal,
        Keys::Uniform(10.0),
        Keys::Uniform(100.0),
        Keys::Ramp(100.0),
        Keys::Ramp(-100.0),
        Keys::Steps,
        Keys::Spike,
    ];

    /// One number of a key; tokens and features are counted from 0.
    pub fn draw(self, random: &mut Random, token: usize, seq: usize, feature: usize) -> f64 {
        match self {
            Keys::Normal => random.normal(),
            Keys::Uniform(limit) => (2.0 * random.uniform() - 1.0) * limit,
            Keys::Ramp(limit) => {
                let along = if seq > 1 { token as f64 / (seq - 1) as f64 } else { 0.0 };
                (2.0 * along - 1.0) * limit + random.normal()
            }
            Keys::Steps => (token / 7) as f64 * 25.0 - 100.0 + random.normal(),
            Keys::Spike if token == seq / 3 => 100.0,
            Keys::Spike if token == 2 * seq / 3 && feature.is_multiple_of(2) => -100.0,
            Keys::Spike => random.normal(),
        }
    }
}
