//! Data parallel training: each rank has gradients of its own batches, weighted by their share of the step's targets, and
//! all need the sum.
//!
//! Gradients are joined and reduced in buckets of whole layers. The backward makes those of the last layers first, so
//! that their bucket can be under way while the others are made.

use linc_ir::{ExchangeOp, Graph, Group, NodeId, Reduction, Shape, Value};

use crate::autodiff::Gradients;
use crate::error::PassError;

/// A bucket is not made larger than this by another layer, in bytes: as in PyTorch.
pub const BUCKET_BYTES: usize = 25 << 20;

/// Replaces the gradients of a rank by their sums over the ranks of a group. `ranges` has the gradients of parameters that lie side by
/// side, in that order.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn reduce(
    graph: &mut Graph,
    ranges: &mut [Gradients],
    group: &Group,
    bucket_bytes: usize,
) -> Result<(), PassError> {
    let outer = graph.set_scope("data_parallel");
    let mut turn = 0;
    // As the backward makes them.
    for range in ranges.iter_mut().rev() {
        for bucket in buckets(graph, range, bucket_bytes).into_iter().rev() {
            let gradients: Vec<Value> = range[bucket.clone()].iter().map(|(_, gradient)| *gradient).collect();
            let shapes: Vec<Shape> =
                gradients.iter().map(|gradient| graph.ty(*gradient).shape.clone()).collect();
            let joined = graph.join(&gradients)?;
            let all = ExchangeOp::AllReduce { group: group.in_turn(turn), reduction: Reduction::Sum };
            turn += 1;
            let sum = graph.push(all.into(), &[joined])?;
            for ((_, gradient), part) in range[bucket].iter_mut().zip(graph.cut(sum, &shapes)?) {
                *gradient = part;
            }
        }
    }
    graph.set_scope(outer);
    Ok(())
}

/// Cuts between layers, where a bucket would become too large.
fn buckets(graph: &Graph, range: &Gradients, bucket_bytes: usize) -> Vec<std::ops::Range<usize>> {
    let layer = |(param, _): &(NodeId, Value)| graph.node(*param).scope.layer;
    let bytes =
        |run: &[(NodeId, Value)]| run.iter().map(|(_, gradient)| graph.ty(*gradient).bytes()).sum::<usize>();
    let (mut found, mut start, mut end) = (vec![], 0, 0);
    for run in range.chunk_by(|a, b| layer(a) == layer(b)) {
        if end > start && bytes(&range[start..end]) + bytes(run) > bucket_bytes {
            found.push(start..end);
            start = end;
        }
        end += run.len();
    }
    if end > start {
        found.push(start..end);
    }
    found
}
