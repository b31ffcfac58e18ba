//! One vector-Jacobian product per operation: from gradients of the results to gradients of the operands.
//!
//! No `_` arm: an operation without a rule here does not compile.

use linc_ir::{BinaryOp, Graph, IrError, KindOp, NodeId, Op, Shape, UnaryOp, Value};

use super::constant_like;
use crate::error::PassError;

type Grads = Vec<Option<Value>>;

/// Gradients of the operands of `id`, in order; `None` where there is none (integers, tables) or it is zero.
pub(super) fn vjp(graph: &mut Graph, id: NodeId, grads: &[Option<Value>]) -> Result<Grads, PassError> {
    let op = graph.op(id).clone();
    let x = graph.operands(id);
    let y = Value { node: id, port: 0 };
    // Operations with several results save the others for their gradient operation; only result 0 is differentiable.
    let Some(g) = grads[0] else { return Ok(vec![None; x.len()]) };
    let mut b = Rule { graph };
    Ok(match op {
        Op::Input { .. } | Op::Param { .. } | Op::State { .. } | Op::Table { .. } | Op::Constant { .. } => {
            vec![]
        }
        Op::Unary(f) => vec![Some(b.unary(f, x[0], y, g)?)],
        Op::Binary(f) => b.binary(f, x[0], x[1], g)?,
        Op::Broadcast { .. } => vec![Some(b.sum_to(g, x[0])?)],
        Op::Cast { .. } => {
            let dtype = b.graph.ty(x[0]).dtype;
            vec![if dtype.is_float() { Some(b.push(Op::Cast { dtype }, &[g])?) } else { None }]
        }
        Op::Sum { axes, keep } => {
            let full = b.shape(x[0]);
            let kept: Shape = full
                .0
                .iter()
                .enumerate()
                .map(|(i, d)| if axes.contains(&i) { 1 } else { *d })
                .collect::<Vec<_>>()
                .into();
            let g = if keep { g } else { b.push(Op::Reshape { shape: kept }, &[g])? };
            vec![Some(b.push(Op::Broadcast { shape: full }, &[g])?)]
        }
        Op::Reshape { .. } => vec![Some(b.push(Op::Reshape { shape: b.shape(x[0]) }, &[g])?)],
        Op::Transpose { perm } => {
            let mut inverse = vec![0; perm.len()];
            for (i, p) in perm.iter().enumerate() {
                inverse[*p] = i;
            }
            vec![Some(b.push(Op::Transpose { perm: inverse }, &[g])?)]
        }
        Op::Slice { axis, start, len } => {
            let after = b.shape(x[0]).0[axis] - start - len;
            vec![Some(b.push(Op::Pad { axis, before: start, after }, &[g])?)]
        }
        Op::Pad { axis, before, .. } => {
            let len = b.shape(x[0]).0[axis];
            vec![Some(b.push(Op::Slice { axis, start: before, len }, &[g])?)]
        }
        Op::Concat { axis } => {
            let mut start = 0;
            let mut parts = vec![];
            for part in &x {
                let len = b.shape(*part).0[axis];
                parts.push(Some(b.push(Op::Slice { axis, start, len }, &[g])?));
                start += len;
            }
            parts
        }
        Op::MatMul { trans_a, trans_b, .. } => b.matmul(trans_a, trans_b, x[0], x[1], g)?,
        Op::RmsNorm { eps } if x.len() == 2 => {
            let grad = b.graph.add(Op::RmsNormGrad { eps }, &[x[0], x[1], g])?;
            let dw = b.push(Op::Sum { axes: vec![0], keep: false }, &[Value { node: grad, port: 1 }])?;
            vec![Some(Value { node: grad, port: 0 }), Some(dw)]
        }
        Op::Rope { inverse } => {
            let mut operands = vec![g];
            operands.extend(&x[1..]);
            let mut out = vec![None; x.len()];
            out[0] = Some(b.push(Op::Rope { inverse: !inverse }, &operands)?);
            out
        }
        Op::Embedding { .. } => {
            let vocab = b.shape(x[0]).0[0];
            vec![Some(b.push(Op::EmbeddingGrad { vocab, sorted: false }, &[x[1], g])?), None]
        }
        Op::Attention(spec) => {
            let mut operands = vec![x[0], x[1], x[2], y, g];
            operands.extend(&x[3..]);
            let grad = b.graph.add(Op::AttentionGrad(spec), &operands)?;
            b.first_three(grad, x.len())
        }
        Op::Kind(ref kind) => {
            let Some(gradient) = kind.gradient() else { return Err(not_differentiable(b.graph, id)) };
            let inputs = KindOp::gradient_operands(&x, b.graph.results(id), g);
            let grad = b.graph.add(Op::Kind(gradient), &inputs)?;
            b.first_three(grad, x.len())
        }
        Op::CrossEntropy => vec![Some(b.push(Op::CrossEntropyGrad, &[x[0], x[1], g])?), None],
        Op::LinearCrossEntropy { chunk } => {
            let grad = b.graph.add(Op::LinearCrossEntropyGrad { chunk }, &[x[0], x[1], x[2], g])?;
            vec![Some(Value { node: grad, port: 1 }), Some(Value { node: grad, port: 2 }), None]
        }
        Op::Fused(_)
        | Op::RmsNorm { .. }
        | Op::RmsNormGrad { .. }
        | Op::EmbeddingGrad { .. }
        | Op::AttentionGrad(_)
        | Op::CrossEntropyGrad
        | Op::LogProbs
        | Op::LinearLogProbs { .. }
        | Op::LinearCrossEntropyGrad { .. }
        | Op::GlobalNorm
        | Op::NormFinish
        | Op::Update(_)
        // Exchanges come after differentiation.
        | Op::Exchange(_) => return Err(not_differentiable(b.graph, id)),
    })
}

fn not_differentiable(graph: &Graph, id: NodeId) -> PassError {
    PassError::NotDifferentiable { scope: graph.node(id).scope.clone(), op: graph.op(id).name() }
}

struct Rule<'a> {
    graph: &'a mut Graph,
}

impl Rule<'_> {
    fn push(&mut self, op: Op, operands: &[Value]) -> Result<Value, IrError> {
        self.graph.push(op, operands)
    }

    fn shape(&self, value: Value) -> Shape {
        self.graph.ty(value).shape.clone()
    }

    fn op1(&mut self, f: UnaryOp, a: Value) -> Result<Value, IrError> {
        self.push(Op::Unary(f), &[a])
    }

    fn op2(&mut self, f: BinaryOp, a: Value, b: Value) -> Result<Value, IrError> {
        self.push(Op::Binary(f), &[a, b])
    }

    fn mul(&mut self, a: Value, b: Value) -> Result<Value, IrError> {
        self.op2(BinaryOp::Mul, a, b)
    }

    fn scaled(&mut self, a: Value, factor: f64) -> Result<Value, PassError> {
        let ty = self.graph.ty(a).clone();
        let factor = constant_like(self.graph, factor, &ty)?;
        Ok(self.mul(a, factor)?)
    }

    /// 1 - a
    fn one_minus(&mut self, a: Value) -> Result<Value, PassError> {
        let ty = self.graph.ty(a).clone();
        let one = constant_like(self.graph, 1.0, &ty)?;
        Ok(self.op2(BinaryOp::Sub, one, a)?)
    }

    fn unary(&mut self, f: UnaryOp, x: Value, y: Value, g: Value) -> Result<Value, PassError> {
        Ok(match f {
            UnaryOp::Neg => self.op1(UnaryOp::Neg, g)?,
            UnaryOp::Exp => self.mul(g, y)?,
            UnaryOp::Log => self.op2(BinaryOp::Div, g, x)?,
            UnaryOp::Sqrt => {
                let half = self.scaled(g, 0.5)?;
                self.op2(BinaryOp::Div, half, y)?
            }
            UnaryOp::Rsqrt => {
                let half = self.scaled(g, -0.5)?;
                let over = self.op2(BinaryOp::Div, y, x)?;
                self.mul(half, over)?
            }
            UnaryOp::Recip => {
                let square = self.mul(y, y)?;
                let product = self.mul(g, square)?;
                self.op1(UnaryOp::Neg, product)?
            }
            UnaryOp::Sigmoid => {
                let rest = self.one_minus(y)?;
                let slope = self.mul(y, rest)?;
                self.mul(g, slope)?
            }
            UnaryOp::Silu => {
                // d(x s)/dx = s + x s (1 - s) = s + y (1 - s)
                let s = self.op1(UnaryOp::Sigmoid, x)?;
                let rest = self.one_minus(s)?;
                let bend = self.mul(y, rest)?;
                let slope = self.op2(BinaryOp::Add, s, bend)?;
                self.mul(g, slope)?
            }
            UnaryOp::Tanh => {
                let square = self.mul(y, y)?;
                let slope = self.one_minus(square)?;
                self.mul(g, slope)?
            }
            UnaryOp::Relu => {
                let ty = self.graph.ty(x).clone();
                let zero = constant_like(self.graph, 0.0, &ty)?;
                let mask = self.op2(BinaryOp::Greater, x, zero)?;
                self.mul(g, mask)?
            }
        })
    }

    fn binary(&mut self, f: BinaryOp, x: Value, y: Value, g: Value) -> Result<Grads, PassError> {
        let (dx, dy) = match f {
            BinaryOp::Add => (g, g),
            BinaryOp::Sub => (g, self.op1(UnaryOp::Neg, g)?),
            BinaryOp::Mul => (self.mul(g, y)?, self.mul(g, x)?),
            BinaryOp::Div => {
                let dx = self.op2(BinaryOp::Div, g, y)?;
                let ratio = self.op2(BinaryOp::Div, x, y)?;
                let product = self.mul(dx, ratio)?;
                (dx, self.op1(UnaryOp::Neg, product)?)
            }
            BinaryOp::Max | BinaryOp::Min => {
                let (big, small) = if f == BinaryOp::Max { (y, x) } else { (x, y) };
                let to_y = self.op2(BinaryOp::Greater, big, small)?;
                let to_x = self.one_minus(to_y)?;
                (self.mul(g, to_x)?, self.mul(g, to_y)?)
            }
            BinaryOp::Greater => return Ok(vec![None, None]),
            BinaryOp::Mask => return Ok(vec![Some(self.op2(BinaryOp::Mask, g, y)?), None]),
        };
        Ok(vec![Some(dx), Some(dy)])
    }

    /// The adjoint of a broadcast: sums `g` down to the shape of `like`.
    fn sum_to(&mut self, g: Value, like: Value) -> Result<Value, IrError> {
        let (from, to) = (self.shape(g), self.shape(like));
        let lead = from.rank() - to.rank();
        let repeated = |a: usize| a < lead || (to.0[a - lead] == 1 && from.0[a] != 1);
        // One sum per run of neighbouring axes, last run first, so that the earlier axes keep their numbers.
        let mut g = g;
        let mut end = from.rank();
        while end > 0 {
            if !repeated(end - 1) {
                end -= 1;
                continue;
            }
            let start = (0..end).rev().take_while(|a| repeated(*a)).last().unwrap_or(end - 1);
            g = self.push(Op::Sum { axes: (start..end).collect(), keep: false }, &[g])?;
            end = start;
        }
        if self.shape(g) == to { Ok(g) } else { self.push(Op::Reshape { shape: to }, &[g]) }
    }

    fn matmul(
        &mut self,
        trans_a: bool,
        trans_b: bool,
        a: Value,
        b: Value,
        g: Value,
    ) -> Result<Grads, IrError> {
        // y = A B with A = aᵀ if trans_a, B = bᵀ if trans_b; dA = g Bᵀ, dB = Aᵀ g.
        let dtype = self.graph.ty(g).dtype;
        let da = if trans_a {
            self.push(Op::MatMul { trans_a: trans_b, trans_b: true, dtype }, &[b, g])?
        } else {
            self.push(Op::MatMul { trans_a: false, trans_b: !trans_b, dtype }, &[g, b])?
        };
        let db = if trans_b {
            self.push(Op::MatMul { trans_a: true, trans_b: trans_a, dtype }, &[g, a])?
        } else {
            self.push(Op::MatMul { trans_a: !trans_a, trans_b: false, dtype }, &[a, g])?
        };
        Ok(vec![Some(da), Some(db)])
    }

    fn first_three(&self, node: NodeId, operands: usize) -> Grads {
        (0..operands).map(|i| (i < 3).then_some(Value { node, port: i as u32 })).collect()
    }
}
