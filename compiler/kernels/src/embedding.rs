//! Embedding rows, and their gradient: on a GPU by a sort of the tokens.

use linc_ir::op::EMBEDDING_ROWS;
use linc_tile::library::embedding::{
    EmbeddingGradSpec, EmbeddingSpec, SortedEmbeddingGradSpec, embedding, embedding_grad,
    embedding_grad_sorted,
};
use linc_tile::library::fill::{FillSpec, fill};
use linc_tile::library::sort::{SortKeysSpec, SortedRangesSpec, sort_keys, sort_pass, sorted_ranges};
use linc_tile::{Elem, Kernel};

use crate::context::Lowering;
use crate::{Cost, KernelError, StoragePlace, Target};

/// Columns of the table that a program of a gradient owns on a GPU.
const COLUMNS: usize = 2048;

/// Tokens that a program of a sort looks at together.
const SCAN: usize = 2048;

pub(crate) fn rows(l: &mut Lowering<'_>) -> Result<(), KernelError> {
    let (table, ids, y) = (l.operands[0], l.operands[1], l.results[0]);
    let (vocab, d) = (l.shape(table).0[0], l.shape(table).0[1]);
    let tokens = l.shape(ids).numel();
    let spec = EmbeddingSpec { tokens, d, vocab, table: l.elem(table)?, y: l.elem(y)? };
    let args = l.places(&[table, ids, y]);
    l.launch(embedding(&spec), args);
    Ok(())
}

/// Every program looks at all ids. On a CPU there are few programs, and more elements in a block than ids in a usual step. On
/// a GPU an addition is a wait for memory, and so is a look: of 16,384 tokens of English some 4,000 have ids of one range
/// of 256, and some 800 of one of 8.
pub(crate) fn gradient(l: &mut Lowering<'_>, vocab: usize) -> Result<(), KernelError> {
    let (ids, dy, dtable) = (l.operands[0], l.operands[1], l.results[0]);
    let (tokens, d) = (l.shape(ids).numel(), l.shape(dtable).0[1]);
    let (block, scan) = match l.target {
        Target::Cpu => ((vocab.div_ceil(32).clamp(16, 256), 512), 128),
        Target::Cuda | Target::Hopper => ((EMBEDDING_ROWS, COLUMNS), 4096),
    };
    let spec = EmbeddingGradSpec { tokens, d, vocab, dy: l.elem(dy)?, block, scan };
    let args = l.places(&[ids, dy, dtable]);
    l.launch(embedding_grad(&spec), args);
    Ok(())
}

/// A program sees the tokens of its rows only, and loads several rows at once.
pub(crate) fn sorted_gradient(l: &mut Lowering<'_>, vocab: usize) -> Result<(), KernelError> {
    let (ids, dy, dtable) = (l.operands[0], l.operands[1], l.results[0]);
    let (tokens, d) = (l.shape(ids).numel(), l.shape(dtable).0[1]);
    let (block, batch) = ((EMBEDDING_ROWS, COLUMNS), 8);
    let spec = SortedEmbeddingGradSpec { tokens, d, vocab, dy: l.elem(dy)?, block, batch };
    let floats = l.ty(dy).bytes() + l.ty(dtable).bytes();
    let integers = 2 * (tokens + spec.ranges().blocks());
    let cost = Cost { flops: (tokens * d) as u64, bytes: (floats + 4 * integers) as u64 };
    let (ids, dy, dtable) = (l.place(ids), l.place(dy), l.place(dtable));
    let ranges = l.place(l.results[2]);
    let [keys, numbers] = sort(l, ids, SortKeysSpec::new(tokens, vocab));
    find_ranges(l, &spec.ranges(), keys, ranges);
    l.launch_costing(cost, embedding_grad_sorted(&spec), vec![keys, numbers, ranges, dy, dtable]);
    Ok(())
}

/// Sorts the tokens by their ids; gives where ids and tokens then are.
fn sort(l: &mut Lowering<'_>, ids: StoragePlace, spec: SortKeysSpec) -> [StoragePlace; 2] {
    let tokens = spec.tokens;
    let order = l.place(l.results[1]);
    let [keys, numbers, low, keys_by_low, numbers_by_low] = [0, 1, 2, 3, 4].map(|row| order.at(row * tokens));
    moving(l, 4 * tokens, sort_keys(&spec), vec![ids, keys, numbers, low]);
    let [by_low, by_high] = spec.passes(SCAN).map(|pass| sort_pass(&pass));
    moving(l, 5 * tokens, by_low, vec![low, keys, numbers, keys_by_low, numbers_by_low]);
    moving(l, 4 * tokens, by_high, vec![keys_by_low, keys_by_low, numbers_by_low, keys, numbers]);
    [keys, numbers]
}

/// Finds where the tokens of each block of rows begin and end.
fn find_ranges(l: &mut Lowering<'_>, spec: &SortedRangesSpec, keys: StoragePlace, ranges: StoragePlace) {
    let (rows, cols) = (1, 2 * spec.blocks());
    let zeros = FillSpec { rows, cols, offset: 0, row_stride: cols, elem: Elem::I32, value: 0.0 };
    moving(l, cols, fill(&zeros), vec![ranges]);
    moving(l, spec.tokens + cols, sorted_ranges(spec), vec![keys, ranges]);
}

/// A launch that only moves integers.
fn moving(l: &mut Lowering<'_>, integers: usize, kernel: Kernel, args: Vec<StoragePlace>) {
    l.launch_costing(Cost { flops: 0, bytes: 4 * integers as u64 }, kernel, args);
}
