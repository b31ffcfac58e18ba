//! Pointwise operations as C++ expressions.

use linc_tile::{Binary, Compare, Elem, Op, Unary};

use super::spelling::register_type;

/// A pointwise operation on elements, given as C++ in the order of its operands, the first of which has that type.
pub(crate) fn pointwise(op: &Op, elem: Elem, operands: &[String]) -> String {
    match (op, operands) {
        (Op::Unary(f, _), [x]) => unary(*f, x),
        (Op::Binary(f, ..), [x, y]) => binary(*f, elem, x, y),
        (Op::Fma(..), [x, y, z]) => format!("fmaf({x}, {y}, {z})"),
        (Op::Compare(f, ..), [x, y]) => format!("{x} {} {y}", compare(*f)),
        (Op::Select(..), [c, x, y]) => format!("{c} ? {x} : {y}"),
        (other, _) => unreachable!("{other:?} is not pointwise"),
    }
}

/// A cast that changes registers.
pub(crate) fn cast(from: Elem, to: Elem, x: &str) -> String {
    match (from, to) {
        (Elem::Bf16, Elem::F32) => format!("round_bf16({x})"),
        (Elem::F16, Elem::F32) => format!("round_f16({x})"),
        (_, elem) => format!("({}){x}", register_type(elem)),
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
