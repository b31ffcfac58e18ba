//! How operands of matrix products reach the instructions: in registers, or by way of shared memory.

use linc_tile::{Kernel, Op, ValueId};

use super::layouts::Layouts;
use super::warpgroups;
use crate::CudaCodegenOptions;
use crate::analysis::memory::in_pieces;
use crate::analysis::usage::Usage;

/// The decisions, by value id.
pub(crate) struct Operands {
    /// Operands of matrix products that need a copy in shared memory.
    staged: Vec<bool>,
    /// Loads that go to shared memory asynchronously (`cp.async`).
    copied: Vec<bool>,
    /// Loads of `copied` that are also needed in registers.
    unpacked: Vec<bool>,
    /// Results of products that warpgroups do.
    wgmma: Vec<bool>,
    /// Operands that warpgroups read from shared memory.
    described: Vec<bool>,
}

impl Operands {
    pub(crate) fn of(
        kernel: &Kernel,
        usage: &Usage,
        options: &CudaCodegenOptions,
        layouts: &Layouts,
    ) -> Operands {
        let none = || vec![false; kernel.types.len()];
        let mut operands =
            Operands { staged: none(), copied: none(), unpacked: none(), wgmma: none(), described: none() };
        operands.stage(kernel, usage, &options.alignment, layouts);
        if options.arch.has_warpgroups() {
            operands.warpgroups(kernel, layouts);
        }
        operands
    }

    /// Which operands of products are in shared memory, and how they get there.
    fn stage(&mut self, kernel: &Kernel, usage: &Usage, alignment: &[u32], layouts: &Layouts) {
        let mut by_product = vec![0; kernel.types.len()];
        // The left operand of a product can be read from registers if a warp has whole rows of it.
        let in_rows = |a: ValueId, transposed: bool| {
            kernel.ty(a).elem.is_narrow() && !transposed && layouts.across == 1
        };
        kernel.for_each_stmt(|stmt| {
            if let Op::Dot { a, b, trans_a, .. } = &stmt.op {
                for (operand, in_rows) in [(a, in_rows(*a, *trans_a)), (b, false)] {
                    // By value: what reads it under another name needs it in registers.
                    by_product[operand.0 as usize] += 1;
                    self.staged[operand.0 as usize] |= !in_rows;
                }
            }
        });
        kernel.for_each_stmt(|stmt| {
            let (Op::Load(view), [result]) = (&stmt.op, &stmt.results[..]) else { return };
            let at = result.0 as usize;
            if layouts.products && in_pieces(kernel, usage, alignment, view, kernel.ty(*result)) {
                self.copied[at] = true;
                self.staged[at] = true;
                self.unpacked[at] = usage.uses[at] > by_product[at];
            }
        });
    }

    /// Which products warpgroups do.
    fn warpgroups(&mut self, kernel: &Kernel, layouts: &Layouts) {
        kernel.for_each_stmt(|stmt| {
            let Op::Dot { a, b, trans_b, .. } = stmt.op else { return };
            let result = stmt.results[0];
            if warpgroups::suit(layouts.place(result), kernel.ty(b), trans_b) {
                self.wgmma[result.0 as usize] = true;
                self.described[b.0 as usize] = true;
                self.described[a.0 as usize] |= self.staged[a.0 as usize];
            }
        });
    }

    /// Whether products read a value from shared memory.
    pub(crate) fn is_staged(&self, value: ValueId) -> bool {
        self.staged[value.0 as usize]
    }

    /// Whether a load goes to shared memory asynchronously (`cp.async`).
    pub(crate) fn is_copied(&self, value: ValueId) -> bool {
        self.copied[value.0 as usize]
    }

    /// Whether a load that goes to shared memory is needed in registers as well.
    pub(crate) fn is_unpacked(&self, value: ValueId) -> bool {
        self.unpacked[value.0 as usize]
    }

    /// Whether warpgroups do the product with this result.
    pub(crate) fn by_warpgroups(&self, result: ValueId) -> bool {
        self.wgmma[result.0 as usize]
    }

    /// Whether warpgroups read a value from shared memory.
    pub(crate) fn is_described(&self, value: ValueId) -> bool {
        self.described[value.0 as usize]
    }
}
