//! Efficient attention: its options, and the recurrent state that stands for all earlier keys.

use linc_ir::{BinaryOp, EfficientForm, EfficientOp, EfficientSpec, Graph, Op, StateRole, TensorType, Value};

use super::{KindLowering, Step, Tokens};
use crate::error::PassError;

/// Options of efficient attention.
#[derive(Clone, PartialEq, Debug)]
pub struct EfficientOptions {
    /// Rotate q and k by position, as the softmax layers do.
    pub rope: bool,
    /// Multiplier of q and k before their softmaxes.
    pub temperature: f64,
    /// Chunk length.
    pub chunk: usize,
    /// How the causal ones are evaluated.
    pub form: EfficientForm,
}

/// A key that weighs nothing beside others, in every number format, at temperatures from [`LEAST_TEMPERATURE`] on.
const NO_KEY: f64 = -6e4;

/// The least temperature at which a prompt can be taken in blocks: `e^(NO_KEY · temperature)` is nothing.
const LEAST_TEMPERATURE: f64 = 0.01;

/// Most tokens of a chunk of a prompt, however many tokens a block of it has.
const PROMPT_CHUNK: usize = 64;

impl EfficientOptions {
    fn spec(&self, causal: bool) -> EfficientSpec {
        let form = if causal { self.form } else { EfficientForm::Fused };
        EfficientSpec { causal, chunk: self.chunk, temperature: self.temperature, form }
    }
}

impl KindLowering for EfficientOptions {
    fn rotates(&self) -> bool {
        self.rope
    }

    fn forward(&self, _: &Graph, _: Value, causal: bool) -> Op {
        EfficientOp::Forward(self.spec(causal)).into()
    }

    fn decode(&self, graph: &mut Graph, tokens: &Tokens) -> Result<Step, PassError> {
        let [_, n, g, d] = graph.ty(tokens.k).shape.0[..] else {
            return Err(PassError::Missing("keys [batch, seq, heads, head_dim]".into()));
        };
        let k = match tokens.mask {
            Some(mask) => hidden(graph, tokens.k, mask)?,
            None => tokens.k,
        };
        let form = if n == 1 { EfficientForm::Fused } else { self.form };
        let chunk = self.chunk.min(n).min(PROMPT_CHUNK);
        let slots = tokens.room.slots;
        let row: linc_ir::Shape = [slots, g, d].into();
        Ok(Step {
            op: EfficientOp::Decode(EfficientSpec { form, chunk, ..self.spec(true) }).into(),
            k,
            role: StateRole::Recurrent,
            states: vec![("state_max", row.clone()), ("state_sum", row), ("state", [slots, g, d, d].into())],
        })
    }

    fn refuses_documents(&self) -> Option<String> {
        None
    }

    fn refuses_blocks(&self) -> Option<String> {
        (self.temperature < LEAST_TEMPERATURE).then(|| {
            format!(
                "layers of efficient attention with a temperature of {} take a prompt token by token (from {LEAST_TEMPERATURE} on, in blocks)",
                self.temperature
            )
        })
    }

    /// The state that a block leaves is of all of its keys.
    fn needs_mask(&self) -> bool {
        true
    }
}

/// Keys `[B, N, G, D]`, [`NO_KEY`] where the mask `[N]` is 0: the least of the keys and of a limit, which is above all
/// keys where it is 1.
fn hidden(graph: &mut Graph, k: Value, mask: Value) -> Result<Value, PassError> {
    let shape = graph.ty(k).shape.clone();
    let column = TensorType::f32([1, shape.0[1], 1, 1]);
    let mut constant = |value: f64| graph.push(Op::Constant { value, ty: column.clone() }, &[]);
    let (most, no_key) = (constant(f64::from(f32::MAX))?, constant(NO_KEY)?);
    let mask = graph.push(Op::Reshape { shape: column.shape }, &[mask])?;
    let limit = graph.push(Op::Binary(BinaryOp::Mul), &[mask, most])?;
    let limit = graph.push(Op::Binary(BinaryOp::Add), &[limit, no_key])?;
    let limit = graph.push(Op::Broadcast { shape }, &[limit])?;
    Ok(graph.push(Op::Binary(BinaryOp::Min), &[k, limit])?)
}
