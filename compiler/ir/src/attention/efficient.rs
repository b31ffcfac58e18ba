//! Efficient attention (Shen et al., arXiv 1812.01243), made causal: linear attention whose features are softmaxes, and its
//! recurrent state.

use linc_text::Parsed;

use super::{KindOp, KindOperation};
use crate::attributes::Attributes;
use crate::error::IrError;
use crate::facts::{Facts, OperandTypes, Overwrites, QKV, Strides, compute};
use crate::infer::{Check, HeadSizes, Types};
use crate::types::TensorType;

/// How causal efficient attention is evaluated. The result is the same; what suits a machine differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EfficientForm {
    /// One walk over the sequence per key/value head: least work and memory, for few processors.
    #[default]
    Fused,
    /// All chunks at once, with the states passed from chunk to chunk in between: for many processors. The gradient has
    /// workspaces.
    Chunked,
}

impl EfficientForm {
    /// As an attribute in the text form, where the default is not said.
    fn attribute(self) -> Option<String> {
        match self {
            EfficientForm::Fused => None,
            EfficientForm::Chunked => Some("form = chunked".into()),
        }
    }

    /// Reads [`EfficientForm::attribute`].
    fn parse(a: &mut Attributes) -> Parsed<Self> {
        Ok(if a.has_word("form", "chunked")? { EfficientForm::Chunked } else { EfficientForm::Fused })
    }
}

/// Attributes of efficient attention.
#[derive(Clone, PartialEq, Debug)]
pub struct EfficientSpec {
    /// Column softmax over the prefix (true) or the whole sequence (false).
    pub causal: bool,
    /// Chunk length C of the chunked evaluation.
    pub chunk: usize,
    /// Multiplier of q and k before their softmaxes.
    pub temperature: f64,
    /// How it is evaluated; `Fused` if not causal.
    pub form: EfficientForm,
}

/// The operations of efficient attention.
#[derive(Clone, PartialEq, Debug)]
pub enum EfficientOp {
    /// `(q [B,N,H,D], k [B,N,G,D], v, positions i32[B,N]?) -> (out, ell [B,G,S,D], state [B,G,S,D,D])`, S = number of saved
    /// states: ceil(N/C) causal (the state before each chunk), 1 otherwise. `ell` is the logsumexp of k so far, `state` the
    /// normalised sum of k̂ vᵀ. With `positions`, both begin anew with each document: what is saved is of the document of the
    /// token before the chunk.
    Forward(EfficientSpec),
    /// `(q, k, v, out, ell, state, dout, positions?) -> (dq, dk, dv)`; in the chunked form also workspaces, all f32:
    /// `delta [B,H,N]`, `d [B,G,S,D,D]`, `rho [B,G,S,D]` and `dk_part [B,N,G,D]`.
    Backward(EfficientSpec),
    /// `(q [B,N,H,D], k [B,N,G,D], v [B,N,G,D], m [S,G,D], z [S,G,D], t [S,G,D,D], pos i32[B], slot i32[B])
    /// -> (out [B,N,H,D], m', z', t')`: the next N tokens of each sequence in the unnormalised recurrent form, with the state
    /// of its slot, which is ignored at `pos` 0; slots are different.
    /// In the chunked form also workspaces, f32: `ell [B,G,C',D]` and `state [B,G,C',D,D]`, C' = ceil(N/C).
    Decode(EfficientSpec),
}

impl EfficientSpec {
    /// Number S of states kept for the backward of a sequence of `n` tokens.
    pub fn saved_states(&self, n: usize) -> usize {
        if self.causal { n.div_ceil(self.chunk) } else { 1 }
    }

    fn parse(a: &mut Attributes) -> Parsed<Self> {
        let (causal, chunk) = (a.bool("causal")?, a.usize("chunk")?);
        Ok(EfficientSpec {
            causal,
            chunk,
            temperature: a.f64("temperature")?,
            form: EfficientForm::parse(a)?,
        })
    }

    fn check_form(&self, check: &Check<'_>) -> Result<(), IrError> {
        if self.form == EfficientForm::Chunked && !self.causal {
            return check.fail("only causal attention has a chunked form");
        }
        Ok(())
    }
}

impl EfficientOp {
    pub(super) fn parse(name: &str, a: &mut Attributes) -> Parsed<Option<Self>> {
        Ok(Some(match name {
            "efficient_attention" => EfficientOp::Forward(EfficientSpec::parse(a)?),
            "efficient_attention_grad" => EfficientOp::Backward(EfficientSpec::parse(a)?),
            "efficient_decode" => EfficientOp::Decode(EfficientSpec::parse(a)?),
            _ => return Ok(None),
        }))
    }

    /// The attributes, which all operations have.
    pub fn spec(&self) -> &EfficientSpec {
        let (EfficientOp::Forward(spec) | EfficientOp::Backward(spec) | EfficientOp::Decode(spec)) = self;
        spec
    }
}

impl KindOperation for EfficientOp {
    fn name(&self) -> &'static str {
        match self {
            EfficientOp::Forward(_) => "efficient_attention",
            EfficientOp::Backward(_) => "efficient_attention_grad",
            EfficientOp::Decode(_) => "efficient_decode",
        }
    }

    fn gradient(&self) -> Option<KindOp> {
        match self {
            EfficientOp::Forward(spec) => Some(KindOp::Efficient(EfficientOp::Backward(spec.clone()))),
            EfficientOp::Backward(_) | EfficientOp::Decode(_) => None,
        }
    }

    fn facts(&self) -> &'static Facts {
        use OperandTypes::Narrow;
        use Strides::Heads;
        match self {
            EfficientOp::Forward(_) => {
                const { &Facts { reads: Heads(QKV), writes: Heads(&[0]), ..compute(Narrow(QKV), &[3]) } }
            }
            EfficientOp::Backward(_) => {
                const {
                    &Facts {
                        reads: Heads(&[0, 1, 2, 3, 6]),
                        writes: Heads(&[0, 1, 2]),
                        is_attention_gradient: true,
                        ..compute(Narrow(&[0, 1, 2, 3, 6]), &[7])
                    }
                }
            }
            EfficientOp::Decode(_) => {
                const {
                    &Facts {
                        overwrites: Overwrites::Always(&[(1, 3), (2, 4), (3, 5)]),
                        reads: Heads(QKV),
                        ..compute(Narrow(QKV), &[6, 7])
                    }
                }
            }
        }
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![("chunk", self.spec().chunk)]
    }

    fn results(&self, check: &Check<'_>, heads: HeadSizes) -> Types {
        let HeadSizes { b, n, h, g, d } = heads;
        match self {
            EfficientOp::Forward(spec) => {
                check.arity(3..=4)?;
                check.documents(3, heads, spec.causal)?;
                spec.check_form(check)?;
                let s = spec.saved_states(n);
                Ok(vec![check.like(0), TensorType::f32([b, g, s, d]), TensorType::f32([b, g, s, d, d])])
            }
            EfficientOp::Backward(spec) => {
                check.arity(7..=8)?;
                check.documents(7, heads, spec.causal)?;
                spec.check_form(check)?;
                let s = spec.saved_states(n);
                check.same(3, check.shape(0), "q")?;
                check.same(4, &[b, g, s, d].into(), "the key logsumexp")?;
                check.same(5, &[b, g, s, d, d].into(), "the state")?;
                check.same(6, check.shape(0), "q")?;
                check.one_dtype(&[0, 3, 6])?;
                check.full(4)?;
                check.full(5)?;
                let mut results = vec![check.like(0), check.like(1), check.like(2)];
                if spec.form == EfficientForm::Chunked {
                    results.push(TensorType::f32([b, h, n]));
                    results.push(TensorType::f32([b, g, s, d, d]));
                    results.push(TensorType::f32([b, g, s, d]));
                    results.push(TensorType::f32([b, n, g, d]));
                }
                Ok(results)
            }
            EfficientOp::Decode(spec) => {
                check.arity(8..=8)?;
                if !spec.causal {
                    return check.fail("only causal attention decodes");
                }
                check.rank(3, 3, "the running maximum [slots, kv_heads, head_dim]")?;
                let slots = check.shape(3).dims()[0];
                check.same(3, &[slots, g, d].into(), "the running maximum")?;
                check.same(4, &[slots, g, d].into(), "the running sum")?;
                check.same(5, &[slots, g, d, d].into(), "the state")?;
                (3..6).try_for_each(|i| check.full(i))?;
                check.places(6, b, slots)?;
                let mut results = vec![check.like(0), check.like(3), check.like(4), check.like(5)];
                if spec.form == EfficientForm::Chunked {
                    let s = spec.saved_states(n);
                    results.push(TensorType::f32([b, g, s, d]));
                    results.push(TensorType::f32([b, g, s, d, d]));
                }
                Ok(results)
            }
        }
    }

    fn attributes(&self) -> Vec<String> {
        let spec = self.spec();
        let mut attributes = vec![
            format!("causal = {}", spec.causal),
            format!("chunk = {}", spec.chunk),
            format!("temperature = {:?}", spec.temperature),
        ];
        attributes.extend(spec.form.attribute());
        attributes
    }
}
