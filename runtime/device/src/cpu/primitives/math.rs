//! Transcendental functions of whole arrays, about one unit in the last place wide.
//!
//! The polynomials are interpolations at Chebyshev nodes of the functions named beside them.

use super::lanes::Lanes;

/// `e^x`: x = n·ln2 + r.
#[inline(always)]
pub(super) unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: forwarded from the caller; so in all functions here.
    unsafe {
        // Beyond these e^x is 0 or infinite, and inside them 2^n can be reached. NaN passes as the second operand.
        let x = L::splat(89.0).min(L::splat(-104.0).max(x));
        let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
        let r = n.fma(L::splat(-0.693_145_75), x);
        let r = n.fma(L::splat(-1.428_606_8e-6), r);
        scaled_exp(r, n)
    }
}

/// `2^x`: x = n + f.
#[inline(always)]
pub(super) unsafe fn exp2<L: Lanes>(x: L) -> L {
    // SAFETY: forwarded from the caller.
    unsafe {
        let x = L::splat(128.5).min(L::splat(-150.5).max(x));
        let n = x.round();
        exp2_of_fraction(x.sub(n), 1.0).scale(n)
    }
}

/// `2^x` of an exponent of weights: as [`exp2`], but 0 up to an exponent of -125.5. Such weights change no sum, and the rest takes half as
/// many instructions.
#[inline(always)]
pub(super) unsafe fn exp2_or_zero<L: Lanes>(x: L) -> L {
    // A sum with it has x rounded to a whole number in its low bits, 126 more than x so that they are an exponent's. The
    // result is made of twice the fraction's power and half the whole number's, which is 0 at -126 and finite at 128.
    const ROUNDER: f32 = 12_582_912.0 + 126.0;
    // SAFETY: forwarded from the caller.
    unsafe {
        let x = L::splat(128.5).min(L::splat(-126.0).max(x));
        let rounded = x.add(L::splat(ROUNDER));
        let n = rounded.sub(L::splat(ROUNDER));
        exp2_of_fraction(x.sub(n), 2.0).mul(rounded.low_bits_to_exponent())
    }
}

/// `factor · 2^f` for |f| <= 1/2 and a power of two, by a polynomial of degree 6 with a relative error of 2e-8. In powers of f²:
/// a vector waits for itself most of the time, and so does for less.
#[inline(always)]
unsafe fn exp2_of_fraction<L: Lanes>(f: L, factor: f32) -> L {
    const P: [f32; 7] =
        [1.0, 0.693_147_24, 0.240_226_52, 0.055_503_104, 0.009_617_693, 0.001_340_664_3, 0.000_155_946_78];
    // SAFETY: forwarded from the caller.
    unsafe {
        let c = |i: usize| L::splat(factor * P[i]);
        let square = f.mul(f);
        let high = c(6).fma(square, c(5).fma(f, c(4)));
        let high = high.fma(square, c(3).fma(f, c(2)));
        high.fma(square, c(1).fma(f, c(0)))
    }
}

/// `e^r · 2^n` for |r| <= ln2/2, by a polynomial of degree 6.
#[inline(always)]
unsafe fn scaled_exp<L: Lanes>(r: L, n: L) -> L {
    // (e^r - 1 - r) / r²
    const P: [f32; 5] = [0.5, 0.166_665_77, 0.041_666_555, 0.008_363_178, 0.001_392_618_2];
    // SAFETY: forwarded from the caller.
    unsafe {
        let mut p = L::splat(P[4]);
        for c in P[..4].iter().rev() {
            p = p.fma(r, L::splat(*c));
        }
        let p = p.fma(r.mul(r), r).add(L::splat(1.0));
        p.scale(n)
    }
}

/// Natural logarithm: x = m·2^e, log m = f - s(f - zR(z)) with f = m-1, s = f/(2+f), z = s².
#[inline(always)]
pub(super) unsafe fn log<L: Lanes>(x: L) -> L {
    // (log((1+s)/(1-s))/s - 2) / z
    const R: [f32; 4] = [0.666_666_7, 0.400_001_26, 0.285_503_97, 0.233_419_43];
    // SAFETY: forwarded from the caller.
    unsafe {
        let (m, e) = x.split();
        let f = m.sub(L::splat(1.0));
        let s = f.div(f.add(L::splat(2.0)));
        let z = s.mul(s);
        let mut r = L::splat(R[3]);
        for c in R[..3].iter().rev() {
            r = r.fma(z, L::splat(*c));
        }
        let small = e.fma(L::splat(1.428_606_8e-6), L::splat(0.0));
        let body = f.sub(s.mul(f.sub(z.mul(r))).sub(small));
        let value = e.fma(L::splat(0.693_145_75), body);
        let zero = L::splat(0.0);
        let infinity = L::splat(f32::INFINITY);
        // inf and NaN stay; 0 gives -inf; what is below gives NaN.
        let value = x.less_select(infinity, value, x);
        let value = zero.less_select(x, value, L::splat(f32::NEG_INFINITY));
        let value = x.less_select(zero, L::splat(f32::NAN), value);
        x.nan_select(x, value)
    }
}

/// 1/(1+e^-x)
#[inline(always)]
pub(super) unsafe fn sigmoid<L: Lanes>(x: L) -> L {
    // SAFETY: forwarded from the caller.
    unsafe {
        let one = L::splat(1.0);
        one.div(one.add(exp(L::splat(0.0).sub(x))))
    }
}

/// Hyperbolic tangent: a polynomial near 0, `1 - 2/(e^2|x| + 1)` elsewhere.
#[inline(always)]
pub(super) unsafe fn tanh<L: Lanes>(x: L) -> L {
    // (tanh(x)/x - 1) / x², in x²
    const P: [f32; 6] =
        [-0.333_333_33, 0.133_333_02, -0.053_958_933, 0.021_766_272, -0.008_335_324, 0.002_283_024_4];
    // SAFETY: forwarded from the caller.
    unsafe {
        let a = x.abs();
        let z = x.mul(x);
        let mut p = L::splat(P[5]);
        for c in P[..5].iter().rev() {
            p = p.fma(z, L::splat(*c));
        }
        let near = p.mul(z).fma(a, a);
        let one = L::splat(1.0);
        let far = one.sub(L::splat(2.0).div(exp(a.add(a)).add(one)));
        a.less_select(L::splat(0.625), near, far).with_sign(x)
    }
}

/// `dst[i, j] = f(src[i, j], vector[i, j])` of dense tiles; `vector` has the strides `[0, 1]` or `[1, 0]`.
///
/// # Safety
/// The instruction set of `L` is available; `src` and `dst` are valid for `rows·cols` elements and equal or disjoint, and
/// `vector` for one along its axis.
#[inline(always)]
pub(super) unsafe fn map_with_vector<L: Lanes>(
    dst: *mut f32,
    src: *const f32,
    shape: [i64; 2],
    vector: *const f32,
    strides: [i64; 2],
    f: impl Fn(L, L) -> L,
) {
    // SAFETY: forwarded from the caller; all places are below rows·cols.
    unsafe {
        for_each_with_vector::<L>(shape, vector, strides, |at, left, other| {
            if left < L::N {
                f(L::load_part(src.add(at), left), other).store_part(dst.add(at), left);
            } else {
                f(L::load(src.add(at)), other).store(dst.add(at));
            }
        });
    }
}

/// `dst[i, j] = (src[i, j] - vector[i, j]) · factor[i, j]`.
///
/// # Safety
/// As [`map_with_vector`]; `factor` is as `src`.
#[inline(always)]
pub(super) unsafe fn scaled_difference<L: Lanes>(
    dst: *mut f32,
    src: *const f32,
    factor: *const f32,
    shape: [i64; 2],
    vector: *const f32,
    strides: [i64; 2],
) {
    // SAFETY: forwarded from the caller; all places are below rows·cols.
    unsafe {
        for_each_with_vector::<L>(shape, vector, strides, |at, left, other| {
            if left < L::N {
                let x = L::load_part(src.add(at), left).sub(other);
                x.mul(L::load_part(factor.add(at), left)).store_part(dst.add(at), left);
            } else {
                L::load(src.add(at)).sub(other).mul(L::load(factor.add(at))).store(dst.add(at));
            }
        });
    }
}

/// Calls `f` for each vector of a dense tile with the place of its first element, the number of elements, and the vector
/// along one axis at these elements.
#[inline(always)]
unsafe fn for_each_with_vector<L: Lanes>(
    [rows, cols]: [i64; 2],
    vector: *const f32,
    [rs, cs]: [i64; 2],
    mut f: impl FnMut(usize, usize, L),
) {
    let [rows, cols, rs] = [rows, cols, rs].map(|n| n as usize);
    // SAFETY: all indices are below those of the vector's axis.
    unsafe {
        for i in 0..rows {
            let vector = vector.add(i * rs);
            let same = L::splat(*vector);
            let mut j = 0;
            while j + L::N <= cols {
                let other = if cs == 0 { same } else { L::load(vector.add(j)) };
                f(i * cols + j, L::N, other);
                j += L::N;
            }
            if j < cols {
                let left = cols - j;
                let other = if cs == 0 { same } else { L::load_part(vector.add(j), left) };
                f(i * cols + j, left, other);
            }
        }
    }
}

/// Applies a function to `n` elements; `dst` may be `src`.
///
/// # Safety
/// The instruction set of `L` is available; `src` and `dst` are valid for `n` elements and equal or disjoint.
#[inline(always)]
pub(super) unsafe fn map<L: Lanes>(dst: *mut f32, src: *const f32, n: i64, f: impl Fn(L) -> L) {
    let n = n as usize;
    let mut i = 0;
    // SAFETY: all indices are below n.
    unsafe {
        while i + 2 * L::N <= n {
            let (a, b) = (L::load(src.add(i)), L::load(src.add(i + L::N)));
            f(a).store(dst.add(i));
            f(b).store(dst.add(i + L::N));
            i += 2 * L::N;
        }
        while i < n {
            let left = (n - i).min(L::N);
            f(L::load_part(src.add(i), left)).store_part(dst.add(i), left);
            i += L::N;
        }
    }
}
