//! From the gradients of a step to its update: of one rank, or of several that share batches and the optimizer.

use linc_ir::{Graph, NodeId, Op, Value};

use crate::error::PassError;
use crate::loss_scale::Scaling;
use crate::memory::PersistentLayout;
use crate::mesh::{Mesh, MeshAxis};
use crate::optimizer::{OptimizerOptions, Sharding};
use crate::{autodiff, optimizer, parallelize};

/// Appends what makes one update of the gradients of all ranks.
pub(super) fn update(
    graph: &mut Graph,
    gradients: autodiff::Gradients,
    optimizer: &OptimizerOptions,
    scaling: Option<&Scaling>,
    mesh: &Mesh,
    persistent: &mut PersistentLayout,
    observe: &mut dyn FnMut(&'static str, &Graph),
) -> Result<(), PassError> {
    let mut ranges = ranges_as_placed(graph, gradients, persistent);
    let [replicate, shard] = [MeshAxis::DataReplicate, MeshAxis::DataShard].map(|axis| mesh.group(axis));
    let mut sharding = None;
    if shard.size > 1 {
        let name = |id: NodeId| graph.op(id).leaf_name().filter(|_| matches!(graph.op(id), Op::Param { .. }));
        let params = graph.nodes().filter_map(name);
        let room = |name: &str| persistent.room_behind(name) as usize / size_of::<f32>();
        let room = params.map(|name| (name.to_string(), room(name))).collect();
        sharding = Some(Sharding { shard, replicate, room, turn: Default::default() });
    } else if replicate.size > 1 {
        parallelize::reduce(graph, &mut ranges, &replicate, parallelize::BUCKET_BYTES)?;
        observe("parallelize", graph);
    }
    optimizer::run(graph, &ranges, optimizer, scaling, sharding.as_ref())?;
    observe("optimizer", graph);
    Ok(())
}

/// The optimizer takes parameters in the order in which they lie, those without a gap between them together.
pub(super) fn ranges_as_placed(
    graph: &Graph,
    mut gradients: autodiff::Gradients,
    persistent: &PersistentLayout,
) -> Vec<autodiff::Gradients> {
    let start = |param: NodeId| graph.op(param).leaf_name().and_then(|name| persistent.offset(name));
    let bytes = |param: NodeId| graph.ty(Value { node: param, port: 0 }).bytes() as u64;
    gradients.sort_by_key(|(param, _)| start(*param));
    let mut ranges: Vec<autodiff::Gradients> = vec![];
    let mut end = None;
    for (param, gradient) in gradients {
        match ranges.last_mut().filter(|_| end == start(param)) {
            Some(range) => range.push((param, gradient)),
            None => ranges.push(vec![(param, gradient)]),
        }
        end = start(param).map(|start| start + bytes(param));
    }
    ranges
}
