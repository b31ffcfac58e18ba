//! Statements to nodes: decides what is fused, what is copied and what stays in memory.
//!
//! Pointwise statements wait in an open group per shape until something else needs one of their values, a store to
//! memory could change what they read, or a region ends; then the group becomes one loop. Values that nothing outside
//! the group reads never reach scratch. A store of a waiting value joins its group. Splats, iotas, expansions and
//! transpositions are not computed at all but read with other strides.

mod groups;
pub(crate) mod half;
mod memory;
pub(crate) mod node;
mod operations;
mod scheduler;
pub(crate) mod slots;
mod statements;

use linc_tile::Kernel;

use crate::analysis::usage::Usage;
use node::Schedule;
use scheduler::Scheduler;

/// Schedules a verified kernel; the error is a limit of this code generator.
pub(crate) fn schedule(kernel: &Kernel, usage: &Usage) -> Result<Schedule, String> {
    let mut scheduler = Scheduler::new(kernel, usage);
    statements::body(&mut scheduler, &kernel.body)?;
    scheduler.flush_all();
    Ok(Schedule { regs: scheduler.regs, nodes: scheduler.out })
}
