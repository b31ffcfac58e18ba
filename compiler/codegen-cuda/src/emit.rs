//! Writes the body of a kernel: statements in program order, with the state that the writing needs.
//!
//! Scalars become variables that every thread computes. Tiles become arrays of registers, one element a slot of the
//! tile's layout; splats, iotas and expanded vectors are written where they are used and occupy nothing. Pointwise
//! statements are collected and written as one loop (`pointwise`).

use std::collections::BTreeMap;

use linc_tile::{Kernel, Op, Stmt, ValueId};

use crate::assign::{Assignment, Place};
use crate::expression::c_type;
use crate::grid::axes;
use crate::layout::Axis;
use crate::operand::SharedTile;
use crate::pipeline::Pipelines;
use crate::pointwise::Group;
use crate::rounds::Loop;
use crate::shared::{Allocator, Hazards};
use crate::usage::{Usage, reads};
use crate::writer::{Names, Writer, float, integer};
use crate::{CodegenError, Options, TensorMap};

/// How the text refers to a value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Def {
    /// A scalar expression.
    Scalar(String),
    /// An array of registers.
    Array(String),
    /// A scalar expression, for every element.
    Splat(String),
    /// The register array of a vector, repeated along the axis.
    Expand(String, usize),
    /// The position along the axis.
    Iota(usize),
    /// Nowhere in registers: products read it from shared memory.
    SharedOnly,
}

/// What changes while statements are written; copied to try a loop's body.
#[derive(Clone)]
pub(crate) struct State {
    pub out: Writer,
    pub defs: BTreeMap<ValueId, Def>,
    /// The body that defines a root, so that registers are only overwritten where they were made.
    pub home: BTreeMap<ValueId, usize>,
    pub group: Option<Group>,
    pub hazards: Hazards,
    pub tiles: BTreeMap<ValueId, SharedTile>,
    /// Loads of loops that came ahead, with the variable that says where this thread's part is in shared memory.
    pub streamed: BTreeMap<ValueId, String>,
    /// Vectors in another layout than their own, valid in the body with this number.
    pub converted: BTreeMap<(ValueId, Axis), (usize, String)>,
    body: usize,
    temporaries: usize,
    /// A statement that its neighbour has written already, by address.
    pub paired: Option<usize>,
    /// A fetch of a pipeline that this round has still to start.
    pub fetch: Option<String>,
}

/// Writes one kernel.
pub(crate) struct Emitter<'k> {
    pub kernel: &'k Kernel,
    pub usage: Usage,
    pub assignment: Assignment,
    pub options: &'k Options,
    /// The axis of the launch that each axis of the kernel's grid becomes.
    pub launch_axes: [usize; 3],
    pub names: Names,
    pub shared: Allocator,
    /// Axes whose positions the text uses, with the name of the function that gives them.
    pub axes: BTreeMap<Axis, String>,
    pub state: State,
    /// Counts bodies, to tell them apart.
    bodies: usize,
    /// The loops being written, innermost last.
    pub loops: Vec<Loop<'k>>,
    /// Whether loops may load for their next round.
    pub ahead: bool,
    /// Those of loops that tensor copies load ahead for.
    pub pipelines: Pipelines,
    /// What tensor copies know of memory: arguments behind the pointers.
    pub maps: Vec<TensorMap>,
}

impl<'k> Emitter<'k> {
    pub(crate) fn new(kernel: &'k Kernel, options: &'k Options, ahead: bool) -> Self {
        let usage = Usage::of(kernel);
        let assignment = Assignment::of(kernel, &usage, options);
        Emitter {
            kernel,
            assignment,
            usage,
            options,
            launch_axes: axes(kernel),
            names: Names::of(kernel),
            shared: Allocator::default(),
            axes: BTreeMap::new(),
            state: State {
                out: Writer::new(1),
                defs: BTreeMap::new(),
                home: BTreeMap::new(),
                group: None,
                hazards: Hazards::default(),
                tiles: BTreeMap::new(),
                streamed: BTreeMap::new(),
                converted: BTreeMap::new(),
                body: 0,
                temporaries: 0,
                paired: None,
                fetch: None,
            },
            bodies: 0,
            loops: vec![],
            ahead,
            pipelines: Pipelines::default(),
            maps: vec![],
        }
    }

    pub(crate) fn threads(&self) -> usize {
        32 * self.assignment.warps
    }

    /// Bytes of shared memory: tiles, then the mbarriers of pipelines.
    pub(crate) fn shared_bytes(&self) -> u32 {
        self.shared.peak() + self.pipelines.bytes()
    }

    pub(crate) fn fail<T>(&self, message: impl Into<String>) -> Result<T, CodegenError> {
        Err(CodegenError { kernel: self.kernel.name.clone(), message: message.into() })
    }

    // ---- values ----

    pub(crate) fn root(&self, value: ValueId) -> ValueId {
        self.usage.root(value)
    }

    pub(crate) fn name(&self, value: ValueId) -> String {
        self.names.values[value.0 as usize].clone()
    }

    /// A name that nothing else has.
    pub(crate) fn temporary(&mut self, stem: &str) -> String {
        loop {
            self.state.temporaries += 1;
            let name = format!("{stem}_{}", self.state.temporaries);
            if !self.names.taken.contains(&name) {
                return name;
            }
        }
    }

    pub(crate) fn define(&mut self, value: ValueId, def: Def) {
        let root = self.root(value);
        self.state.home.insert(root, self.state.body);
        self.state.defs.insert(root, def);
    }

    pub(crate) fn def(&self, value: ValueId) -> &Def {
        self.state.defs.get(&self.root(value)).expect("a verified kernel defines what it uses")
    }

    /// A scalar's text.
    pub(crate) fn scalar(&self, value: ValueId) -> String {
        match self.def(value) {
            Def::Scalar(text) | Def::Splat(text) => text.clone(),
            other => unreachable!("verified: {} is a scalar, not {other:?}", self.name(value)),
        }
    }

    /// The element of a tile at slots `(row, column)`; a vector uses the first.
    pub(crate) fn element(&mut self, value: ValueId, slots: [&str; 2]) -> String {
        let place = self.assignment.place(value);
        match self.def(value).clone() {
            Def::Scalar(text) | Def::Splat(text) => text,
            Def::Array(name) => match place {
                Place::Scalar => name,
                Place::Vector(_) => format!("{name}[{}]", slots[0]),
                Place::Matrix(_) => format!("{name}[{}][{}]", slots[0], slots[1]),
            },
            // A column is repeated over columns, so the row says which; and the other way round.
            Def::Expand(name, axis) => format!("{name}[{}]", slots[1 - axis]),
            Def::Iota(axis) => match place {
                Place::Vector(along) => self.position(along, slots[0]),
                Place::Matrix(layout) => {
                    self.position(if axis == 0 { layout.rows } else { layout.cols }, slots[axis])
                }
                Place::Scalar => unreachable!("verified: a scalar has no axis"),
            },
            Def::SharedOnly => unreachable!("{} is not in registers", self.name(value)),
        }
    }

    /// Position of a slot along an axis, as C++.
    pub(crate) fn position(&mut self, axis: Axis, slot: &str) -> String {
        if axis.covered() == 1 {
            return "0".into();
        }
        let count = self.axes.len();
        let name = self.axes.entry(axis).or_insert_with(|| format!("at{count}"));
        format!("{name}({slot})")
    }

    /// Declaration of an array of a value's element type.
    pub(crate) fn declare(&self, value: ValueId, name: &str) -> String {
        let elem = c_type(self.kernel.ty(value).elem);
        match self.assignment.place(value) {
            Place::Scalar => format!("{elem} {name}"),
            Place::Vector(axis) => format!("{elem} {name}[{}]", axis.slots()),
            Place::Matrix(l) => format!("{elem} {name}[{}][{}]", l.rows.slots(), l.cols.slots()),
        }
    }

    /// Opens loops over all slots of a value and returns the names of the counters.
    pub(crate) fn open_slots(&mut self, place: Place, step: usize) -> [&'static str; 2] {
        match place {
            Place::Scalar => self.state.out.open(""),
            Place::Vector(axis) => self.state.out.unrolled("r", axis.slots(), step),
            Place::Matrix(layout) => {
                self.state.out.unrolled("r", layout.rows.slots(), 1);
                self.state.out.unrolled("c", layout.cols.slots(), step);
            }
        }
        ["r", "c"]
    }

    pub(crate) fn close_slots(&mut self, place: Place) {
        self.state.out.close();
        if let Place::Matrix(_) = place {
            self.state.out.close();
        }
    }

    /// Copies a value into an array or variable of that name.
    pub(crate) fn copy_into(&mut self, value: ValueId, name: &str) {
        let place = self.assignment.place(value);
        if place == Place::Scalar {
            let text = self.scalar(value);
            if text != name {
                self.state.out.line(format!("{name} = {text};"));
            }
            return;
        }
        if *self.def(value) == Def::Array(name.to_string()) {
            return;
        }
        let slots = self.open_slots(place, 1);
        let from = self.element(value, slots);
        let at = match place {
            Place::Matrix(_) => format!("{name}[r][c]"),
            Place::Scalar | Place::Vector(_) => format!("{name}[r]"),
        };
        self.state.out.line(format!("{at} = {from};"));
        self.close_slots(place);
    }

    // ---- statements ----

    /// Writes statements, and gives back the shared memory of what the body defined after its last use.
    /// `args` are the values that the body starts with.
    pub(crate) fn body(
        &mut self,
        args: &[ValueId],
        body: &'k [Stmt],
        yields: &[ValueId],
    ) -> Result<(), CodegenError> {
        let outer = self.state.body;
        self.bodies += 1;
        self.state.body = self.bodies;
        for arg in args {
            // Registers of its own, to be overwritten here.
            self.state.home.insert(*arg, self.state.body);
            self.stage_if_needed(*arg)?;
        }
        for (i, stmt) in body.iter().enumerate() {
            if !self.pair(&body[i..])? {
                self.stmt(stmt)?;
            }
            let over: Vec<ValueId> = self
                .state
                .tiles
                .iter()
                .filter(|(_, tile)| tile.body == self.state.body)
                .map(|(value, _)| *value)
                .filter(|value| {
                    let root = self.root(*value);
                    !yields.iter().any(|y| self.root(*y) == root)
                        && !body[i + 1..].iter().any(|s| reads(&self.usage, s, root))
                })
                .collect();
            for value in over {
                self.release(value);
            }
        }
        self.flush();
        let left: Vec<ValueId> =
            self.state.tiles.iter().filter(|(_, t)| t.body == self.state.body).map(|(v, _)| *v).collect();
        left.into_iter().for_each(|value| self.release(value));
        self.state.body = outer;
        Ok(())
    }

    /// The number of the body being written.
    pub(crate) fn current(&self) -> usize {
        self.state.body
    }

    fn release(&mut self, value: ValueId) {
        if let Some(tile) = self.state.tiles.remove(&value)
            && tile.owned
        {
            self.shared.give(tile.range);
        }
    }

    pub(crate) fn stmt(&mut self, stmt: &'k Stmt) -> Result<(), CodegenError> {
        let scalar = stmt.results.iter().all(|r| self.kernel.ty(*r).shape.is_empty());
        match &stmt.op {
            Op::ConstF(value) => self.constant(stmt.results[0], float(*value)),
            Op::ConstI(value) => self.constant(stmt.results[0], integer(*value)),
            Op::ProgramId(axis) => {
                let text = format!("(index)blockIdx.{}", ["x", "y", "z"][self.launch_axes[*axis]]);
                self.scalar_result(stmt.results[0], &text);
            }
            Op::Unary(..) | Op::Binary(..) | Op::Fma(..) | Op::Compare(..) | Op::Select(..) if scalar => {
                let text = self.expression(&stmt.op, ["", ""]);
                self.scalar_result(stmt.results[0], &text);
            }
            Op::Cast(operand) if scalar => {
                let result = stmt.results[0];
                if self.root(result) == result {
                    let text = self.cast_text(*operand, result, ["", ""]);
                    self.scalar_result(result, &text);
                }
            }
            Op::Unary(..) | Op::Binary(..) | Op::Fma(..) | Op::Compare(..) | Op::Select(..) | Op::Cast(_) => {
                self.collect(stmt)?;
            }
            Op::Splat(a) => {
                let text = self.scalar(*a);
                self.define(stmt.results[0], Def::Splat(text));
                self.stage_if_needed(stmt.results[0])?;
            }
            Op::Iota { axis } => self.define(stmt.results[0], Def::Iota(*axis)),
            Op::Expand { vector, axis } => {
                self.expand(*vector, stmt.results[0], *axis);
                self.stage_if_needed(stmt.results[0])?;
            }
            Op::Load(view) => self.load(stmt.results[0], view)?,
            Op::Store(view, value) => {
                self.flush();
                self.store(*value, view)?;
            }
            Op::Scatter { to, places, value } => {
                self.flush();
                self.scatter(to, *places, *value);
            }
            Op::Dot { a, b, acc, trans_a, trans_b } => {
                self.flush();
                self.product(stmt.results[0], (*a, *trans_a), (*b, *trans_b), *acc)?;
            }
            Op::Reduce { op, axis, value } => {
                self.flush();
                self.reduce(*op, *axis, *value, stmt.results[0]);
                self.stage_if_needed(stmt.results[0])?;
            }
            Op::Scan { axis, reverse, value } => {
                self.flush();
                self.scan(*axis, *reverse, *value, stmt.results[0])?;
                self.stage_if_needed(stmt.results[0])?;
            }
            Op::Transpose(a) => {
                self.flush();
                self.transpose(*a, stmt.results[0]);
                self.stage_if_needed(stmt.results[0])?;
            }
            Op::For { lower, upper, step, init, body } => {
                self.flush();
                self.for_loop(stmt, [*lower, *upper, *step], init, body)?;
            }
            Op::If { cond, then, otherwise } => {
                self.flush();
                self.branch(stmt, *cond, then, otherwise)?;
            }
        }
        Ok(())
    }

    /// A number: with the name that the tile program gives it, or as it is.
    fn constant(&mut self, result: ValueId, text: String) {
        if self.kernel.names[result.0 as usize].is_empty() {
            return self.define(result, Def::Scalar(text));
        }
        let (name, ty) = (self.name(result), c_type(self.kernel.ty(result).elem));
        self.state.out.line(format!("constexpr {ty} {name} = {text};"));
        self.define(result, Def::Scalar(name));
    }

    /// Declares a scalar.
    fn scalar_result(&mut self, result: ValueId, text: &str) {
        let name = self.name(result);
        let ty = c_type(self.kernel.ty(result).elem);
        self.state.out.line(format!("const {ty} {name} = {text};"));
        self.define(result, Def::Scalar(name));
    }
}
