//! Kernels with operands and expected results: what every code generator is tested with.
//!
//! Invariant: a case is a function of its name and seed; expected values are the tile interpreter's.

pub mod attention;
pub mod decoding;
pub mod elu;
pub mod embeddings;
pub mod files;
pub mod launch;
pub mod library;
pub mod operands;
mod random;

use linc_tile::interp::{Buffer, RunOptions, run};
use linc_tile::{Elem, Kernel};

pub use random::random_kernel;

/// Whether tests are asked for everything, by `LINC_EXHAUSTIVE=1`: each kernel in each order of its threads, more random
/// programs. By default they run each kind of case, and what is known to be another one of a kind they leave out.
pub fn exhaustive() -> bool {
    std::env::var_os("LINC_EXHAUSTIVE").is_some_and(|value| !value.is_empty() && value != "0")
}

/// A small deterministic generator (xorshift64*).
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in `0..limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        ((self.bits() >> 33) as usize) % limit
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Normal numbers with this standard deviation.
    pub fn normals(&mut self, count: usize, deviation: f64) -> Vec<f32> {
        (0..count).map(|_| (self.normal() * deviation) as f32).collect()
    }
}

/// A kernel with operands.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is run.
    pub kernel: Kernel,
    /// One buffer per parameter.
    pub buffers: Vec<Buffer>,
    /// Absolute error of a result, and relative to its value.
    pub tolerance: (f64, f64),
}

impl Case {
    /// A case from its parts.
    pub fn new(kernel: &Kernel, buffers: &[Buffer], tolerance: (f64, f64)) -> Case {
        Case { kernel: kernel.clone(), buffers: buffers.to_vec(), tolerance }
    }

    /// The buffers after the interpreter has run the kernel. Panics if there is a NaN that no operand brings: it would
    /// prove nothing.
    pub fn expected(&self) -> Vec<Buffer> {
        let expected = reference(&self.kernel, &self.buffers);
        let has_nan = |buffers: &[Buffer]| buffers.iter().any(|b| b.to_f64().iter().any(|x| x.is_nan()));
        let made = has_nan(&expected) && !has_nan(&self.buffers);
        assert!(!made, "{}: NaN in the reference", self.kernel.name);
        expected
    }

    /// The first element of `actual` that is too far from what is expected, in words.
    pub fn difference(&self, actual: &[Buffer], expected: &[Buffer]) -> Option<String> {
        for (param, (actual, expected)) in self.kernel.params.iter().zip(actual.iter().zip(expected)) {
            for (i, (a, e)) in actual.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
                let close = (a - e).abs() <= self.tolerance.0 + self.tolerance.1 * e.abs();
                let equal = a == e || (a.is_nan() && e.is_nan());
                if !close && !equal {
                    return Some(format!("{}: {}[{i}] is {a}, expected {e}", self.kernel.name, param.name));
                }
            }
        }
        None
    }
}

/// Runs a kernel on the interpreter.
pub fn reference(kernel: &Kernel, buffers: &[Buffer]) -> Vec<Buffer> {
    let mut out = buffers.to_vec();
    run(kernel, &mut out, &RunOptions::default()).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    out
}

/// A buffer for each parameter, as large as `len`: normal numbers, and integers below `ids`.
pub fn inputs(kernel: &Kernel, len: usize, ids: usize, seed: u64) -> Vec<Buffer> {
    let mut random = Random::new(seed);
    kernel
        .params
        .iter()
        .map(|param| match param.elem {
            Elem::I32 => Buffer::I32((0..len).map(|_| random.below(ids) as i32).collect()),
            elem => {
                let values: Vec<f64> = (0..len).map(|_| random.normal()).collect();
                Buffer::from_f64(elem, &values).expect("a float parameter")
            }
        })
        .collect()
}
