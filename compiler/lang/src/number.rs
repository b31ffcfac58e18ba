//! Arithmetic on numbers that are known while building.
//!
//! Whole numbers stay whole: `/` between them must come out even, `//` rounds down. As soon as one side is a
//! float the result is one. Errors are messages; the caller knows the place.

use linc_ir::UnaryOp;

use crate::ast::BinaryOperator;
use crate::config::Number;

/// The result of an operator on two numbers of the text; the error says which operands it does not take.
pub(crate) fn binary(operator: BinaryOperator, left: Number, right: Number) -> Result<Number, String> {
    use BinaryOperator::*;
    match operator {
        And | Or => match (left, right) {
            (Number::Bool(a), Number::Bool(b)) => {
                Ok(Number::Bool(if operator == And { a && b } else { a || b }))
            }
            _ => Err(format!("`{}` takes true or false, found {left} and {right}", operator.symbol())),
        },
        Eq | Ne | Lt | Le | Gt | Ge => compare(operator, left, right).map(Number::Bool),
        Add | Sub | Mul | Div | FloorDiv => match (left, right) {
            (Number::Int(a), Number::Int(b)) => integer_result(operator, a, b).map(Number::Int),
            (Number::Bool(_), _) | (_, Number::Bool(_)) => {
                Err(format!("`{}` takes numbers, found {left} and {right}", operator.symbol()))
            }
            (Number::Int(_) | Number::Float(_), Number::Int(_) | Number::Float(_)) => {
                let (a, b) = (left.as_f64(), right.as_f64());
                let result = match operator {
                    Add => a + b,
                    Sub => a - b,
                    Mul => a * b,
                    FloorDiv => (a / b).floor(),
                    Div | MatMul | Eq | Ne | Lt | Le | Gt | Ge | And | Or => a / b,
                };
                finite(result, || format!("{left} {} {right}", operator.symbol()))
            }
        },
        MatMul => Err(format!("`@` multiplies tensors, found the numbers {left} and {right}")),
    }
}

fn integer_result(operator: BinaryOperator, a: i64, b: i64) -> Result<i64, String> {
    let symbol = operator.symbol();
    let result = match operator {
        BinaryOperator::Add => a.checked_add(b),
        BinaryOperator::Sub => a.checked_sub(b),
        BinaryOperator::Mul => a.checked_mul(b),
        _ if b == 0 => return Err(format!("{a} {symbol} 0 divides by zero")),
        BinaryOperator::FloorDiv => {
            a.checked_div_euclid(b).map(|q| if b < 0 && q * b != a { q - 1 } else { q })
        }
        _ => match a.checked_rem(b) {
            Some(0) | None => a.checked_div(b),
            Some(_) => return Err(format!("{a} / {b} leaves a remainder")),
        },
    };
    result.ok_or_else(|| format!("{a} {symbol} {b} is too large"))
}

fn compare(operator: BinaryOperator, left: Number, right: Number) -> Result<bool, String> {
    use std::cmp::Ordering;
    let order = match (left, right) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (Number::Bool(a), Number::Bool(b)) if matches!(operator, BinaryOperator::Eq | BinaryOperator::Ne) => {
            Some(a.cmp(&b))
        }
        (Number::Bool(_), _) | (_, Number::Bool(_)) => {
            return Err(format!("`{}` cannot compare {left} with {right}", operator.symbol()));
        }
        (Number::Int(_) | Number::Float(_), Number::Int(_) | Number::Float(_)) => {
            left.as_f64().partial_cmp(&right.as_f64())
        }
    };
    Ok(match operator {
        BinaryOperator::Ne => order != Some(Ordering::Equal),
        BinaryOperator::Lt => order == Some(Ordering::Less),
        BinaryOperator::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        BinaryOperator::Gt => order == Some(Ordering::Greater),
        BinaryOperator::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        _ => order == Some(Ordering::Equal),
    })
}

/// A function of one number; the result is a float, but for the sign of a whole number.
pub(crate) fn unary(op: UnaryOp, x: Number) -> Result<Number, String> {
    let a = match x {
        Number::Bool(_) => return Err(format!("`{}` takes a number, found {x}", op.name())),
        Number::Int(value) if op == UnaryOp::Neg => {
            return value.checked_neg().map(Number::Int).ok_or_else(|| format!("-{value} is too large"));
        }
        Number::Int(_) | Number::Float(_) => x.as_f64(),
    };
    let result = match op {
        UnaryOp::Neg => -a,
        UnaryOp::Exp => a.exp(),
        UnaryOp::Log => a.ln(),
        UnaryOp::Sqrt => a.sqrt(),
        UnaryOp::Rsqrt => 1.0 / a.sqrt(),
        UnaryOp::Recip => 1.0 / a,
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-a).exp()),
        UnaryOp::Silu => a / (1.0 + (-a).exp()),
        UnaryOp::Tanh => a.tanh(),
        UnaryOp::Relu => a.max(0.0),
    };
    finite(result, || format!("{}({x})", op.name()))
}

fn finite(value: f64, what: impl Fn() -> String) -> Result<Number, String> {
    if value.is_finite() {
        Ok(Number::Float(value))
    } else {
        Err(format!("{} is not a finite number", what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(operator: BinaryOperator, a: i64, b: i64) -> Result<Number, String> {
        binary(operator, Number::Int(a), Number::Int(b))
    }

    #[test]
    fn division_of_whole_numbers_is_exact_or_an_error() {
        assert_eq!(int(BinaryOperator::Div, 12, 4), Ok(Number::Int(3)));
        assert_eq!(int(BinaryOperator::Div, 13, 4), Err("13 / 4 leaves a remainder".into()));
        assert_eq!(int(BinaryOperator::Div, 1, 0), Err("1 / 0 divides by zero".into()));
        assert_eq!(int(BinaryOperator::Div, i64::MIN, -1), Err(format!("{} / -1 is too large", i64::MIN)));
    }

    #[test]
    fn floor_division_rounds_down() {
        for a in -7..=7 {
            for b in [-3, -2, -1, 1, 2, 3] {
                let expected = (a as f64 / b as f64).floor() as i64;
                assert_eq!(int(BinaryOperator::FloorDiv, a, b), Ok(Number::Int(expected)), "{a} // {b}");
            }
        }
    }

    #[test]
    fn overflow_is_an_error() {
        assert!(int(BinaryOperator::Mul, i64::MAX, 2).is_err());
        assert!(binary(BinaryOperator::Mul, Number::Float(1e300), Number::Float(1e300)).is_err());
        assert!(unary(UnaryOp::Sqrt, Number::Int(-1)).is_err());
    }
}
