//! Pointwise functions, and regions of them that are one operation.

use crate::types::{DType, Shape};

/// Pointwise functions of one operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum UnaryOp {
    /// -x
    Neg,
    /// e^x
    Exp,
    /// natural logarithm
    Log,
    /// √x
    Sqrt,
    /// 1/√x
    Rsqrt,
    /// 1/x
    Recip,
    /// 1/(1+e^-x)
    Sigmoid,
    /// x·sigmoid(x)
    Silu,
    /// hyperbolic tangent
    Tanh,
    /// max(x, 0); derivative 0 at 0
    Relu,
}

impl UnaryOp {
    /// All functions, in declaration order.
    pub const ALL: [UnaryOp; 10] = [
        UnaryOp::Neg,
        UnaryOp::Exp,
        UnaryOp::Log,
        UnaryOp::Sqrt,
        UnaryOp::Rsqrt,
        UnaryOp::Recip,
        UnaryOp::Sigmoid,
        UnaryOp::Silu,
        UnaryOp::Tanh,
        UnaryOp::Relu,
    ];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            UnaryOp::Neg => "neg",
            UnaryOp::Exp => "exp",
            UnaryOp::Log => "log",
            UnaryOp::Sqrt => "sqrt",
            UnaryOp::Rsqrt => "rsqrt",
            UnaryOp::Recip => "recip",
            UnaryOp::Sigmoid => "sigmoid",
            UnaryOp::Silu => "silu",
            UnaryOp::Tanh => "tanh",
            UnaryOp::Relu => "relu",
        }
    }
}

/// Pointwise functions of two operands of equal type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum BinaryOp {
    /// x + y
    Add,
    /// x - y
    Sub,
    /// x · y
    Mul,
    /// x / y
    Div,
    /// larger of x and y; the derivative goes to x on ties
    Max,
    /// smaller of x and y; the derivative goes to x on ties
    Min,
    /// 1.0 where x > y, else 0.0; no derivative
    Greater,
    /// x where y is not 0, else 0, whatever x is, NaN included; no derivative in y
    Mask,
}

impl BinaryOp {
    /// All functions, in declaration order.
    pub const ALL: [BinaryOp; 8] = [
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Max,
        BinaryOp::Min,
        BinaryOp::Greater,
        BinaryOp::Mask,
    ];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Max => "max",
            BinaryOp::Min => "min",
            BinaryOp::Greater => "greater",
            BinaryOp::Mask => "mask",
        }
    }
}

/// One step of a pointwise program; operands index earlier steps.
#[derive(Clone, PartialEq, Debug)]
pub enum PointOp {
    /// Operand `i` of the fused node, broadcast to the region's shape.
    Input(usize),
    /// A constant.
    Const(f64),
    /// A function of one earlier step.
    Unary(UnaryOp, usize),
    /// A function of two earlier steps.
    Binary(BinaryOp, usize, usize),
    /// Rounding to another float type.
    Cast(DType, usize),
}

/// A pointwise region: a straight-line program evaluated for every element of `shape`.
#[derive(Clone, PartialEq, Debug)]
pub struct Pointwise {
    /// Iteration space and shape of every output.
    pub shape: Shape,
    /// Each step reads operands and the steps before it.
    pub steps: Vec<PointOp>,
    /// Steps that are outputs, with their element types.
    pub outputs: Vec<(usize, DType)>,
}
