//! C++ as text: lines and indentation, names, how types, constants, operations and positions are spelled, the comment
//! above a kernel. Nothing here writes statements or knows what they do.

pub(crate) mod expression;
pub(crate) mod header;
pub(crate) mod names;
pub(crate) mod positions;
pub(crate) mod shared_tile;
pub(crate) mod spelling;
pub(crate) mod writer;
