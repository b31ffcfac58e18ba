//! What the code generator is told and what it returns.

use crate::Arch;
use crate::prelude::{COMMON_PRELUDE, DEVICE_PRELUDE};

/// What is known of a launch when its kernel is generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaCodegenOptions {
    /// The GPU.
    pub arch: Arch,
    /// Alignment of each pointer argument in bytes, over all launches: a power of two. One per parameter.
    pub alignment: Vec<u32>,
}

/// What the Tensor Memory Accelerator (TMA) knows of the memory behind a parameter: rows that lie `stride` elements
/// apart and are as long, of which it copies boxes (CUDA driver API, `cuTensorMapEncodeTiled`). The rows of a box
/// are swizzled in pieces of 16 bytes, in the pattern of as many bytes as a row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// The parameter, by its place.
    pub param: usize,
    /// Its element type, of 16 bits.
    pub elem: linc_tile::Elem,
    /// Elements from one row to the next.
    pub stride: u64,
    /// Rows of a box, at most 256.
    pub rows: u32,
    /// Columns of a box: 16, 32 or 64.
    pub columns: u32,
}

/// A generated kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaKernel {
    /// Name of the entry point, `extern "C"`; pointer parameters in the order of the tile program, then one for each
    /// of `maps`.
    pub name: String,
    /// What TMA copies know of memory.
    pub maps: Vec<TensorMap>,
    /// The device functions for products of warpgroups that the kernel calls, a part of its prelude.
    pub instructions: String,
    /// The kernel's own text, without the prelude.
    pub text: String,
    /// Threads of a block, along x.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Numbers of tiles that a thread holds at once, by the model: the least registers that it needs. 0 for a kernel
    /// without matrix products, which does not lack any.
    pub registers: u32,
    /// Blocks of a launch along x, y and z, which need not be the axes of the tile program.
    pub grid: [u32; 3],
}

impl CudaKernel {
    /// The whole source: prelude and kernel. It includes nothing. The compiler leaves so many registers free that
    /// `blocks` blocks run on a multiprocessor at once; asked for too many, it moves tiles to memory.
    pub fn source(&self, blocks: u32) -> String {
        format!(
            "{DEVICE_PRELUDE}\n{}{COMMON_PRELUDE}\n// Blocks of a multiprocessor at once, at least: what is loaded has more while tiles stay in registers.\nconstexpr int BLOCKS = {blocks};\n\n{}",
            self.instructions, self.text
        )
    }
}

/// A kernel that this code generator cannot translate; it names the kernel and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}: {message}")]
pub struct CodegenError {
    /// Its name, which tells shapes and types.
    pub kernel: String,
    /// What cannot be translated.
    pub message: String,
}
