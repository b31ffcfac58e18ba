//! What the passes and the kernel library need to know of an operation: one declaration for each, [`Op::facts`].
//!
//! A new operation states its facts here once. Nothing has a default, so that no pass takes an operation for something
//! that nobody said it is.

use crate::op::Op;
use crate::pointwise::{BinaryOp, PointOp};

/// The facts about one operation.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// What it goes over again and again.
    pub walks: Walks,
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
    /// Each element of the one result is computed from the elements at its place: [`Op::step`] of a fused region.
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
    /// No result takes the place of an operand.
    Nothing,
    /// Always: result, and the operand that it replaces.
    Always(&'static [(u32, usize)]),
    /// Any result any operand of its type: each element is read before that place is written.
    Elementwise,
    /// Result 0 operand 0, if nothing else reads that.
    OwnedOperand,
    /// Result 0 no operand, but all leaves that its parts update and that lie side by side as they do in it.
    UpdatedLeaves,
}

impl Overwrites {
    /// The results that always take the place of an operand.
    pub const fn always(self) -> &'static [(u32, usize)] {
        match self {
            Overwrites::Always(pairs) => pairs,
            Overwrites::Nothing
            | Overwrites::Elementwise
            | Overwrites::OwnedOperand
            | Overwrites::UpdatedLeaves => &[],
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
    /// With any strides.
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

/// Operands and results `[B, N, heads, D]` whose blocks of rows an operation's programs visit many times: it pays to have the
/// rows of a head side by side, even by a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walks {
    /// Operands.
    pub reads: &'static [usize],
    /// Results, which grow by each visit.
    pub adds: &'static [usize],
}

impl Walks {
    /// Each element is visited a few times at most.
    pub const NOTHING: Walks = Walks { reads: &[], adds: &[] };
}

/// Queries, keys and values.
pub(crate) const QKV: &[usize] = &[0, 1, 2];

// What a group of operations has in common.

const fn leaf(persistent: bool) -> Facts {
    Facts {
        class: Class::Leaf { persistent },
        overwrites: Overwrites::Nothing,
        reads: Strides::Dense,
        writes: Strides::Dense,
        is_cheap: false,
        precision: OperandTypes::Any,
        integers: None,
        is_attention_gradient: false,
        walks: Walks::NOTHING,
    }
}

const fn pointwise(integers: Option<&'static [usize]>) -> Facts {
    Facts {
        class: Class::Pointwise,
        overwrites: Overwrites::Elementwise,
        reads: Strides::Rows,
        writes: Strides::Dense,
        is_cheap: true,
        precision: OperandTypes::Any,
        integers,
        is_attention_gradient: false,
        walks: Walks::NOTHING,
    }
}

const fn moving(class: Class, is_cheap: bool) -> Facts {
    Facts {
        class,
        overwrites: Overwrites::Nothing,
        reads: Strides::Any,
        writes: Strides::Dense,
        is_cheap,
        precision: OperandTypes::Any,
        integers: None,
        is_attention_gradient: false,
        walks: Walks::NOTHING,
    }
}

pub(crate) const fn compute(precision: OperandTypes, integers: &'static [usize]) -> Facts {
    Facts {
        class: Class::Compute,
        overwrites: Overwrites::Nothing,
        reads: Strides::Dense,
        writes: Strides::Dense,
        is_cheap: false,
        precision,
        integers: Some(integers),
        is_attention_gradient: false,
        walks: Walks::NOTHING,
    }
}

impl Op {
    /// The facts about the operation.
    pub fn facts(&self) -> &'static Facts {
        use Class::{Constant, Join, Region, Spread, View};
        use OperandTypes::{Alike, Any, Narrow, Wide};
        use Overwrites::{Nothing, OwnedOperand};
        use Strides::{Heads, Rows};
        match self {
            Op::Input { .. } => const { &leaf(false) },
            Op::Param { .. } | Op::State { .. } | Op::Table { .. } => const { &leaf(true) },
            Op::Constant { .. } => const { &Facts { class: Constant, ..leaf(false) } },
            Op::Unary(_) => const { &pointwise(Some(&[])) },
            // Integer division would need a rule for zero.
            Op::Binary(BinaryOp::Div) => const { &pointwise(Some(&[])) },
            Op::Binary(
                BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Max
                | BinaryOp::Min
                | BinaryOp::Greater
                | BinaryOp::Mask,
            ) => const { &pointwise(None) },
            // Its elements differ in size from those it reads.
            Op::Cast { .. } => const { &Facts { overwrites: Nothing, ..pointwise(None) } },
            Op::Fused(_) => const { &Facts { class: Region, writes: Rows, ..pointwise(None) } },
            Op::Reshape { .. } | Op::Slice { .. } => const { &moving(View, true) },
            Op::Transpose { .. } => const { &moving(View, false) },
            Op::Concat { .. } => const { &Facts { precision: Alike, ..moving(Join, false) } },
            Op::Broadcast { .. } => const { &moving(Spread, true) },
            Op::Pad { .. } => const { &moving(Spread, false) },
            Op::Sum { .. } => const { &Facts { integers: None, ..compute(Any, &[]) } },
            Op::MatMul { .. } => {
                const { &Facts { reads: Strides::Any, writes: Strides::Any, ..compute(Narrow(&[0, 1]), &[]) } }
            }
            Op::RmsNorm { .. } => const { &Facts { is_cheap: true, ..compute(Narrow(&[0]), &[]) } },
            Op::RmsNormGrad { .. } => const { &compute(Narrow(&[0, 2]), &[]) },
            // A rotation reads each pair before it writes it.
            Op::Rope { .. } => {
                const {
                    &Facts {
                        overwrites: OwnedOperand,
                        reads: Heads(&[0]),
                        writes: Heads(&[0]),
                        ..compute(Narrow(&[0]), &[2])
                    }
                }
            }
            Op::Embedding { .. } => const { &compute(Any, &[1]) },
            Op::EmbeddingGrad { .. } => const { &compute(Any, &[0]) },
            // Where positions are depends on the rope table.
            Op::Attention(_) => const { &Facts { integers: None, ..compute(Narrow(QKV), &[]) } },
            Op::AttentionGrad(_) => {
                const {
                    &Facts {
                        is_attention_gradient: true,
                        integers: None,
                        ..compute(Narrow(&[0, 1, 2, 3, 4]), &[])
                    }
                }
            }
            Op::Kind(op) => op.facts(),
            Op::CrossEntropy | Op::CrossEntropyGrad | Op::LogProbs => const { &compute(Narrow(&[0]), &[1]) },
            Op::LinearCrossEntropy { .. } | Op::LinearCrossEntropyGrad { .. } | Op::LinearLogProbs { .. } => {
                const { &compute(Narrow(&[0, 1]), &[2]) }
            }
            Op::GlobalNorm | Op::NormFinish => const { &compute(Wide, &[]) },
            Op::Update(op) => op.facts(),
            Op::Exchange(op) => op.facts(),
        }
    }

    /// The step of a fused region that does what the operation does with steps `args`; nothing if it is not
    /// [`Class::Pointwise`].
    pub fn step(&self, args: &[usize]) -> Option<PointOp> {
        match (self, args) {
            (Op::Unary(f), [x]) => Some(PointOp::Unary(*f, *x)),
            (Op::Binary(f), [x, y]) => Some(PointOp::Binary(*f, *x, *y)),
            (Op::Cast { dtype }, [x]) => Some(PointOp::Cast(*dtype, *x)),
            _ => None,
        }
    }

    /// True if it moves elements and computes nothing.
    pub fn moves_elements(&self) -> bool {
        self.facts().class.moves_elements()
    }
}
