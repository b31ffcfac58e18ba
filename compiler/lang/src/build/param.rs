//! Parameters: checkpoint names, shapes, initial distributions.

use std::rc::Rc;

use linc_ir::{DType, Init, Op, TensorType};

use super::{Builder, Built, SMALLER};
use crate::ast::*;
use crate::config::Number;
use crate::diagnostics::count;
use crate::value::{Dim, MAX_ELEMENTS, Tensor, Value, describe_shape, elements};

/// Bound of `trunc_normal(std)`: absolute, so that small std are in effect not truncated (as in PyTorch).
const DEFAULT_BOUND: f64 = 2.0;

impl Builder<'_> {
    /// Adds a parameter and binds its name.
    pub(super) fn param(
        &mut self,
        name: &Name,
        shape: &[Expr],
        init: &Name,
        arguments: &[Argument],
    ) -> Built<()> {
        let dims = self.dims(shape)?;
        if dims.is_empty() {
            return Err(self.error(name.span, format!("`{}` has no axes", name.text)));
        }
        let prefix: String = self.prefix.iter().map(|part| format!("{part}.")).collect();
        let full = format!("{prefix}{}.weight", name.text);
        if let Some(first) = self.params.insert(full.clone(), name.span) {
            let error = self.error(name.span, format!("the parameter `{full}` is defined twice"));
            return Err(self.with_label(error, first, "first defined here"));
        }
        let init = self.init(init, arguments)?;
        let ty = TensorType::new(DType::F32, crate::value::shape(&dims));
        let value = self.add(Op::Param { name: full, ty, init }, &[], name.span)?;
        self.bind(&name.text, Value::Tensor(Tensor { value, dims }));
        Ok(())
    }

    fn init(&mut self, init: &Name, arguments: &[Argument]) -> Built<Init> {
        let (least, most) = match init.text.as_str() {
            "zeros" | "ones" => (0, 0),
            "normal" => (1, 1),
            "trunc_normal" => (1, 2),
            other => {
                let known = ["zeros", "ones", "normal", "trunc_normal"];
                let help = crate::suggest::did_you_mean(other, known)
                    .unwrap_or_else(|| "one of zeros, ones, normal(std), trunc_normal(std, bound)".into());
                let error = self.error(init.span, format!("unknown initial distribution `{other}`"));
                return Err(Box::new(error.help(help)));
            }
        };
        let mut numbers = Vec::new();
        for argument in arguments {
            if let Some(name) = &argument.name {
                return Err(self.error(name.span, "arguments of a distribution have no names"));
            }
            let value = self.eval(&argument.value)?;
            let positive = match &value {
                Value::Number(n @ (Number::Int(_) | Number::Float(_))) => Some(n.as_f64()),
                Value::Number(Number::Bool(_))
                | Value::Tensor(_)
                | Value::Shape(_)
                | Value::Rope(_)
                | Value::Scaling(_) => None,
            };
            let Some(number) = positive.filter(|n| *n > 0.0) else {
                let message = format!("`{}` takes numbers above 0, found {}", init.text, value.describe());
                let error = self.error(argument.value.span, message);
                return Err(self.blame(error, &argument.value));
            };
            numbers.push(number);
        }
        if numbers.len() < least || numbers.len() > most {
            let or = if least == most { String::new() } else { format!("{least} or ") };
            let message =
                format!("`{}` takes {or}{}, found {}", init.text, count(most, "argument"), numbers.len());
            return Err(self.error(init.span, message));
        }
        Ok(match (init.text.as_str(), numbers.as_slice()) {
            ("ones", _) => Init::Ones,
            ("normal", [std]) => Init::Normal { std: *std },
            ("trunc_normal", [std]) => Init::TruncNormal { std: *std, bound: DEFAULT_BOUND },
            ("trunc_normal", [std, bound]) => Init::TruncNormal { std: *std, bound: *bound },
            (_, _) => Init::Zeros,
        })
    }

    /// Evaluates the sizes of a shape; each keeps its text as a name.
    pub(crate) fn dims(&mut self, sizes: &[Expr]) -> Built<Vec<Dim>> {
        let mut dims = Vec::with_capacity(sizes.len());
        for expr in sizes {
            let value = self.eval(expr)?;
            let size = match value {
                Value::Number(Number::Int(size)) => usize::try_from(size).ok().filter(|s| *s > 0),
                Value::Number(_)
                | Value::Tensor(_)
                | Value::Shape(_)
                | Value::Rope(_)
                | Value::Scaling(_) => None,
            };
            let Some(size) = size else {
                let message = format!("a size must be a whole number from 1, found {}", value.describe());
                let error = self.error(expr.span, message);
                return Err(self.blame(error, expr));
            };
            dims.push(Dim { size, name: Rc::from(crate::format::expr(expr)) });
        }
        if let (Some(first), Some(last)) = (sizes.first(), sizes.last())
            && elements(dims.iter().map(|d| d.size)).is_none()
        {
            let message = format!("{} has more than {MAX_ELEMENTS} elements", describe_shape(&dims));
            return Err(Box::new(self.error(first.span.to(last.span), message).help(SMALLER.to_string())));
        }
        Ok(dims)
    }
}
