//! Decoding: attention over one new token, with a key/value cache for softmax layers and a recurrent state for linear
//! ones. The position is a runtime scalar, so one compiled program serves every token.

use linc_ir::{Graph, NodeId, Op, TensorType, Value};

use crate::attention::{LinearOptions, softmax_scale};
use crate::error::PassError;
use crate::placement::AttentionKind;

/// Name of the position input: i32 `[1]`, number of tokens before this one.
pub const POSITION: &str = "position";

/// Lowers the attention of a graph built for one token; caches hold `context` tokens.
///
/// # Errors
/// [`PassError::Missing`] for a layer without a kind, [`PassError::Setting`] for non-causal attention.
pub fn run(
    graph: &mut Graph,
    kinds: &[AttentionKind],
    options: &LinearOptions,
    context: usize,
) -> Result<(), PassError> {
    let outer = graph.set_scope("decode");
    let position = graph.push(Op::Input { name: POSITION.into(), ty: TensorType::i32([1]) }, &[])?;
    let nodes: Vec<NodeId> = graph.nodes().filter(|n| matches!(graph.op(*n), Op::Attention(_))).collect();
    for id in nodes {
        let Op::Attention(spec) = graph.op(id).clone() else { continue };
        if !spec.causal {
            return Err(PassError::Setting(format!(
                "layer {} is not causal and cannot generate",
                spec.layer
            )));
        }
        let kind = *kinds.get(spec.layer).ok_or_else(|| {
            PassError::Missing(format!("layer {} has no attention kind ({} layers)", spec.layer, kinds.len()))
        })?;
        graph.set_scope(graph.node(id).scope.clone());
        let x = graph.operands(id);
        let (mut q, mut k) = (x[0], x[1]);
        if spec.rope && (kind == AttentionKind::Softmax || options.rope) {
            q = graph.push(Op::Rope { inverse: false }, &[q, x[3], position])?;
            k = graph.push(Op::Rope { inverse: false }, &[k, x[3], position])?;
        }
        let dims = graph.ty(k).shape.0.clone();
        let (b, g, d) = (dims[0], dims[2], dims[3]);
        let (op, states) = match kind {
            AttentionKind::Softmax => {
                let cache: linc_ir::Shape = [b, context, g, d].into();
                let op = Op::SoftmaxDecode { scale: softmax_scale(graph, q) };
                (op, vec![("cache_k", cache.clone()), ("cache_v", cache)])
            }
            AttentionKind::Linear => {
                let row: linc_ir::Shape = [b, g, d].into();
                let op = Op::LinearDecode { temperature: options.temperature };
                (op, vec![("state_max", row.clone()), ("state_sum", row), ("state", [b, g, d, d].into())])
            }
        };
        let mut operands = vec![q, k, x[2]];
        let mut leaves = vec![];
        for (name, shape) in states {
            let name = format!("layers.{}.attention.{name}", spec.layer);
            let leaf = graph.add(Op::State { name, ty: TensorType::f32(shape) }, &[])?;
            operands.push(Value { node: leaf, port: 0 });
            leaves.push(leaf);
        }
        operands.push(position);
        let step = graph.add(op, &operands)?;
        for (i, leaf) in leaves.into_iter().enumerate() {
            graph.updates.push((leaf, Value { node: step, port: i as u32 + 1 }));
        }
        graph.replace_uses(Value { node: id, port: 0 }, Value { node: step, port: 0 });
        graph.remove(id);
    }
    graph.set_scope(outer);
    Ok(())
}
