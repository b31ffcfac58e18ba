//! Floats of 16 bits: how they lie in memory, and their conversion from and to f32, for scalars and for vectors of four.
//!
//! Cranelift has no instruction for either type, so conversions are made of integer and f32 operations. A narrow value in a
//! register is the f32 of equal value.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use linc_tile::Elem;

use crate::emit::{CAST, Emitter};

/// A float type of 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Half {
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE binary16.
    F16,
}

impl Half {
    /// The type of elements that are such.
    pub(crate) fn of(elem: Elem) -> Option<Half> {
        match elem {
            Elem::Bf16 => Some(Half::Bf16),
            Elem::F16 => Some(Half::F16),
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => None,
        }
    }
}

/// Distance of the exponent biases of f32 and binary16, at the place of an f32's exponent.
const REBIAS: u32 = (127 - 15) << 23;
/// Smallest normal binary16 (2^-14) as the bits of an f32.
const SMALLEST: u32 = (127 - 14) << 23;
/// 65536, where infinity begins, as the bits of an f32.
const BEYOND: u32 = (127 + 16) << 23;

impl Emitter<'_> {
    /// f32 to the nearest number of the type, ties to even, as f32; NaN stays NaN.
    pub(crate) fn round(&mut self, half: Half, a: Value) -> Value {
        match half {
            Half::Bf16 => self.round_bf16(a),
            Half::F16 => self.round_f16(a),
        }
    }

    /// 16 bits, zero-extended in an integer of 32, as f32.
    pub(crate) fn widen(&mut self, half: Half, bits: Value) -> Value {
        match half {
            Half::Bf16 => {
                let float = self.float_like(bits);
                let bits = self.b.ins().ishl_imm_u(bits, 16);
                self.b.ins().bitcast(float, CAST, bits)
            }
            Half::F16 => self.widen_f16(bits),
        }
    }

    /// f32 of the type's precision as 16 bits in an integer of 32.
    pub(crate) fn narrow(&mut self, half: Half, a: Value) -> Value {
        match half {
            Half::Bf16 => {
                let int = self.int_like(a);
                let bits = self.b.ins().bitcast(int, CAST, a);
                self.b.ins().ushr_imm_u(bits, 16)
            }
            Half::F16 => self.narrow_f16(a),
        }
    }

    fn round_bf16(&mut self, a: Value) -> Value {
        let (float, int) = (self.b.func.dfg.value_type(a), self.int_like(a));
        let bits = self.b.ins().bitcast(int, CAST, a);
        let shifted = self.b.ins().ushr_imm_u(bits, 16);
        let [one, half, high, quiet] =
            [1, 0x7fff, 0xffff_0000, 0x0040_0000].map(|bits| self.int_constant(int, bits));
        let odd = self.b.ins().band(shifted, one);
        let sum = self.b.ins().iadd(bits, half);
        let sum = self.b.ins().iadd(sum, odd);
        let rounded = self.b.ins().band(sum, high);
        let nan = self.b.ins().bor(bits, quiet);
        let nan = self.b.ins().band(nan, high);
        let is_nan = self.b.ins().fcmp(FloatCC::Unordered, a, a);
        let bits = self.choose(is_nan, nan, rounded);
        self.b.ins().bitcast(float, CAST, bits)
    }

    /// Adds a power of two so large that the sum's last bit is binary16's, and takes it away again: f32 addition
    /// rounds to nearest even, and the difference is exact.
    fn round_f16(&mut self, a: Value) -> Value {
        let (float, int) = (self.b.func.dfg.value_type(a), self.int_like(a));
        let bits = self.b.ins().bitcast(int, CAST, a);
        let [magnitude, exponent] = [0x7fff_ffff, 0x7f80_0000].map(|mask| self.int_constant(int, mask));
        let size = self.b.ins().band(bits, magnitude);
        let sign = self.b.ins().bxor(bits, size);
        let power = self.b.ins().band(size, exponent);
        // The spacing of subnormal numbers is that of the smallest normal ones; what is beyond the range only must
        // stay there. For infinity and NaN the sum is one again.
        let (least, most) = (self.int_constant(int, SMALLEST), self.int_constant(int, BEYOND));
        let small = self.b.ins().icmp(IntCC::SignedLessThan, power, least);
        let power = self.choose(small, least, power);
        let large = self.b.ins().icmp(IntCC::SignedGreaterThan, power, most);
        let power = self.choose(large, most, power);
        // f32 has 13 bits more.
        let shift = self.int_constant(int, 13 << 23);
        let power = self.b.ins().iadd(power, shift);
        let power = self.b.ins().bitcast(float, CAST, power);
        let size = self.b.ins().bitcast(float, CAST, size);
        let sum = self.b.ins().fadd(size, power);
        let rounded = self.b.ins().fsub(sum, power);
        let (beyond, infinity) =
            (self.float_constant(float, BEYOND), self.float_constant(float, 0x7f80_0000));
        let overflows = self.b.ins().fcmp(FloatCC::GreaterThanOrEqual, rounded, beyond);
        let rounded = self.choose(overflows, infinity, rounded);
        let rounded = self.b.ins().bitcast(int, CAST, rounded);
        let rounded = self.b.ins().bor(rounded, sign);
        self.b.ins().bitcast(float, CAST, rounded)
    }

    fn widen_f16(&mut self, bits: Value) -> Value {
        let (int, float) = (self.b.func.dfg.value_type(bits), self.float_like(bits));
        let magnitude = self.int_constant(int, 0x7fff);
        let size = self.b.ins().band(bits, magnitude);
        let sign = self.b.ins().bxor(bits, size);
        let sign = self.b.ins().ishl_imm_u(sign, 16);
        let size = self.b.ins().ishl_imm_u(size, 13);
        let rebias = self.int_constant(int, REBIAS);
        let normal = self.b.ins().iadd(size, rebias);
        // An exponent of all ones moves up twice, to f32's.
        let special = self.b.ins().iadd(normal, rebias);
        // A subnormal number is what the mantissa adds to 2^-14 in a float of that exponent.
        let least = self.int_constant(int, SMALLEST);
        let above = self.b.ins().iadd(size, least);
        let above = self.b.ins().bitcast(float, CAST, above);
        let smallest = self.float_constant(float, SMALLEST);
        let subnormal = self.b.ins().fsub(above, smallest);
        let subnormal = self.b.ins().bitcast(int, CAST, subnormal);
        let (first, last) = (self.int_constant(int, 1 << 23), self.int_constant(int, 31 << 23));
        let is_subnormal = self.b.ins().icmp(IntCC::SignedLessThan, size, first);
        let is_special = self.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, size, last);
        let wide = self.choose(is_subnormal, subnormal, normal);
        let wide = self.choose(is_special, special, wide);
        let wide = self.b.ins().bor(wide, sign);
        self.b.ins().bitcast(float, CAST, wide)
    }

    fn narrow_f16(&mut self, a: Value) -> Value {
        let (float, int) = (self.b.func.dfg.value_type(a), self.int_like(a));
        let bits = self.b.ins().bitcast(int, CAST, a);
        let magnitude = self.int_constant(int, 0x7fff_ffff);
        let size = self.b.ins().band(bits, magnitude);
        let sign = self.b.ins().bxor(bits, size);
        let sign = self.b.ins().ushr_imm_u(sign, 16);
        let rebias = self.int_constant(int, REBIAS);
        let normal = self.b.ins().isub(size, rebias);
        let normal = self.b.ins().ushr_imm_u(normal, 13);
        // The last bit of a float between 1/2 and 1 is that of a subnormal number.
        let half = self.float_constant(float, 126 << 23);
        let value = self.b.ins().bitcast(float, CAST, size);
        let sum = self.b.ins().fadd(value, half);
        let sum = self.b.ins().bitcast(int, CAST, sum);
        let half = self.int_constant(int, 126 << 23);
        let subnormal = self.b.ins().isub(sum, half);
        let least = self.int_constant(int, SMALLEST);
        let is_subnormal = self.b.ins().icmp(IntCC::SignedLessThan, size, least);
        let narrow = self.choose(is_subnormal, subnormal, normal);
        let beyond = self.int_constant(int, BEYOND);
        let is_special = self.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, size, beyond);
        let (infinity, nan) = (self.int_constant(int, 0x7c00), self.int_constant(int, 0x7e00));
        let is_nan = self.b.ins().fcmp(FloatCC::Unordered, a, a);
        let special = self.choose(is_nan, nan, infinity);
        let narrow = self.choose(is_special, special, narrow);
        self.b.ins().bor(narrow, sign)
    }

    /// The integer type with as many lanes as the value.
    fn int_like(&self, a: Value) -> Type {
        if self.b.func.dfg.value_type(a).is_vector() { types::I32X4 } else { types::I32 }
    }

    /// f32 with as many lanes as the value.
    fn float_like(&self, a: Value) -> Type {
        if self.b.func.dfg.value_type(a).is_vector() { types::F32X4 } else { types::F32 }
    }

    fn int_constant(&mut self, ty: Type, bits: u32) -> Value {
        let c = self.b.ins().iconst(types::I32, i64::from(bits));
        if ty.is_vector() { self.b.ins().splat(ty, c) } else { c }
    }

    fn float_constant(&mut self, ty: Type, bits: u32) -> Value {
        let c = self.b.ins().f32const(f32::from_bits(bits));
        if ty.is_vector() { self.b.ins().splat(ty, c) } else { c }
    }
}
