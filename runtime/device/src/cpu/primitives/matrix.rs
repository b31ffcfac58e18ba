//! Matrices in memory, of f32 or bf16. What a matmul reads is widened to f32 on the way, what it writes is rounded.

use super::lanes::Lanes;
use super::transfer::Transpose;

/// Element type in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Elem {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
}

impl Elem {
    /// Bytes of one element.
    const fn bytes(self) -> usize {
        match self {
            Elem::F32 => 4,
            Elem::Bf16 => 2,
        }
    }
}

/// A strided matrix.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    /// First element.
    pub(crate) at: *mut u8,
    /// Distances of rows and of columns, in elements.
    pub(crate) strides: [usize; 2],
    pub(crate) elem: Elem,
}

impl Matrix {
    /// The matrix from row `i` and column `j` on.
    pub(crate) fn from(self, i: usize, j: usize) -> Matrix {
        let elements = i * self.strides[0] + j * self.strides[1];
        Matrix { at: self.at.wrapping_add(elements * self.elem.bytes()), ..self }
    }
}

/// A number as it is stored.
pub(super) trait Stored: Copy {
    /// The same number in f32.
    fn wide(self) -> f32;

    /// The nearest number, ties to even.
    fn nearest(x: f32) -> Self;

    /// A vector of elements.
    ///
    /// # Safety
    /// The instruction set of `L` is available; `p` is valid for `L::N` reads.
    unsafe fn lanes<L: Lanes>(p: *const Self) -> L;

    /// The first `n` elements of a vector, zeros behind them.
    ///
    /// # Safety
    /// As [`Stored::lanes`], but for `n` reads, fewer than `L::N`.
    unsafe fn lanes_part<L: Lanes>(p: *const Self, n: usize) -> L;
}

impl Stored for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    unsafe fn lanes<L: Lanes>(p: *const f32) -> L {
        // SAFETY: forwarded from the caller.
        unsafe { L::load(p) }
    }

    #[inline(always)]
    unsafe fn lanes_part<L: Lanes>(p: *const f32, n: usize) -> L {
        // SAFETY: forwarded from the caller.
        unsafe { L::load_part(p, n) }
    }
}

/// Lanes of the longest vector.
const LONGEST: usize = 16;

/// The bits of a bfloat16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Bf16(u16);

impl Stored for Bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn nearest(x: f32) -> Bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // Rounding could carry the bits of a NaN over into those of an infinity.
        Bf16(if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { (rounded >> 16) as u16 })
    }

    #[inline(always)]
    unsafe fn lanes<L: Lanes>(p: *const Bf16) -> L {
        let mut wide = [0f32; LONGEST];
        // SAFETY: the caller promises L::N readable elements, of which the buffer has room for the most there are.
        unsafe {
            for (i, wide) in wide.iter_mut().enumerate().take(L::N) {
                *wide = (*p.add(i)).wide();
            }
            L::load(wide.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn lanes_part<L: Lanes>(p: *const Bf16, n: usize) -> L {
        let mut wide = [0f32; LONGEST];
        // SAFETY: the caller promises n readable elements.
        unsafe {
            for (i, wide) in wide.iter_mut().enumerate().take(n) {
                *wide = (*p.add(i)).wide();
            }
            L::load(wide.as_ptr())
        }
    }
}

/// Side of the blocks in which columns are widened before they are transposed.
const SIDE: usize = 32;

/// A strided array `[rows, cols]` to the beginnings of dense f32 rows of `width`.
///
/// # Safety
/// Both arrays are valid for the sizes and disjoint; `transpose` may be called.
pub(super) unsafe fn widen(
    dst: *mut f32,
    src: *const Bf16,
    [rows, cols, width]: [usize; 3],
    [rs, cs]: [usize; 2],
    transpose: Transpose,
) {
    // SAFETY: indices are below the sizes; a block has SIDE rows of SIDE elements.
    unsafe {
        if rs == 1 && cs != 1 {
            let mut block = [0f32; SIDE * SIDE];
            for i in (0..rows).step_by(SIDE) {
                for j in (0..cols).step_by(SIDE) {
                    let (height, breadth) = ((rows - i).min(SIDE), (cols - j).min(SIDE));
                    for c in 0..breadth {
                        let from = src.add(i + (j + c) * cs);
                        for r in 0..height {
                            block[c * SIDE + r] = (*from.add(r)).wide();
                        }
                    }
                    let to = dst.add(i * width + j).cast();
                    transpose(to, width, block.as_ptr().cast(), SIDE, height, breadth);
                }
            }
            return;
        }
        for i in 0..rows {
            let (from, to) = (src.add(i * rs), dst.add(i * width));
            if cs == 1 {
                for j in 0..cols {
                    *to.add(j) = (*from.add(j)).wide();
                }
            } else {
                for j in 0..cols {
                    *to.add(j) = (*from.add(j * cs)).wide();
                }
            }
        }
    }
}

/// Dense f32 rows of `width` to a strided array `[rows, cols]`; adds to what is there if `accumulate`.
///
/// # Safety
/// Both arrays are valid for the sizes and disjoint, and the array's elements are of type `E`.
pub(super) unsafe fn store<E: Stored>(
    to: Matrix,
    src: *const f32,
    [rows, cols, width]: [usize; 3],
    accumulate: bool,
) {
    let [rs, cs] = to.strides;
    for i in 0..rows {
        for j in 0..cols {
            // SAFETY: indices are below the sizes.
            unsafe {
                let to = to.at.cast::<E>().add(i * rs + j * cs);
                let x = *src.add(i * width + j);
                *to = E::nearest(if accumulate { (*to).wide() + x } else { x });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_even_and_keeps_nan() {
        let nearest = |x: f32| Bf16::nearest(x).wide();
        assert_eq!(nearest(1.0 + 2f32.powi(-8)), 1.0);
        assert_eq!(nearest(1.0 + 3.0 * 2f32.powi(-8)), 1.0 + 2f32.powi(-6));
        assert_eq!(nearest(1.0 + 2f32.powi(-8) + 2f32.powi(-20)), 1.0 + 2f32.powi(-7));
        assert_eq!(nearest(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(nearest(f32::MAX), f32::INFINITY);
        assert_eq!(nearest(f32::NEG_INFINITY), f32::NEG_INFINITY);
        for bits in [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff] {
            assert!(nearest(f32::from_bits(bits)).is_nan());
        }
    }
}
