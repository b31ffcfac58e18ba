//! Random numbers of a normal distribution, whole or cut on both sides, by the inverse of its distribution function: each
//! takes one number of the random stream, whatever the bound, and there is nothing to reject.

use crate::cpu::Level;
use crate::cpu::normal::{Cut, LANES, States, fill};

/// The distribution N(0, std²), of which only what is within a bound is kept.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CutNormal {
    cut: Cut,
}

impl CutNormal {
    /// The distribution between −bound and bound. No number is above `limit`, which is not above the bound: a bound need
    /// not be a number of the type that values are stored in.
    pub fn new(std: f64, bound: f64, limit: f32) -> CutNormal {
        let mass = mass_within(bound / std);
        let cut = Cut { mass: mass as f32, beyond: (1.0 - mass) as f32, scale: (mass * std) as f32, limit };
        CutNormal { cut }
    }
}

/// A stream of random numbers: sixteen generators xoshiro128++ (Blackman and Vigna, 2019) that take turns. A function of
/// its seed, whatever the instruction set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RandomStream {
    states: States,
}

impl RandomStream {
    /// The stream of a seed, whose bytes should look random.
    pub fn new(seed: &[u8; 16 * LANES]) -> RandomStream {
        let mut states = [[0; LANES]; 4];
        for (word, bytes) in states.as_flattened_mut().iter_mut().zip(seed.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        for lane in 0..LANES {
            // Zero is the one state that a generator does not leave.
            if states.iter().all(|words| words[lane] == 0) {
                states[0][lane] = 1;
            }
        }
        RandomStream { states }
    }

    /// Fills a slice with the next numbers of a distribution. In parts, it is the same where all but the last have a
    /// multiple of 16 elements.
    pub fn fill(&mut self, distribution: &CutNormal, out: &mut [f32]) {
        self.fill_at(Level::detect(), distribution, out);
    }

    /// As [`RandomStream::fill`], with an instruction set that the machine has.
    fn fill_at(&mut self, level: Level, distribution: &CutNormal, out: &mut [f32]) {
        // SAFETY: the level is one of this machine.
        unsafe { fill(level, &mut self.states, &distribution.cut, out) };
    }
}

/// The probability that a standard normal number is within ±bound.
fn mass_within(bound: f64) -> f64 {
    // Beyond, less than the last bit of 1 is missing.
    if bound > 9.0 {
        return 1.0;
    }
    // √(2/π) e^(−b²/2) Σ b^(2n+1) / (1·3·5··(2n+1)), whose terms are all positive.
    let (mut term, mut sum, mut n) = (bound, 0.0, 1.0);
    while term > sum * f64::EPSILON / 4.0 {
        sum += term;
        n += 2.0;
        term *= bound * bound / n;
    }
    (std::f64::consts::FRAC_2_PI.sqrt() * (-bound * bound / 2.0).exp() * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::normal::inverse;

    const WHOLE: Cut = Cut { mass: 1.0, beyond: 0.0, scale: 1.0, limit: f32::MAX };

    fn stream() -> RandomStream {
        RandomStream::new(&std::array::from_fn(|i| (i as u8).wrapping_mul(157) ^ 0x5a))
    }

    #[test]
    fn masses_are_those_of_tables() {
        let known = [
            (1e-9, 7.978_845_608_028_654e-10),
            (0.5, 0.382_924_922_548_025_9),
            (1.0, 0.682_689_492_137_085_9),
            (2.0, 0.954_499_736_103_641_6),
            (3.0, 0.997_300_203_936_739_8),
            (5.0, 0.999_999_426_696_856_2),
            (1e300, 1.0),
            (f64::INFINITY, 1.0),
            (0.0, 0.0),
        ];
        for (bound, mass) in known {
            assert!((mass_within(bound) - mass).abs() <= 1e-14 * mass, "{bound}: {}", mass_within(bound));
        }
    }

    #[test]
    fn quantiles_are_right_to_the_last_bits_of_f32() {
        // From the end to the middle, by factors of 1.01, for whole and for cut distributions.
        for bound in [f64::INFINITY, 4.0, 2.0, 0.5, 1e-3] {
            let distribution = CutNormal::new(1.0, bound, f32::MAX);
            let (mut from_end, mut worst) = (1.0, (0.0, 0));
            while from_end < f64::from(1u32 << 31) {
                for bits in [from_end as u32, i32::MAX as u32 - from_end as u32] {
                    let z = -f64::from(inverse(bits, &distribution.cut));
                    // Twice the probability between the median and the number.
                    let x = (f64::from(i32::MAX as u32 - bits) + 0.5) / f64::from(1u32 << 31);
                    let density = (2.0 / std::f64::consts::PI).sqrt() * (-z * z / 2.0).exp();
                    let error = (mass_within(z) - x * mass_within(bound)) / density / z;
                    if error.abs() > worst.0 {
                        worst = (error.abs(), bits);
                    }
                }
                from_end = (from_end * 1.01).max(from_end + 1.0);
            }
            // Where 10^-10 is left beyond, the last bit of 1 is as much as 10^-6 of that, and 4·10^-8 of the number.
            assert!(worst.0 < 6e-7, "bound {bound}: {} at {:#x}", worst.0, worst.1);
        }
    }

    #[test]
    fn numbers_are_symmetrical_and_finite() {
        let outermost = inverse(u32::MAX, &WHOLE);
        assert!((outermost - 6.338).abs() < 1e-3, "{outermost}");
        let innermost = inverse(1 << 31, &WHOLE);
        assert!(innermost > 0.0 && innermost < 1e-9, "{innermost}");
        for bits in [0, 1, 77, 1 << 20, 1 << 30, i32::MAX as u32] {
            assert_eq!(inverse(bits, &WHOLE), -inverse(!bits, &WHOLE));
            assert!(inverse(bits, &WHOLE) < 0.0);
        }
    }

    #[test]
    fn the_same_bits_come_at_every_level_and_in_parts() {
        for (std, bound) in [(1.0, f64::INFINITY), (0.02, 0.04), (1.0, 1e-9), (1e303, 1e300)] {
            let distribution = CutNormal::new(std, bound, f32::MAX.min(bound as f32));
            let drawn = |level: Level, part: usize| {
                let (mut stream, mut out) = (stream(), vec![0f32; 5003]);
                out.chunks_mut(part).for_each(|out| stream.fill_at(level, &distribution, out));
                out.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            };
            let whole = drawn(Level::Portable, 5003);
            for level in Level::available() {
                for part in [5003, 1024, 48] {
                    assert!(drawn(level, part) == whole, "{} in parts of {part}", level.name());
                }
            }
        }
    }

    /// The published first numbers of xoshiro128++, by the signs and sizes that they give.
    #[test]
    fn numbers_come_from_the_generators_in_turn() {
        let mut seed = [0; 16 * LANES];
        for word in 0..4 {
            // The fourth lane has the state 1, 2, 3, 4, the others that of zeros.
            seed[4 * (LANES * word + 3)] = word as u8 + 1;
        }
        let mut out = [0f32; 8 * LANES];
        RandomStream::new(&seed).fill(&CutNormal { cut: WHOLE }, &mut out);
        let known = [
            641,
            1_573_767,
            3_222_811_527,
            3_517_856_514,
            836_907_274,
            4_247_214_768,
            3_867_114_732,
            1_355_841_295,
        ];
        for (turn, bits) in known.into_iter().enumerate() {
            assert_eq!(out[turn * LANES + 3], inverse(bits, &WHOLE), "{turn}");
        }
        assert_ne!(out[LANES], out[2 * LANES]);
    }
}
