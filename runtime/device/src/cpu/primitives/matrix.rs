//! Matrices in memory, of f32, bf16 or f16. What a matmul reads is widened to f32 on the way, what it writes is rounded.

use super::lanes::Lanes;
use super::transfer::Transpose;

/// Element type in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Elem {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
}

impl Elem {
    /// Bytes of one element.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Elem::F32 => 4,
            Elem::Bf16 | Elem::F16 => 2,
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

    /// A number that is one of the type.
    fn exact(x: f32) -> Self;

    /// A vector of elements.
    ///
    /// # Safety
    /// The instruction set of `L` is available; `p` is valid for `L::N` reads.
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(p: *const Self) -> L {
        // SAFETY: forwarded from the caller.
        unsafe { Self::lanes_part(p, L::N) }
    }

    /// The first `n` elements of a vector, zeros behind them.
    ///
    /// # Safety
    /// As [`Stored::lanes`], but for `n` reads, at most `L::N`.
    #[inline(always)]
    unsafe fn lanes_part<L: Lanes>(p: *const Self, n: usize) -> L {
        let mut wide = [0f32; LONGEST];
        // SAFETY: the caller promises n readable elements, and the buffer has room for the most lanes there are.
        unsafe {
            for (i, wide) in wide.iter_mut().enumerate().take(n) {
                *wide = (*p.add(i)).wide();
            }
            L::load(wide.as_ptr())
        }
    }
}

/// Lanes of the longest vector.
const LONGEST: usize = 16;

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
    fn exact(x: f32) -> f32 {
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

/// Side of the blocks in which columns are widened before they are transposed.
const SIDE: usize = 32;

/// A strided array `[rows, cols]` to the beginnings of dense f32 rows of `width`.
///
/// # Safety
/// Both arrays are valid for the sizes and disjoint; `transpose` may be called.
pub(super) unsafe fn widen<E: Stored>(
    dst: *mut f32,
    src: *const E,
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
