//! Where the sequences of a batch are when they go on from what earlier tokens left.

use crate::builder::Builder;
use crate::ir::{Elem, Mode, ParamId, ValueId};
use crate::library::load_index;

/// Position and slot of each sequence, i32 `[B]`: tokens before the first one at hand, and which caches or states are its own.
/// No two sequences of a batch share a slot, so no program reads what another writes.
pub(crate) struct Places {
    pos: ParamId,
    slot: ParamId,
}

impl Places {
    /// The parameters `pos` and `slot`.
    pub(crate) fn params(b: &mut Builder) -> Self {
        let mut numbers = |name| b.param(name, Elem::I32, Mode::Read);
        Places { pos: numbers("pos"), slot: numbers("slot") }
    }

    /// Position and slot (Index) of a sequence (Index).
    pub(crate) fn load(&self, b: &mut Builder, batch: ValueId) -> (ValueId, ValueId) {
        (load_index(b, self.pos, batch), load_index(b, self.slot, batch))
    }
}
