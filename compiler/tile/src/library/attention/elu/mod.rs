//! Causal linear attention with the features φ(x) = elu(x) + 1 and a normaliser (Katharopoulos et al.): the plainest kind
//! with a recurrent state, in one walk over the sequence.
//!
//! Per head, `out_t = n_t / c_t` with `n_t = φ(q_t) state_t`, `c_t = φ(q_t)·z_t`, `state_t = Σ_{s≤t} φ(k_s) v_sᵀ` and
//! `z_t = Σ_{s≤t} φ(k_s)`. A walk over chunks of `C` tokens carries `state` and `z`; inside a chunk, with `A = tril(φ(Q) φ(K)ᵀ)`,
//! `n = φ(Q) state + A V` and `c = φ(Q) z + rowsum(A)`.
//!
//! `z` `[B, G, S, D]`, `state` `[B, G, S, D, D]` are f32, saved before each of `S = ceil(N/C)` chunks; in decoding without
//! the axis S.
//!
//! | kernel | grid | parameters in launch order (`=` written, `~` updated in place) |
//! |---|---|---|
//! | `elu_attention_forward` | G, B, 1 | q, k, v, =out, =z, =state |
//! | `elu_attention_backward` | G, B, 1 | q, k, v, out, z, state, dout, =dq, =dk, =dv |
//! | `elu_decode` | G, B, 1 | q, k, v, ~z, ~state, pos, slot, =out |

mod backward;
mod forward;

pub use backward::elu_attention_backward;
pub use forward::{elu_attention_forward, elu_decode};

use crate::builder::Builder;
use crate::ir::{Elem, ParamId, ValueId};
use crate::library::attention::common::{HeadRows, HeadShape, HeadStrides, mask_from, strides_tag};
use crate::library::tag;

/// What a kernel computes and how.
#[derive(Clone, PartialEq, Debug)]
pub struct EluAttentionSpec {
    /// Element type of all tensors but the states.
    pub elem: Elem,
    /// Sizes; `seq` is 1 in decoding.
    pub shape: HeadShape,
    /// Tokens of a chunk, C.
    pub chunk: usize,
    /// Of the tensors `[B, N, heads, D]`, in the order of the kernel's parameters.
    pub strides: Vec<HeadStrides>,
}

impl EluAttentionSpec {
    /// A builder with a program for each key/value head and sequence; both numbers, Index, come with it.
    fn builder(&self, kernel: &str, tensors: usize) -> (Builder, ValueId, ValueId) {
        let EluAttentionSpec { elem, shape, chunk, strides } = self;
        let name = format!("{kernel}_{}_{}_c{chunk}_{}", tag(*elem), shape.tag(), strides_tag(strides));
        shape.check(&name);
        assert!(*chunk > 0 && strides.len() == tensors, "{name}: {} strides", strides.len());
        let mut b = Builder::new(name, [shape.kv_heads, shape.batch, 1]);
        let (kv_head, batch) = (b.program_id(0), b.program_id(1));
        (b, kv_head, batch)
    }

    /// Rows of one head of a tensor, the `at`th of the parameters.
    fn rows(&self, b: &mut Builder, param: ParamId, at: usize, batch: ValueId, head: ValueId) -> HeadRows {
        HeadRows::new(b, param, self.strides[at], self.shape.head_dim, batch, head)
    }
}

/// φ(x) and its derivative `exp(min(x, 0))`, f32.
fn features(b: &mut Builder, x: ValueId) -> (ValueId, ValueId) {
    let zero = b.full(0.0, &b.ty(x).shape);
    let low = b.min(x, zero);
    let slope = b.exp(low);
    let high = b.max(x, zero);
    (b.add(slope, high), slope)
}

/// φ of keys; 0 in rows from `bound` on, which are no keys.
fn key_features(b: &mut Builder, k: ValueId, bound: Option<ValueId>) -> ValueId {
    let (features, _) = features(b, k);
    bound.map_or(features, |bound| mask_from(b, features, 0, bound, 0.0))
}

/// `c = φ(Q) z + rowsum(A)` of each row.
fn normaliser(b: &mut Builder, q: ValueId, z: ValueId, a: ValueId) -> ValueId {
    let rows = b.ty(q).shape[0];
    let z = b.expand_rows(z, rows);
    let before = b.mul(q, z);
    let before = b.sum(1, before);
    let within = b.sum(1, a);
    b.add(before, within)
}

/// The sums of one key/value head in memory: before each chunk, or between tokens.
struct States {
    z: ParamId,
    state: ParamId,
    first: ValueId,
    dim: usize,
}

impl States {
    /// `count` pairs of a head.
    fn new(
        b: &mut Builder,
        [z, state]: [ParamId; 2],
        shape: &HeadShape,
        count: usize,
        at: [ValueId; 2],
    ) -> Self {
        let line = shape.kv_line(b, at[0], at[1]);
        States { z, state, first: b.scale_index(line, count), dim: shape.head_dim }
    }

    fn offsets(&self, b: &mut Builder, index: ValueId) -> [ValueId; 2] {
        let at = b.add(self.first, index);
        [b.scale_index(at, self.dim), b.scale_index(at, self.dim * self.dim)]
    }

    fn load(&self, b: &mut Builder, index: ValueId) -> [ValueId; 2] {
        let [small, large] = self.offsets(b, index);
        let z = b.load(self.z, small, &[self.dim], &[(1, None)]);
        [z, b.load(self.state, large, &[self.dim, self.dim], &[(self.dim, None), (1, None)])]
    }

    fn store(&self, b: &mut Builder, index: ValueId, [z, state]: [ValueId; 2]) {
        let [small, large] = self.offsets(b, index);
        b.store(self.z, small, z, &[(1, None)]);
        b.store(self.state, large, state, &[(self.dim, None), (1, None)]);
    }
}
