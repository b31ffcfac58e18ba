//! The code of a kernel so far, with what is needed to go on writing it.

use std::collections::BTreeMap;

use linc_tile::ValueId;

use super::shared_memory::SharedMemory;
use super::values::{Def, Values};
use crate::analysis::loops::Loop;
use crate::decisions::Decisions;
use crate::decisions::layout::{Axis, ValueLayout};
use crate::hopper::pipeline::Pipelines;
use crate::hopper::tensor_copies::Maps;
use crate::text::names::Names;
use crate::text::writer::Writer;

/// The code so far. A copy of it is a point to go back to, as a loop does that has to be written again.
#[derive(Clone)]
pub(crate) struct Code<'a> {
    pub decisions: &'a Decisions<'a>,
    pub names: &'a Names,
    pub out: Writer,
    pub values: Values<'a>,
    pub shared: SharedMemory,
    /// The loops being written, innermost last.
    pub loops: Vec<Loop<'a>>,
    /// Loads of loops that came several iterations ahead, with the variable that says where this thread's part is in
    /// shared memory.
    pub copied_ahead: BTreeMap<ValueId, String>,
    /// Those of loops that TMA copies load ahead for.
    pub pipelines: Pipelines,
    /// What TMA copies know of memory.
    pub maps: Maps,
    /// A fetch of a pipeline that this iteration has still to start.
    pub fetch: Option<String>,
}

impl<'a> Code<'a> {
    pub(crate) fn new(decisions: &'a Decisions<'a>, names: &'a Names) -> Code<'a> {
        Code {
            decisions,
            names,
            out: Writer::new(1),
            values: Values::new(decisions, names),
            shared: SharedMemory::new(decisions.layouts.renews_addresses()),
            loops: vec![],
            copied_ahead: BTreeMap::new(),
            pipelines: Pipelines::default(),
            maps: Maps::default(),
            fetch: None,
        }
    }

    /// Bytes of shared memory: tiles, then the mbarriers of pipelines.
    pub(crate) fn shared_bytes(&self) -> u32 {
        self.shared.peak() + self.pipelines.bytes()
    }

    // ---- registers ----

    /// Declares the registers of a value under a name.
    pub(crate) fn declare_as(&mut self, value: ValueId, name: &str) {
        let declaration = self.values.declaration(value, name);
        self.out.line(format!("{declaration};"));
    }

    /// Declares the registers of a value under its own name.
    pub(crate) fn declare(&mut self, value: ValueId) -> String {
        let name = self.values.name(value);
        self.declare_as(value, &name);
        name
    }

    /// Opens loops over all slots of a place, `step` neighbours at a time, and returns the names of the counters.
    pub(crate) fn open_slots(&mut self, place: ValueLayout, step: usize) -> [&'static str; 2] {
        match place {
            ValueLayout::Scalar => self.out.open(""),
            ValueLayout::Vector(axis) => self.out.unrolled("r", axis.slots(), step),
            ValueLayout::Matrix(layout) => {
                self.out.unrolled("r", layout.rows.slots(), 1);
                self.out.unrolled("c", layout.cols.slots(), step);
            }
        }
        ["r", "c"]
    }

    /// Closes these loops.
    pub(crate) fn close_slots(&mut self, place: ValueLayout) {
        self.out.close();
        if let ValueLayout::Matrix(_) = place {
            self.out.close();
        }
    }

    /// Opens a block for one thread of those that hold the same part of a vector along the axis.
    pub(crate) fn open_writers(&mut self, axis: Axis) {
        let lanes = (axis.lanes - 1) << axis.lane_bit;
        let warps = (axis.warps - 1) << axis.warp_bit;
        let mut guards = vec![];
        if 31 & !lanes != 0 {
            guards.push(format!("(lane & {}) == 0", 31 & !lanes));
        }
        let all = self.decisions.layouts.warps - 1;
        if all & !warps != 0 {
            guards.push(format!("(warp & {}) == 0", all & !warps));
        }
        if guards.is_empty() {
            self.out.open("");
        } else {
            self.out.open(format!("if ({})", guards.join(" && ")));
        }
    }

    /// Copies a value into an array or variable of that name.
    pub(crate) fn copy_into(&mut self, value: ValueId, name: &str) {
        let place = self.decisions.place(value);
        if place == ValueLayout::Scalar {
            let text = self.values.scalar(value);
            if text != name {
                self.out.line(format!("{name} = {text};"));
            }
            return;
        }
        if *self.values.def(value) == Def::Array(name.to_string()) {
            return;
        }
        let slots = self.open_slots(place, 1);
        let from = self.values.element(value, slots);
        let index = index(place);
        self.out.line(format!("{name}{index} = {from};"));
        self.close_slots(place);
    }

    // ---- pipelines ----

    /// Writes the fetch that this iteration has still to start.
    pub(crate) fn start_fetch(&mut self) {
        if let Some(fetch) = self.fetch.take() {
            self.out.line(fetch);
        }
    }
}

/// The index of an element in a loop over all slots.
pub(crate) fn index(place: ValueLayout) -> &'static str {
    match place {
        ValueLayout::Scalar => "",
        ValueLayout::Vector(_) => "[r]",
        ValueLayout::Matrix(_) => "[r][c]",
    }
}
