//! The whole-tile operations that generated code calls: their names, order and signatures. The runtime implements them.

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;

/// A function that the runtime supplies. All arguments are `i64` or pointers, none returns a value; sizes and strides
/// are in elements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Primitive {
    /// `(dst, src, n)`: e^x; `dst` may be `src`.
    Exp,
    /// `(dst, src, n)`: 2^x; `dst` may be `src`.
    Exp2,
    /// `(dst, src, rows, cols, factor, shift, shift_rs, shift_cs)`: `2^(src·factor + shift)` of a dense tile, the exponent
    /// rounded once where the machine can, and 0 up to an exponent of -125.5; `factor` has the bits of an f32, `shift` is a vector along one axis, with the
    /// stride 1 there and 0 along the other; `dst` may be `src`.
    AffineExp2,
    /// `(dst, src, rows, cols, vector, vector_rs, vector_cs)`: `src · vector` of a dense tile and a vector along one axis, as
    /// in [`Primitive::AffineExp2`]; `dst` may be `src`.
    Scale,
    /// `(dst, src, factor, rows, cols, vector, vector_rs, vector_cs)`: `(src - vector) · factor` of two dense tiles and a vector
    /// along one axis, as in [`Primitive::AffineExp2`]; `dst` may be either tile.
    ScaledDifference,
    /// `(dst, src, n)`: natural logarithm; `dst` may be `src`.
    Log,
    /// `(dst, src, n)`: 1/(1+e^-x); `dst` may be `src`.
    Sigmoid,
    /// `(dst, src, n)`: hyperbolic tangent; `dst` may be `src`.
    Tanh,
    /// `(m, n, k, a, a_rs, a_cs, b, b_rs, b_cs, c, accumulate, pack)`: `c[m,n]` dense; `pack` has
    /// [`Primitive::dot_pack_bytes`].
    Dot,
    /// `(dst, src, rows, cols, row_stride)`: sum of each row.
    RowSum,
    /// `(dst, src, rows, cols, row_stride)`: maximum of each row, -inf of an empty one.
    RowMax,
    /// `(dst, src, rows, cols, row_stride)`: sum of each column.
    ColSum,
    /// `(dst, src, rows, cols, row_stride)`: maximum of each column.
    ColMax,
    /// `(dst, src, rows, cols, reverse)`: running sum along each row; `dst` may be `src`.
    ScanRows,
    /// `(dst, src, rows, cols, reverse)`: running sum down each column; `dst` may be `src`.
    ScanCols,
    /// `(dst, src, rows, cols, src_rs, src_cs, row_bound, col_bound)`: 4-byte elements to a dense tile, 0 beyond the
    /// bounds (which may be negative or larger than the tile).
    Load32,
    /// As `Load32`, from bf16 to f32.
    LoadBf16,
    /// As `Load32`, from f16 to f32.
    LoadF16,
    /// `(dst, src, rows, cols, dst_rs, dst_cs, row_bound, col_bound)`: a dense tile to memory, within the bounds.
    Store32,
    /// As `Store32`, to bf16 from f32 of bf16 precision.
    StoreBf16,
    /// As `Store32`, to f16 from f32 of f16 precision.
    StoreF16,
}

impl Primitive {
    /// All, in the order of their indices in external names.
    pub const ALL: [Primitive; 21] = [
        Primitive::Exp,
        Primitive::Exp2,
        Primitive::AffineExp2,
        Primitive::Scale,
        Primitive::ScaledDifference,
        Primitive::Log,
        Primitive::Sigmoid,
        Primitive::Tanh,
        Primitive::Dot,
        Primitive::RowSum,
        Primitive::RowMax,
        Primitive::ColSum,
        Primitive::ColMax,
        Primitive::ScanRows,
        Primitive::ScanCols,
        Primitive::Load32,
        Primitive::LoadBf16,
        Primitive::LoadF16,
        Primitive::Store32,
        Primitive::StoreBf16,
        Primitive::StoreF16,
    ];

    /// Symbol name.
    pub const fn name(self) -> &'static str {
        match self {
            Primitive::Exp => "linc_exp_f32",
            Primitive::Exp2 => "linc_exp2_f32",
            Primitive::AffineExp2 => "linc_affine_exp2_f32",
            Primitive::Scale => "linc_scale_f32",
            Primitive::ScaledDifference => "linc_scaled_difference_f32",
            Primitive::Log => "linc_log_f32",
            Primitive::Sigmoid => "linc_sigmoid_f32",
            Primitive::Tanh => "linc_tanh_f32",
            Primitive::Dot => "linc_dot_f32",
            Primitive::RowSum => "linc_row_sum_f32",
            Primitive::RowMax => "linc_row_max_f32",
            Primitive::ColSum => "linc_col_sum_f32",
            Primitive::ColMax => "linc_col_max_f32",
            Primitive::ScanRows => "linc_scan_rows_f32",
            Primitive::ScanCols => "linc_scan_cols_f32",
            Primitive::Load32 => "linc_load_32",
            Primitive::LoadBf16 => "linc_load_bf16",
            Primitive::LoadF16 => "linc_load_f16",
            Primitive::Store32 => "linc_store_32",
            Primitive::StoreBf16 => "linc_store_bf16",
            Primitive::StoreF16 => "linc_store_f16",
        }
    }

    /// Number of arguments.
    pub const fn arity(self) -> usize {
        match self {
            Primitive::Exp | Primitive::Exp2 | Primitive::Log | Primitive::Sigmoid | Primitive::Tanh => 3,
            Primitive::Dot => 12,
            Primitive::Scale => 7,
            Primitive::RowSum
            | Primitive::RowMax
            | Primitive::ColSum
            | Primitive::ColMax
            | Primitive::ScanRows
            | Primitive::ScanCols => 5,
            Primitive::AffineExp2
            | Primitive::ScaledDifference
            | Primitive::Load32
            | Primitive::LoadBf16
            | Primitive::LoadF16
            | Primitive::Store32
            | Primitive::StoreBf16
            | Primitive::StoreF16 => 8,
        }
    }

    /// Position in [`Primitive::ALL`].
    pub fn index(self) -> u32 {
        self as u32
    }

    /// Signature in CLIF.
    pub fn signature(self) -> Signature {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params = vec![AbiParam::new(types::I64); self.arity()];
        signature
    }

    /// Bytes of packing space that a dot of these sizes may use: both operands, padded to any vector width.
    pub fn dot_pack_bytes(m: usize, n: usize, k: usize) -> usize {
        4 * k * (m.next_multiple_of(32) + n.next_multiple_of(64)) + 128
    }
}
