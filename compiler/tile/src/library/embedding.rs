//! Embedding rows and their gradient.
//!
//! Ids are validated by the data loader. Should one be out of range all the same, no memory outside of the table is
//! touched: the forward gives a row of zeros and the gradient leaves the token out.

use super::sort::SortedRangesSpec;
use super::{TILE, WORK, among, between, bound, grid_indices, tag};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Kernel, Mode, Unary, ValueId};

/// `y[t] = table[ids[t]]`, dense `[tokens, d]`.
#[derive(Clone, PartialEq, Debug)]
pub struct EmbeddingSpec {
    /// Number of ids.
    pub tokens: usize,
    /// Columns of the table.
    pub d: usize,
    /// Rows of the table.
    pub vocab: usize,
    /// Element type of the table.
    pub table: Elem,
    /// Element type of `y`.
    pub y: Elem,
}

/// Parameters: table, ids (i32), y.
pub fn embedding(spec: &EmbeddingSpec) -> Kernel {
    let EmbeddingSpec { tokens, d, vocab, .. } = *spec;
    let cols = d.min(TILE);
    let group = (WORK / d).clamp(1, tokens);
    let counts = [tokens.div_ceil(group), d.div_ceil(cols)];
    let name = format!("embedding_{tokens}x{d}_v{vocab}_{}_{}", tag(spec.table), tag(spec.y));
    let mut b = Builder::new(name, [counts[0] * counts[1], 1, 1]);
    let table = b.param("table", spec.table, Mode::Read);
    let ids = b.param("ids", Elem::I32, Mode::Read);
    let y = b.param("y", spec.y, Mode::Write);

    let at = grid_indices(&mut b, &counts);
    let col = b.scale_index(at[1], cols);
    let (first, length, all) = (b.scale_index(at[0], group), b.index(group), b.index(tokens));
    let end = b.add(first, length);
    let end = b.min(end, all);
    let (rows, width, one) = (b.index(vocab), b.index(d), b.index(1));
    let col_bound = bound(&mut b, d, col, cols);
    let full = b.sub(width, col);
    b.for_loop(first, end, 1, &[], |b, token, _| {
        let id = b.load(ids, token, &[], &[]);
        let id = b.cast(id, Elem::Index);
        // At least `cols` inside of the table, at most 0 before and after it.
        let above = b.sub(rows, id);
        let above = b.mul(above, width);
        let below = b.add(id, one);
        let below = b.mul(below, width);
        let inside = b.min(above, below);
        let inside = b.min(inside, full);
        let offset = b.scale_index(id, d);
        let offset = b.add(offset, col);
        let row = b.load_f32(table, offset, &[cols], &[(1, Some(inside))]);
        let to = b.scale_index(token, d);
        let to = b.add(to, col);
        b.store(y, to, row, &[(1, col_bound)]);
        vec![]
    });
    b.finish()
}

/// `dtable[v] = Σ_{t: ids[t] = v} dy[t]`, f32 `[vocab, d]`, zeros included.
#[derive(Clone, PartialEq, Debug)]
pub struct EmbeddingGradSpec {
    /// Number of ids.
    pub tokens: usize,
    /// Columns of the table.
    pub d: usize,
    /// Rows of the table.
    pub vocab: usize,
    /// Element type of `dy`, dense `[tokens, d]`.
    pub dy: Elem,
    /// Rows and columns of the table that a program owns.
    pub block: (usize, usize),
    /// Ids that it looks at together.
    pub scan: usize,
}

/// Parameters: ids (i32), dy, dtable (f32).
///
/// A program owns a block of rows and columns of `dtable`: it writes zeros, then walks the ids in order and adds the
/// rows of `dy` that are its own, so every sum has one order and no two programs meet. Ids are compared as vectors, and
/// the next of the program's own is a reduction: no token of others is walked over. Every program looks at all ids, so
/// this is for machines with few programs; the others sort the tokens first ([`embedding_grad_sorted`]).
pub fn embedding_grad(spec: &EmbeddingGradSpec) -> Kernel {
    let EmbeddingGradSpec { tokens, d, vocab, .. } = *spec;
    let (rows, cols) = (spec.block.0.min(vocab), spec.block.1.min(d));
    let scan = spec.scan.min(tokens);
    let counts = [vocab.div_ceil(rows), d.div_ceil(cols)];
    let name = format!("embedding_grad_{tokens}x{d}_v{vocab}_r{rows}_c{cols}_n{scan}_{}", tag(spec.dy));
    let mut b = Builder::new(name, [counts[0] * counts[1], 1, 1]);
    let ids = b.param("ids", Elem::I32, Mode::Read);
    let dy = b.param("dy", spec.dy, Mode::Read);
    let dtable = b.param("dtable", Elem::F32, Mode::ReadWrite);

    let at = grid_indices(&mut b, &counts);
    let col = b.scale_index(at[1], cols);
    let col_bound = bound(&mut b, d, col, cols);
    let (first, length, all) = (b.scale_index(at[0], rows), b.index(rows), b.index(vocab));
    let end = b.add(first, length);
    let end = b.min(end, all);

    let clear = (TILE / cols).clamp(1, rows);
    let zeros = b.full(0.0, &[clear, cols]);
    b.for_loop(first, end, clear, &[], |b, row, _| {
        let left = b.sub(end, row);
        let to = b.scale_index(row, d);
        let to = b.add(to, col);
        b.store(dtable, to, zeros, &[(d, Some(left)), (1, col_bound)]);
        vec![]
    });

    let (first_id, end_id) = (b.cast(first, Elem::I32), b.cast(end, Elem::I32));
    let (lows, highs) = (b.splat(first_id, &[scan]), b.splat(end_id, &[scan]));
    let places = b.iota(0, &[scan]);
    // Places in the scan, counted downwards in f32, so that the first is the largest.
    let backwards = b.cast(places, Elem::F32);
    let backwards = b.unary(Unary::Neg, backwards);
    let never = b.full(-(scan as f64), &[scan]);
    let (yes, no) = (b.full(1.0, &[scan]), b.full(0.0, &[scan]));
    let (zero, stop) = (b.index(0), b.index(tokens));
    b.for_loop(zero, stop, scan, &[], |b, start, _| {
        let left = bound(b, tokens, start, scan);
        let block = b.load(ids, start, &[scan], &[(1, left)]);
        let own = between(b, block, lows, highs);
        let own = among(b, places, left, own);
        let count = b.select(own, yes, no);
        let count = b.sum(0, count);
        let count = b.cast(count, Elem::I32);
        let count = b.cast(count, Elem::Index);
        let own = b.select(own, backwards, never);
        let some = b.compare(Compare::Lt, zero, count);
        b.if_else(
            some,
            |b| {
                let first = b.reduce_max(0, own);
                b.for_loop(zero, count, 1, &[first], |b, _, carried| {
                    let place = b.unary(Unary::Neg, carried[0]);
                    let place = b.cast(place, Elem::I32);
                    let place = b.cast(place, Elem::Index);
                    let token = b.add(start, place);
                    let id = b.load(ids, token, &[], &[]);
                    let row = b.cast(id, Elem::Index);
                    let (to, from) = (b.scale_index(row, d), b.scale_index(token, d));
                    let (to, from) = (b.add(to, col), b.add(from, col));
                    let axes = [(1, col_bound)];
                    let part = b.load_f32(dy, from, &[cols], &axes);
                    let sum = b.load(dtable, to, &[cols], &axes);
                    // The next is looked for while these are on their way.
                    let last = b.splat(carried[0], &[scan]);
                    let later = b.compare(Compare::Lt, own, last);
                    let later = b.select(later, own, never);
                    let next = b.reduce_max(0, later);
                    let sum = b.add(sum, part);
                    b.store(dtable, to, sum, &axes);
                    vec![next]
                });
                vec![]
            },
            |_| vec![],
        );
        vec![]
    });
    b.finish()
}

/// The same sums, of tokens in the order of their ids.
#[derive(Clone, PartialEq, Debug)]
pub struct SortedEmbeddingGradSpec {
    /// Number of ids.
    pub tokens: usize,
    /// Columns of the table.
    pub d: usize,
    /// Rows of the table.
    pub vocab: usize,
    /// Element type of `dy`, dense `[tokens, d]`.
    pub dy: Elem,
    /// Rows and columns of the table that a program owns.
    pub block: (usize, usize),
    /// Rows of `dy` that are loaded together.
    pub batch: usize,
}

impl SortedEmbeddingGradSpec {
    /// The ranges of tokens that the kernel reads.
    pub fn ranges(&self) -> SortedRangesSpec {
        SortedRangesSpec { tokens: self.tokens, vocab: self.vocab, block: self.block.0 }
    }
}

/// Parameters: ids and tokens (i32 `[tokens]`, sorted by [`super::sort`]), ranges (by
/// [`super::sort::sorted_ranges`]), dy, dtable (f32).
///
/// A program owns a block of rows and columns of `dtable`: it writes zeros, then walks over the tokens of its rows, adds
/// the rows of `dy` of one id in the order of the tokens, and stores their sum. Every sum has one order and no two
/// programs meet. Rows of `dy` are loaded some at once, since each is a wait for memory: the program of the commonest
/// tokens has many.
pub fn embedding_grad_sorted(spec: &SortedEmbeddingGradSpec) -> Kernel {
    let SortedEmbeddingGradSpec { tokens, d, vocab, batch, .. } = *spec;
    let (rows, cols) = (spec.block.0, spec.block.1.min(d));
    let counts = [spec.ranges().blocks(), d.div_ceil(cols)];
    let name =
        format!("embedding_grad_sorted_{tokens}x{d}_v{vocab}_r{rows}_c{cols}_b{batch}_{}", tag(spec.dy));
    let mut b = Builder::new(name, [counts[0] * counts[1], 1, 1]);
    let [ids, numbers, ranges] = ["ids", "tokens", "ranges"].map(|name| b.param(name, Elem::I32, Mode::Read));
    let dy = b.param("dy", spec.dy, Mode::Read);
    let dtable = b.param("dtable", Elem::F32, Mode::Write);

    let at = grid_indices(&mut b, &counts);
    let col = b.scale_index(at[1], cols);
    let col_bound = bound(&mut b, d, col, cols);
    let axes = [(1, col_bound)];
    let blocks = b.index(counts[0]);
    let end_at = b.add(at[0], blocks);
    let [first, end] = [at[0], end_at].map(|at| {
        let position = b.load(ranges, at, &[], &[]);
        b.cast(position, Elem::Index)
    });

    let (row, length, all) = (b.scale_index(at[0], rows), b.index(rows), b.index(vocab));
    let row_end = b.add(row, length);
    let row_end = b.min(row_end, all);
    let clear = (TILE / cols).clamp(1, rows);
    let zeros = b.full(0.0, &[clear, cols]);
    b.for_loop(row, row_end, clear, &[], |b, row, _| {
        let left = b.sub(row_end, row);
        let to = b.scale_index(row, d);
        let to = b.add(to, col);
        b.store(dtable, to, zeros, &[(d, Some(left)), (1, col_bound)]);
        vec![]
    });

    let nothing = b.full(0.0, &[cols]);
    let one = b.index(1);
    let last = b.sub(end, one);
    let no_id = b.int(-1);
    b.for_loop(first, end, batch, &[no_id, nothing], |b, start, carried| {
        // The id behind the batch says whether its last sum goes on. Behind the last token it comes again and again, without
        // conditions that would keep loads apart; what is added then is not stored.
        let steps: Vec<ValueId> = (0..=batch).map(|k| b.index(k)).collect();
        let within: Vec<ValueId> = steps.iter().map(|step| b.add(start, *step)).collect();
        let at: Vec<ValueId> = within.iter().map(|at| b.min(*at, last)).collect();
        let id: Vec<ValueId> = at.iter().map(|at| b.load(ids, *at, &[], &[])).collect();
        let token: Vec<ValueId> = at[..batch].iter().map(|at| b.load(numbers, *at, &[], &[])).collect();
        let exists: Vec<ValueId> = within.iter().map(|at| b.compare(Compare::Lt, *at, end)).collect();
        let parts: Vec<ValueId> = (0..batch)
            .map(|k| {
                let from = b.cast(token[k], Elem::Index);
                let from = b.scale_index(from, d);
                let from = b.add(from, col);
                b.load_f32(dy, from, &[cols], &axes)
            })
            .collect();
        let (mut before, mut sum) = (carried[0], carried[1]);
        for k in 0..batch {
            let goes_on = b.compare(Compare::Eq, id[k], before);
            let goes_on = b.splat(goes_on, &[cols]);
            sum = b.select(goes_on, sum, nothing);
            sum = b.add(sum, parts[k]);
            let other = b.compare(Compare::Ne, id[k], id[k + 1]);
            let none = b.unary(Unary::Not, exists[k + 1]);
            let ends = b.binary(Binary::Or, other, none);
            let ends = b.binary(Binary::And, exists[k], ends);
            b.if_else(
                ends,
                |b| {
                    let to = b.cast(id[k], Elem::Index);
                    let to = b.scale_index(to, d);
                    let to = b.add(to, col);
                    b.store(dtable, to, sum, &axes);
                    vec![]
                },
                |_| vec![],
            );
            before = id[k];
        }
        vec![before, sum]
    });
    b.finish()
}
