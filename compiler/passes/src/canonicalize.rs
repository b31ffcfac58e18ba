//! Local rewrites to one form. Every rule is exact in floating point, directed, and never adds work:
//! views that do nothing or undo each other, products with 1, double negation, transposed matmul operands.

use linc_ir::{BinaryOp, Graph, NodeId, Op, UnaryOp, Value};

use crate::error::PassError;

/// Applies the rules in topological order until none fires at a node.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph) -> Result<(), PassError> {
    for id in graph.topological()? {
        fold_transposes(graph, id)?;
        while let Some(same) = equal_value(graph, id)? {
            graph.replace_uses(Value { node: id, port: 0 }, same);
            if same.node == id {
                break;
            }
            if graph.users(Value { node: id, port: 0 }).is_empty() {
                break;
            }
        }
    }
    Ok(())
}

/// A value that equals the single result of `id` at no cost, if a rule finds one.
fn equal_value(graph: &mut Graph, id: NodeId) -> Result<Option<Value>, PassError> {
    let x = graph.operands(id);
    let op = graph.op(id).clone();
    Ok(match &op {
        Op::Reshape { shape } if graph.ty(x[0]).shape == *shape => Some(x[0]),
        Op::Reshape { shape } if matches!(graph.op(x[0].node), Op::Reshape { .. }) => {
            let source = graph.operands(x[0].node)[0];
            let scope = graph.set_scope(graph.node(id).scope.clone());
            let direct = graph.push(Op::Reshape { shape: shape.clone() }, &[source])?;
            graph.set_scope(scope);
            Some(if graph.ty(source).shape == *shape { source } else { direct })
        }
        Op::Broadcast { shape } if graph.ty(x[0]).shape == *shape => Some(x[0]),
        Op::Cast { dtype } if graph.ty(x[0]).dtype == *dtype => Some(x[0]),
        Op::Transpose { perm } if perm.is_sorted() => Some(x[0]),
        Op::Slice { len, axis, .. } if graph.ty(x[0]).shape.0[*axis] == *len => Some(x[0]),
        Op::Pad { before: 0, after: 0, .. } => Some(x[0]),
        Op::Concat { .. } if x.len() == 1 => Some(x[0]),
        Op::Unary(UnaryOp::Neg) if *graph.op(x[0].node) == op => Some(graph.operands(x[0].node)[0]),
        Op::Binary(BinaryOp::Mul) if is_constant(graph, x[1], 1.0) => Some(x[0]),
        Op::Binary(BinaryOp::Mul) if is_constant(graph, x[0], 1.0) => Some(x[1]),
        Op::Binary(BinaryOp::Div) if is_constant(graph, x[1], 1.0) => Some(x[0]),
        Op::Binary(BinaryOp::Sub) if is_constant(graph, x[1], 0.0) => Some(x[0]),
        _ => None,
    })
}

fn is_constant(graph: &Graph, value: Value, expected: f64) -> bool {
    matches!(graph.op(value.node), Op::Constant { value, .. } if *value == expected)
}

/// `matmul(transpose(a), b)` reads `a` transposed instead.
fn fold_transposes(graph: &mut Graph, id: NodeId) -> Result<(), PassError> {
    let Op::MatMul { mut trans_a, mut trans_b, dtype } = *graph.op(id) else { return Ok(()) };
    let operands = graph.operands(id);
    for (position, operand) in operands.iter().enumerate() {
        if matches!(graph.op(operand.node), Op::Transpose { .. }) {
            let source = graph.operands(operand.node)[0];
            graph.set_operand(id, position, source);
            let flag = if position == 0 { &mut trans_a } else { &mut trans_b };
            *flag = !*flag;
        }
    }
    graph.node_mut(id).op = Op::MatMul { trans_a, trans_b, dtype };
    Ok(())
}
