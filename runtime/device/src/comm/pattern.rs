//! Numbers of which each is known by who had it and where: an exchange of them is checked bit by bit.

use super::sum_parts;

/// Numbers that an exchange should end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Those of one rank.
    Of {
        /// Whose numbers they were.
        rank: usize,
    },
    /// The sums over the ranks from 0 on, in linc's order.
    SumOf {
        /// How many.
        ranks: usize,
    },
}

/// The number at a place of a rank's: all magnitudes from 2^-8 to 2^7, so that the order of a sum shows in its bits.
fn number(rank: usize, index: usize) -> f32 {
    // The mixing steps of SplitMix64.
    let mut x = (rank as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index as u64;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let (sign, mantissa, exponent) = ((x >> 63) as u32, x as u32 & 0x7f_ffff, 119 + ((x >> 32) as u32 & 15));
    f32::from_bits(sign << 31 | exponent << 23 | mantissa)
}

/// Makes each number the one that [`difference`] expects of a rank at its place.
pub fn fill(numbers: &mut [f32], rank: usize) {
    for (index, slot) in numbers.iter_mut().enumerate() {
        *slot = number(rank, index);
    }
}

/// The first place that has other bits than expected, counted in `found`, whose first number is the one at `first` of
/// the ranks' own.
pub fn difference(found: &[f32], expected: Expected, first: usize) -> Option<usize> {
    const BLOCK: usize = 1024;
    let (mut parts, mut sums) = (vec![], [0.0; BLOCK]);
    for (block, found) in found.chunks(BLOCK).enumerate() {
        let start = block * BLOCK;
        let expected = match expected {
            Expected::Of { rank } => {
                parts.clear();
                parts.extend((0..found.len()).map(|i| number(rank, first + start + i)));
                &parts[..]
            }
            Expected::SumOf { ranks } => {
                parts.clear();
                for rank in 0..ranks {
                    parts.extend((0..found.len()).map(|i| number(rank, first + start + i)));
                }
                sum_parts(&parts, &mut sums[..found.len()]);
                &sums[..found.len()]
            }
        };
        let differs = |(found, expected): (&f32, &f32)| found.to_bits() != expected.to_bits();
        if let Some(at) = found.iter().zip(expected).position(differs) {
            return Some(start + at);
        }
    }
    None
}
