//! What is known of the iterations of a loop before they begin: scalars that depend on the counter alone, and how far
//! an index moves from one to the next.

use linc_tile::{Binary, Op, Region, Stmt, ValueId};

use super::definitions::Definitions;

/// A loop around the statements that are looked at.
#[derive(Clone, Copy)]
pub(crate) struct Loop<'k> {
    /// Its body; the first argument is the counter.
    pub body: &'k Region,
    /// What the counter grows by.
    pub step: ValueId,
}

/// Whether a scalar is known before the iteration: made outside, the counter, or arithmetic on such. What is carried is
/// known only when the iteration before has ended.
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

/// What an Index grows by from one iteration of a loop to the next, if that is the same in all iterations.
pub(crate) fn advance(definitions: &Definitions<'_>, around: Loop<'_>, index: ValueId) -> Option<i64> {
    slope(definitions, around.body, index)?.checked_mul(definitions.constant(around.step)?)
}

/// What an Index grows by when the counter does by 1.
fn slope(definitions: &Definitions<'_>, body: &Region, value: ValueId) -> Option<i64> {
    if value == body.args[0] {
        return Some(1);
    }
    let Some(op) = definitions.of(value) else {
        // What another loop or a branch gives: the same in all iterations if it is made outside.
        return (!made_in(body, value)).then_some(0);
    };
    let slope = |value: ValueId| slope(definitions, body, value);
    match op {
        Op::ConstI(_) | Op::ProgramId(_) => Some(0),
        Op::Binary(Binary::Add, a, b) => slope(*a)?.checked_add(slope(*b)?),
        Op::Binary(Binary::Sub, a, b) => slope(*a)?.checked_sub(slope(*b)?),
        Op::Binary(Binary::Mul, a, b) => {
            let (by_a, by_b) = (slope(*a)?, slope(*b)?);
            match (definitions.constant(*a), definitions.constant(*b)) {
                (Some(a), _) => by_b.checked_mul(a),
                (_, Some(b)) => by_a.checked_mul(b),
                (None, None) => (by_a == 0 && by_b == 0).then_some(0),
            }
        }
        _ => (!made_in(body, value)).then_some(0),
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
