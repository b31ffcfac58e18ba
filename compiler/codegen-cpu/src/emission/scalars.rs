//! Operations on scalars.

use cranelift_codegen::ir::{InstBuilder, Value, types};
use linc_tile::{Elem, Op, Unary, ValueId};

use super::code::{Code, MEM, clif_scalar};
use super::{arithmetic, half};
use crate::primitive::Primitive;
use crate::schedule::half::Half;
use crate::schedule::node::Storage;

/// Writes a scalar to memory.
pub(crate) fn store_scalar(code: &mut Code<'_>, to: Storage, value: ValueId) {
    let address = code.pointer(to);
    let bits = code.scalar(value);
    store_bits(code, code.kernel.ty(value).elem, bits, address);
}

/// Writes one element as it is in a register.
pub(crate) fn store_bits(code: &mut Code<'_>, elem: Elem, bits: Value, address: Value) {
    if let Some(half) = Half::of(elem) {
        let bits = half::narrow(&mut code.f, half, bits);
        code.f.ins().istore16(MEM, bits, address, 0);
    } else {
        code.f.ins().store(MEM, bits, address, 0);
    }
}

/// An operation of scalars, or a load of one.
pub(crate) fn scalar_op(code: &mut Code<'_>, result: ValueId, op: &Op) -> Result<Value, String> {
    let elem = code.kernel.ty(result).elem;
    let value = match op {
        Op::ConstF(c) => code.f.ins().f32const(*c as f32),
        Op::ConstI(c) => match elem {
            Elem::I32 => code.f.ins().iconst(types::I32, i64::from(*c as i32 as u32)),
            Elem::Index | Elem::F32 | Elem::Bf16 | Elem::F16 | Elem::Bool => code.iconst(*c),
        },
        Op::ProgramId(axis) => code.pids[*axis],
        Op::Unary(op, a) => {
            let a = code.scalar(*a);
            scalar_unary(code, *op, a)
        }
        Op::Binary(op, a, b) => {
            let (a, b) = (code.scalar(*a), code.scalar(*b));
            arithmetic::binary(&mut code.f, *op, elem, a, b)
        }
        Op::Fma(a, b, c) => {
            let [a, b, c] = [*a, *b, *c].map(|v| code.scalar(v));
            arithmetic::fma(&mut code.f, code.options.fma, a, b, c)
        }
        Op::Compare(op, a, b) => {
            let elem = code.kernel.ty(*a).elem;
            let (a, b) = (code.scalar(*a), code.scalar(*b));
            arithmetic::compare(&mut code.f, *op, elem, a, b)
        }
        Op::Select(c, a, b) => {
            let [c, a, b] = [*c, *a, *b].map(|v| code.scalar(v));
            code.f.ins().select(c, a, b)
        }
        Op::Cast(a) => {
            let from = code.kernel.ty(*a).elem;
            let a = code.scalar(*a);
            match (from, elem) {
                (Elem::I32 | Elem::Index, Elem::F32) => code.f.ins().fcvt_from_sint(types::F32, a),
                (Elem::F32, Elem::I32) => code.f.ins().fcvt_to_sint_sat(types::I32, a),
                (Elem::I32, Elem::Index) => code.f.ins().sextend(types::I64, a),
                (Elem::Index, Elem::I32) => code.f.ins().ireduce(types::I32, a),
                (Elem::F32, Elem::Bf16) => half::round(&mut code.f, Half::Bf16, a),
                (Elem::F32, Elem::F16) => half::round(&mut code.f, Half::F16, a),
                (Elem::Bf16 | Elem::F16, Elem::F32) => a,
                (from, to) => return Err(format!("a cast of a scalar from {from:?} to {to:?}")),
            }
        }
        Op::Load(view) => {
            let place = Storage::Memory { param: view.param, offset: view.offset };
            let address = code.pointer(place);
            if let Some(half) = Half::of(elem) {
                let bits = code.f.ins().uload16(types::I32, MEM, address, 0);
                half::widen(&mut code.f, half, bits)
            } else {
                code.f.ins().load(clif_scalar(elem), MEM, address, 0)
            }
        }
        Op::Splat(_)
        | Op::Expand { .. }
        | Op::Iota { .. }
        | Op::Store(..)
        | Op::Scatter { .. }
        | Op::Dot { .. }
        | Op::Reduce { .. }
        | Op::Scan { .. }
        | Op::Transpose(_)
        | Op::For { .. }
        | Op::If { .. } => return Err(format!("{op:?} of a scalar")),
    };
    Ok(value)
}

fn scalar_unary(code: &mut Code<'_>, op: Unary, a: Value) -> Value {
    let function = match op {
        Unary::Exp => Primitive::Exp,
        Unary::Exp2 => Primitive::Exp2,
        Unary::Log => Primitive::Log,
        Unary::Sigmoid => Primitive::Sigmoid,
        Unary::Tanh => Primitive::Tanh,
        Unary::Not => return code.f.ins().bxor_imm_u(a, 1),
        Unary::Neg | Unary::Abs | Unary::Sqrt | Unary::Rsqrt | Unary::Recip => {
            return arithmetic::unary(&mut code.f, op, a);
        }
    };
    let place = code.plus(code.scratch, code.slots.scalar as i64);
    code.f.ins().store(MEM, a, place, 0);
    let one = code.iconst(1);
    code.call(function, &[place, place, one]);
    code.f.ins().load(types::F32, MEM, place, 0)
}
