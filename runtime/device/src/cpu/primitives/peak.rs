//! Register-only multiply-adds, to measure what the machine could do at most.

use super::Level;

/// Independent accumulators: enough to hide the latency of a multiply-add.
const CHAINS: usize = 12;

/// Runs `rounds` rounds; returns the number of floating-point operations and a value that depends on all of them.
pub(crate) fn multiply_adds(level: Level, rounds: usize) -> (u64, f32) {
    let (lanes, value) = match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only used on machines that have it.
        Level::Avx512 => (16, unsafe { wide512(rounds) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => (8, unsafe { wide256(rounds) }),
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx512 | Level::Avx2 => (4, plain(rounds)),
        Level::Portable => (4, plain(rounds)),
    };
    ((rounds * CHAINS * lanes * 2) as u64, value)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn wide512(rounds: usize) -> f32 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps};
    let (a, b) = (_mm512_set1_ps(std::hint::black_box(0.999_9)), _mm512_set1_ps(std::hint::black_box(1e-4)));
    let mut chains = [_mm512_set1_ps(1.0); CHAINS];
    for _ in 0..rounds {
        for c in &mut chains {
            *c = _mm512_fmadd_ps(*c, a, b);
        }
    }
    chains.into_iter().map(|c| _mm512_reduce_add_ps(c)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn wide256(rounds: usize) -> f32 {
    use std::arch::x86_64::{_mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps};
    let (a, b) = (_mm256_set1_ps(std::hint::black_box(0.999_9)), _mm256_set1_ps(std::hint::black_box(1e-4)));
    let mut chains = [_mm256_set1_ps(1.0); CHAINS];
    for _ in 0..rounds {
        for c in &mut chains {
            *c = _mm256_fmadd_ps(*c, a, b);
        }
    }
    chains.into_iter().map(|c| _mm256_cvtss_f32(c)).sum()
}

fn plain(rounds: usize) -> f32 {
    let (a, b) = (std::hint::black_box(0.999_9f32), std::hint::black_box(1e-4f32));
    let mut chains = [[1f32; 4]; CHAINS];
    for _ in 0..rounds {
        for c in chains.iter_mut().flatten() {
            *c = *c * a + b;
        }
    }
    chains.iter().flatten().sum()
}
