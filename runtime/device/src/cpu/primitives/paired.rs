//! Matmuls of bfloat16 by pairs: one instruction multiplies two neighbours along the inner dimension by two others and adds
//! both products to a sum in f32, which is twice the work of a multiply-add, without widening anything.
//!
//! Panels and packed rows hold pairs, the earlier element in the low half. Rows of the left operand that are contiguous are
//! read where they are. A last element without a neighbour is paired with 0.

use super::lanes::Lanes;
use super::matmul::{DEPTH, HEIGHT, MR, PANEL, Part, Right, Turn, UNIT, in_sums};
use super::matrix::Matrix;
use super::transfer::{Transpose, gather};

/// Lanes with such an instruction.
pub(super) trait Pairs: Lanes {
    /// Adds to each lane the products of the pair `left` and the lane's pair at `right`.
    ///
    /// # Safety
    /// The instruction set is available; `right` is valid for `N` pairs.
    unsafe fn add_products(self, left: u32, right: *const u32) -> Self;

    /// `MR` rows times `NV` vectors of sums.
    ///
    /// # Safety
    /// The instruction set is available; the block's pointers are valid for its sizes.
    unsafe fn block<const M: usize, const NV: usize, const ROWS: bool>(block: &Block);
}

/// A block of rows against one panel, whose sums have `PANEL` vectors of columns each.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Steps of the inner dimension.
    depth: usize,
    /// Contiguous rows of bfloat16, or packed pairs.
    a: *const u16,
    /// Distance of rows in elements.
    lda: usize,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
}

/// The body of [`Pairs::block`]; `ROWS` if rows of `a` are contiguous, else they are packed, [`MR`] pairs of each two steps
/// together.
#[inline(always)]
pub(super) unsafe fn block<L: Pairs, const M: usize, const NV: usize, const ROWS: bool>(t: &Block) {
    // SAFETY: the caller promises M rows and NV vectors of valid elements.
    unsafe {
        let mut sums = [[L::splat(0.0); NV]; M];
        if t.accumulate {
            for (i, row) in sums.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = L::load(t.c.add(i * t.ldc + v * L::N));
                }
            }
        }
        let right = |p: usize| t.b.add(p * PANEL * L::N);
        let whole = if ROWS { t.depth / 2 } else { t.depth.div_ceil(2) };
        for p in 0..whole {
            if ROWS {
                let left = |i| t.a.add(i * t.lda + 2 * p).cast::<u32>().read_unaligned();
                step(&mut sums, left, right(p));
            } else {
                step(&mut sums, |i| *t.a.cast::<u32>().add(p * MR + i), right(p));
            }
        }
        if ROWS && t.depth % 2 == 1 {
            step(&mut sums, |i| u32::from(*t.a.add(i * t.lda + 2 * whole)), right(whole));
        }
        for (i, row) in sums.into_iter().enumerate() {
            for (v, sum) in row.into_iter().enumerate() {
                sum.store(t.c.add(i * t.ldc + v * L::N));
            }
        }
    }
}

/// Adds the products of a pair of each row with a row of pairs.
#[inline(always)]
unsafe fn step<L: Pairs, const M: usize, const NV: usize>(
    sums: &mut [[L; NV]; M],
    left: impl Fn(usize) -> u32,
    right: *const u32,
) {
    for (i, row) in sums.iter_mut().enumerate() {
        let left = left(i);
        for (v, sum) in row.iter_mut().enumerate() {
            // SAFETY: the caller promises NV vectors of pairs.
            *sum = unsafe { sum.add_products(left, right.add(v * L::N)) };
        }
    }
}

/// First pair of the panels of the pass that begins at step `p`, from column `j` on.
unsafe fn panels(right: &Right, p: usize, j: usize) -> *mut u32 {
    let depth = (right.k - p).min(DEPTH);
    let pairs = p / 2 * right.n.next_multiple_of(UNIT) + j * depth.div_ceil(2);
    // SAFETY: p is below k, and j at most n; pairs take no more room than elements in f32.
    unsafe { right.panels.cast::<u32>().add(pairs) }
}

/// Packs columns `from..to` of the pass that begins at step `p`; columns of a panel behind `to` are 0.
///
/// # Safety
/// As [`super::matmul::pack`]; the operand is bfloat16, and vectors are those of `L`.
pub(super) unsafe fn pack<L: Lanes>(right: &Right, p: usize, from: usize, to: usize, transpose: Transpose) {
    let wide = PANEL * L::N;
    let depth = (right.k - p).min(DEPTH);
    for j in (from..to).step_by(wide) {
        let cols = (to - j).min(wide);
        // SAFETY: column j and step p exist, and a panel has `wide` columns.
        unsafe {
            let panel = panels(right, p, j);
            let source = right.b.from(p, j);
            if cols < wide {
                panel.write_bytes(0, depth.div_ceil(2) * wide);
            }
            join(panel, wide, source, [depth, cols], transpose);
        }
    }
}

/// Neighbouring rows of `source` as rows of pairs, `width` apart.
unsafe fn join(to: *mut u32, width: usize, source: Matrix, [rows, cols]: [usize; 2], transpose: Transpose) {
    let [rs, cs] = source.strides;
    let from = source.at.cast::<u16>().cast_const();
    let whole = rows / 2;
    // SAFETY: the caller promises rows and columns; a view of pairs is taken only where they are aligned as such.
    unsafe {
        if rs == 1 && cs.is_multiple_of(2) && (from as usize).is_multiple_of(4) {
            gather(to, from.cast(), [whole, cols, width], [1, (cs / 2) as i64], transpose);
        } else {
            for p in 0..whole {
                let (low, high) = (from.add(2 * p * rs), from.add((2 * p + 1) * rs));
                let to = to.add(p * width);
                if cs == 1 {
                    for j in 0..cols {
                        *to.add(j) = u32::from(*low.add(j)) | u32::from(*high.add(j)) << 16;
                    }
                } else {
                    for j in 0..cols {
                        *to.add(j) = u32::from(*low.add(j * cs)) | u32::from(*high.add(j * cs)) << 16;
                    }
                }
            }
        }
        if rows % 2 == 1 {
            for j in 0..cols {
                *to.add(whole * width + j) = u32::from(*from.add((rows - 1) * rs + j * cs));
            }
        }
    }
}

/// Blocks of [`MR`] rows of the left operand, the pairs of each two steps together.
unsafe fn pack_rows(to: *mut u32, a: Matrix, rows: usize, depth: usize, transpose: Transpose) {
    let pairs = depth.div_ceil(2);
    for i in (0..rows).step_by(MR) {
        let turned = a.from(i, 0);
        let turned = Matrix { strides: [turned.strides[1], turned.strides[0]], ..turned };
        // SAFETY: `to` has room for whole blocks, and row i exists.
        unsafe { join(to.add(i * pairs), MR, turned, [depth, (rows - i).min(MR)], transpose) };
    }
}

/// The part.
///
/// # Safety
/// As [`super::matmul::part`]; operands are bfloat16, and the panels were packed by [`pack`] for the same vectors.
pub(super) unsafe fn part<L: Pairs>(part: &Part, scratch: *mut f32, transpose: Transpose) {
    // SAFETY: forwarded from the caller; a packed block takes less than DEPTH·HEIGHT elements.
    unsafe {
        in_sums(part, scratch, UNIT, |Turn { p, depth, i, height, sums, distance, accumulate }| {
            let a = part.a.from(i, p);
            let is_in_place = a.strides[1] == 1;
            if !is_in_place {
                pack_rows(scratch.cast(), a, height, depth, transpose);
            }
            let wide = PANEL * L::N;
            for j in (0..part.n).step_by(wide) {
                let b = panels(&part.right, p, part.col + j).cast_const();
                for row in (0..height).step_by(MR) {
                    let at = if is_in_place {
                        a.from(row, 0).at.cast::<u16>().cast_const()
                    } else {
                        scratch.cast::<u32>().add(row * depth.div_ceil(2)).cast::<u16>().cast_const()
                    };
                    let c = sums.add(row * distance + j);
                    let block = Block { depth, a: at, lda: a.strides[0], b, c, ldc: distance, accumulate };
                    let is_narrow = part.n - j <= L::N;
                    match is_in_place {
                        true => rows::<L, true>(&block, height - row, is_narrow),
                        false => rows::<L, false>(&block, height - row, is_narrow),
                    }
                }
            }
        });
    }
}

/// As many rows as are left, of one vector or a whole panel.
unsafe fn rows<L: Pairs, const ROWS: bool>(block: &Block, left: usize, is_narrow: bool) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match left {
                $($rows if is_narrow => L::block::<$rows, 1, ROWS>(block),
                $rows => L::block::<$rows, PANEL, ROWS>(block),)*
                _ if is_narrow => L::block::<MR, 1, ROWS>(block),
                _ => L::block::<MR, PANEL, ROWS>(block),
            }
        };
    }
    const { assert!(MR == 6 && HEIGHT.is_multiple_of(MR)) };
    // SAFETY: the block has as many rows and vectors.
    unsafe { of!(1 2 3 4 5) }
}

#[cfg(test)]
mod tests {
    use super::super::matmul::{PACK_BYTES, SUMS_BYTES};
    use super::super::matrix::Elem;
    use super::super::portable::Plain;
    use super::super::transfer::transpose_plain;
    use super::super::{Level, Matmul};
    use super::*;

    /// What the instruction does, one lane after the other.
    impl Pairs for Plain {
        unsafe fn add_products(self, left: u32, right: *const u32) -> Plain {
            let half = |pair: u32, shift: u32| f32::from_bits(pair << shift & 0xffff_0000);
            // SAFETY: the caller promises N pairs.
            unsafe {
                let mut sums = [0f32; Plain::N];
                self.store(sums.as_mut_ptr());
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let right = *right.add(lane);
                    *sum += half(left, 0) * half(right, 0) + half(left, 16) * half(right, 16);
                }
                Plain::load(sums.as_ptr())
            }
        }

        unsafe fn block<const M: usize, const NV: usize, const ROWS: bool>(t: &Block) {
            // SAFETY: forwarded from the caller.
            unsafe { block::<Plain, M, NV, ROWS>(t) };
        }
    }

    const PORTABLE: Matmul = Matmul {
        // SAFETY: forwarded from the caller.
        pack: |right, p, from, to| unsafe { pack::<Plain>(right, p, from, to, transpose_plain) },
        // SAFETY: forwarded from the caller.
        part: |of, scratch| unsafe { part::<Plain>(of, scratch, transpose_plain) },
        thin: |_| unreachable!("no thin product is made"),
    };

    /// Numbers of few bits, so that their products and sums are exact in f32.
    fn numbers(count: usize, seed: u32) -> Vec<u16> {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((x >> 24) as f32 - 128.0) / 16.0
        };
        (0..count).map(|_| (next().to_bits() >> 16) as u16).collect()
    }

    fn wide(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    fn product(matmul: Matmul, [m, n, k]: [usize; 3], left_rows: bool, right_rows: bool, narrow: bool) {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let stored = |data: &[u16], elem, strides| Matrix { at: data.as_ptr() as *mut u8, strides, elem };
        let left = stored(&a, Elem::Bf16, if left_rows { [k, 1] } else { [1, m] });
        let b_strides = if right_rows { [n, 1] } else { [1, k] };
        let mut panels = vec![0f32; k * n.next_multiple_of(UNIT)];
        let mut scratch = vec![0f32; (PACK_BYTES + SUMS_BYTES) / 4];
        let right = Right { k, n, b: stored(&b, Elem::Bf16, b_strides), panels: panels.as_mut_ptr() };
        let (mut sums, mut rounded) = (vec![0f32; m * n], vec![0u16; m * n]);
        let c = match narrow {
            true => Matrix { at: rounded.as_mut_ptr().cast(), strides: [n, 1], elem: Elem::Bf16 },
            false => Matrix { at: sums.as_mut_ptr().cast(), strides: [n, 1], elem: Elem::F32 },
        };
        let of = Part { right, col: 0, n, m, a: left, c, accumulate: false };
        // SAFETY: all arrays have the sizes, and the level is available.
        unsafe {
            for p in (0..k).step_by(DEPTH) {
                (matmul.pack)(&right, p, 0, n);
            }
            (matmul.part)(&of, scratch.as_mut_ptr());
        }
        for i in 0..m {
            for j in 0..n {
                let element = |p: usize| {
                    let [rs, cs] = left.strides;
                    wide(a[i * rs + p * cs]) * wide(b[p * b_strides[0] + j * b_strides[1]])
                };
                let exact: f32 = (0..k).map(element).sum();
                let case = format!("{m}x{n}x{k} {left_rows} {right_rows} at {i}, {j}");
                if narrow {
                    let nearest = f32::from(half::bf16::from_f32(exact));
                    assert_eq!(wide(rounded[i * n + j]), nearest, "{case}");
                } else {
                    assert_eq!(sums[i * n + j], exact, "{case}");
                }
            }
        }
    }

    #[test]
    fn products_are_exact_where_f32_is() {
        let mut ways = vec![PORTABLE];
        if Level::available().contains(&Level::Avx512Bf16) {
            ways.push(Level::Avx512Bf16.matmul());
        }
        for matmul in ways {
            for sizes in [[1, 1, 1], [7, 33, 5], [13, 31, 300], [100, 70, 64], [6, 32, 257]] {
                for [left, right, narrow] in
                    [[true; 3], [false, true, false], [true, false, false], [false; 3]]
                {
                    product(matmul, sizes, left, right, narrow);
                }
            }
        }
    }
}
