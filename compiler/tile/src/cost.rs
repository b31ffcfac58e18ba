//! What a launch of a kernel does, counted without running it: operations on floats and bytes through views.
//!
//! Only the scalars are evaluated that steer control flow and bounds; tiles never exist. So causal loops and ragged
//! ends are counted as they are. Programs that differ in nothing of this kind are counted once and multiplied.
//!
//! What is only known in memory makes the result an estimate ([`Cost::exact`] is false): a branch on data counts as its
//! `then` side (kernels put the expected side there), a loop or a bound from data counts as one iteration or a full
//! tile, and what is scattered as stored, all of it.

use crate::ir::{Elem, Kernel, Op, Region, Stmt, TileType, Unary, ValueId, View};

mod scalars;

use scalars::{Relevance, evaluate};

/// Sums over all programs of a launch; what does not fit is the largest number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Multiplications and additions of dots, counted apart.
    pub dot_flops: u64,
    /// Additions, multiplications, divisions, minima, maxima of single floats, those of reductions and scans too; an
    /// `fma` is two.
    pub pointwise_flops: u64,
    /// Values of exp, log, roots, reciprocals, sigmoid, tanh.
    pub transcendentals: u64,
    /// Bytes that loads read, each time they do, within the bounds.
    pub bytes_loaded: u64,
    /// Bytes that stores write, within the bounds, and that scatters may write.
    pub bytes_stored: u64,
    /// Not a guess: nothing depended on data, and no program was taken for another.
    pub exact: bool,
}

impl Cost {
    /// Operations on floats of any kind; a transcendental is one.
    pub fn flops(&self) -> u64 {
        self.dot_flops.saturating_add(self.pointwise_flops).saturating_add(self.transcendentals)
    }

    /// Bytes through loads and stores.
    pub fn bytes(&self) -> u64 {
        self.bytes_loaded.saturating_add(self.bytes_stored)
    }

    /// The same work a number of times.
    fn times(self, n: u64) -> Cost {
        Cost {
            dot_flops: self.dot_flops.saturating_mul(n),
            pointwise_flops: self.pointwise_flops.saturating_mul(n),
            transcendentals: self.transcendentals.saturating_mul(n),
            bytes_loaded: self.bytes_loaded.saturating_mul(n),
            bytes_stored: self.bytes_stored.saturating_mul(n),
            exact: self.exact,
        }
    }

    /// This and other work.
    fn add(&mut self, other: Cost) {
        self.dot_flops = self.dot_flops.saturating_add(other.dot_flops);
        self.pointwise_flops = self.pointwise_flops.saturating_add(other.pointwise_flops);
        self.transcendentals = self.transcendentals.saturating_add(other.transcendentals);
        self.bytes_loaded = self.bytes_loaded.saturating_add(other.bytes_loaded);
        self.bytes_stored = self.bytes_stored.saturating_add(other.bytes_stored);
        self.exact &= other.exact;
    }
}

const NOTHING: Cost = Cost {
    dot_flops: 0,
    pointwise_flops: 0,
    transcendentals: 0,
    bytes_loaded: 0,
    bytes_stored: 0,
    exact: true,
};

/// Programs that are looked at one by one; of more, evenly spaced ones stand for their neighbours.
const MAX_PROGRAMS: u64 = 2048;

/// Counts a launch of a kernel that [`mod@crate::verify`] accepts.
pub fn cost(kernel: &Kernel) -> Cost {
    let relevance = Relevance::of(kernel);
    // Axes along which programs may differ, and how many programs are alike.
    let mut differ = [1u64; 3];
    let mut alike = 1u64;
    for (axis, programs) in kernel.grid.iter().enumerate() {
        if relevance.axes[axis] {
            differ[axis] = u64::from(*programs);
        } else {
            alike = alike.saturating_mul(u64::from(*programs));
        }
    }
    let programs = differ.iter().fold(1u64, |n, axis| n.saturating_mul(*axis));
    let groups = programs.min(MAX_PROGRAMS);
    let mut total = Cost { exact: groups == programs, ..NOTHING };
    for group in 0..groups {
        let (first, next) = (share_start(programs, groups, group), share_start(programs, groups, group + 1));
        let program = [first % differ[0], first / differ[0] % differ[1], first / differ[0] / differ[1]];
        let mut counter = Counter {
            kernel,
            relevance: &relevance,
            program: program.map(|p| p as i64),
            values: vec![None; kernel.types.len()],
        };
        total.add(counter.body(&kernel.body).times(alike.saturating_mul(next - first)));
    }
    total
}

/// Axes of a kernel's grid along which programs may have other numbers of iterations.
pub fn uneven_axes(kernel: &Kernel) -> [bool; 3] {
    Relevance::of_loops(kernel).axes
}

/// Where the part `index` of `parts` begins.
fn share_start(total: u64, parts: u64, index: u64) -> u64 {
    (u128::from(total) * u128::from(index) / u128::from(parts)) as u64
}

/// Counts one program.
struct Counter<'a> {
    kernel: &'a Kernel,
    relevance: &'a Relevance,
    program: [i64; 3],
    /// By id: integers and truth values (0, 1) that are known. Only relevant ones are.
    values: Vec<Option<i64>>,
}

impl Counter<'_> {
    fn get(&self, value: ValueId) -> Option<i64> {
        self.values[value.0 as usize]
    }

    fn set(&mut self, value: ValueId, to: Option<i64>) {
        self.values[value.0 as usize] = to;
    }

    fn body(&mut self, body: &[Stmt]) -> Cost {
        let mut total = NOTHING;
        for stmt in body {
            total.add(self.stmt(stmt));
        }
        total
    }

    fn stmt(&mut self, stmt: &Stmt) -> Cost {
        match &stmt.op {
            Op::For { lower, upper, step, init, body } => {
                let carried: Vec<Option<i64>> = init.iter().map(|v| self.get(*v)).collect();
                let range = (self.get(*lower), self.get(*upper), self.get(*step));
                let (cost, carried) = self.rounds(range, carried, body);
                stmt.results.iter().zip(carried).for_each(|(result, value)| self.set(*result, value));
                cost
            }
            Op::If { cond, then, otherwise } => {
                let known = self.get(*cond);
                let taken = if known == Some(0) { otherwise } else { then };
                let mut cost = self.body(&taken.body);
                cost.exact &= known.is_some();
                for (result, value) in stmt.results.iter().zip(&taken.yields) {
                    self.set(*result, known.and(self.get(*value)));
                }
                cost
            }
            op => {
                if let [result] = stmt.results[..]
                    && self.relevance.values[result.0 as usize]
                {
                    let operands: Vec<Option<i64>> = op.operands().iter().map(|v| self.get(*v)).collect();
                    self.set(result, evaluate(op, &operands, self.program));
                }
                self.leaf(stmt)
            }
        }
    }

    /// All iterations of a loop, and what it carries out.
    fn rounds(
        &mut self,
        (lower, upper, step): (Option<i64>, Option<i64>, Option<i64>),
        mut carried: Vec<Option<i64>>,
        body: &Region,
    ) -> (Cost, Vec<Option<i64>>) {
        let (Some(lower), Some(upper), Some(step)) = (lower, upper, step) else {
            body.args.iter().for_each(|arg| self.set(*arg, None));
            return (Cost { exact: false, ..self.body(&body.body) }, vec![None; carried.len()]);
        };
        if upper <= lower || step <= 0 {
            return (NOTHING, carried);
        }
        let rounds = (upper.abs_diff(lower)).div_ceil(step.unsigned_abs());
        let alike = !body.args.iter().any(|arg| self.relevance.values[arg.0 as usize]);
        let mut total = NOTHING;
        for round in 0..if alike { 1 } else { rounds } {
            self.set(body.args[0], Some(lower + round as i64 * step));
            for (arg, value) in body.args[1..].iter().zip(&carried) {
                self.set(*arg, *value);
            }
            total.add(self.body(&body.body));
            carried = body.yields.iter().map(|v| self.get(*v)).collect();
        }
        (if alike { total.times(rounds) } else { total }, carried)
    }

    /// An operation without regions.
    fn leaf(&self, stmt: &Stmt) -> Cost {
        let ty = |value: &ValueId| self.kernel.ty(*value);
        let pointwise = |ty: &TileType, each: u64| match ty.elem {
            Elem::F32 => Cost { pointwise_flops: each * ty.numel() as u64, ..NOTHING },
            Elem::Bf16 | Elem::F16 | Elem::I32 | Elem::Index | Elem::Bool => NOTHING,
        };
        match &stmt.op {
            Op::Unary(op, a) => match op {
                Unary::Neg | Unary::Abs => pointwise(ty(a), 1),
                Unary::Exp
                | Unary::Exp2
                | Unary::Log
                | Unary::Sqrt
                | Unary::Rsqrt
                | Unary::Recip
                | Unary::Sigmoid
                | Unary::Tanh => Cost { transcendentals: ty(a).numel() as u64, ..NOTHING },
                Unary::Not => NOTHING,
            },
            Op::Binary(_, a, _) => pointwise(ty(a), 1),
            Op::Fma(a, ..) => pointwise(ty(a), 2),
            Op::Reduce { value, .. } | Op::Scan { value, .. } => pointwise(ty(value), 1),
            Op::Dot { a, b, trans_b, .. } => {
                let n = ty(b).shape[if *trans_b { 0 } else { 1 }];
                Cost { dot_flops: 2 * (ty(a).numel() * n) as u64, ..NOTHING }
            }
            Op::Load(view) => {
                let (bytes, exact) = self.bytes(view, ty(&stmt.results[0]));
                Cost { bytes_loaded: bytes, exact, ..NOTHING }
            }
            Op::Store(view, value) => {
                let (bytes, exact) = self.bytes(view, ty(value));
                Cost { bytes_stored: bytes, exact, ..NOTHING }
            }
            // At most: how many places are none is known when it runs.
            Op::Scatter { to, value, .. } => {
                let (element, _) = self.bytes(to, &TileType::scalar(ty(value).elem));
                Cost { bytes_stored: element * ty(value).numel() as u64, exact: false, ..NOTHING }
            }
            Op::ConstF(_)
            | Op::ConstI(_)
            | Op::ProgramId(_)
            | Op::Compare(..)
            | Op::Select(..)
            | Op::Cast(_)
            | Op::Splat(_)
            | Op::Expand { .. }
            | Op::Iota { .. }
            | Op::Transpose(_)
            | Op::For { .. }
            | Op::If { .. } => NOTHING,
        }
    }

    /// Bytes within the bounds, and whether all bounds are known.
    fn bytes(&self, view: &View, ty: &TileType) -> (u64, bool) {
        let width = match ty.elem {
            Elem::F32 | Elem::I32 => 4,
            Elem::Bf16 | Elem::F16 => 2,
            Elem::Index | Elem::Bool => 0,
        };
        let mut exact = true;
        let mut elements = 1;
        for (size, axis) in ty.shape.iter().zip(&view.axes) {
            let bound = axis.bound.map(|b| self.get(b));
            exact &= bound != Some(None);
            elements *= bound.flatten().map_or(*size as u64, |b| b.clamp(0, *size as i64) as u64);
        }
        (elements * width, exact)
    }
}
