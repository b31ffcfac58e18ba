//! Which way round a tile of scores is.
//!
//! A program keeps one block, of queries or of keys, and walks over blocks of the other. Their scores are a product of the
//! two, and either may be the left operand. A GPU holds the left operand of its products in registers, so there it is the
//! block that a program keeps. A CPU reads the rows of the left operand where they are and packs the right one, which is
//! done once if that is the block that is kept; vectors along its axis then meet tiles row by row, and maxima and sums
//! over the other axis take whole vectors.

use crate::builder::Builder;
use crate::ir::{Compare, ValueId};
use crate::library::attention::common::{Triangle, mask_from};

/// The operand of the scores that is the block which a program keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kept {
    /// Scores are `[kept, walked]`, for GPUs.
    Left,
    /// Scores are `[walked, kept]`, for CPUs.
    Right,
}

impl Kept {
    /// The end of a kernel's name.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Kept::Left => "",
            Kept::Right => "_kr",
        }
    }

    /// `kept · walkedᵀ` or its transpose, of `[rows, D]` each.
    pub(crate) fn product(self, b: &mut Builder, kept: ValueId, walked: ValueId) -> ValueId {
        match self {
            Kept::Left => b.dot(kept, false, walked, true, None),
            Kept::Right => b.dot(walked, false, kept, true, None),
        }
    }

    /// Sums over the rows of the walked block: `[kept, D]`, of weights that are laid out as the scores.
    pub(crate) fn weigh(self, b: &mut Builder, weights: ValueId, walked: ValueId, acc: ValueId) -> ValueId {
        b.dot(weights, self == Kept::Right, walked, false, Some(acc))
    }

    /// Axis of the scores along which the walked block lies.
    pub(crate) fn walked_axis(self) -> usize {
        match self {
            Kept::Left => 1,
            Kept::Right => 0,
        }
    }

    /// A vector with an element for each row of the kept block, as a tile with `walked` rows of the other.
    pub(crate) fn expand_kept(self, b: &mut Builder, vector: ValueId, walked: usize) -> ValueId {
        match self {
            Kept::Left => b.expand_cols(vector, walked),
            Kept::Right => b.expand_rows(vector, walked),
        }
    }

    /// A vector with an element for each row of the walked block, as a tile with `kept` rows of the other.
    pub(crate) fn expand_walked(self, b: &mut Builder, vector: ValueId, kept: usize) -> ValueId {
        match self {
            Kept::Left => b.expand_rows(vector, kept),
            Kept::Right => b.expand_cols(vector, kept),
        }
    }

    /// Hides the keys behind each query: -inf there. Indices of the first rows of both blocks; `queries_kept` says which is
    /// which.
    pub(crate) fn hide_future(
        self,
        b: &mut Builder,
        scores: ValueId,
        kept: ValueId,
        walked: ValueId,
        queries_kept: bool,
    ) -> ValueId {
        let queries_are_rows = queries_kept == (self == Kept::Left);
        let origin = match self {
            Kept::Left => (kept, walked),
            Kept::Right => (walked, kept),
        };
        let mask = Triangle { fill: f64::NEG_INFINITY, lower: queries_are_rows };
        mask.apply(b, scores, Some(origin))
    }

    /// Hides the keys before those that each query sees, -inf there: `first` is the first of them, i32 `[queries]`, relative to the first
    /// key of the block.
    pub(crate) fn hide_before(
        self,
        b: &mut Builder,
        scores: ValueId,
        first: ValueId,
        queries_kept: bool,
    ) -> ValueId {
        let shape = b.ty(scores).shape;
        let queries_are_rows = queries_kept == (self == Kept::Left);
        let (keys, first) = if queries_are_rows {
            (b.iota(1, &shape), b.expand_cols(first, shape[1]))
        } else {
            (b.iota(0, &shape), b.expand_rows(first, shape[0]))
        };
        let seen = b.compare(Compare::Le, first, keys);
        let fill = b.full(f64::NEG_INFINITY, &shape);
        b.select(seen, scores, fill)
    }

    /// Hides the rows of the kept block from index `limit` on.
    pub(crate) fn hide_kept_from(self, b: &mut Builder, scores: ValueId, limit: ValueId) -> ValueId {
        mask_from(b, scores, 1 - self.walked_axis(), limit, f64::NEG_INFINITY)
    }

    /// Hides what is walked over from index `limit` of the block on.
    pub(crate) fn hide_from(self, b: &mut Builder, scores: ValueId, limit: ValueId) -> ValueId {
        mask_from(b, scores, self.walked_axis(), limit, f64::NEG_INFINITY)
    }
}
