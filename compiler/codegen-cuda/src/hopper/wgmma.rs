//! Products of whole warpgroups: four warps together multiply 64 rows, and read operands from shared memory themselves,
//! through descriptors (PTX ISA, `wgmma.mma_async`). The registers of the result, and of a left operand that is in
//! registers, are those of `mma.m16n8k16` in every warp, so that everything around a product stays as it is.
//!
//! A descriptor counts in pieces of 16 bytes. It says where an operand starts and how far apart its groups of eight rows
//! and its panels are; along the inner axis, products step by adding to it.

use crate::decisions::layout::RegisterLayout;
use crate::decisions::shared_form::SharedForm;
use crate::decisions::warpgroups::{WARPS, columns};
use crate::text::spelling::memory_type;

/// Rows of a warpgroup.
const ROWS: usize = 64;

/// An operand in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub form: &'a SharedForm,
    /// Where it starts.
    pub at: &'a str,
    /// The product reads it transposed.
    pub transposed: bool,
}

impl Operand<'_> {
    /// Declares the descriptor of an operand that starts `offset` pieces into its tile; `across` if its inner axis goes
    /// down the rows of the tile.
    fn descriptor(&self, name: &str, across: bool, offset: Option<String>) -> String {
        let pieces = self.form.pieces();
        // Where the inner axis goes along the rows, one step stays in one panel.
        let panel = if across { self.form.panel() / 16 } else { 1 };
        let offset = offset.map_or(String::new(), |offset| format!(" + {offset}"));
        format!("const u64 {name} = matrix_descriptor<{pieces}>({}, {panel}){offset};", self.at)
    }

    /// Declares `left`: from the first row of a warpgroup on.
    pub(crate) fn left(&self, layout: RegisterLayout) -> String {
        let groups = layout.rows.warps / WARPS;
        let first = (groups > 1).then(|| format!("warp / {WARPS} % {groups} * {}", self.group_step()));
        self.descriptor("left", self.transposed, first)
    }

    /// Declares `right`: from the first column of a warpgroup on, if several divide the columns.
    pub(crate) fn right(&self, layout: RegisterLayout) -> String {
        let (cols, pieces) = (layout.cols, self.form.pieces());
        let share = columns(&cols);
        let panel = self.form.panel() / 16;
        let step = if self.transposed { share * pieces } else { share / (8 * pieces) * panel };
        let first = (cols.warps > 1).then(|| format!("(warp >> {}) * {step}", cols.warp_bit));
        self.descriptor("right", !self.transposed, first)
    }

    /// Pieces of the 64 rows of a warpgroup, in a left operand.
    fn group_step(&self) -> usize {
        if self.transposed { self.form.panel() / 16 } else { ROWS * self.form.pieces() }
    }

    /// Pieces from the start to inner position `16 k`; `across` as in a descriptor.
    fn inner_step(&self, across: bool) -> String {
        let pieces = self.form.pieces();
        if across {
            return format!("k * {}", 16 * pieces);
        }
        // Two pieces of a row each.
        let per_panel = pieces / 2;
        match self.form.cols <= 8 * pieces {
            true => "k * 2".into(),
            false => format!("(k / {per_panel} * {} + k % {per_panel} * 2)", self.form.panel() / 16),
        }
    }
}

/// The instruction for strip `i` of the rows and inner positions from `16 k` on, added to `name` or, where it does not
/// `add`, overwriting it first. The left operand is `left[k][i]` if it is not in shared memory.
pub(crate) fn multiply(
    name: &str,
    layout: RegisterLayout,
    left: Option<Operand<'_>>,
    right: Operand<'_>,
    add: bool,
) -> String {
    let (operand, transposed) = match left {
        None => ("left[k][i]".to_string(), u8::from(!right.transposed).to_string()),
        Some(left) => {
            let strip = match layout.rows.outer > 1 {
                true => format!(" + i * {}", layout.rows.warps / WARPS * left.group_step()),
                false => String::new(),
            };
            let operand = format!("left + {}{strip}", left.inner_step(left.transposed));
            (operand, format!("{}, {}", u8::from(left.transposed), u8::from(!right.transposed)))
        }
    };
    format!(
        "wgmma_{}<{transposed}>({name}[i * 2], {name}[i * 2 + 1], {operand}, right + {}, {});",
        memory_type(right.form.elem),
        right.inner_step(!right.transposed),
        if add { "true" } else { "k > 0" }
    )
}
