//! Values without positions where positions are: the same for all of them, or the rows of the tokens at hand.

use linc_ir::{Class, Op, Shape, TensorType, Value};

use super::axis::Axis;
use super::{Along, POSITION, POSITIONS, Rewrite};
use crate::error::PassError;

impl Rewrite<'_> {
    /// A value without positions where the tokens at hand are: the same for all, or its rows. What it is computed from is
    /// done first, in a list and not by recursion: a model of thousands of layers has chains as long.
    pub(super) fn rows(&mut self, value: Value, axis: Axis) -> Result<Value, PassError> {
        let mut open = vec![(value, axis)];
        while let Some((value, axis)) = open.last().copied() {
            let operands = self.row_operands(value, axis);
            let before = open.len();
            open.extend(operands.iter().rev().filter(|operand| !self.rows.contains_key(operand)));
            if open.len() > before {
                continue;
            }
            open.pop();
            if !self.rows.contains_key(&(value, axis)) {
                let rows = self.row(value, axis, &operands)?;
                self.rows.insert((value, axis), rows);
            }
        }
        Ok(self.rows[&(value, axis)])
    }

    /// The operands whose rows give those of a value; none where they come from elsewhere.
    fn row_operands(&self, value: Value, axis: Axis) -> Vec<(Value, Axis)> {
        let operands = self.built.operands(value.node);
        let shape = |operand: usize| &self.built.ty(operands[operand]).shape;
        let op = self.built.op(value.node);
        match (op.facts().class, op) {
            // Rows of what is computed element by element are cheaper than all of it.
            (Class::Pointwise, _) => operands.iter().map(|operand| (*operand, axis)).collect(),
            (Class::Spread, Op::Broadcast { shape: to }) => {
                let inside = (axis.axis + shape(0).rank()).checked_sub(to.rank());
                let inside = inside.filter(|at| shape(0).0[*at] == to.0[axis.axis]);
                inside.map(|at| (operands[0], axis.at(at))).into_iter().collect()
            }
            // What is the same for all before a view is so after it.
            (Class::View, Op::Reshape { shape: to }) => {
                let from = axis.reshaped(to, shape(0), self.size);
                from.map(|from| (operands[0], from)).into_iter().collect()
            }
            (Class::View, Op::Transpose { perm }) => vec![(operands[0], axis.at(perm[axis.axis]))],
            // Of anything else the rows are looked up.
            (
                Class::View
                | Class::Spread
                | Class::Leaf { .. }
                | Class::Constant
                | Class::Region
                | Class::Join
                | Class::Compute,
                _,
            ) => vec![],
        }
    }

    /// The rows of a value, of which those of `operands` are known.
    fn row(&mut self, value: Value, axis: Axis, operands: &[(Value, Axis)]) -> Result<Value, PassError> {
        let ty = self.built.ty(value).clone();
        let shape = axis.scaled(&ty.shape, self.count);
        let sources: Vec<Value> = operands.iter().map(|operand| self.rows[operand]).collect();
        let outer = self.new.set_scope(self.built.node(value.node).scope.clone());
        let op = self.built.op(value.node).clone();
        let rows = if let Op::Constant { value, .. } = op {
            self.new.push(Op::Constant { value, ty: TensorType::new(ty.dtype, shape) }, &[])?
        } else if matches!(op, Op::Broadcast { .. }) {
            // What has no rows of its own is one for all positions.
            let whole = |this: &Self| this.at[&this.built.operands(value.node)[0]].0;
            let source = sources.first().copied().unwrap_or_else(|| whole(self));
            self.new.push(Op::Broadcast { shape }, &[source])?
        } else if sources.is_empty() {
            if self.along == Along::Batch {
                return Err(self.mixes(value.node, "has numbers for each of the"));
            }
            self.looked_up(self.at[&value].0, axis, &ty.shape)?
        } else if matches!(op, Op::Reshape { .. }) {
            self.new.push(Op::Reshape { shape }, &sources)?
        } else {
            self.new.push(op, &sources)?
        };
        self.sources.insert(rows.node, value.node);
        self.new.set_scope(outer);
        Ok(rows)
    }

    /// The rows of a table at the positions of the tokens at hand.
    fn looked_up(&mut self, table: Value, axis: Axis, shape: &Shape) -> Result<Value, PassError> {
        let ids = match self.positions {
            Some(ids) => ids,
            None => {
                let name = if self.count == 1 { POSITION } else { POSITIONS };
                let ty = TensorType::i32([self.count]);
                let ids = self.new.push(Op::Input { name: name.into(), ty }, &[])?;
                *self.positions.insert(ids)
            }
        };
        let (seq, tokens) = (self.size, self.count);
        let dtype = self.new.ty(table).dtype;
        let (before, after) = axis.around(shape);
        let mut reshaped = |dims: &[usize], value: Value| {
            if self.new.ty(value).shape.0 == dims {
                return Ok(value);
            }
            self.new.push(Op::Reshape { shape: dims.into() }, &[value])
        };
        if before == 1 {
            let matrix = reshaped(&[seq, after], table)?;
            let rows = self.new.push(Op::Embedding { dtype }, &[matrix, ids])?;
            let shape = axis.scaled(shape, tokens);
            return Ok(self.new.push(Op::Reshape { shape }, &[rows])?);
        }
        // Positions come first, then what was before them.
        let turn = Op::Transpose { perm: vec![1, 0, 2] };
        let split = reshaped(&[before, seq, after], table)?;
        let turned = self.new.push(turn.clone(), &[split])?;
        let matrix = self.new.push(Op::Reshape { shape: [seq, before * after].into() }, &[turned])?;
        let rows = self.new.push(Op::Embedding { dtype }, &[matrix, ids])?;
        let split = self.new.push(Op::Reshape { shape: [tokens, before, after].into() }, &[rows])?;
        let back = self.new.push(turn, &[split])?;
        let shape = axis.scaled(shape, tokens);
        Ok(self.new.push(Op::Reshape { shape }, &[back])?)
    }
}
