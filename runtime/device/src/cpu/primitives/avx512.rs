//! Lanes of AVX-512F: sixteen f32.

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// Sixteen f32 in a zmm register.
#[derive(Clone, Copy)]
pub(super) struct Zmm(__m512);

impl Zmm {
    /// Adds to each lane the products of the bfloat16 pair `left` and the lane's pair at `right`.
    ///
    /// # Safety
    /// AVX-512-BF16 is available; `right` is valid for sixteen pairs.
    #[inline(always)]
    pub(super) unsafe fn add_pairs(self, left: u32, right: *const u32) -> Zmm {
        // SAFETY: as promised by the caller.
        unsafe {
            let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
            let left = _mm512_set1_epi32(left as i32);
            let right = _mm512_loadu_si512(right.cast());
            Zmm(_mm512_dpbf16_ps(self.0, pairs(left), pairs(right)))
        }
    }
}

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

impl Lanes for Zmm {
    const N: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: AVX-512F is available, as the caller promises; so in all functions here.
        Zmm(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises sixteen readable elements.
        Zmm(unsafe { _mm512_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        // SAFETY: masked lanes are not read.
        Zmm(unsafe { _mm512_maskz_loadu_ps(first(n), p) })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises sixteen writable elements.
        unsafe { _mm512_storeu_ps(p, self.0) };
    }

    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        // SAFETY: masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(p, first(n), self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_mul_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_div_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_min_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_max_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    unsafe fn with_sign(self, b: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe {
            let sign = _mm512_set1_epi32(i32::MIN);
            let bits = _mm512_and_epi32(sign, _mm512_castps_si512(b.0));
            _mm512_castsi512_ps(_mm512_or_epi32(_mm512_castps_si512(self.0), bits))
        })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(self.0) })
    }

    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }

    #[inline(always)]
    unsafe fn low_bits_to_exponent(self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0))) })
    }

    #[inline(always)]
    unsafe fn split(self) -> (Self, Self) {
        // SAFETY: AVX-512F is available.
        unsafe {
            let small = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_set1_ps(f32::MIN_POSITIVE));
            let x = _mm512_mask_mul_ps(self.0, small, self.0, _mm512_set1_ps(8_388_608.0));
            let root = _mm512_set1_epi32(0x3f35_04f3);
            let bits = _mm512_sub_epi32(_mm512_castps_si512(x), root);
            let e = _mm512_cvtepi32_ps(_mm512_srai_epi32::<23>(bits));
            let e = _mm512_mask_sub_ps(e, small, e, _mm512_set1_ps(23.0));
            let fraction = _mm512_and_epi32(bits, _mm512_set1_epi32(0x007f_ffff));
            (Zmm(_mm512_castsi512_ps(_mm512_add_epi32(fraction, root))), Zmm(e))
        }
    }

    #[inline(always)]
    unsafe fn less_select(self, b: Self, x: Self, y: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0), y.0, x.0) })
    }

    #[inline(always)]
    unsafe fn nan_select(self, x: Self, y: Self) -> Self {
        // SAFETY: AVX-512F is available.
        Zmm(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0), y.0, x.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: AVX-512F is available.
        unsafe {
            let high = _mm512_shuffle_f32x4::<0xee>(self.0, self.0);
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_castps512_ps256(high));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn top(self) -> f32 {
        // SAFETY: AVX-512F is available.
        unsafe {
            if _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0) != 0 {
                return f32::NAN;
            }
            let high = _mm512_shuffle_f32x4::<0xee>(self.0, self.0);
            let eight = _mm256_max_ps(_mm512_castps512_ps256(self.0), _mm512_castps512_ps256(high));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
