//! Gradients of embeddings by a sort of the tokens, for machines on which thousands of programs would else look at all
//! ids. Each sum has the same order, so the result has the same bits.

use linc_ir::op::SORTED_TOKENS;
use linc_ir::{Graph, NodeId, Op, Value};

use crate::error::PassError;

/// Lets every gradient of an embedding sort its tokens, if they are not too many to be counted.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph) -> Result<(), PassError> {
    let gradients: Vec<NodeId> =
        graph.nodes().filter(|n| matches!(graph.op(*n), Op::EmbeddingGrad { sorted: false, .. })).collect();
    for id in gradients {
        let operands = graph.operands(id);
        let Op::EmbeddingGrad { vocab, .. } = *graph.op(id) else { continue };
        if graph.ty(operands[0]).shape.numel() > SORTED_TOKENS {
            continue;
        }
        let outer = graph.set_scope(graph.node(id).scope.clone());
        let node = graph.add(Op::EmbeddingGrad { vocab, sorted: true }, &operands)?;
        graph.set_scope(outer);
        graph.replace_uses(Value { node: id, port: 0 }, Value { node, port: 0 });
        graph.remove(id);
    }
    Ok(())
}
