//! Operations on whole tiles as nodes, or as other strides of what is there.

use linc_tile::{Elem, Reduction, ValueId};

use super::groups::Location;
use super::half::Half;
use super::node::{Array, FusedOp, Node, ReduceTo, Storage};
use super::scheduler::{Scheduler, numel};
use crate::primitive::Primitive;

/// A transcendental function.
pub(crate) fn math(s: &mut Scheduler<'_>, function: Primitive, result: ValueId, operand: ValueId) {
    let shape = s.shape(operand);
    let array = s.strided(operand);
    let src = if array.is_dense(shape) { array.place } else { Storage::Reg(s.dense(operand)) };
    let dst = s.reg(numel(shape));
    s.out.push(Node::Math { function, dst, src, numel: numel(shape) });
    s.place_dense(result, dst);
}

/// `2^(x·factor + shift)`, as the weights of attention are: where the exponent is a multiply-add that waits, that nothing
/// else reads, and whose shift is a vector along one axis. One pass over the tile then does both. False if it is not.
pub(crate) fn affine_exp2(s: &mut Scheduler<'_>, result: ValueId, exponent: ValueId) -> bool {
    let Location::Waiting(shape) = s.location(exponent) else { return false };
    let Some(open) = s.open.get_mut(&shape) else { return false };
    // As the last of its group it can be taken out again.
    let Some((FusedOp::Fma(x, factor, shift), _)) = open.ops.last().cloned() else { return false };
    if open.members.get(&exponent) != Some(&(open.ops.len() - 1)) {
        return false;
    }
    let is_bounded = open.bounds.contains_key(&x) || open.bounds.contains_key(&shift);
    let (FusedOp::Read(x), FusedOp::Splat(factor), FusedOp::Read(shift)) =
        (&open.ops[x].0, &open.ops[factor].0, &open.ops[shift].0)
    else {
        return false;
    };
    let (x, factor, shift) = (*x, *factor, *shift);
    let is_tile = x.is_dense(shape) && x.half.is_none();
    if is_bounded || !is_tile || !shift.is_vector() || s.usage.count[exponent.0 as usize] != 1 {
        return false;
    }
    open.ops.pop();
    open.members.remove(&exponent);
    let dst = s.reg(numel(shape));
    s.out.push(Node::AffineExp2 { dst, src: x.place, shape, factor, shift });
    s.place_dense(result, dst);
    true
}

/// A cast; narrow tiles are kept as f32 of equal value.
pub(crate) fn cast(s: &mut Scheduler<'_>, result: ValueId, a: ValueId) -> Result<(), String> {
    match (s.kernel.ty(a).elem, s.kernel.ty(result).elem) {
        // A narrow tile is kept as f32 of equal value.
        (Elem::Bf16 | Elem::F16, Elem::F32) => {
            if let Location::Waiting(shape) = s.location(a) {
                let index = s.operand(a, shape);
                s.open.entry(shape).or_default().members.insert(result, index);
            }
            s.place(result, s.location(a));
        }
        (Elem::F32, Elem::Bf16) => s.pointwise(result, &[a], |i| FusedOp::Round(Half::Bf16, i[0])),
        (Elem::F32, Elem::F16) => s.pointwise(result, &[a], |i| FusedOp::Round(Half::F16, i[0])),
        (Elem::I32, Elem::F32) => s.pointwise(result, &[a], |i| FusedOp::IntToFloat(i[0])),
        (Elem::F32, Elem::I32) => s.pointwise(result, &[a], |i| FusedOp::FloatToInt(i[0])),
        (from, to) => return Err(format!("a cast of a tile from {from:?} to {to:?}")),
    }
    Ok(())
}

/// A vector as rows or columns that are alike: read with a stride of 0.
pub(crate) fn expand(s: &mut Scheduler<'_>, result: ValueId, vector: ValueId, axis: usize) {
    let location = match (s.settled(vector), axis) {
        (Location::Array(a, b), 0) => {
            Location::Array(Array { strides: [0, a.strides[1]], ..a }, [None, b[1]])
        }
        (Location::Array(a, b), _) => {
            Location::Array(Array { strides: [a.strides[1], 0], ..a }, [b[1], None])
        }
        (Location::Splat(scalar), _) => Location::Splat(scalar),
        (Location::Iota(_), 0) => Location::Iota(1),
        (Location::Iota(_), _) => Location::Iota(0),
        (Location::Waiting(_), _) => unreachable!("settled"),
    };
    s.place(result, location);
}

/// Read with the strides exchanged.
pub(crate) fn transpose(s: &mut Scheduler<'_>, result: ValueId, a: ValueId) {
    let location = match s.settled(a) {
        Location::Array(a, b) => {
            Location::Array(Array { strides: [a.strides[1], a.strides[0]], ..a }, [b[1], b[0]])
        }
        Location::Splat(scalar) => Location::Splat(scalar),
        Location::Iota(axis) => Location::Iota(1 - axis),
        Location::Waiting(_) => unreachable!("settled"),
    };
    s.place(result, location);
}

/// `result = op(a)·op(b) + acc`
pub(crate) fn dot(
    s: &mut Scheduler<'_>,
    result: ValueId,
    (a, trans_a): (ValueId, bool),
    (b, trans_b): (ValueId, bool),
    acc: Option<ValueId>,
) {
    let [m, n] = s.shape(result);
    let k = s.shape(a)[usize::from(!trans_a)];
    let turned = |array: Array, flag: bool| {
        let [r, c] = array.strides;
        Array { strides: if flag { [c, r] } else { [r, c] }, ..array }
    };
    let a = turned(s.strided(a), trans_a);
    let b = turned(s.strided(b), trans_b);
    let acc = match acc {
        Some(acc) => match s.settled(acc) {
            Location::Splat(scalar) if s.usage.zero[scalar.0 as usize] => None,
            Location::Splat(_) | Location::Iota(_) | Location::Array(..) | Location::Waiting(_) => {
                Some(s.dense(acc))
            }
        },
        None => None,
    };
    let dst = s.reg(m * n);
    s.out.push(Node::Dot { dst, acc, a, b, sizes: [m, n, k] });
    s.place_dense(result, dst);
}

/// A reduction, along the rows of the array where these are not contiguous.
pub(crate) fn reduce(
    s: &mut Scheduler<'_>,
    result: ValueId,
    op: Reduction,
    axis: usize,
    value: ValueId,
) -> Result<(), String> {
    if s.kernel.ty(value).elem != Elem::F32 {
        return Err(format!("a reduction of {:?}", s.kernel.ty(value)));
    }
    let mut shape = s.shape(value);
    let mut axis = axis + 2 - s.kernel.ty(value).shape.len();
    let mut src = s.strided(value);
    if shape[1] > 1 && src.strides[1] != 1 {
        if src.strides[0] == 1 {
            src.strides.swap(0, 1);
            shape.swap(0, 1);
            axis = 1 - axis;
        } else {
            src = Array::dense(s.dense(value), shape);
        }
    }
    let to = if s.is_scalar(result) {
        ReduceTo::Scalar(result)
    } else {
        let dst = s.reg(shape[1 - axis]);
        s.place_dense(result, dst);
        ReduceTo::Reg(dst)
    };
    s.out.push(Node::Reduce { op, to, src, shape, axis });
    Ok(())
}

/// A running sum.
pub(crate) fn scan(s: &mut Scheduler<'_>, result: ValueId, axis: usize, reverse: bool, value: ValueId) {
    let shape = s.shape(value);
    let axis = axis + 2 - s.kernel.ty(value).shape.len();
    let src = s.dense(value);
    let dst = s.reg(numel(shape));
    s.out.push(Node::Scan { dst, src, shape, axis, reverse });
    s.place_dense(result, dst);
}
