//! Element types, static shapes, and the type of a tensor value.

use std::fmt;

/// Element type of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32, the default compute and storage type.
    F32,
    /// IEEE binary64; only the reference interpreter computes in it.
    F64,
    /// bfloat16: f32 with the lower 16 mantissa bits rounded away (round to nearest even).
    Bf16,
    /// IEEE binary16: 11 bits of mantissa, from 6e-8 (subnormal; 6.1e-5 normal) to 65504.
    F16,
    /// Signed 32-bit integer: token ids, labels, positions.
    I32,
}

impl DType {
    /// Size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::Bf16 | DType::F16 => 2,
        }
    }

    /// True for the types that carry gradients.
    pub const fn is_float(self) -> bool {
        match self {
            DType::F32 | DType::F64 | DType::Bf16 | DType::F16 => true,
            DType::I32 => false,
        }
    }

    /// True for the types of 16 bits, which are rounded to and not computed in.
    pub const fn is_narrow(self) -> bool {
        match self {
            DType::Bf16 | DType::F16 => true,
            DType::F32 | DType::F64 | DType::I32 => false,
        }
    }

    /// The type in which sums of such elements are formed, and which a statistic of them has: f32 for narrow types.
    pub const fn accumulator(self) -> Self {
        match self {
            DType::Bf16 | DType::F16 | DType::F32 => DType::F32,
            DType::F64 | DType::I32 => self,
        }
    }

    /// The name used in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
        }
    }

    /// Inverse of [`DType::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [DType::F32, DType::F64, DType::Bf16, DType::F16, DType::I32].into_iter().find(|d| d.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A static shape, outermost axis first. The empty shape is a scalar.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements (1 for a scalar).
    pub fn numel(&self) -> usize {
        self.0.iter().product()
    }

    /// The axes as a slice.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Size of the last axis; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (0..self.rank().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * self.0[axis + 1];
        }
        strides
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape(dims.to_vec())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Shape(dims.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Shape(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// Shape and element type of one value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorType {
    /// Static shape.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        TensorType { shape: shape.into(), dtype }
    }

    /// An f32 tensor.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Self::new(DType::F32, shape)
    }

    /// An i32 tensor.
    pub fn i32(shape: impl Into<Shape>) -> Self {
        Self::new(DType::I32, shape)
    }

    /// Storage in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.numel() * self.dtype.bytes()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
