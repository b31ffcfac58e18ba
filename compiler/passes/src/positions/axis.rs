//! The axis of a tensor along which positions of the sequence lie, and what views make of it.

use linc_ir::Shape;

/// Positions along an axis of a dense tensor: index `i` of axis `axis` is `(o * seq + position) * inner + rest`, with `o` below
/// `outer`. So `[batch * seq * heads, d]` has positions along axis 0, `outer` is the batch and `inner` the heads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Axis {
    pub(super) axis: usize,
    pub(super) outer: usize,
    pub(super) inner: usize,
}

impl Axis {
    /// An axis of positions and nothing else.
    pub(super) fn plain(axis: usize) -> Self {
        Axis { axis, outer: 1, inner: 1 }
    }

    /// The same along another axis.
    pub(super) fn at(self, axis: usize) -> Self {
        Axis { axis, ..self }
    }

    /// The shape with so many positions.
    pub(super) fn scaled(self, shape: &Shape, positions: usize) -> Shape {
        let mut shape = shape.clone();
        shape.0[self.axis] = self.outer * positions * self.inner;
        shape
    }

    /// What comes before and after the positions in the tensor's row-major order.
    pub(super) fn around(self, shape: &Shape) -> (usize, usize) {
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        let (before, after) = (&shape.0[..self.axis], &shape.0[self.axis + 1..]);
        (product(before) * self.outer, self.inner * product(after))
    }

    /// Where the positions are after a reshape, if they are still along one axis. There is one answer for `seq` from 2 on: the
    /// axis within which the first `before` and the first `before * seq` of the elements' indices end.
    pub(super) fn reshaped(self, from: &Shape, to: &Shape, seq: usize) -> Option<Self> {
        let (before, _) = self.around(from);
        let mut product = 1;
        to.0.iter().enumerate().find_map(|(axis, size)| {
            let outer = before.checked_div(product).filter(|outer| outer * product == before);
            product *= size;
            let outer = outer.filter(|outer| *outer > 0 && size.is_multiple_of(outer * seq))?;
            Some(Axis { axis, outer, inner: size / (outer * seq) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reshaped(from: Axis, a: &[usize], b: &[usize]) -> Option<(usize, usize, usize)> {
        from.reshaped(&Shape(a.to_vec()), &Shape(b.to_vec()), 5).map(|to| (to.axis, to.outer, to.inner))
    }

    #[test]
    fn positions_are_followed_through_joined_and_split_axes() {
        let rows = Axis::plain(1);
        assert_eq!(reshaped(rows, &[2, 5, 6], &[10, 6]), Some((0, 2, 1)));
        assert_eq!(reshaped(rows, &[2, 5, 6], &[2, 5, 3, 2]), Some((1, 1, 1)));
        assert_eq!(reshaped(rows, &[2, 5, 6], &[30, 2]), Some((0, 2, 3)));
        assert_eq!(reshaped(rows, &[2, 5, 6], &[2, 30]), Some((1, 1, 6)));
        let flat = Axis { axis: 0, outer: 2, inner: 3 };
        assert_eq!(reshaped(flat, &[30, 2], &[2, 5, 6]), Some((1, 1, 1)));
        assert_eq!(reshaped(flat, &[30, 2], &[1, 10, 1, 6]), Some((1, 2, 1)));
    }

    #[test]
    fn positions_that_a_reshape_tears_apart_are_nowhere() {
        // Of ten positions in two axes of which neither has all.
        let split = Axis::plain(0).reshaped(&Shape(vec![10, 3]), &Shape(vec![2, 5, 3]), 10);
        assert_eq!(split, None);
        // The last of one position and the first of the next in one row.
        assert_eq!(reshaped(Axis::plain(0), &[5, 6], &[6, 5]), None);
        assert_eq!(reshaped(Axis::plain(1), &[4, 5, 2], &[8, 5]), None);
    }
}
