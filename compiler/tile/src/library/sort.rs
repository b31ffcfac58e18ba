//! Tokens in the order of their ids, for what sums over the tokens of an id.
//!
//! A stable sort without atomics: by the low digits of the ids, then by the high ones (a radix sort of two digits, least
//! significant first). A program of a pass has one digit: it counts what comes before its own in the result and then
//! puts its own there, in their order. Every program looks at all tokens twice, so digits should be few; about the square
//! root of the number of ids each.
//!
//! Positions are counted in f32, so there are at most 2^24 tokens.

use super::{TILE, among, between, bound, grid_indices};
use crate::builder::Builder;
use crate::ir::{Compare, Elem, Kernel, Mode, ValueId};

/// Ids as they are sorted, their low digits, and the tokens' numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct SortKeysSpec {
    /// Number of ids.
    pub tokens: usize,
    /// Ids from 0 up to here; others are sorted behind them all.
    pub vocab: usize,
    /// Number of low digits.
    pub radix: usize,
}

impl SortKeysSpec {
    /// About as many low digits as high ones.
    pub fn new(tokens: usize, vocab: usize) -> Self {
        SortKeysSpec { tokens, vocab, radix: (vocab as f64).sqrt().ceil() as usize }
    }

    /// What stands for ids out of range.
    fn no_id(&self) -> usize {
        self.vocab.next_multiple_of(self.radix)
    }

    /// The passes that follow: by `low`, then by the keys themselves. Their programs look at `scan` tokens together.
    pub fn passes(&self, scan: usize) -> [SortPassSpec; 2] {
        let SortKeysSpec { tokens, radix, .. } = *self;
        let digits = self.no_id() / radix + 1;
        [(radix, 1), (digits, radix)].map(|(digits, width)| SortPassSpec { tokens, digits, width, scan })
    }
}

/// Parameters: ids, keys, tokens, low (all i32, dense `[tokens]`).
pub fn sort_keys(spec: &SortKeysSpec) -> Kernel {
    let SortKeysSpec { tokens, vocab, radix } = *spec;
    let block = tokens.min(TILE / 4);
    let count = tokens.div_ceil(block);
    let mut b = Builder::new(format!("sort_keys_{tokens}_v{vocab}_r{radix}"), [count, 1, 1]);
    let ids = b.param("ids", Elem::I32, Mode::Read);
    let [keys, numbers, low] = ["keys", "tokens", "low"].map(|name| b.param(name, Elem::I32, Mode::Write));

    let at = grid_indices(&mut b, &[count])[0];
    let start = b.scale_index(at, block);
    let left = bound(&mut b, tokens, start, block);
    let axes = [(1, left)];
    let id = b.load(ids, start, &[block], &axes);
    let [zero, end, none, size] = [0, vocab, spec.no_id(), radix].map(|n| repeated(&mut b, n as i32, block));
    let inside = between(&mut b, id, zero, end);
    let key = b.select(inside, id, none);
    b.store(keys, start, key, &axes);
    let digit = b.rem(key, size);
    b.store(low, start, digit, &axes);
    let first = b.cast(start, Elem::I32);
    let first = b.splat(first, &[block]);
    let number = b.iota(0, &[block]);
    let number = b.add(first, number);
    b.store(numbers, start, number, &axes);
    b.finish()
}

/// Moves keys and tokens to the order of a digit; what has the same digit keeps its order.
#[derive(Clone, PartialEq, Debug)]
pub struct SortPassSpec {
    /// Number of tokens.
    pub tokens: usize,
    /// Number of digits: the sorted numbers are below `digits·width`.
    pub digits: usize,
    /// Numbers of one digit.
    pub width: usize,
    /// Tokens that a program looks at together.
    pub scan: usize,
}

/// Parameters: by (what is sorted), keys, tokens, sorted_keys, sorted_tokens (all i32, dense `[tokens]`). The last two
/// are other memory than the first three.
pub fn sort_pass(spec: &SortPassSpec) -> Kernel {
    let SortPassSpec { tokens, digits, width, .. } = *spec;
    let scan = spec.scan.min(tokens);
    let name = format!("sort_pass_{tokens}_d{digits}x{width}_n{scan}");
    let mut b = Builder::new(name, [digits, 1, 1]);
    let [by, keys, numbers] = ["by", "keys", "tokens"].map(|name| b.param(name, Elem::I32, Mode::Read));
    let [to_keys, to_tokens] =
        ["sorted_keys", "sorted_tokens"].map(|name| b.param(name, Elem::I32, Mode::Write));

    let digit = grid_indices(&mut b, &[digits])[0];
    let (low, length) = (b.scale_index(digit, width), b.index(width));
    let high = b.add(low, length);
    let [lows, highs] = [low, high].map(|bound| {
        let bound = b.cast(bound, Elem::I32);
        b.splat(bound, &[scan])
    });
    let places = b.iota(0, &[scan]);
    let (yes, no) = (b.full(1.0, &[scan]), b.full(0.0, &[scan]));
    let (zero, stop) = (b.index(0), b.index(tokens));

    let before = b.for_loop(zero, stop, scan, &[no], |b, start, counts| {
        let left = bound(b, tokens, start, scan);
        let number = b.load(by, start, &[scan], &[(1, left)]);
        let below = b.compare(Compare::Lt, number, lows);
        let below = among(b, places, left, below);
        let one = b.select(below, yes, no);
        vec![b.add(counts[0], one)]
    });
    let before = b.sum(0, before[0]);
    let first = b.cast(before, Elem::I32);
    b.for_loop(zero, stop, scan, &[first], |b, start, carried| {
        let left = bound(b, tokens, start, scan);
        let axes = [(1, left)];
        let [number, key, token] = [by, keys, numbers].map(|param| b.load(param, start, &[scan], &axes));
        let own = between(b, number, lows, highs);
        let own = among(b, places, left, own);
        let ones = b.select(own, yes, no);
        let count = b.sum(0, ones);
        let count = b.cast(count, Elem::I32);
        let next = b.add(carried[0], count);
        let none = b.int(0);
        let some = b.compare(Compare::Lt, none, count);
        b.if_else(
            some,
            |b| {
                // The first of them has rank 1.
                let one = b.int(1);
                let base = b.sub(carried[0], one);
                let base = b.splat(base, &[scan]);
                let rank = b.scan(0, false, ones);
                let rank = b.cast(rank, Elem::I32);
                let place = b.add(base, rank);
                let nowhere = repeated(b, -1, scan);
                let place = b.select(own, place, nowhere);
                b.scatter(to_keys, zero, place, key);
                b.scatter(to_tokens, zero, place, token);
                vec![]
            },
            |_| vec![],
        );
        vec![next]
    });
    b.finish()
}

/// Where blocks of ids begin and end among sorted keys.
#[derive(Clone, PartialEq, Debug)]
pub struct SortedRangesSpec {
    /// Number of keys.
    pub tokens: usize,
    /// Keys from here on are no ids and in no block.
    pub vocab: usize,
    /// Ids of one block.
    pub block: usize,
}

impl SortedRangesSpec {
    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.vocab.div_ceil(self.block)
    }
}

/// Parameters: keys (i32, sorted), ranges (i32 `[2, blocks]`: first and end of each, of which those that are not zero are
/// written).
pub fn sorted_ranges(spec: &SortedRangesSpec) -> Kernel {
    let SortedRangesSpec { tokens, vocab, block } = *spec;
    let blocks = spec.blocks();
    let tile = tokens.min(TILE / 4);
    let count = tokens.div_ceil(tile);
    let mut b = Builder::new(format!("sorted_ranges_{tokens}_v{vocab}_b{block}"), [count, 1, 1]);
    let keys = b.param("keys", Elem::I32, Mode::Read);
    let ranges = b.param("ranges", Elem::I32, Mode::Write);

    let at = grid_indices(&mut b, &[count])[0];
    let (start, one, all) = (b.scale_index(at, tile), b.index(1), b.index(tokens));
    let left = bound(&mut b, tokens, start, tile);
    let key = b.load(keys, start, &[tile], &[(1, left)]);
    let behind = b.add(start, one);
    let rest = b.sub(all, behind);
    let key_behind = b.load(keys, behind, &[tile], &[(1, Some(rest))]);

    let [size, no_id, nowhere] = [block as i32, vocab as i32, -1].map(|n| repeated(&mut b, n, tile));
    let position = b.iota(0, &[tile]);
    // The block of each key, or none.
    let [own, next] = [(key, left), (key_behind, Some(rest))].map(|(key, left)| {
        let is_id = b.compare(Compare::Lt, key, no_id);
        let is_id = among(&mut b, position, left, is_id);
        let block = b.div(key, size);
        b.select(is_id, block, nowhere)
    });
    let first = b.cast(behind, Elem::I32);
    let first = b.splat(first, &[tile]);
    let end = b.add(first, position);
    let differs = b.compare(Compare::Ne, own, next);
    let [ends, begins] = [own, next].map(|block| b.select(differs, block, nowhere));
    let (firsts, lasts) = (b.index(0), b.index(blocks));
    b.scatter(ranges, lasts, ends, end);
    b.scatter(ranges, firsts, begins, end);
    b.finish()
}

fn repeated(b: &mut Builder, number: i32, size: usize) -> ValueId {
    let number = b.int(number);
    b.splat(number, &[size])
}
