//! The functions of the language.
//!
//! To add one: write a line in [`BUILTINS`], its function here or in a file beside this one, and a line in the
//! README's table.

use linc_ir::{BinaryOp, Op, UnaryOp};

use crate::ast::Expr;
use crate::build::{Builder, Built};
use crate::config::Number;
use crate::diagnostics::Diagnostic;
use crate::eval::quote;
use crate::format;
use crate::value::{Dim, Tensor, Value, describe_shape, elements};

mod layers;
mod views;

/// A function of the language.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    pub(crate) required: &'static [&'static str],
    pub(crate) optional: &'static [&'static str],
    action: Action,
}

enum Action {
    /// A function of one number or of each element of a tensor.
    Pointwise(UnaryOp),
    /// Anything else.
    Custom(fn(&mut Builder<'_>, &Call<'_>) -> Built<Value>),
}

const fn pointwise(op: UnaryOp) -> Builtin {
    Builtin { name: op.name(), required: &["x"], optional: &[], action: Action::Pointwise(op) }
}

const fn custom(
    name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
    run: fn(&mut Builder<'_>, &Call<'_>) -> Built<Value>,
) -> Builtin {
    Builtin { name, required, optional, action: Action::Custom(run) }
}

/// Every function, in the order of the README's table.
static BUILTINS: [Builtin; 25] = [
    pointwise(UnaryOp::Exp),
    pointwise(UnaryOp::Log),
    pointwise(UnaryOp::Sqrt),
    pointwise(UnaryOp::Rsqrt),
    pointwise(UnaryOp::Sigmoid),
    pointwise(UnaryOp::Silu),
    pointwise(UnaryOp::Tanh),
    pointwise(UnaryOp::Relu),
    custom("gelu", &["x"], &[], gelu),
    custom("max", &["a", "b"], &[], |b, c| extremum(b, c, BinaryOp::Max)),
    custom("min", &["a", "b"], &[], |b, c| extremum(b, c, BinaryOp::Min)),
    custom("int", &["x"], &[], int),
    custom("round_up", &["x", "multiple"], &[], round_up),
    custom("embedding", &["ids", "table"], &[], layers::embedding),
    custom("rms_norm", &["x", "weight", "eps"], &[], layers::rms_norm),
    custom("split_heads", &["x", "heads"], &[], layers::split_heads),
    custom("merge_heads", &["x"], &[], layers::merge_heads),
    custom("rope_table", &["head_dim", "theta"], &["scaling"], layers::rope_table),
    custom("attention", &["q", "k", "v"], &["rope", "causal"], layers::attention),
    custom("sum", &["x"], &[], |b, c| views::sum(b, c, false)),
    custom("mean", &["x"], &[], |b, c| views::sum(b, c, true)),
    custom("reshape", &["x", "shape"], &[], views::reshape),
    custom("transpose", &["x", "axis_a", "axis_b"], &[], views::transpose),
    custom("slice", &["x", "start", "len"], &["axis"], views::slice),
    custom("concat", &["a", "b"], &["axis"], views::concat),
];

/// The function of that name.
pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|b| b.name == name)
}

/// For suggestions and for the check that no definition takes the name of a builtin.
pub(crate) fn names<'a>() -> impl Iterator<Item = &'a str> {
    BUILTINS.iter().map(|b| b.name)
}

/// A call whose arguments have been evaluated and put in the order of the signature.
struct Call<'e> {
    whole: &'e Expr,
    name: &'static str,
    arguments: Vec<Option<(Value, &'e Expr)>>,
}

/// Runs a function; required arguments are present.
pub(crate) fn call(
    builder: &mut Builder<'_>,
    builtin: &'static Builtin,
    whole: &Expr,
    arguments: Vec<Option<(Value, &Expr)>>,
) -> Built<Value> {
    let call = Call { whole, name: builtin.name, arguments };
    match &builtin.action {
        Action::Pointwise(op) => {
            let (value, expr) = call.argument(builder, 0)?;
            builder.pointwise(*op, value, expr)
        }
        Action::Custom(run) => run(builder, &call),
    }
}

impl<'e> Call<'e> {
    fn argument(&self, builder: &Builder<'_>, i: usize) -> Built<(Value, &'e Expr)> {
        match self.arguments.get(i).and_then(Option::as_ref) {
            Some((value, expr)) => Ok((value.clone(), expr)),
            None => Err(builder.error(self.whole.span, format!("`{}` misses an argument", self.name))),
        }
    }

    fn wrong<T>(&self, builder: &Builder<'_>, expected: &str, value: &Value, expr: &Expr) -> Built<T> {
        let message =
            format!("`{}` takes {expected}, but {} is {}", self.name, quote(expr), value.describe());
        let error = builder.error(expr.span, message);
        Err(builder.blame(error, expr))
    }

    /// A tensor of features.
    fn tensor(&self, builder: &Builder<'_>, i: usize) -> Built<(Tensor, &'e Expr)> {
        match self.argument(builder, i)? {
            (Value::Tensor(tensor), expr) => {
                builder.floating(&tensor, expr)?;
                Ok((tensor, expr))
            }
            (other, expr) => self.wrong(builder, "a tensor", &other, expr),
        }
    }

    fn number(&self, builder: &Builder<'_>, i: usize) -> Built<(Number, &'e Expr)> {
        match self.argument(builder, i)? {
            (Value::Number(number @ (Number::Int(_) | Number::Float(_))), expr) => Ok((number, expr)),
            (other, expr) => self.wrong(builder, "a number", &other, expr),
        }
    }

    /// A number above 0.
    fn positive(&self, builder: &Builder<'_>, i: usize) -> Built<f64> {
        let (number, expr) = self.number(builder, i)?;
        let value = number.as_f64();
        if value > 0.0 {
            return Ok(value);
        }
        self.wrong(builder, "a number above 0", &Value::Number(number), expr)
    }

    /// A whole number from `least`, with the text it was written as.
    fn size(&self, builder: &Builder<'_>, i: usize, least: usize) -> Built<Dim> {
        let (number, expr) = self.number(builder, i)?;
        let size = match number {
            Number::Int(value) => usize::try_from(value).ok().filter(|v| *v >= least),
            Number::Float(_) | Number::Bool(_) => None,
        };
        match size {
            Some(size) => Ok(Dim::new(size, format::expr(expr))),
            None => {
                let expected = format!("a whole number from {least}");
                self.wrong(builder, &expected, &Value::Number(number), expr)
            }
        }
    }

    /// An axis of a tensor with `rank` axes; negative ones count from the end, the last is the default.
    fn axis(&self, builder: &Builder<'_>, i: usize, rank: usize) -> Built<usize> {
        if self.arguments.get(i).is_none_or(Option::is_none) {
            return match rank.checked_sub(1) {
                Some(last) => Ok(last),
                None => Err(self.fail(builder, "the tensor has no axis")),
            };
        }
        let (number, expr) = self.number(builder, i)?;
        let axis = match number {
            Number::Int(value) if value < 0 => value.checked_add(rank as i64),
            Number::Int(value) => Some(value),
            Number::Float(_) | Number::Bool(_) => None,
        };
        match axis.and_then(|a| usize::try_from(a).ok()).filter(|a| *a < rank) {
            Some(axis) => Ok(axis),
            None => {
                let expected = format!("an axis from -{rank} to {}", rank.saturating_sub(1));
                self.wrong(builder, &expected, &Value::Number(number), expr)
            }
        }
    }

    /// An error about the whole call, with the shapes of its tensors.
    fn fail(&self, builder: &Builder<'_>, message: &str) -> Box<Diagnostic> {
        let mut error = builder.error(self.whole.span, message);
        for (value, expr) in self.arguments.iter().flatten() {
            if let Value::Tensor(tensor) = value {
                let text = format!("{} is {}", quote(expr), describe_shape(&tensor.dims));
                error = builder.with_label(error, expr.span, text);
            }
        }
        error
    }

    /// Adds an operation whose result has the given axes.
    fn add(
        &self,
        builder: &mut Builder<'_>,
        op: Op,
        operands: &[linc_ir::Value],
        dims: Vec<Dim>,
    ) -> Built<Value> {
        if elements(dims.iter().map(|d| d.size)).is_none() {
            return Err(self.fail(builder, "the result has too many elements"));
        }
        let value = builder.add(op, operands, self.whole.span)?;
        Ok(Value::Tensor(Tensor { value, dims }))
    }
}

// ---- numbers ----

fn int(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (number, expr) = call.number(builder, 0)?;
    match number {
        Number::Int(_) => Ok(Value::Number(number)),
        Number::Float(value) if value.abs() < 2f64.powi(63) => {
            Ok(Value::Number(Number::Int(value.trunc() as i64)))
        }
        Number::Float(_) | Number::Bool(_) => {
            call.wrong(builder, "a number below 2^63", &Value::Number(number), expr)
        }
    }
}

fn round_up(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, multiple) = (call.size(builder, 0, 0)?.size, call.size(builder, 1, 1)?.size);
    match x.checked_next_multiple_of(multiple).and_then(|v| i64::try_from(v).ok()) {
        Some(value) => Ok(Value::Number(Number::Int(value))),
        None => Err(call.fail(builder, "the result is too large")),
    }
}

fn extremum(builder: &mut Builder<'_>, call: &Call<'_>, op: BinaryOp) -> Built<Value> {
    let (left, right) = (call.argument(builder, 0)?, call.argument(builder, 1)?);
    if let (Value::Number(_), Value::Number(_)) = (&left.0, &right.0) {
        let (l, r) = (call.number(builder, 0)?.0, call.number(builder, 1)?.0);
        let left_wins = if op == BinaryOp::Max { l.as_f64() >= r.as_f64() } else { l.as_f64() <= r.as_f64() };
        return Ok(Value::Number(if left_wins { l } else { r }));
    }
    builder.elementwise(call.whole, op, left, right)
}

// ---- pointwise ----

/// The tanh form, 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) (arXiv 1606.08415).
fn gelu(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, expr) = call.tensor(builder, 0)?;
    let span = call.whole.span;
    let constant =
        |b: &mut Builder<'_>, value: f64| b.constant_like(Number::Float(value), &x, expr).map(|t| t.value);
    let (half, one) = (constant(builder, 0.5)?, constant(builder, 1.0)?);
    let cubic = constant(builder, 0.044715)?;
    let scale = constant(builder, (2.0 / std::f64::consts::PI).sqrt())?;
    let mut mul = |l, r| builder.add(Op::Binary(BinaryOp::Mul), &[l, r], span);
    let square = mul(x.value, x.value)?;
    let cube = mul(square, x.value)?;
    let cube = mul(cube, cubic)?;
    let half_x = mul(x.value, half)?;
    let inner = builder.add(Op::Binary(BinaryOp::Add), &[x.value, cube], span)?;
    let inner = builder.add(Op::Binary(BinaryOp::Mul), &[inner, scale], span)?;
    let tanh = builder.add(Op::Unary(UnaryOp::Tanh), &[inner], span)?;
    let gate = builder.add(Op::Binary(BinaryOp::Add), &[tanh, one], span)?;
    call.add(builder, Op::Binary(BinaryOp::Mul), &[half_x, gate], x.dims)
}
