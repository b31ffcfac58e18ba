//! Lanes without any instruction set: plain arrays, which the compiler may vectorise as it can.

use super::lanes::{Lanes, max_or_nan};

const N: usize = 8;

/// Eight f32.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; N]);

#[inline(always)]
fn map(a: Plain, f: impl Fn(f32) -> f32) -> Plain {
    Plain(a.0.map(f))
}

#[inline(always)]
fn zip(a: Plain, b: Plain, f: impl Fn(f32, f32) -> f32) -> Plain {
    Plain(std::array::from_fn(|i| f(a.0[i], b.0[i])))
}

impl Lanes for Plain {
    const N: usize = N;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Plain([x; N])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises N readable elements.
        Plain(unsafe { p.cast::<[f32; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        let mut out = [0.0; N];
        // SAFETY: the caller promises n readable elements, and n <= N.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), n) };
        Plain(out)
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises N writable elements.
        unsafe { p.cast::<[f32; N]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        // SAFETY: the caller promises n writable elements, and n <= N.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), p, n) };
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        zip(self, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        zip(self, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        zip(self, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        zip(self, b, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        let product = zip(self, b, |a, b| a * b);
        zip(product, c, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        zip(self, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        zip(self, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        map(self, f32::abs)
    }

    #[inline(always)]
    unsafe fn with_sign(self, b: Self) -> Self {
        zip(self, b, f32::copysign)
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding and subtracting 1.5·2^23 rounds to the nearest integer below 2^22, ties to even.
        const MAGIC: f32 = 12_582_912.0;
        map(self, |x| (x + MAGIC) - MAGIC)
    }

    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        zip(self, n, |x, n| {
            let n = n as i32;
            let half = n >> 1;
            let power = |k: i32| f32::from_bits(((k + 127) << 23) as u32);
            x * power(half) * power(n - half)
        })
    }

    #[inline(always)]
    unsafe fn low_bits_to_exponent(self) -> Self {
        map(self, |x| f32::from_bits(x.to_bits() << 23))
    }

    #[inline(always)]
    unsafe fn split(self) -> (Self, Self) {
        let (mut mantissa, mut exponent) = ([0.0; N], [0.0; N]);
        for i in 0..N {
            let small = self.0[i] < f32::MIN_POSITIVE;
            let x = if small { self.0[i] * 8_388_608.0 } else { self.0[i] };
            let bits = (x.to_bits() as i32).wrapping_sub(0x3f35_04f3);
            let e = bits >> 23;
            mantissa[i] = f32::from_bits(((bits & 0x007f_ffff) + 0x3f35_04f3) as u32);
            exponent[i] = e as f32 - if small { 23.0 } else { 0.0 };
        }
        (Plain(mantissa), Plain(exponent))
    }

    #[inline(always)]
    unsafe fn less_select(self, b: Self, x: Self, y: Self) -> Self {
        Plain(std::array::from_fn(|i| if self.0[i] < b.0[i] { x.0[i] } else { y.0[i] }))
    }

    #[inline(always)]
    unsafe fn nan_select(self, x: Self, y: Self) -> Self {
        Plain(std::array::from_fn(|i| if self.0[i].is_nan() { x.0[i] } else { y.0[i] }))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    unsafe fn top(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, max_or_nan)
    }
}
