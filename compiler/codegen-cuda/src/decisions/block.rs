//! The size of a block: how many warps run a program. They are as few as register pressure allows.

use linc_tile::{Kernel, Op, TileType};

use super::layouts::Layouts;
use super::operands::Operands;
use super::pressure::registers;
use crate::CudaCodegenOptions;
use crate::analysis::usage::Usage;

/// Registers of a thread that tiles may occupy, of 255: addresses, fragments of operands and the compiler's own need the
/// rest. Above it, twice the warps share the work.
const ROOM: usize = 170;
/// Above this, of 255, four times the warps do.
const MOST: usize = 235;
/// Elements per thread that a streaming kernel aims at: enough accesses in flight, few enough registers.
const PER_THREAD: usize = 16;

/// A block: its layouts and operands, and the registers that its tiles occupy in a thread, by the model.
pub(crate) struct Block {
    pub layouts: Layouts,
    pub operands: Operands,
    pub registers: usize,
}

impl Block {
    /// The block with as few warps as hold its tiles in registers.
    pub(crate) fn of(kernel: &Kernel, usage: &Usage, options: &CudaCodegenOptions) -> Block {
        let mut products = vec![];
        kernel.for_each_stmt(|s| {
            if let Op::Dot { .. } = s.op {
                products.push(kernel.ty(s.results[0]).shape[0]);
            }
        });
        let warps = match products.iter().min() {
            // A warp owns 16 rows.
            Some(rows) => rows.div_ceil(16).next_power_of_two().min(8),
            None => {
                let most = kernel.types.iter().map(TileType::numel).max().unwrap_or(1);
                // Of more than 64 elements each, twice the threads.
                let limit = if most > 8 * 32 * 64 { 16 } else { 8 };
                (most / (32 * PER_THREAD)).next_power_of_two().clamp(1, limit)
            }
        };
        let products = !products.is_empty();
        let shared_by = |across: usize| {
            let layouts = Layouts::new(kernel, across * warps, across, products);
            let operands = Operands::of(kernel, usage, options, &layouts);
            let registers = registers(kernel, usage, &layouts, &operands);
            Block { layouts, operands, registers }
        };
        let block = shared_by(1);
        if !products || warps >= 8 || block.registers <= ROOM {
            return block;
        }
        let block = shared_by(2);
        if block.registers > MOST { shared_by(4) } else { block }
    }
}
