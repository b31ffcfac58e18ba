//! Muon (Keller Jordan): momentum of a matrix made orthogonal by Newton-Schulz iterations, which are matmuls of the graph. As
//! `torch.optim.Muon`, but in f32 throughout.
//!
//! With the clipped gradient g of a parameter p of shape [r, c] (rows are what a product puts out) and its momentum m:
//!
//! ```text
//! m ← m + (1 − momentum)(g − m)
//! u = g + momentum (m − g), or m without Nesterov's lookahead
//! x = u / max(‖u‖, 1e-7)
//! x ← 3.4445 x − 4.7750 (x xᵀ) x + 2.0315 (x xᵀ)² x    five times; from the right, with xᵀ x, where r > c
//! p ← (1 − lr·weight_decay) p − lr·adjustment(r, c) x
//! ```

use linc_ir::{BinaryOp, DType, Graph, NodeId, Op, ParamState, Shape, TensorType, UnaryOp, Value};

use super::{Scalars, add_states, result};
use crate::error::PassError;

/// Coefficients of the quintic polynomial.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// The least norm that a direction is divided by.
const EPS: f64 = 1e-7;

/// Hyperparameters that are fixed at compile time.
#[derive(Clone, PartialEq, Debug)]
pub struct MuonSpec {
    /// Decay of the momentum.
    pub momentum: f64,
    /// The direction looks one step ahead.
    pub nesterov: bool,
    /// Newton-Schulz iterations.
    pub steps: usize,
    /// Decoupled weight decay, multiplied by the learning rate as it is given.
    pub weight_decay: f64,
    /// What the learning rate is multiplied by.
    pub adjust: AdjustLr,
}

impl Default for MuonSpec {
    /// PyTorch's numbers, with the learning rate's adjustment of Moonlight.
    fn default() -> Self {
        let adjust = AdjustLr::MatchRmsAdamW;
        MuonSpec { momentum: 0.95, nesterov: true, steps: 5, weight_decay: 0.1, adjust }
    }
}

/// How the learning rate depends on the shape of the matrix; the names are PyTorch's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdjustLr {
    /// √max(1, r/c), as its author has it.
    Original,
    /// 0.2·√max(r, c), which gives updates the size of AdamW's, so that both take one learning rate (arXiv 2502.16982).
    MatchRmsAdamW,
}

impl AdjustLr {
    /// The factor for a matrix.
    pub fn factor(self, rows: usize, cols: usize) -> f64 {
        match self {
            AdjustLr::Original => (rows as f64 / cols as f64).max(1.0).sqrt(),
            AdjustLr::MatchRmsAdamW => 0.2 * (rows.max(cols) as f64).sqrt(),
        }
    }
}

/// Updates matrices, whose gradients lie in one vector in their order.
pub(super) fn run(
    graph: &mut Graph,
    params: &[NodeId],
    grads: Value,
    spec: &MuonSpec,
    scalars: Scalars,
) -> Result<(), PassError> {
    // Where the step is skipped the rate is 0 and the gradient counts as 0, so that everything stays.
    let rate = graph.push(Op::Binary(BinaryOp::Mul), &[scalars.lr, scalars.update])?;
    let momenta = add_states(graph, params, ParamState::FirstMoment, "momentum_buffer")?;
    let mut start = 0;
    for (param, momentum) in params.iter().zip(momenta) {
        let shape = graph.ty(result(*param)).shape.clone();
        let [rows, cols] = shape.0[..] else {
            let name = graph.op(*param).leaf_name().unwrap_or_default();
            return Err(PassError::Setting(format!("Muon updates matrices; {name} has the shape {shape}")));
        };
        let len = rows * cols;
        let grad = graph.push(Op::Slice { axis: 0, start, len }, &[grads])?;
        let grad = graph.push(Op::Reshape { shape: shape.clone() }, &[grad])?;
        start += len;
        let mut maths = Maths { graph, shape };
        let direction = maths.momentum(momentum, grad, spec, scalars)?;
        let direction = maths.orthogonal(direction, spec.steps)?;

        let step = maths.scaled(rate, spec.adjust.factor(rows, cols))?;
        let step = maths.times(direction, step)?;
        let decay = maths.scaled(rate, -spec.weight_decay)?;
        let one = maths.scalar(1.0)?;
        let keep = maths.binary(BinaryOp::Add, one, decay)?;
        let kept = maths.times(result(*param), keep)?;
        let updated = maths.binary(BinaryOp::Sub, kept, step)?;
        graph.updates.push((*param, updated));
    }
    Ok(())
}

/// Formulas of tensors of one shape.
struct Maths<'g> {
    graph: &'g mut Graph,
    shape: Shape,
}

impl Maths<'_> {
    fn scalar(&mut self, value: f64) -> Result<Value, PassError> {
        Ok(self.graph.push(Op::Constant { value, ty: TensorType::f32([]) }, &[])?)
    }

    fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Result<Value, PassError> {
        Ok(self.graph.push(Op::Binary(op), &[a, b])?)
    }

    /// A scalar times a number.
    fn scaled(&mut self, scalar: Value, by: f64) -> Result<Value, PassError> {
        let by = self.scalar(by)?;
        self.binary(BinaryOp::Mul, scalar, by)
    }

    /// An operation of a tensor of any shape with a scalar.
    fn with(&mut self, op: BinaryOp, x: Value, scalar: Value) -> Result<Value, PassError> {
        let shape = self.graph.ty(x).shape.clone();
        let all = self.graph.push(Op::Broadcast { shape }, &[scalar])?;
        self.binary(op, x, all)
    }

    fn times(&mut self, x: Value, scalar: Value) -> Result<Value, PassError> {
        self.with(BinaryOp::Mul, x, scalar)
    }

    fn times_number(&mut self, x: Value, by: f64) -> Result<Value, PassError> {
        let ty = self.graph.ty(x).clone();
        let by = self.graph.push(Op::Constant { value: by, ty }, &[])?;
        self.binary(BinaryOp::Mul, x, by)
    }

    fn product(&mut self, a: (Value, bool), b: (Value, bool)) -> Result<Value, PassError> {
        let op = Op::MatMul { trans_a: a.1, trans_b: b.1, dtype: DType::F32 };
        Ok(self.graph.push(op, &[a.0, b.0])?)
    }

    /// Updates the momentum; gives the direction.
    fn momentum(
        &mut self,
        state: NodeId,
        grad: Value,
        spec: &MuonSpec,
        scalars: Scalars,
    ) -> Result<Value, PassError> {
        use BinaryOp::{Add, Mask, Sub};
        let old = result(state);
        let grad = self.times(grad, scalars.clip)?;
        let grad = self.with(Mask, grad, scalars.update)?;
        let change = self.binary(Sub, grad, old)?;
        let share = self.scaled(scalars.update, 1.0 - spec.momentum)?;
        let change = self.times(change, share)?;
        let new = self.binary(Add, old, change)?;
        self.graph.updates.push((state, new));
        if !spec.nesterov {
            return Ok(new);
        }
        let ahead = self.binary(Sub, new, grad)?;
        let ahead = self.times_number(ahead, spec.momentum)?;
        self.binary(Add, grad, ahead)
    }

    /// Brings the singular values of a matrix near 1.
    fn orthogonal(&mut self, direction: Value, steps: usize) -> Result<Value, PassError> {
        let norm = self.graph.push(Op::GlobalNorm, &[direction])?;
        let eps = self.scalar(EPS)?;
        let norm = self.binary(BinaryOp::Max, norm, eps)?;
        let inverse = self.graph.push(Op::Unary(UnaryOp::Recip), &[norm])?;
        let mut x = self.times(direction, inverse)?;
        // The smaller of the two products with itself.
        let wide = self.shape.0[0] <= self.shape.0[1];
        let [a, b, c] = QUINTIC;
        for _ in 0..steps {
            let gram = self.product((x, !wide), (x, wide))?;
            let square = self.product((gram, false), (gram, false))?;
            let linear = self.times_number(gram, b)?;
            let quadratic = self.times_number(square, c)?;
            let polynomial = self.binary(BinaryOp::Add, linear, quadratic)?;
            let rest = match wide {
                true => self.product((polynomial, false), (x, false))?,
                false => self.product((x, false), (polynomial, false))?,
            };
            let first = self.times_number(x, a)?;
            x = self.binary(BinaryOp::Add, first, rest)?;
        }
        Ok(x)
    }
}
