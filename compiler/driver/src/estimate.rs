//! Times that are estimated from operations and bytes, to choose between programs before any has run. Only ratios matter.

use linc_ir::{Graph, NodeId};
use linc_kernels::Cost;
use linc_passes::precision::Precision;
use linc_passes::recompute::budget::NodeTime;
use linc_plan::Plan;

use crate::Target;

/// Operations that a machine does while it moves a byte: two cores of some 100 GFLOP/s at 20 GB/s.
const CPU: f64 = 10.0;
/// An H200's 67 TFLOP/s of f32 at 4.8 TB/s.
const GPU: f64 = 14.0;
/// Its 990 TFLOP/s of bf16 or f16 in tensor cores.
const GPU_NARROW: f64 = 206.0;

/// The estimate for nodes of graphs.
pub(crate) fn node_time(target: Target, precision: Precision) -> NodeTime {
    fn time(graph: &Graph, id: NodeId, balance: f64) -> f64 {
        let Cost { flops, bytes } = linc_kernels::cost(graph, id);
        bound(flops, bytes, balance)
    }
    match (target, precision.narrow()) {
        (Target::Cpu, _) => |graph, id| time(graph, id, CPU),
        (Target::Cuda(_), None) => |graph, id| time(graph, id, GPU),
        (Target::Cuda(_), Some(_)) => |graph, id| time(graph, id, GPU_NARROW),
    }
}

/// The estimate for one run of a plan.
pub(crate) fn plan_time(plan: &Plan, target: Target, precision: Precision) -> f64 {
    let balance = match (target, precision.narrow()) {
        (Target::Cpu, _) => CPU,
        (Target::Cuda(_), None) => GPU,
        (Target::Cuda(_), Some(_)) => GPU_NARROW,
    };
    plan.steps.iter().map(|step| bound(step.flops, step.bytes, balance)).sum()
}

/// In the time of a byte: what limits, operations or bytes.
fn bound(flops: u64, bytes: u64, balance: f64) -> f64 {
    (flops as f64 / balance).max(bytes as f64)
}
