//! Reference interpreter: the meaning of every operation, in `f64` or `f32`.
//!
//! It is the specification that kernels and passes are compared with, so it is written for clarity: one plain
//! formula per operation, no blocking, no reuse of buffers. Values of bf16 or f16 type are rounded to it wherever
//! they are produced; f32 and f64 values have the precision of the number type it runs in.
//!
//! ```
//! use linc_ir::interp::{Bindings, Tensor, run};
//! let graph = linc_ir::parse(
//!     r#"graph "double" { %0: f32[2] = input() {name = "x"} %1: f32[2] = add(%0, %0) output "y" = %1 }"#,
//! )?;
//! let bindings = Bindings::from([("x".into(), Tensor::float([2], vec![1.0, 2.5]))]);
//! let results = run::<f64>(&graph, &bindings)?;
//! assert_eq!(results.outputs["y"].doubles(), [2.0, 5.0]);
//! # Ok::<(), linc_ir::IrError>(())
//! ```

mod attention;
mod dense;
mod evaluation;
mod exchange;
mod loss;
mod optimizer;
mod pointwise;
mod tensor;
mod view;

use std::collections::BTreeMap;

use indexmap::IndexMap;

pub use attention::{HeadWeights, head_weights};
pub use dense::{rope_frequencies, rope_table};
pub use exchange::run_ranks;
pub use pointwise::{binary, unary};
pub use tensor::{Data, Real, Tensor};

use crate::error::IrError;
use crate::graph::{Graph, Value};
use crate::infer::infer;
use crate::op::Op;
use crate::types::{DType, TensorType};
use evaluation::{Evaluation, Meeting};
use tensor::Args;

/// Values of leaves by name. Inputs and parameters must be bound; a state that is not starts at zero, a table
/// that is not is computed.
pub type Bindings<T> = BTreeMap<String, Tensor<T>>;

/// What a graph computed.
#[derive(Clone, PartialEq, Debug)]
pub struct Results<T> {
    /// Outputs by name, in the order of the graph.
    pub outputs: IndexMap<String, Tensor<T>>,
    /// New values of updated leaves by leaf name, in the order of the graph.
    pub updates: IndexMap<String, Tensor<T>>,
    /// Every value of the graph; empty unless [`run_all`] was asked.
    pub values: BTreeMap<Value, Tensor<T>>,
}

/// Evaluates a graph.
///
/// # Errors
/// As [`crate::verify()`]; [`IrError::Input`] if an input or parameter is not bound or bound to the wrong type;
/// [`IrError::Value`] if a token id or position is out of range. Bindings that no leaf has are ignored.
pub fn run<T: Real>(graph: &Graph, bindings: &Bindings<T>) -> Result<Results<T>, IrError> {
    evaluate(graph, bindings, false)
}

/// As [`run`], and keeps every intermediate value in [`Results::values`].
///
/// # Errors
/// As [`run`].
pub fn run_all<T: Real>(graph: &Graph, bindings: &Bindings<T>) -> Result<Results<T>, IrError> {
    evaluate(graph, bindings, true)
}

/// Evaluates one operation on operands taken as f32 and i32 tensors.
///
/// # Errors
/// [`IrError::Type`] if the operands do not fit, otherwise as [`run`].
pub fn eval<T: Real>(op: &Op, operands: &[&Tensor<T>]) -> Result<Vec<Tensor<T>>, IrError> {
    let dtype = |x: &Tensor<T>| if x.ints().is_some() { DType::I32 } else { DType::F32 };
    let types: Vec<TensorType> =
        operands.iter().map(|x| TensorType::new(dtype(x), x.shape.clone())).collect();
    let results = infer(op, &types.iter().collect::<Vec<_>>())?;
    for (i, (x, ty)) in operands.iter().zip(&types).enumerate() {
        if let Some(message) = x.mismatch(ty) {
            return Err(IrError::Value { op: op.name(), message: format!("operand {i} {message}") });
        }
    }
    eval_typed(op, operands, &results)
}

fn evaluate<T: Real>(graph: &Graph, bindings: &Bindings<T>, keep: bool) -> Result<Results<T>, IrError> {
    let mut evaluation = Evaluation::new(graph, bindings, keep)?;
    evaluation.advance()?;
    if let Some(Meeting { op, operands }) = evaluation.meeting() {
        exchange::alone(op, &Args { op: op.name(), operands: &operands })?;
    }
    Ok(evaluation.results())
}

/// Evaluates one operation whose result types are known, and rounds the results to them.
fn eval_typed<T: Real>(
    op: &Op,
    operands: &[&Tensor<T>],
    types: &[TensorType],
) -> Result<Vec<Tensor<T>>, IrError> {
    let args = Args { op: op.name(), operands };
    let shape = &types[0].shape;
    let shaped = |data: Vec<Vec<T>>| tensor::shaped(data, types);
    let results = match op {
        Op::Input { name, .. } | Op::Param { name, .. } => {
            let message = format!("is not bound, expected {}", types[0]);
            return Err(IrError::Input { name: name.clone(), message });
        }
        Op::State { ty, .. } => vec![Tensor::full(ty, 0.0)],
        Op::Table { kind, .. } => {
            vec![Tensor::float(shape.clone(), rope_table(kind, shape).into_iter().map(T::of).collect())]
        }
        Op::Constant { value, ty } => vec![Tensor::full(ty, *value)],
        Op::Unary(u) => vec![pointwise::unary_tensor(*u, &args)?],
        Op::Binary(b) => vec![pointwise::binary_tensor(*b, &args)?],
        Op::Broadcast { shape } => vec![view::broadcast(operands[0], shape)],
        Op::Cast { dtype } => vec![pointwise::cast(operands[0], *dtype)],
        Op::Fused(region) => pointwise::fused(region, &args, types)?,
        Op::Sum { axes, .. } => vec![view::sum(operands[0], axes, shape)],
        Op::Reshape { shape } => vec![view::reshape(operands[0], shape)],
        Op::Transpose { perm } => vec![view::transpose(operands[0], perm, shape)],
        Op::Slice { axis, start, .. } => vec![view::slice(operands[0], *axis, *start, shape)],
        Op::Pad { axis, before, .. } => vec![view::pad(operands[0], *axis, *before, shape)],
        Op::Concat { axis } => vec![view::concat(&args, *axis, shape)?],
        Op::MatMul { trans_a, trans_b, .. } => vec![dense::matmul(&args, [*trans_a, *trans_b], shape)?],
        Op::RmsNorm { eps } => dense::rms_norm(&args, *eps, types)?,
        Op::RmsNormGrad { eps } => dense::rms_norm_grad(&args, *eps, types)?,
        Op::Rope { inverse } => vec![dense::rope(&args, *inverse)?],
        Op::Embedding { .. } => vec![dense::embedding(&args, shape)?],
        Op::EmbeddingGrad { .. } => {
            let room = types[1..].iter().map(|ty| Tensor::full(ty, 0.0));
            std::iter::once(dense::embedding_grad(&args, shape)?).chain(room).collect()
        }
        Op::Attention(spec) => shaped(attention::abstract_attention(&args, spec)?),
        Op::AttentionGrad(spec) => shaped(attention::abstract_attention_grad(&args, spec)?),
        Op::Kind(op) => shaped(attention::eval(op, &args, types)?),
        Op::CrossEntropy => vec![loss::cross_entropy(&args)?],
        Op::CrossEntropyGrad => vec![loss::cross_entropy_grad(&args)?],
        Op::LogProbs => loss::log_probs(&args)?,
        Op::LinearLogProbs { .. } => loss::linear_log_probs(&args, types)?,
        Op::LinearCrossEntropy { .. } => loss::linear_cross_entropy(&args, types)?,
        Op::LinearCrossEntropyGrad { .. } => loss::linear_cross_entropy_grad(&args, types)?,
        Op::GlobalNorm => optimizer::global_norm(&args, types)?,
        Op::NormFinish => vec![Tensor::scalar(optimizer::norm(args.floats(0)?))],
        Op::Update(op) => shaped(optimizer::update(&args, op)?),
        Op::Exchange(op) => vec![exchange::alone(op, &args)?],
    };
    Ok(results.into_iter().zip(types).map(|(x, ty)| x.rounded(ty.dtype)).collect())
}
