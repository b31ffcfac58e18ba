//! The scheduled form of a kernel: what runs in which order, with tiles in registers of the scratch area.

use linc_tile::{Binary, Compare, Elem, Op, ParamId, Reduction, Unary, ValueId};

use super::half::Half;
use crate::primitive::Primitive;

/// A tile-sized place in scratch, written by one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RegId(pub(crate) u32);

/// Where the elements of a tile are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Storage {
    /// In scratch.
    Reg(RegId),
    /// In memory, from an element offset on.
    Memory {
        /// The pointer.
        param: ParamId,
        /// Index scalar, in elements.
        offset: ValueId,
    },
}

/// A strided array of `[rows, cols]` elements; a vector has one row. A stride of 0 repeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Array {
    /// First element.
    pub(crate) place: Storage,
    /// The type of elements in memory that are not 4 bytes wide.
    pub(crate) half: Option<Half>,
    /// Strides of rows and columns, in elements.
    pub(crate) strides: [i64; 2],
}

impl Array {
    /// A whole register of a shape.
    pub(crate) fn dense(reg: RegId, shape: [usize; 2]) -> Array {
        Array { place: Storage::Reg(reg), half: None, strides: [shape[1] as i64, 1] }
    }

    /// Binary logarithm of an element's bytes.
    pub(crate) fn shift(&self) -> i64 {
        if self.half.is_some() { 1 } else { 2 }
    }

    /// A vector of f32 along one axis, repeated along the other.
    pub(crate) fn is_vector(&self) -> bool {
        matches!(self.strides, [0, 1] | [1, 0]) && self.half.is_none()
    }

    /// Elements in row-major order without gaps.
    pub(crate) fn is_dense(&self, shape: [usize; 2]) -> bool {
        (shape[1] <= 1 || self.strides[1] == 1) && (shape[0] <= 1 || self.strides[0] == shape[1] as i64)
    }
}

/// One operation of a pointwise group; operands are indices of earlier operations of the group.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum FusedOp {
    /// An element of an array.
    Read(Array),
    /// A scalar.
    Splat(ValueId),
    /// Index along an axis of `[rows, cols]`.
    Iota(usize),
    /// A function of one operand, without those that are primitives.
    Unary(Unary, usize),
    /// A function of two operands.
    Binary(Binary, usize, usize),
    /// a·b + c
    Fma(usize, usize, usize),
    /// A comparison, as a mask.
    Compare(Compare, usize, usize),
    /// A choice by mask.
    Select(usize, usize, usize),
    /// I32 to F32.
    IntToFloat(usize),
    /// F32 of a whole number to I32.
    FloatToInt(usize),
    /// F32 rounded to the precision of a narrow type.
    Round(Half, usize),
}

/// A pointwise loop over one shape.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Group {
    /// Rows and columns.
    pub(crate) shape: [usize; 2],
    /// Operations in order, each with the element type of its result.
    pub(crate) ops: Vec<(FusedOp, Elem)>,
    /// Results that later nodes read.
    pub(crate) outputs: Vec<(usize, RegId)>,
    /// Results that go to memory.
    pub(crate) stores: Vec<(usize, Array)>,
    /// Index scalars that cut rows and columns short, where every access has the same bound.
    pub(crate) limits: [Option<ValueId>; 2],
}

/// A tile that a loop carries.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Carry {
    /// Before the first round.
    pub(crate) init: RegId,
    /// In the body.
    pub(crate) arg: RegId,
    /// At the end of the body.
    pub(crate) yielded: RegId,
    /// After the loop.
    pub(crate) result: RegId,
    /// Number of elements.
    pub(crate) numel: usize,
}

/// Where a reduction puts its result.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum ReduceTo {
    /// A vector.
    Reg(RegId),
    /// A value of its own, when the operand is a vector.
    Scalar(ValueId),
}

/// What to run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Node {
    /// An operation of scalars.
    Scalar {
        /// The value that the operation defines.
        result: ValueId,
        /// Operation, with scalar operands only.
        op: Op,
    },
    /// Writes a scalar to memory.
    StoreScalar {
        /// Destination.
        to: Storage,
        /// Scalar.
        value: ValueId,
    },
    /// A pointwise loop.
    Group(Group),
    /// A transcendental function of a dense array.
    Math {
        /// What the runtime supplies for it.
        function: Primitive,
        /// Result.
        dst: RegId,
        /// Operand.
        src: Storage,
        /// Elements.
        numel: usize,
    },
    /// 2^(src·factor + shift) of a dense array.
    AffineExp2 {
        /// Result.
        dst: RegId,
        /// Operand.
        src: Storage,
        /// Rows and columns.
        shape: [usize; 2],
        /// Scalar.
        factor: ValueId,
        /// A vector along one axis.
        shift: Array,
    },
    /// A dense array times a vector along one axis.
    Scale {
        /// Result.
        dst: RegId,
        /// Operand.
        src: Storage,
        /// Rows and columns.
        shape: [usize; 2],
        /// Repeated along one axis.
        vector: Array,
    },
    /// (src - vector) · factor of dense arrays and a vector along one axis.
    ScaledDifference {
        /// Result.
        dst: RegId,
        /// Operand.
        src: Storage,
        /// Multiplied with the difference.
        factor: Storage,
        /// Rows and columns.
        shape: [usize; 2],
        /// Repeated along one axis.
        vector: Array,
    },
    /// A dense copy of an array, 0 beyond the bounds.
    Load {
        /// Result.
        dst: RegId,
        /// Source.
        src: Array,
        /// Rows and columns.
        shape: [usize; 2],
        /// Index scalars.
        bounds: [Option<ValueId>; 2],
    },
    /// A register to memory.
    Store {
        /// Destination.
        dst: Array,
        /// Source.
        src: RegId,
        /// Rows and columns.
        shape: [usize; 2],
        /// Index scalars.
        bounds: [Option<ValueId>; 2],
    },
    /// Elements of a register to places of their own, those of negative places nowhere.
    Scatter {
        /// Where place 0 is.
        to: Storage,
        /// Element type in memory.
        elem: Elem,
        /// I32 register.
        places: RegId,
        /// Register.
        src: RegId,
        /// Number of elements.
        numel: usize,
    },
    /// A matrix product into a register.
    Dot {
        /// Result.
        dst: RegId,
        /// Added to it.
        acc: Option<RegId>,
        /// Left operand `[m, k]`.
        a: Array,
        /// Right operand `[k, n]`.
        b: Array,
        /// m, n, k.
        sizes: [usize; 3],
    },
    /// A reduction of an f32 array whose rows are contiguous.
    Reduce {
        /// Sum or maximum.
        op: Reduction,
        /// Result.
        to: ReduceTo,
        /// Operand.
        src: Array,
        /// Rows and columns.
        shape: [usize; 2],
        /// The axis that disappears.
        axis: usize,
    },
    /// A running sum.
    Scan {
        /// Result.
        dst: RegId,
        /// Operand.
        src: RegId,
        /// Rows and columns.
        shape: [usize; 2],
        /// Direction.
        axis: usize,
        /// From the end.
        reverse: bool,
    },
    /// A counted loop.
    For {
        /// Index scalars: first, end, step.
        range: [ValueId; 3],
        /// The counter in the body.
        counter: ValueId,
        /// Carried scalars: before, in the body, at its end, after.
        scalars: Vec<[ValueId; 4]>,
        /// Carried tiles.
        tiles: Vec<Carry>,
        /// Run once for each value of the counter.
        body: Vec<Node>,
    },
    /// A uniform branch.
    If {
        /// Bool scalar.
        cond: ValueId,
        /// Scalars: of the first region, of the second, result.
        scalars: Vec<[ValueId; 3]>,
        /// Tiles: of the first region, of the second, result, with the number of elements.
        tiles: Vec<([RegId; 3], usize)>,
        /// If true.
        then: Vec<Node>,
        /// If false.
        otherwise: Vec<Node>,
    },
}

/// A scheduled kernel.
pub(crate) struct Schedule {
    /// Elements of each register.
    pub(crate) regs: Vec<usize>,
    /// The program.
    pub(crate) nodes: Vec<Node>,
}
