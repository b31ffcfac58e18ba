//! Loads and stores: what is fused, what is copied and what stays in memory.

use linc_tile::{Elem, Op, ValueId, View};

use super::groups::{Bounds, Location, Shape};
use super::half::Half;
use super::node::{Array, FusedOp, Node, Storage};
use super::scheduler::{Scheduler, numel};

/// The array that a view is, and its element type in memory.
fn array(s: &Scheduler<'_>, view: &View) -> (Array, Elem) {
    let elem = s.kernel.param(view.param).elem;
    let stride = |axis: usize| view.axes[axis].stride;
    let strides = match view.axes.len() {
        2 => [stride(0), stride(1)],
        1 => [0, stride(0)],
        _ => [0, 0],
    };
    let place = Storage::Memory { param: view.param, offset: view.offset };
    (Array { place, half: Half::of(elem), strides }, elem)
}

/// Bounds of a view, without those that the shape never reaches.
fn bounds(s: &Scheduler<'_>, view: &View, shape: Shape) -> Bounds {
    let useful = |bound: Option<ValueId>, extent: usize| {
        bound.filter(|b| s.offsets.constant(*b).is_none_or(|c| c < extent as i64))
    };
    match view.axes.as_slice() {
        [rows, cols] => [useful(rows.bound, shape[0]), useful(cols.bound, shape[1])],
        [cols] => [None, useful(cols.bound, shape[1])],
        _ => [None, None],
    }
}

/// Reads a tile where it is used, keeps it, or turns it, by who reads it.
pub(crate) fn load(s: &mut Scheduler<'_>, result: ValueId, view: &View) {
    s.flush_stores_to(view.param);
    if s.is_scalar(result) {
        s.out.push(Node::Scalar { result, op: Op::Load(view.clone()) });
        return;
    }
    let shape = s.shape(result);
    let (src, elem) = array(s, view);
    let bounds = bounds(s, view, shape);
    let id = result.0 as usize;
    let lazy = !s.usage.reused_by_dot[id] && (bounds == [None, None] || !s.usage.used_deeper[id]);
    if lazy && s.usage.in_place[id] {
        s.place(result, Location::Array(src, bounds));
    } else if lazy && (shape[1] <= 1 || matches!(src.strides[1], 0 | 1)) {
        // A store may change the memory before the last use: the group reads it once, and keeps a copy if anything
        // outside of the group needs one.
        let open = s.open.entry(shape).or_default();
        let index = open.push(FusedOp::Read(src), elem);
        open.reads.insert((src, bounds), index);
        if bounds != [None, None] {
            open.bounds.insert(index, bounds);
        }
        open.members.insert(result, index);
        s.place(result, Location::Waiting(shape));
    } else if s.usage.reused_by_dot[id] && s.usage.only_transposed_right[id] {
        let turned = Array { strides: [src.strides[1], src.strides[0]], ..src };
        let dst = s.reg(numel(shape));
        let [rows, cols] = shape;
        let bounds = [bounds[1], bounds[0]];
        s.out.push(Node::Load { dst, src: turned, shape: [cols, rows], bounds });
        let array = Array { place: Storage::Reg(dst), half: None, strides: [1, rows as i64] };
        s.place(result, Location::Array(array, [None, None]));
    } else {
        let dst = s.reg(numel(shape));
        s.out.push(Node::Load { dst, src, shape, bounds });
        s.place_dense(result, dst);
    }
}

/// A store joins the group that makes its value, where nothing forbids it.
pub(crate) fn store(s: &mut Scheduler<'_>, view: &View, value: ValueId) {
    let (dst, _) = array(s, view);
    if s.is_scalar(value) {
        s.flush_memory(None);
        s.out.push(Node::StoreScalar { to: dst.place, value });
        return;
    }
    let shape = s.shape(value);
    let bounds = bounds(s, view, shape);
    let in_register = match s.location(value) {
        Location::Array(array, _) => {
            matches!(array.place, Storage::Reg(_)) || (array.strides[1] != 1 && shape[1] > 1)
        }
        Location::Splat(_) | Location::Iota(_) | Location::Waiting(_) => false,
    };
    let unit = shape[1] <= 1 || dst.strides[1] == 1;
    if !in_register && unit && s.may_join(view.param, view.offset, dst.strides, shape) {
        s.flush_memory(Some(shape));
        let index = s.operand(value, shape);
        let open = s.open.entry(shape).or_default();
        open.stores.push((index, dst, bounds));
        return;
    }
    let src = s.dense(value);
    s.flush_memory(None);
    s.out.push(Node::Store { dst, src, shape, bounds });
}

/// A store to places that the program computes, behind all that touches memory.
pub(crate) fn scatter(s: &mut Scheduler<'_>, to: &View, places: ValueId, value: ValueId) {
    let (to, elem) = array(s, to);
    let (places, src) = (s.dense(places), s.dense(value));
    s.flush_memory(None);
    let numel = numel(s.shape(value));
    s.out.push(Node::Scatter { to: to.place, elem, places, src, numel });
}
