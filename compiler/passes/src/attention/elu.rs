//! Linear attention with elu features: its options and its recurrent state.

use linc_ir::{EluOp, EluSpec, Graph, Op, StateRole, Value};

use super::{KindLowering, Step, Tokens};
use crate::error::PassError;

/// Options of attention with elu features.
#[derive(Clone, PartialEq, Debug)]
pub struct EluOptions {
    /// Rotate q and k by position, as the softmax layers do.
    pub rope: bool,
    /// Chunk length.
    pub chunk: usize,
}

impl KindLowering for EluOptions {
    fn rotates(&self) -> bool {
        self.rope
    }

    fn forward(&self, _: &Graph, _: Value, causal: bool) -> Op {
        EluOp::Forward(EluSpec { causal, chunk: self.chunk }).into()
    }

    fn decode(&self, graph: &mut Graph, tokens: &Tokens) -> Result<Step, PassError> {
        let [_, _, g, d] = graph.ty(tokens.k).shape.0[..] else {
            return Err(PassError::Missing("keys [batch, seq, heads, head_dim]".into()));
        };
        let slots = tokens.room.slots;
        Ok(Step {
            op: EluOp::Decode(EluSpec { causal: true, chunk: self.chunk }).into(),
            k: tokens.k,
            role: StateRole::Recurrent,
            states: vec![("elu_sum", [slots, g, d].into()), ("elu_state", [slots, g, d, d].into())],
        })
    }

    fn refuses_documents(&self) -> Option<String> {
        Some("layers with elu features cannot keep the documents of a sequence apart".into())
    }

    fn refuses_blocks(&self) -> Option<String> {
        Some("layers with elu features take a prompt token by token".into())
    }

    /// Its programs are for one token, and that token is never padding.
    fn needs_mask(&self) -> bool {
        false
    }
}
