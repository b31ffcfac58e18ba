//! The functions of the language.
//!
//! To add one: write a line in [`BUILTINS`] and its function below, and a line in the README's table.

use linc_ir::{AttentionSpec, BinaryOp, Op, RopeScaling, TableKind, TensorType, UnaryOp};

use crate::ast::Expr;
use crate::build::{Builder, Built};
use crate::config::Number;
use crate::diagnostics::Diagnostic;
use crate::eval::quote;
use crate::format;
use crate::value::{Dim, Tensor, Value, describe_shape, elements, shape};

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
    custom("embedding", &["ids", "table"], &[], embedding),
    custom("rms_norm", &["x", "weight", "eps"], &[], rms_norm),
    custom("split_heads", &["x", "heads"], &[], split_heads),
    custom("merge_heads", &["x"], &[], merge_heads),
    custom("rope_table", &["head_dim", "theta"], &["scaling"], rope_table),
    custom("attention", &["q", "k", "v"], &["rope", "causal"], attention),
    custom("sum", &["x"], &[], |b, c| sum(b, c, false)),
    custom("mean", &["x"], &[], |b, c| sum(b, c, true)),
    custom("reshape", &["x", "shape"], &[], reshape),
    custom("transpose", &["x", "axis_a", "axis_b"], &[], transpose),
    custom("slice", &["x", "start", "len"], &["axis"], slice),
    custom("concat", &["a", "b"], &["axis"], concat),
];

/// The function of that name.
pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|b| b.name == name)
}

/// All names.
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

// ---- layers ----

fn embedding(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (ids, ids_expr) = match call.argument(builder, 0)? {
        (Value::Tensor(ids), expr) => (ids, expr),
        (other, expr) => return call.wrong(builder, "token ids", &other, expr),
    };
    if builder.graph.ty(ids.value).dtype.is_float() {
        return call.wrong(builder, "token ids", &Value::Tensor(ids), ids_expr);
    }
    let (table, table_expr) = call.tensor(builder, 1)?;
    let [_, features] = table.dims.as_slice() else {
        return call.wrong(builder, "a table [vocab_size, dim]", &Value::Tensor(table), table_expr);
    };
    let dims = ids.dims.iter().chain([features]).cloned().collect();
    call.add(builder, Op::Embedding, &[table.value, ids.value], dims)
}

fn rms_norm(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, x_expr) = call.tensor(builder, 0)?;
    let (weight, weight_expr) = call.tensor(builder, 1)?;
    let eps = call.positive(builder, 2)?;
    let fits = matches!((weight.dims.as_slice(), x.last()), ([w], Some(d)) if w.size == d.size);
    if !fits {
        let message = format!(
            "shapes do not fit in `rms_norm`: {} is {}, the last axis of {} is {}",
            quote(weight_expr),
            describe_shape(&weight.dims),
            quote(x_expr),
            x.last().map_or_else(|| "nothing".into(), Dim::describe)
        );
        return Err(call.fail(builder, &message));
    }
    call.add(builder, Op::RmsNorm { eps }, &[x.value, weight.value], x.dims)
}

/// `[.., heads * d] -> [.., heads, d]`
fn split_heads(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, expr) = call.tensor(builder, 0)?;
    let heads = call.size(builder, 1, 1)?;
    let mut dims = x.dims.clone();
    let Some(last) = dims.pop().filter(|d| d.size % heads.size == 0) else {
        let last = x.last().map_or_else(|| "nothing".into(), Dim::describe);
        let message = format!(
            "the last axis of {} is {last}, which does not split into {}",
            quote(expr),
            heads.describe()
        );
        let error = call.fail(builder, &message);
        return Err(builder.blame(error, call.whole));
    };
    let size = last.size / heads.size;
    // n_heads * head_dim splits into n_heads and head_dim by name, too.
    let name = match last.name.strip_prefix(&format!("{} * ", heads.name)) {
        Some(rest) => rest.to_string(),
        None if *last.name == *last.size.to_string() => size.to_string(),
        None => format!("{} / {}", grouped(&last.name), grouped(&heads.name)),
    };
    dims.extend([heads, Dim::new(size, name)]);
    call.add(builder, Op::Reshape { shape: shape(&dims) }, &[x.value], dims)
}

/// A name that can stand beside an operator.
fn grouped(name: &str) -> String {
    if name.contains(' ') { format!("({name})") } else { name.to_string() }
}

/// `[.., heads, d] -> [.., heads * d]`
fn merge_heads(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, expr) = call.tensor(builder, 0)?;
    let mut dims = x.dims.clone();
    let (Some(d), Some(heads)) = (dims.pop(), dims.pop()) else {
        return call.wrong(builder, "a tensor [.., heads, head_dim]", &Value::Tensor(x), expr);
    };
    dims.push(Dim::new(heads.size * d.size, format!("{} * {}", heads.name, d.name)));
    call.add(builder, Op::Reshape { shape: shape(&dims) }, &[x.value], dims)
}

/// Rotary angles for positions `0..rope_len`; equal tables are made once.
fn rope_table(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let head_dim = call.size(builder, 0, 1)?;
    let theta = call.positive(builder, 1)?;
    let scaling: Option<RopeScaling> = match call.arguments.get(2).and_then(Option::as_ref) {
        None => None,
        Some((Value::Scaling(scaling), _)) => *scaling,
        Some((other, expr)) => return call.wrong(builder, "`rope_scaling`", other, expr),
    };
    if head_dim.size % 2 != 0 {
        let message = format!("rotary positions need an even head size, found {}", head_dim.describe());
        let error = call.fail(builder, &message);
        return Err(builder.blame(error, call.whole));
    }
    let key = (head_dim.size, theta, scaling);
    if let Some(known) = builder.ropes.iter().find(|(d, t, s, _)| (*d, *t, *s) == key) {
        return Ok(Value::Rope(known.3));
    }
    let len = builder.shape.rope_len;
    let sizes = [len, head_dim.size / 2, 2];
    if elements(sizes).is_none() {
        return Err(call.fail(builder, "the table has too many elements"));
    }
    let name = match builder.ropes.len() {
        0 => "rope".to_string(),
        n => format!("rope_{n}"),
    };
    let op = Op::Table { name, ty: TensorType::f32(sizes), kind: TableKind::Rope { theta, scaling } };
    let table = builder.add(op, &[], call.whole.span)?;
    builder.ropes.push((head_dim.size, theta, scaling, table));
    Ok(Value::Rope(table))
}

/// Abstract attention of the current layer; a pass chooses its kind.
fn attention(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (q, k, v) = (call.tensor(builder, 0)?.0, call.tensor(builder, 1)?.0, call.tensor(builder, 2)?.0);
    let Some(layer) = builder.layer else {
        let help = "each layer chooses its kind of attention: write it inside `for layer in layers { ... }`";
        let error = builder.error(call.whole.span, "`attention` outside of the layers");
        return Err(Box::new(error.help(help.to_string())));
    };
    let rope = match call.arguments.get(3).and_then(Option::as_ref) {
        None => None,
        Some((Value::Rope(table), _)) => Some(*table),
        Some((other, expr)) => return call.wrong(builder, "a `rope_table` as rope", other, expr),
    };
    let causal = match call.arguments.get(4).and_then(Option::as_ref) {
        None => true,
        Some((Value::Number(Number::Bool(causal)), _)) => *causal,
        Some((other, expr)) => return call.wrong(builder, "true or false as causal", other, expr),
    };
    for (x, what) in [(&q, "heads"), (&k, "kv_heads"), (&v, "kv_heads")] {
        if x.dims.len() != 4 {
            let message = format!("`attention` takes tensors [batch, seq, {what}, head_dim]");
            let error = *call.fail(builder, &message);
            return Err(Box::new(error.help("`split_heads` makes them".to_string())));
        }
    }
    let size = |x: &Tensor, axis: usize| x.dims[axis].size;
    if [0, 1, 3].into_iter().any(|axis| size(&q, axis) != size(&k, axis)) {
        return Err(call.fail(builder, "q and k must agree in batch, seq and head_dim"));
    }
    if shape(&k.dims) != shape(&v.dims) {
        return Err(call.fail(builder, "k and v must have equal shapes"));
    }
    if size(&q, 2) % size(&k, 2) != 0 {
        let message =
            format!("{} query heads are not a multiple of {} key/value heads", size(&q, 2), size(&k, 2));
        return Err(call.fail(builder, &message));
    }
    if let Some(table) = rope {
        let table = builder.graph.ty(table).shape.clone();
        if table.0[0] < size(&q, 1) {
            let message = format!("the rope table covers {} positions, seq is {}", table.0[0], size(&q, 1));
            return Err(call.fail(builder, &message));
        }
        if table.0[1] * 2 != size(&q, 3) {
            let message =
                format!("the rope table is for heads of {}, these have {}", table.0[1] * 2, size(&q, 3));
            return Err(call.fail(builder, &message));
        }
    }
    let spec = AttentionSpec { layer, causal, rope: rope.is_some() };
    let operands: Vec<_> = [q.value, k.value, v.value].into_iter().chain(rope).collect();
    call.add(builder, Op::Attention(spec), &operands, q.dims)
}

// ---- reductions and views ----

/// Over the last axis, which stays with size 1.
fn sum(builder: &mut Builder<'_>, call: &Call<'_>, mean: bool) -> Built<Value> {
    let (x, expr) = call.tensor(builder, 0)?;
    let mut dims = x.dims.clone();
    let Some(last) = dims.pop() else {
        return call.wrong(builder, "a tensor with an axis", &Value::Tensor(x), expr);
    };
    let op = Op::Sum { axes: vec![dims.len()], keep: true };
    dims.push(Dim::plain(1));
    let total = call.add(builder, op, &[x.value], dims)?;
    match total {
        Value::Tensor(total) if mean => {
            let factor = Number::Float(1.0 / last.size as f64);
            let factor = builder.constant_like(factor, &total, expr)?;
            call.add(builder, Op::Binary(BinaryOp::Mul), &[total.value, factor.value], total.dims)
        }
        total => Ok(total),
    }
}

fn reshape(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, expr) = call.tensor(builder, 0)?;
    let dims = match call.argument(builder, 1)? {
        (Value::Shape(dims), _) => dims,
        (other, expr) => return call.wrong(builder, "a shape like `[batch, seq, dim]`", &other, expr),
    };
    if elements(dims.iter().map(|d| d.size)) != elements(x.dims.iter().map(|d| d.size)) {
        let message = format!(
            "{} is {} and cannot become {}: the numbers of elements differ",
            quote(expr),
            describe_shape(&x.dims),
            describe_shape(&dims)
        );
        return Err(builder.error(call.whole.span, message));
    }
    call.add(builder, Op::Reshape { shape: shape(&dims) }, &[x.value], dims)
}

fn transpose(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, _) = call.tensor(builder, 0)?;
    let (a, b) = (call.axis(builder, 1, x.dims.len())?, call.axis(builder, 2, x.dims.len())?);
    let mut perm: Vec<usize> = (0..x.dims.len()).collect();
    perm.swap(a, b);
    let mut dims = x.dims;
    dims.swap(a, b);
    call.add(builder, Op::Transpose { perm }, &[x.value], dims)
}

fn slice(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, expr) = call.tensor(builder, 0)?;
    let (start, len) = (call.size(builder, 1, 0)?.size, call.size(builder, 2, 1)?);
    let axis = call.axis(builder, 3, x.dims.len())?;
    if start.checked_add(len.size).is_none_or(|end| end > x.dims[axis].size) {
        let message = format!(
            "a slice of {} from {start} is outside of axis {axis} of {}, which is {}",
            len.describe(),
            quote(expr),
            x.dims[axis].describe()
        );
        let error = call.fail(builder, &message);
        return Err(builder.blame(error, call.whole));
    }
    let op = Op::Slice { axis, start, len: len.size };
    let mut dims = x.dims;
    dims[axis] = len;
    call.add(builder, op, &[x.value], dims)
}

fn concat(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (a, b) = (call.tensor(builder, 0)?.0, call.tensor(builder, 1)?.0);
    let axis = call.axis(builder, 2, a.dims.len())?;
    let agree = a.dims.len() == b.dims.len()
        && a.dims.iter().zip(&b.dims).enumerate().all(|(i, (a, b))| i == axis || a.size == b.size);
    if !agree {
        let message = format!("`concat` takes tensors that agree in all axes but axis {axis}");
        return Err(call.fail(builder, &message));
    }
    let mut dims = a.dims;
    let (left, right) = (&dims[axis], &b.dims[axis]);
    dims[axis] = Dim::new(left.size + right.size, format!("{} + {}", left.name, right.name));
    call.add(builder, Op::Concat { axis }, &[a.value, b.value], dims)
}
