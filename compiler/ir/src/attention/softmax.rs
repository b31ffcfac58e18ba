//! Softmax attention: `softmax(q kᵀ·scale) v`, and its cache.

use linc_text::Parsed;

use super::{KindOp, KindOperation};
use crate::attributes::Attributes;
use crate::facts::{Facts, OperandTypes, Overwrites, QKV, Strides, Walks, compute};
use crate::infer::{Check, HeadSizes, Types};
use crate::types::TensorType;

/// The operations of softmax attention.
#[derive(Clone, PartialEq, Debug)]
pub enum SoftmaxOp {
    /// `(q [B,N,H,D], k [B,N,G,D], v, positions i32[B,N]?) -> (out, lse [B,H,N])`: flash form; `lse` is the natural-log row
    /// logsumexp. With `positions`, each query sees keys of its own document only.
    Forward {
        /// Causal mask.
        causal: bool,
        /// Score multiplier, usually D^-1/2.
        scale: f64,
    },
    /// `(q, k, v, out, lse, dout, positions?) -> (dq, dk, dv, delta [B,H,N])`; `delta = rowsum(out*dout)` is workspace.
    Backward {
        /// Causal mask.
        causal: bool,
        /// Score multiplier.
        scale: f64,
    },
    /// `(q [B,N,H,D], k [B,N,G,D], v [B,N,G,D], kcache [S,L,G,D], vcache [S,L,G,D], pos i32[B], slot i32[B])
    /// -> (out [B,N,H,D], kcache', vcache')`: the next N tokens of each sequence, `pos` + N at most L, with the caches of
    /// its slot; slots are different. Writes k, v from `pos` on, then each query attends over all positions up to its own. If split, also workspaces, f32, of P = ceil(L/range) parts of the
    /// positions before `pos`: the largest score `top [B,G,P,H/G]`, and relative to it `sum [B,G,P,H/G]` and `acc [B,G,P,H/G,D]`.
    Decode {
        /// Score multiplier.
        scale: f64,
        /// Keys that a part of the work has, if it is split; of one token only.
        range: Option<usize>,
    },
}

impl SoftmaxOp {
    pub(super) fn parse(name: &str, a: &mut Attributes) -> Parsed<Option<Self>> {
        Ok(Some(match name {
            "softmax_attention" => SoftmaxOp::Forward { causal: a.bool("causal")?, scale: a.f64("scale")? },
            "softmax_attention_grad" => {
                SoftmaxOp::Backward { causal: a.bool("causal")?, scale: a.f64("scale")? }
            }
            "softmax_decode" => SoftmaxOp::Decode {
                scale: a.f64("scale")?,
                range: if a.has("range") { Some(a.usize("range")?) } else { None },
            },
            _ => return Ok(None),
        }))
    }
}

impl KindOperation for SoftmaxOp {
    fn name(&self) -> &'static str {
        match self {
            SoftmaxOp::Forward { .. } => "softmax_attention",
            SoftmaxOp::Backward { .. } => "softmax_attention_grad",
            SoftmaxOp::Decode { .. } => "softmax_decode",
        }
    }

    fn gradient(&self) -> Option<KindOp> {
        match *self {
            SoftmaxOp::Forward { causal, scale } => {
                Some(KindOp::Softmax(SoftmaxOp::Backward { causal, scale }))
            }
            SoftmaxOp::Backward { .. } | SoftmaxOp::Decode { .. } => None,
        }
    }

    fn facts(&self) -> &'static Facts {
        use OperandTypes::Narrow;
        use Strides::Heads;
        match self {
            SoftmaxOp::Forward { .. } => {
                const {
                    &Facts {
                        reads: Heads(QKV),
                        writes: Heads(&[0]),
                        walks: Walks { reads: QKV, adds: &[] },
                        ..compute(Narrow(QKV), &[3])
                    }
                }
            }
            SoftmaxOp::Backward { .. } => {
                const {
                    &Facts {
                        reads: Heads(&[0, 1, 2, 3, 5]),
                        writes: Heads(&[0, 1, 2]),
                        walks: Walks { reads: &[0, 1, 2, 5], adds: &[0] },
                        is_attention_gradient: true,
                        ..compute(Narrow(&[0, 1, 2, 3, 5]), &[6])
                    }
                }
            }
            SoftmaxOp::Decode { .. } => {
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
        match self {
            SoftmaxOp::Forward { .. } | SoftmaxOp::Backward { .. } => vec![],
            SoftmaxOp::Decode { range, .. } => range.map(|range| ("range", range)).into_iter().collect(),
        }
    }

    fn results(&self, check: &Check<'_>, heads: HeadSizes) -> Types {
        let HeadSizes { b, n, h, g, d } = heads;
        match self {
            SoftmaxOp::Forward { causal, .. } => {
                check.arity(3..=4)?;
                check.documents(3, heads, *causal)?;
                Ok(vec![check.like(0), TensorType::f32([b, h, n])])
            }
            SoftmaxOp::Backward { causal, .. } => {
                check.arity(6..=7)?;
                check.documents(6, heads, *causal)?;
                check.same(3, check.shape(0), "q")?;
                check.same(4, &[b, h, n].into(), "the row logsumexp")?;
                check.same(5, check.shape(0), "q")?;
                check.one_dtype(&[0, 3, 5])?;
                check.full(4)?;
                Ok(vec![check.like(0), check.like(1), check.like(2), TensorType::f32([b, h, n])])
            }
            SoftmaxOp::Decode { range, .. } => {
                check.arity(7..=7)?;
                check.rank(3, 4, "a cache [slots, len, kv_heads, head_dim]")?;
                let (slots, len) = (check.shape(3).dims()[0], check.shape(3).dims()[1]);
                check.same(3, &[slots, len.max(n), g, d].into(), "the cache")?;
                check.same(4, &[slots, len, g, d].into(), "the cache")?;
                check.one_dtype(&[3, 4])?;
                check.places(5, b, slots)?;
                let mut results = vec![check.like(0), check.like(3), check.like(4)];
                if let Some(range) = range {
                    if n != 1 {
                        return check.fail(format!("only one token's work is split, q has {n}"));
                    }
                    let parts = len.div_ceil(*range);
                    results.extend([
                        TensorType::f32([b, g, parts, h / g]),
                        TensorType::f32([b, g, parts, h / g]),
                    ]);
                    results.push(TensorType::f32([b, g, parts, h / g, d]));
                }
                Ok(results)
            }
        }
    }

    fn attributes(&self) -> Vec<String> {
        match self {
            SoftmaxOp::Forward { causal, scale } | SoftmaxOp::Backward { causal, scale } => {
                vec![format!("causal = {causal}"), format!("scale = {scale:?}")]
            }
            SoftmaxOp::Decode { scale, range } => {
                let range = range.map(|range| format!("range = {range}"));
                [format!("scale = {scale:?}")].into_iter().chain(range).collect()
            }
        }
    }
}
