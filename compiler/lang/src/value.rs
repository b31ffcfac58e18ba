//! What expressions evaluate to while the graph is built.

use std::rc::Rc;

use linc_ir::{RopeScaling, Shape};

use crate::config::Number;

/// A size with the text it was written as, for messages.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Dim {
    pub(crate) size: usize,
    pub(crate) name: Rc<str>,
}

impl Dim {
    pub(crate) fn new(size: usize, name: impl Into<Rc<str>>) -> Self {
        Dim { size, name: name.into() }
    }

    /// A size without a name of its own.
    pub(crate) fn plain(size: usize) -> Self {
        Dim::new(size, size.to_string())
    }

    /// `dim = 1024`, or `1024` if that is all there is to say.
    pub(crate) fn describe(&self) -> String {
        let size = self.size.to_string();
        if *self.name == *size { size } else { format!("{} = {size}", self.name) }
    }
}

/// `[batch, dim] = [8, 1024]`, or `[8, 1024]` if no axis has a name.
pub(crate) fn describe_shape(dims: &[Dim]) -> String {
    let names: Vec<&str> = dims.iter().map(|d| &*d.name).collect();
    let names = format!("[{}]", names.join(", "));
    let sizes = shape(dims).to_string();
    if names == sizes { sizes } else { format!("{names} = {sizes}") }
}

/// The sizes alone.
pub(crate) fn shape(dims: &[Dim]) -> Shape {
    Shape(dims.iter().map(|d| d.size).collect())
}

/// Elements that a tensor may have at most, so that no later product of sizes overflows.
pub(crate) const MAX_ELEMENTS: usize = 1 << 40;

/// Number of elements, or `None` if there are none or too many.
pub(crate) fn elements(dims: impl IntoIterator<Item = usize>) -> Option<usize> {
    let total = dims.into_iter().try_fold(1usize, |n, d| n.checked_mul(d))?;
    (1..=MAX_ELEMENTS).contains(&total).then_some(total)
}

/// A tensor of the graph.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) value: linc_ir::Value,
    pub(crate) dims: Vec<Dim>,
}

impl Tensor {
    /// The last axis, if the tensor has axes.
    pub(crate) fn last(&self) -> Option<&Dim> {
        self.dims.last()
    }
}

/// The value of an expression.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A number or flag, known while building.
    Number(Number),
    /// A tensor, known when the program runs.
    Tensor(Tensor),
    /// `[a, b]`
    Shape(Vec<Dim>),
    /// A table of rotary angles.
    Rope(linc_ir::Value),
    /// The model's rope scaling, if it has one.
    Scaling(Option<RopeScaling>),
}

impl Value {
    /// For `expected ..., found ...`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Value::Number(Number::Bool(value)) => value.to_string(),
            Value::Number(value) => format!("the number {value}"),
            Value::Tensor(tensor) => format!("a tensor {}", describe_shape(&tensor.dims)),
            Value::Shape(dims) => format!("the list {}", describe_shape(dims)),
            Value::Rope(_) => "a rope table".into(),
            Value::Scaling(_) => "a rope scaling".into(),
        }
    }
}
