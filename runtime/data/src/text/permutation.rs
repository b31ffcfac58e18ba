//! Numbers in random order, each found by itself: an order of a billion samples takes no memory and no time to make.

use rand_chacha::rand_core::RngCore;

use crate::rng::{Use, stream};

/// Rounds of the network; four make a permutation that cannot be told from a random one by few of its values.
const ROUNDS: usize = 6;

/// The numbers below `count` in the order of a seed: a Feistel network over the next even power of two, applied until the
/// number is below `count` (at most four times on average).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Permutation {
    count: u64,
    /// Bits of each half.
    half: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    pub(super) fn new(count: u64, seed: u64, epoch: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        let mut random = stream(seed, Use::Samples, epoch);
        Self { count, half: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| random.next_u64()) }
    }

    /// How many numbers there are.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// The number at a place, which must be below the count.
    pub(super) fn at(&self, place: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let mut number = place;
        loop {
            let (mut left, mut right) = (number >> self.half, number & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mixed(right ^ key) & mask));
            }
            number = left << self.half | right;
            if number < self.count {
                return number;
            }
        }
    }
}

/// Each bit depends on all (the last steps of SplitMix64).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_comes_once() {
        for count in [1, 2, 3, 5, 16, 17, 1000, 65_537] {
            let order = Permutation::new(count, 7, 0);
            let mut numbers: Vec<u64> = (0..count).map(|place| order.at(place)).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..count), "{count}");
        }
    }

    #[test]
    fn orders_of_other_seeds_and_epochs_are_others_and_look_random() {
        let count = 4000;
        let order = |seed, epoch| Permutation::new(count, seed, epoch);
        let first: Vec<u64> = (0..count).map(|place| order(1, 0).at(place)).collect();
        for other in [order(2, 0), order(1, 1)] {
            let same = (0..count).filter(|place| other.at(*place) == first[*place as usize]).count();
            assert!(same < 12, "{same}");
        }
        // Distances of neighbours are a third of the count on average, as of random numbers.
        let distances: u64 = first.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum();
        let mean = distances as f64 / count as f64 / count as f64;
        assert!((mean - 1.0 / 3.0).abs() < 0.02, "{mean}");
        // Each tenth of the places has numbers from everywhere.
        for tenth in first.chunks(400) {
            let mean = tenth.iter().sum::<u64>() as f64 / 400.0 / count as f64;
            assert!((mean - 0.5).abs() < 0.08, "{mean}");
        }
    }
}
