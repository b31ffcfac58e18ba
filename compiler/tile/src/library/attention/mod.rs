//! Attention, a folder for each kind. `common` has what they share: sizes, strides, the rows of one head.
//!
//! Letters: `B` batch, `N` sequence, `H` query heads, `G` key/value heads, `D` features of a head. Tensors
//! `[B, N, heads, D]` come with strides (in elements) of batch, sequence and head and have adjacent features, so they may be
//! slices of one packed qkv buffer. Other tensors are contiguous. `pos` is one i32 in memory. What is not said to be f32 has
//! the element type of the spec. Sums accumulate in f32. A table in each kind lists its kernels.

mod common;
pub mod efficient;
pub mod elu;
pub mod softmax;

pub use common::{HeadShape, HeadStrides};
