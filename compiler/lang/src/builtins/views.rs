//! Functions that reduce, rearrange, cut and join tensors.

use linc_ir::{BinaryOp, Op};

use super::Call;
use crate::build::{Builder, Built};
use crate::config::Number;
use crate::eval::quote;
use crate::value::{Dim, Value, describe_shape, elements, shape};

/// Over the last axis, which stays with size 1.
pub(super) fn sum(builder: &mut Builder<'_>, call: &Call<'_>, mean: bool) -> Built<Value> {
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

pub(super) fn reshape(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
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

pub(super) fn transpose(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, _) = call.tensor(builder, 0)?;
    let (a, b) = (call.axis(builder, 1, x.dims.len())?, call.axis(builder, 2, x.dims.len())?);
    let mut perm: Vec<usize> = (0..x.dims.len()).collect();
    perm.swap(a, b);
    let mut dims = x.dims;
    dims.swap(a, b);
    call.add(builder, Op::Transpose { perm }, &[x.value], dims)
}

pub(super) fn slice(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
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

pub(super) fn concat(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
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
