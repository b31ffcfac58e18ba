//! Seeded random numbers for data. Each use has its own ChaCha stream, addressed by number, so that
//! any epoch or generated row can be made without making those before it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What random numbers are drawn for; different uses of one seed are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    HeldOut = 1,
    Documents = 2,
    Samples = 3,
    Offset = 4,
    RecallTraining = 5,
    RecallValidation = 6,
    Stories = 7,
    TaskTraining = 8,
    TaskValidation = 9,
}

/// The generator of one use, at one index (an epoch, a row).
pub(super) fn stream(seed: u64, purpose: Use, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    rng
}

/// A number below `bound`, which must not be 0. The bias is below `bound / 2^64`.
pub(super) fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A number from the open interval (0, 1).
pub(super) fn open_unit(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// The numbers below `count` in random order.
pub(super) fn permutation(rng: &mut ChaCha8Rng, count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, below(rng, last as u64 + 1) as usize);
    }
    order
}

/// `count` different numbers below `bound`, in random order; `count` must not exceed `bound`.
pub(super) fn distinct(rng: &mut ChaCha8Rng, count: usize, bound: u32) -> Vec<u32> {
    let mut pool: Vec<u32> = (0..bound).collect();
    for at in 0..count {
        let other = at + below(rng, (pool.len() - at) as u64) as usize;
        pool.swap(at, other);
    }
    pool.truncate(count);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_hold_each_number_once() {
        for count in [0, 1, 2, 100] {
            let mut order = permutation(&mut stream(1, Use::Samples, 0), count);
            order.sort_unstable();
            assert_eq!(order, (0..count).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn uses_indices_and_seeds_differ() {
        let first = |seed, purpose, index| stream(seed, purpose, index).next_u64();
        let base = first(1, Use::Samples, 0);
        assert_eq!(base, first(1, Use::Samples, 0));
        assert_ne!(base, first(2, Use::Samples, 0));
        assert_ne!(base, first(1, Use::Documents, 0));
        assert_ne!(base, first(1, Use::Samples, 1));
    }

    #[test]
    fn draws_cover_their_range_evenly() {
        let mut rng = stream(3, Use::HeldOut, 0);
        let mut counts = [0; 5];
        for _ in 0..10_000 {
            counts[below(&mut rng, 5) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (1800..2200).contains(count)), "{counts:?}");
        let mean = (0..10_000).map(|_| open_unit(&mut rng)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let mut drawn = distinct(&mut rng, 7, 7);
        drawn.sort_unstable();
        assert_eq!(drawn, [0, 1, 2, 3, 4, 5, 6]);
    }
}
