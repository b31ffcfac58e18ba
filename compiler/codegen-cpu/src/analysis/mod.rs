//! Facts about a tile program: who reads what and for how long, and which offsets in memory are equal or apart.

pub(crate) mod affine;
pub(crate) mod usage;
