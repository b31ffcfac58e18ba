//! Shared by the tests: reproducible numbers, comparisons, finite differences.

use linc_ir::Op;
use linc_ir::interp::{Tensor, eval};

/// A small generator of reproducible numbers (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Uniform in 0..n.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// A tensor of numbers with mean 0 and the scale of a standard normal.
    pub(crate) fn tensor<const N: usize>(&mut self, shape: [usize; N]) -> Tensor<f64> {
        let n = shape.iter().product();
        Tensor::float(shape, (0..n).map(|_| (0..3).map(|_| self.uniform()).sum::<f64>()).collect())
    }
}

pub(crate) fn eval1(op: &Op, operands: &[&Tensor<f64>]) -> Tensor<f64> {
    eval(op, operands).unwrap().swap_remove(0)
}

/// Asserts that values agree to `tolerance` relative to the largest expected one (at least 1).
#[track_caller]
pub(crate) fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    let scale = expected.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let fine = (f - e).abs() <= tolerance * scale;
        assert!(fine, "{what}[{i}]: found {f:e}, expected {e:e}, tolerance {tolerance:e} * {scale:e}");
    }
}

/// Central differences of `Σ weights · op(operands)[0]` with respect to float operand `which`.
pub(crate) fn differences(op: &Op, operands: &[&Tensor<f64>], which: usize, weights: &[f64]) -> Vec<f64> {
    let value = |x: &Tensor<f64>| {
        let mut operands = operands.to_vec();
        operands[which] = x;
        let out = eval1(op, &operands);
        out.doubles().iter().zip(weights).map(|(x, w)| x * w).sum::<f64>()
    };
    let x = operands[which];
    let data = x.doubles();
    (0..data.len())
        .map(|i| {
            let h = 1e-5;
            let moved = |delta: f64| {
                let mut data = data.clone();
                data[i] += delta;
                value(&Tensor::float(x.shape.clone(), data))
            };
            (moved(h) - moved(-h)) / (2.0 * h)
        })
        .collect()
}
