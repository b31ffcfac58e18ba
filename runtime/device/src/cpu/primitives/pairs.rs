//! AVX-512-BF16: products of bfloat16 by pairs, everything else as without them.

use super::avx512::Zmm;
use super::matrix::Elem;
use super::paired::{self, Block, Pairs};
use super::{matmul, peak, transfer, widest};

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn block<const M: usize, const NV: usize, const ROWS: bool>(t: &Block) {
    // SAFETY: the caller keeps the promises of `Pairs::block`.
    unsafe { paired::block::<Zmm, M, NV, ROWS>(t) };
}

impl Pairs for Zmm {
    #[inline(always)]
    unsafe fn add_products(self, left: u32, right: *const u32) -> Zmm {
        // SAFETY: the caller promises the instruction set and a vector of pairs.
        unsafe { self.add_pairs(left, right) }
    }

    #[inline(always)]
    unsafe fn block<const M: usize, const NV: usize, const ROWS: bool>(t: &Block) {
        // SAFETY: the caller promises the instruction set and valid pointers.
        unsafe { block::<M, NV, ROWS>(t) };
    }
}

unsafe fn pack(right: &matmul::Right, p: usize, from: usize, to: usize) {
    // SAFETY: forwarded from the caller.
    unsafe {
        match right.b.elem {
            Elem::Bf16 => paired::pack::<Zmm>(right, p, from, to, transfer::transpose_avx2),
            Elem::F32 | Elem::F16 => (widest::MATMUL.pack)(right, p, from, to),
        }
    }
}

unsafe fn part(part: &matmul::Part, scratch: *mut f32) {
    // SAFETY: forwarded from the caller.
    unsafe {
        match part.a.elem {
            Elem::Bf16 => paired::part::<Zmm>(part, scratch, transfer::transpose_avx2),
            Elem::F32 | Elem::F16 => (widest::MATMUL.part)(part, scratch),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply_adds(rounds: usize) -> (u64, f32) {
    // SAFETY: forwarded from the caller.
    unsafe { peak::pairs(rounds) }
}

pub(super) const MATMUL: super::Matmul = super::Matmul { pack, part, ..widest::MATMUL };
