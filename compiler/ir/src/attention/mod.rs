//! Attention: the abstract operation that a model writes, and the operations of each kind that it is lowered to.
//!
//! A kind is a module here, with its operations, their attributes, facts, typing rules and text, and one in
//! `interp/attention`, with its formulas. To add one: both modules, a variant of [`AttentionKind`] and of [`KindOp`], and
//! what the compiler then asks for in this file and in `interp/attention/mod.rs`. Nothing else in this crate knows kinds.

mod efficient;
mod elu;
mod softmax;

pub use efficient::{EfficientForm, EfficientOp, EfficientSpec};
pub use elu::{EluOp, EluSpec};
pub use softmax::SoftmaxOp;

use crate::facts::Facts;
use crate::graph::Value;
use crate::infer::{Check, HeadSizes, Types};
use crate::registered::registered;

/// How a layer attends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AttentionKind {
    /// Softmax over keys, O(n²) time.
    Softmax,
    /// Efficient attention (Shen et al., arXiv 1812.01243), which is made causal where a text does not say otherwise, O(n) time.
    Efficient,
    /// Causal linear attention with the features elu(x) + 1 (Katharopoulos et al., arXiv 2006.16236), O(n) time.
    Elu,
}

/// What kinds have in common for those who choose layers and read reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttentionFamily {
    /// Work and memory grow with the number of pairs of tokens.
    Softmax,
    /// They grow with the number of tokens: what `linear_attn_ratio` asks for.
    Linear,
}

impl AttentionFamily {
    /// Name in settings and reports.
    pub const fn name(self) -> &'static str {
        match self {
            AttentionFamily::Softmax => "softmax",
            AttentionFamily::Linear => "linear",
        }
    }

    /// One letter for the layer map.
    pub const fn letter(self) -> char {
        match self {
            AttentionFamily::Softmax => 'S',
            AttentionFamily::Linear => 'L',
        }
    }

    /// The kind of layers for which only the family was asked.
    pub const fn default_kind(self) -> AttentionKind {
        match self {
            AttentionFamily::Softmax => AttentionKind::Softmax,
            AttentionFamily::Linear => AttentionKind::Efficient,
        }
    }
}

impl AttentionKind {
    /// All kinds, in declaration order.
    pub const ALL: [AttentionKind; 3] =
        [AttentionKind::Softmax, AttentionKind::Efficient, AttentionKind::Elu];

    /// Name in the language.
    pub const fn name(self) -> &'static str {
        match self {
            AttentionKind::Softmax => "softmax",
            AttentionKind::Efficient => "efficient",
            AttentionKind::Elu => "elu",
        }
    }

    /// What it is to those who choose layers.
    pub const fn family(self) -> AttentionFamily {
        match self {
            AttentionKind::Softmax => AttentionFamily::Softmax,
            AttentionKind::Efficient | AttentionKind::Elu => AttentionFamily::Linear,
        }
    }

    /// What reports and checkpoints call a layer: its family if that says it all, or else its name.
    pub fn label(self) -> &'static str {
        let family = self.family();
        if family.default_kind() == self { family.name() } else { self.name() }
    }

    /// The kind with a name or a label.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name || kind.label() == name)
    }
}

/// Attributes of the abstract attention that a model writes; lowering turns each into one kind.
#[derive(Clone, PartialEq, Debug)]
pub struct AttentionSpec {
    /// Position in the stack of layers, from 0.
    pub layer: usize,
    /// Each query sees only keys at or before its own position.
    pub causal: bool,
    /// True when operand 3 is a rope table for q and k.
    pub rope: bool,
    /// The kind, where it is not that of the layer: of a branch in a layer that mixes kinds.
    pub kind: Option<AttentionKind>,
}

registered! {
    /// An operation of one kind of attention. q, k, v, their gradients, out and dout are of one type; statistics and states
    /// are f32.
    KindOp, in Op::Kind, each KindOperation {
        /// Of softmax attention.
        Softmax(SoftmaxOp),
        /// Of efficient attention.
        Efficient(EfficientOp),
        /// Of attention with elu features.
        Elu(EluOp),
    }
}

/// What every operation of a kind answers. Its first three operands are q, k and v.
pub(crate) trait KindOperation {
    /// The name in the text form.
    fn name(&self) -> &'static str;

    /// The gradient of a forward: its operands are q, k and v, the results of the forward, dout, and the other operands of the
    /// forward; its first results dq, dk and dv. Nothing for other operations.
    fn gradient(&self) -> Option<KindOp>;

    /// See [`Op::facts`].
    fn facts(&self) -> &'static Facts;

    /// Attributes that must be at least 1.
    fn sizes(&self) -> Vec<(&'static str, usize)>;

    /// The typing rule, with the sizes of q, k and v, which are checked.
    fn results(&self, check: &Check<'_>, heads: HeadSizes) -> Types;

    /// The attributes as `key = value`.
    fn attributes(&self) -> Vec<String>;
}

impl KindOp {
    /// The name in the text form.
    pub fn name(&self) -> &'static str {
        self.operation().name()
    }

    /// The operation that is the gradient of a forward; nothing for other operations. It takes q, k and v, the results of the
    /// forward, dout, and the other operands of the forward, and gives dq, dk and dv first.
    pub fn gradient(&self) -> Option<KindOp> {
        self.operation().gradient()
    }

    /// The operands of [`KindOp::gradient`], of those and the results of the forward.
    pub fn gradient_operands(
        forward: &[Value],
        results: impl IntoIterator<Item = Value>,
        dout: Value,
    ) -> Vec<Value> {
        let (qkv, others) = forward.split_at(3);
        qkv.iter().copied().chain(results).chain([dout]).chain(others.iter().copied()).collect()
    }

    pub(crate) fn facts(&self) -> &'static Facts {
        self.operation().facts()
    }

    pub(crate) fn sizes(&self) -> Vec<(&'static str, usize)> {
        self.operation().sizes()
    }

    pub(crate) fn results(&self, check: &Check<'_>, heads: HeadSizes) -> Types {
        self.operation().results(check, heads)
    }

    pub(crate) fn attributes(&self) -> Vec<String> {
        self.operation().attributes()
    }
}
