//! Random numbers of a normal distribution, in loops that the compiler turns into vector code of each level.
//!
//! Only what IEEE 754 rounds in one way is used: sums, products, quotients, conversions and operations on bits. There is
//! no fused multiply-add, which not every machine has. So the bits are the same at all levels.

use super::Level;

/// Generators side by side, each of which gives every sixteenth number.
pub(crate) const LANES: usize = 16;

/// Numbers that are drawn at once, so that they stay in the first cache.
const CHUNK: usize = 64 * LANES;

/// The four words of the states of xoshiro128++ (Blackman and Vigna, 2019).
pub(crate) type States = [[u32; LANES]; 4];

/// Of one uniform number, what makes it one of a normal distribution between two bounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Cut {
    /// Probability of what is within the bounds.
    pub(crate) mass: f32,
    /// Probability of what is beyond them.
    pub(crate) beyond: f32,
    /// Standard deviation times `mass`.
    pub(crate) scale: f32,
    /// Largest magnitude that is drawn.
    pub(crate) limit: f32,
}

/// Uniform numbers.
#[inline(always)]
fn uniform(states: &mut States, out: &mut [u32]) {
    let [mut a, mut b, mut c, mut d] = *states;
    for out in out.chunks_mut(LANES) {
        let mut words = [0; LANES];
        for lane in 0..LANES {
            words[lane] = a[lane].wrapping_add(d[lane]).rotate_left(7).wrapping_add(a[lane]);
            let shifted = b[lane] << 9;
            c[lane] ^= a[lane];
            d[lane] ^= b[lane];
            b[lane] ^= c[lane];
            a[lane] ^= d[lane];
            c[lane] ^= shifted;
            d[lane] = d[lane].rotate_left(11);
        }
        match out.as_chunks_mut() {
            ([out], _) => *out = words,
            _ => out.copy_from_slice(&words[..out.len()]),
        }
    }
    *states = [a, b, c, d];
}

/// c₀ + c₁x + … in pairs, whose sums do not wait for each other; `xx` is x².
#[inline(always)]
fn in_pairs<const N: usize>(x: f32, xx: f32, pairs: [[f32; 2]; N]) -> f32 {
    let [low, high] = pairs[N - 1];
    let mut sum = low + high * x;
    for i in (0..N - 1).rev() {
        let [low, high] = pairs[i];
        sum = (low + high * x) + xx * sum;
    }
    sum
}

/// The logarithm to base 2 of a positive normal number, to about 3 parts in 10^7, absolutely below 2 and relatively above.
#[inline(always)]
fn log2(x: f32) -> f32 {
    // √½: mantissas are made to lie between it and √2.
    const LEAST: u32 = 0x3f35_04f3;
    const MANTISSA: u32 = (1 << 23) - 1;
    let bits = x.to_bits().wrapping_sub(LEAST);
    let exponent = (bits.cast_signed() >> 23) as f32;
    let f = f32::from_bits((bits & MANTISSA).wrapping_add(LEAST)) - 1.0;
    // Minimax for log₂(1 + f).
    let series = in_pairs(
        f,
        f * f,
        [
            [1.442_699_7, -0.721_375_9],
            [0.480_465_03, -0.358_961_85],
            [0.297_262_6, -0.272_697_9],
            [0.170_634_35, 0.0],
        ],
    );
    exponent + f * series
}

/// Of a uniform number, x and 1 − x², where x is the probability between the median and the number that belongs to it,
/// twice. The first is without sign and before the cut.
#[inline(always)]
fn probabilities(bits: u32, cut: &Cut) -> (f32, f32) {
    const PART: f32 = 1.0 / (1u32 << 31) as f32;
    // Distances from the outer end and from the middle: each is exact to its last bit where it is small.
    let side = bits.cast_signed() >> 31;
    let from_end = bits.cast_signed() ^ side;
    let from_middle = from_end ^ i32::MAX;
    let tail = (from_end as f32 + 0.5) * (PART * cut.mass);
    let x = (from_middle as f32 + 0.5) * PART;
    (x, (cut.beyond + tail) * (1.0 + x * cut.mass))
}

/// How much larger than x the number is, where `w` is −log₂(1 − x²). From √(π/2) on it grows like a square root: one
/// rational function serves for the middle and for the tails, to 1 part in 10^8.
#[inline(always)]
fn growth(w: f32) -> f32 {
    let ww = w * w;
    let above = in_pairs(
        w,
        ww,
        [
            [1.253_314_1, 0.310_143_85],
            [0.043_722_983, 0.004_170_579],
            [0.000_262_707_15, 9.494_212e-6],
            [2.122_073e-8, 0.0],
        ],
    );
    let below = in_pairs(
        w,
        ww,
        [[1.0, 0.065_993_28], [0.016_649_729, 0.000_769_826_8], [5.735_839_4e-5, 5.984_623_5e-7]],
    );
    above / below
}

/// A number of the distribution, with its sign.
#[inline(always)]
fn number(bits: u32, x: f32, growth: f32, cut: &Cut) -> f32 {
    let z = x * growth * cut.scale;
    // Not `min`: what is no number has to end here too.
    let z = if z < cut.limit { z } else { cut.limit };
    f32::from_bits(z.to_bits() | !bits & (1 << 31))
}

/// The number of the cut distribution that belongs to a uniform one, by the inverse of the distribution function.
#[cfg(test)]
pub(crate) fn inverse(bits: u32, cut: &Cut) -> f32 {
    let (x, rest) = probabilities(bits, cut);
    number(bits, x, growth(-log2(rest)), cut)
}

/// Fills a slice with numbers of the distribution.
///
/// # Safety
/// The level is one of this machine.
pub(crate) unsafe fn fill(level: Level, states: &mut States, cut: &Cut, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn wide(states: &mut States, cut: &Cut, out: &mut [f32]) {
        numbers(states, cut, out);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    fn widest(states: &mut States, cut: &Cut, out: &mut [f32]) {
        numbers(states, cut, out);
    }
    match level {
        Level::Portable => numbers(states, cut, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: forwarded from the caller.
        Level::Avx2 => unsafe { wide(states, cut, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: forwarded from the caller.
        Level::Avx512 | Level::Avx512Bf16 => unsafe { widest(states, cut, out) },
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx2 | Level::Avx512 | Level::Avx512Bf16 => numbers(states, cut, out),
    }
}

#[inline(always)]
fn numbers(states: &mut States, cut: &Cut, out: &mut [f32]) {
    let cut = *cut;
    let (mut bits, mut x, mut w) = ([0; CHUNK], [0f32; CHUNK], [0f32; CHUNK]);
    for out in out.chunks_mut(CHUNK) {
        let (bits, x, w) = (&mut bits[..out.len()], &mut x[..out.len()], &mut w[..out.len()]);
        uniform(states, bits);
        // In short loops: of a long one, a processor would see too few iterations at once to fill its pipelines.
        for ((x, w), bits) in x.iter_mut().zip(&mut *w).zip(&*bits) {
            (*x, *w) = probabilities(*bits, &cut);
        }
        for w in &mut *w {
            *w = -log2(*w);
        }
        for ((out, bits), (x, w)) in out.iter_mut().zip(&*bits).zip(x.iter().zip(&*w)) {
            *out = number(*bits, *x, growth(*w), &cut);
        }
    }
}
