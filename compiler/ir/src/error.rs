//! What can be wrong with a graph.

use linc_text::{Position, SyntaxError};
use thiserror::Error;

use crate::graph::NodeId;

/// An ill-formed graph or operation.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum IrError {
    /// Operands do not fit the operation; the message names shapes and expectation.
    #[error("{op}: {message}")]
    Type {
        /// Operation name.
        op: &'static str,
        /// What was found and what was expected.
        message: String,
    },
    /// The graph is not acyclic.
    #[error("cycle through {op} ({node:?})")]
    Cycle {
        /// A node on the cycle.
        node: NodeId,
        /// Its operation.
        op: &'static str,
    },
    /// An invariant of the graph is broken (a bug in a pass).
    #[error("{node:?} {op}: {message}")]
    Verify {
        /// Where: the node that fails the check, or whose operand does.
        node: NodeId,
        /// Its operation.
        op: &'static str,
        /// The broken invariant.
        message: String,
    },
    /// The text form does not parse.
    #[error("line {line}, column {column}: {message}")]
    Parse {
        /// 1-based line.
        line: usize,
        /// 1-based column.
        column: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// The interpreter misses an input or got one of the wrong type.
    #[error("input {name}: {message}")]
    Input {
        /// Leaf name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The interpreter met a value that an operation has no meaning for (a token id outside the vocabulary).
    #[error("{op}: {message}")]
    Value {
        /// Operation name.
        op: &'static str,
        /// What was found and what was expected.
        message: String,
    },
}

impl From<SyntaxError> for IrError {
    fn from(error: SyntaxError) -> Self {
        let Position { line, column } = error.at;
        IrError::Parse { line, column, message: error.message }
    }
}
