//! From decisions to the text of a kernel. `statements` goes through the program and calls a file for each kind of
//! statement; these write through `code`, which holds the text so far, how it refers to values, and what is in shared
//! memory. Files further down know nothing of those that call them:
//!
//! ```text
//! statements ─▶ memory, pairs, product, reduce, scan, transpose, vectors, pointwise, carried, double_buffer, multistage
//!            ─▶ tiles, fragments, addresses, combine ─▶ code ─▶ values, shared_memory ─▶ hazards ─▶ allocator
//! ```

mod addresses;
mod allocator;
mod carried;
mod code;
mod combine;
mod double_buffer;
mod fragments;
mod hazards;
mod memory;
mod multistage;
mod pairs;
mod pointwise;
mod product;
mod reduce;
mod scan;
mod shared_memory;
mod statements;
mod tiles;
mod transpose;
mod values;
mod vectors;

use linc_tile::Mode;

use crate::TensorMap;
use crate::decisions::{Decisions, launch};
use crate::text::header::header;
use crate::text::names::Names;
use crate::text::spelling::memory_type;
use code::Code;
use statements::Statements;

/// The text of a kernel and what a launch has to know of it.
pub(crate) struct Emitted {
    pub text: String,
    /// What TMA copies know of memory.
    pub maps: Vec<TensorMap>,
    /// Shared memory of a block.
    pub shared_bytes: u32,
    /// Blocks of a launch along x, y and z.
    pub grid: [u32; 3],
}

/// Writes a kernel.
pub(crate) fn emit(decisions: &Decisions<'_>) -> Emitted {
    let names = Names::of(decisions.kernel);
    let mut statements = Statements::new(Code::new(decisions, &names));
    statements.body(&[], &decisions.kernel.body, &[]);
    let mut code = statements.code;
    if code.shared.hazards.copying() {
        // What was copied for a branch or a loop that was not run must still arrive before the thread ends.
        code.out.line("copy_async_wait<0>();");
    }
    Emitted {
        maps: code.maps.known().to_vec(),
        shared_bytes: code.shared_bytes(),
        grid: launch::grid(decisions.kernel, decisions.launch_axes),
        text: kernel(code),
    }
}

/// Header comment, signature, positions, body.
fn kernel(code: Code<'_>) -> String {
    let decisions = code.decisions;
    let (kernel, layouts) = (decisions.kernel, &decisions.layouts);
    let grid = launch::grid(kernel, decisions.launch_axes);
    let (threads, maps) = (layouts.threads(), code.maps.known().len());
    let pointer = |(p, name): (&linc_tile::Param, &String)| {
        let constant = if p.mode == Mode::Read { "const " } else { "" };
        format!("{constant}{}* {name}", memory_type(p.elem))
    };
    let mut params: Vec<String> = kernel.params.iter().zip(&code.names.params).map(pointer).collect();
    params.extend((0..maps).map(|i| format!("const __grid_constant__ TensorMap maps{i}")));
    let mut text = header(kernel, decisions.options.arch, grid, threads, code.shared_bytes());
    // Without a number of blocks, the compiler spills registers to make room for one more.
    text.push_str(&format!(
        "extern \"C\" __global__ void __launch_bounds__({threads}, BLOCKS) {}({}) {{\n",
        kernel.name,
        params.join(", ")
    ));
    // What depends on the warp is in registers of the whole warp then.
    let warp = |thread: &str| match layouts.products {
        true => format!("uniform({thread} / 32)"),
        false => format!("{thread} / 32"),
    };
    let renews = layouts.renews_addresses();
    text.push_str(&match renews {
        true => format!(
            "  int lane = threadIdx.x % 32;\n  const int warp = {};\n  const Thread thread{{lane, warp}};\n",
            warp("threadIdx.x")
        ),
        false => {
            format!("  const int thread = threadIdx.x, lane = thread % 32, warp = {};\n", warp("thread"))
        }
    });
    text.push_str(&code.values.positions.functions(renews));
    text.push_str(&code.pipelines.prologue(code.shared.peak(), maps, layouts.warps));
    text.push_str(&code.out.into_text());
    text.push_str("}\n");
    text
}
