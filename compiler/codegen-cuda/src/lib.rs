//! Tile programs to CUDA C++ for NVIDIA GPUs: a [`linc_tile::Kernel`] becomes one self-contained source text.
//!
//! | folder | what is in it |
//! |---|---|
//! | `prelude` | the device functions that all kernels call |
//! | `analysis` | facts about a tile program: loops, accesses, uses of values |
//! | `decisions` | what is decided of it: warps and layouts, shared memory, loads ahead, widths of accesses, `wgmma` |
//! | `text` | how C++ is spelled: lines, names, types, operations, positions |
//! | `hopper` | what only Hopper has, as text: `wgmma`, TMA copies, mbarriers |
//! | `emission` | statements in order, each with the waiting that it needs |
//!
//! A folder knows those above it only, which `tests/tests/folders.rs` checks.

mod analysis;
mod arch;
mod decisions;
mod emission;
mod hopper;
mod kernel;
mod prelude;
mod text;

pub use arch::Arch;
pub use kernel::{CodegenError, CudaCodegenOptions, CudaKernel, TensorMap};
pub use prelude::{COMMON_PRELUDE, DEVICE_PRELUDE};

use decisions::Decisions;

/// More than this do not even compile in reasonable time: a thread has 255 registers.
const MOST_REGISTERS: usize = 4096;

/// Translates one verified kernel.
///
/// # Errors
/// [`CodegenError`] if the kernel needs more shared memory than a block has, or more registers by far than a thread.
pub fn compile(kernel: &linc_tile::Kernel, options: &CudaCodegenOptions) -> Result<CudaKernel, CodegenError> {
    let fail = |message| Err(CodegenError { kernel: kernel.name.clone(), message });
    let limit = options.arch.shared_bytes();
    let mut decisions = Decisions::of(kernel, options);
    let mut emitted = emission::emit(&decisions);
    if emitted.shared_bytes > limit {
        // Loading an iteration ahead takes twice the memory.
        decisions.ahead = false;
        emitted = emission::emit(&decisions);
    }
    let (shared_bytes, registers) = (emitted.shared_bytes, decisions.registers);
    if registers > MOST_REGISTERS {
        return fail(format!("would hold {registers} numbers in a thread; its tiles are too large"));
    }
    if shared_bytes > limit {
        return fail(format!(
            "needs {shared_bytes} bytes of shared memory; {} has {limit}",
            options.arch.name()
        ));
    }
    Ok(CudaKernel {
        name: kernel.name.clone(),
        threads: decisions.layouts.threads() as u32,
        shared_bytes,
        registers: if decisions.layouts.products { registers as u32 } else { 0 },
        grid: emitted.grid,
        maps: emitted.maps,
        instructions: hopper::instructions::instructions(&decisions),
        text: emitted.text,
    })
}
