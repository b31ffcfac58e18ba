//! How the text refers to values.

use std::collections::BTreeMap;

use linc_tile::ValueId;

use crate::decisions::Decisions;
use crate::decisions::layout::{Axis, ValueLayout};
use crate::text::names::Names;
use crate::text::positions::Positions;
use crate::text::spelling::register_type;

/// How the text refers to one value.
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

/// What is known of values so far, by their roots.
#[derive(Clone, Default)]
pub(crate) struct Bindings {
    defs: BTreeMap<ValueId, Def>,
    /// The body that defines a root, so that registers are only overwritten where they were made.
    home: BTreeMap<ValueId, usize>,
}

/// The values of a kernel while it is written.
#[derive(Clone)]
pub(crate) struct Values<'a> {
    decisions: &'a Decisions<'a>,
    names: &'a Names,
    /// What was said of values outside of a function is as before behind it.
    pub bindings: Bindings,
    pub positions: Positions,
    /// Vectors in another layout than their own, valid in the body with this number.
    moved: BTreeMap<(ValueId, Axis), (usize, String)>,
    /// The body being written, and how many there were.
    body: usize,
    bodies: usize,
    temporaries: usize,
}

impl<'a> Values<'a> {
    pub(crate) fn new(decisions: &'a Decisions<'a>, names: &'a Names) -> Values<'a> {
        Values {
            decisions,
            names,
            bindings: Bindings::default(),
            positions: Positions::default(),
            moved: BTreeMap::new(),
            body: 0,
            bodies: 0,
            temporaries: 0,
        }
    }

    // ---- bodies ----

    /// The number of the body being written.
    pub(crate) fn body(&self) -> usize {
        self.body
    }

    /// Begins the body of a kernel, loop or branch, and returns the number of the one around it.
    pub(crate) fn begin_body(&mut self) -> usize {
        self.bodies += 1;
        std::mem::replace(&mut self.body, self.bodies)
    }

    /// Goes on with the body around.
    pub(crate) fn end_body(&mut self, around: usize) {
        self.body = around;
    }

    /// Registers of a value are this body's own, to be overwritten here.
    pub(crate) fn adopt(&mut self, value: ValueId) {
        self.bindings.home.insert(value, self.body);
    }

    /// Whether the registers of a root were made in this body.
    pub(crate) fn is_at_home(&self, root: ValueId) -> bool {
        self.bindings.home.get(&root) == Some(&self.body)
    }

    // ---- names ----

    /// What C++ calls a value, after its name in the tile program.
    pub(crate) fn name(&self, value: ValueId) -> String {
        self.names.values[value.0 as usize].clone()
    }

    /// A name that nothing else has.
    pub(crate) fn temporary(&mut self, stem: &str) -> String {
        loop {
            self.temporaries += 1;
            let name = format!("{stem}_{}", self.temporaries);
            if !self.names.taken.contains(&name) {
                return name;
            }
        }
    }

    // ---- definitions ----

    /// Says how the text refers to a value from here on.
    pub(crate) fn define(&mut self, value: ValueId, def: Def) {
        let root = self.decisions.root(value);
        self.bindings.home.insert(root, self.body);
        self.bindings.defs.insert(root, def);
    }

    /// How the text refers to a value.
    pub(crate) fn def(&self, value: ValueId) -> &Def {
        let def = self.bindings.defs.get(&self.decisions.root(value));
        def.expect("a verified kernel defines what it uses")
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
        let place = self.decisions.place(value);
        match self.def(value).clone() {
            Def::Scalar(text) | Def::Splat(text) => text,
            Def::Array(name) => match place {
                ValueLayout::Scalar => name,
                ValueLayout::Vector(_) => format!("{name}[{}]", slots[0]),
                ValueLayout::Matrix(_) => format!("{name}[{}][{}]", slots[0], slots[1]),
            },
            // A column is repeated over columns, so the row says which; and the other way round.
            Def::Expand(name, axis) => format!("{name}[{}]", slots[1 - axis]),
            Def::Iota(axis) => match place {
                ValueLayout::Vector(along) => self.positions.at(along, slots[0]),
                ValueLayout::Matrix(layout) => {
                    let along = if axis == 0 { layout.rows } else { layout.cols };
                    self.positions.at(along, slots[axis])
                }
                ValueLayout::Scalar => unreachable!("verified: a scalar has no axis"),
            },
            Def::SharedOnly => unreachable!("{} is not in registers", self.name(value)),
        }
    }

    /// Declaration of an array of a value's element type.
    pub(crate) fn declaration(&self, value: ValueId, name: &str) -> String {
        let elem = register_type(self.decisions.ty(value).elem);
        match self.decisions.place(value) {
            ValueLayout::Scalar => format!("{elem} {name}"),
            ValueLayout::Vector(axis) => format!("{elem} {name}[{}]", axis.slots()),
            ValueLayout::Matrix(l) => format!("{elem} {name}[{}][{}]", l.rows.slots(), l.cols.slots()),
        }
    }

    // ---- vectors in other layouts ----

    /// The array that holds a vector along another axis than its own, if there is one already.
    pub(crate) fn moved(&self, vector: ValueId, along: Axis) -> Option<String> {
        let (body, name) = self.moved.get(&(self.decisions.root(vector), along))?;
        (*body == self.body).then(|| name.clone())
    }

    /// Remembers such an array.
    pub(crate) fn note_moved(&mut self, vector: ValueId, along: Axis, name: &str) {
        let root = self.decisions.root(vector);
        self.moved.insert((root, along), (self.body, name.to_string()));
    }
}
