//! Floats of 16 bits as they are stored. Conversions have no branches, so that loops over them become vector code on every
//! level.

use super::matrix::Stored;

/// The bits of a bfloat16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Bf16(u16);

/// The bits of an IEEE binary16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct F16(u16);

impl Stored for Bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn nearest(x: f32) -> Bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // Rounding could carry the bits of a NaN over into those of an infinity.
        Bf16(if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { (rounded >> 16) as u16 })
    }

    #[inline(always)]
    fn exact(x: f32) -> Bf16 {
        Bf16((x.to_bits() >> 16) as u16)
    }
}

/// Distance of the exponent biases of f32 and binary16, at the place of an f32's exponent.
const REBIAS: u32 = (127 - 15) << 23;
/// Smallest normal binary16 (2^-14) as the bits of an f32.
const SMALLEST: u32 = (127 - 14) << 23;
/// 65536, where infinity begins, as the bits of an f32.
const BEYOND: u32 = (127 + 16) << 23;

impl Stored for F16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        let bits = u32::from(self.0);
        let size = (bits & 0x7fff) << 13;
        // A subnormal number is what the mantissa adds to 2^-14 in a float of that exponent.
        let subnormal = (f32::from_bits(size + SMALLEST) - f32::from_bits(SMALLEST)).to_bits();
        // An exponent of all ones moves up to f32's.
        let special = if size >= 31 << 23 { REBIAS } else { 0 };
        let wide = if size < 1 << 23 { subnormal } else { size + REBIAS + special };
        f32::from_bits(wide | (bits & 0x8000) << 16)
    }

    /// Adds a power of two so large that the sum's last bit is binary16's, and takes it away again: f32 addition rounds
    /// to nearest even, and the difference is exact.
    #[inline(always)]
    fn nearest(x: f32) -> F16 {
        let size = x.to_bits() & 0x7fff_ffff;
        let power = (size & 0x7f80_0000).clamp(SMALLEST, BEYOND) + (13 << 23);
        let power = f32::from_bits(power);
        let rounded = (f32::from_bits(size) + power) - power;
        F16::exact(rounded.copysign(x))
    }

    #[inline(always)]
    fn exact(x: f32) -> F16 {
        let bits = x.to_bits();
        let size = bits & 0x7fff_ffff;
        // The last bit of a float between 1/2 and 1 is that of a subnormal number.
        let subnormal = (f32::from_bits(size) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let finite = if size < SMALLEST { subnormal } else { size.wrapping_sub(REBIAS) >> 13 };
        let special = if x.is_nan() { 0x7e00 } else { 0x7c00 };
        let narrow = if size >= BEYOND { special } else { finite };
        F16((narrow | bits >> 16 & 0x8000) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_the_nearest_even_and_keeps_nan() {
        let nearest = |x: f32| Bf16::nearest(x).wide();
        assert_eq!(nearest(1.0 + 2f32.powi(-8)), 1.0);
        assert_eq!(nearest(1.0 + 3.0 * 2f32.powi(-8)), 1.0 + 2f32.powi(-6));
        assert_eq!(nearest(1.0 + 2f32.powi(-8) + 2f32.powi(-20)), 1.0 + 2f32.powi(-7));
        assert_eq!(nearest(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(nearest(f32::MAX), f32::INFINITY);
        assert_eq!(nearest(f32::NEG_INFINITY), f32::NEG_INFINITY);
        for bits in [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff] {
            assert!(nearest(f32::from_bits(bits)).is_nan());
        }
    }

    #[test]
    fn every_f16_survives_the_way_to_f32_and_back() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits);
            let wide = F16(bits).wide();
            if expected.is_nan() {
                assert!(wide.is_nan() && half::f16::from_bits(F16::nearest(wide).0).is_nan(), "{bits:#x}");
                continue;
            }
            assert_eq!(wide.to_bits(), expected.to_f32().to_bits(), "{bits:#x}");
            assert_eq!([F16::nearest(wide).0, F16::exact(wide).0], [bits, bits], "{bits:#x}");
        }
    }

    #[test]
    fn f16_rounds_to_the_nearest_even_everywhere() {
        // Between any two neighbours: the tie, and its two neighbours in f32; then numbers of all magnitudes.
        let between = (0..0x7c00u16).flat_map(|bits| {
            let tie = (f64::from(F16(bits).wide()) + f64::from(F16(bits + 1).wide().min(65536.0))) / 2.0;
            let tie = (tie as f32).to_bits();
            [tie - 1, tie, tie + 1]
        });
        let others = (0..u32::MAX - 65_521).step_by(65_521);
        for bits in between.chain(others) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                let expected = half::f16::from_f32(x);
                let found = half::f16::from_bits(F16::nearest(x).0);
                assert!(
                    found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                    "{x}: {found} but {expected}"
                );
            }
        }
    }
}
