//! A vector of f32 lanes, so that each primitive is written once for all instruction sets.
//!
//! All functions are inlined into callers that enable the instruction set; that, and valid pointers, is what the callers
//! of these `unsafe` functions promise. `min` and `max` return the second operand if either is NaN, as x86 does.

/// A vector of f32.
pub(super) trait Lanes: Copy {
    /// Number of lanes.
    const N: usize;

    /// All lanes equal.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn splat(x: f32) -> Self;

    /// `N` elements.
    ///
    /// # Safety
    /// The instruction set is available; `p` is valid for `N` reads.
    unsafe fn load(p: *const f32) -> Self;

    /// The first `n` elements, zeros behind them.
    ///
    /// # Safety
    /// The instruction set is available; `p` is valid for `n` reads; `n` is at most `N`.
    unsafe fn load_part(p: *const f32, n: usize) -> Self;

    /// Writes `N` elements.
    ///
    /// # Safety
    /// The instruction set is available; `p` is valid for `N` writes.
    unsafe fn store(self, p: *mut f32);

    /// Writes the first `n` elements.
    ///
    /// # Safety
    /// The instruction set is available; `p` is valid for `n` writes; `n` is at most `N`.
    unsafe fn store_part(self, p: *mut f32, n: usize);

    /// Sum.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn add(self, b: Self) -> Self;

    /// Difference.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn sub(self, b: Self) -> Self;

    /// Product.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn mul(self, b: Self) -> Self;

    /// Quotient.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn div(self, b: Self) -> Self;

    /// `self·b + c`.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn fma(self, b: Self, c: Self) -> Self;

    /// Smaller lanes; `b` where either is NaN.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn min(self, b: Self) -> Self;

    /// Larger lanes; `b` where either is NaN.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn max(self, b: Self) -> Self;

    /// `|self|`.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn abs(self) -> Self;

    /// Magnitude of `self`, which is not negative, with the sign of `b`.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn with_sign(self, b: Self) -> Self;

    /// Nearest integers, ties to even.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn round(self) -> Self;

    /// `self · 2^n` for integral `n` in [-252, 254]; of the result's range, subnormals and infinity included.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn scale(self, n: Self) -> Self;

    /// The low nine bits of each lane as the sign and exponent of a number whose mantissa is 0.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn low_bits_to_exponent(self) -> Self;

    /// Positive finite `self` as `m · 2^e` with `m` in [√½, √2).
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn split(self) -> (Self, Self);

    /// `self < b ? x : y`.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn less_select(self, b: Self, x: Self, y: Self) -> Self;

    /// `self` is NaN `? x : y`.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn nan_select(self, x: Self, y: Self) -> Self;

    /// Sum of the lanes, in a fixed order.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn sum(self) -> f32;

    /// Largest lane; NaN if any is.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn top(self) -> f32;
}

/// Largest element that keeps NaN.
#[inline(always)]
pub(super) fn max_or_nan(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}
