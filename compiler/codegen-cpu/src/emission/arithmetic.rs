//! Arithmetic that scalars and vectors share.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_frontend::FunctionBuilder;
use linc_tile::{Binary, Compare, Elem, Unary};

/// Reinterpretation between vectors needs a byte order.
pub(crate) const CAST: MemFlagsData = MemFlagsData::new().with_endianness(Endianness::Little);

/// Functions of one operand, of scalars and vectors.
pub(crate) fn unary(f: &mut FunctionBuilder<'_>, op: Unary, a: Value) -> Value {
    let ty = f.func.dfg.value_type(a);
    match op {
        Unary::Neg => f.ins().fneg(a),
        Unary::Abs => f.ins().fabs(a),
        Unary::Sqrt => f.ins().sqrt(a),
        Unary::Rsqrt => {
            let root = f.ins().sqrt(a);
            let one = float(f, 1.0, ty);
            f.ins().fdiv(one, root)
        }
        Unary::Recip => {
            let one = float(f, 1.0, ty);
            f.ins().fdiv(one, a)
        }
        Unary::Not => f.ins().bnot(a),
        Unary::Exp | Unary::Exp2 | Unary::Log | Unary::Sigmoid | Unary::Tanh => {
            unreachable!("transcendental functions are primitives")
        }
    }
}

fn float(f: &mut FunctionBuilder<'_>, value: f32, ty: Type) -> Value {
    let value = f.ins().f32const(value);
    if ty.is_vector() { f.ins().splat(ty, value) } else { value }
}

/// `a·b + c`, of scalars or vectors, rounded once where the machine has it `fused`.
pub(crate) fn fma(f: &mut FunctionBuilder<'_>, fused: bool, a: Value, b: Value, c: Value) -> Value {
    if fused {
        return f.ins().fma(a, b, c);
    }
    let product = f.ins().fmul(a, b);
    f.ins().fadd(product, c)
}

/// Arithmetic of scalars, or of vectors but for integer division.
pub(crate) fn binary(f: &mut FunctionBuilder<'_>, op: Binary, elem: Elem, a: Value, b: Value) -> Value {
    let float = is_float(elem);
    match op {
        Binary::Add if float => f.ins().fadd(a, b),
        Binary::Sub if float => f.ins().fsub(a, b),
        Binary::Mul if float => f.ins().fmul(a, b),
        Binary::Div if float => f.ins().fdiv(a, b),
        Binary::Add => f.ins().iadd(a, b),
        Binary::Sub => f.ins().isub(a, b),
        Binary::Mul => f.ins().imul(a, b),
        Binary::Div => divide(f, a, b, false),
        Binary::Rem => divide(f, a, b, true),
        Binary::Min => extreme(f, Compare::Lt, elem, a, b),
        Binary::Max => extreme(f, Compare::Gt, elem, a, b),
        Binary::And => f.ins().band(a, b),
        Binary::Or => f.ins().bor(a, b),
    }
}

/// The smaller or larger operand; NaN if either is.
fn extreme(f: &mut FunctionBuilder<'_>, op: Compare, elem: Elem, a: Value, b: Value) -> Value {
    let wins = compare(f, op, elem, a, b);
    // In this form, which is one instruction for vectors, a NaN of `b` wins and one of `a` loses.
    let value = choose(f, wins, a, b);
    if !is_float(elem) {
        return value;
    }
    let nan = f.ins().fcmp(FloatCC::Unordered, a, a);
    choose(f, nan, a, value)
}

/// Truncating division that never traps: by 0 it gives 0 (and the dividend as remainder), and it wraps.
fn divide(f: &mut FunctionBuilder<'_>, a: Value, b: Value, remainder: bool) -> Value {
    let ty = f.func.dfg.value_type(a);
    let zero = f.ins().iconst(ty, 0);
    let one = f.ins().iconst(ty, 1);
    let minus_one = f.ins().iconst(ty, if ty == types::I32 { 0xffff_ffff } else { -1 });
    let by_zero = f.ins().icmp(IntCC::Equal, b, zero);
    let by_minus_one = f.ins().icmp(IntCC::Equal, b, minus_one);
    let odd = f.ins().bor(by_zero, by_minus_one);
    let safe = f.ins().select(odd, one, b);
    if remainder {
        let rest = f.ins().srem(a, safe);
        return f.ins().select(by_zero, a, rest);
    }
    let quotient = f.ins().sdiv(a, safe);
    let negative = f.ins().ineg(a);
    let quotient = f.ins().select(by_minus_one, negative, quotient);
    f.ins().select(by_zero, zero, quotient)
}

/// A comparison: a truth value for scalars, a mask for vectors.
pub(crate) fn compare(f: &mut FunctionBuilder<'_>, op: Compare, elem: Elem, a: Value, b: Value) -> Value {
    if is_float(elem) {
        let cc = match op {
            Compare::Eq => FloatCC::Equal,
            Compare::Ne => FloatCC::NotEqual,
            Compare::Lt => FloatCC::LessThan,
            Compare::Le => FloatCC::LessThanOrEqual,
            Compare::Gt => FloatCC::GreaterThan,
            Compare::Ge => FloatCC::GreaterThanOrEqual,
        };
        return f.ins().fcmp(cc, a, b);
    }
    let cc = match op {
        Compare::Eq => IntCC::Equal,
        Compare::Ne => IntCC::NotEqual,
        Compare::Lt => IntCC::SignedLessThan,
        Compare::Le => IntCC::SignedLessThanOrEqual,
        Compare::Gt => IntCC::SignedGreaterThan,
        Compare::Ge => IntCC::SignedGreaterThanOrEqual,
    };
    f.ins().icmp(cc, a, b)
}

/// `c ? a : b`, by a truth value or a mask.
pub(crate) fn choose(f: &mut FunctionBuilder<'_>, c: Value, a: Value, b: Value) -> Value {
    let ty = f.func.dfg.value_type(a);
    if !ty.is_vector() {
        return f.ins().select(c, a, b);
    }
    let mask = f.ins().bitcast(ty, CAST, c);
    f.ins().bitselect(mask, a, b)
}

/// Whether values of the type are f32 in registers.
fn is_float(elem: Elem) -> bool {
    elem == Elem::F32 || elem.is_narrow()
}
