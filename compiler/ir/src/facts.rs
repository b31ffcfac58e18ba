//! What the passes and the kernel library need to know of an operation: one declaration for each, [`Op::facts`].
//!
//! A new operation states its facts here once. Nothing has a default, so that no pass takes an operation for something
//! that nobody said it is.

use crate::op::{BinaryOp, Op};

/// The facts about one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// What its results are made of.
    pub class: Class,
    /// Results that may or must take the place of an operand in memory.
    pub overwrites: Overwrites,
    /// Which operands it reads where they lie, if that is not dense.
    pub reads: Strides,
    /// Which results it writes where they are wanted, if that is not dense.
    pub writes: Strides,
    /// So little work that a backward computes it again rather than keep its result, if its operands are kept anyway.
    pub is_cheap: bool,
    /// Its operands' element types where a model computes in a narrow type.
    pub precision: OperandTypes,
    /// Positions of operands that are i32, where all others must be float; `None` where any type goes.
    pub integers: Option<&'static [usize]>,
    /// What it reads of the forward is kept for the gradient of an attention, and counted as such.
    pub is_attention_gradient: bool,
}

/// What the results of an operation are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// From outside of the program, by name.
    Leaf {
        /// The memory lasts from run to run, and is shared by the programs of an arena.
        persistent: bool,
    },
    /// One number for all elements.
    Constant,
    /// Each element of the one result is computed from the elements at its place: a step of a fused region.
    Pointwise,
    /// A fused region of such steps.
    Region,
    /// The operand's elements in another order or shape, or a part of them: strides into the operand's storage.
    View,
    /// The elements of all operands one behind the other: operands may be made where the result wants them.
    Join,
    /// The operand's elements with others in between, or repeated: a new tensor, but nothing is computed.
    Spread,
    /// Anything else.
    Compute,
}

impl Class {
    /// True for what moves elements and computes nothing: rounding before it is as good as rounding after it.
    pub const fn moves_elements(self) -> bool {
        match self {
            Class::View | Class::Join | Class::Spread => true,
            Class::Leaf { .. } | Class::Constant | Class::Pointwise | Class::Region | Class::Compute => false,
        }
    }

    /// True if the result may be in the storage of its operands, or they in that of the result.
    pub const fn shares_storage(self) -> bool {
        match self {
            Class::View | Class::Join => true,
            Class::Leaf { .. }
            | Class::Constant
            | Class::Pointwise
            | Class::Region
            | Class::Spread
            | Class::Compute => false,
        }
    }
}

/// Which results take the place of an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overwrites {
    /// None.
    Nothing,
    /// Always: result, and the operand that it replaces.
    Always(&'static [(u32, usize)]),
    /// Any result any operand of its type: each element is read before that place is written.
    Elementwise,
    /// Result 0 operand 0, if nothing else reads that.
    OwnedOperand,
}

impl Overwrites {
    /// The results that always take the place of an operand.
    pub const fn always(self) -> &'static [(u32, usize)] {
        match self {
            Overwrites::Always(pairs) => pairs,
            Overwrites::Nothing | Overwrites::Elementwise | Overwrites::OwnedOperand => &[],
        }
    }
}

/// Which operands or results of an operation need not be dense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strides {
    /// None.
    Dense,
    /// Those at these positions, `[B, N, heads, D]`, as long as the features of a head lie side by side.
    Heads(&'static [usize]),
    /// All: of operands, if together with the results they split into rows and columns of even strides; of results, if
    /// the last axis lies side by side.
    Rows,
    /// All.
    Any,
}

/// The element types of an operation's operands where a model computes in a narrow type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperandTypes {
    /// As they are.
    Any,
    /// Narrow at these positions, the others as they are.
    Narrow(&'static [usize]),
    /// One type for all, narrow if one of them is.
    Alike,
    /// f32.
    Wide,
}

/// Queries, keys and values.
const QKV: &[usize] = &[0, 1, 2];

impl Op {
    /// The facts about the operation.
    pub fn facts(&self) -> Facts {
        use Class::{Compute, Constant, Join, Leaf, Pointwise, Region, Spread, View};
        use OperandTypes::{Alike, Any, Narrow, Wide};
        use Overwrites::{Always, Elementwise, Nothing, OwnedOperand};
        use Strides::{Dense, Heads, Rows};
        // What a group of operations has in common.
        let leaf = |persistent| Facts {
            class: Leaf { persistent },
            overwrites: Nothing,
            reads: Dense,
            writes: Dense,
            is_cheap: false,
            precision: Any,
            integers: None,
            is_attention_gradient: false,
        };
        let pointwise = Facts {
            class: Pointwise,
            overwrites: Elementwise,
            reads: Rows,
            writes: Dense,
            is_cheap: true,
            precision: Any,
            integers: None,
            is_attention_gradient: false,
        };
        let moving = |class, is_cheap| Facts {
            class,
            overwrites: Nothing,
            reads: Strides::Any,
            writes: Dense,
            is_cheap,
            precision: Any,
            integers: None,
            is_attention_gradient: false,
        };
        let compute = |precision, integers: &'static [usize]| Facts {
            class: Compute,
            overwrites: Nothing,
            reads: Dense,
            writes: Dense,
            is_cheap: false,
            precision,
            integers: Some(integers),
            is_attention_gradient: false,
        };
        match self {
            Op::Input { .. } => leaf(false),
            Op::Param { .. } | Op::State { .. } | Op::Table { .. } => leaf(true),
            Op::Constant { .. } => Facts { class: Constant, ..leaf(false) },
            Op::Unary(_) => Facts { integers: Some(&[]), ..pointwise },
            // Integer division would need a rule for zero.
            Op::Binary(BinaryOp::Div) => Facts { integers: Some(&[]), ..pointwise },
            Op::Binary(
                BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Max
                | BinaryOp::Min
                | BinaryOp::Greater,
            ) => pointwise,
            // Its elements differ in size from those it reads.
            Op::Cast { .. } => Facts { overwrites: Nothing, ..pointwise },
            Op::Fused(_) => Facts { class: Region, writes: Rows, ..pointwise },
            Op::Reshape { .. } | Op::Slice { .. } => moving(View, true),
            Op::Transpose { .. } => moving(View, false),
            Op::Concat { .. } => Facts { precision: Alike, ..moving(Join, false) },
            Op::Broadcast { .. } => moving(Spread, true),
            Op::Pad { .. } => moving(Spread, false),
            Op::Sum { .. } => Facts { integers: None, ..compute(Any, &[]) },
            Op::MatMul { .. } => {
                Facts { reads: Strides::Any, writes: Strides::Any, ..compute(Narrow(&[0, 1]), &[]) }
            }
            Op::RmsNorm { .. } => Facts { is_cheap: true, ..compute(Narrow(&[0]), &[]) },
            Op::RmsNormGrad { .. } => compute(Narrow(&[0, 2]), &[]),
            // A rotation reads each pair before it writes it.
            Op::Rope { .. } => Facts {
                overwrites: OwnedOperand,
                reads: Heads(&[0]),
                writes: Heads(&[0]),
                ..compute(Narrow(&[0]), &[2])
            },
            Op::Embedding { .. } => compute(Any, &[1]),
            Op::EmbeddingGrad { .. } => compute(Any, &[0]),
            Op::Attention(_) => compute(Narrow(QKV), &[]),
            Op::AttentionGrad(_) => {
                Facts { is_attention_gradient: true, ..compute(Narrow(&[0, 1, 2, 3, 4]), &[]) }
            }
            Op::SoftmaxAttention { .. } | Op::LinearAttention(_) => {
                Facts { reads: Heads(QKV), writes: Heads(&[0]), ..compute(Narrow(QKV), &[]) }
            }
            Op::SoftmaxAttentionGrad { .. } => Facts {
                reads: Heads(&[0, 1, 2, 3, 5]),
                writes: Heads(&[0, 1, 2]),
                is_attention_gradient: true,
                ..compute(Narrow(&[0, 1, 2, 3, 5]), &[])
            },
            Op::LinearAttentionGrad(_) => Facts {
                reads: Heads(&[0, 1, 2, 3, 6]),
                writes: Heads(&[0, 1, 2]),
                is_attention_gradient: true,
                ..compute(Narrow(&[0, 1, 2, 3, 6]), &[])
            },
            Op::SoftmaxDecode { .. } => Facts {
                overwrites: Always(&[(1, 3), (2, 4)]),
                reads: Heads(QKV),
                ..compute(Narrow(QKV), &[5])
            },
            Op::LinearDecode(_) => Facts {
                overwrites: Always(&[(1, 3), (2, 4), (3, 5)]),
                reads: Heads(QKV),
                ..compute(Narrow(QKV), &[6])
            },
            Op::CrossEntropy | Op::CrossEntropyGrad => compute(Narrow(&[0]), &[1]),
            Op::LinearCrossEntropy { .. } | Op::LinearCrossEntropyGrad { .. } => {
                compute(Narrow(&[0, 1]), &[2])
            }
            Op::GlobalNorm => compute(Wide, &[]),
            Op::AdamW(_) => Facts { overwrites: Always(&[(0, 0), (1, 2), (2, 3)]), ..compute(Wide, &[]) },
        }
    }

    /// True if it moves elements and computes nothing.
    pub fn moves_elements(&self) -> bool {
        self.facts().class.moves_elements()
    }
}
