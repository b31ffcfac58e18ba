//! A linear attention to test: its specifications and its check.

use linc_tile::interp::rounded;
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::efficient::{EfficientBackwardSpec, EfficientForwardSpec};

use super::{Machine, Problem, Reference, error};

/// One linear attention.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub shape: HeadShape,
    pub causal: bool,
    pub chunk: usize,
    pub temperature: f64,
    pub whole: bool,
    pub documents: bool,
}

impl Case {
    /// Two sequences, temperature 1.
    pub fn new([seq, heads, kv_heads, head_dim]: [usize; 4], causal: bool, chunk: usize) -> Self {
        let shape = HeadShape { batch: 2, seq, heads, kv_heads, head_dim };
        Case { shape, causal, chunk, temperature: 1.0, whole: true, documents: false }
    }

    /// The same with documents that are kept apart, some of which begin with a chunk, several in one, or end with the sequence.
    pub fn apart(self, problem: Problem) -> (Self, Problem) {
        (Case { documents: true, ..self }, problem.apart(&[64, 1, 1, 40, 22, 3, 90, 16, 2, 5]))
    }

    pub fn forward(&self, machine: Machine) -> EfficientForwardSpec {
        let spec = machine.operands(self.shape).linear(self.chunk, self.temperature);
        EfficientForwardSpec { documents: self.documents, ..spec }
    }

    pub fn backward(&self, machine: Machine) -> EfficientBackwardSpec {
        machine.operands(self.shape).linear_gradients(&self.forward(machine), self.whole)
    }

    /// Compares out, dq, dk, dv with the naive computation.
    pub fn check(
        &self,
        machine: Machine,
        problem: &Problem,
        results: &[Vec<f64>; 4],
        tolerance: f64,
        what: &str,
    ) {
        let Reference { out, dq, dk, dv, natural, .. } = problem.linear(self.causal, self.temperature);
        let natural = natural * self.temperature;
        let references = [(out, 0.0), (dq, natural), (dk, natural), (dv, 0.0)];
        for ((result, (reference, floor)), name) in
            results.iter().zip(&references).zip(["out", "dq", "dk", "dv"])
        {
            let e = error(result, reference, *floor);
            assert!(
                e <= tolerance,
                "{name}: error {e:.2e} > {tolerance:.0e} for {what} {self:?} on {machine:?}"
            );
        }
    }

    /// Compares out, dq, dk, dv with the exact computation: root mean squares of errors are at most twice those of the
    /// naive computation, rounded to the machine's type, and nothing is infinite or NaN. `floor`, in units of the
    /// natural scale of dq and dk, is allowed in any case.
    pub fn check_naive(
        &self,
        machine: Machine,
        problem: &Problem,
        results: &[Vec<f64>; 4],
        floor: f64,
        what: &str,
    ) {
        let exact = problem.linear(self.causal, self.temperature);
        let round = |x: f64| rounded(machine.elem, x).expect("a float type");
        let naive = problem.naive_linear(self.causal, self.temperature, &round);
        let rms = |values: &[f64], exact: &[f64]| {
            let squares = values.iter().zip(exact).map(|(a, b)| (a - b).powi(2));
            (squares.sum::<f64>() / exact.len() as f64).sqrt()
        };
        // What the naive computation keeps exact and then stores is rounded, too.
        let stored = |x: &[f64]| x.iter().map(|x| round(*x)).collect::<Vec<f64>>();
        let natural = exact.natural;
        let pairs =
            [(&exact.out, naive.out), (&exact.dq, naive.dq), (&exact.dk, naive.dk), (&exact.dv, naive.dv)];
        for ((result, (exact, naive)), name) in results.iter().zip(&pairs).zip(["out", "dq", "dk", "dv"]) {
            let found = rms(result, exact);
            let allowed = (2.0 * rms(&stored(naive), exact)).max(floor * 100.0 * natural);
            assert!(
                found <= allowed,
                "{name}: error {found:.2e} > {allowed:.2e} for {what} {self:?} on {machine:?}"
            );
        }
    }
}
