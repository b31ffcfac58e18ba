//! Bounds that keep size arithmetic from overflowing, and the element types each operand may have.
//!
//! [`crate::infer::infer`] applies both before its shape rules, so those rules may multiply and divide freely.

use crate::error::IrError;
use crate::op::Op;
use crate::types::{Shape, TensorType};

/// Most elements of one tensor; far above any real tensor, far below overflow of byte arithmetic.
pub const MAX_ELEMENTS: usize = 1 << 48;

fn fail<T>(op: &Op, message: String) -> Result<T, IrError> {
    Err(IrError::Type { op: op.name(), message })
}

/// Checks that every axis is at least 1 and the number of elements at most [`MAX_ELEMENTS`].
pub(crate) fn check_shape(op: &Op, what: &str, shape: &Shape) -> Result<(), IrError> {
    if shape.0.contains(&0) {
        return fail(op, format!("{what} is {shape}: an axis of size 0"));
    }
    let elements = shape.0.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    if elements.is_none_or(|n| n > MAX_ELEMENTS) {
        return fail(op, format!("{what} is {shape}: more than {MAX_ELEMENTS} elements"));
    }
    Ok(())
}

/// Checks operand sizes, attribute sizes and operand element types.
pub(crate) fn check_operands(op: &Op, operands: &[&TensorType]) -> Result<(), IrError> {
    for (i, ty) in operands.iter().enumerate() {
        check_shape(op, &format!("operand {i}"), &ty.shape)?;
    }
    check_attributes(op)?;
    let Some(integers) = op.facts().integers else { return Ok(()) };
    for (i, ty) in operands.iter().enumerate() {
        let expected = if integers.contains(&i) { "i32" } else { "a float tensor" };
        if integers.contains(&i) == ty.dtype.is_float() {
            return fail(op, format!("operand {i} is {ty}, expected {expected}"));
        }
    }
    Ok(())
}

fn check_attributes(op: &Op) -> Result<(), IrError> {
    match op {
        Op::Input { .. }
        | Op::Param { .. }
        | Op::State { .. }
        | Op::Table { .. }
        | Op::Constant { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Cast { .. }
        | Op::Sum { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::MatMul { .. }
        | Op::RmsNorm { .. }
        | Op::RmsNormGrad { .. }
        | Op::Rope { .. }
        | Op::Embedding { .. }
        | Op::Attention(_)
        | Op::AttentionGrad(_)
        | Op::CrossEntropy
        | Op::CrossEntropyGrad
        | Op::LogProbs
        | Op::GlobalNorm
        | Op::NormFinish
        | Op::Update(_)
        | Op::Exchange(_) => Ok(()),
        Op::Broadcast { shape } | Op::Reshape { shape } => check_shape(op, "the target", shape),
        Op::Fused(region) => {
            if region.outputs.is_empty() {
                return fail(op, "a region needs at least one output".into());
            }
            check_shape(op, "the region", &region.shape)
        }
        Op::Kind(kind) => kind.sizes().into_iter().try_for_each(|(name, size)| positive(op, name, size)),
        Op::Slice { start, len, .. } => bounded(op, &[("start", *start), ("len", *len)]),
        Op::Pad { before, after, .. } => bounded(op, &[("before", *before), ("after", *after)]),
        Op::EmbeddingGrad { vocab, .. } => positive(op, "vocab", *vocab),
        Op::LinearCrossEntropy { chunk }
        | Op::LinearCrossEntropyGrad { chunk }
        | Op::LinearLogProbs { chunk } => positive(op, "chunk", *chunk),
    }
}

fn bounded(op: &Op, sizes: &[(&str, usize)]) -> Result<(), IrError> {
    match sizes.iter().find(|(_, size)| *size > MAX_ELEMENTS) {
        Some((name, size)) => fail(op, format!("{name} is {size}, at most {MAX_ELEMENTS} makes sense")),
        None => Ok(()),
    }
}

fn positive(op: &Op, name: &str, size: usize) -> Result<(), IrError> {
    if size == 0 { fail(op, format!("{name} is 0, must be at least 1")) } else { Ok(()) }
}
