//! One branch per operation: from a scheduled node to its launches.

use linc_ir::layout::Layout;
use linc_ir::{Graph, NodeId, Op, Shape, Value};
use linc_tile::library::WORK;
use linc_tile::library::copy::{CopySpec, copy};
use linc_tile::library::fill::{FillSpec, fill};
use linc_tile::library::loss::{CrossEntropySpec, cross_entropy, cross_entropy_grad, log_probs};
use linc_tile::library::norm::{RmsNormGradSpec, RmsNormSpec, rms_norm, rms_norm_grad};
use linc_tile::library::reduce::{
    NormFinishSpec, SumMiddleSpec, SumOfSquaresSpec, norm_finish, sum_middle, sum_of_squares,
};
use linc_tile::library::rope::{Positions, RopeSpec, rope};

use crate::context::Lowering;
use crate::loss::logit_block;
use crate::{
    Call, Context, Cost, Gemm, KernelError, Target, attention, embedding, exchange, loss, optimizer,
    pointwise,
};

/// The launches of one node, in order; none for leaves and for views that share storage.
///
/// # Errors
/// [`KernelError`] names the node and what no kernel exists for.
pub fn lower(graph: &Graph, id: NodeId, context: &mut Context<'_>) -> Result<Vec<Call>, KernelError> {
    let mut l = Lowering::new(graph, id, context);
    match l.op() {
        Op::Input { .. } | Op::Param { .. } | Op::State { .. } | Op::Table { .. } => {}
        Op::Constant { value, .. } => constant(&mut l, *value)?,
        Op::Unary(_) | Op::Binary(_) | Op::Fused(_) => pointwise::lower(&mut l)?,
        Op::Cast { .. } => cast(&mut l)?,
        Op::Broadcast { shape } => {
            let source =
                linc_ir::layout::broadcast_strides(l.layout(l.operands[0]), l.shape(l.operands[0]), shape);
            let target = l.layout(l.results[0]).clone();
            strided_copy(&mut l, shape, source, &target, 0)?;
        }
        Op::Sum { axes, .. } => sum(&mut l, axes)?,
        Op::Reshape { .. } | Op::Slice { .. } | Op::Transpose { .. } => view(&mut l)?,
        Op::Concat { axis } => concat(&mut l, *axis)?,
        Op::Pad { axis, before, .. } => {
            constant(&mut l, 0.0)?;
            let target = l.layout(l.results[0]).slice(*axis, *before);
            part_copy(&mut l, 0, &target)?;
        }
        Op::MatMul { trans_a, trans_b, .. } => matmul(&mut l, *trans_a, *trans_b)?,
        Op::RmsNorm { eps } => norm(&mut l, *eps)?,
        Op::RmsNormGrad { eps } => norm_gradient(&mut l, *eps)?,
        Op::Rope { inverse } => rotate(&mut l, *inverse)?,
        Op::Embedding { .. } => embedding::rows(&mut l)?,
        Op::EmbeddingGrad { vocab, sorted: false } => embedding::gradient(&mut l, *vocab)?,
        Op::EmbeddingGrad { vocab, sorted: true } => embedding::sorted_gradient(&mut l, *vocab)?,
        Op::Attention(_) | Op::AttentionGrad(_) => {
            return l.fail("attention has no kind yet: run the attention pass first");
        }
        Op::Kind(op) => attention::lower(&mut l, op)?,
        Op::CrossEntropy => {
            let spec = cross_entropy_spec(&l)?;
            let args = l.places(&[l.operands[0], l.operands[1], l.results[0]]);
            l.launch(cross_entropy(&spec), args);
        }
        Op::CrossEntropyGrad => {
            let spec = cross_entropy_spec(&l)?;
            let args = l.places(&[l.operands[0], l.operands[1], l.operands[2], l.results[0]]);
            l.launch(cross_entropy_grad(&spec), args);
        }
        Op::LogProbs => {
            let spec = cross_entropy_spec(&l)?;
            let args = [l.operands.clone(), l.results.clone()].concat();
            let args = l.places(&args);
            l.launch(log_probs(&spec), args);
        }
        Op::LinearLogProbs { chunk } => loss::scores(&mut l, *chunk)?,
        Op::LinearCrossEntropy { chunk } => loss::forward(&mut l, *chunk)?,
        Op::LinearCrossEntropyGrad { chunk } => loss::gradient(&mut l, *chunk)?,
        Op::GlobalNorm => global_norm(&mut l)?,
        Op::NormFinish => {
            let spec = NormFinishSpec { partials: l.shape(l.operands[0]).numel() };
            let args = l.places(&[l.operands[0], l.results[0]]);
            l.launch(norm_finish(&spec), args);
        }
        Op::Update(op) => optimizer::update(&mut l, op)?,
        Op::Exchange(op) => exchange::lower(&mut l, op)?,
    }
    Ok(l.finish(&mut context.operations))
}

fn cross_entropy_spec(l: &Lowering<'_>) -> Result<CrossEntropySpec, KernelError> {
    let logits = l.operands[0];
    let shape = l.shape(logits);
    let (rows, vocab, logits) = (shape.0[0], shape.0[1], l.elem(logits)?);
    Ok(CrossEntropySpec { rows, vocab, logits, block: logit_block(l.target, logits) })
}

fn constant(l: &mut Lowering<'_>, value: f64) -> Result<(), KernelError> {
    let result = l.results[0];
    let numel = l.shape(result).numel();
    let spec = FillSpec { rows: 1, cols: numel, offset: 0, row_stride: numel, elem: l.elem(result)?, value };
    let args = l.places(&[result]);
    l.launch(fill(&spec), args);
    Ok(())
}

/// Between float types a copy, whose name says what it is; else a pointwise step.
fn cast(l: &mut Lowering<'_>) -> Result<(), KernelError> {
    let (x, y) = (l.operands[0], l.results[0]);
    if !l.ty(x).dtype.is_float() || !l.ty(y).dtype.is_float() {
        return pointwise::lower(l);
    }
    let (shape, strides) = (l.shape(x).clone(), l.layout(x).strides.clone());
    let target = l.layout(y).clone();
    strided_copy(l, &shape, strides, &target, 0)
}

/// Copies operand `operand` over `shape` from strides to a layout of result 0, unless that is where it lies.
fn strided_copy(
    l: &mut Lowering<'_>,
    shape: &Shape,
    source: Vec<usize>,
    target: &Layout,
    operand: usize,
) -> Result<(), KernelError> {
    let (x, y) = (l.operands[operand], l.results[0]);
    let (from, mut to) = (l.place(x), l.place(y));
    to.offset = target.offset;
    let (src, dst) = (l.elem(x)?, l.elem(y)?);
    // A scalar is a vector of one.
    let (dims, source, strides) = if shape.rank() == 0 {
        (vec![1], vec![1], vec![1])
    } else {
        (shape.0.clone(), source, target.strides.clone())
    };
    let spec = CopySpec {
        shape: dims,
        src,
        src_offset: 0,
        src_strides: source,
        dst,
        dst_offset: 0,
        dst_strides: strides,
    };
    l.launch(copy(&spec), vec![from, to]);
    Ok(())
}

/// Copies an operand into a part of result 0 of its own shape, unless it lies there already.
pub(crate) fn part_copy(l: &mut Lowering<'_>, operand: usize, target: &Layout) -> Result<(), KernelError> {
    let x = l.operands[operand];
    if l.root(x) == l.root(l.results[0]) && l.layout(x) == target {
        return Ok(());
    }
    let (shape, strides) = (l.shape(x).clone(), l.layout(x).strides.clone());
    strided_copy(l, &shape, strides, target, operand)
}

/// A view that shares storage is nothing; a reshape across gaps is a copy to dense storage.
fn view(l: &mut Lowering<'_>) -> Result<(), KernelError> {
    if l.root(l.operands[0]) == l.root(l.results[0]) {
        return Ok(());
    }
    let shape = l.shape(l.operands[0]);
    let Some(target) = l.layout(l.results[0]).reshape(l.shape(l.results[0]), shape) else {
        return l.fail("neither operand nor result is dense");
    };
    part_copy(l, 0, &target)
}

fn concat(l: &mut Lowering<'_>, axis: usize) -> Result<(), KernelError> {
    let mut start = 0;
    for operand in 0..l.operands.len() {
        let target = l.layout(l.results[0]).slice(axis, start);
        start += l.shape(l.operands[operand]).0[axis];
        part_copy(l, operand, &target)?;
    }
    Ok(())
}

fn sum(l: &mut Lowering<'_>, axes: &[usize]) -> Result<(), KernelError> {
    let (x, y) = (l.operands[0], l.results[0]);
    let dims = &l.shape(x).0;
    let first = axes.first().copied().unwrap_or(0);
    if axes.iter().enumerate().any(|(i, a)| *a != first + i) {
        return l.fail(format!("axes {axes:?} are not neighbours; sum them one after the other"));
    }
    let spec = SumMiddleSpec {
        outer: dims[..first].iter().product(),
        mid: dims[first..first + axes.len()].iter().product(),
        inner: dims[first + axes.len()..].iter().product(),
        x: l.elem(x)?,
        y: l.elem(y)?,
        // A GPU has more processors than there are strips of whole cache lines.
        strip: if l.target == Target::Cpu { 64 } else { 16 },
    };
    let args = l.places(&[x, y]);
    l.launch(sum_middle(&spec), args);
    Ok(())
}

fn matmul(l: &mut Lowering<'_>, trans_a: bool, trans_b: bool) -> Result<(), KernelError> {
    let (a, b, c) = (l.operands[0], l.operands[1], l.results[0]);
    let strides = |v: Value, transposed: bool| {
        let s = &l.layout(v).strides;
        if transposed { (s[1], s[0]) } else { (s[0], s[1]) }
    };
    let (m, n) = (l.shape(c).0[0], l.shape(c).0[1]);
    let k = l.shape(a).0[usize::from(!trans_a)];
    l.uniform_elem(&[a, b])?;
    l.gemm(Gemm {
        size: (m, n, k),
        a: (l.place(a), strides(a, trans_a)),
        b: (l.place(b), strides(b, trans_b)),
        c: (l.place(c), strides(c, false)),
        accumulate: false,
    });
    Ok(())
}

fn norm(l: &mut Lowering<'_>, eps: f64) -> Result<(), KernelError> {
    let (x, w, y) = (l.operands[0], l.operands[1], l.results[0]);
    let d = l.shape(x).last();
    let spec = RmsNormSpec {
        rows: l.shape(x).numel() / d,
        d,
        eps,
        x_stride: d,
        x: l.elem(x)?,
        w: l.elem(w)?,
        y: l.elem(y)?,
        residual: l.operands.len() == 3,
    };
    let args = match (l.operands.get(2), l.results.get(1)) {
        (Some(residual), Some(sum)) => l.places(&[x, *residual, w, y, *sum]),
        _ => l.places(&[x, w, y]),
    };
    l.launch(rms_norm(&spec), args);
    Ok(())
}

fn norm_gradient(l: &mut Lowering<'_>, eps: f64) -> Result<(), KernelError> {
    let (x, w, dy) = (l.operands[0], l.operands[1], l.operands[2]);
    let (dx, dw_partial) = (l.results[0], l.results[1]);
    let d = l.shape(x).last();
    let spec = RmsNormGradSpec {
        rows: l.shape(x).numel() / d,
        d,
        eps,
        blocks: l.shape(dw_partial).0[0],
        x_stride: d,
        x: l.elem(x)?,
        w: l.elem(w)?,
        dy: l.elem(dy)?,
        dx: l.elem(dx)?,
        residual: l.operands.len() == 4,
    };
    let args = l.places(&[&l.operands[..], &[dx, dw_partial]].concat());
    l.launch(rms_norm_grad(&spec), args);
    Ok(())
}

/// Positions of a program that rotates `[batch, seq, heads, dim]`: on a CPU enough to be worth its start, on a GPU few,
/// because each is a wait for memory, and because all multiprocessors want several programs.
fn rope_block(target: Target, dims: &[usize]) -> usize {
    const GPU_PROGRAMS: usize = 4096;
    let (seq, width) = (dims[1], dims[2] * dims[3]);
    let worth = (WORK / width).clamp(1, seq);
    match target {
        Target::Cpu => worth,
        Target::Cuda | Target::Hopper => (dims[0] * seq / GPU_PROGRAMS).clamp(1, worth),
    }
}

fn rotate(l: &mut Lowering<'_>, inverse: bool) -> Result<(), KernelError> {
    let (x, table, y) = (l.operands[0], l.operands[1], l.results[0]);
    let dims = &l.shape(x).0;
    let strides = |v: Value| {
        let s = &l.layout(v).strides;
        [s[0], s[1], s[2]]
    };
    let spec = RopeSpec {
        batch: dims[0],
        seq: dims[1],
        heads: dims[2],
        dim: dims[3],
        x: l.elem(x)?,
        x_strides: strides(x),
        y: l.elem(y)?,
        y_strides: strides(y),
        table_len: l.shape(table).0[0],
        block: rope_block(l.target, dims),
        positions: match l.operands.get(2) {
            None => Positions::FromZero,
            Some(each) if l.shape(*each).rank() == 2 => Positions::OfTokens,
            Some(_) => Positions::FromStart,
        },
        inverse,
    };
    let mut args = l.places(&l.operands);
    args.push(l.place(y));
    l.launch(rope(&spec), args);
    Ok(())
}

fn global_norm(l: &mut Lowering<'_>) -> Result<(), KernelError> {
    let (norm, partials) = (l.results[0], l.place(l.results[1]));
    let mut count = 0;
    for operand in l.operands.clone() {
        let spec = SumOfSquaresSpec { numel: l.shape(operand).numel(), x: l.elem(operand)? };
        let args = vec![l.place(operand), partials.at(count)];
        let numel = spec.numel as u64;
        let cost = Cost { flops: 2 * numel, bytes: numel * l.ty(operand).dtype.bytes() as u64 };
        l.launch_costing(cost, sum_of_squares(&spec), args);
        count += spec.partials();
    }
    let args = vec![partials, l.place(norm)];
    l.launch(norm_finish(&NormFinishSpec { partials: count }), args);
    Ok(())
}
