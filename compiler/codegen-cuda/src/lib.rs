//! Tile programs to CUDA C++ for NVIDIA GPUs: a [`linc_tile::Kernel`] becomes one self-contained source text.

mod ahead;
mod assign;
mod control;
mod emit;
mod expression;
mod grid;
mod header;
mod layout;
mod memory;
mod operand;
mod pair;
mod pipeline;
mod pointwise;
mod pressure;
mod product;
mod reduce;
mod rounds;
mod shared;
mod stream;
mod usage;
mod wgmma;
mod writer;

use std::fmt::Write as _;

/// Device functions that all kernels call, with all inline PTX of linc. Replaced by a host twin in tests.
pub const DEVICE_PRELUDE: &str = include_str!("prelude/device.cu");
/// Device functions that are plain arithmetic on top of the others.
pub const COMMON_PRELUDE: &str = include_str!("prelude/common.cu");

/// A family of GPUs that code is generated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// Ampere: A100.
    Sm80,
    /// Ada: L40, RTX 40.
    Sm89,
    /// Hopper without what only Hopper has: tensor copies, and products of warps as before.
    Sm90,
    /// Hopper with its own instructions: H100, H200.
    Sm90a,
}

impl Arch {
    /// All, oldest first.
    pub const ALL: [Arch; 4] = [Arch::Sm80, Arch::Sm89, Arch::Sm90, Arch::Sm90a];

    /// The name that NVRTC knows it by, `sm_80`.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm89 => "sm_89",
            Arch::Sm90 => "sm_90",
            Arch::Sm90a => "sm_90a",
        }
    }

    /// The architecture of that name.
    pub fn from_name(name: &str) -> Option<Arch> {
        Arch::ALL.into_iter().find(|a| a.name() == name)
    }

    /// Bytes of shared memory that one block may use at most.
    pub fn shared_bytes(self) -> u32 {
        match self {
            Arch::Sm80 => 163 << 10,
            Arch::Sm89 => 99 << 10,
            Arch::Sm90 | Arch::Sm90a => 227 << 10,
        }
    }

    /// Whether it has an engine that copies whole tiles.
    pub fn has_tensor_copies(self) -> bool {
        match self {
            Arch::Sm80 | Arch::Sm89 => false,
            Arch::Sm90 | Arch::Sm90a => true,
        }
    }

    /// Whether it has products of four warps together.
    pub fn has_warpgroups(self) -> bool {
        match self {
            Arch::Sm80 | Arch::Sm89 | Arch::Sm90 => false,
            Arch::Sm90a => true,
        }
    }
}

/// What is known of a launch when its kernel is generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The GPU.
    pub arch: Arch,
    /// Alignment of each pointer argument in bytes, over all launches: a power of two. One per parameter.
    pub alignment: Vec<u32>,
}

/// What Hopper's tensor engine knows of the memory behind a parameter: rows that lie `stride` elements apart and are as
/// long, of which it copies boxes (CUDA driver API, `cuTensorMapEncodeTiled`). Pieces of 16 bytes are exchanged within
/// the rows of a box, in the pattern of as many bytes as a row has.
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
    /// What tensor copies know of memory.
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

/// More than this do not even compile in reasonable time: a thread has 255 registers.
const MOST_REGISTERS: usize = 4096;

/// Translates one verified kernel.
///
/// # Errors
/// [`CodegenError`] if the kernel needs more shared memory than a block has, or more registers by far than a thread.
pub fn compile(kernel: &linc_tile::Kernel, options: &Options) -> Result<CudaKernel, CodegenError> {
    let limit = options.arch.shared_bytes();
    let mut emitter = written(kernel, options, true)?;
    if emitter.shared_bytes() > limit {
        // Loading a round ahead takes twice the memory.
        emitter = written(kernel, options, false)?;
    }
    let shared_bytes = emitter.shared_bytes();
    let registers = pressure::registers(kernel, &emitter.usage, &emitter.assignment);
    if registers > MOST_REGISTERS {
        return emitter.fail(format!("would hold {registers} numbers in a thread; its tiles are too large"));
    }
    if shared_bytes > limit {
        return emitter.fail(format!(
            "needs {shared_bytes} bytes of shared memory; {} has {limit}",
            options.arch.name()
        ));
    }
    Ok(CudaKernel {
        name: kernel.name.clone(),
        threads: emitter.threads() as u32,
        shared_bytes,
        registers: if emitter.assignment.products { registers as u32 } else { 0 },
        grid: grid::launch(kernel, emitter.launch_axes),
        maps: emitter.maps.clone(),
        instructions: wgmma::instructions(&emitter.assignment.wgmma_products(kernel)),
        text: whole(kernel, options, emitter, shared_bytes),
    })
}

fn written<'k>(
    kernel: &'k linc_tile::Kernel,
    options: &'k Options,
    ahead: bool,
) -> Result<emit::Emitter<'k>, CodegenError> {
    let mut emitter = emit::Emitter::new(kernel, options, ahead);
    emitter.body(&[], &kernel.body, &[])?;
    if emitter.state.hazards.copying() {
        // What was copied for a branch or a loop that was not run must still arrive before the thread ends.
        emitter.state.out.line("copy_async_wait<0>();");
    }
    Ok(emitter)
}

/// Header comment, signature, positions, body.
fn whole(
    kernel: &linc_tile::Kernel,
    options: &Options,
    emitter: emit::Emitter<'_>,
    shared_bytes: u32,
) -> String {
    let threads = emitter.threads();
    let mut params: Vec<String> = kernel
        .params
        .iter()
        .zip(&emitter.names.params)
        .map(|(p, name)| {
            let constant = if p.mode == linc_tile::Mode::Read { "const " } else { "" };
            format!("{constant}{}* {name}", memory::memory_type(p.elem))
        })
        .collect();
    let map = |i| format!("const __grid_constant__ TensorMap maps{i}");
    params.extend((0..emitter.maps.len()).map(map));
    let grid = grid::launch(kernel, emitter.launch_axes);
    let mut text = header::header(kernel, options.arch, grid, threads, shared_bytes);
    // Without a number of blocks, the compiler spills registers to make room for one more. Writing to a String, here and
    // below, cannot fail.
    let _ = writeln!(
        text,
        "extern \"C\" __global__ void __launch_bounds__({threads}, BLOCKS) {}({}) {{",
        kernel.name,
        params.join(", ")
    );
    // What depends on the warp is in registers of the whole warp then.
    let warp = |thread: &str| match emitter.assignment.products {
        true => format!("uniform({thread} / 32)"),
        false => format!("{thread} / 32"),
    };
    let renews = emitter.assignment.renews_addresses();
    let _ = match renews {
        true => writeln!(
            text,
            "  int lane = threadIdx.x % 32;\n  const int warp = {};\n  const Thread thread{{lane, warp}};",
            warp("threadIdx.x")
        ),
        false => {
            writeln!(text, "  const int thread = threadIdx.x, lane = thread % 32, warp = {};", warp("thread"))
        }
    };
    for (axis, name) in &emitter.axes {
        let (base, offset) = (axis.base_text(), axis.offset_text("slot"));
        let function = match renews {
            true => format!("[&](int slot) {{ return {base} + {offset}; }}"),
            false => format!("[base = {base}](int slot) {{ return base + {offset}; }}"),
        };
        let _ = writeln!(
            text,
            "  // Positions along an axis of {}.\n  const auto {name} = {function};",
            axis.extent
        );
    }
    text.push_str(&emitter.pipelines_text(emitter.shared.peak()));
    text.push_str(&emitter.state.out.into_text());
    text.push_str("}\n");
    text
}
