#![doc = include_str!("../README.md")]

pub mod attention;
mod attributes;
pub mod dot;
pub mod error;
pub mod facts;
pub mod graph;
pub mod infer;
pub mod interp;
pub mod layout;
pub mod limits;
pub mod op;
pub mod optimizer;
pub mod parse;
mod registered;
pub mod results;
pub mod role;
pub mod scope;
pub mod text;
pub mod types;
pub mod verify;

pub use attention::*;
pub use dot::dot;
pub use error::IrError;
pub use facts::{Class, Facts, OperandTypes, Overwrites, Strides};
pub use graph::{Graph, Node, NodeId, Value};
pub use layout::{Layout, Storage};
pub use op::*;
pub use optimizer::{AdamWSpec, UpdateOp};
pub use parse::parse;
pub use results::ResultList;
pub use role::{ParamState, StateRole};
pub use scope::Scope;
pub use text::print;
pub use types::{DType, Shape, TensorType};
pub use verify::verify;
