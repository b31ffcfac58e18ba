//! Numbers of a normal distribution, whole or cut on both sides, by the inverse of its distribution function: each takes
//! one number of the random stream, whatever the bound, and there is nothing to reject.
//!
//! Only sums, products, quotients and square roots are used, whose bits are the same on every machine, in loops that a
//! compiler turns into vector code. The inverse is Wichura's algorithm AS 241 (Applied Statistics 37, 1988), PPND16,
//! which is right to about 1 part in 10^16.

/// Numbers that are computed together.
const CHUNK: usize = 512;

/// Coefficients of a rational function, from the constant up.
type Rational = ([f64; 8], [f64; 8]);

/// Up to [`MIDDLE`] from the median, in 0.180625 − q².
const CENTRAL: Rational = (
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_854,
    ],
);

/// Further out, in √(−ln p) − 1.6, where p is the probability of what lies beyond.
const TAIL: Rational = (
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ],
);

/// Where √(−ln p) is above 5, in √(−ln p) − 5.
const FAR_TAIL: Rational = (
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ],
    [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ],
);

/// Distance from the median, in probability, up to which [`CENTRAL`] holds.
const MIDDLE: f64 = 0.425;

/// e^−25, below which [`FAR_TAIL`] holds.
const FAR: f64 = 1.388_794_386_496_402_1e-11;

/// The distribution N(0, std²), of which only what is within a bound is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutNormal {
    std: f64,
    /// Probability of what is within the bound.
    mass: f64,
    /// The largest number that is drawn.
    limit: f32,
}

impl CutNormal {
    /// The distribution between −bound and bound. No number is above `limit`, which is not above the bound: a bound need
    /// not be a number of the type that values are stored in.
    pub(crate) fn new(std: f64, bound: f64, limit: f32) -> CutNormal {
        CutNormal { std, mass: mass_within(bound / std), limit }
    }

    /// One number for each of `bits`, which are uniform.
    pub(crate) fn fill(&self, out: &mut [f32], bits: &[u64]) {
        for (out, bits) in out.chunks_mut(CHUNK).zip(bits.chunks(CHUNK)) {
            self.fill_chunk(out, bits);
        }
    }

    fn fill_chunk(&self, out: &mut [f32], bits: &[u64]) {
        let CutNormal { std, mass, limit } = *self;
        let scaled = |z: f64| ((z * std) as f32).clamp(-limit, limit);
        // Distances from the median, in probability.
        let mut q = [0f64; CHUNK];
        for (q, bits) in q.iter_mut().zip(bits) {
            *q = centred(*bits) * mass;
        }
        for (out, q) in out.iter_mut().zip(&q) {
            *out = scaled(central(*q));
        }
        // One of seven lies in a tail: those are moved together, so that theirs is a dense loop too.
        let (mut tails, mut places, mut count) = ([0f64; CHUNK], [0u16; CHUNK], 0);
        for (i, q) in q[..out.len()].iter().enumerate() {
            (places[count], tails[count]) = (i as u16, *q);
            count += usize::from(q.abs() > MIDDLE);
        }
        let (places, tails) = (&places[..count], &mut tails[..count]);
        for q in tails.iter_mut() {
            *q = tail(0.5 - q.abs()).copysign(*q);
        }
        for (place, z) in places.iter().zip(tails) {
            let place = usize::from(*place);
            let beyond = 0.5 - q[place].abs();
            out[place] = scaled(if beyond < FAR { far_tail(beyond).copysign(*z) } else { *z });
        }
    }
}

/// The middle of one of 2^52 equal parts of (−½, ½).
#[inline]
fn centred(bits: u64) -> f64 {
    const HALF_A_PART: f64 = f64::EPSILON / 2.0;
    // In [1, 2): the bits are those of a mantissa.
    let number = f64::from_bits((bits >> 12) | 1f64.to_bits());
    (number - 1.5) + HALF_A_PART
}

#[inline]
fn polynomial<const N: usize>(x: f64, coefficients: &[f64; N]) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

#[inline]
fn rational(x: f64, (above, below): &Rational) -> f64 {
    polynomial(x, above) / polynomial(x, below)
}

/// The number with probability ½ + q below it, for |q| up to [`MIDDLE`].
#[inline]
fn central(q: f64) -> f64 {
    q * rational(MIDDLE * MIDDLE - q * q, &CENTRAL)
}

/// The number with probability p above it, for p from [`FAR`] to ½ − [`MIDDLE`].
#[inline]
fn tail(p: f64) -> f64 {
    rational((-ln(p)).sqrt() - 1.6, &TAIL)
}

/// The number with probability p above it, for p up to [`FAR`].
#[inline]
fn far_tail(p: f64) -> f64 {
    rational((-ln(p)).sqrt() - 5.0, &FAR_TAIL)
}

/// The natural logarithm of a positive normal number, to about 1 part in 10^15.
#[inline]
fn ln(x: f64) -> f64 {
    // √½: mantissas are made to lie between it and √2.
    const LEAST: u64 = 0x3fe6_a09e_667f_3bcd;
    const MANTISSA: u64 = (1 << 52) - 1;
    // Its last bits count whole numbers, which moves an integer into a float without an instruction of its own.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    let bits = x.to_bits().wrapping_sub(LEAST);
    let exponent = (bits.cast_signed() >> 52).cast_unsigned();
    let exponent = f64::from_bits(WHOLE.to_bits().wrapping_add(exponent)) - WHOLE;
    let m = f64::from_bits((bits & MANTISSA).wrapping_add(LEAST));
    // ln m = 2 artanh s.
    let s = (m - 1.0) / (m + 1.0);
    let series = polynomial(
        s * s,
        &[
            1.0,
            1.0 / 3.0,
            1.0 / 5.0,
            1.0 / 7.0,
            1.0 / 9.0,
            1.0 / 11.0,
            1.0 / 13.0,
            1.0 / 15.0,
            1.0 / 17.0,
            1.0 / 19.0,
        ],
    );
    exponent * std::f64::consts::LN_2 + 2.0 * s * series
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

    #[test]
    fn quantiles_are_those_of_tables() {
        // Probability above, and the number.
        let central_ones = [(0.5, 0.0), (0.25, 0.674_489_750_196_081_7), (0.1, 1.281_551_565_544_600_5)];
        for (p, z) in central_ones {
            assert!((central(0.5 - p) - z).abs() < 1e-14, "{p}: {} for {z}", central(0.5 - p));
        }
        for (p, z) in
            [(0.05, 1.644_853_626_951_472_2), (0.025, 1.959_963_984_540_054), (1e-9, 5.997_807_015_007_686_5)]
        {
            assert!((tail(p) - z).abs() < 1e-13, "{p}: {} for {z}", tail(p));
        }
        assert!((far_tail(1e-15) - 7.941_345_326_170_997).abs() < 1e-12, "{}", far_tail(1e-15));
        // Where one ends and the next begins.
        assert!((central(MIDDLE) - tail(0.5 - MIDDLE)).abs() < 1e-14);
        assert!((tail(FAR) - far_tail(FAR)).abs() < 1e-13);
    }

    #[test]
    fn logarithms_are_those_of_the_library() {
        for x in [1.0, 0.5, 0.707, 0.708, 1.414, 1.415, 0.075, 1e-3, 1e-16, 2f64.powi(-53), 3.7e200] {
            assert!((ln(x) - x.ln()).abs() <= 2e-15 * (1.0 + x.ln().abs()), "{x}: {} for {}", ln(x), x.ln());
        }
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
    fn the_outermost_parts_are_finite_and_symmetric() {
        let normal = CutNormal::new(1.0, f64::INFINITY, f32::MAX);
        let mut out = [0f32; 4];
        normal.fill(&mut out, &[0, u64::MAX, 1 << 63, (1 << 63) - 1]);
        assert!((out[0] + 8.21).abs() < 0.01 && out[0] == -out[1], "{out:?}");
        assert!(out[2] == -out[3] && out[2] > 0.0 && out[2] < 1e-15, "{out:?}");
    }
}
