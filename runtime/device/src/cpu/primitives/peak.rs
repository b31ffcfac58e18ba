//! Multiply-adds in registers alone, to measure what a core could do at most.

use super::lanes::Lanes;

/// Runs `rounds` rounds of one multiply-add on each of `CHAINS` vectors, which must be enough to hide its latency and few
/// enough for the registers; returns the number of floating-point operations and a value that depends on all of them.
///
/// # Safety
/// The instruction set of `L` is available.
#[inline(always)]
pub(super) unsafe fn multiply_adds<L: Lanes, const CHAINS: usize>(rounds: usize) -> (u64, f32) {
    // SAFETY: forwarded from the caller.
    unsafe {
        let (a, b) = (L::splat(std::hint::black_box(0.999_9)), L::splat(std::hint::black_box(1e-4)));
        let mut chains = [L::splat(1.0); CHAINS];
        for _ in 0..rounds {
            for c in &mut chains {
                *c = c.fma(a, b);
            }
        }
        let value = chains.into_iter().map(|c| c.sum()).sum();
        ((rounds * CHAINS * L::N * 2) as u64, value)
    }
}

/// As [`multiply_adds`], of pairs of bfloat16: two multiply-adds a lane.
///
/// # Safety
/// AVX-512-BF16 is available.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn pairs(rounds: usize) -> (u64, f32) {
    use super::avx512::Zmm;
    const CHAINS: usize = 12;
    // SAFETY: forwarded from the caller; the array has a vector's pairs.
    unsafe {
        // 1 and 2^-8, as often as there are lanes.
        let (left, right) = (std::hint::black_box(0x3f80_3f80), std::hint::black_box([0x3b80_3b80u32; 16]));
        let mut chains = [Zmm::splat(1.0); CHAINS];
        for _ in 0..rounds {
            for c in &mut chains {
                *c = c.add_pairs(left, right.as_ptr());
            }
        }
        let value = chains.into_iter().map(|c| c.sum()).sum();
        ((rounds * CHAINS * Zmm::N * 4) as u64, value)
    }
}
