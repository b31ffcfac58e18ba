//! All chunks in parallel: the form for machines with many processors (the field's "chunkwise parallel form").
//!
//! What its kernels share: one chunk of one key/value head, seen in blocks of
//! features so that no tile is larger than a matrix of 64 by 64 but those that have all value features, or all features
//! of a head of up to 128 where that is one block.
//!
//! The letters are those of [`super`]. Whether the products of `k̃` and `q̃` are exact is decided per
//! block, since the sums over features need no common reference. A block that is out of range is done key by key
//! with weights `exp(K_s − L_t)`, which never exceed 1; a block of many features takes that way even if only one of them is out of range. Kernels whose
//! results are subtracted from each other have the same blocks.

mod backward;
mod dkdv;
mod forward;
mod key_block;
mod states;

pub use backward::{efficient_attention_chunk_grads, efficient_attention_delta, needs_delta, takes_delta};
pub use dkdv::efficient_attention_grads;
pub use forward::{efficient_attention_out, efficient_prefill_out};
pub use states::{
    efficient_attention_chunk_states, efficient_attention_prefix, efficient_attention_suffix,
    efficient_prefill_prefix,
};

use super::documents::ChunkDocuments;
use super::key_chunk::{Past, existing, load_keys};
use super::state::SavedStates;
use crate::builder::Builder;
use crate::ir::{Elem, ParamId, ValueId};
use crate::library::attention::common::{
    Documents, HeadRows, HeadShape, HeadStrides, Triangle, for_group, group_head,
};
use crate::library::{bound, grid_indices};

/// Most features of a block that is all of a program: a matrix of 64 by 64 costs 32 registers of each of 128 threads.
pub(crate) const WIDEST: usize = 64;
/// Most features of a block that is all of a head, in two bytes each: operands in four do not fit shared memory.
const WHOLE: usize = 128;
/// Most features of one of several blocks that a program does in turn, beside tiles with all value features.
const NARROW: usize = 32;

/// The largest width that divides `dim` into equal blocks, at most `most`.
fn feature_block(dim: usize, most: usize) -> usize {
    let mut widths = (1..=most.min(dim) / 8).rev().map(|eights| 8 * eights);
    widths.find(|width| dim.is_multiple_of(*width)).expect("head_dim is a multiple of 8")
}

/// What forward and backward specifications have in common.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Element type of the tensors.
    pub elem: Elem,
    /// Sizes of the attention.
    pub shape: HeadShape,
    /// Tokens of a chunk, C.
    pub chunk: usize,
    /// Multiplier of q and k.
    pub temperature: f64,
    /// Documents are kept apart.
    pub documents: bool,
    /// Features of a block, F; all blocks of a head are equal.
    pub width: usize,
}

impl Sizes {
    /// With blocks as wide as they can be.
    pub(crate) fn new(elem: Elem, shape: HeadShape, chunk: usize, temperature: f64, documents: bool) -> Self {
        Sizes { elem, shape, chunk, temperature, documents, width: feature_block(shape.head_dim, WIDEST) }
    }

    /// The parameter of positions in documents, where these are kept apart.
    pub(crate) fn positions(&self, b: &mut Builder) -> Option<ParamId> {
        self.documents.then(|| Documents::param(b))
    }

    /// For programs of all features: as one block where that fits the registers of a multiprocessor, since the key side of an
    /// only block serves all query heads. Else narrow ones.
    pub(crate) fn for_whole_head(self) -> Self {
        let dim = self.shape.head_dim;
        let fits = dim <= WIDEST || dim <= WHOLE && matches!(self.elem, Elem::Bf16 | Elem::F16);
        Sizes { width: if fits { dim } else { feature_block(dim, NARROW) }, ..self }
    }

    /// Blocks of a head.
    pub(crate) fn blocks(&self) -> usize {
        self.shape.head_dim / self.width
    }

    /// Number of chunks, S.
    pub(crate) fn chunks(&self) -> usize {
        self.shape.seq.div_ceil(self.chunk)
    }

    /// The grid of kernels with a program for each chunk and block: both on the first axis, then heads and sequences.
    pub(crate) fn block_grid(&self) -> [usize; 3] {
        [self.chunks() * self.blocks(), self.shape.kv_heads, self.shape.batch]
    }

    /// Runs `body` for the first feature (Index) of each block, carrying values.
    pub(crate) fn each_block(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        body: impl FnOnce(&mut Builder, ValueId, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let zero = b.index(0);
        if self.blocks() == 1 {
            return body(b, zero, init);
        }
        let end = b.index(self.shape.head_dim);
        b.for_loop(zero, end, self.width, init, body)
    }
}

/// One chunk of one key/value head.
#[derive(Clone, Copy)]
pub(crate) struct ChunkHead {
    /// What it is a part of.
    pub sizes: Sizes,
    /// Number of the chunk, Index.
    pub index: ValueId,
    /// Its first token, Index.
    pub start: ValueId,
    /// Existing rows, if the chunk may be ragged.
    pub bound: Option<ValueId>,
    /// Where there are no keys before it.
    pub past: Past,
    batch: ValueId,
    kv_head: ValueId,
}

impl ChunkHead {
    /// Chunk `index` of the head and sequence that the second and third grid axes say.
    pub(crate) fn new(b: &mut Builder, sizes: Sizes, index: ValueId) -> Self {
        let (kv_head, batch) = (b.program_id(1), b.program_id(2));
        let start = b.scale_index(index, sizes.chunk);
        b.name(start, "start");
        let bound = bound(b, sizes.shape.seq, start, sizes.chunk);
        ChunkHead { sizes, index, start, bound, past: Past::Sequence, batch, kv_head }
    }

    /// The same chunk in other blocks of features.
    pub(crate) fn in_blocks(self, sizes: Sizes) -> Self {
        ChunkHead { sizes, ..self }
    }

    /// The same chunk, of a block of tokens at position `pos` (Index).
    pub(crate) fn after(self, pos: Option<ValueId>) -> Self {
        ChunkHead { past: pos.map_or(self.past, Past::Block), ..self }
    }

    /// The same chunk, of sequences whose documents are kept apart where there are positions in them.
    pub(crate) fn apart(self, b: &mut Builder, positions: Option<ParamId>) -> Self {
        let Some(positions) = positions else { return self };
        let Sizes { shape, chunk, .. } = self.sizes;
        let documents = Documents::new(b, positions, &shape, self.batch);
        let documents = ChunkDocuments::new(b, documents, shape.seq, chunk, self.start, self.bound);
        ChunkHead { past: Past::Documents(documents), ..self }
    }

    /// Where documents are kept apart.
    pub(crate) fn documents(&self) -> Option<ChunkDocuments> {
        match self.past {
            Past::Documents(documents) => Some(documents),
            Past::Sequence | Past::Block(_) => None,
        }
    }

    /// Keeps of `tile` `[queries, keys]` what queries see of the keys of the chunk; the rest 0.
    pub(crate) fn hide(&self, b: &mut Builder, tile: ValueId) -> ValueId {
        match self.documents() {
            Some(documents) => documents.hide(b, tile, false),
            None => Triangle { fill: 0.0, lower: true }.apply(b, tile, None),
        }
    }

    /// The rows of `tile` `[C, ..]` that see what is before the chunk; the others 0.
    pub(crate) fn rows_of_past(&self, b: &mut Builder, tile: ValueId) -> ValueId {
        self.documents().map_or(tile, |documents| documents.rows_of_past(b, tile))
    }

    /// The chunk of a program of [`Sizes::block_grid`], and the first feature of its block.
    pub(crate) fn with_block(b: &mut Builder, sizes: Sizes) -> (Self, ValueId) {
        let place = grid_indices(b, &[sizes.chunks(), sizes.blocks()]);
        let first = b.scale_index(place[1], sizes.width);
        (ChunkHead::new(b, sizes, place[0]), first)
    }

    /// Rows of the key/value head in a tensor `[B, N, G, D]`.
    pub(crate) fn rows(&self, b: &mut Builder, param: ParamId, strides: HeadStrides) -> HeadRows {
        HeadRows::new(b, param, strides, self.sizes.shape.head_dim, self.batch, self.kv_head)
    }

    /// Rows of the key/value head in a contiguous tensor `[B, N, G, D]`.
    pub(crate) fn part_rows(&self, b: &mut Builder, param: ParamId) -> HeadRows {
        let HeadShape { seq, kv_heads, head_dim, .. } = self.sizes.shape;
        self.rows(b, param, HeadStrides::contiguous(seq, kv_heads, head_dim))
    }

    /// Rows of query head `head` in a tensor `[B, N, H, D]`.
    pub(crate) fn query_rows(
        &self,
        b: &mut Builder,
        param: ParamId,
        strides: HeadStrides,
        head: ValueId,
    ) -> HeadRows {
        HeadRows::new(b, param, strides, self.sizes.shape.head_dim, self.batch, head)
    }

    /// Offset of the chunk's first token of query head `head` in a contiguous tensor `[B, H, N]`.
    pub(crate) fn row_offset(&self, b: &mut Builder, head: ValueId) -> ValueId {
        let line = b.scale_index(self.batch, self.sizes.shape.heads);
        let line = b.add(line, head);
        let line = b.scale_index(line, self.sizes.shape.seq);
        b.add(line, self.start)
    }

    /// The pairs `vector [B, G, S, D]`, `matrix [B, G, S, D, D]` of this head.
    pub(crate) fn states(&self, b: &mut Builder, vector: ParamId, matrix: ParamId) -> SavedStates {
        let count = self.sizes.chunks();
        SavedStates::new(b, vector, matrix, &self.sizes.shape, count, self.batch, self.kv_head)
    }

    /// Runs `body` for each query head (Index) of the group, carrying values.
    pub(crate) fn each_query_head(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        body: impl FnOnce(&mut Builder, ValueId, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let group = self.sizes.shape.group();
        for_group(b, group, init, |b, member, carried| {
            let head = group_head(b, self.kv_head, group, member);
            body(b, head, carried)
        })
    }

    /// Runs `body` for each token of the chunk, with its row (Index), carrying values.
    pub(crate) fn each_token(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        body: impl FnOnce(&mut Builder, ValueId, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let (zero, count) = (b.index(0), existing(b, self.sizes.chunk, self.bound));
        b.for_loop(zero, count, 1, init, body)
    }

    /// The chunk's rows of `rows`, in the element type of the tensor.
    pub(crate) fn load(&self, b: &mut Builder, rows: &HeadRows) -> ValueId {
        rows.load(b, self.start, self.sizes.chunk, self.bound)
    }

    /// The chunk's rows of `rows`, f32.
    pub(crate) fn load_f32(&self, b: &mut Builder, rows: &HeadRows) -> ValueId {
        rows.load_f32(b, self.start, self.sizes.chunk, self.bound)
    }

    /// Writes the chunk's rows.
    pub(crate) fn store(&self, b: &mut Builder, rows: &HeadRows, value: ValueId) {
        rows.store(b, self.start, value, self.bound);
    }

    /// The chunk's keys times temperature, -inf beyond the sequence.
    pub(crate) fn keys(&self, b: &mut Builder, k: &HeadRows) -> ValueId {
        load_keys(b, k, self.sizes.chunk, self.sizes.temperature, self.start, self.bound)
    }

    /// Those that are seen behind the chunk; the others -inf.
    pub(crate) fn keys_of_tail(&self, b: &mut Builder, k: &HeadRows) -> ValueId {
        let keys = self.keys(b, k);
        self.documents().map_or(keys, |documents| documents.keys_of_tail(b, keys))
    }
}
