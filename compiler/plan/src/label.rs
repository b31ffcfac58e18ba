//! Where a step comes from: for people, and for reports that add up steps of one operation.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a step comes from; prints as `layers.3/attention softmax_attention`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Label {
    /// Its layer, from 0; `None` outside of the stack of layers.
    pub layer: Option<usize>,
    /// The blocks of the model's text around it, or the part of the step that a pass added: `attention`, `optimizer`.
    pub scope: String,
    /// The operation of the graph that it is, or is a part of.
    pub op: String,
    /// What sort of work it is.
    #[serde(default)]
    pub work: WorkKind,
}

/// What sort of work a step is: by it reports add up time. Matrix products of all parts of a model are one sort, those of the
/// optimizer apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Attention; of which kind it is, the layer says.
    Attention(AttentionPass),
    /// A matrix product.
    Product,
    /// A norm of rows, or its gradient.
    Norm,
    /// Element by element, rotations of positions and sums over axes included.
    Pointwise,
    /// Rows of a table by their ids, or their gradient.
    Embedding,
    /// The loss of logits, or its gradient, without the products around it.
    Loss,
    /// The norm of the gradients, and all behind it.
    Optimizer,
    /// What ranks send to each other, and the wait for it.
    Exchange,
    /// Elements in another place, order or type; nothing is computed.
    #[default]
    Move,
}

impl WorkKind {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            WorkKind::Attention(AttentionPass::Forward) => "attention forward",
            WorkKind::Attention(AttentionPass::Backward) => "attention backward",
            WorkKind::Attention(AttentionPass::Decode) => "attention decode",
            WorkKind::Product => "products",
            WorkKind::Norm => "norms",
            WorkKind::Pointwise => "pointwise",
            WorkKind::Embedding => "embedding",
            WorkKind::Loss => "loss",
            WorkKind::Optimizer => "optimizer",
            WorkKind::Exchange => "exchange",
            WorkKind::Move => "copies",
        }
    }
}

/// What a step of attention does; of which kind it is, its layer says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionPass {
    /// The output of whole sequences, and what is kept for the backward.
    Forward,
    /// Gradients of q, k and v.
    Backward,
    /// The output of the next tokens, and the state behind them.
    Decode,
}

impl AttentionPass {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            AttentionPass::Forward => "forward",
            AttentionPass::Backward => "backward",
            AttentionPass::Decode => "decode",
        }
    }
}

impl Label {
    /// The label as if it were of no layer: the same for all layers that do the same.
    #[must_use]
    pub fn of_any_layer(&self) -> Label {
        Label { layer: None, ..self.clone() }
    }

    /// What it does of attention, if it does.
    pub fn attention(&self) -> Option<AttentionPass> {
        match self.work {
            WorkKind::Attention(pass) => Some(pass),
            WorkKind::Product
            | WorkKind::Norm
            | WorkKind::Pointwise
            | WorkKind::Embedding
            | WorkKind::Loss
            | WorkKind::Optimizer
            | WorkKind::Exchange
            | WorkKind::Move => None,
        }
    }
}

impl From<&str> for Label {
    fn from(op: &str) -> Self {
        Label { op: op.into(), ..Label::default() }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.layer, self.scope.is_empty()) {
            (None, true) => f.write_str(&self.op),
            (None, false) => write!(f, "{} {}", self.scope, self.op),
            (Some(layer), true) => write!(f, "layers.{layer} {}", self.op),
            (Some(layer), false) => write!(f, "layers.{layer}/{} {}", self.scope, self.op),
        }
    }
}
