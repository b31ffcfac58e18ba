//! Pointwise operations as C++ expressions.

use linc_tile::{Binary, Compare, Elem, Op, Unary, ValueId};

use crate::emit::Emitter;

impl Emitter<'_> {
    /// A pointwise operation on elements at the slots.
    pub(crate) fn expression(&mut self, op: &Op, slots: [&str; 2]) -> String {
        let mut x = |v: &ValueId| self.element(*v, slots);
        match op {
            Op::Unary(f, a) => unary(*f, &x(a)),
            Op::Binary(f, a, b) => {
                let (left, right) = (x(a), x(b));
                binary(*f, self.kernel.ty(*a).elem, &left, &right)
            }
            Op::Fma(a, b, c) => format!("fmaf({}, {}, {})", x(a), x(b), x(c)),
            Op::Compare(f, a, b) => format!("{} {} {}", x(a), compare(*f), x(b)),
            Op::Select(c, a, b) => format!("{} ? {} : {}", x(c), x(a), x(b)),
            other => unreachable!("{other:?} is not pointwise"),
        }
    }

    /// A cast that changes registers.
    pub(crate) fn cast_text(&mut self, from: ValueId, to: ValueId, slots: [&str; 2]) -> String {
        let x = self.element(from, slots);
        match (self.kernel.ty(from).elem, self.kernel.ty(to).elem) {
            (Elem::Bf16, Elem::F32) => format!("round_bf16({x})"),
            (Elem::F16, Elem::F32) => format!("round_f16({x})"),
            (_, elem) => format!("({}){x}", c_type(elem)),
        }
    }
}

/// The type of one element in registers.
pub(crate) fn c_type(elem: Elem) -> &'static str {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => "float",
        Elem::I32 => "int",
        Elem::Index => "index",
        Elem::Bool => "bool",
    }
}

fn unary(op: Unary, x: &str) -> String {
    match op {
        Unary::Neg => format!("-({x})"),
        Unary::Abs => format!("fabsf({x})"),
        Unary::Exp => format!("exp_fast({x})"),
        Unary::Exp2 => format!("exp2_fast({x})"),
        Unary::Log => format!("logf({x})"),
        Unary::Sqrt => format!("sqrtf({x})"),
        Unary::Rsqrt => format!("rsqrt({x})"),
        Unary::Recip => format!("recip({x})"),
        Unary::Sigmoid => format!("sigmoid({x})"),
        Unary::Tanh => format!("tanhf({x})"),
        Unary::Not => format!("!{x}"),
    }
}

fn binary(op: Binary, elem: Elem, x: &str, y: &str) -> String {
    // Two literals would be computed in int.
    let literals = elem == Elem::Index && [x, y].iter().all(|t| t.parse::<i64>().is_ok());
    let long = if literals { "ll" } else { "" };
    let infix = |op: &str| format!("{x}{long} {op} {y}");
    match (op, elem) {
        // Overflow of int is undefined in C++; that of the tile program wraps.
        (Binary::Add, Elem::I32) => format!("int_add({x}, {y})"),
        (Binary::Sub, Elem::I32) => format!("int_sub({x}, {y})"),
        (Binary::Mul, Elem::I32) => format!("int_mul({x}, {y})"),
        (Binary::Add, _) => infix("+"),
        (Binary::Sub, _) => infix("-"),
        (Binary::Mul, _) => infix("*"),
        (Binary::Div, _) => infix("/"),
        (Binary::Rem, _) => infix("%"),
        (Binary::And, _) => infix("&&"),
        (Binary::Or, _) => infix("||"),
        (Binary::Min, Elem::F32 | Elem::Bf16 | Elem::F16) => format!("minimum({x}, {y})"),
        (Binary::Max, Elem::F32 | Elem::Bf16 | Elem::F16) => format!("maximum({x}, {y})"),
        (Binary::Min, Elem::Index) => format!("index_min({x}, {y})"),
        (Binary::Max, Elem::Index) => format!("index_max({x}, {y})"),
        (Binary::Min, Elem::I32 | Elem::Bool) => format!("int_min({x}, {y})"),
        (Binary::Max, Elem::I32 | Elem::Bool) => format!("int_max({x}, {y})"),
    }
}

fn compare(op: Compare) -> &'static str {
    match op {
        Compare::Eq => "==",
        Compare::Ne => "!=",
        Compare::Lt => "<",
        Compare::Le => "<=",
        Compare::Gt => ">",
        Compare::Ge => ">=",
    }
}
