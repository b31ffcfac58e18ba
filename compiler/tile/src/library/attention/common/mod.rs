//! What the attention kernels of all kinds share: sizes, strides, the rows of a head, operations on tiles.

mod documents;
mod places;
mod rows;
mod tiles;

pub(super) use documents::Documents;
pub(super) use places::Places;
pub(super) use rows::{GroupTile, HeadRows, QueryBlock, for_group, group_head};
pub(super) use tiles::{Triangle, compare_index, mask_before, mask_from, scale_rows, with_each_row};

use crate::builder::Builder;
use crate::ir::ValueId;
use crate::library::hash;

/// Sizes of one attention.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeadShape {
    /// Sequences, B.
    pub batch: usize,
    /// Tokens of a sequence, N.
    pub seq: usize,
    /// Query heads, H; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads, G.
    pub kv_heads: usize,
    /// Features of a head, D; a multiple of 8.
    pub head_dim: usize,
}

impl HeadShape {
    /// Query heads that share one key/value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Number of a key/value head (Index) of a sequence (Index) among those of all.
    pub(crate) fn kv_line(&self, b: &mut Builder, batch: ValueId, kv_head: ValueId) -> ValueId {
        let line = b.scale_index(batch, self.kv_heads);
        b.add(line, kv_head)
    }

    /// Panics if no kernel can be written for the shape: a bug of the caller.
    pub(crate) fn check(&self, kernel: &str) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads), "{kernel}: heads of {self:?}");
        assert!(self.head_dim > 0 && self.head_dim.is_multiple_of(8), "{kernel}: head_dim of {self:?}");
        assert!(self.batch > 0 && self.seq > 0, "{kernel}: empty {self:?}");
    }

    /// The shape as a part of a kernel name.
    pub(crate) fn tag(&self) -> String {
        format!("b{}_n{}_h{}_g{}_d{}", self.batch, self.seq, self.heads, self.kv_heads, self.head_dim)
    }
}

/// Distances in elements between neighbours of a `[B, N, heads, D]` tensor; features are adjacent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeadStrides {
    /// Between sequences.
    pub batch: usize,
    /// Between tokens.
    pub seq: usize,
    /// Between heads.
    pub head: usize,
}

impl HeadStrides {
    /// Strides of a contiguous `[B, seq, heads, head_dim]` tensor.
    pub fn contiguous(seq: usize, heads: usize, head_dim: usize) -> Self {
        HeadStrides { batch: seq * heads * head_dim, seq: heads * head_dim, head: head_dim }
    }
}

/// Strides as a part of a kernel name: a hash, since those of eight tensors would not fit a file name.
pub(crate) fn strides_tag(strides: &[HeadStrides]) -> String {
    let parts: Vec<String> = strides.iter().map(|s| format!("{}x{}x{}", s.batch, s.seq, s.head)).collect();
    format!("{:016x}", hash(&parts.join(",")))
}
