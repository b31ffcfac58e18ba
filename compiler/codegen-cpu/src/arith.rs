//! Operations on scalars, and the arithmetic that scalars and vectors share, to CLIF.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use linc_tile::{Binary, Compare, Elem, Op, Unary, ValueId};

use crate::emit::{CAST, Emitter, MEM};
use crate::half::Half;
use crate::node::Place;
use crate::primitive::Primitive;

impl Emitter<'_> {
    pub(crate) fn store_scalar(&mut self, to: Place, value: ValueId) {
        let address = self.pointer(to);
        let bits = self.scalar(value);
        self.store_bits(self.kernel.ty(value).elem, bits, address);
    }

    /// Writes one element as it is in a register.
    pub(crate) fn store_bits(&mut self, elem: Elem, bits: Value, address: Value) {
        if let Some(half) = Half::of(elem) {
            let bits = self.narrow(half, bits);
            self.b.ins().istore16(MEM, bits, address, 0);
        } else {
            self.b.ins().store(MEM, bits, address, 0);
        }
    }

    pub(crate) fn scalar_op(&mut self, result: ValueId, op: &Op) -> Result<Value, String> {
        let elem = self.kernel.ty(result).elem;
        let value = match op {
            Op::ConstF(c) => self.b.ins().f32const(*c as f32),
            Op::ConstI(c) => match elem {
                Elem::I32 => self.b.ins().iconst(types::I32, i64::from(*c as i32 as u32)),
                Elem::Index | Elem::F32 | Elem::Bf16 | Elem::F16 | Elem::Bool => self.iconst(*c),
            },
            Op::ProgramId(axis) => self.pids[*axis],
            Op::Unary(op, a) => {
                let a = self.scalar(*a);
                self.scalar_unary(*op, a)
            }
            Op::Binary(op, a, b) => {
                let (a, b) = (self.scalar(*a), self.scalar(*b));
                self.binary(*op, elem, a, b)
            }
            Op::Fma(a, b, c) => {
                let [a, b, c] = [*a, *b, *c].map(|v| self.scalar(v));
                self.fma(a, b, c)
            }
            Op::Compare(op, a, b) => {
                let elem = self.kernel.ty(*a).elem;
                let (a, b) = (self.scalar(*a), self.scalar(*b));
                self.compare(*op, elem, a, b)
            }
            Op::Select(c, a, b) => {
                let [c, a, b] = [*c, *a, *b].map(|v| self.scalar(v));
                self.b.ins().select(c, a, b)
            }
            Op::Cast(a) => {
                let from = self.kernel.ty(*a).elem;
                let a = self.scalar(*a);
                match (from, elem) {
                    (Elem::I32 | Elem::Index, Elem::F32) => self.b.ins().fcvt_from_sint(types::F32, a),
                    (Elem::F32, Elem::I32) => self.b.ins().fcvt_to_sint_sat(types::I32, a),
                    (Elem::I32, Elem::Index) => self.b.ins().sextend(types::I64, a),
                    (Elem::Index, Elem::I32) => self.b.ins().ireduce(types::I32, a),
                    (Elem::F32, Elem::Bf16) => self.round(Half::Bf16, a),
                    (Elem::F32, Elem::F16) => self.round(Half::F16, a),
                    (Elem::Bf16 | Elem::F16, Elem::F32) => a,
                    (from, to) => return Err(format!("a cast of a scalar from {from:?} to {to:?}")),
                }
            }
            Op::Load(view) => {
                let place = Place::Memory { param: view.param, offset: view.offset };
                let address = self.pointer(place);
                if let Some(half) = Half::of(elem) {
                    let bits = self.b.ins().uload16(types::I32, MEM, address, 0);
                    self.widen(half, bits)
                } else {
                    self.b.ins().load(clif_scalar(elem), MEM, address, 0)
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

    fn scalar_unary(&mut self, op: Unary, a: Value) -> Value {
        let function = match op {
            Unary::Exp => Primitive::Exp,
            Unary::Exp2 => Primitive::Exp2,
            Unary::Log => Primitive::Log,
            Unary::Sigmoid => Primitive::Sigmoid,
            Unary::Tanh => Primitive::Tanh,
            Unary::Not => return self.b.ins().bxor_imm_u(a, 1),
            Unary::Neg | Unary::Abs | Unary::Sqrt | Unary::Rsqrt | Unary::Recip => return self.unary(op, a),
        };
        let place = self.plus(self.scratch, self.slots.scalar as i64);
        self.b.ins().store(MEM, a, place, 0);
        let one = self.iconst(1);
        self.call(function, &[place, place, one]);
        self.b.ins().load(types::F32, MEM, place, 0)
    }

    /// Arithmetic of floats, of a scalar or vector.
    pub(crate) fn unary(&mut self, op: Unary, a: Value) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        match op {
            Unary::Neg => self.b.ins().fneg(a),
            Unary::Abs => self.b.ins().fabs(a),
            Unary::Sqrt => self.b.ins().sqrt(a),
            Unary::Rsqrt => {
                let root = self.b.ins().sqrt(a);
                let one = self.float(1.0, ty);
                self.b.ins().fdiv(one, root)
            }
            Unary::Recip => {
                let one = self.float(1.0, ty);
                self.b.ins().fdiv(one, a)
            }
            Unary::Not => self.b.ins().bnot(a),
            Unary::Exp | Unary::Exp2 | Unary::Log | Unary::Sigmoid | Unary::Tanh => {
                unreachable!("transcendental functions are primitives")
            }
        }
    }

    fn float(&mut self, value: f32, ty: Type) -> Value {
        let value = self.b.ins().f32const(value);
        if ty.is_vector() { self.b.ins().splat(ty, value) } else { value }
    }

    /// `a·b + c`, of scalars or vectors.
    pub(crate) fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.options.fma {
            return self.b.ins().fma(a, b, c);
        }
        let product = self.b.ins().fmul(a, b);
        self.b.ins().fadd(product, c)
    }

    /// Arithmetic of scalars, or of vectors but for integer division.
    pub(crate) fn binary(&mut self, op: Binary, elem: Elem, a: Value, b: Value) -> Value {
        let float = is_float(elem);
        match op {
            Binary::Add if float => self.b.ins().fadd(a, b),
            Binary::Sub if float => self.b.ins().fsub(a, b),
            Binary::Mul if float => self.b.ins().fmul(a, b),
            Binary::Div if float => self.b.ins().fdiv(a, b),
            Binary::Add => self.b.ins().iadd(a, b),
            Binary::Sub => self.b.ins().isub(a, b),
            Binary::Mul => self.b.ins().imul(a, b),
            Binary::Div => self.divide(a, b, false),
            Binary::Rem => self.divide(a, b, true),
            Binary::Min => self.extreme(Compare::Lt, elem, a, b),
            Binary::Max => self.extreme(Compare::Gt, elem, a, b),
            Binary::And => self.b.ins().band(a, b),
            Binary::Or => self.b.ins().bor(a, b),
        }
    }

    /// The smaller or larger operand; NaN if either is.
    fn extreme(&mut self, op: Compare, elem: Elem, a: Value, b: Value) -> Value {
        let wins = self.compare(op, elem, a, b);
        // In this form, which is one instruction for vectors, a NaN of `b` wins and one of `a` loses.
        let value = self.choose(wins, a, b);
        if !is_float(elem) {
            return value;
        }
        let nan = self.b.ins().fcmp(FloatCC::Unordered, a, a);
        self.choose(nan, a, value)
    }

    /// Truncating division that never traps: by 0 it gives 0 (and the dividend as remainder), and it wraps.
    fn divide(&mut self, a: Value, b: Value, remainder: bool) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        let zero = self.b.ins().iconst(ty, 0);
        let one = self.b.ins().iconst(ty, 1);
        let minus_one = self.b.ins().iconst(ty, if ty == types::I32 { 0xffff_ffff } else { -1 });
        let by_zero = self.b.ins().icmp(IntCC::Equal, b, zero);
        let by_minus_one = self.b.ins().icmp(IntCC::Equal, b, minus_one);
        let odd = self.b.ins().bor(by_zero, by_minus_one);
        let safe = self.b.ins().select(odd, one, b);
        if remainder {
            let rest = self.b.ins().srem(a, safe);
            return self.b.ins().select(by_zero, a, rest);
        }
        let quotient = self.b.ins().sdiv(a, safe);
        let negative = self.b.ins().ineg(a);
        let quotient = self.b.ins().select(by_minus_one, negative, quotient);
        self.b.ins().select(by_zero, zero, quotient)
    }

    /// A comparison: a truth value for scalars, a mask for vectors.
    pub(crate) fn compare(&mut self, op: Compare, elem: Elem, a: Value, b: Value) -> Value {
        if is_float(elem) {
            let cc = match op {
                Compare::Eq => FloatCC::Equal,
                Compare::Ne => FloatCC::NotEqual,
                Compare::Lt => FloatCC::LessThan,
                Compare::Le => FloatCC::LessThanOrEqual,
                Compare::Gt => FloatCC::GreaterThan,
                Compare::Ge => FloatCC::GreaterThanOrEqual,
            };
            return self.b.ins().fcmp(cc, a, b);
        }
        let cc = match op {
            Compare::Eq => IntCC::Equal,
            Compare::Ne => IntCC::NotEqual,
            Compare::Lt => IntCC::SignedLessThan,
            Compare::Le => IntCC::SignedLessThanOrEqual,
            Compare::Gt => IntCC::SignedGreaterThan,
            Compare::Ge => IntCC::SignedGreaterThanOrEqual,
        };
        self.b.ins().icmp(cc, a, b)
    }

    /// `c ? a : b`, by a truth value or a mask.
    pub(crate) fn choose(&mut self, c: Value, a: Value, b: Value) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        if !ty.is_vector() {
            return self.b.ins().select(c, a, b);
        }
        let mask = self.b.ins().bitcast(ty, CAST, c);
        self.b.ins().bitselect(mask, a, b)
    }
}

/// How a scalar is held in a register: short floats as f32, a Bool as a byte.
pub(crate) fn clif_scalar(elem: Elem) -> Type {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => types::F32,
        Elem::I32 => types::I32,
        Elem::Index => types::I64,
        Elem::Bool => types::I8,
    }
}

/// Whether values of the type are f32 in registers.
fn is_float(elem: Elem) -> bool {
    elem == Elem::F32 || elem.is_narrow()
}
