//! What is known of the rounds of a loop before they begin: scalars that depend on the counter alone, and accesses whose
//! places in memory no two rounds share.

use linc_tile::{Binary, Op, Region, Stmt, ValueId, View};

use crate::assign::Place;
use crate::emit::Emitter;

/// A loop that is being written.
#[derive(Clone, Copy)]
pub(crate) struct Loop<'k> {
    /// Its body; the first argument is the counter.
    pub body: &'k Region,
    /// What the counter grows by.
    pub step: ValueId,
}

/// Whether a scalar is known before the round: made outside, the counter, or arithmetic on such. What is carried is known
/// only when the round before has ended.
pub(crate) fn computable(region: &Region, value: ValueId) -> bool {
    if region.args[1..].contains(&value) {
        return false;
    }
    let Some(stmt) = region.body.iter().find(|s| s.results.contains(&value)) else { return true };
    match &stmt.op {
        Op::ConstF(_)
        | Op::ConstI(_)
        | Op::ProgramId(_)
        | Op::Binary(..)
        | Op::Cast(_)
        | Op::Compare(..)
        | Op::Select(..) => stmt.op.operands().into_iter().all(|v| computable(region, v)),
        Op::Unary(..)
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
        | Op::If { .. } => false,
    }
}

/// The statements of a body that scalars depend on, in order.
pub(crate) fn slice(body: &[Stmt], wanted: impl Iterator<Item = ValueId>) -> Vec<&Stmt> {
    let mut wanted: Vec<ValueId> = wanted.collect();
    let mut needed = vec![];
    for stmt in body.iter().rev() {
        if stmt.results.iter().any(|r| wanted.contains(r)) {
            wanted.extend(stmt.op.operands());
            needed.push(stmt);
        }
    }
    needed.reverse();
    needed
}

/// Whether the body of a loop, or of one in it, has such a statement.
pub(crate) fn any(body: &[Stmt], is: &impl Fn(&Stmt) -> bool) -> bool {
    body.iter().any(|stmt| is(stmt) || stmt.op.regions().into_iter().any(|r| any(&r.body, is)))
}

impl Emitter<'_> {
    /// Whether the elements of a view in the innermost loop are those of one round only: the view moves on by more than
    /// it spans.
    pub(crate) fn advances(&self, place: Place, view: &View) -> bool {
        let Some(Loop { body, step }) = self.loops.last() else { return false };
        let extents = match place {
            Place::Scalar => vec![],
            Place::Vector(axis) => vec![axis.extent],
            Place::Matrix(l) => vec![l.rows.extent, l.cols.extent],
        };
        let reach = |(extent, stride): (usize, i64)| (extent as i64 - 1) * stride.abs();
        let last: i64 = extents.into_iter().zip(view.axes.iter().map(|a| a.stride)).map(reach).sum();
        let step = self.constant_of(*step);
        let moved = self.slope(body, view.offset).zip(step).and_then(|(slope, step)| slope.checked_mul(step));
        moved.is_some_and(|moved| moved.abs() > last)
    }

    /// What an Index grows by when the counter does by 1, if that is the same in all rounds.
    fn slope(&self, body: &Region, value: ValueId) -> Option<i64> {
        if value == body.args[0] {
            return Some(1);
        }
        let Some(op) = self.definition(value) else {
            // What another loop or a branch gives: the same in all rounds if it is made outside.
            return (!made_in(body, value)).then_some(0);
        };
        match op {
            Op::ConstI(_) | Op::ProgramId(_) => Some(0),
            Op::Binary(Binary::Add, a, b) => self.slope(body, *a)?.checked_add(self.slope(body, *b)?),
            Op::Binary(Binary::Sub, a, b) => self.slope(body, *a)?.checked_sub(self.slope(body, *b)?),
            Op::Binary(Binary::Mul, a, b) => {
                let (by_a, by_b) = (self.slope(body, *a)?, self.slope(body, *b)?);
                match (self.constant_of(*a), self.constant_of(*b)) {
                    (Some(a), _) => by_b.checked_mul(a),
                    (_, Some(b)) => by_a.checked_mul(b),
                    (None, None) => (by_a == 0 && by_b == 0).then_some(0),
                }
            }
            _ => (!made_in(body, value)).then_some(0),
        }
    }

    fn constant_of(&self, value: ValueId) -> Option<i64> {
        match self.definition(value) {
            Some(Op::ConstI(value)) => Some(*value),
            _ => None,
        }
    }
}

/// Whether a value is made in a body, at whatever depth.
fn made_in(body: &Region, value: ValueId) -> bool {
    body.args.contains(&value)
        || body
            .body
            .iter()
            .any(|s| s.results.contains(&value) || s.op.regions().into_iter().any(|r| made_in(r, value)))
}
