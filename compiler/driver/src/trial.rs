//! One attention by itself with chosen tiles, to be timed.

use linc_kernels::tiles::{Site, Tile};
use linc_passes::memory::{self, PersistentLayout};
use linc_passes::mesh::Mesh;
use linc_plan::{Action, Plan, Step};

use crate::assemble::assemble;
use crate::error::CompileError;
use crate::{PassError, Target};

/// A plan that runs the node that a kernel belongs to. All operands are inputs.
#[derive(Clone, PartialEq, Debug)]
pub struct Trial {
    /// The node, with what else it launches.
    pub plan: Plan,
    /// The steps that launch the kernel: several where it is launched in rounds.
    pub steps: Vec<usize>,
}

/// The trial of a kernel with tiles of a size.
///
/// # Errors
/// [`CompileError`]: there is no kernel for the sizes.
pub fn trial(site: &Site, tile: Tile, target: Target) -> Result<Trial, CompileError> {
    let mut graph = site.graph().map_err(PassError::from)?;
    let layout = PersistentLayout::default();
    let assignment = memory::run(&mut graph, &layout, false)?;
    let tiles = [(*site, tile)].into();
    let plan = assemble(&graph, &assignment, target.into(), &tiles, &layout, &Mesh::default())?.plan;
    let launches_it = |step: &Step| match step.action {
        Action::Launch { kernel, .. } => plan.kernels[kernel].family == site.kernel.name(),
        Action::Gemm(_) | Action::Copy { .. } | Action::Start { .. } | Action::Wait { .. } => false,
    };
    let steps = (0..plan.steps.len()).filter(|index| launches_it(&plan.steps[*index])).collect();
    Ok(Trial { plan, steps })
}
