//! Runs kernels without a machine: what a kernel means, to compare backends with and to test kernels by.
//!
//! Every statement works on whole tiles. Sums (`sum`, `scan`, `dot`) run in ascending order of the axis with one
//! rounding per step; `fma` rounds twice; `exp` and its kin are those of the standard library; the minimum or maximum
//! with a NaN is NaN. i32 arithmetic wraps, index arithmetic that overflows is an error, as are a division of integers
//! by zero and an access outside a buffer.

use crate::error::TileError;
use crate::ir::{Elem, Kernel, Mode};
use crate::verify::verify;

mod axis_ops;
mod eval;
mod memory;
mod real;

/// Memory behind a parameter. The length is what accesses are checked against.
#[derive(Clone, Debug, PartialEq)]
pub enum Buffer {
    /// Rounded to f32 at every store.
    F32(Vec<f32>),
    /// For F32, Bf16 and F16 when computing in f64: memory that does not round.
    F64(Vec<f64>),
    /// For Bf16, as bits.
    Bf16(Vec<u16>),
    /// For F16, as bits.
    F16(Vec<u16>),
    /// Whole numbers: ids of tokens, targets, counters.
    I32(Vec<i32>),
}

impl Buffer {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Buffer::F32(data) => data.len(),
            Buffer::F64(data) => data.len(),
            Buffer::Bf16(data) | Buffer::F16(data) => data.len(),
            Buffer::I32(data) => data.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as f64, each exactly.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Buffer::F32(data) => data.iter().map(|x| f64::from(*x)).collect(),
            Buffer::F64(data) => data.clone(),
            Buffer::Bf16(data) => data.iter().map(|x| half::bf16::from_bits(*x).to_f64()).collect(),
            Buffer::F16(data) => data.iter().map(|x| half::f16::from_bits(*x).to_f64()).collect(),
            Buffer::I32(data) => data.iter().map(|x| f64::from(*x)).collect(),
        }
    }

    /// A buffer for a parameter of F32, Bf16 or F16 with values rounded to nearest even; nothing for other element types.
    pub fn from_f64(elem: Elem, values: &[f64]) -> Option<Buffer> {
        match elem {
            Elem::F32 => Some(Buffer::F32(values.iter().map(|x| *x as f32).collect())),
            Elem::Bf16 => Some(Buffer::Bf16(values.iter().map(|x| real::bf16_from_f64(*x)).collect())),
            Elem::F16 => Some(Buffer::F16(values.iter().map(|x| real::f16_from_f64(*x)).collect())),
            Elem::I32 | Elem::Index | Elem::Bool => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Buffer::F32(_) => "f32",
            Buffer::F64(_) => "f64",
            Buffer::Bf16(_) => "bf16",
            Buffer::F16(_) => "f16",
            Buffer::I32(_) => "i32",
        }
    }

    /// Overwrites all elements with NaN, or the smallest integer.
    fn poison(&mut self) {
        match self {
            Buffer::F32(data) => data.fill(f32::NAN),
            Buffer::F64(data) => data.fill(f64::NAN),
            Buffer::Bf16(data) => data.fill(half::bf16::NAN.to_bits()),
            Buffer::F16(data) => data.fill(half::f16::NAN.to_bits()),
            Buffer::I32(data) => data.fill(i32::MIN),
        }
    }
}

/// The number of an element type that is nearest to `x`, to even of two; nothing for types that are not floats.
pub fn rounded(elem: Elem, x: f64) -> Option<f64> {
    match elem {
        Elem::F32 => Some(f64::from(x as f32)),
        Elem::Bf16 => Some(half::bf16::from_bits(real::bf16_from_f64(x)).to_f64()),
        Elem::F16 => Some(half::f16::from_bits(real::f16_from_f64(x)).to_f64()),
        Elem::I32 | Elem::Index | Elem::Bool => None,
    }
}

/// How floats are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// In f32, as machines do.
    #[default]
    F32,
    /// In f64; casts to 16 bits round.
    F64,
    /// In f64, and casts to 16 bits keep the value: the reference for kernels of any precision.
    Exact,
}

/// How to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunOptions {
    /// How floats are computed.
    pub precision: Precision,
    /// Order of the programs: 0 is ascending, any other number a permutation of its own.
    pub order: u64,
    /// Whether an element that one program writes and another reads or writes is an error.
    pub check_races: bool,
    /// Whether buffers of `write` parameters are filled with NaN (i32: the smallest integer) first, so that elements
    /// which the kernel should write and does not can be seen.
    pub poison: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { precision: Precision::F32, order: 0, check_races: true, poison: false }
    }
}

/// Runs all programs of a kernel. `buffers` has one per parameter, in order; `write` and `readwrite` ones change.
///
/// Errors: an ill-formed kernel, buffers of another number or type than the parameters, an access outside a buffer,
/// a race, integer overflow or division by zero, a loop step that is not positive. Buffers are then partly written.
pub fn run(kernel: &Kernel, buffers: &mut [Buffer], options: &RunOptions) -> Result<(), TileError> {
    verify(kernel)?;
    check_buffers(kernel, buffers, options.precision)
        .map_err(|message| TileError::Buffers { kernel: kernel.name.clone(), message })?;
    if options.poison {
        for (param, buffer) in kernel.params.iter().zip(&mut *buffers) {
            if param.mode == Mode::Write {
                buffer.poison();
            }
        }
    }
    match options.precision {
        Precision::F32 => eval::run::<f32>(kernel, buffers, options),
        Precision::F64 | Precision::Exact => eval::run::<f64>(kernel, buffers, options),
    }
}

fn check_buffers(kernel: &Kernel, buffers: &[Buffer], precision: Precision) -> Result<(), String> {
    if buffers.len() != kernel.params.len() {
        let (params, buffers) = (kernel.params.len(), buffers.len());
        return Err(format!("{params} parameters, but {buffers} buffers"));
    }
    for (param, buffer) in kernel.params.iter().zip(buffers) {
        let fits = match (param.elem, buffer) {
            (Elem::F32, Buffer::F32(_)) | (Elem::I32, Buffer::I32(_)) => true,
            (Elem::Bf16, Buffer::Bf16(_)) | (Elem::F16, Buffer::F16(_)) => true,
            (Elem::F32 | Elem::Bf16 | Elem::F16, Buffer::F64(_)) => precision != Precision::F32,
            (Elem::F32 | Elem::Bf16 | Elem::F16 | Elem::I32 | Elem::Index | Elem::Bool, _) => false,
        };
        if !fits {
            let (name, elem, kind) = (&param.name, param.elem, buffer.kind());
            return Err(format!(
                "parameter `{name}` holds {elem}, its buffer {kind} ({precision:?} arithmetic)"
            ));
        }
    }
    Ok(())
}
