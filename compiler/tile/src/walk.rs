//! Walks over kernels that every client needs: operands of an operation, its regions, all statements.

use crate::ir::{Kernel, Op, Region, Stmt, ValueId, View};

impl View {
    /// The scalars that the view reads: its offset and its bounds.
    pub fn operands(&self) -> impl Iterator<Item = ValueId> + '_ {
        std::iter::once(self.offset).chain(self.axes.iter().filter_map(|axis| axis.bound))
    }
}

impl Op {
    /// Values that the operation itself reads, in the order of the text form; what its regions read is not among them.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            Op::ConstF(_) | Op::ConstI(_) | Op::ProgramId(_) | Op::Iota { .. } => vec![],
            Op::Unary(_, a) | Op::Cast(a) | Op::Splat(a) | Op::Transpose(a) => vec![*a],
            Op::Expand { vector, .. } => vec![*vector],
            Op::Reduce { value, .. } | Op::Scan { value, .. } => vec![*value],
            Op::Binary(_, a, b) | Op::Compare(_, a, b) => vec![*a, *b],
            Op::Fma(a, b, c) | Op::Select(a, b, c) => vec![*a, *b, *c],
            Op::Load(view) => view.operands().collect(),
            Op::Store(view, value) => view.operands().chain([*value]).collect(),
            Op::Scatter { to, places, value } => to.operands().chain([*value, *places]).collect(),
            Op::Dot { a, b, acc, .. } => [*a, *b].into_iter().chain(*acc).collect(),
            Op::For { lower, upper, step, init, .. } => {
                [*lower, *upper, *step].into_iter().chain(init.iter().copied()).collect()
            }
            Op::If { cond, .. } => vec![*cond],
        }
    }

    /// The regions of the operation, in the order of the text form.
    pub fn regions(&self) -> Vec<&Region> {
        match self {
            Op::For { body, .. } => vec![body],
            Op::If { then, otherwise, .. } => vec![then, otherwise],
            Op::ConstF(_)
            | Op::ConstI(_)
            | Op::ProgramId(_)
            | Op::Unary(..)
            | Op::Binary(..)
            | Op::Fma(..)
            | Op::Compare(..)
            | Op::Select(..)
            | Op::Cast(_)
            | Op::Splat(_)
            | Op::Expand { .. }
            | Op::Iota { .. }
            | Op::Load(_)
            | Op::Store(..)
            | Op::Scatter { .. }
            | Op::Dot { .. }
            | Op::Reduce { .. }
            | Op::Scan { .. }
            | Op::Transpose(_) => vec![],
        }
    }
}

impl Kernel {
    /// Calls `visit` on every statement, an outer one before those in its regions.
    pub fn for_each_stmt<'k>(&'k self, mut visit: impl FnMut(&'k Stmt)) {
        fn visit_body<'k>(body: &'k [Stmt], visit: &mut impl FnMut(&'k Stmt)) {
            for stmt in body {
                visit(stmt);
                for region in stmt.op.regions() {
                    visit_body(&region.body, visit);
                }
            }
        }
        visit_body(&self.body, &mut visit);
    }
}
