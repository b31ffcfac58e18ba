//! Lanes of AVX2 with FMA: eight f32.

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// Eight f32 in a ymm register.
#[derive(Clone, Copy)]
pub(super) struct Ymm(__m256);

/// A mask of the first `n` lanes.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    // SAFETY: AVX2 is available, as the callers promise.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lanes)
    }
}

impl Lanes for Ymm {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: as promised by the caller; so in all functions here.
        Ymm(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises eight readable elements.
        Ymm(unsafe { _mm256_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        // SAFETY: masked lanes are not read.
        Ymm(unsafe { _mm256_maskload_ps(p, first(n)) })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises eight writable elements.
        unsafe { _mm256_storeu_ps(p, self.0) };
    }

    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        // SAFETY: masked lanes are not written.
        unsafe { _mm256_maskstore_ps(p, first(n), self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_mul_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_div_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: FMA is available.
        Ymm(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_min_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_max_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    unsafe fn with_sign(self, b: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_or_ps(self.0, _mm256_and_ps(_mm256_set1_ps(-0.0), b.0)) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let high = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
            _mm256_mul_ps(_mm256_mul_ps(self.0, low), high)
        })
    }

    #[inline(always)]
    unsafe fn low_bits_to_exponent(self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0))) })
    }

    #[inline(always)]
    unsafe fn split(self) -> (Self, Self) {
        // SAFETY: AVX2 is available.
        unsafe {
            let small = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_set1_ps(f32::MIN_POSITIVE));
            let lifted = _mm256_mul_ps(self.0, _mm256_set1_ps(8_388_608.0));
            let x = _mm256_blendv_ps(self.0, lifted, small);
            let root = _mm256_set1_epi32(0x3f35_04f3);
            let bits = _mm256_sub_epi32(_mm256_castps_si256(x), root);
            let e = _mm256_cvtepi32_ps(_mm256_srai_epi32::<23>(bits));
            let e = _mm256_sub_ps(e, _mm256_and_ps(small, _mm256_set1_ps(23.0)));
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
            (Ymm(_mm256_castsi256_ps(_mm256_add_epi32(fraction, root))), Ymm(e))
        }
    }

    #[inline(always)]
    unsafe fn less_select(self, b: Self, x: Self, y: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_blendv_ps(y.0, x.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, b.0)) })
    }

    #[inline(always)]
    unsafe fn nan_select(self, x: Self, y: Self) -> Self {
        // SAFETY: AVX2 is available.
        Ymm(unsafe { _mm256_blendv_ps(y.0, x.0, _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0)) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: AVX2 is available.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn top(self) -> f32 {
        // SAFETY: AVX2 is available.
        unsafe {
            if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0)) != 0 {
                return f32::NAN;
            }
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
