//! Floats of 16 bits as they lie in memory.

use linc_tile::Elem;

/// A float type of 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Half {
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE binary16.
    F16,
}

impl Half {
    /// The type of elements that are such.
    pub(crate) fn of(elem: Elem) -> Option<Half> {
        match elem {
            Elem::Bf16 => Some(Half::Bf16),
            Elem::F16 => Some(Half::F16),
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => None,
        }
    }
}
