//! Rotary position embedding (arXiv 2104.09864): feature pairs `(2i, 2i+1)` turned by an angle from a table.
//!
//! The even and the odd features are loaded with stride 2 and turned together. If a position has many heads, a tile is
//! the heads of one position, which is contiguous memory in `[B, N, H, D]`; otherwise it is the positions of one head.

use super::{TILE, bound, grid_indices, load_index, tag};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, ParamId, ValueId};

/// Which positions the tokens of a sequence have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Positions {
    /// From 0 on.
    FromZero,
    /// From that of the sequence on, which is read from a parameter.
    FromStart,
    /// Each its own, read from a parameter.
    OfTokens,
}

/// Rotation of `[batch, seq, heads, dim]`.
#[derive(Clone, PartialEq, Debug)]
pub struct RopeSpec {
    /// Sequences.
    pub batch: usize,
    /// Positions.
    pub seq: usize,
    /// Heads of `x`, which share the angles of a position.
    pub heads: usize,
    /// Features of a head, even; dense in memory.
    pub dim: usize,
    /// Element type of `x`.
    pub x: Elem,
    /// Distances in `x` of sequences, positions and heads, in elements.
    pub x_strides: [usize; 3],
    /// Element type of `y`.
    pub y: Elem,
    /// Distances in `y` of sequences, positions and heads, in elements.
    pub y_strides: [usize; 3],
    /// Positions in the table; at least `seq`.
    pub table_len: usize,
    /// Positions that a program takes one after the other, where a tile is the heads of one.
    pub block: usize,
    /// Where positions come from.
    pub positions: Positions,
    /// Turn back, which is also the gradient.
    pub inverse: bool,
}

/// Parameters: x, table (f32 `[table_len, dim/2, 2]` of cos, sin), y; where positions are read: x, table, start (i32
/// `[batch]`, or `[batch, seq]` of tokens), y.
///
/// No position is negative. Positions beyond the table give zeros: nothing outside of it is read.
/// `y` may be the same memory as `x` if the strides are equal.
pub fn rope(spec: &RopeSpec) -> Kernel {
    let half = spec.dim / 2;
    // Below this a tile of all heads is too small to be worth a loop round.
    const FEW: usize = 256;
    // Rows of the table lie side by side only where positions follow each other.
    let of_tokens = spec.positions == Positions::OfTokens;
    let by_heads = spec.seq == 1 || of_tokens || spec.heads * half >= FEW;
    let (tile_seq, tile_heads) = if by_heads {
        (spec.block.clamp(1, spec.seq), (TILE / half).clamp(1, spec.heads))
    } else {
        ((TILE / half).clamp(1, spec.seq), spec.heads)
    };
    let counts = [spec.batch, spec.seq.div_ceil(tile_seq), spec.heads.div_ceil(tile_heads)];
    let mut b = Builder::new(name(spec), [counts.iter().product(), 1, 1]);
    let x = b.param("x", spec.x, Mode::Read);
    let table = b.param("table", Elem::F32, Mode::Read);
    let start = (spec.positions != Positions::FromZero).then(|| b.param("start", Elem::I32, Mode::Read));
    let y = b.param("y", spec.y, Mode::Write);

    let at = grid_indices(&mut b, &counts);
    let (pos, head) = (b.scale_index(at[1], tile_seq), b.scale_index(at[2], tile_heads));
    let first = start.filter(|_| !of_tokens).map(|start| load_index(&mut b, start, at[0]));
    if by_heads {
        let (seq, length) = (b.index(spec.seq), b.index(tile_seq));
        let end = b.add(pos, length);
        let end = b.min(end, seq);
        let head_bound = bound(&mut b, spec.heads, head, tile_heads);
        b.for_loop(pos, end, 1, &[], |b, pos, _| {
            let row = match start {
                Some(start) if of_tokens => {
                    let token = b.scale_index(at[0], spec.seq);
                    let token = b.add(token, pos);
                    load_index(b, start, token)
                }
                _ => first.map_or(pos, |first| b.add(first, pos)),
            };
            // Left of the table in features: all of the row inside of it, none beyond.
            let left = start.map(|_| left_of_table(b, spec, row));
            let left = left.map(|rows| b.scale_index(rows, half));
            let (cos, sin) = load_angles(b, spec, table, row, &[half], &[(2, left)]);
            let angles = (b.expand_rows(cos, tile_heads), b.expand_rows(sin, tile_heads));
            rotate_tile(b, spec, (x, y), [at[0], pos, head], angles, HEADS, head_bound);
            vec![]
        });
    } else {
        let row = first.map_or(pos, |first| b.add(first, pos));
        let left = first.map(|_| left_of_table(&mut b, spec, row));
        // Without a start the table is long enough, and what is past the end of the sequence is not stored.
        let left = left.or_else(|| bound(&mut b, spec.table_len, pos, tile_seq));
        let shape = [tile_seq, half];
        let angles = load_angles(&mut b, spec, table, row, &shape, &[(spec.dim, left), (2, None)]);
        let pos_bound = bound(&mut b, spec.seq, pos, tile_seq);
        let (lower, upper) = (b.index(0), b.index(spec.heads));
        b.for_loop(lower, upper, 1, &[], |b, head, _| {
            rotate_tile(b, spec, (x, y), [at[0], pos, head], angles, POSITIONS, pos_bound);
            vec![]
        });
    }
    b.finish()
}

/// Stride axis along which a tile has its rows.
const POSITIONS: usize = 1;
/// As [`POSITIONS`].
const HEADS: usize = 2;

fn name(spec: &RopeSpec) -> String {
    let join = |strides: [usize; 3]| strides.map(|s| s.to_string()).join("x");
    format!(
        "rope_{}x{}x{}x{}_{}_{}_{}_{}_len{}_t{}{}{}",
        spec.batch,
        spec.seq,
        spec.heads,
        spec.dim,
        tag(spec.x),
        join(spec.x_strides),
        tag(spec.y),
        join(spec.y_strides),
        spec.table_len,
        spec.block,
        match spec.positions {
            Positions::FromZero => "",
            Positions::FromStart => "_start",
            Positions::OfTokens => "_tokens",
        },
        if spec.inverse { "_inverse" } else { "" }
    )
}

/// Number of rows of the table from `row` to its end.
fn left_of_table(b: &mut Builder, spec: &RopeSpec, row: ValueId) -> ValueId {
    let len = b.index(spec.table_len);
    b.sub(len, row)
}

/// Cosines and sines from a row of the table on.
fn load_angles(
    b: &mut Builder,
    spec: &RopeSpec,
    table: ParamId,
    row: ValueId,
    shape: &[usize],
    axes: &[(usize, Option<ValueId>)],
) -> (ValueId, ValueId) {
    let offset = b.scale_index(row, spec.dim);
    let cos = b.load(table, offset, shape, axes);
    let one = b.index(1);
    let offset = b.add(offset, one);
    let sin = b.load(table, offset, shape, axes);
    (cos, sin)
}

/// Rotates the tile that starts at `at` (batch, position, head) and has its rows along `axis`.
fn rotate_tile(
    b: &mut Builder,
    spec: &RopeSpec,
    (x, y): (ParamId, ParamId),
    at: [ValueId; 3],
    (cos, sin): (ValueId, ValueId),
    axis: usize,
    row_bound: Option<ValueId>,
) {
    let shape = b.ty(cos).shape;
    let (from_even, from_odd) = pair_offsets(b, at, spec.x_strides);
    let axes = [(spec.x_strides[axis], row_bound), (2, None)];
    let even = b.load_f32(x, from_even, &shape, &axes);
    let odd = b.load_f32(x, from_odd, &shape, &axes);
    let (even_cos, even_sin) = (b.mul(even, cos), b.mul(even, sin));
    let (odd_cos, odd_sin) = (b.mul(odd, cos), b.mul(odd, sin));
    let (new_even, new_odd) = if spec.inverse {
        (b.add(even_cos, odd_sin), b.sub(odd_cos, even_sin))
    } else {
        (b.sub(even_cos, odd_sin), b.add(odd_cos, even_sin))
    };
    let (to_even, to_odd) = pair_offsets(b, at, spec.y_strides);
    let axes = [(spec.y_strides[axis], row_bound), (2, None)];
    b.store(y, to_even, new_even, &axes);
    b.store(y, to_odd, new_odd, &axes);
}

/// Offsets of the first even and the first odd feature at (batch, position, head).
fn pair_offsets(b: &mut Builder, at: [ValueId; 3], strides: [usize; 3]) -> (ValueId, ValueId) {
    let [batch, pos, head] = [0, 1, 2].map(|i| b.scale_index(at[i], strides[i]));
    let even = b.add(batch, pos);
    let even = b.add(even, head);
    let one = b.index(1);
    let odd = b.add(even, one);
    (even, odd)
}
