//! Multistage pipelining (several stages of `cp.async`), for loops that stream through memory. A reduction over the block keeps all its warps
//! waiting for each other, and memory with them, unless loads are under way meanwhile. So each thread copies its own
//! pieces of the tiles of later iterations to shared memory asynchronously (`cp.async`), and takes those of this
//! iteration from there into its registers. No thread touches the pieces of another: there is nothing to wait for but
//! the copies themselves.

use linc_tile::{Mode, Op, Stmt, ValueId, View};

use super::Decisions;
use super::access::{advances, cut, per_access};
use crate::analysis::loops::{Loop, any, computable};
use crate::analysis::memory::{WIDE, element_bytes};

/// Bytes that a block should have under way. By Little's law a multiprocessor of an H200, which takes 31 bytes in a ns
/// and waits some 800 ns for them, wants 25 KB of all its blocks together, which are two at least. More gains nothing
/// there (`benches/h200.md`).
const UNDER_WAY: u32 = 16 << 10;
/// Stages at most: iterations whose tiles are in shared memory at once.
const MOST_STAGES: u32 = 4;

/// The loads that a loop prefetches, several iterations ahead.
pub(crate) struct MultistageLoads<'k> {
    pub loads: Vec<(ValueId, &'k View)>,
    /// How many there are: that of the iteration that is computed, and those of the copies under way.
    pub stages: u32,
}

impl<'k> MultistageLoads<'k> {
    /// The loads of a loop that can come ahead, if it has anything to gain.
    pub(crate) fn of(decisions: &Decisions<'k>, around: Loop<'k>) -> Option<MultistageLoads<'k>> {
        let body = &around.body.body;
        let reduces = |s: &Stmt| matches!(s.op, Op::Reduce { .. } | Op::Scan { .. });
        if !decisions.ahead || decisions.layouts.products || !any(body, &reduces) {
            return None;
        }
        let loads = body.iter().filter_map(|stmt| match &stmt.op {
            Op::Load(view) if can_come_ahead(decisions, around, stmt.results[0], view) => {
                Some((stmt.results[0], view))
            }
            _ => None,
        });
        let loads: Vec<(ValueId, &'k View)> = loads.collect();
        if loads.is_empty() {
            return None;
        }
        let bytes: u32 = loads.iter().map(|(value, _)| stage_bytes(decisions, *value)).sum();
        let stages = (UNDER_WAY.div_ceil(bytes) + 1).clamp(2, MOST_STAGES);
        Some(MultistageLoads { loads, stages })
    }
}

/// Whether a load of a loop's body can come ahead: in whole pieces, each of one thread, from places that are known and
/// unchanged until then.
fn can_come_ahead(decisions: &Decisions<'_>, around: Loop<'_>, value: ValueId, view: &View) -> bool {
    let place = decisions.place(value);
    let width = per_access(decisions, place, view);
    let whole = width as u64 * element_bytes(decisions.kernel.param(view.param).elem) == WIDE;
    decisions.layouts.alone(place)
        && whole
        && !cut(decisions, view, width)
        && view.operands().all(|v| computable(around.body, v))
        && unchanged(decisions, around, value, view)
}

/// Whether what a load of a later iteration will read is there already: nothing is stored to its parameter in the loop,
/// or only behind the load, by each thread to where it has loaded. Another parameter may be the same memory only in
/// that way (`dx` of a norm's gradient and its `dy`).
fn unchanged(decisions: &Decisions<'_>, around: Loop<'_>, value: ValueId, view: &View) -> bool {
    let place = decisions.place(value);
    let stores =
        |s: &Stmt| matches!(&s.op, Op::Store(to, _) | Op::Scatter { to, .. } if to.param == view.param);
    let stores_elsewhere = |s: &Stmt| match &s.op {
        Op::Store(to, stored) => {
            to.param == view.param
                && !(decisions.root(to.offset) == decisions.root(view.offset)
                    && to.axes == view.axes
                    && decisions.place(*stored) == place)
        }
        Op::Scatter { to, .. } => to.param == view.param,
        _ => false,
    };
    let body = &around.body.body;
    let before = body.iter().position(|s| s.results.contains(&value)).unwrap_or(0);
    decisions.kernel.param(view.param).mode == Mode::Read
        || (advances(decisions, around, place, view)
            && !any(&body[..before], &stores)
            && !any(body, &stores_elsewhere))
}

/// Bytes of shared memory for one iteration of a tile.
pub(crate) fn stage_bytes(decisions: &Decisions<'_>, value: ValueId) -> u32 {
    let pieces = decisions.place(value).slots() / piece(decisions, value);
    (pieces * decisions.layouts.threads()) as u32 * WIDE as u32
}

/// Elements of a piece. A tile is loaded as it is in memory.
pub(crate) fn piece(decisions: &Decisions<'_>, value: ValueId) -> usize {
    (WIDE / element_bytes(decisions.ty(value).elem)) as usize
}
