//! Statements to nodes: decides what is fused, what is copied and what stays in memory.
//!
//! Pointwise statements wait in an open group per shape until something else needs one of their values, a store to
//! memory could change what they read, or a region ends; then the group becomes one loop. Values that nothing outside
//! the group reads never reach scratch. A store of a waiting value joins its group. Splats, iotas, expansions and
//! transpositions are not computed at all but read with other strides.

use std::collections::BTreeMap;

use linc_tile::{Elem, Kernel, Op, Region, Stmt, Unary, ValueId, View};

use crate::affine::Offsets;
use crate::group::{Bounds, Location, Open, Shape};
use crate::half::Half;
use crate::node::{Array, Carry, Group, Node, Place, PointOp, ReduceTo, RegId, Schedule};
use crate::primitive::Primitive;
use crate::usage::Usage;

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

/// Schedules a verified kernel; the error is a limit of this code generator.
pub(crate) fn schedule(kernel: &Kernel, usage: &Usage) -> Result<Schedule, String> {
    let mut scheduler = Scheduler {
        kernel,
        usage,
        offsets: Offsets::of(kernel),
        regs: vec![],
        scope: Scope::default(),
        open: BTreeMap::new(),
        out: vec![],
    };
    scheduler.body(&kernel.body)?;
    scheduler.flush_all();
    Ok(Schedule { regs: scheduler.regs, nodes: scheduler.out })
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

impl Scheduler<'_> {
    pub(crate) fn shape(&self, value: ValueId) -> Shape {
        rows_cols(&self.kernel.ty(value).shape)
    }

    fn is_scalar(&self, value: ValueId) -> bool {
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
    fn settled(&mut self, value: ValueId) -> Location {
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
                if let Place::Reg(reg) = array.place
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
    fn fill(&mut self, value: ValueId) -> RegId {
        let op = match self.location(value) {
            Location::Splat(scalar) => PointOp::Splat(scalar),
            Location::Iota(axis) => PointOp::Iota(axis),
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
    fn strided(&mut self, value: ValueId) -> Array {
        match self.settled(value) {
            Location::Array(array, [None, None]) if array.half.is_none() => array,
            Location::Array(..) | Location::Splat(_) | Location::Iota(_) | Location::Waiting(_) => {
                Array::dense(self.dense(value), self.shape(value))
            }
        }
    }

    // ---- statements ----

    fn body(&mut self, body: &[Stmt]) -> Result<(), String> {
        body.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn array(&self, view: &View) -> (Array, Elem) {
        let elem = self.kernel.param(view.param).elem;
        let stride = |axis: usize| view.axes[axis].stride;
        let strides = match view.axes.len() {
            2 => [stride(0), stride(1)],
            1 => [0, stride(0)],
            _ => [0, 0],
        };
        let place = Place::Memory { param: view.param, offset: view.offset };
        (Array { place, half: Half::of(elem), strides }, elem)
    }

    /// Bounds of a view, without those that the shape never reaches.
    fn bounds(&self, view: &View, shape: Shape) -> Bounds {
        let useful = |bound: Option<ValueId>, extent: usize| {
            bound.filter(|b| self.offsets.constant(*b).is_none_or(|c| c < extent as i64))
        };
        match view.axes.as_slice() {
            [rows, cols] => [useful(rows.bound, shape[0]), useful(cols.bound, shape[1])],
            [cols] => [None, useful(cols.bound, shape[1])],
            _ => [None, None],
        }
    }

    fn load(&mut self, result: ValueId, view: &View) {
        self.flush_stores_to(view.param);
        if self.is_scalar(result) {
            self.out.push(Node::Scalar { result, op: Op::Load(view.clone()) });
            return;
        }
        let shape = self.shape(result);
        let (src, elem) = self.array(view);
        let bounds = self.bounds(view, shape);
        let id = result.0 as usize;
        let lazy = !self.usage.reused_by_dot[id] && (bounds == [None, None] || !self.usage.used_deeper[id]);
        if lazy && self.usage.in_place[id] {
            self.place(result, Location::Array(src, bounds));
        } else if lazy && (shape[1] <= 1 || matches!(src.strides[1], 0 | 1)) {
            // A store may change the memory before the last use: the group reads it once, and keeps a copy if anything
            // outside of the group needs one.
            let open = self.open.entry(shape).or_default();
            let index = open.push(PointOp::Read(src), elem);
            open.reads.insert((src, bounds), index);
            if bounds != [None, None] {
                open.bounds.insert(index, bounds);
            }
            open.members.insert(result, index);
            self.place(result, Location::Waiting(shape));
        } else if self.usage.reused_by_dot[id] && self.usage.only_transposed_right[id] {
            let turned = Array { strides: [src.strides[1], src.strides[0]], ..src };
            let dst = self.reg(numel(shape));
            let [rows, cols] = shape;
            let bounds = [bounds[1], bounds[0]];
            self.out.push(Node::Load { dst, src: turned, shape: [cols, rows], bounds });
            let array = Array { place: Place::Reg(dst), half: None, strides: [1, rows as i64] };
            self.place(result, Location::Array(array, [None, None]));
        } else {
            let dst = self.reg(numel(shape));
            self.out.push(Node::Load { dst, src, shape, bounds });
            self.place_dense(result, dst);
        }
    }

    fn store(&mut self, view: &View, value: ValueId) {
        let (dst, _) = self.array(view);
        if self.is_scalar(value) {
            self.flush_memory(None);
            self.out.push(Node::StoreScalar { to: dst.place, value });
            return;
        }
        let shape = self.shape(value);
        let bounds = self.bounds(view, shape);
        let in_register = match self.location(value) {
            Location::Array(array, _) => {
                matches!(array.place, Place::Reg(_)) || (array.strides[1] != 1 && shape[1] > 1)
            }
            Location::Splat(_) | Location::Iota(_) | Location::Waiting(_) => false,
        };
        let unit = shape[1] <= 1 || dst.strides[1] == 1;
        if !in_register && unit && self.may_join(view.param, view.offset, dst.strides, shape) {
            self.flush_memory(Some(shape));
            let index = self.operand(value, shape);
            let open = self.open.entry(shape).or_default();
            open.stores.push((index, dst, bounds));
            return;
        }
        let src = self.dense(value);
        self.flush_memory(None);
        self.out.push(Node::Store { dst, src, shape, bounds });
    }

    fn scatter(&mut self, to: &View, places: ValueId, value: ValueId) {
        let (to, elem) = self.array(to);
        let (places, src) = (self.dense(places), self.dense(value));
        self.flush_memory(None);
        let numel = numel(self.shape(value));
        self.out.push(Node::Scatter { to: to.place, elem, places, src, numel });
    }

    fn math(&mut self, function: Primitive, result: ValueId, operand: ValueId) {
        let shape = self.shape(operand);
        let array = self.strided(operand);
        let src = if array.is_dense(shape) { array.place } else { Place::Reg(self.dense(operand)) };
        let dst = self.reg(numel(shape));
        self.out.push(Node::Math { function, dst, src, numel: numel(shape) });
        self.place_dense(result, dst);
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), String> {
        if let [result] = stmt.results.as_slice()
            && self.is_scalar(*result)
            && !matches!(stmt.op, Op::Load(_) | Op::Reduce { .. } | Op::For { .. } | Op::If { .. })
        {
            self.out.push(Node::Scalar { result: *result, op: stmt.op.clone() });
            return Ok(());
        }
        let result = stmt.results.first().copied().unwrap_or(ValueId(u32::MAX));
        match &stmt.op {
            Op::ConstF(_) | Op::ConstI(_) | Op::ProgramId(_) => {
                return Err(format!("a constant {:?} of type {:?}", stmt.op, self.kernel.ty(result)));
            }
            Op::Unary(op, a) => match op {
                Unary::Exp => self.math(Primitive::Exp, result, *a),
                Unary::Exp2 => self.math(Primitive::Exp2, result, *a),
                Unary::Log => self.math(Primitive::Log, result, *a),
                Unary::Sigmoid => self.math(Primitive::Sigmoid, result, *a),
                Unary::Tanh => self.math(Primitive::Tanh, result, *a),
                Unary::Neg | Unary::Abs | Unary::Sqrt | Unary::Rsqrt | Unary::Recip | Unary::Not => {
                    self.pointwise(result, &[*a], |i| PointOp::Unary(*op, i[0]));
                }
            },
            Op::Binary(op, a, b) => self.pointwise(result, &[*a, *b], |i| PointOp::Binary(*op, i[0], i[1])),
            Op::Fma(a, b, c) => self.pointwise(result, &[*a, *b, *c], |i| PointOp::Fma(i[0], i[1], i[2])),
            Op::Compare(op, a, b) => {
                self.pointwise(result, &[*a, *b], |i| PointOp::Compare(*op, i[0], i[1]));
            }
            Op::Select(c, a, b) => {
                self.pointwise(result, &[*c, *a, *b], |i| PointOp::Select(i[0], i[1], i[2]));
            }
            Op::Cast(a) => self.cast(result, *a)?,
            Op::Splat(a) => self.place(result, Location::Splat(*a)),
            Op::Iota { axis } => {
                let axis = axis + 2 - self.kernel.ty(result).shape.len();
                self.place(result, Location::Iota(axis));
            }
            Op::Expand { vector, axis } => {
                let location = match (self.settled(*vector), axis) {
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
                self.place(result, location);
            }
            Op::Transpose(a) => {
                let location = match self.settled(*a) {
                    Location::Array(a, b) => {
                        Location::Array(Array { strides: [a.strides[1], a.strides[0]], ..a }, [b[1], b[0]])
                    }
                    Location::Splat(scalar) => Location::Splat(scalar),
                    Location::Iota(axis) => Location::Iota(1 - axis),
                    Location::Waiting(_) => unreachable!("settled"),
                };
                self.place(result, location);
            }
            Op::Load(view) => self.load(result, view),
            Op::Store(view, value) => self.store(view, *value),
            Op::Scatter { to, places, value } => self.scatter(to, *places, *value),
            Op::Dot { a, b, acc, trans_a, trans_b } => {
                let [m, n] = self.shape(result);
                let k = self.shape(*a)[usize::from(!trans_a)];
                let turned = |array: Array, flag: bool| {
                    let [r, c] = array.strides;
                    Array { strides: if flag { [c, r] } else { [r, c] }, ..array }
                };
                let a = turned(self.strided(*a), *trans_a);
                let b = turned(self.strided(*b), *trans_b);
                let acc = match acc {
                    Some(acc) => match self.settled(*acc) {
                        Location::Splat(s) if self.usage.zero[s.0 as usize] => None,
                        Location::Splat(_)
                        | Location::Iota(_)
                        | Location::Array(..)
                        | Location::Waiting(_) => Some(self.dense(*acc)),
                    },
                    None => None,
                };
                let dst = self.reg(m * n);
                self.out.push(Node::Dot { dst, acc, a, b, sizes: [m, n, k] });
                self.place_dense(result, dst);
            }
            Op::Reduce { op, axis, value } => {
                if self.kernel.ty(*value).elem != Elem::F32 {
                    return Err(format!("a reduction of {:?}", self.kernel.ty(*value)));
                }
                let mut shape = self.shape(*value);
                let mut axis = axis + 2 - self.kernel.ty(*value).shape.len();
                let mut src = self.strided(*value);
                if shape[1] > 1 && src.strides[1] != 1 {
                    if src.strides[0] == 1 {
                        src.strides.swap(0, 1);
                        shape.swap(0, 1);
                        axis = 1 - axis;
                    } else {
                        src = Array::dense(self.dense(*value), shape);
                    }
                }
                let to = if self.is_scalar(result) {
                    ReduceTo::Scalar(result)
                } else {
                    let dst = self.reg(shape[1 - axis]);
                    self.place_dense(result, dst);
                    ReduceTo::Reg(dst)
                };
                self.out.push(Node::Reduce { op: *op, to, src, shape, axis });
            }
            Op::Scan { axis, reverse, value } => {
                let shape = self.shape(*value);
                let axis = axis + 2 - self.kernel.ty(*value).shape.len();
                let src = self.dense(*value);
                let dst = self.reg(numel(shape));
                self.out.push(Node::Scan { dst, src, shape, axis, reverse: *reverse });
                self.place_dense(result, dst);
            }
            Op::For { lower, upper, step, init, body } => {
                self.for_loop([*lower, *upper, *step], init, body, &stmt.results)?;
            }
            Op::If { cond, then, otherwise } => self.branch(*cond, then, otherwise, &stmt.results)?,
        }
        Ok(())
    }

    fn cast(&mut self, result: ValueId, a: ValueId) -> Result<(), String> {
        match (self.kernel.ty(a).elem, self.kernel.ty(result).elem) {
            // A narrow tile is kept as f32 of equal value.
            (Elem::Bf16 | Elem::F16, Elem::F32) => {
                if let Location::Waiting(shape) = self.location(a) {
                    let index = self.operand(a, shape);
                    self.open.entry(shape).or_default().members.insert(result, index);
                }
                self.place(result, self.location(a));
            }
            (Elem::F32, Elem::Bf16) => self.pointwise(result, &[a], |i| PointOp::Round(Half::Bf16, i[0])),
            (Elem::F32, Elem::F16) => self.pointwise(result, &[a], |i| PointOp::Round(Half::F16, i[0])),
            (Elem::I32, Elem::F32) => self.pointwise(result, &[a], |i| PointOp::IntToFloat(i[0])),
            (Elem::F32, Elem::I32) => self.pointwise(result, &[a], |i| PointOp::FloatToInt(i[0])),
            (from, to) => return Err(format!("a cast of a tile from {from:?} to {to:?}")),
        }
        Ok(())
    }

    // ---- control ----

    /// Schedules a region on its own and returns its nodes and the registers of the tiles that it yields.
    fn region(&mut self, region: &Region) -> Result<(Vec<Node>, Vec<RegId>), String> {
        let scope = self.scope.clone();
        let outer = std::mem::take(&mut self.out);
        self.body(&region.body)?;
        let tiles: Vec<ValueId> = region.yields.iter().copied().filter(|v| !self.is_scalar(*v)).collect();
        let yields = tiles.into_iter().map(|v| self.dense(v)).collect();
        self.flush_all();
        // What was learnt about tiles of outer regions holds only here: the copies are made here.
        self.scope = scope;
        Ok((std::mem::replace(&mut self.out, outer), yields))
    }

    fn for_loop(
        &mut self,
        range: [ValueId; 3],
        init: &[ValueId],
        body: &Region,
        results: &[ValueId],
    ) -> Result<(), String> {
        self.flush_all();
        let (mut scalars, mut starts, mut args, mut ends) = (vec![], vec![], vec![], vec![]);
        for (k, value) in init.iter().enumerate() {
            let arg = body.args[k + 1];
            if self.is_scalar(*value) {
                scalars.push([*value, arg, body.yields[k], results[k]]);
                continue;
            }
            // A constant start gets a register of its own, which the loop then owns.
            let start = match self.settled(*value) {
                Location::Splat(_) | Location::Iota(_) => self.fill(*value),
                Location::Array(..) | Location::Waiting(_) => self.dense(*value),
            };
            let numel = numel(self.shape(*value));
            let (arg_reg, result_reg) = (self.reg(numel), self.reg(numel));
            self.place_dense(arg, arg_reg);
            starts.push(start);
            args.push(arg_reg);
            ends.push((results[k], result_reg, numel));
        }
        let (nodes, yields) = self.region(body)?;
        let mut tiles = vec![];
        for (k, (value, result, numel)) in ends.into_iter().enumerate() {
            self.place_dense(value, result);
            tiles.push(Carry { init: starts[k], arg: args[k], yielded: yields[k], result, numel });
        }
        self.out.push(Node::For { range, counter: body.args[0], scalars, tiles, body: nodes });
        Ok(())
    }

    fn branch(
        &mut self,
        cond: ValueId,
        then: &Region,
        otherwise: &Region,
        results: &[ValueId],
    ) -> Result<(), String> {
        self.flush_all();
        let (then_nodes, then_tiles) = self.region(then)?;
        let (else_nodes, else_tiles) = self.region(otherwise)?;
        let (mut scalars, mut tiles) = (vec![], vec![]);
        for (k, result) in results.iter().enumerate() {
            if self.is_scalar(*result) {
                scalars.push([then.yields[k], otherwise.yields[k], *result]);
            } else {
                let numel = numel(self.shape(*result));
                let reg = self.reg(numel);
                self.place_dense(*result, reg);
                let at = tiles.len();
                tiles.push(([then_tiles[at], else_tiles[at], reg], numel));
            }
        }
        self.out.push(Node::If { cond, scalars, tiles, then: then_nodes, otherwise: else_nodes });
        Ok(())
    }
}
