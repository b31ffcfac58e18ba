//! What the attentions of a model do with what [`crate::Entry::Look`] shows of them.

use linc_ir::{AttentionKind, DType, KindOp};
use linc_passes::attention::exposed::{self, KindForward};
use linc_passes::precision::Precision;

pub use linc_ir::interp::HeadWeights;

use crate::error::CompileError;
use crate::model::Model;
use crate::{Target, decode_support};

/// Over how many things weights that sum to 1 are spread: `1 / Σ a²`, from 1 to their number.
pub fn effective_count(weights: &[f64]) -> f64 {
    1.0 / weights.iter().map(|a| a * a).sum::<f64>().max(1e-300)
}

/// An attention of a model, numbered as in [`crate::names::Exposed`].
#[derive(Clone, PartialEq, Debug)]
pub struct LookedAt {
    /// Its layer, from 0.
    pub layer: usize,
    /// The kind of its layer.
    pub kind: AttentionKind,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads, each of which serves as many query heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    op: KindOp,
}

/// The attentions of a model.
///
/// # Errors
/// As [`crate::compile`].
pub fn looked_at(model: &Model, target: Target) -> Result<Vec<LookedAt>, CompileError> {
    let (graph, _) = decode_support::scored(model, 1, model.shape.seq, model.shape.seq)?;
    let forwards = exposed::forwards(graph, &model.kinds, &model.attention_options(target))?;
    let looked_at = |forward: KindForward| {
        let KindForward { layer, op, heads, kv_heads, head_dim } = forward;
        // The pass has found the kind of each.
        let kind = model.kinds[layer];
        LookedAt { layer, kind, heads, kv_heads, head_dim, op }
    };
    Ok(forwards.into_iter().map(looked_at).collect())
}

impl LookedAt {
    /// The weights of one head; queries and keys `[n, head_dim]`, as the program gives them.
    pub fn weights(&self, q: &[f32], k: &[f32]) -> Box<dyn HeadWeights> {
        let weights = linc_ir::interp::head_weights(&self.op, q, k, self.head_dim);
        weights.expect("the forward of a kind has weights")
    }

    /// Chunks of keys that kernels of a precision take on their fast path, and all; nothing of kinds that have none.
    pub fn fast_chunks(&self, weights: &dyn HeadWeights, precision: Precision) -> Option<[usize; 2]> {
        let (range, headroom) = linc_kernels::fast_path(&self.op, precision.narrow().unwrap_or(DType::F32))?;
        weights.chunks_within(range, headroom)
    }
}
