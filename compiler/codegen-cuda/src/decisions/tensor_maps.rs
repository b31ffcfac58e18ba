//! Which tiles Hopper's Tensor Memory Accelerator (TMA) copies, and what it has to know of memory for it.

use linc_tile::{Op, Region, Stmt, ValueId, View};

use super::Decisions;
use super::shared_form::SharedForm;
use crate::TensorMap;

/// Rows of the largest box.
const MOST_ROWS: usize = 256;
/// Maps of a kernel: a few of the four kilobytes that arguments may have.
const MOST_MAPS: usize = 16;

/// What TMA has to know to copy a tile: nothing if it cannot. A tile without bounds can be copied if it
/// lies within rows of memory as long as its stride, which its columns divide as they divide its offset. `known` are the
/// maps that the kernel has already.
pub(crate) fn tensor_map(
    decisions: &Decisions<'_>,
    value: ValueId,
    view: &View,
    known: &[TensorMap],
) -> Option<TensorMap> {
    let form = SharedForm::of(decisions.ty(value));
    let ([rows, cols], [height, width]) = (&view.axes[..], form.extent) else { return None };
    let stride = u64::try_from(rows.stride).ok().filter(|stride| *stride > 0)?;
    let panel = 8 * form.pieces();
    let whole = form.rows == height && height <= MOST_ROWS && width.is_multiple_of(panel);
    let aligned = |n: u64| n.is_multiple_of(width as u64);
    let fits = decisions.options.arch.has_tensor_copies()
        && rows.bound.is_none()
        && cols.bound.is_none()
        && whole
        && aligned(stride)
        && aligned(decisions.usage.divisor(view.offset));
    let map = TensorMap {
        param: view.param.0 as usize,
        elem: form.elem,
        stride,
        rows: height as u32,
        columns: panel as u32,
    };
    (fits && (known.len() < MOST_MAPS || known.contains(&map))).then_some(map)
}

/// Whether a loop in a region has a tile that TMA may copy.
pub(crate) fn has_pipelines(decisions: &Decisions<'_>, region: &Region, known: &[TensorMap]) -> bool {
    let fetches = |stmt: &Stmt| match &stmt.op {
        Op::Load(view) => {
            decisions.operands.is_copied(stmt.results[0])
                && tensor_map(decisions, stmt.results[0], view, known).is_some()
        }
        _ => false,
    };
    region.body.iter().any(|stmt| match &stmt.op {
        Op::For { body, .. } => body.body.iter().any(fetches) || has_pipelines(decisions, body, known),
        op => op.regions().iter().any(|inner| has_pipelines(decisions, inner, known)),
    })
}

/// Whether threads read a tile in shared memory themselves, and not only products of warpgroups.
pub(crate) fn read_by_threads(decisions: &Decisions<'_>, value: ValueId) -> bool {
    let mut read = decisions.operands.is_unpacked(value);
    decisions.kernel.for_each_stmt(|stmt| {
        let Op::Dot { a, b, .. } = stmt.op else { return };
        read |= [a, b].contains(&value) && !decisions.operands.by_warpgroups(stmt.results[0]);
    });
    read
}
