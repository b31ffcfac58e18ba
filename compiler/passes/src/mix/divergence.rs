//! How far the mixed model is from its teacher: the Kullback-Leibler divergence of its predictions at each place, and the
//! gradient of its weighted sum.

use linc_ir::{BinaryOp, Graph, NodeId, Op, Shape, TensorType, UnaryOp, Value};

use crate::error::PassError;

/// Name of the input with the teacher's logits, f32 `[tokens, vocab]`: those of the program at gates of 1.
pub const TEACHER: &str = "teacher";
/// Name of the input with the weight of each place in what is differentiated, f32 `[tokens]`.
pub const WEIGHTS: &str = "weights";
/// Name of the output with the divergence KL(teacher ‖ mixed) at each place in nats, f32 `[tokens]`.
pub const DIVERGENCE: &str = "divergence";
/// Name of the output with the derivatives of the weighted sum of a sequence's divergences in its gates, f32 `[gates, batch]`.
pub const GATE_GRADIENTS: &str = "gate_gradients";

/// Predictions that were compared.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Logits of the mixed model, `[tokens, vocab]`.
    pub logits: Value,
    /// The gradient of the weighted sum of divergences in them.
    pub gradient: Value,
}

/// Compares the output `logits` with the input [`TEACHER`]; it stays an output.
///
/// # Errors
/// [`PassError::Missing`] if there is no such output; [`PassError::Ir`] on a malformed graph.
pub fn diverge(graph: &mut Graph, logits: &str) -> Result<Compared, PassError> {
    let missing = || PassError::Missing(format!("the model has no output {logits}"));
    let logits = graph.output(logits).ok_or_else(missing)?;
    let outer = graph.set_scope("loss");
    let shape = graph.ty(logits).shape.clone();
    let (vocab, tokens) = (shape.last(), shape.numel() / shape.last().max(1));
    let shape: Shape = [tokens, vocab].into();
    let logits = graph.push(Op::Reshape { shape: shape.clone() }, &[logits])?;
    let teacher = Op::Input { name: TEACHER.into(), ty: TensorType::f32([tokens, vocab]) };
    let teacher = graph.push(teacher, &[])?;
    let weights = graph.push(Op::Input { name: WEIGHTS.into(), ty: TensorType::f32([tokens]) }, &[])?;
    let log_p = log_softmax(graph, teacher)?;
    let log_q = log_softmax(graph, logits)?;
    let p = graph.push(Op::Unary(UnaryOp::Exp), &[log_p])?;
    let q = graph.push(Op::Unary(UnaryOp::Exp), &[log_q])?;
    // Σ p·log(p/q) + q − p: the last two add nothing, and make up for what rounding leaves of the normalisers, so that
    // predictions that are nearly equal have a divergence of nearly nothing.
    let ratio = graph.push(Op::Binary(BinaryOp::Sub), &[log_p, log_q])?;
    let terms = graph.push(Op::Binary(BinaryOp::Mul), &[p, ratio])?;
    let difference = graph.push(Op::Binary(BinaryOp::Sub), &[q, p])?;
    let terms = graph.push(Op::Binary(BinaryOp::Add), &[terms, difference])?;
    let divergence = graph.push(Op::Sum { axes: vec![1], keep: false }, &[terms])?;
    graph.outputs.push((DIVERGENCE.into(), divergence));
    let weights = spread(graph, weights, &shape)?;
    let gradient = graph.push(Op::Binary(BinaryOp::Mul), &[difference, weights])?;
    graph.set_scope(outer);
    Ok(Compared { logits, gradient })
}

/// Makes an output of gradients of gates, in their order.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn output_gradients(graph: &mut Graph, gradients: &[(NodeId, Value)]) -> Result<(), PassError> {
    let outer = graph.set_scope("loss");
    let mut rows = vec![];
    for (_, gradient) in gradients {
        let shape = [1, graph.ty(*gradient).shape.numel()].into();
        rows.push(graph.push(Op::Reshape { shape }, &[*gradient])?);
    }
    let rows = graph.push(Op::Concat { axis: 0 }, &rows)?;
    graph.set_scope(outer);
    graph.outputs.push((GATE_GRADIENTS.into(), rows));
    Ok(())
}

/// The logarithms of the softmax of each row `[tokens, vocab]`. What is subtracted from a row is its first logit without the
/// log-probability of that, for which there is a kernel that no logit is too large for.
fn log_softmax(graph: &mut Graph, logits: Value) -> Result<Value, PassError> {
    let shape = graph.ty(logits).shape.clone();
    let tokens = shape.0[0];
    let first = graph.push(Op::Constant { value: 0.0, ty: TensorType::i32([tokens]) }, &[])?;
    let log_prob = graph.push(Op::LogProbs, &[logits, first])?;
    let first = graph.push(Op::Slice { axis: 1, start: 0, len: 1 }, &[logits])?;
    let first = graph.push(Op::Reshape { shape: [tokens].into() }, &[first])?;
    let sum = graph.push(Op::Binary(BinaryOp::Sub), &[first, log_prob])?;
    let sum = spread(graph, sum, &shape)?;
    Ok(graph.push(Op::Binary(BinaryOp::Sub), &[logits, sum])?)
}

/// `[tokens]` along each row of `[tokens, vocab]`.
fn spread(graph: &mut Graph, x: Value, shape: &Shape) -> Result<Value, PassError> {
    let column = graph.push(Op::Reshape { shape: [shape.0[0], 1].into() }, &[x])?;
    Ok(graph.push(Op::Broadcast { shape: shape.clone() }, &[column])?)
}
