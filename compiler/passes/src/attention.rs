//! Attention lowering: every abstract attention node becomes softmax or linear attention, by the kind of its layer.

use linc_ir::{AttentionSpec, Graph, LinearForm, LinearSpec, NodeId, Op, Value};

use crate::error::PassError;
use crate::placement::AttentionKind;

/// Per-model options of the linear layers; the softmax layers have none.
#[derive(Clone, PartialEq, Debug)]
pub struct LinearOptions {
    /// Rotate q and k by position, as the softmax layers do.
    pub rope: bool,
    /// Multiplier of q and k before their softmaxes.
    pub temperature: f64,
    /// Chunk length.
    pub chunk: usize,
    /// How the causal ones are evaluated.
    pub form: LinearForm,
}

impl LinearOptions {
    /// The attributes of a linear layer.
    pub(crate) fn spec(&self, causal: bool) -> LinearSpec {
        let form = if causal { self.form } else { LinearForm::Fused };
        LinearSpec { causal, chunk: self.chunk, temperature: self.temperature, form }
    }
}

/// Lowers all attention nodes; `kinds` has one entry per layer.
///
/// # Errors
/// [`PassError::Missing`] if a node names a layer that `kinds` does not have.
pub fn run(graph: &mut Graph, kinds: &[AttentionKind], options: &LinearOptions) -> Result<(), PassError> {
    let forward: Vec<NodeId> = select(graph, |op| matches!(op, Op::Attention(_)));
    for id in forward {
        lower_forward(graph, id, kinds, options)?;
    }
    let backward: Vec<NodeId> = select(graph, |op| matches!(op, Op::AttentionGrad(_)));
    for id in backward {
        lower_backward(graph, id, kinds, options)?;
    }
    Ok(())
}

fn select(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> Vec<NodeId> {
    graph.nodes().filter(|n| wanted(graph.op(*n))).collect()
}

fn kind_of(spec: &AttentionSpec, kinds: &[AttentionKind]) -> Result<AttentionKind, PassError> {
    kinds.get(spec.layer).copied().ok_or_else(|| {
        PassError::Missing(format!(
            "attention of layer {}, but the layer map has {} layers",
            spec.layer,
            kinds.len()
        ))
    })
}

fn rotates(spec: &AttentionSpec, kind: AttentionKind, options: &LinearOptions) -> bool {
    spec.rope && (kind == AttentionKind::Softmax || options.rope)
}

/// 1/√head_dim.
pub(crate) fn softmax_scale(graph: &Graph, q: Value) -> f64 {
    1.0 / (graph.ty(q).shape.last() as f64).sqrt()
}

fn lower_forward(
    graph: &mut Graph,
    id: NodeId,
    kinds: &[AttentionKind],
    options: &LinearOptions,
) -> Result<(), PassError> {
    let Op::Attention(spec) = graph.op(id).clone() else { return Ok(()) };
    let operands = graph.operands(id);
    let kind = kind_of(&spec, kinds)?;
    let scope = graph.set_scope(graph.node(id).scope.clone());
    let (mut q, mut k) = (operands[0], operands[1]);
    if rotates(&spec, kind, options) {
        q = graph.push(Op::Rope { inverse: false }, &[q, operands[3]])?;
        k = graph.push(Op::Rope { inverse: false }, &[k, operands[3]])?;
    }
    let op = match kind {
        AttentionKind::Softmax => {
            Op::SoftmaxAttention { causal: spec.causal, scale: softmax_scale(graph, q) }
        }
        AttentionKind::Linear => Op::LinearAttention(options.spec(spec.causal)),
    };
    let out = graph.push(op, &[q, k, operands[2]])?;
    graph.set_scope(scope);
    graph.replace_uses(Value { node: id, port: 0 }, out);
    graph.remove(id);
    Ok(())
}

fn lower_backward(
    graph: &mut Graph,
    id: NodeId,
    kinds: &[AttentionKind],
    options: &LinearOptions,
) -> Result<(), PassError> {
    let Op::AttentionGrad(spec) = graph.op(id).clone() else { return Ok(()) };
    let operands = graph.operands(id);
    let (out, dout) = (operands[3], operands[4]);
    let kind = kind_of(&spec, kinds)?;
    // `out` names the lowered forward node: its operands are q and k as rotated, its other results are what it saved.
    let mut inputs = graph.operands(out.node);
    inputs.extend(graph.results(out.node));
    inputs.push(dout);
    let op = match graph.op(out.node) {
        Op::SoftmaxAttention { causal, scale } => Op::SoftmaxAttentionGrad { causal: *causal, scale: *scale },
        Op::LinearAttention(spec) => Op::LinearAttentionGrad(spec.clone()),
        other => {
            return Err(PassError::Missing(format!(
                "the forward of an attention gradient, found {}",
                other.name()
            )));
        }
    };
    let scope = graph.set_scope(graph.node(id).scope.clone());
    let grad = graph.add(op, &inputs)?;
    for port in 0..3 {
        let mut d = Value { node: grad, port };
        if port < 2 && rotates(&spec, kind, options) {
            d = graph.push(Op::Rope { inverse: true }, &[d, operands[5]])?;
        }
        graph.replace_uses(Value { node: id, port }, d);
    }
    graph.set_scope(scope);
    graph.remove(id);
    Ok(())
}
