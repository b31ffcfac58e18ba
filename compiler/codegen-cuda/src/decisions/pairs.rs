//! Interleaved pairs: even and odd elements, as RoPE loads and stores them: two tiles with stride 2 whose offsets
//! differ by one are one contiguous range, which moves in accesses of both.

use linc_tile::{Op, Stmt, ValueId, View};

use super::Decisions;
use super::access::{cut, pairs_per_access};
use super::layout::ValueLayout;
use crate::analysis::memory::are_neighbours;

/// Two loads or two stores that are written as one.
pub(crate) struct Pair<'k> {
    /// The tiles of even and of odd elements.
    pub values: [ValueId; 2],
    /// The view of the even elements.
    pub view: &'k View,
    /// Pairs that one access moves.
    pub width: usize,
    /// How far behind the first statement the second is.
    pub second: usize,
}

impl<'k> Pair<'k> {
    /// The pair whose first half is the first of these statements.
    pub(crate) fn of(decisions: &Decisions<'k>, body: &'k [Stmt]) -> Option<Pair<'k>> {
        let first = &body[0];
        let (Op::Load(view) | Op::Store(view, _)) = &first.op else { return None };
        // Between the halves may be what has no effect: casts of the first, and the second's offset.
        let between = |s: &Stmt| match s.op {
            Op::Cast(_) => decisions.root(s.results[0]) != s.results[0],
            Op::ConstI(_) | Op::Binary(..) => decisions.ty(s.results[0]).shape.is_empty(),
            _ => false,
        };
        let second = 1 + body[1..].iter().position(|s| !between(s))?;
        let (even, odd, next) = match (&first.op, &body[second].op) {
            (Op::Load(_), Op::Load(next)) => (first.results[0], body[second].results[0], next),
            (Op::Store(_, even), Op::Store(next, odd)) => (*even, *odd, next),
            _ => return None,
        };
        let place = decisions.place(even);
        let Decisions { definitions, usage, .. } = decisions;
        if place == ValueLayout::Scalar
            || place != decisions.place(odd)
            || !are_neighbours(definitions, usage, view, next)
        {
            return None;
        }
        let width = pairs_per_access(decisions, place, view);
        // An access that a bound cuts would need more care than it is worth.
        (width > 0 && !cut(decisions, view, width)).then_some(Pair {
            values: [even, odd],
            view,
            width,
            second,
        })
    }
}
