//! Values joined to vectors and cut from them, and copies: what passes make of several tensors that are worked on as one.

use crate::error::IrError;
use crate::graph::{Graph, Value};
use crate::op::Op;
use crate::types::{Shape, TensorType};

impl Graph {
    /// All elements of some values as one vector.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn join(&mut self, values: &[Value]) -> Result<Value, IrError> {
        let mut parts = vec![];
        for value in values {
            let shape = [self.ty(*value).shape.numel()].into();
            parts.push(self.push(Op::Reshape { shape }, &[*value])?);
        }
        // One part is the whole; a concat of it would be a copy.
        if let [only] = parts[..] { Ok(only) } else { self.push(Op::Concat { axis: 0 }, &parts) }
    }

    /// The parts of a vector that [`Graph::join`] made of values of these shapes.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn cut(&mut self, whole: Value, shapes: &[Shape]) -> Result<Vec<Value>, IrError> {
        let (mut parts, mut start) = (vec![], 0);
        for shape in shapes {
            let len = shape.numel();
            let part = self.push(Op::Slice { axis: 0, start, len }, &[whole])?;
            parts.push(self.push(Op::Reshape { shape: shape.clone() }, &[part])?);
            start += len;
        }
        Ok(parts)
    }

    /// A copy into storage of its own, row by row, that is computed again where the value is: a concat of one part.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn copy(&mut self, value: Value) -> Result<Value, IrError> {
        let copy = self.push(Op::Concat { axis: 0 }, &[value])?;
        self.node_mut(copy.node).recompute = self.node(value.node).recompute;
        Ok(copy)
    }

    /// A vector of f32 with zeros behind it, `len` elements in all: for parts of one size.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn extend_with_zeros(&mut self, x: Value, len: usize) -> Result<Value, IrError> {
        let numel = self.ty(x).shape.numel();
        if len <= numel {
            return Ok(x);
        }
        let ty = TensorType::f32([len - numel]);
        let zeros = self.push(Op::Constant { value: 0.0, ty }, &[])?;
        // What is joined already is joined once, with them. Leaves that lie side by side stay a view.
        let is_leaf = |graph: &Graph, mut part: Value| {
            while matches!(graph.op(part.node), Op::Reshape { .. }) {
                part = graph.operands(part.node)[0];
            }
            graph.op(part.node).leaf_name().is_some()
        };
        let mut parts = vec![x];
        if matches!(self.op(x.node), Op::Concat { .. }) {
            let joined = self.operands(x.node);
            if !joined.iter().any(|part| is_leaf(self, *part)) {
                parts = joined;
            }
        }
        parts.push(zeros);
        self.push(Op::Concat { axis: 0 }, &parts)
    }
}
