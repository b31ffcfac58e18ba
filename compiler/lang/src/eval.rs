//! From expressions to values and graph nodes: names, arithmetic, broadcasting, products.

use linc_ir::{BinaryOp, Op, UnaryOp};

use crate::ast::*;
use crate::build::{Builder, Built, SCALING};
use crate::builtins;
use crate::config::Number;
use crate::diagnostics::count;
use crate::format;
use crate::kind::{self, KIND};
use crate::number;
use crate::value::{Dim, Tensor, Value, describe_shape, shape};

/// Letters of an expression that a message quotes at most.
const QUOTE: usize = 48;

/// An expression as messages quote it.
pub(crate) fn quote(expr: &Expr) -> String {
    let text = format::expr(expr);
    match text.char_indices().nth(QUOTE) {
        Some((at, _)) => format!("`{}...`", &text[..at]),
        None => format!("`{text}`"),
    }
}

impl<'a> Builder<'a> {
    /// Evaluates an expression.
    pub(crate) fn eval(&mut self, expr: &Expr) -> Built<Value> {
        self.guarded(expr.span, |b| match &expr.kind {
            ExprKind::Int(value) => Ok(Value::Number(Number::Int(*value))),
            ExprKind::Float(value) => Ok(Value::Number(Number::Float(*value))),
            ExprKind::Bool(value) => Ok(Value::Number(Number::Bool(*value))),
            ExprKind::Name(name) => b.name(name, expr.span),
            ExprKind::Paren(inner) => b.eval(inner),
            ExprKind::List(items) => Ok(Value::Shape(b.dims(items)?)),
            ExprKind::Unary(operator, operand) => b.unary(*operator, operand),
            ExprKind::Binary(BinaryOperator::MatMul, left, right) => b.matmul(expr, left, right),
            ExprKind::Binary(..) if b.asks_for_kind(expr) => b.kind_question(expr),
            ExprKind::Binary(operator, left, right) => {
                let (l, r) = (b.eval(left)?, b.eval(right)?);
                b.binary(expr, *operator, (l, left), (r, right))
            }
            ExprKind::Transpose(operand) => {
                let x = b.matrix(operand, "`.T` takes a matrix")?;
                let value = b.add(Op::Transpose { perm: vec![1, 0] }, &[x.value], expr.span)?;
                Ok(Value::Tensor(Tensor { value, dims: x.dims.into_iter().rev().collect() }))
            }
            ExprKind::Call { function, arguments } => b.call(expr, function, arguments),
        })
    }

    fn name(&mut self, name: &str, span: Span) -> Built<Value> {
        self.reads_seq |= name == self.seq_name;
        self.reads_batch |= name == self.batch_name;
        if let Some(value) = self.scopes.iter().rev().find_map(|scope| scope.get(name)) {
            return Ok(value.clone());
        }
        if let Some(setting) = self.settings.get(name) {
            return Ok(Value::Number(setting.value));
        }
        if name == SCALING {
            return Ok(Value::Scaling(self.config.rope_scaling()));
        }
        let message = format!("`{name}` has no value here: the branch that defines it was not taken");
        Err(self.error(span, message))
    }

    /// Whether an expression compares the layer's kind with a word, and is not about a name of the text or the model file.
    fn asks_for_kind(&self, expr: &Expr) -> bool {
        kind::question(expr).is_some()
            && !self.settings.contains_key(KIND)
            && !self.scopes.iter().any(|scope| scope.contains_key(KIND))
    }

    fn kind_question(&mut self, expr: &Expr) -> Built<Value> {
        self.reads_kind = true;
        let answer = kind::question(expr).and_then(|question| question.answer(self.kind()?));
        match answer {
            Some(answer) => Ok(Value::Number(Number::Bool(answer))),
            None => Err(self.error(expr.span, format!("{} has no answer here", quote(expr)))),
        }
    }

    fn unary(&mut self, operator: UnaryOperator, operand: &Expr) -> Built<Value> {
        match (operator, self.eval(operand)?) {
            (UnaryOperator::Not, Value::Number(Number::Bool(value))) => {
                Ok(Value::Number(Number::Bool(!value)))
            }
            (UnaryOperator::Not, other) => {
                let message = format!("`not` takes true or false, found {}", other.describe());
                let error = self.error(operand.span, message);
                Err(self.blame(error, operand))
            }
            (UnaryOperator::Neg, value) => self.pointwise(UnaryOp::Neg, value, operand),
        }
    }

    /// A function of one number or of each element of a tensor.
    pub(crate) fn pointwise(&mut self, op: UnaryOp, value: Value, expr: &Expr) -> Built<Value> {
        match value {
            Value::Number(x) => number::unary(op, x).map(Value::Number).map_err(|message| {
                let error = self.error(expr.span, message);
                self.blame(error, expr)
            }),
            Value::Tensor(x) => {
                self.floating(&x, expr)?;
                let value = self.add(Op::Unary(op), &[x.value], expr.span)?;
                Ok(Value::Tensor(Tensor { value, dims: x.dims }))
            }
            other @ (Value::Shape(_) | Value::Rope(_) | Value::Scaling(_)) => {
                let message = format!("expected a number or a tensor, found {}", other.describe());
                Err(self.error(expr.span, message))
            }
        }
    }

    fn binary(
        &mut self,
        whole: &Expr,
        operator: BinaryOperator,
        (left, left_expr): (Value, &Expr),
        (right, right_expr): (Value, &Expr),
    ) -> Built<Value> {
        if let (Value::Number(l), Value::Number(r)) = (&left, &right) {
            return number::binary(operator, *l, *r).map(Value::Number).map_err(|message| {
                let mut error = self.error(whole.span, format!("{}: {message}", quote(whole)));
                if operator == BinaryOperator::Div && message.ends_with("remainder") {
                    error = Box::new(error.help("change the numbers, or round down with `//`".to_string()));
                }
                self.blame(error, whole)
            });
        }
        let op = match operator {
            BinaryOperator::Add => BinaryOp::Add,
            BinaryOperator::Sub => BinaryOp::Sub,
            BinaryOperator::Mul => BinaryOp::Mul,
            BinaryOperator::Div => BinaryOp::Div,
            BinaryOperator::Gt => BinaryOp::Greater,
            BinaryOperator::Lt => {
                return self.elementwise(whole, BinaryOp::Greater, (right, right_expr), (left, left_expr));
            }
            BinaryOperator::FloorDiv
            | BinaryOperator::MatMul
            | BinaryOperator::Eq
            | BinaryOperator::Ne
            | BinaryOperator::Le
            | BinaryOperator::Ge
            | BinaryOperator::And
            | BinaryOperator::Or => {
                let symbol = operator.symbol();
                let message =
                    format!("`{symbol}` takes numbers, found {} and {}", left.describe(), right.describe());
                return Err(self.error(whole.span, message));
            }
        };
        self.elementwise(whole, op, (left, left_expr), (right, right_expr))
    }

    /// An operation on two tensors, or on a tensor and a number; axes align at the end and sizes of 1 repeat.
    pub(crate) fn elementwise(
        &mut self,
        whole: &Expr,
        op: BinaryOp,
        (left, left_expr): (Value, &Expr),
        (right, right_expr): (Value, &Expr),
    ) -> Built<Value> {
        let (l, r) = match (left, right) {
            (Value::Tensor(l), Value::Tensor(r)) => (l, r),
            (Value::Number(Number::Int(1) | Number::Float(1.0)), Value::Tensor(r)) if op == BinaryOp::Div => {
                return self.pointwise(UnaryOp::Recip, Value::Tensor(r), right_expr);
            }
            (Value::Number(n @ (Number::Int(_) | Number::Float(_))), Value::Tensor(r)) => {
                (self.constant_like(n, &r, right_expr)?, r)
            }
            (Value::Tensor(l), Value::Number(n @ (Number::Int(_) | Number::Float(_)))) => {
                let r = self.constant_like(n, &l, left_expr)?;
                (l, r)
            }
            (left, right) => {
                let message = format!(
                    "cannot combine {} with {} in {}",
                    left.describe(),
                    right.describe(),
                    quote(whole)
                );
                return Err(self.error(whole.span, message));
            }
        };
        self.floating(&l, left_expr)?;
        self.floating(&r, right_expr)?;
        let Some(dims) = broadcast(&l.dims, &r.dims) else {
            let (a, b) = (describe_shape(&l.dims), describe_shape(&r.dims));
            let (name_a, name_b) = (quote(left_expr), quote(right_expr));
            let message = format!("shapes do not fit: {name_a} is {a}, {name_b} is {b}");
            let mut error = self.error(whole.span, message);
            error = self.with_label(error, left_expr.span, a);
            error = self.with_label(error, right_expr.span, b);
            let help = "axes are aligned at the end; sizes must be equal or 1".to_string();
            return Err(Box::new(error.help(help)));
        };
        let l = self.broadcast_to(&l, &dims, left_expr.span)?;
        let r = self.broadcast_to(&r, &dims, right_expr.span)?;
        let value = self.add(Op::Binary(op), &[l, r], whole.span)?;
        Ok(Value::Tensor(Tensor { value, dims }))
    }

    fn broadcast_to(&mut self, x: &Tensor, dims: &[Dim], span: Span) -> Built<linc_ir::Value> {
        let shape = shape(dims);
        if self.graph.ty(x.value).shape == shape {
            return Ok(x.value);
        }
        self.add(Op::Broadcast { shape }, &[x.value], span)
    }

    /// A number as a tensor of the type of another.
    pub(crate) fn constant_like(&mut self, number: Number, like: &Tensor, expr: &Expr) -> Built<Tensor> {
        self.floating(like, expr)?;
        let ty = self.graph.ty(like.value).clone();
        let value = self.add(Op::Constant { value: number.as_f64(), ty }, &[], expr.span)?;
        Ok(Tensor { value, dims: like.dims.clone() })
    }

    /// Refuses token ids where features are needed.
    pub(crate) fn floating(&self, x: &Tensor, expr: &Expr) -> Built<()> {
        if self.graph.ty(x.value).dtype.is_float() {
            return Ok(());
        }
        let message = format!("{} holds whole numbers, only `embedding` reads those", quote(expr));
        Err(self.error(expr.span, message))
    }

    pub(crate) fn tensor(&mut self, expr: &Expr, rule: &str) -> Built<Tensor> {
        match self.eval(expr)? {
            Value::Tensor(tensor) => Ok(tensor),
            other => {
                let message = format!("{rule}, {} is {}", quote(expr), other.describe());
                let error = self.error(expr.span, message);
                Err(self.blame(error, expr))
            }
        }
    }

    fn matrix(&mut self, expr: &Expr, rule: &str) -> Built<Tensor> {
        let tensor = self.tensor(expr, rule)?;
        if tensor.dims.len() == 2 {
            return Ok(tensor);
        }
        let message = format!("{rule}, {} is {}", quote(expr), describe_shape(&tensor.dims));
        Err(self.error(expr.span, message))
    }

    /// `x @ w` and `x @ w.T`: x has any number of leading axes, w is a matrix.
    fn matmul(&mut self, whole: &Expr, left: &Expr, right: &Expr) -> Built<Value> {
        let rule = "`@` takes a tensor on its left and a matrix on its right";
        let x = self.tensor(left, rule)?;
        let (w_expr, transposed) = match &right.kind {
            ExprKind::Transpose(inner) => (&**inner, true),
            _ => (right, false),
        };
        let w = self.matrix(w_expr, rule)?;
        self.floating(&x, left)?;
        self.floating(&w, w_expr)?;
        let (inner, outer) = if transposed { (&w.dims[1], &w.dims[0]) } else { (&w.dims[0], &w.dims[1]) };
        let Some(last) = x.last().filter(|k| k.size == inner.size) else {
            let last = x.last().map_or_else(|| "nothing".into(), Dim::describe);
            let (w_shape, x_shape) = (describe_shape(&w.dims), describe_shape(&x.dims));
            let message = format!(
                "shapes do not fit in {}: {} is {w_shape}, the last axis of {} is {last}",
                quote(whole),
                quote(w_expr),
                quote(left),
            );
            let fits = x.last().is_some_and(|k| k.size == outer.size);
            let help = fits.then(|| {
                let other = if transposed { "" } else { ".T" };
                format!(
                    "{} `{} @ {}{other}`",
                    "the other way round it fits:",
                    format::expr(left),
                    format::expr(w_expr)
                )
            });
            let axis = if transposed { "last" } else { "first" };
            let mut error = self.error(whole.span, message);
            error = self.with_label(error, left.span, x_shape);
            error = self.with_label(
                error,
                right.span,
                format!("the {axis} axis of {} is {}", quote(w_expr), inner.describe()),
            );
            return Err(Box::new(error.help(help)));
        };
        let (k, n) = (last.size, outer.size);
        let rows: usize = x.dims[..x.dims.len() - 1].iter().map(|d| d.size).product();
        let x_matrix = self.flatten(&x, [rows, k], left.span)?;
        let dtype = self.graph.ty(x_matrix).dtype;
        let op = Op::MatMul { trans_a: false, trans_b: transposed, dtype };
        let product = self.add(op, &[x_matrix, w.value], whole.span)?;
        let mut dims = x.dims[..x.dims.len() - 1].to_vec();
        dims.push(outer.clone());
        if dims.len() == 2 {
            return Ok(Value::Tensor(Tensor { value: product, dims }));
        }
        debug_assert_eq!(rows * n, dims.iter().map(|d| d.size).product::<usize>());
        let value = self.add(Op::Reshape { shape: shape(&dims) }, &[product], whole.span)?;
        self.flat.insert(value, product);
        Ok(Value::Tensor(Tensor { value, dims }))
    }

    /// The matrix form of a tensor, made once.
    fn flatten(&mut self, x: &Tensor, matrix: [usize; 2], span: Span) -> Built<linc_ir::Value> {
        if x.dims.len() == 2 {
            return Ok(x.value);
        }
        if let Some(known) = self.flat.get(&x.value) {
            return Ok(*known);
        }
        let flat = self.add(Op::Reshape { shape: matrix.into() }, &[x.value], span)?;
        self.flat.insert(x.value, flat);
        Ok(flat)
    }

    fn call(&mut self, whole: &Expr, function: &Name, arguments: &[Argument]) -> Built<Value> {
        if let Some(function) = self.functions.get(function.text.as_str()).copied() {
            let names: Vec<&str> = function.parameters.iter().map(|p| p.text.as_str()).collect();
            let values = self.arguments(whole, &function.name.text, &names, names.len(), arguments)?;
            let scope = names.iter().zip(values).filter_map(|(n, v)| Some((n.to_string(), v?.0))).collect();
            let outer = std::mem::replace(&mut self.scopes, vec![scope]);
            self.calls.push(whole.span);
            let result = self.block(&function.body);
            self.calls.pop();
            self.scopes = outer;
            return match result? {
                Some(value) => Ok(value),
                None => Err(self.error(whole.span, format!("`{}` returns nothing", function.name.text))),
            };
        }
        let Some(builtin) = builtins::find(&function.text) else {
            return Err(self.error(function.span, format!("undefined function `{}`", function.text)));
        };
        let names: Vec<&str> = [builtin.required, builtin.optional].concat();
        let values = self.arguments(whole, builtin.name, &names, builtin.required.len(), arguments)?;
        builtins::call(self, builtin, whole, values)
    }

    /// Matches arguments with parameters, by position and then by name; the first `required` must be there.
    fn arguments<'e>(
        &mut self,
        whole: &Expr,
        function: &str,
        names: &[&str],
        required: usize,
        arguments: &'e [Argument],
    ) -> Built<Vec<Option<(Value, &'e Expr)>>> {
        let signature = || {
            let optional =
                |(i, n): (usize, &&str)| if i < required { n.to_string() } else { format!("{n}?") };
            let names: Vec<String> = names.iter().enumerate().map(optional).collect();
            Some(format!("it is `{function}({})`", names.join(", ")))
        };
        let mut slots: Vec<Option<(Value, &Expr)>> = names.iter().map(|_| None).collect();
        let mut named = false;
        for (i, argument) in arguments.iter().enumerate() {
            let slot = match &argument.name {
                None if named => {
                    let message = "an argument without a name cannot follow one with a name";
                    return Err(self.error(argument.value.span, message));
                }
                None => i,
                Some(name) => {
                    named = true;
                    names.iter().position(|n| *n == name.text).ok_or_else(|| {
                        let message = format!("`{function}` has no argument `{}`", name.text);
                        let help = crate::suggest::did_you_mean(&name.text, names.iter().copied());
                        Box::new(self.error(name.span, message).help(help.or_else(signature)))
                    })?
                }
            };
            if slot >= slots.len() {
                let message = format!(
                    "`{function}` takes {}, found {}",
                    count(names.len(), "argument"),
                    arguments.len()
                );
                return Err(Box::new(self.error(whole.span, message).help(signature())));
            }
            if slots[slot].is_some() {
                let message = format!("the argument `{}` is given twice", names[slot]);
                return Err(self.error(argument.value.span, message));
            }
            slots[slot] = Some((self.eval(&argument.value)?, &argument.value));
        }
        if let Some(missing) = slots.iter().take(required).position(Option::is_none) {
            let message = format!("`{function}` needs the argument `{}`", names[missing]);
            return Err(Box::new(self.error(whole.span, message).help(signature())));
        }
        Ok(slots)
    }
}

/// The shape that both repeat to.
fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], i: usize| (i + dims.len()).checked_sub(rank).map(|j| dims[j].clone());
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (Some(a), Some(b)) if a.size == b.size || b.size == 1 => Some(a),
            (Some(a), Some(b)) => (a.size == 1).then_some(b),
            (Some(only), None) | (None, Some(only)) => Some(only),
            (None, None) => None,
        })
        .collect()
}
