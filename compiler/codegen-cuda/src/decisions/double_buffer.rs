//! Double buffering: which loads of a loop are prefetched one iteration ahead, to a second stage in shared memory, while
//! the iteration before computes; by TMA where it can copy all of them, else by asynchronous copies of the threads (`cp.async`).

use linc_tile::{Mode, Op, Region, ValueId, View};

use super::Decisions;
use super::tensor_maps::tensor_map;
use super::warpgroups::WARPS;
use crate::TensorMap;
use crate::analysis::loops::computable;

/// The loads that a loop prefetches, one iteration ahead.
pub(crate) struct DoubleBuffer<'k> {
    pub loads: Vec<(ValueId, &'k View)>,
    /// What TMA has to know of each, if it copies them.
    pub maps: Option<Vec<TensorMap>>,
    /// An iteration has a product to start the next fetch behind, and another warpgroup that this one need not wait for
    /// then.
    pub behind: bool,
}

impl<'k> DoubleBuffer<'k> {
    /// The loads that depend on nothing but the counter of their loop, if there are any. `known` are the maps that the
    /// kernel has already.
    pub(crate) fn of(
        decisions: &Decisions<'k>,
        body: &'k Region,
        known: &[TensorMap],
    ) -> Option<DoubleBuffer<'k>> {
        if !decisions.ahead {
            return None;
        }
        let loads = body.body.iter().filter_map(|stmt| match &stmt.op {
            Op::Load(view) if decisions.operands.is_copied(stmt.results[0]) => Some((stmt.results[0], view)),
            _ => None,
        });
        let known_before = |view: &View| {
            decisions.kernel.param(view.param).mode == Mode::Read
                && view.operands().all(|v| computable(body, v))
        };
        let loads: Vec<(ValueId, &'k View)> = loads.filter(|(_, view)| known_before(view)).collect();
        if loads.is_empty() {
            return None;
        }
        let maps = loads.iter().map(|(value, view)| tensor_map(decisions, *value, view, known)).collect();
        let product = body.body.iter().any(|stmt| matches!(stmt.op, Op::Dot { .. }));
        Some(DoubleBuffer { loads, maps, behind: product && decisions.layouts.warps > WARPS })
    }
}
