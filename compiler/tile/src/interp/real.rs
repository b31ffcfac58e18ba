//! The number types that the interpreter computes with. Everything here is called for each element of a tile, from other
//! files: without `#[inline]` a call would cost more than what it does.

use std::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};

use crate::ir::Unary;

/// f32 or f64.
pub(super) trait Real:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const ZERO: Self;
    const NEG_INFINITY: Self;

    fn from_f32(x: f32) -> Self;
    /// Rounds to nearest even.
    fn from_f64(x: f64) -> Self;
    fn from_i32(x: i32) -> Self;
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    /// Rounds to nearest even, once.
    fn to_bf16(self) -> u16;
    /// Rounds to nearest even, once; infinite from 65520 on.
    fn to_f16(self) -> u16;
    /// A function on floats. `Not`, which is none, does not pass the verifier; it returns its operand.
    fn unary(op: Unary, x: Self) -> Self;

    #[inline]
    fn is_nan(self) -> bool {
        self.partial_cmp(&self).is_none()
    }

    #[inline]
    fn min(self, other: Self) -> Self {
        if self.is_nan() || self < other { self } else { other }
    }

    #[inline]
    fn max(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }
}

macro_rules! real {
    ($ty:ident, $to_bf16:expr, $to_f16:expr) => {
        impl Real for $ty {
            const ZERO: Self = 0.0;
            const NEG_INFINITY: Self = $ty::NEG_INFINITY;

            #[inline]
            fn from_f32(x: f32) -> Self {
                x as $ty
            }

            #[inline]
            fn from_f64(x: f64) -> Self {
                x as $ty
            }

            #[inline]
            fn from_i32(x: i32) -> Self {
                x as $ty
            }

            #[inline]
            fn to_f32(self) -> f32 {
                self as f32
            }

            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }

            #[inline]
            fn to_bf16(self) -> u16 {
                $to_bf16(self)
            }

            #[inline]
            fn to_f16(self) -> u16 {
                $to_f16(self)
            }

            #[inline]
            fn unary(op: Unary, x: Self) -> Self {
                match op {
                    Unary::Neg => -x,
                    Unary::Abs => x.abs(),
                    Unary::Exp => x.exp(),
                    Unary::Exp2 => x.exp2(),
                    Unary::Log => x.ln(),
                    Unary::Sqrt => x.sqrt(),
                    Unary::Rsqrt => 1.0 / x.sqrt(),
                    Unary::Recip => 1.0 / x,
                    Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                    Unary::Tanh => x.tanh(),
                    Unary::Not => x,
                }
            }
        }
    };
}

real!(f32, |x| bf16::from_f32(x).to_bits(), |x| f16::from_f32(x).to_bits());
real!(f64, bf16_from_f64, f16_from_f64);

/// Rounds f64 to bf16, to nearest even.
#[inline]
pub(super) fn bf16_from_f64(x: f64) -> u16 {
    bf16::from_f32(odd_f32(x)).to_bits()
}

/// Rounds f64 to f16, to nearest even.
#[inline]
pub(super) fn f16_from_f64(x: f64) -> u16 {
    f16::from_f32(odd_f32(x)).to_bits()
}

/// What to round to fewer bits in place of `x`. The way over f32 must not round to nearest as well, or values just
/// beside the middle of two narrow numbers would go the wrong way: f32 takes the value rounded towards zero, with the
/// last bit set if anything was lost.
#[inline]
fn odd_f32(x: f64) -> f32 {
    let nearest = x as f32;
    let exact = f64::from(nearest);
    if exact == x || x.is_nan() {
        return nearest;
    }
    let bits = nearest.to_bits();
    // Among floats of one sign, the next one towards zero has the next smaller bits.
    let towards_zero = if exact.abs() > x.abs() { bits - 1 } else { bits };
    f32::from_bits(towards_zero | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_once() {
        let one = bf16::from_f32(1.0);
        let next = f64::from(f32::from_bits(0x3f81_0000));
        let middle = (1.0 + next) / 2.0;
        assert_eq!(bf16_from_f64(middle), one.to_bits(), "a tie goes to the even one");
        // Both round to the tie in f32.
        assert_eq!(bf16_from_f64(middle + 1e-12), 0x3f81);
        assert_eq!(bf16_from_f64(middle - 1e-12), 0x3f80);
        assert_eq!(bf16_from_f64(-(middle + 1e-12)), 0xbf81);
    }

    #[test]
    fn bf16_at_the_ends() {
        assert_eq!(bf16_from_f64(f64::INFINITY), 0x7f80);
        assert_eq!(bf16_from_f64(1e300), 0x7f80);
        assert_eq!(bf16_from_f64(-1e300), 0xff80);
        assert_eq!(bf16_from_f64(1e-300), 0);
        assert_eq!(bf16_from_f64(-1e-300), 0x8000);
        assert!(bf16::from_bits(bf16_from_f64(f64::NAN)).is_nan());
        // The largest bf16 and the value half a step above it, where infinity begins.
        assert_eq!(bf16_from_f64(f64::from(bf16::MAX)), 0x7f7f);
        let last = f64::from(bf16::MAX);
        let step = last - f64::from(bf16::from_bits(0x7f7e));
        assert_eq!(bf16_from_f64(last + step * 0.499_999_999_9), 0x7f7f);
        assert_eq!(bf16_from_f64(last + step * 0.5), 0x7f80);
    }

    #[test]
    fn f16_rounds_once() {
        let middle = 1.0 + 2f64.powi(-11);
        assert_eq!(f16_from_f64(middle), 0x3c00, "a tie goes to the even one");
        // Both round to the tie in f32.
        assert_eq!(f16_from_f64(middle + 1e-12), 0x3c01);
        assert_eq!(f16_from_f64(middle - 1e-12), 0x3c00);
        assert_eq!(f16_from_f64(-(middle + 1e-12)), 0xbc01);
        assert_eq!(f16_from_f64(1.0 + 3.0 * 2f64.powi(-11)), 0x3c02);
    }

    #[test]
    fn f16_at_the_ends() {
        assert_eq!(f16_from_f64(65_519.999_999), 0x7bff);
        assert_eq!(f16_from_f64(65520.0), 0x7c00);
        assert_eq!(f16_from_f64(-1e300), 0xfc00);
        assert!(f16::from_bits(f16_from_f64(f64::NAN)).is_nan());
        // Subnormal numbers are multiples of 2^-24, with ties to even as elsewhere.
        let tiny = 2f64.powi(-24);
        assert_eq!(f16_from_f64(0.5 * tiny), 0);
        assert_eq!(f16_from_f64(0.500_000_000_1 * tiny), 1);
        assert_eq!(f16_from_f64(-1.5 * tiny), 0x8002);
        assert_eq!(f16_from_f64(2.5 * tiny), 2);
        assert_eq!(f16_from_f64(1023.5 * tiny), 0x400, "up to the smallest normal number");
        assert_eq!(f16_from_f64(-1e-300), 0x8000);
    }

    #[test]
    fn minimum_and_maximum_keep_nan() {
        assert!(Real::min(f32::NAN, 1.0).is_nan() && Real::min(1.0, f32::NAN).is_nan());
        assert!(Real::max(f32::NAN, 1.0).is_nan() && Real::max(1.0, f32::NAN).is_nan());
        assert_eq!((Real::min(1.0f32, 2.0), Real::max(1.0f32, 2.0)), (1.0, 2.0));
    }
}
