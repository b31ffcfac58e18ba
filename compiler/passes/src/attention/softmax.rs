//! Softmax attention: scores times 1/√head_dim, and a cache of keys and values.

use linc_ir::{Graph, Op, SoftmaxOp, StateRole, Value};

use super::{KindLowering, Step, Tokens};
use crate::error::PassError;

/// Options of softmax attention.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SoftmaxOptions {
    /// Keys of a part of the work on one token, if it is split.
    pub decode_range: Option<usize>,
}

/// 1/√head_dim.
fn scale(graph: &Graph, q: Value) -> f64 {
    1.0 / (graph.ty(q).shape.last() as f64).sqrt()
}

impl KindLowering for SoftmaxOptions {
    fn rotates(&self) -> bool {
        true
    }

    fn forward(&self, graph: &Graph, q: Value, causal: bool) -> Op {
        SoftmaxOp::Forward { causal, scale: scale(graph, q) }.into()
    }

    fn decode(&self, graph: &mut Graph, tokens: &Tokens) -> Result<Step, PassError> {
        let [_, n, g, d] = graph.ty(tokens.k).shape.0[..] else {
            return Err(PassError::Missing("keys [batch, seq, heads, head_dim]".into()));
        };
        let range = if n == 1 { self.decode_range } else { None };
        let cache: linc_ir::Shape = [tokens.room.slots, tokens.room.context, g, d].into();
        Ok(Step {
            op: SoftmaxOp::Decode { scale: scale(graph, tokens.q), range }.into(),
            k: tokens.k,
            role: StateRole::KeyValueCache,
            states: vec![("cache_k", cache.clone()), ("cache_v", cache)],
        })
    }

    fn refuses_documents(&self) -> Option<String> {
        None
    }

    fn refuses_blocks(&self) -> Option<String> {
        None
    }

    /// What follows the last token is in places of the cache that are written before they are read.
    fn needs_mask(&self) -> bool {
        false
    }
}
