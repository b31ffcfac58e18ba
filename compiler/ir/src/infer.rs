//! Result types of every operation from its operand types, and with that the typing rules.
//!
//! Element types follow three rules. An operation gives what it takes, and operands that meet element by element are of
//! one type. What is summed over many elements and read as a number of its own (a reduction, a statistic, a saved state,
//! the gradient of a weight, a loss) is of [`DType::accumulator`], f32 for bf16 and f16. Where both make sense, the operation
//! says which: `matmul`, `embedding`, `cast`.

mod attention;
mod loss;

pub(crate) use attention::HeadSizes;

use crate::error::IrError;
use crate::limits::{check_operands, check_shape};
use crate::op::{EMBEDDING_ROWS, NORM_BLOCK, Op, TableKind, rms_norm_row_blocks};
use crate::pointwise::{PointOp, Pointwise};
use crate::types::{DType, Shape, TensorType};

/// Result types of `op` on operands of the given types.
///
/// # Errors
/// [`IrError::Type`] with the shapes found and what the operation expects.
pub fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, IrError> {
    check_operands(op, operands)?;
    let results = Check { op, operands }.results()?;
    for (i, ty) in results.iter().enumerate() {
        check_shape(op, &format!("result {i}"), &ty.shape)?;
    }
    Ok(results)
}

/// An operation on operands whose sizes are within bounds.
pub(crate) struct Check<'a> {
    op: &'a Op,
    pub(crate) operands: &'a [&'a TensorType],
}

pub(crate) type Types = Result<Vec<TensorType>, IrError>;

impl Check<'_> {
    pub(crate) fn fail<T>(&self, message: impl Into<String>) -> Result<T, IrError> {
        Err(IrError::Type { op: self.op.name(), message: message.into() })
    }

    pub(crate) fn arity(&self, range: std::ops::RangeInclusive<usize>) -> Result<(), IrError> {
        let n = self.operands.len();
        if range.contains(&n) { Ok(()) } else { self.fail(format!("has {n} operands, takes {range:?}")) }
    }

    pub(crate) fn shape(&self, i: usize) -> &Shape {
        &self.operands[i].shape
    }

    pub(crate) fn dtype(&self, i: usize) -> DType {
        self.operands[i].dtype
    }

    pub(crate) fn same(&self, i: usize, shape: &Shape, what: &str) -> Result<(), IrError> {
        if self.shape(i) == shape {
            Ok(())
        } else {
            self.fail(format!("operand {i} is {}, but {what} is {shape}", self.shape(i)))
        }
    }

    pub(crate) fn rank(&self, i: usize, rank: usize, what: &str) -> Result<(), IrError> {
        if self.shape(i).rank() == rank {
            Ok(())
        } else {
            self.fail(format!("operand {i} is {}, expected {what}", self.shape(i)))
        }
    }

    fn float(&self, i: usize) -> Result<(), IrError> {
        if self.dtype(i).is_float() {
            Ok(())
        } else {
            self.fail(format!("operand {i} is {}, expected a float tensor", self.operands[i]))
        }
    }

    fn int(&self, i: usize) -> Result<(), IrError> {
        if self.dtype(i) == DType::I32 {
            Ok(())
        } else {
            self.fail(format!("operand {i} is {}, expected i32", self.operands[i]))
        }
    }

    /// A number for each of `batch` sequences: a position, or the slot of its states.
    pub(crate) fn of_sequences(&self, i: usize, batch: usize, what: &str) -> Result<(), IrError> {
        self.int(i)?;
        self.same(i, &[batch].into(), what)
    }

    /// Position and slot of each of `batch` sequences, operands `i` and `i + 1`; the states have `slots` of them.
    pub(crate) fn places(&self, i: usize, batch: usize, slots: usize) -> Result<(), IrError> {
        self.of_sequences(i, batch, "a position of each sequence")?;
        self.of_sequences(i + 1, batch, "a slot of each sequence")?;
        if slots < batch {
            return self.fail(format!("{batch} sequences need as many slots, the states have {slots}"));
        }
        Ok(())
    }

    fn axis(&self, i: usize, axis: usize) -> Result<(), IrError> {
        if axis < self.shape(i).rank() {
            Ok(())
        } else {
            self.fail(format!("axis {axis} does not exist in {}", self.shape(i)))
        }
    }

    pub(crate) fn like(&self, i: usize) -> TensorType {
        self.operands[i].clone()
    }

    fn of(&self, i: usize, shape: impl Into<Shape>) -> TensorType {
        TensorType::new(self.dtype(i), shape)
    }

    /// A sum of elements of operand `i`.
    fn sum_of(&self, i: usize, shape: impl Into<Shape>) -> TensorType {
        TensorType::new(self.dtype(i).accumulator(), shape)
    }

    /// Checks that operands have one element type.
    pub(crate) fn one_dtype(&self, operands: &[usize]) -> Result<(), IrError> {
        match operands.iter().find(|i| self.dtype(**i) != self.dtype(operands[0])) {
            None => Ok(()),
            Some(i) => self.fail(format!(
                "operand {i} is {}, operand {} is {}: their element types must agree",
                self.operands[*i], operands[0], self.operands[operands[0]]
            )),
        }
    }

    /// Checks that operand `i`, a statistic or state, is not rounded to 16 bits.
    pub(crate) fn full(&self, i: usize) -> Result<(), IrError> {
        if self.dtype(i).is_narrow() {
            return self.fail(format!("operand {i} is {}, expected f32", self.operands[i]));
        }
        Ok(())
    }

    fn results(&self) -> Types {
        match self.op {
            Op::Input { ty, .. } | Op::Param { ty, .. } | Op::State { ty, .. } | Op::Constant { ty, .. } => {
                self.arity(0..=0)?;
                Ok(vec![ty.clone()])
            }
            Op::Table { ty, kind: TableKind::Rope { .. }, .. } => {
                self.arity(0..=0)?;
                if ty.shape.rank() != 3 || ty.shape.last() != 2 || !ty.dtype.is_float() {
                    return self
                        .fail(format!("a rope table is [len, head_dim/2, 2] of floats, this is {ty}"));
                }
                Ok(vec![ty.clone()])
            }
            Op::Unary(_) => {
                self.arity(1..=1)?;
                self.float(0)?;
                Ok(vec![self.like(0)])
            }
            Op::Binary(_) => {
                self.arity(2..=2)?;
                self.same(1, self.shape(0), "operand 0")?;
                if self.dtype(0) != self.dtype(1) {
                    return self.fail(format!("operands are {} and {}", self.dtype(0), self.dtype(1)));
                }
                Ok(vec![self.like(0)])
            }
            Op::Broadcast { shape } => {
                self.arity(1..=1)?;
                if !broadcasts(self.shape(0), shape) {
                    return self.fail(format!("{} does not broadcast to {shape}", self.shape(0)));
                }
                Ok(vec![self.of(0, shape.clone())])
            }
            Op::Cast { dtype } => {
                self.arity(1..=1)?;
                Ok(vec![TensorType::new(*dtype, self.shape(0).clone())])
            }
            Op::Fused(region) => self.fused(region),
            Op::Sum { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. } => self.view(),
            Op::MatMul { trans_a, trans_b, dtype } => self.matmul(*trans_a, *trans_b, *dtype),
            Op::RmsNorm { .. } => {
                self.arity(2..=3)?;
                self.float(0)?;
                self.norm_weight()?;
                if self.operands.len() == 2 {
                    return Ok(vec![self.like(0)]);
                }
                self.same(2, self.shape(0), "x")?;
                self.one_dtype(&[0, 2])?;
                Ok(vec![self.like(0), self.like(0)])
            }
            Op::RmsNormGrad { .. } => {
                self.arity(3..=4)?;
                self.norm_weight()?;
                for like_x in 2..self.operands.len() {
                    self.same(like_x, self.shape(0), "x")?;
                    self.one_dtype(&[0, like_x])?;
                }
                let d = self.shape(0).last();
                let rows = self.shape(0).numel() / d;
                Ok(vec![self.like(0), self.sum_of(1, [rms_norm_row_blocks(rows), d])])
            }
            Op::Rope { .. } => {
                self.arity(2..=3)?;
                self.rank(0, 4, "[batch, seq, heads, head_dim]")?;
                self.rope_table(1, 0)?;
                if self.operands.len() == 3 {
                    let (batch, seq) = (self.shape(0).dims()[0], self.shape(0).dims()[1]);
                    self.int(2)?;
                    match self.shape(2).rank() {
                        2 => self.same(2, &[batch, seq].into(), "a position of each token")?,
                        _ => self.same(2, &[batch].into(), "a position of each sequence")?,
                    }
                }
                Ok(vec![self.like(0)])
            }
            Op::Embedding { dtype } => {
                self.arity(2..=2)?;
                self.rank(0, 2, "a table [vocab, dim]")?;
                self.int(1)?;
                let mut shape = self.shape(1).clone();
                shape.0.push(self.shape(0).last());
                let rounds = dtype.is_narrow() && !self.dtype(0).is_narrow();
                if *dtype != self.dtype(0) && !rounds {
                    return self.fail(format!("rows of a {} table cannot be {dtype}", self.dtype(0)));
                }
                Ok(vec![TensorType::new(*dtype, shape)])
            }
            Op::EmbeddingGrad { vocab, sorted } => {
                self.arity(2..=2)?;
                self.int(0)?;
                let mut rows = self.shape(1).clone();
                let d = rows.0.pop();
                match d {
                    Some(d) if rows == *self.shape(0) => {
                        let table = self.sum_of(1, [*vocab, d]);
                        let room = |dims: [usize; 2]| TensorType::new(DType::I32, dims);
                        let (order, ranges) = ([5, rows.numel()], [2, vocab.div_ceil(EMBEDDING_ROWS)]);
                        Ok(if *sorted { vec![table, room(order), room(ranges)] } else { vec![table] })
                    }
                    _ => self.fail(format!("dy is {}, ids are {}", self.shape(1), self.shape(0))),
                }
            }
            Op::Attention(_) | Op::AttentionGrad(_) | Op::Kind(_) => self.attention(),
            Op::CrossEntropy
            | Op::CrossEntropyGrad
            | Op::LogProbs
            | Op::LinearLogProbs { .. }
            | Op::LinearCrossEntropy { .. }
            | Op::LinearCrossEntropyGrad { .. } => self.loss(),
            Op::GlobalNorm => {
                self.arity(1..=usize::MAX)?;
                let parts =
                    (0..self.operands.len()).map(|i| self.shape(i).numel().div_ceil(NORM_BLOCK)).sum();
                Ok(vec![self.sum_of(0, []), self.sum_of(0, [parts])])
            }
            Op::NormFinish => {
                self.arity(1..=1)?;
                self.rank(0, 1, "partial sums")?;
                self.full(0)?;
                Ok(vec![self.of(0, [])])
            }
            Op::Update(op) => op.results(self),
            Op::Exchange(op) => op.results(self),
        }
    }

    fn norm_weight(&self) -> Result<(), IrError> {
        if self.shape(0).rank() == 0 {
            return self.fail("x is a scalar");
        }
        self.same(1, &[self.shape(0).last()].into(), "the last axis of x")
    }

    fn fused(&self, region: &Pointwise) -> Types {
        for (i, step) in region.steps.iter().enumerate() {
            let bad = match step {
                PointOp::Input(k) => *k >= self.operands.len(),
                PointOp::Const(_) => false,
                PointOp::Unary(_, a) | PointOp::Cast(_, a) => *a >= i,
                PointOp::Binary(_, a, b) => *a >= i || *b >= i,
            };
            if bad {
                return self.fail(format!("step {i} reads something that does not exist"));
            }
        }
        for (i, operand) in self.operands.iter().enumerate() {
            if !broadcasts(&operand.shape, &region.shape) {
                return self.fail(format!("operand {i} is {}, region is {}", operand.shape, region.shape));
            }
        }
        region
            .outputs
            .iter()
            .map(|(step, dtype)| {
                if *step < region.steps.len() {
                    Ok(TensorType::new(*dtype, region.shape.clone()))
                } else {
                    self.fail(format!("output step {step} does not exist"))
                }
            })
            .collect()
    }

    fn view(&self) -> Types {
        if self.operands.is_empty() {
            return self.fail("has no operand");
        }
        let x = self.shape(0);
        let mut shape = x.clone();
        match self.op {
            Op::Sum { axes, keep } => {
                if !axes.is_sorted_by(|a, b| a < b) {
                    return self.fail(format!("axes {axes:?} are not ascending"));
                }
                for axis in axes.iter().rev() {
                    self.axis(0, *axis)?;
                    if *keep {
                        shape.0[*axis] = 1;
                    } else {
                        shape.0.remove(*axis);
                    }
                }
            }
            Op::Reshape { shape: target } => {
                if target.numel() != x.numel() {
                    return self.fail(format!(
                        "{x} has {} elements, {target} has {}",
                        x.numel(),
                        target.numel()
                    ));
                }
                shape = target.clone();
            }
            Op::Transpose { perm } => {
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                if sorted != (0..x.rank()).collect::<Vec<_>>() {
                    return self.fail(format!("{perm:?} is not a permutation of the axes of {x}"));
                }
                shape = perm.iter().map(|p| x.0[*p]).collect::<Vec<_>>().into();
            }
            Op::Slice { axis, start, len } => {
                self.axis(0, *axis)?;
                if start + len > x.0[*axis] {
                    return self.fail(format!("{start}..{} is outside axis {axis} of {x}", start + len));
                }
                shape.0[*axis] = *len;
            }
            Op::Pad { axis, before, after } => {
                self.axis(0, *axis)?;
                shape.0[*axis] += before + after;
            }
            Op::Concat { axis } => {
                self.axis(0, *axis)?;
                shape.0[*axis] = 0;
                for i in 0..self.operands.len() {
                    let (mut a, mut b) = (self.shape(i).clone(), x.clone());
                    if a.rank() != b.rank() {
                        return self.fail(format!("operand {i} is {a}, operand 0 is {b}"));
                    }
                    shape.0[*axis] += a.0[*axis];
                    (a.0[*axis], b.0[*axis]) = (0, 0);
                    if a != b || self.dtype(i) != self.dtype(0) {
                        return self.fail(format!(
                            "operand {i} is {}, operand 0 is {}",
                            self.operands[i], self.operands[0]
                        ));
                    }
                }
                return Ok(vec![self.of(0, shape)]);
            }
            other => unreachable!("{} is not a view", other.name()),
        }
        self.arity(1..=1)?;
        Ok(vec![if matches!(self.op, Op::Sum { .. }) { self.sum_of(0, shape) } else { self.of(0, shape) }])
    }

    fn matmul(&self, trans_a: bool, trans_b: bool, dtype: DType) -> Types {
        self.arity(2..=2)?;
        for i in 0..2 {
            self.rank(i, 2, "a matrix")?;
            self.float(i)?;
        }
        let (a, b) = (self.shape(0).dims(), self.shape(1).dims());
        let (m, ka) = if trans_a { (a[1], a[0]) } else { (a[0], a[1]) };
        let (kb, n) = if trans_b { (b[1], b[0]) } else { (b[0], b[1]) };
        if ka != kb {
            return self.fail(format!("inner sizes differ: [{m}, {ka}] times [{kb}, {n}]"));
        }
        self.one_dtype(&[0, 1])?;
        if dtype != self.dtype(0) && dtype != self.dtype(0).accumulator() {
            return self.fail(format!("a product of {} cannot be {dtype}", self.dtype(0)));
        }
        Ok(vec![TensorType::new(dtype, [m, n])])
    }
}

/// True if `from` repeats to `to` with axes aligned at the end.
pub fn broadcasts(from: &Shape, to: &Shape) -> bool {
    from.rank() <= to.rank() && from.0.iter().rev().zip(to.0.iter().rev()).all(|(a, b)| a == b || *a == 1)
}
