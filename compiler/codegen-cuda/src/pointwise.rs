//! Runs of pointwise statements over one layout, written as one loop over the slots of a thread.

use linc_tile::{Elem, Op, Stmt, ValueId};

use crate::CodegenError;
use crate::assign::Place;
use crate::emit::{Def, Emitter};
use crate::expression::c_type;
use crate::shared::{ALIGN, Range};

/// Statements that wait to be written together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    place: Place,
    stmts: Vec<Stmt>,
}

impl<'k> Emitter<'k> {
    /// Adds a pointwise statement to the group, or starts a new one.
    pub(crate) fn collect(&mut self, stmt: &'k Stmt) -> Result<(), CodegenError> {
        let result = stmt.results[0];
        let place = self.assignment.place(result);
        if self.state.group.as_ref().is_some_and(|g| g.place != place) {
            self.flush();
        }
        if self.root(result) == result {
            let group = self.state.group.get_or_insert_with(|| Group { place, stmts: vec![] });
            group.stmts.push(stmt.clone());
            let name = self.name(result);
            self.define(result, Def::Array(name));
        }
        self.stage_if_needed(result)
    }

    /// Writes the group.
    pub(crate) fn flush(&mut self) {
        let Some(group) = self.state.group.take() else { return };
        let made: Vec<ValueId> = group.stmts.iter().map(|s| s.results[0]).collect();
        let used_here = |value: ValueId| {
            let operands = group.stmts.iter().flat_map(|s| s.op.operands());
            operands.filter(|v| self.root(*v) == value).count()
        };
        let kept: Vec<bool> = made.iter().map(|v| self.usage.uses[v.0 as usize] > used_here(*v)).collect();
        for (value, kept) in made.iter().zip(&kept) {
            if *kept {
                let declaration = self.declare(*value, &self.name(*value));
                self.state.out.line(format!("{declaration};"));
            }
        }
        let slots = self.open_slots(group.place, 1);
        for ((stmt, value), kept) in group.stmts.iter().zip(&made).zip(&kept) {
            let text = match &stmt.op {
                Op::Cast(operand) => self.cast_text(*operand, *value, slots),
                op => self.expression(op, slots),
            };
            let name = self.name(*value);
            let elem = c_type(self.kernel.ty(*value).elem);
            if *kept {
                let at = self.element(*value, slots);
                self.state.out.line(format!("{at} = {text};"));
            } else {
                self.state.out.line(format!("const {elem} {name} = {text};"));
                self.define(*value, Def::Splat(name));
            }
        }
        self.close_slots(group.place);
    }

    /// A vector as a matrix whose rows or columns are alike.
    pub(crate) fn expand(&mut self, vector: ValueId, result: ValueId, axis: usize) {
        let Place::Matrix(layout) = self.assignment.place(result) else {
            unreachable!("verified: expand makes a matrix")
        };
        let wanted = if axis == 0 { layout.cols } else { layout.rows };
        let def = match self.def(vector).clone() {
            // All elements alike: nothing to find.
            Def::Splat(text) if !self.in_group(vector) => Def::Splat(text),
            _ => Def::Expand(self.vector_in(vector, wanted), axis),
        };
        self.define(result, def);
    }

    /// Whether a value waits in the group.
    fn in_group(&self, value: ValueId) -> bool {
        let root = self.root(value);
        self.state.group.as_ref().is_some_and(|g| g.stmts.iter().any(|s| s.results[0] == root))
    }

    /// The name of an array with the vector spread along another axis.
    fn vector_in(&mut self, vector: ValueId, wanted: crate::layout::Axis) -> String {
        let root = self.root(vector);
        let Place::Vector(own) = self.assignment.place(vector) else {
            unreachable!("verified: expand takes a vector")
        };
        if self.in_group(vector) {
            self.flush();
        }
        if own == wanted {
            if let Def::Array(name) = self.def(vector) {
                return name.clone();
            }
            return self.materialised(vector);
        }
        if let Some((body, name)) = self.state.converted.get(&(root, wanted))
            && *body == self.current()
        {
            return name.clone();
        }
        let name = self.convert(vector, own, wanted);
        self.state.converted.insert((root, wanted), (self.current(), name.clone()));
        name
    }

    /// An array with the elements of a vector that has none.
    fn materialised(&mut self, vector: ValueId) -> String {
        let name = self.temporary("vector");
        let declaration = self.declare(vector, &name);
        self.state.out.line(format!("{declaration};"));
        let place = self.assignment.place(vector);
        let slots = self.open_slots(place, 1);
        let element = self.element(vector, slots);
        self.state.out.line(format!("{name}[r] = {element};"));
        self.close_slots(place);
        name
    }

    /// Moves a vector from one spread to another through shared memory; returns the new array.
    pub(crate) fn convert(
        &mut self,
        vector: ValueId,
        from: crate::layout::Axis,
        to: crate::layout::Axis,
    ) -> String {
        let elem = self.kernel.ty(vector).elem;
        let range = self.shared.take(4 * from.extent as u32, ALIGN);
        let name = self.temporary("moved");
        self.flush();
        self.writes(range);
        self.open_writers(from);
        let at = self.position(from, "r");
        let element = self.element(vector, ["r", ""]);
        self.state.out.unrolled("r", from.slots(), 1);
        let guard = if from.exact() { String::new() } else { format!("if ({at} < {}) ", from.extent) };
        self.state.out.line(format!(
            "{guard}shared_store({} + {at} * 4, {});",
            range.at,
            to_float(elem, &element)
        ));
        self.state.out.close();
        self.state.out.close();
        self.reads(range);
        self.state.out.line(format!("{} {name}[{}];", c_type(elem), to.slots()));
        self.state.out.unrolled("r", to.slots(), 1);
        let at = self.position(to, "r");
        // Slots beyond the end hold the last element: whatever is there must not be read uninitialised.
        let at = if to.exact() { at } else { format!("int_min({at}, {})", to.extent - 1) };
        let read = format!("shared_load({} + (u32){at} * 4)", range.at);
        self.state.out.line(format!("{name}[r] = {};", from_float(elem, &read)));
        self.state.out.close();
        self.shared.give(range);
        name
    }

    /// Opens a block for one thread of those that hold the same part of a vector along the axis.
    pub(crate) fn open_writers(&mut self, axis: crate::layout::Axis) {
        let lanes = (axis.lanes - 1) << axis.lane_bit;
        let warps = (axis.warps - 1) << axis.warp_bit;
        let mut guards = vec![];
        if 31 & !lanes != 0 {
            guards.push(format!("(lane & {}) == 0", 31 & !lanes));
        }
        let all = self.assignment.warps - 1;
        if all & !warps != 0 {
            guards.push(format!("(warp & {}) == 0", all & !warps));
        }
        if guards.is_empty() {
            self.state.out.open("");
        } else {
            self.state.out.open(format!("if ({})", guards.join(" && ")));
        }
    }

    /// Scratch for a moment.
    pub(crate) fn scratch(&mut self, floats: usize) -> Range {
        self.shared.take(4 * floats as u32, ALIGN)
    }
}

/// The bits of an element as a float, since shared memory moves floats.
pub(crate) fn to_float(elem: Elem, text: &str) -> String {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => text.to_string(),
        Elem::I32 | Elem::Index | Elem::Bool => format!("bits_float((u32){text})"),
    }
}

pub(crate) fn from_float(elem: Elem, text: &str) -> String {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => text.to_string(),
        Elem::I32 | Elem::Index | Elem::Bool => format!("({})float_bits({text})", c_type(elem)),
    }
}
