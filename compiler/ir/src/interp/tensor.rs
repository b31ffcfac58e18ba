//! Values of the interpreter, and the number type it is generic over.

use num_traits::Float;

use crate::error::IrError;
use crate::types::{DType, Shape, TensorType};

/// A number type to interpret in: `f64` for reference values, `f32` for what a plain kernel would give.
pub trait Real:
    Float + std::iter::Sum + std::ops::AddAssign + std::fmt::Debug + Send + Sync + 'static
{
    /// The nearest number.
    fn of(x: f64) -> Self;
    /// The same number in double precision.
    fn double(self) -> f64;
    /// The nearest bfloat16 number, ties to even.
    fn round_bf16(self) -> Self;
    /// The nearest binary16 number, ties to even; infinite from 65520 on.
    fn round_f16(self) -> Self;
}

/// [`Real::round_f16`]. The spacing of binary16 around x is a power of two, so scaling by it is exact, and only the rounding
/// to an integer rounds.
fn nearest_f16(x: f64) -> f64 {
    const EXPONENT: u64 = 0x7ff;
    const BIAS: u64 = 1023;
    // 2^-14 begins the smallest binade; below it the spacing stays.
    let exponent = ((x.to_bits() >> 52) & EXPONENT).max(BIAS - 14);
    if exponent == EXPONENT {
        return x;
    }
    let spacing = f64::from_bits((exponent - 10) << 52);
    let near = (x / spacing).round_ties_even() * spacing;
    if near.abs() > 65504.0 { f64::INFINITY.copysign(x) } else { near }
}

impl Real for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }

    fn double(self) -> f64 {
        f64::from(self)
    }

    fn round_bf16(self) -> Self {
        if self.is_nan() {
            return self;
        }
        let bits = self.to_bits();
        let half = 0x7fff + ((bits >> 16) & 1);
        f32::from_bits((bits + half) & 0xffff_0000)
    }

    fn round_f16(self) -> Self {
        nearest_f16(f64::from(self)) as f32
    }
}

impl Real for f64 {
    fn of(x: f64) -> Self {
        x
    }

    fn double(self) -> f64 {
        self
    }

    fn round_bf16(self) -> Self {
        let mut near = self as f32;
        // Rounding twice is right if the first rounding goes to odd: an inexact value never looks like a tie.
        let bits = near.to_bits();
        if f64::from(near) != self && bits & 1 == 0 && !self.is_nan() {
            let away = f64::from(near).abs() > self.abs();
            near = f32::from_bits(if away { bits - 1 } else { bits + 1 });
        }
        f64::from(near.round_bf16())
    }

    fn round_f16(self) -> Self {
        nearest_f16(self)
    }
}

/// Rounds numbers to those of an element type; see [`Tensor::rounded`].
pub(super) fn round<T: Real>(x: &mut [T], dtype: DType) {
    match dtype {
        DType::Bf16 => x.iter_mut().for_each(|x| *x = x.round_bf16()),
        DType::F16 => x.iter_mut().for_each(|x| *x = x.round_f16()),
        DType::F32 | DType::F64 | DType::I32 => {}
    }
}

/// Elements of a tensor in row-major order.
#[derive(Clone, PartialEq, Debug)]
pub enum Data<T> {
    /// Elements of a float type. Those of a bf16 or f16 tensor are such numbers.
    Float(Vec<T>),
    /// Elements of an i32 tensor.
    Int(Vec<i32>),
}

/// A tensor value.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor<T> {
    /// Shape; its number of elements is the length of the data.
    pub shape: Shape,
    /// Row-major, as many as the shape says.
    pub data: Data<T>,
}

impl<T: Real> Tensor<T> {
    /// A float tensor.
    pub fn float(shape: impl Into<Shape>, data: Vec<T>) -> Self {
        Tensor { shape: shape.into(), data: Data::Float(data) }
    }

    /// An i32 tensor.
    pub fn int(shape: impl Into<Shape>, data: Vec<i32>) -> Self {
        Tensor { shape: shape.into(), data: Data::Int(data) }
    }

    /// A float scalar.
    pub fn scalar(x: T) -> Self {
        Self::float([], vec![x])
    }

    /// A tensor of the type with every element equal to `value` (truncated for i32).
    pub fn full(ty: &TensorType, value: f64) -> Self {
        let n = ty.shape.numel();
        match ty.dtype {
            DType::I32 => Self::int(ty.shape.clone(), vec![value as i32; n]),
            DType::F32 | DType::F64 | DType::Bf16 | DType::F16 => {
                Self::float(ty.shape.clone(), vec![T::of(value); n])
            }
        }
    }

    /// The float elements, if it is a float tensor.
    pub fn floats(&self) -> Option<&[T]> {
        match &self.data {
            Data::Float(x) => Some(x),
            Data::Int(_) => None,
        }
    }

    /// The integer elements, if it is an i32 tensor.
    pub fn ints(&self) -> Option<&[i32]> {
        match &self.data {
            Data::Float(_) => None,
            Data::Int(x) => Some(x),
        }
    }

    /// Number of elements stored.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(x) => x.len(),
            Data::Int(x) => x.len(),
        }
    }

    /// True if there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in double precision, integers too.
    pub fn doubles(&self) -> Vec<f64> {
        match &self.data {
            Data::Float(x) => x.iter().map(|x| x.double()).collect(),
            Data::Int(x) => x.iter().map(|x| f64::from(*x)).collect(),
        }
    }

    /// Rounds the elements to what a tensor of the element type can hold: bf16 numbers if it is bf16, likewise f16. f32 and
    /// f64 tensors hold any `T`, so that a whole graph can be evaluated in double precision.
    pub(super) fn rounded(mut self, dtype: DType) -> Self {
        if let Data::Float(x) = &mut self.data {
            round(x, dtype);
        }
        self
    }

    /// What keeps this from being a value of the type, if anything.
    pub(super) fn mismatch(&self, ty: &TensorType) -> Option<String> {
        let class = if self.ints().is_some() { "integer" } else { "float" };
        if self.shape != ty.shape || self.ints().is_some() == ty.dtype.is_float() {
            Some(format!("is bound to {class} data of shape {}, expected {ty}", self.shape))
        } else if self.len() != ty.shape.numel() {
            Some(format!("is bound to {} elements, {ty} has {}", self.len(), ty.shape.numel()))
        } else {
            None
        }
    }
}

/// Operands of the operation being evaluated. The graph was verified, so a mismatch is an error of the
/// caller of [`super::eval`], reported and not a panic.
pub(super) struct Args<'a, T> {
    pub(super) op: &'static str,
    pub(super) operands: &'a [&'a Tensor<T>],
}

impl<'a, T: Real> Args<'a, T> {
    pub(super) fn error<R>(&self, message: impl Into<String>) -> Result<R, IrError> {
        Err(IrError::Value { op: self.op, message: message.into() })
    }

    pub(super) fn floats(&self, i: usize) -> Result<&'a [T], IrError> {
        self.operands[i].floats().map_or_else(|| self.error(format!("operand {i} is not float")), Ok)
    }

    pub(super) fn ints(&self, i: usize) -> Result<&'a [i32], IrError> {
        self.operands[i].ints().map_or_else(|| self.error(format!("operand {i} is not i32")), Ok)
    }

    /// The only element of a float operand.
    pub(super) fn scalar(&self, i: usize) -> Result<T, IrError> {
        Ok(self.floats(i)?[0])
    }

    pub(super) fn dims(&self, i: usize) -> &'a [usize] {
        self.operands[i].shape.dims()
    }

    /// The elements of an i32 operand, as positions below `len`.
    pub(super) fn positions(&self, i: usize, len: usize) -> Result<Vec<usize>, IrError> {
        self.below(i, len, "position")
    }

    /// The elements of an i32 operand, as different slots of states for `count` sequences.
    pub(super) fn slots(&self, i: usize, count: usize) -> Result<Vec<usize>, IrError> {
        let slots = self.below(i, count, "slot")?;
        let mut taken = vec![false; count];
        match slots.iter().find(|slot| std::mem::replace(&mut taken[**slot], true)) {
            Some(slot) => self.error(format!("two sequences share slot {slot}")),
            None => Ok(slots),
        }
    }

    fn below(&self, i: usize, len: usize, what: &str) -> Result<Vec<usize>, IrError> {
        let number = |x: &i32| match usize::try_from(*x) {
            Ok(p) if p < len => Ok(p),
            _ => self.error(format!("{what} {x} is outside 0..{len}")),
        };
        self.ints(i)?.iter().map(number).collect()
    }
}

/// Flat results with the shapes of `types`.
pub(super) fn shaped<T: Real>(data: Vec<Vec<T>>, types: &[TensorType]) -> Vec<Tensor<T>> {
    data.into_iter().zip(types).map(|(x, ty)| Tensor::float(ty.shape.clone(), x)).collect()
}
