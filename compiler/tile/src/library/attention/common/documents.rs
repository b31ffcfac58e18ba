//! Which document of a sequence the tokens are of.

use super::HeadShape;
use crate::builder::Builder;
use crate::ir::{Elem, Mode, ParamId, ValueId};
use crate::library::load_index;

/// The position of each token in its document, i32 `[B, N]`: a token sees none before the start of its own document, and later
/// tokens are of the same document or of later ones.
#[derive(Clone, Copy)]
pub(crate) struct Documents {
    positions: ParamId,
    /// Where those of the sequence begin, Index.
    line: ValueId,
}

impl Documents {
    /// The parameter `positions`.
    pub(crate) fn param(b: &mut Builder) -> ParamId {
        b.param("positions", Elem::I32, Mode::Read)
    }

    /// Of sequence `batch` (Index).
    pub(crate) fn new(b: &mut Builder, positions: ParamId, shape: &HeadShape, batch: ValueId) -> Self {
        Documents { positions, line: b.scale_index(batch, shape.seq) }
    }

    /// The position of token `token` (Index) in its document, Index.
    pub(crate) fn position(&self, b: &mut Builder, token: ValueId) -> ValueId {
        let at = b.add(self.line, token);
        load_index(b, self.positions, at)
    }

    /// The first token of the document of token `token`, both Index.
    pub(crate) fn start(&self, b: &mut Builder, token: ValueId) -> ValueId {
        let position = self.position(b, token);
        b.sub(token, position)
    }

    /// The first tokens of the documents of `rows` tokens from `token` (Index) on, i32 `[rows]`, as their distance to token
    /// `origin` (Index): negative of what lies before it. Tokens from `bound` on are documents of their own.
    pub(crate) fn starts(
        &self,
        b: &mut Builder,
        token: ValueId,
        rows: usize,
        bound: Option<ValueId>,
        origin: ValueId,
    ) -> ValueId {
        let at = b.add(self.line, token);
        let positions = b.load(self.positions, at, &[rows], &[(1, bound)]);
        let own = b.iota(0, &[rows]);
        let starts = b.sub(own, positions);
        let ahead = b.sub(token, origin);
        let ahead = b.cast(ahead, Elem::I32);
        let ahead = b.splat(ahead, &[rows]);
        b.add(starts, ahead)
    }
}
