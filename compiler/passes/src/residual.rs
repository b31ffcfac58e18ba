//! Residual connections: a sum that a norm reads becomes part of the norm, and a sum that adds a norm's gradient part of
//! that gradient, so that neither is stored and read again in between.
//!
//! Both round as the two operations did, so results stay bitwise; but in f32 on a GPU, whose compiler may contract the
//! gradient's last product and the sum.

use std::collections::BTreeMap;

use linc_ir::{BinaryOp, DType, Graph, NodeId, Op, PointOp, Value};

use crate::error::PassError;

/// Moves sums into norms and their gradients.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph) -> Result<(), PassError> {
    let order = graph.topological()?;
    let mut position: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    for id in order {
        // A sum that moved into an earlier norm is gone.
        if !graph.contains(id) {
            continue;
        }
        match graph.op(id) {
            Op::RmsNorm { .. } => into_norm(graph, id, &mut position)?,
            Op::RmsNormGrad { .. } => into_gradient(graph, id, &mut position)?,
            _ => {}
        }
    }
    Ok(())
}

/// `sum = a + b; y = norm(sum, w)` to `(y, sum) = norm(a, w, b)`.
fn into_norm(
    graph: &mut Graph,
    norm: NodeId,
    position: &mut BTreeMap<NodeId, usize>,
) -> Result<(), PassError> {
    let [sum, weight] = graph.operands(norm)[..] else { return Ok(()) };
    let Some([a, b]) = terms(graph, sum) else { return Ok(()) };
    // The backward's copy of a norm reads a sum that is kept; it must not bring the time of the sum to its own.
    if graph.node(sum.node).recompute != graph.node(norm).recompute
        || !exists_before(position, weight, sum.node)
    {
        return Ok(());
    }
    let fused = with_operands(graph, norm, &[a, weight, b])?;
    position.insert(fused, position[&sum.node]);
    graph.replace_uses(Value { node: norm, port: 0 }, Value { node: fused, port: 0 });
    graph.replace_uses(sum, Value { node: fused, port: 1 });
    graph.remove(norm);
    graph.remove(sum.node);
    Ok(())
}

/// `dx, dw = norm_grad(x, w, dy); sum = dx + dres` to `sum, dw = norm_grad(x, w, dy, dres)`.
fn into_gradient(
    graph: &mut Graph,
    gradient: NodeId,
    position: &mut BTreeMap<NodeId, usize>,
) -> Result<(), PassError> {
    let [x, weight, dy] = graph.operands(gradient)[..] else { return Ok(()) };
    let (dx, dw) = (Value { node: gradient, port: 0 }, Value { node: gradient, port: 1 });
    let [(reader, _)] = graph.users(dx)[..] else { return Ok(()) };
    let sum = Value { node: reader, port: 0 };
    let Some(terms) = terms(graph, sum) else { return Ok(()) };
    let Some(other) = terms.into_iter().find(|term| *term != dx) else { return Ok(()) };
    if graph.is_result(dx) || !exists_before(position, other, gradient) {
        return Ok(());
    }
    let fused = with_operands(graph, gradient, &[x, weight, dy, other])?;
    position.insert(fused, position[&gradient]);
    graph.replace_uses(sum, Value { node: fused, port: 0 });
    graph.replace_uses(dw, Value { node: fused, port: 1 });
    graph.remove(reader);
    graph.remove(gradient);
    Ok(())
}

/// A copy of a node with other operands.
fn with_operands(graph: &mut Graph, id: NodeId, operands: &[Value]) -> Result<NodeId, PassError> {
    let node = graph.node(id).clone();
    let outer = graph.set_scope(node.scope);
    let fused = graph.add(node.op, operands)?;
    graph.set_scope(outer);
    graph.node_mut(fused).recompute = node.recompute;
    Ok(fused)
}

/// True if the value does not depend on the node: it is made earlier in some order.
fn exists_before(position: &BTreeMap<NodeId, usize>, value: Value, node: NodeId) -> bool {
    match (position.get(&value.node), position.get(&node)) {
        (Some(value), Some(node)) => value < node,
        _ => false,
    }
}

/// The two terms of a value that is nothing but their sum, all three of one type; their sum in f32 is rounded once.
/// Norms neither read parts of a matrix where they lie nor write over a leaf, as pointwise operations do.
fn terms(graph: &Graph, sum: Value) -> Option<[Value; 2]> {
    if graph.updates.has(sum) {
        return None;
    }
    let operands = graph.operands(sum.node);
    let [a, b] = operands[..] else { return None };
    let ty = graph.ty(sum);
    let alike = graph.ty(a) == ty && graph.ty(b) == ty && ty.dtype.is_float();
    if [a, b].into_iter().any(|term| is_part(graph, term)) {
        return None;
    }
    let adds = match graph.op(sum.node) {
        Op::Binary(BinaryOp::Add) => true,
        Op::Fused(region) => match region.outputs[..] {
            [(output, dtype)] => adds(&region.steps, output, dtype),
            _ => false,
        },
        _ => false,
    };
    (alike && adds).then_some([a, b])
}

/// True if a value is a part of another, or its transpose.
fn is_part(graph: &Graph, mut value: Value) -> bool {
    loop {
        match graph.op(value.node) {
            Op::Slice { .. } | Op::Transpose { .. } => return true,
            Op::Reshape { .. } => value = graph.operands(value.node)[0],
            _ => return false,
        }
    }
}

/// True if a step is the sum of inputs 0 and 1, in either order and in f32, rounded to `dtype`.
fn adds(steps: &[PointOp], output: usize, dtype: DType) -> bool {
    let before = |step: usize, cast: DType| match steps[step] {
        PointOp::Cast(to, from) if to == cast => from,
        _ => step,
    };
    let PointOp::Binary(BinaryOp::Add, a, b) = steps[before(output, dtype)] else { return false };
    let inputs = [a, b].map(|term| match steps[before(term, DType::F32)] {
        PointOp::Input(index) => Some(index),
        _ => None,
    });
    matches!(inputs, [Some(0), Some(1)] | [Some(1), Some(0)])
}
