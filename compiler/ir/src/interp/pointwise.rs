//! Pointwise operations, alone and fused.

use super::tensor::{Args, Data, Real, Tensor};
use super::view::broadcast;
use crate::error::IrError;
use crate::pointwise::{BinaryOp, PointOp, Pointwise, UnaryOp};
use crate::types::{DType, TensorType};

/// A function of one number.
pub fn unary<T: Real>(op: UnaryOp, x: T) -> T {
    let one = T::one();
    let sigmoid = |x: T| one / (one + (-x).exp());
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Exp => x.exp(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Rsqrt => one / x.sqrt(),
        UnaryOp::Recip => one / x,
        UnaryOp::Sigmoid => sigmoid(x),
        UnaryOp::Silu => x * sigmoid(x),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Relu => x.max(T::zero()),
    }
}

/// A function of two numbers.
pub fn binary<T: Real>(op: BinaryOp, x: T, y: T) -> T {
    match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Max => x.max(y),
        BinaryOp::Min => x.min(y),
        BinaryOp::Greater if x > y => T::one(),
        BinaryOp::Greater => T::zero(),
        BinaryOp::Mask if y == T::zero() => T::zero(),
        BinaryOp::Mask => x,
    }
}

fn binary_int(op: BinaryOp, x: i32, y: i32) -> i32 {
    match op {
        BinaryOp::Add => x.wrapping_add(y),
        BinaryOp::Sub => x.wrapping_sub(y),
        BinaryOp::Mul => x.wrapping_mul(y),
        // Inference rejects integer division; 0 keeps this total.
        BinaryOp::Div => x.checked_div(y).unwrap_or(0),
        BinaryOp::Max => x.max(y),
        BinaryOp::Min => x.min(y),
        BinaryOp::Greater => i32::from(x > y),
        BinaryOp::Mask if y == 0 => 0,
        BinaryOp::Mask => x,
    }
}

pub(super) fn unary_tensor<T: Real>(op: UnaryOp, args: &Args<'_, T>) -> Result<Tensor<T>, IrError> {
    let data = args.floats(0)?.iter().map(|x| unary(op, *x)).collect();
    Ok(Tensor { shape: args.operands[0].shape.clone(), data: Data::Float(data) })
}

pub(super) fn binary_tensor<T: Real>(op: BinaryOp, args: &Args<'_, T>) -> Result<Tensor<T>, IrError> {
    let data = match &args.operands[0].data {
        Data::Float(x) => {
            Data::Float(x.iter().zip(args.floats(1)?).map(|(x, y)| binary(op, *x, *y)).collect())
        }
        Data::Int(x) => Data::Int(x.iter().zip(args.ints(1)?).map(|(x, y)| binary_int(op, *x, *y)).collect()),
    };
    Ok(Tensor { shape: args.operands[0].shape.clone(), data })
}

/// Conversion; to i32 by truncation. The caller rounds to 16 bits.
pub(super) fn cast<T: Real>(x: &Tensor<T>, dtype: DType) -> Tensor<T> {
    let data = match (&x.data, dtype) {
        (Data::Float(x), DType::I32) => Data::Int(x.iter().map(|x| x.double() as i32).collect()),
        (Data::Int(x), DType::F32 | DType::F64 | DType::Bf16 | DType::F16) => {
            Data::Float(x.iter().map(|x| T::of(f64::from(*x))).collect())
        }
        (data @ Data::Float(_), DType::F32 | DType::F64 | DType::Bf16 | DType::F16)
        | (data @ Data::Int(_), DType::I32) => data.clone(),
    };
    Tensor { shape: x.shape.clone(), data }
}

/// Evaluates the program step by step over the whole region; integer operands take part as numbers.
pub(super) fn fused<T: Real>(
    region: &Pointwise,
    args: &Args<'_, T>,
    types: &[TensorType],
) -> Result<Vec<Tensor<T>>, IrError> {
    let n = region.shape.numel();
    let mut values: Vec<Vec<T>> = Vec::with_capacity(region.steps.len());
    for step in &region.steps {
        let value = match step {
            PointOp::Input(i) => {
                let x = broadcast(&cast(args.operands[*i], DType::F64), &region.shape);
                x.floats()
                    .map_or_else(|| args.error("an operand did not become float"), |x| Ok(x.to_vec()))?
            }
            PointOp::Const(c) => vec![T::of(*c); n],
            PointOp::Unary(u, a) => values[*a].iter().map(|x| unary(*u, *x)).collect(),
            PointOp::Binary(b, x, y) => {
                values[*x].iter().zip(&values[*y]).map(|(x, y)| binary(*b, *x, *y)).collect()
            }
            PointOp::Cast(DType::Bf16, a) => values[*a].iter().map(|x| x.round_bf16()).collect(),
            PointOp::Cast(DType::F16, a) => values[*a].iter().map(|x| x.round_f16()).collect(),
            PointOp::Cast(DType::F32 | DType::F64, a) => values[*a].clone(),
            PointOp::Cast(DType::I32, a) => {
                values[*a].iter().map(|x| T::of(f64::from(x.double() as i32))).collect()
            }
        };
        values.push(value);
    }
    let outputs = region.outputs.iter().zip(types);
    Ok(outputs
        .map(|((step, _), ty)| cast(&Tensor::float(ty.shape.clone(), values[*step].clone()), ty.dtype))
        .collect())
}
