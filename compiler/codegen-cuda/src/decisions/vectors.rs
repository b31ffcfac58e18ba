//! Which axis of which layout a vector is spread along: operations that take vectors together want them alike.

use std::collections::BTreeMap;

use linc_tile::{Kernel, Op, Region, Stmt, ValueId};

use super::layout::{Axis, RegisterLayout};

/// Vectors that pointwise operations and loops tie together, each class with one axis.
pub(crate) struct Vectors {
    parent: Vec<usize>,
    axis: BTreeMap<usize, Axis>,
}

impl Vectors {
    pub(crate) fn of(kernel: &Kernel, layout: &dyn Fn(usize, usize) -> RegisterLayout) -> Vectors {
        let mut vectors = Vectors { parent: (0..kernel.types.len()).collect(), axis: BTreeMap::new() };
        vectors.tie_body(kernel, &kernel.body);
        let mut votes: BTreeMap<usize, BTreeMap<Axis, usize>> = BTreeMap::new();
        kernel.for_each_stmt(|stmt| {
            let (vector, matrix, axis) = match &stmt.op {
                Op::Reduce { axis, value, .. } => (stmt.results[0], *value, *axis),
                Op::Expand { vector, axis } => (*vector, stmt.results[0], *axis),
                _ => return,
            };
            let ([m, n], [_]) = (&kernel.ty(matrix).shape[..], &kernel.ty(vector).shape[..]) else { return };
            let layout = layout(*m, *n);
            let kept = if axis == 0 { layout.cols } else { layout.rows };
            let class = vectors.find(vector.0 as usize);
            *votes.entry(class).or_default().entry(kept).or_default() += 1;
        });
        for (class, votes) in votes {
            let best = votes.iter().max_by_key(|(axis, count)| (**count, std::cmp::Reverse(**axis)));
            vectors.axis.extend(best.map(|(axis, _)| (class, *axis)));
        }
        vectors
    }

    /// The axis of a vector's class; none if nothing makes it of a matrix, or a matrix of it.
    pub(crate) fn axis(&self, id: usize) -> Option<Axis> {
        self.axis.get(&self.find(id)).copied()
    }

    fn find(&self, mut id: usize) -> usize {
        while self.parent[id] != id {
            id = self.parent[id];
        }
        id
    }

    fn tie(&mut self, kernel: &Kernel, values: &[ValueId]) {
        let vectors: Vec<usize> =
            values.iter().filter(|v| kernel.ty(**v).shape.len() == 1).map(|v| v.0 as usize).collect();
        for pair in vectors.windows(2) {
            let (a, b) = (self.find(pair[0]), self.find(pair[1]));
            self.parent[a.max(b)] = a.min(b);
        }
    }

    fn tie_body(&mut self, kernel: &Kernel, body: &[Stmt]) {
        for stmt in body {
            match &stmt.op {
                Op::Unary(..)
                | Op::Binary(..)
                | Op::Fma(..)
                | Op::Compare(..)
                | Op::Select(..)
                | Op::Cast(_) => {
                    let mut all = stmt.op.operands();
                    all.extend(&stmt.results);
                    self.tie(kernel, &all);
                }
                Op::Scan { value, .. } => self.tie(kernel, &[*value, stmt.results[0]]),
                Op::Scatter { places, value, .. } => self.tie(kernel, &[*places, *value]),
                Op::For { init, body, .. } => {
                    for (i, result) in stmt.results.iter().enumerate() {
                        self.tie(kernel, &[init[i], body.args[i + 1], body.yields[i], *result]);
                    }
                }
                Op::If { then, otherwise, .. } => {
                    for (i, result) in stmt.results.iter().enumerate() {
                        self.tie(kernel, &[then.yields[i], otherwise.yields[i], *result]);
                    }
                }
                Op::ConstF(_)
                | Op::ConstI(_)
                | Op::ProgramId(_)
                | Op::Splat(_)
                | Op::Expand { .. }
                | Op::Iota { .. }
                | Op::Load(_)
                | Op::Store(..)
                | Op::Dot { .. }
                | Op::Reduce { .. }
                | Op::Transpose(_) => {}
            }
            for Region { body, .. } in stmt.op.regions() {
                self.tie_body(kernel, body);
            }
        }
    }
}
