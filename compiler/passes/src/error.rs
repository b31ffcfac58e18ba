//! What a pass can refuse.

use linc_ir::{IrError, NodeId, Scope};
use thiserror::Error;

/// A pass could not do its work.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PassError {
    /// A graph rule is broken: a bug in a pass, or an operation used where it cannot be.
    #[error(transparent)]
    Ir(#[from] IrError),
    /// Differentiation reached an operation without a derivative.
    #[error("{scope}: {op} has no derivative")]
    NotDifferentiable {
        /// The part of the model, `layers.0/attention`.
        scope: Scope,
        /// The operation.
        op: &'static str,
    },
    /// A parameter that the loss does not depend on.
    #[error("parameter {name} does not influence the loss: remove it from the model or use it")]
    UnusedParameter {
        /// Checkpoint name.
        name: String,
    },
    /// The model cannot be evaluated for some of its tokens: an operation outside of attention makes something of several
    /// positions, or attention is not causal.
    #[error("the model cannot generate: {message}")]
    MixesPositions {
        /// The operation, in the graph as the language built it.
        node: NodeId,
        /// What it does.
        message: String,
    },
    /// The documents of a sequence cannot be kept apart: something else than causal attention makes something of several
    /// positions.
    #[error("the documents of a sequence cannot be kept apart: {message}")]
    MixesDocuments {
        /// The operation, in the graph as the language built it, if it is one.
        node: Option<NodeId>,
        /// What it does.
        message: String,
    },
    /// The graph lacks an output or input that the pass needs.
    #[error("{0}")]
    Missing(String),
    /// A setting out of its range.
    #[error("{0}")]
    Setting(String),
}
