//! The whole-tile operations that generated code calls, for each instruction set.
//!
//! One source per operation, written over [`lanes::Lanes`]; the modules `portable`, `avx2` and `avx512` supply the lanes,
//! and the macro below compiles every operation for each. All are deterministic; different levels may differ in the
//! last bits, since they add in another order.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dot;
mod half;
mod lanes;
mod level;
mod math;
pub(crate) mod matmul;
pub(crate) mod matrix;
pub(crate) mod normal;
mod paired;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod peak;
mod portable;
mod reduce;
pub(crate) mod thin;
mod transfer;

pub use level::Level;

/// The pieces of a matmul on one level.
#[derive(Clone, Copy)]
pub(crate) struct Matmul {
    /// See [`matmul::pack`].
    pub(crate) pack: unsafe fn(&matmul::Right, usize, usize, usize),
    /// See [`matmul::part`].
    pub(crate) part: unsafe fn(&matmul::Part, *mut f32),
    /// See [`thin::thin`].
    pub(crate) thin: unsafe fn(&matmul::Part),
}

/// Compiles all primitives for one kind of lanes: module, lanes, vectors of a dot's widest panel, transposition, and the
/// attribute that enables the instruction set.
macro_rules! level {
    ($module:ident, $lanes:path, $wide:expr, $transpose:path, $attr:meta) => {
        mod $module {
            use linc_codegen_cpu::Primitive;

            use super::dot::{Block, Dot, Operands};
            use super::lanes::Lanes;
            use super::transfer::View;
            use super::{dot, half, math, matmul, peak, reduce, transfer};

            type L = $lanes;

            #[$attr]
            unsafe fn block<const MR: usize, const NV: usize, const ROWS: bool, const PART: bool>(t: &Block) {
                // SAFETY: the caller keeps the promises of `Dot::block`.
                unsafe { dot::block::<L, MR, NV, ROWS, PART>(t) };
            }

            impl Dot for L {
                const WIDE: usize = $wide;

                #[inline(always)]
                unsafe fn block<const MR: usize, const NV: usize, const ROWS: bool, const PART: bool>(
                    t: &Block,
                ) {
                    // SAFETY: the caller promises the instruction set and valid pointers.
                    unsafe { block::<MR, NV, ROWS, PART>(t) };
                }
            }

            unsafe extern "C" fn multiply(
                m: i64,
                n: i64,
                k: i64,
                a: *const f32,
                a_rs: i64,
                a_cs: i64,
                b: *const f32,
                b_rs: i64,
                b_cs: i64,
                c: *mut f32,
                accumulate: i64,
                pack: *mut f32,
            ) {
                let operands = Operands {
                    sizes: [m, n, k],
                    a,
                    a_strides: [a_rs, a_cs],
                    b,
                    b_strides: [b_rs, b_cs],
                    c,
                    accumulate: accumulate != 0,
                    pack,
                };
                // SAFETY: generated code passes operands as the primitive asks for them.
                unsafe { dot::dot::<L>(&operands, $transpose) };
            }

            #[$attr]
            unsafe extern "C" fn exp(dst: *mut f32, src: *const f32, n: i64) {
                // SAFETY: generated code passes valid arrays of n elements, equal or disjoint.
                unsafe { math::map::<L>(dst, src, n, |x| math::exp(x)) };
            }

            #[$attr]
            unsafe extern "C" fn exp2(dst: *mut f32, src: *const f32, n: i64) {
                // SAFETY: generated code passes valid arrays of n elements, equal or disjoint.
                unsafe { math::map::<L>(dst, src, n, |x| math::exp2(x)) };
            }

            #[$attr]
            unsafe extern "C" fn affine_exp2(
                dst: *mut f32,
                src: *const f32,
                rows: i64,
                cols: i64,
                factor: i64,
                shift: *const f32,
                shift_rs: i64,
                shift_cs: i64,
            ) {
                let (shape, strides) = ([rows, cols], [shift_rs, shift_cs]);
                // SAFETY: generated code passes dense tiles, equal or disjoint, and a vector along one of their axes.
                unsafe {
                    let factor = L::splat(f32::from_bits(factor as u32));
                    math::map_with_vector::<L>(dst, src, shape, shift, strides, |x, shift| {
                        math::exp2_or_zero(x.fma(factor, shift))
                    });
                }
            }

            #[$attr]
            unsafe extern "C" fn scale(
                dst: *mut f32,
                src: *const f32,
                rows: i64,
                cols: i64,
                vector: *const f32,
                vector_rs: i64,
                vector_cs: i64,
            ) {
                let (shape, strides) = ([rows, cols], [vector_rs, vector_cs]);
                // SAFETY: generated code passes dense tiles, equal or disjoint, and a vector along one of their axes.
                unsafe {
                    math::map_with_vector::<L>(dst, src, shape, vector, strides, |x, factor| x.mul(factor))
                };
            }

            #[$attr]
            unsafe extern "C" fn scaled_difference(
                dst: *mut f32,
                src: *const f32,
                factor: *const f32,
                rows: i64,
                cols: i64,
                vector: *const f32,
                vector_rs: i64,
                vector_cs: i64,
            ) {
                let (shape, strides) = ([rows, cols], [vector_rs, vector_cs]);
                // SAFETY: generated code passes dense tiles, equal or disjoint, and a vector along one of their axes.
                unsafe { math::scaled_difference::<L>(dst, src, factor, shape, vector, strides) };
            }

            #[$attr]
            unsafe extern "C" fn log(dst: *mut f32, src: *const f32, n: i64) {
                // SAFETY: generated code passes valid arrays of n elements, equal or disjoint.
                unsafe { math::map::<L>(dst, src, n, |x| math::log(x)) };
            }

            #[$attr]
            unsafe extern "C" fn sigmoid(dst: *mut f32, src: *const f32, n: i64) {
                // SAFETY: generated code passes valid arrays of n elements, equal or disjoint.
                unsafe { math::map::<L>(dst, src, n, |x| math::sigmoid(x)) };
            }

            #[$attr]
            unsafe extern "C" fn tanh(dst: *mut f32, src: *const f32, n: i64) {
                // SAFETY: generated code passes valid arrays of n elements, equal or disjoint.
                unsafe { math::map::<L>(dst, src, n, |x| math::tanh(x)) };
            }

            #[$attr]
            unsafe extern "C" fn row_sum(dst: *mut f32, src: *const f32, rows: i64, cols: i64, stride: i64) {
                // SAFETY: generated code passes valid arrays of these sizes.
                unsafe { reduce::row_sum::<L>(dst, src, rows, cols, stride) };
            }

            #[$attr]
            unsafe extern "C" fn row_max(dst: *mut f32, src: *const f32, rows: i64, cols: i64, stride: i64) {
                // SAFETY: generated code passes valid arrays of these sizes.
                unsafe { reduce::row_max::<L>(dst, src, rows, cols, stride) };
            }

            #[$attr]
            unsafe extern "C" fn col_sum(dst: *mut f32, src: *const f32, rows: i64, cols: i64, stride: i64) {
                // SAFETY: generated code passes valid arrays of these sizes.
                unsafe { reduce::col_sum::<L>(dst, src, rows, cols, stride) };
            }

            #[$attr]
            unsafe extern "C" fn col_max(dst: *mut f32, src: *const f32, rows: i64, cols: i64, stride: i64) {
                // SAFETY: generated code passes valid arrays of these sizes.
                unsafe { reduce::col_max::<L>(dst, src, rows, cols, stride) };
            }

            #[$attr]
            unsafe extern "C" fn scan_rows(
                dst: *mut f32,
                src: *const f32,
                rows: i64,
                cols: i64,
                reverse: i64,
            ) {
                // SAFETY: generated code passes valid arrays of these sizes.
                unsafe { reduce::scan_rows(dst, src, rows, cols, reverse) };
            }

            #[$attr]
            unsafe extern "C" fn scan_cols(
                dst: *mut f32,
                src: *const f32,
                rows: i64,
                cols: i64,
                reverse: i64,
            ) {
                // SAFETY: generated code passes valid arrays of these sizes.
                unsafe { reduce::scan_cols::<L>(dst, src, rows, cols, reverse) };
            }

            #[$attr]
            unsafe extern "C" fn load_32(
                dst: *mut u32,
                src: *const u32,
                rows: i64,
                cols: i64,
                row_stride: i64,
                col_stride: i64,
                row_bound: i64,
                col_bound: i64,
            ) {
                let view = View {
                    shape: [rows, cols],
                    strides: [row_stride, col_stride],
                    bounds: [row_bound, col_bound],
                };
                // SAFETY: generated code passes a dense tile and memory that is valid within the bounds.
                unsafe { transfer::load_32(dst, src, &view, $transpose) };
            }

            #[$attr]
            unsafe extern "C" fn load_bf16(
                dst: *mut u32,
                src: *const half::Bf16,
                rows: i64,
                cols: i64,
                row_stride: i64,
                col_stride: i64,
                row_bound: i64,
                col_bound: i64,
            ) {
                let view = View {
                    shape: [rows, cols],
                    strides: [row_stride, col_stride],
                    bounds: [row_bound, col_bound],
                };
                // SAFETY: generated code passes a dense tile and memory that is valid within the bounds.
                unsafe { transfer::load_narrow(dst, src, &view) };
            }

            #[$attr]
            unsafe extern "C" fn load_f16(
                dst: *mut u32,
                src: *const half::F16,
                rows: i64,
                cols: i64,
                row_stride: i64,
                col_stride: i64,
                row_bound: i64,
                col_bound: i64,
            ) {
                let view = View {
                    shape: [rows, cols],
                    strides: [row_stride, col_stride],
                    bounds: [row_bound, col_bound],
                };
                // SAFETY: generated code passes a dense tile and memory that is valid within the bounds.
                unsafe { transfer::load_narrow(dst, src, &view) };
            }

            #[$attr]
            unsafe extern "C" fn store_32(
                dst: *mut u32,
                src: *const u32,
                rows: i64,
                cols: i64,
                row_stride: i64,
                col_stride: i64,
                row_bound: i64,
                col_bound: i64,
            ) {
                let view = View {
                    shape: [rows, cols],
                    strides: [row_stride, col_stride],
                    bounds: [row_bound, col_bound],
                };
                // SAFETY: generated code passes a dense tile and memory that is valid within the bounds.
                unsafe { transfer::store_32(dst, src, &view) };
            }

            #[$attr]
            unsafe extern "C" fn store_bf16(
                dst: *mut half::Bf16,
                src: *const u32,
                rows: i64,
                cols: i64,
                row_stride: i64,
                col_stride: i64,
                row_bound: i64,
                col_bound: i64,
            ) {
                let view = View {
                    shape: [rows, cols],
                    strides: [row_stride, col_stride],
                    bounds: [row_bound, col_bound],
                };
                // SAFETY: generated code passes a dense tile and memory that is valid within the bounds.
                unsafe { transfer::store_narrow(dst, src, &view) };
            }

            #[$attr]
            unsafe extern "C" fn store_f16(
                dst: *mut half::F16,
                src: *const u32,
                rows: i64,
                cols: i64,
                row_stride: i64,
                col_stride: i64,
                row_bound: i64,
                col_bound: i64,
            ) {
                let view = View {
                    shape: [rows, cols],
                    strides: [row_stride, col_stride],
                    bounds: [row_bound, col_bound],
                };
                // SAFETY: generated code passes a dense tile and memory that is valid within the bounds.
                unsafe { transfer::store_narrow(dst, src, &view) };
            }

            unsafe fn pack(right: &matmul::Right, p: usize, from: usize, to: usize) {
                // SAFETY: forwarded from the caller.
                unsafe { matmul::pack::<L>(right, p, from, to, $transpose) };
            }

            unsafe fn part(part: &matmul::Part, scratch: *mut f32) {
                // SAFETY: forwarded from the caller.
                unsafe { matmul::part::<L>(part, scratch, $transpose) };
            }

            #[$attr]
            unsafe fn thin(part: &matmul::Part) {
                // SAFETY: forwarded from the caller.
                unsafe { super::thin::thin::<L>(part) };
            }

            #[$attr]
            pub(super) unsafe fn multiply_adds(rounds: usize) -> (u64, f32) {
                // Lanes of plain arrays take two of 16 registers each.
                const CHAINS: usize = if $wide == 1 { 6 } else { 12 };
                // SAFETY: forwarded from the caller.
                unsafe { peak::multiply_adds::<L, CHAINS>(rounds) }
            }

            pub(super) const MATMUL: super::Matmul = super::Matmul { pack, part, thin };

            /// What generated code calls for a primitive; its arguments are those of the primitive's documentation.
            pub(super) fn address(primitive: Primitive) -> *const u8 {
                match primitive {
                    Primitive::Exp => exp as *const u8,
                    Primitive::Exp2 => exp2 as *const u8,
                    Primitive::AffineExp2 => affine_exp2 as *const u8,
                    Primitive::Scale => scale as *const u8,
                    Primitive::ScaledDifference => scaled_difference as *const u8,
                    Primitive::Log => log as *const u8,
                    Primitive::Sigmoid => sigmoid as *const u8,
                    Primitive::Tanh => tanh as *const u8,
                    Primitive::Dot => multiply as *const u8,
                    Primitive::RowSum => row_sum as *const u8,
                    Primitive::RowMax => row_max as *const u8,
                    Primitive::ColSum => col_sum as *const u8,
                    Primitive::ColMax => col_max as *const u8,
                    Primitive::ScanRows => scan_rows as *const u8,
                    Primitive::ScanCols => scan_cols as *const u8,
                    Primitive::Load32 => load_32 as *const u8,
                    Primitive::LoadBf16 => load_bf16 as *const u8,
                    Primitive::LoadF16 => load_f16 as *const u8,
                    Primitive::Store32 => store_32 as *const u8,
                    Primitive::StoreBf16 => store_bf16 as *const u8,
                    Primitive::StoreF16 => store_f16 as *const u8,
                }
            }
        }
    };
}

level!(plain, super::portable::Plain, 1, transfer::transpose_plain, inline(never));
#[cfg(target_arch = "x86_64")]
level!(wide, super::avx2::Ymm, 2, transfer::transpose_avx2, target_feature(enable = "avx2,fma"));
#[cfg(target_arch = "x86_64")]
level!(widest, super::avx512::Zmm, 4, transfer::transpose_avx2, target_feature(enable = "avx512f,avx2,fma"));
