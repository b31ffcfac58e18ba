//! One attention by itself with chosen tiles, to be timed.

use linc_kernels::tiles::{Site, Tile};
use linc_passes::memory::{self, PersistentLayout};
use linc_plan::Plan;

use crate::assemble::assemble;
use crate::error::CompileError;
use crate::{PassError, Target};

/// A plan that runs the node that a kernel belongs to; the kernel is the steps whose kernels' names begin with
/// [`linc_kernels::tiles::TunableKernel::name`]. All operands are inputs.
///
/// # Errors
/// [`CompileError`]: there is no kernel for the sizes.
pub fn trial(site: &Site, tile: Tile, target: Target) -> Result<Plan, CompileError> {
    let mut graph = site.graph().map_err(PassError::from)?;
    let layout = PersistentLayout::default();
    let assignment = memory::run(&mut graph, &layout)?;
    let tiles = [(*site, tile)].into();
    Ok(assemble(&graph, &assignment, target.into(), &tiles, &layout)?.plan)
}
