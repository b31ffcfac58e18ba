//! Tile programs to machine code for CPUs: a [`linc_tile::Kernel`] becomes one `cranelift_codegen` function.
//!
//! | folder | what is in it |
//! |---|---|
//! | `analysis` | facts about a tile program: who reads what and for how long (`usage`), which offsets are equal or apart (`affine`) |
//! | `schedule` | statements become nodes (`node`), pointwise chains over one shape one group (`groups`); tiles get places in a per-thread scratch area (`slots`) |
//! | `emission` | nodes to CLIF: `nodes`, `scalars`, `fused` loops; `arithmetic` and `half` are what both share, `code` is the function so far |
//!
//! A folder knows those above it only, which `tests/tests/folders.rs` checks.
//!
//! Invariants: a tile lives in scratch as a dense row-major array of 4-byte elements (a Bf16 or F16 tile as the f32 of
//! equal value, a Bool tile as masks of all ones or zeros), in memory as the parameter says, or nowhere, when a single loop
//! both makes and uses it. `dot`, transcendentals, reductions, scans and strided copies are calls of [`Primitive`]s,
//! which the runtime supplies. The function contains no address of this process: it is data, and prints as text.
//!
//! Two parameters may get the same memory only if every program loads all it reads there before it stores, element for
//! element through equal views: a fused loop loads and stores an element in one iteration.
//!
//! To add a tile op: give it an arm in `analysis/usage.rs`, `schedule/statements.rs` and `emission/nodes.rs` (or `fused.rs` if
//! pointwise), in `emission/scalars.rs` and `analysis/affine.rs` if it can make a scalar, and in `schedule/node.rs` and
//! `operations.rs` if it is a node of its own; the compiler lists the places, since no `match` over ops has a `_` arm.

mod analysis;
mod emission;
mod primitive;
mod schedule;

pub use cranelift_codegen;
pub use primitive::Primitive;

use cranelift_codegen::ir::Function;

/// What the target can do; decided by the runtime, since compiler crates look at no machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuCodegenOptions {
    /// The machine has fused multiply-add; without it `fma` rounds twice.
    pub fma: bool,
}

/// A kernel ready for machine code generation.
#[derive(Debug)]
pub struct CpuKernel {
    /// `extern "C" fn(args: *const *mut u8, pid0: i64, pid1: i64, pid2: i64, scratch: *mut u8)`.
    ///
    /// `args` has one pointer per kernel parameter; `scratch` is aligned to [`SCRATCH_ALIGN`] and has
    /// [`CpuKernel::scratch_bytes`] bytes. External names are `UserExternalName { namespace: 0, index }` where `index`
    /// is the position in [`Primitive::ALL`].
    pub function: Function,
    /// Bytes of scratch that one program needs.
    pub scratch_bytes: usize,
    /// Primitives that the function calls, in the order of [`Primitive::ALL`].
    pub externals: Vec<Primitive>,
}

impl CpuKernel {
    /// The function as CLIF text.
    pub fn text(&self) -> String {
        self.function.display().to_string()
    }
}

/// Alignment of the scratch area, in bytes.
pub const SCRATCH_ALIGN: usize = 64;

/// A kernel that this code generator cannot translate. Verified kernels within the limits of the tile IR do not
/// cause it; it names the kernel and the operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}: {message}")]
pub struct CodegenError {
    /// Its name, which tells shapes and types.
    pub kernel: String,
    /// What cannot be translated.
    pub message: String,
}

/// Translates one verified kernel.
pub fn compile(kernel: &linc_tile::Kernel, options: CpuCodegenOptions) -> Result<CpuKernel, CodegenError> {
    let usage = analysis::usage::Usage::of(kernel);
    let schedule = schedule::schedule(kernel, &usage)
        .map_err(|message| CodegenError { kernel: kernel.name.clone(), message })?;
    let slots = schedule::slots::assign(&schedule);
    emission::emit(kernel, &schedule, &slots, options)
}
