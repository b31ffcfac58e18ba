//! Documents that are packed into one sequence and see nothing of each other.
//!
//! Attention gets the position of each token in its document as one more operand. It sees no further back than to the
//! document's start, and rotates by that position, so that a document is computed as if it stood alone. Whatever else makes
//! something of several positions would carry over from one document to the next, and is refused.

use linc_ir::{Graph, NodeId, Op, TensorType, Value};

use super::{POSITIONS, run};
use crate::error::PassError;

/// Adds the input [`POSITIONS`] to a whole model as it was built, and gives it to each attention.
///
/// # Errors
/// [`PassError::MixesDocuments`] with what else than causal attention sees several positions, or is different at each.
pub fn keep_apart(graph: &mut Graph) -> Result<(), PassError> {
    let input = graph.nodes().find_map(|id| match graph.op(id) {
        Op::Input { ty, .. } if ty.shape.rank() == 2 => Some(ty.shape.clone()),
        _ => None,
    });
    let shape = input.ok_or_else(|| PassError::Missing("the model has no input of tokens".into()))?;
    // A sequence of one token is one document.
    if shape.0[1] > 1 {
        check(graph)?;
    }
    let ty = TensorType::i32(shape);
    let positions = graph.push(Op::Input { name: POSITIONS.into(), ty }, &[])?;
    let attentions: Vec<NodeId> =
        graph.nodes().filter(|id| matches!(graph.op(*id), Op::Attention(_))).collect();
    for id in attentions {
        let op = graph.op(id).clone();
        let operands = [&graph.operands(id)[..], &[positions]].concat();
        let outer = graph.set_scope(graph.node(id).scope.clone());
        let apart = graph.push(op, &operands)?;
        graph.set_scope(outer);
        graph.replace_uses(Value { node: id, port: 0 }, apart);
        graph.remove(id);
    }
    Ok(())
}

/// Where single tokens can be computed by themselves but for attention, so can documents.
fn check(graph: &Graph) -> Result<(), PassError> {
    match run(graph, 1, 1) {
        Ok(part) if part.longest.is_some() => Err(PassError::MixesDocuments {
            node: None,
            message: "the model has a table with a row for each position of the sequence (learned positions), which does not begin anew with each document".into(),
        }),
        Ok(_) => Ok(()),
        Err(PassError::MixesPositions { node, message }) => {
            Err(PassError::MixesDocuments { node: Some(node), message })
        }
        Err(other) => Err(other),
    }
}
