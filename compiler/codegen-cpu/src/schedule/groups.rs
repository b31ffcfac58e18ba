//! Open groups: pointwise operations that wait for others of their shape, until they become a loop.

use std::collections::BTreeMap;

use linc_tile::{Binary, Elem, ParamId, ValueId};

use super::node::{Array, FusedOp, Node, RegId, Storage};

/// Index scalars that cut rows and columns short.
pub(crate) type Bounds = [Option<ValueId>; 2];
/// Rows and columns.
pub(crate) type Shape = [usize; 2];

/// Where the elements of a tile value come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Location {
    /// Scratch or memory; elements at or beyond a bound are 0.
    Array(Array, Bounds),
    /// A scalar repeated.
    Splat(ValueId),
    /// The index along an axis of `[rows, cols]`.
    Iota(usize),
    /// In the open group of this shape.
    Waiting(Shape),
}

/// A group that still accepts operations.
#[derive(Default)]
pub(crate) struct Open {
    pub(crate) ops: Vec<(FusedOp, Elem)>,
    /// Bounds of the reads that have some.
    pub(crate) bounds: BTreeMap<usize, Bounds>,
    /// Index of each value of the kernel that the group makes.
    pub(crate) members: BTreeMap<ValueId, usize>,
    /// Number of uses of a member within the group.
    pub(crate) uses: BTreeMap<ValueId, u32>,
    /// Index of what the group reads already.
    pub(crate) reads: BTreeMap<(Array, Bounds), usize>,
    pub(crate) stores: Vec<(usize, Array, Bounds)>,
}

impl Open {
    /// Adds an operation and returns its index.
    pub(crate) fn push(&mut self, op: FusedOp, elem: Elem) -> usize {
        self.ops.push((op, elem));
        self.ops.len() - 1
    }

    /// Views of memory that the group reads: parameter, offset, strides.
    pub(crate) fn params_read(&self) -> impl Iterator<Item = (ParamId, ValueId, [i64; 2])> {
        self.reads.keys().filter_map(|(array, _)| match array.place {
            Storage::Memory { param, offset } => Some((param, offset, array.strides)),
            Storage::Reg(_) => None,
        })
    }

    /// Views of memory that the group stores to.
    pub(crate) fn params_stored(&self) -> impl Iterator<Item = (ParamId, ValueId, [i64; 2])> {
        self.stores.iter().filter_map(|(_, array, _)| match array.place {
            Storage::Memory { param, offset } => Some((param, offset, array.strides)),
            Storage::Reg(_) => None,
        })
    }

    /// The group as a node of its own, for which the runtime has wider vectors than a generated loop: if it is nothing but a
    /// dense tile times a vector along one axis, as the sums of attention are scaled, or the difference of the two times another
    /// tile, as the gradient of its scores is.
    pub(crate) fn as_primitive(&self, shape: Shape, outputs: &BTreeMap<usize, RegId>) -> Option<Node> {
        if !self.stores.is_empty() || outputs.len() != 1 || !self.bounds.is_empty() || shape[1] == 1 {
            return None;
        }
        let computes = |op: &FusedOp| !matches!(op, FusedOp::Read(_) | FusedOp::Splat(_) | FusedOp::Iota(_));
        let computed = self.ops.iter().filter(|(op, _)| computes(op)).count();
        let read = |index: usize| match self.ops[index].0 {
            FusedOp::Read(array) => Some(array),
            _ => None,
        };
        let tile = |index: usize| {
            read(index).filter(|a| a.is_dense(shape) && a.half.is_none()).map(|array| array.place)
        };
        let vector = |index: usize| read(index).filter(Array::is_vector);
        let (index, dst) = outputs.first_key_value()?;
        let (FusedOp::Binary(Binary::Mul, a, b), Elem::F32) = self.ops[*index] else { return None };
        if computed == 1 {
            return Some(Node::Scale { dst: *dst, src: tile(a)?, shape, vector: vector(b)? });
        }
        let FusedOp::Binary(Binary::Sub, from, minus) = self.ops[b].0 else { return None };
        if computed != 2 {
            return None;
        }
        let (src, factor, vector) = (tile(from)?, tile(a)?, vector(minus)?);
        Some(Node::ScaledDifference { dst: *dst, src, factor, shape, vector })
    }
}
