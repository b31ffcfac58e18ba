//! Facts about a tile program, which hold whatever is decided about layouts, and for every GPU.

pub(crate) mod definitions;
pub(crate) mod loops;
pub(crate) mod memory;
pub(crate) mod usage;
