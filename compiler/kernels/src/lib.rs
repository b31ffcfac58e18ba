//! From the scheduled graph to kernels: each node becomes tile programs from the library and library matmuls.
//!
//! Invariants: the only crate that sees both the graph and the tile IR; every match over operations is exhaustive; a
//! call names memory as a place in the storage of a root value, so that the caller alone decides addresses. Which
//! layouts an operation may have is the memory pass's contract (`passes/src/memory/rules.rs`).
//!
//! To add an operation: a branch in [`lower`] and in [`cost::cost`], with its kernel in `compiler/tile/src/library`. To add
//! a kind of attention: a module in `attention`.

mod attention;
mod context;
pub mod cost;
mod embedding;
mod exchange;
mod loss;
mod lower;
mod optimizer;
mod pointwise;

use linc_ir::{DType, Scope, Value};
use linc_tile as tile;
use thiserror::Error;

pub use attention::{HEAD_DIM_MULTIPLE, decode_range, fast_path, prefill_tokens, tiles};
pub use context::Context;
pub use cost::Cost;
pub use exchange::{Exchange, Movement};
pub use loss::min_loss_rows;
pub use lower::lower;

/// The machine that kernels are shaped for: sizes of tiles, and which of several forms. The programs run on any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    /// Few processors with large caches.
    #[default]
    Cpu,
    /// Many processors, with tiles in registers.
    Cuda,
    /// The same, whose products read operands from shared memory themselves and leave registers for larger tiles.
    Hopper,
}

/// A position in the storage of a root value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoragePlace {
    /// The value that owns the memory.
    pub root: Value,
    /// Offset in elements of `dtype`.
    pub offset: usize,
    /// Element type.
    pub dtype: DType,
}

impl StoragePlace {
    /// The place `elements` further.
    #[must_use]
    pub fn at(self, elements: usize) -> Self {
        StoragePlace { offset: self.offset + elements, ..self }
    }
}

/// `c = a·b` (+ c): operands as places with (row, column) strides in elements; a and b of one type, c of that or f32.
#[derive(Clone, PartialEq, Debug)]
pub struct Gemm {
    /// Rows of c, columns of c, inner size.
    pub size: (usize, usize, usize),
    /// `[m, k]`
    pub a: (StoragePlace, (usize, usize)),
    /// `[k, n]`
    pub b: (StoragePlace, (usize, usize)),
    /// `[m, n]`
    pub c: (StoragePlace, (usize, usize)),
    /// Add to c.
    pub accumulate: bool,
}

/// What one launch runs.
#[derive(Clone, PartialEq, Debug)]
pub enum Work {
    /// A tile program with its pointer arguments.
    Kernel(Box<tile::Kernel>, Vec<StoragePlace>),
    /// A library matmul.
    Gemm(Gemm),
    /// Elements that go to other ranks, and come from them.
    Exchange(Exchange),
}

/// One launch with its share of the node's cost.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// The kernel or library call.
    pub work: Work,
    /// Floating-point operations and bytes.
    pub cost: Cost,
}

/// No kernel exists for a node.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{scope}: {op} cannot be lowered: {message}")]
pub struct KernelError {
    /// Where in the model.
    pub scope: Scope,
    /// The operation.
    pub op: &'static str,
    /// What is not supported, and what is.
    pub message: String,
}
