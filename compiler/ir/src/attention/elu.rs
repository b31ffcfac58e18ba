//! Linear attention with the features elu(x) + 1 (Katharopoulos et al., arXiv 2006.16236), causal: the plainest kind with a
//! recurrent state. No setting gives layers this kind; it shows what a kind is made of, and tests keep it right.

use linc_text::Parsed;

use super::{KindOp, KindOperation};
use crate::attributes::Attributes;
use crate::facts::{Facts, OperandTypes, Overwrites, QKV, Strides, compute};
use crate::infer::{Check, HeadSizes, Types};
use crate::types::TensorType;

/// Attributes of attention with elu features.
#[derive(Clone, PartialEq, Debug)]
pub struct EluSpec {
    /// Must hold: there are no other kernels.
    pub causal: bool,
    /// Chunk length C of the walk over the sequence.
    pub chunk: usize,
}

/// The operations of attention with elu features. With φ(x) = elu(x) + 1, `state_t = Σ_{s≤t} φ(k_s) v_sᵀ` and
/// `z_t = Σ_{s≤t} φ(k_s)`: `out_t = φ(q_t) state_t / (φ(q_t)·z_t)`.
#[derive(Clone, PartialEq, Debug)]
pub enum EluOp {
    /// `(q [B,N,H,D], k [B,N,G,D], v) -> (out, z [B,G,S,D], state [B,G,S,D,D])`, both before each of S = ceil(N/C) chunks.
    Forward(EluSpec),
    /// `(q, k, v, out, z, state, dout) -> (dq, dk, dv)`
    Backward(EluSpec),
    /// `(q [B,1,H,D], k [B,1,G,D], v, z [S,G,D], state [S,G,D,D], pos i32[B], slot i32[B]) -> (out, z', state')`: the next
    /// token of each sequence, with both of its slot, which are ignored at `pos` 0; slots are different.
    Decode(EluSpec),
}

impl EluOp {
    pub(super) fn parse(name: &str, a: &mut Attributes) -> Parsed<Option<Self>> {
        let operation = match name {
            "elu_attention" => EluOp::Forward,
            "elu_attention_grad" => EluOp::Backward,
            "elu_decode" => EluOp::Decode,
            _ => return Ok(None),
        };
        Ok(Some(operation(EluSpec { causal: a.bool("causal")?, chunk: a.usize("chunk")? })))
    }

    fn spec(&self) -> &EluSpec {
        let (EluOp::Forward(spec) | EluOp::Backward(spec) | EluOp::Decode(spec)) = self;
        spec
    }
}

impl KindOperation for EluOp {
    fn name(&self) -> &'static str {
        match self {
            EluOp::Forward(_) => "elu_attention",
            EluOp::Backward(_) => "elu_attention_grad",
            EluOp::Decode(_) => "elu_decode",
        }
    }

    fn gradient(&self) -> Option<KindOp> {
        match self {
            EluOp::Forward(spec) => Some(KindOp::Elu(EluOp::Backward(spec.clone()))),
            EluOp::Backward(_) | EluOp::Decode(_) => None,
        }
    }

    fn facts(&self) -> &'static Facts {
        use OperandTypes::Narrow;
        use Strides::Heads;
        match self {
            EluOp::Forward(_) => {
                const { &Facts { reads: Heads(QKV), writes: Heads(&[0]), ..compute(Narrow(QKV), &[]) } }
            }
            EluOp::Backward(_) => {
                const {
                    &Facts {
                        reads: Heads(&[0, 1, 2, 3, 6]),
                        writes: Heads(&[0, 1, 2]),
                        is_attention_gradient: true,
                        ..compute(Narrow(&[0, 1, 2, 3, 6]), &[])
                    }
                }
            }
            EluOp::Decode(_) => {
                const {
                    &Facts {
                        overwrites: Overwrites::Always(&[(1, 3), (2, 4)]),
                        reads: Heads(QKV),
                        ..compute(Narrow(QKV), &[5, 6])
                    }
                }
            }
        }
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![("chunk", self.spec().chunk)]
    }

    fn results(&self, check: &Check<'_>, HeadSizes { b, n, g, d, .. }: HeadSizes) -> Types {
        if !self.spec().causal {
            return check.fail("only causal attention has elu features");
        }
        let s = n.div_ceil(self.spec().chunk);
        match self {
            EluOp::Forward(_) => {
                check.arity(3..=3)?;
                Ok(vec![check.like(0), TensorType::f32([b, g, s, d]), TensorType::f32([b, g, s, d, d])])
            }
            EluOp::Backward(_) => {
                check.arity(7..=7)?;
                check.same(3, check.shape(0), "q")?;
                check.same(4, &[b, g, s, d].into(), "the sums of keys")?;
                check.same(5, &[b, g, s, d, d].into(), "the state")?;
                check.same(6, check.shape(0), "q")?;
                check.one_dtype(&[0, 3, 6])?;
                (4..6).try_for_each(|i| check.full(i))?;
                Ok(vec![check.like(0), check.like(1), check.like(2)])
            }
            EluOp::Decode(_) => {
                check.arity(7..=7)?;
                if n != 1 {
                    return check.fail(format!("decodes one token, q has {n}"));
                }
                check.rank(3, 3, "the sum of keys [slots, kv_heads, head_dim]")?;
                let slots = check.shape(3).dims()[0];
                check.same(3, &[slots, g, d].into(), "the sum of keys")?;
                check.same(4, &[slots, g, d, d].into(), "the state")?;
                (3..5).try_for_each(|i| check.full(i))?;
                check.places(5, b, slots)?;
                Ok(vec![check.like(0), check.like(3), check.like(4)])
            }
        }
    }

    fn attributes(&self) -> Vec<String> {
        let EluSpec { causal, chunk } = self.spec();
        vec![format!("causal = {causal}"), format!("chunk = {chunk}")]
    }
}
