//! The tensor graph of linc: typed operations on statically shaped tensors.
//!
//! Invariants: every value has a static shape and dtype; operand and result types satisfy [`infer`];
//! the graph is acyclic; petgraph is named in `graph.rs` only; nothing here reads files, clocks or devices.

pub mod error;
pub mod graph;
pub mod infer;
pub mod op;
pub mod types;

pub use error::IrError;
pub use graph::{Graph, Node, NodeId, Value};
pub use op::*;
pub use types::{DType, Shape, TensorType};
