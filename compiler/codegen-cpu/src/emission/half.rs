//! Conversions between f32 and floats of 16 bits, for scalars and for vectors of four.
//!
//! Cranelift has no instruction for either type, so conversions are made of integer and f32 operations. A narrow value in a
//! register is the f32 of equal value.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use cranelift_frontend::FunctionBuilder;

use super::arithmetic::{CAST, choose};
use crate::schedule::half::Half;

/// Distance of the exponent biases of f32 and binary16, at the place of an f32's exponent.
const REBIAS: u32 = (127 - 15) << 23;
/// Smallest normal binary16 (2^-14) as the bits of an f32.
const SMALLEST: u32 = (127 - 14) << 23;
/// 65536, where infinity begins, as the bits of an f32.
const BEYOND: u32 = (127 + 16) << 23;

/// f32 to the nearest number of the type, ties to even, as f32; NaN stays NaN.
pub(crate) fn round(f: &mut FunctionBuilder<'_>, half: Half, a: Value) -> Value {
    match half {
        Half::Bf16 => round_bf16(f, a),
        Half::F16 => round_f16(f, a),
    }
}

/// 16 bits, zero-extended in an integer of 32, as f32.
pub(crate) fn widen(f: &mut FunctionBuilder<'_>, half: Half, bits: Value) -> Value {
    match half {
        Half::Bf16 => {
            let float = float_like(f, bits);
            let bits = f.ins().ishl_imm_u(bits, 16);
            f.ins().bitcast(float, CAST, bits)
        }
        Half::F16 => widen_f16(f, bits),
    }
}

/// f32 of the type's precision as 16 bits in an integer of 32.
pub(crate) fn narrow(f: &mut FunctionBuilder<'_>, half: Half, a: Value) -> Value {
    match half {
        Half::Bf16 => {
            let int = int_like(f, a);
            let bits = f.ins().bitcast(int, CAST, a);
            f.ins().ushr_imm_u(bits, 16)
        }
        Half::F16 => narrow_f16(f, a),
    }
}

fn round_bf16(f: &mut FunctionBuilder<'_>, a: Value) -> Value {
    let (float, int) = (f.func.dfg.value_type(a), int_like(f, a));
    let bits = f.ins().bitcast(int, CAST, a);
    let shifted = f.ins().ushr_imm_u(bits, 16);
    let [one, half, high, quiet] =
        [1, 0x7fff, 0xffff_0000, 0x0040_0000].map(|bits| int_constant(f, int, bits));
    let odd = f.ins().band(shifted, one);
    let sum = f.ins().iadd(bits, half);
    let sum = f.ins().iadd(sum, odd);
    let rounded = f.ins().band(sum, high);
    let nan = f.ins().bor(bits, quiet);
    let nan = f.ins().band(nan, high);
    let is_nan = f.ins().fcmp(FloatCC::Unordered, a, a);
    let bits = choose(f, is_nan, nan, rounded);
    f.ins().bitcast(float, CAST, bits)
}

/// Adds a power of two so large that the sum's last bit is binary16's, and takes it away again: f32 addition
/// rounds to nearest even, and the difference is exact.
fn round_f16(f: &mut FunctionBuilder<'_>, a: Value) -> Value {
    let (float, int) = (f.func.dfg.value_type(a), int_like(f, a));
    let bits = f.ins().bitcast(int, CAST, a);
    let [magnitude, exponent] = [0x7fff_ffff, 0x7f80_0000].map(|mask| int_constant(f, int, mask));
    let size = f.ins().band(bits, magnitude);
    let sign = f.ins().bxor(bits, size);
    let power = f.ins().band(size, exponent);
    // The spacing of subnormal numbers is that of the smallest normal ones; what is beyond the range only must
    // stay there. For infinity and NaN the sum is one again.
    let (least, most) = (int_constant(f, int, SMALLEST), int_constant(f, int, BEYOND));
    let small = f.ins().icmp(IntCC::SignedLessThan, power, least);
    let power = choose(f, small, least, power);
    let large = f.ins().icmp(IntCC::SignedGreaterThan, power, most);
    let power = choose(f, large, most, power);
    // f32 has 13 bits more.
    let shift = int_constant(f, int, 13 << 23);
    let power = f.ins().iadd(power, shift);
    let power = f.ins().bitcast(float, CAST, power);
    let size = f.ins().bitcast(float, CAST, size);
    let sum = f.ins().fadd(size, power);
    let rounded = f.ins().fsub(sum, power);
    let (beyond, infinity) = (float_constant(f, float, BEYOND), float_constant(f, float, 0x7f80_0000));
    let overflows = f.ins().fcmp(FloatCC::GreaterThanOrEqual, rounded, beyond);
    let rounded = choose(f, overflows, infinity, rounded);
    let rounded = f.ins().bitcast(int, CAST, rounded);
    let rounded = f.ins().bor(rounded, sign);
    f.ins().bitcast(float, CAST, rounded)
}

fn widen_f16(f: &mut FunctionBuilder<'_>, bits: Value) -> Value {
    let (int, float) = (f.func.dfg.value_type(bits), float_like(f, bits));
    let magnitude = int_constant(f, int, 0x7fff);
    let size = f.ins().band(bits, magnitude);
    let sign = f.ins().bxor(bits, size);
    let sign = f.ins().ishl_imm_u(sign, 16);
    let size = f.ins().ishl_imm_u(size, 13);
    let rebias = int_constant(f, int, REBIAS);
    let normal = f.ins().iadd(size, rebias);
    // An exponent of all ones moves up twice, to f32's.
    let special = f.ins().iadd(normal, rebias);
    // A subnormal number is what the mantissa adds to 2^-14 in a float of that exponent.
    let least = int_constant(f, int, SMALLEST);
    let above = f.ins().iadd(size, least);
    let above = f.ins().bitcast(float, CAST, above);
    let smallest = float_constant(f, float, SMALLEST);
    let subnormal = f.ins().fsub(above, smallest);
    let subnormal = f.ins().bitcast(int, CAST, subnormal);
    let (first, last) = (int_constant(f, int, 1 << 23), int_constant(f, int, 31 << 23));
    let is_subnormal = f.ins().icmp(IntCC::SignedLessThan, size, first);
    let is_special = f.ins().icmp(IntCC::SignedGreaterThanOrEqual, size, last);
    let wide = choose(f, is_subnormal, subnormal, normal);
    let wide = choose(f, is_special, special, wide);
    let wide = f.ins().bor(wide, sign);
    f.ins().bitcast(float, CAST, wide)
}

fn narrow_f16(f: &mut FunctionBuilder<'_>, a: Value) -> Value {
    let (float, int) = (f.func.dfg.value_type(a), int_like(f, a));
    let bits = f.ins().bitcast(int, CAST, a);
    let magnitude = int_constant(f, int, 0x7fff_ffff);
    let size = f.ins().band(bits, magnitude);
    let sign = f.ins().bxor(bits, size);
    let sign = f.ins().ushr_imm_u(sign, 16);
    let rebias = int_constant(f, int, REBIAS);
    let normal = f.ins().isub(size, rebias);
    let normal = f.ins().ushr_imm_u(normal, 13);
    // The last bit of a float between 1/2 and 1 is that of a subnormal number.
    let half = float_constant(f, float, 126 << 23);
    let value = f.ins().bitcast(float, CAST, size);
    let sum = f.ins().fadd(value, half);
    let sum = f.ins().bitcast(int, CAST, sum);
    let half = int_constant(f, int, 126 << 23);
    let subnormal = f.ins().isub(sum, half);
    let least = int_constant(f, int, SMALLEST);
    let is_subnormal = f.ins().icmp(IntCC::SignedLessThan, size, least);
    let narrow = choose(f, is_subnormal, subnormal, normal);
    let beyond = int_constant(f, int, BEYOND);
    let is_special = f.ins().icmp(IntCC::SignedGreaterThanOrEqual, size, beyond);
    let (infinity, nan) = (int_constant(f, int, 0x7c00), int_constant(f, int, 0x7e00));
    let is_nan = f.ins().fcmp(FloatCC::Unordered, a, a);
    let special = choose(f, is_nan, nan, infinity);
    let narrow = choose(f, is_special, special, narrow);
    f.ins().bor(narrow, sign)
}

/// The integer type with as many lanes as the value.
fn int_like(f: &FunctionBuilder<'_>, a: Value) -> Type {
    if f.func.dfg.value_type(a).is_vector() { types::I32X4 } else { types::I32 }
}

/// f32 with as many lanes as the value.
fn float_like(f: &FunctionBuilder<'_>, a: Value) -> Type {
    if f.func.dfg.value_type(a).is_vector() { types::F32X4 } else { types::F32 }
}

fn int_constant(f: &mut FunctionBuilder<'_>, ty: Type, bits: u32) -> Value {
    let c = f.ins().iconst(types::I32, i64::from(bits));
    if ty.is_vector() { f.ins().splat(ty, c) } else { c }
}

fn float_constant(f: &mut FunctionBuilder<'_>, ty: Type, bits: u32) -> Value {
    let c = f.ins().f32const(f32::from_bits(bits));
    if ty.is_vector() { f.ins().splat(ty, c) } else { c }
}
