//! Where tiles are while statements become nodes, and the groups that wait.

use std::collections::BTreeMap;

use linc_tile::{Kernel, ParamId, ValueId};

use super::groups::{Bounds, Location, Open, Shape};
use super::node::{Array, FusedOp, Group, Node, RegId, Storage};
use crate::analysis::affine::{Offsets, Relation};
use crate::analysis::usage::Usage;

/// What is known within a region.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    pub(crate) locations: BTreeMap<ValueId, Location>,
    /// Registers that hold a splat or iota.
    pub(crate) filled: BTreeMap<ValueId, RegId>,
}

pub(crate) struct Scheduler<'k> {
    pub(crate) kernel: &'k Kernel,
    pub(crate) usage: &'k Usage,
    pub(crate) offsets: Offsets,
    pub(crate) regs: Vec<usize>,
    pub(crate) scope: Scope,
    pub(crate) open: BTreeMap<Shape, Open>,
    pub(crate) out: Vec<Node>,
}

/// Rows and columns of a tile shape.
fn rows_cols(shape: &[usize]) -> Shape {
    match shape {
        [rows, cols] => [*rows, *cols],
        [cols] => [1, *cols],
        _ => [1, 1],
    }
}

pub(crate) fn numel(shape: Shape) -> usize {
    shape[0] * shape[1]
}

impl<'k> Scheduler<'k> {
    pub(crate) fn new(kernel: &'k Kernel, usage: &'k Usage) -> Scheduler<'k> {
        Scheduler {
            kernel,
            usage,
            offsets: Offsets::of(kernel),
            regs: vec![],
            scope: Scope::default(),
            open: BTreeMap::new(),
            out: vec![],
        }
    }

    pub(crate) fn shape(&self, value: ValueId) -> Shape {
        rows_cols(&self.kernel.ty(value).shape)
    }

    pub(crate) fn is_scalar(&self, value: ValueId) -> bool {
        self.kernel.ty(value).shape.is_empty()
    }

    pub(crate) fn reg(&mut self, elements: usize) -> RegId {
        self.regs.push(elements);
        RegId(self.regs.len() as u32 - 1)
    }

    pub(crate) fn place(&mut self, value: ValueId, location: Location) {
        self.scope.locations.insert(value, location);
    }

    pub(crate) fn place_dense(&mut self, value: ValueId, reg: RegId) {
        let array = Array::dense(reg, self.shape(value));
        self.place(value, Location::Array(array, [None, None]));
    }

    /// The location of a tile; verified kernels define before use.
    pub(crate) fn location(&self, value: ValueId) -> Location {
        self.scope.locations[&value]
    }

    // ---- operands of other nodes ----

    /// A tile that is not waiting.
    pub(crate) fn settled(&mut self, value: ValueId) -> Location {
        if let Location::Waiting(shape) = self.location(value) {
            self.flush(shape);
        }
        self.location(value)
    }

    /// A register that holds the whole tile.
    pub(crate) fn dense(&mut self, value: ValueId) -> RegId {
        let shape = self.shape(value);
        match self.settled(value) {
            Location::Array(array, bounds) => {
                if let Storage::Reg(reg) = array.place
                    && array.is_dense(shape)
                    && self.regs[reg.0 as usize] == numel(shape)
                {
                    return reg;
                }
                let dst = self.reg(numel(shape));
                self.out.push(Node::Load { dst, src: array, shape, bounds });
                self.place_dense(value, dst);
                dst
            }
            Location::Splat(_) | Location::Iota(_) => {
                if let Some(reg) = self.scope.filled.get(&value) {
                    return *reg;
                }
                let reg = self.fill(value);
                self.scope.filled.insert(value, reg);
                reg
            }
            Location::Waiting(_) => unreachable!("settled"),
        }
    }

    /// A new register with a splat or iota.
    pub(crate) fn fill(&mut self, value: ValueId) -> RegId {
        let op = match self.location(value) {
            Location::Splat(scalar) => FusedOp::Splat(scalar),
            Location::Iota(axis) => FusedOp::Iota(axis),
            Location::Array(..) | Location::Waiting(_) => unreachable!("only splats and iotas are filled in"),
        };
        let shape = self.shape(value);
        let reg = self.reg(numel(shape));
        let ops = vec![(op, self.kernel.ty(value).elem)];
        self.out.push(Node::Group(Group {
            shape,
            ops,
            outputs: vec![(0, reg)],
            stores: vec![],
            limits: [None, None],
        }));
        reg
    }

    /// An f32 array with any strides, without bounds.
    pub(crate) fn strided(&mut self, value: ValueId) -> Array {
        match self.settled(value) {
            Location::Array(array, [None, None]) if array.half.is_none() => array,
            Location::Array(..) | Location::Splat(_) | Location::Iota(_) | Location::Waiting(_) => {
                Array::dense(self.dense(value), self.shape(value))
            }
        }
    }

    // ---- groups ----

    /// Ends the group of a shape: it becomes a loop, and what others need of it gets a register.
    pub(crate) fn flush(&mut self, shape: Shape) {
        let Some(mut open) = self.open.remove(&shape) else { return };
        let mut outputs: BTreeMap<usize, RegId> = BTreeMap::new();
        for (value, index) in &open.members {
            let inside = open.uses.get(value).copied().unwrap_or(0);
            if self.usage.count[value.0 as usize] > inside {
                let reg = match outputs.get(index) {
                    Some(reg) => *reg,
                    None => self.reg(numel(shape)),
                };
                outputs.insert(*index, reg);
                self.place_dense(*value, reg);
            }
        }
        let mut stores_after = vec![];
        let limits = self.common_limits(&open, outputs.is_empty());
        if limits.is_none() {
            for (index, bounds) in &open.bounds {
                let FusedOp::Read(src) = open.ops[*index].0 else { continue };
                let dst = self.reg(numel(shape));
                self.out.push(Node::Load { dst, src, shape, bounds: *bounds });
                open.ops[*index].0 = FusedOp::Read(Array::dense(dst, shape));
            }
            let (bounded, free): (Vec<_>, Vec<_>) =
                open.stores.into_iter().partition(|(_, _, b)| *b != [None, None]);
            open.stores = free;
            for (index, dst, bounds) in bounded {
                let src = *outputs.entry(index).or_insert_with(|| {
                    self.regs.push(numel(shape));
                    RegId(self.regs.len() as u32 - 1)
                });
                stores_after.push(Node::Store { dst, src, shape, bounds });
            }
        }
        if let Some(node) = open.as_primitive(shape, &outputs) {
            self.out.push(node);
        } else if !outputs.is_empty() || !open.stores.is_empty() {
            self.out.push(Node::Group(Group {
                shape,
                ops: open.ops,
                outputs: outputs.into_iter().collect(),
                stores: open.stores.into_iter().map(|(index, array, _)| (index, array)).collect(),
                limits: limits.unwrap_or([None, None]),
            }));
        }
        self.out.append(&mut stores_after);
    }

    /// One bound per axis that all bounded accesses of a group share, so that the loop itself can stop there.
    fn common_limits(&self, open: &Open, no_outputs: bool) -> Option<Bounds> {
        let all = open.bounds.values().chain(open.stores.iter().map(|(_, _, bounds)| bounds));
        let mut limits: Bounds = [None, None];
        for bounds in all {
            for axis in 0..2 {
                match (limits[axis], bounds[axis]) {
                    (Some(a), Some(b)) if !self.offsets.equal(a, b) => return None,
                    (None, Some(b)) => limits[axis] = Some(b),
                    (Some(_), Some(_)) | (_, None) => {}
                }
            }
        }
        let stores_fit = open
            .stores
            .iter()
            .all(|(_, _, b)| (0..2).all(|axis| limits[axis].is_some() == b[axis].is_some()));
        (limits == [None, None] || (no_outputs && stores_fit)).then_some(limits)
    }

    pub(crate) fn flush_all(&mut self) {
        while let Some(shape) = self.open.keys().next().copied() {
            self.flush(shape);
        }
    }

    /// Ends the groups that hold back a store to a parameter.
    pub(crate) fn flush_stores_to(&mut self, param: ParamId) {
        let stores = |open: &Open| open.params_stored().any(|(p, ..)| p == param);
        let shapes: Vec<Shape> = self.open.iter().filter(|(_, o)| stores(o)).map(|(s, _)| *s).collect();
        for shape in shapes {
            self.flush(shape);
        }
    }

    /// Ends the groups that touch memory, but for one.
    pub(crate) fn flush_memory(&mut self, except: Option<Shape>) {
        let touches = |open: &Open| open.params_read().next().is_some() || !open.stores.is_empty();
        let shapes: Vec<Shape> = self
            .open
            .iter()
            .filter(|(shape, open)| Some(**shape) != except && touches(open))
            .map(|(shape, _)| *shape)
            .collect();
        for shape in shapes {
            self.flush(shape);
        }
    }

    /// Index in the open group of `shape` of a tile operand.
    pub(crate) fn operand(&mut self, value: ValueId, shape: Shape) -> usize {
        if let Location::Waiting(other) = self.location(value)
            && other != shape
        {
            self.flush(other);
        }
        if let Location::Array(array, _) = self.location(value)
            && shape[1] > 1
            && !matches!(array.strides[1], 0 | 1)
        {
            self.dense(value);
        }
        let elem = self.kernel.ty(value).elem;
        let location = self.location(value);
        let open = self.open.entry(shape).or_default();
        *open.uses.entry(value).or_default() += 1;
        if let Some(index) = open.members.get(&value) {
            return *index;
        }
        match location {
            Location::Array(array, bounds) => {
                if let Some(index) = open.reads.get(&(array, bounds)) {
                    return *index;
                }
                let index = open.push(FusedOp::Read(array), elem);
                open.reads.insert((array, bounds), index);
                if bounds != [None, None] {
                    open.bounds.insert(index, bounds);
                }
                index
            }
            Location::Splat(scalar) => open.push(FusedOp::Splat(scalar), elem),
            Location::Iota(axis) => open.push(FusedOp::Iota(axis), elem),
            Location::Waiting(_) => unreachable!("a waiting value is a member of its group"),
        }
    }

    pub(crate) fn pointwise(
        &mut self,
        result: ValueId,
        operands: &[ValueId],
        op: impl FnOnce(&[usize]) -> FusedOp,
    ) {
        let shape = self.shape(result);
        // Other groups end first: ending one must not happen between two operands.
        for value in operands {
            if let Location::Waiting(other) = self.location(*value)
                && other != shape
            {
                self.flush(other);
            }
        }
        let indices: Vec<usize> = operands.iter().map(|v| self.operand(*v, shape)).collect();
        let elem = self.kernel.ty(result).elem;
        let open = self.open.entry(shape).or_default();
        let index = open.push(op(&indices), elem);
        open.members.insert(result, index);
        self.place(result, Location::Waiting(shape));
    }

    /// Whether a store may run in the loop of the open group: each element that the group also reads through the same
    /// parameter must be touched in the same iteration or not at all, and none may be stored twice (the group may have to
    /// reorder its stores).
    pub(crate) fn may_join(&self, param: ParamId, offset: ValueId, strides: [i64; 2], shape: Shape) -> bool {
        let Some(open) = self.open.get(&shape) else { return true };
        let relation = |(p, o, s): (ParamId, ValueId, [i64; 2])| {
            if p == param {
                self.offsets.relation((o, s), (offset, strides), shape)
            } else {
                Relation::Disjoint
            }
        };
        open.params_read().all(|view| relation(view) != Relation::Unknown)
            && open.params_stored().all(|view| relation(view) == Relation::Disjoint)
    }
}
