//! Copies between strided memory and dense tiles.

use super::matrix::Stored;

/// `dst[r·ld_dst + c] = src[c·ld_src + r]` for `rows × cols` elements of `dst`.
pub(super) type Transpose = unsafe fn(*mut u32, usize, *const u32, usize, usize, usize);

/// A transposition without vector instructions.
///
/// # Safety
/// Both arrays are valid for the sizes and disjoint.
pub(super) unsafe fn transpose_plain(
    dst: *mut u32,
    ld_dst: usize,
    src: *const u32,
    ld_src: usize,
    rows: usize,
    cols: usize,
) {
    for c in 0..cols {
        for r in 0..rows {
            // SAFETY: within the sizes.
            unsafe { *dst.add(r * ld_dst + c) = *src.add(c * ld_src + r) };
        }
    }
}

/// A transposition by 8×8 blocks in ymm registers.
///
/// # Safety
/// AVX2 is available; both arrays are valid for the sizes and disjoint.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose_avx2(
    dst: *mut u32,
    ld_dst: usize,
    src: *const u32,
    ld_src: usize,
    rows: usize,
    cols: usize,
) {
    use std::arch::x86_64::*;
    let (whole_rows, whole_cols) = (rows & !7, cols & !7);
    for c in (0..whole_cols).step_by(8) {
        for r in (0..whole_rows).step_by(8) {
            // SAFETY: the 8×8 block lies within both arrays.
            unsafe {
                let from = |i: usize| _mm256_loadu_ps(src.add((c + i) * ld_src + r).cast());
                let x: [__m256; 8] = std::array::from_fn(from);
                let low = |i: usize| _mm256_unpacklo_ps(x[i], x[i + 1]);
                let high = |i: usize| _mm256_unpackhi_ps(x[i], x[i + 1]);
                let (a0, a1, a2, a3) = (low(0), low(2), low(4), low(6));
                let (b0, b1, b2, b3) = (high(0), high(2), high(4), high(6));
                let pair =
                    |x: __m256, y: __m256| (_mm256_shuffle_ps::<0x44>(x, y), _mm256_shuffle_ps::<0xee>(x, y));
                let ((p0, p1), (p2, p3)) = (pair(a0, a1), pair(b0, b1));
                let ((q0, q1), (q2, q3)) = (pair(a2, a3), pair(b2, b3));
                for (i, (p, q)) in [(p0, q0), (p1, q1), (p2, q2), (p3, q3)].into_iter().enumerate() {
                    let upper = _mm256_permute2f128_ps::<0x20>(p, q);
                    let lower = _mm256_permute2f128_ps::<0x31>(p, q);
                    _mm256_storeu_ps(dst.add((r + i) * ld_dst + c).cast(), upper);
                    _mm256_storeu_ps(dst.add((r + i + 4) * ld_dst + c).cast(), lower);
                }
            }
        }
    }
    // SAFETY: the rest of the same arrays: rows below the blocks, then columns beside them.
    unsafe {
        let below = (dst.add(whole_rows * ld_dst), src.add(whole_rows));
        transpose_plain(below.0, ld_dst, below.1, ld_src, rows - whole_rows, cols);
        let beside = (dst.add(whole_cols), src.add(whole_cols * ld_src));
        transpose_plain(beside.0, ld_dst, beside.1, ld_src, whole_rows, cols - whole_cols);
    }
}

/// Copies `n` elements. Rows are short: a call of the C library for each would take longer than its work.
///
/// # Safety
/// Both arrays are valid for `n` elements and disjoint.
#[inline(always)]
unsafe fn copy_row(dst: *mut u32, src: *const u32, n: usize) {
    type Line = [u32; 16];
    let whole = n & !15;
    // SAFETY: all indices are below n.
    unsafe {
        for j in (0..whole).step_by(16) {
            dst.add(j).cast::<Line>().write_unaligned(src.add(j).cast::<Line>().read_unaligned());
        }
        if whole < n {
            std::ptr::copy_nonoverlapping(src.add(whole), dst.add(whole), n - whole);
        }
    }
}

/// A strided `[rows, cols]` array to the beginnings of dense rows of `width`.
///
/// # Safety
/// Both arrays are valid for the sizes and disjoint.
#[inline(always)]
pub(super) unsafe fn gather(
    dst: *mut u32,
    src: *const u32,
    [rows, cols, width]: [usize; 3],
    [rs, cs]: [i64; 2],
    transpose: Transpose,
) {
    // SAFETY: the caller promises that both arrays are valid for the sizes.
    unsafe {
        if cs == 1 && rs == width as i64 && cols == width {
            std::ptr::copy_nonoverlapping(src, dst, rows * cols);
        } else if cs == 1 || cols == 1 {
            for i in 0..rows {
                copy_row(dst.add(i * width), src.offset(i as isize * rs as isize), cols);
            }
        } else if rs == 1 && cs > 0 {
            transpose(dst, width, src, cs as usize, rows, cols);
        } else if cs == 2 {
            // Even or odd elements: a shape that the compiler vectorises.
            for i in 0..rows {
                let from = src.offset(i as isize * rs as isize);
                for j in 0..cols {
                    *dst.add(i * width + j) = *from.add(2 * j);
                }
            }
        } else {
            for i in 0..rows {
                let from = src.offset(i as isize * rs as isize);
                for j in 0..cols {
                    *dst.add(i * width + j) = *from.offset(j as isize * cs as isize);
                }
            }
        }
    }
}

/// Arguments of loads and stores.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) shape: [i64; 2],
    pub(super) strides: [i64; 2],
    pub(super) bounds: [i64; 2],
}

impl View {
    /// Rows and columns within the bounds, and the width of the dense tile.
    fn inside(&self) -> [usize; 3] {
        let [rows, cols] = [0, 1].map(|k| self.bounds[k].clamp(0, self.shape[k]) as usize);
        let width = self.shape[1] as usize;
        if rows == 0 || cols == 0 { [0, 0, width] } else { [rows, cols, width] }
    }

    /// Zeros in the dense tile what is beyond the bounds.
    #[inline(always)]
    unsafe fn zero_outside(&self, dst: *mut u32) {
        let [rows, cols, width] = self.inside();
        let all = self.shape[0] as usize;
        // SAFETY: the caller promises a dense tile of the shape.
        unsafe {
            if cols < width {
                for i in 0..rows {
                    std::ptr::write_bytes(dst.add(i * width + cols), 0, width - cols);
                }
            }
            std::ptr::write_bytes(dst.add(rows * width), 0, (all - rows) * width);
        }
    }
}

/// Memory to a dense tile, 4-byte elements.
///
/// # Safety
/// `dst` is valid for the shape, `src` within the bounds; they are disjoint.
#[inline(always)]
pub(super) unsafe fn load_32(dst: *mut u32, src: *const u32, view: &View, transpose: Transpose) {
    // SAFETY: forwarded from the caller.
    unsafe {
        gather(dst, src, view.inside(), view.strides, transpose);
        view.zero_outside(dst);
    }
}

/// Memory of a narrow type to a dense tile of f32.
///
/// # Safety
/// As [`load_32`].
#[inline(always)]
pub(super) unsafe fn load_narrow<E: Stored>(dst: *mut u32, src: *const E, view: &View) {
    let [rows, cols, width] = view.inside();
    let [rs, cs] = view.strides;
    // SAFETY: within the bounds.
    unsafe {
        for i in 0..rows {
            let from = src.offset(i as isize * rs as isize);
            let to = dst.add(i * width);
            if cs == 1 {
                for j in 0..cols {
                    *to.add(j) = (*from.add(j)).wide().to_bits();
                }
            } else {
                for j in 0..cols {
                    *to.add(j) = (*from.offset(j as isize * cs as isize)).wide().to_bits();
                }
            }
        }
        view.zero_outside(dst);
    }
}

/// A dense tile to memory, 4-byte elements.
///
/// # Safety
/// `src` is valid for the shape, `dst` within the bounds; they are disjoint.
#[inline(always)]
pub(super) unsafe fn store_32(dst: *mut u32, src: *const u32, view: &View) {
    let [rows, cols, width] = view.inside();
    let [rs, cs] = view.strides;
    // SAFETY: within the bounds.
    unsafe {
        for i in 0..rows {
            let to = dst.offset(i as isize * rs as isize);
            let from = src.add(i * width);
            if cs == 1 {
                copy_row(to, from, cols);
            } else if cs == 2 {
                // Even or odd elements: a constant distance spares an address computation each.
                for j in 0..cols {
                    *to.add(2 * j) = *from.add(j);
                }
            } else {
                for j in 0..cols {
                    *to.offset(j as isize * cs as isize) = *from.add(j);
                }
            }
        }
    }
}

/// A dense tile of f32 with the precision of a narrow type to memory of that type.
///
/// # Safety
/// As [`store_32`].
#[inline(always)]
pub(super) unsafe fn store_narrow<E: Stored>(dst: *mut E, src: *const u32, view: &View) {
    let [rows, cols, width] = view.inside();
    let [rs, cs] = view.strides;
    // SAFETY: within the bounds.
    unsafe {
        for i in 0..rows {
            let to = dst.offset(i as isize * rs as isize);
            let from = src.add(i * width);
            if cs == 1 {
                for j in 0..cols {
                    *to.add(j) = E::exact(f32::from_bits(*from.add(j)));
                }
            } else {
                for j in 0..cols {
                    *to.offset(j as isize * cs as isize) = E::exact(f32::from_bits(*from.add(j)));
                }
            }
        }
    }
}
