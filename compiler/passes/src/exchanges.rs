//! Reductions over ranks become what moves elements and what adds them up: an all-to-all, the sum of the parts that came, and
//! for an all-reduce the gather of these sums. So whoever moves elements adds nothing, and sums have one order.
//!
//! What has no equal part for each rank gets zeros behind it; few elements go to all ranks as they are.
//!
//! Where a library adds ([`Reduce::Library`]), sums of many elements stay what they are.

use linc_ir::{ExchangeOp, Graph, Group, NodeId, Op, Reduction, Shape, Value};

use crate::error::PassError;

/// Up to so many elements for each rank, one exchange with all of them is better than two with parts.
const FEW: usize = 1024;

/// Who adds up what ranks exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reduce {
    /// Kernels, in one order on every machine.
    #[default]
    Exact,
    /// The library that moves it, in an order of its own.
    Library,
}

/// Replaces reductions over ranks, and exchanges of a rank with itself.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph, reduce: Reduce) -> Result<(), PassError> {
    for id in graph.topological()? {
        let Op::Exchange(op) = graph.op(id).clone() else { continue };
        let operands = graph.operands(id);
        let outer = graph.set_scope(graph.node(id).scope.clone());
        let result = match &op {
            ExchangeOp::ReduceParts { .. } => None,
            op if op.group().is_some_and(|group| group.size == 1) => match operands[..] {
                [x] => Some(x),
                _ => Some(graph.push(Op::Concat { axis: 0 }, &operands)?),
            },
            ExchangeOp::AllReduce { reduction: Reduction::Sum, .. }
                if reduce == Reduce::Library && graph.ty(operands[0]).shape.numel() > FEW =>
            {
                None
            }
            ExchangeOp::ReduceScatter { .. } if reduce == Reduce::Library => None,
            ExchangeOp::AllReduce { group, reduction } => {
                Some(all_reduce(graph, operands[0], group, *reduction)?)
            }
            ExchangeOp::ReduceScatter { group } => {
                Some(reduced_part(graph, operands[0], group, Reduction::Sum)?)
            }
            ExchangeOp::AllGather { .. } | ExchangeOp::AllToAll { .. } => None,
        };
        graph.set_scope(outer);
        if let Some(result) = result {
            replace(graph, id, result);
        }
    }
    Ok(())
}

fn replace(graph: &mut Graph, id: NodeId, result: Value) {
    graph.replace_uses(Value { node: id, port: 0 }, result);
    graph.remove(id);
}

/// This rank's part of the reduction of all whole operands.
fn reduced_part(
    graph: &mut Graph,
    x: Value,
    group: &Group,
    reduction: Reduction,
) -> Result<Value, PassError> {
    let moved = graph.push(ExchangeOp::AllToAll { group: group.clone() }.into(), &[x])?;
    Ok(graph.push(ExchangeOp::ReduceParts { parts: group.size, reduction }.into(), &[moved])?)
}

fn all_reduce(graph: &mut Graph, x: Value, group: &Group, reduction: Reduction) -> Result<Value, PassError> {
    let shape = graph.ty(x).shape.clone();
    let numel = shape.numel();
    let flat = reshape(graph, x, [numel].into())?;
    let gather = Op::from(ExchangeOp::AllGather { group: group.clone() });
    let reduced = if numel <= FEW {
        let all = graph.push(gather, &[flat])?;
        graph.push(ExchangeOp::ReduceParts { parts: group.size, reduction }.into(), &[all])?
    } else {
        let whole = numel.next_multiple_of(group.size);
        let padded = graph.extend_with_zeros(flat, whole)?;
        let part = reduced_part(graph, padded, group, reduction)?;
        let all = graph.push(gather, &[part])?;
        match whole > numel {
            true => graph.push(Op::Slice { axis: 0, start: 0, len: numel }, &[all])?,
            false => all,
        }
    };
    reshape(graph, reduced, shape)
}

fn reshape(graph: &mut Graph, x: Value, shape: Shape) -> Result<Value, PassError> {
    Ok(if graph.ty(x).shape == shape { x } else { graph.push(Op::Reshape { shape }, &[x])? })
}
