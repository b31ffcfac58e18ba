//! `c = a·b (+ c)` of tiles that fit the second-level cache: a micro-kernel of rows × vectors in registers,
//! which reads the operands where they are.
//!
//! The left operand is read one element at a time, so either order of its elements will do. The right operand must have
//! contiguous rows; if it has not, or if its rows are so far apart that they compete for the same cache sets, it is
//! packed first.

use super::lanes::Lanes;
use super::transfer::{Transpose, gather};

/// One block of rows against one panel of columns.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) k: usize,
    pub(super) a: *const f32,
    /// Distance of rows if `a`'s rows are contiguous, of columns if its columns are.
    pub(super) lda: usize,
    pub(super) b: *const f32,
    pub(super) ldb: usize,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    /// Lanes of the last vector that exist.
    pub(super) last: usize,
    pub(super) accumulate: bool,
}

/// An instruction set's register blocks.
pub(super) trait Dot: Lanes {
    /// Vectors of the widest panel: 2 or 4.
    const WIDE: usize;

    /// `MR` rows times `NV` vectors; `ROWS` if `a`'s rows are contiguous; `PART` if the last vector is not full.
    ///
    /// # Safety
    /// The instruction set is available; the block's pointers are valid for its sizes.
    unsafe fn block<const MR: usize, const NV: usize, const ROWS: bool, const PART: bool>(block: &Block);
}

/// The body of [`Dot::block`].
#[inline(always)]
pub(super) unsafe fn block<L: Lanes, const MR: usize, const NV: usize, const ROWS: bool, const PART: bool>(
    t: &Block,
) {
    let last = |v: usize| PART && v + 1 == NV;
    // SAFETY: the caller promises MR rows, NV vectors (the last with `last` lanes) and k steps of valid elements.
    unsafe {
        let mut acc = [[L::splat(0.0); NV]; MR];
        if t.accumulate {
            for (i, row) in acc.iter_mut().enumerate() {
                for (v, acc) in row.iter_mut().enumerate() {
                    let at = t.c.add(i * t.ldc + v * L::N);
                    *acc = if last(v) { L::load_part(at, t.last) } else { L::load(at) };
                }
            }
        }
        let mut b = t.b;
        let mut a = t.a;
        for _ in 0..t.k {
            let mut right = [L::splat(0.0); NV];
            for (v, right) in right.iter_mut().enumerate() {
                let at = b.add(v * L::N);
                *right = if last(v) { L::load_part(at, t.last) } else { L::load(at) };
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let left = L::splat(*if ROWS { a.add(i * t.lda) } else { a.add(i) });
                for (acc, right) in row.iter_mut().zip(right) {
                    *acc = left.fma(right, *acc);
                }
            }
            a = if ROWS { a.add(1) } else { a.add(t.lda) };
            b = b.add(t.ldb);
        }
        for (i, row) in acc.into_iter().enumerate() {
            for (v, acc) in row.into_iter().enumerate() {
                let at = t.c.add(i * t.ldc + v * L::N);
                if last(v) { acc.store_part(at, t.last) } else { acc.store(at) }
            }
        }
    }
}

/// Products of all `m` rows of a with the `NV` vectors of columns of one panel of b.
unsafe fn panel<D: Dot, const NV: usize, const ROWS: bool, const PART: bool>(m: usize, mut t: Block) {
    let step = if ROWS { t.lda } else { 1 };
    let mut i = 0;
    let mut advance = |t: &mut Block, rows: usize| {
        i += rows;
        // SAFETY: at most one past the last row.
        unsafe {
            t.a = t.a.add(rows * step);
            t.c = t.c.add(rows * t.ldc);
        }
        i
    };
    let mut done = 0;
    // SAFETY: `done + rows <= m` before each block.
    unsafe {
        while done + 6 <= m {
            D::block::<6, NV, ROWS, PART>(&t);
            done = advance(&mut t, 6);
        }
        if done + 4 <= m {
            D::block::<4, NV, ROWS, PART>(&t);
            done = advance(&mut t, 4);
        }
        if done + 2 <= m {
            D::block::<2, NV, ROWS, PART>(&t);
            done = advance(&mut t, 2);
        }
        if done < m {
            D::block::<1, NV, ROWS, PART>(&t);
        }
    }
}

/// Cuts the `n` columns into panels as wide as registers allow, widest first.
unsafe fn panels<D: Dot, const ROWS: bool>(m: usize, n: usize, whole: Block) {
    let mut j = 0;
    // SAFETY: column j and the panel's width are within n.
    unsafe {
        let at = |j: usize| Block { b: whole.b.add(j), c: whole.c.add(j), ..whole };
        if D::WIDE >= 4 {
            while j + 4 * D::N <= n {
                panel::<D, 4, ROWS, false>(m, at(j));
                j += 4 * D::N;
            }
        }
        while j + 2 * D::N <= n {
            panel::<D, 2, ROWS, false>(m, at(j));
            j += 2 * D::N;
        }
        if j + D::N <= n {
            panel::<D, 1, ROWS, false>(m, at(j));
            j += D::N;
        }
        if j < n {
            panel::<D, 1, ROWS, true>(m, Block { last: n - j, ..at(j) });
        }
    }
}

/// Rows this far apart, in elements, fall into few cache sets.
const FAR: usize = 256;

/// Arguments of the primitive.
pub(super) struct Operands {
    pub(super) sizes: [i64; 3],
    pub(super) a: *const f32,
    pub(super) a_strides: [i64; 2],
    pub(super) b: *const f32,
    pub(super) b_strides: [i64; 2],
    pub(super) c: *mut f32,
    pub(super) accumulate: bool,
    pub(super) pack: *mut f32,
}

/// The whole product.
///
/// # Safety
/// The instruction set of `D` is available; the operands are valid for their sizes and strides; `c` is dense and
/// disjoint from both; `pack` has `Primitive::dot_pack_bytes`.
pub(super) unsafe fn dot<D: Dot>(o: &Operands, transpose: Transpose) {
    let [m, n, k] = o.sizes.map(|s| s as usize);
    let [b_rs, b_cs] = o.b_strides;
    let [a_rs, a_cs] = o.a_strides;
    let mut pack = o.pack;
    // SAFETY: packed operands need k·n and k·m elements of `pack`, which has room for both.
    unsafe {
        let reused = m > 12;
        let (b, ldb) = if (b_cs == 1 || n == 1) && b_rs > 0 && (b_rs < FAR as i64 || !reused) {
            (o.b, b_rs as usize)
        } else {
            let to = pack;
            pack = pack.add((k * n).next_multiple_of(16));
            gather(to.cast(), o.b.cast(), [k, n, n], [b_rs, b_cs], transpose);
            (to.cast_const(), n)
        };
        let whole = Block { k, a: o.a, lda: 0, b, ldb, c: o.c, ldc: n, last: 0, accumulate: o.accumulate };
        if (a_cs == 1 || k == 1) && a_rs >= 0 {
            panels::<D, true>(m, n, Block { lda: a_rs as usize, ..whole });
        } else if (a_rs == 1 || m == 1) && a_cs >= 0 && (a_cs < FAR as i64 || m <= 12) {
            panels::<D, false>(m, n, Block { lda: a_cs as usize, ..whole });
        } else {
            // By columns, as `a` is contiguous in that direction or in none.
            gather(pack.cast(), o.a.cast(), [k, m, m], [a_cs, a_rs], transpose);
            panels::<D, false>(m, n, Block { a: pack, lda: m, ..whole });
        }
    }
}
