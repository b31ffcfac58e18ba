//! The scalars that steer a kernel: which they are, and their values.

use crate::ir::{Binary, Compare, Kernel, Op, Stmt, ValueId};

/// Which values decide how often, and on how many elements, anything happens.
pub(super) struct Relevance {
    /// By value id.
    pub(super) values: Vec<bool>,
    /// By grid axis: whether such a value depends on the position along it.
    pub(super) axes: [bool; 3],
}

impl Relevance {
    /// Loop ranges, bounds and conditions, and all that they are computed from.
    pub(super) fn of(kernel: &Kernel) -> Self {
        let mut relevance = Relevance::of_loop_ranges(kernel);
        kernel.for_each_stmt(|stmt| {
            if let Op::If { cond, .. } = &stmt.op {
                relevance.mark(*cond);
            }
            if let Op::Load(view) | Op::Store(view, _) = &stmt.op {
                view.axes.iter().filter_map(|axis| axis.bound).for_each(|b| relevance.mark(b));
            }
        });
        relevance.trace_all(kernel)
    }

    /// Loop ranges alone, and all that they are computed from.
    pub(super) fn of_loops(kernel: &Kernel) -> Self {
        Relevance::of_loop_ranges(kernel).trace_all(kernel)
    }

    fn of_loop_ranges(kernel: &Kernel) -> Self {
        let mut relevance = Relevance { values: vec![false; kernel.types.len()], axes: [false; 3] };
        kernel.for_each_stmt(|stmt| {
            if let Op::For { lower, upper, step, .. } = &stmt.op {
                [*lower, *upper, *step].into_iter().for_each(|v| relevance.mark(v));
            }
        });
        relevance
    }

    fn trace_all(mut self, kernel: &Kernel) -> Self {
        // Statements from the last to the first, again while a loop hands a value to an earlier iteration.
        let mut stmts = Vec::new();
        kernel.for_each_stmt(|stmt| stmts.push(stmt));
        loop {
            let before = self.values.iter().filter(|v| **v).count();
            stmts.iter().rev().for_each(|stmt| self.trace(stmt));
            if self.values.iter().filter(|v| **v).count() == before {
                return self;
            }
        }
    }

    fn mark(&mut self, value: ValueId) {
        self.values[value.0 as usize] = true;
    }

    fn has(&self, value: ValueId) -> bool {
        self.values[value.0 as usize]
    }

    /// Marks what relevant results and arguments of a statement are computed from.
    fn trace(&mut self, stmt: &Stmt) {
        match &stmt.op {
            Op::For { init, body, .. } => {
                for (i, result) in stmt.results.iter().enumerate() {
                    if self.has(*result) || self.has(body.args[i + 1]) {
                        self.mark(init[i]);
                        self.mark(body.yields[i]);
                        self.mark(body.args[i + 1]);
                    }
                }
            }
            Op::If { then, otherwise, .. } => {
                for (i, result) in stmt.results.iter().enumerate() {
                    if self.has(*result) {
                        self.mark(then.yields[i]);
                        self.mark(otherwise.yields[i]);
                    }
                }
            }
            op => {
                if stmt.results.iter().any(|r| self.has(*r)) {
                    if let Op::ProgramId(axis) = op {
                        self.axes[*axis] = true;
                    }
                    op.operands().into_iter().for_each(|v| self.mark(v));
                }
            }
        }
    }
}

/// The value of an integer or truth scalar, if it follows from those of its operands.
pub(super) fn evaluate(op: &Op, operands: &[Option<i64>], program: [i64; 3]) -> Option<i64> {
    let known = |i: usize| operands.get(i).copied().flatten();
    match op {
        Op::ConstI(value) => Some(*value),
        Op::ProgramId(axis) => Some(program[*axis]),
        Op::Cast(_) => known(0),
        // Only the operand of `not` can be known; the other functions are of floats.
        Op::Unary(..) => known(0).map(|x| 1 - x),
        Op::Binary(op, ..) => {
            let (a, b) = (known(0)?, known(1)?);
            match op {
                Binary::Add => a.checked_add(b),
                Binary::Sub => a.checked_sub(b),
                Binary::Mul => a.checked_mul(b),
                Binary::Div => a.checked_div(b),
                Binary::Rem => a.checked_rem(b),
                Binary::Min | Binary::And => Some(a.min(b)),
                Binary::Max | Binary::Or => Some(a.max(b)),
            }
        }
        Op::Compare(op, ..) => {
            let (a, b) = (known(0)?, known(1)?);
            Some(i64::from(match op {
                Compare::Eq => a == b,
                Compare::Ne => a != b,
                Compare::Lt => a < b,
                Compare::Le => a <= b,
                Compare::Gt => a > b,
                Compare::Ge => a >= b,
            }))
        }
        Op::Select(..) => known(if known(0)? != 0 { 1 } else { 2 }),
        Op::ConstF(_)
        | Op::Fma(..)
        | Op::Splat(_)
        | Op::Expand { .. }
        | Op::Iota { .. }
        | Op::Load(_)
        | Op::Store(..)
        | Op::Scatter { .. }
        | Op::Dot { .. }
        | Op::Reduce { .. }
        | Op::Scan { .. }
        | Op::Transpose(_)
        | Op::For { .. }
        | Op::If { .. } => None,
    }
}
