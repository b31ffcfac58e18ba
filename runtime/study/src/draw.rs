//! Draws that studies repeat by a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// A number below a bound that is far below 2^64.
pub(crate) fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound as u64) as usize
}

/// Puts things into a random order (Fisher and Yates).
pub(crate) fn shuffle<T>(rng: &mut ChaCha8Rng, things: &mut [T]) {
    for last in (1..things.len()).rev() {
        things.swap(last, below(rng, last + 1));
    }
}
