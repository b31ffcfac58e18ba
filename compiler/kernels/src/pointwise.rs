//! Pointwise nodes, fused or single: one sweep over rows and columns that suits all operands and results.

use linc_ir::layout::{as_matrix, broadcast_strides};
use linc_ir::{BinaryOp, DType, Op, PointOp, Pointwise, UnaryOp};
use linc_tile::library::TILE;
use linc_tile::library::pointwise::{
    PointBinary, PointInput, PointOutput, PointStep, PointUnary, PointwiseSpec, pointwise,
};

use crate::KernelError;
use crate::context::Lowering;

/// Lowers a fused region, or a single pointwise operation as a region of one step.
pub(crate) fn lower(l: &mut Lowering<'_>) -> Result<(), KernelError> {
    let region = region_of(l)?;
    let mut strides: Vec<Vec<usize>> =
        l.operands.iter().map(|v| broadcast_strides(l.layout(*v), l.shape(*v), &region.shape)).collect();
    strides.extend(l.results.iter().map(|v| l.layout(*v).strides.clone()));
    let Some((rows, cols, strides)) = as_matrix(&region.shape, &strides) else {
        return l.fail("no split into rows and columns suits all operands");
    };
    let (inputs, outputs) = strides.split_at(l.operands.len());
    let mut spec = PointwiseSpec { rows, cols, inputs: vec![], steps: vec![], outputs: vec![], block: TILE };
    for (value, (row_stride, col_stride)) in l.operands.iter().zip(inputs) {
        spec.inputs.push(PointInput {
            elem: l.elem(*value)?,
            row_stride: *row_stride,
            col_stride: *col_stride,
        });
    }
    // The kernel's step that holds the value of each step of the region.
    let mut at: Vec<usize> = vec![];
    for step in &region.steps {
        let step = match step {
            PointOp::Input(i) => PointStep::Input(*i),
            PointOp::Const(value) => PointStep::Const(*value),
            PointOp::Unary(f, a) => PointStep::Unary(unary(*f), at[*a]),
            PointOp::Binary(f, a, b) => PointStep::Binary(binary(*f), at[*a], at[*b]),
            PointOp::Cast(DType::Bf16, a) => PointStep::RoundBf16(at[*a]),
            PointOp::Cast(DType::F16, a) => PointStep::RoundF16(at[*a]),
            // Arithmetic is f32 anyway: a widening cast is the value itself.
            PointOp::Cast(DType::F32, a) => {
                at.push(at[*a]);
                continue;
            }
            PointOp::Cast(other, _) => return l.fail(format!("a cast to {other} within a pointwise region")),
        };
        spec.steps.push(step);
        at.push(spec.steps.len() - 1);
    }
    for ((value, (row_stride, col_stride)), (step, _)) in l.results.iter().zip(outputs).zip(&region.outputs) {
        if cols > 1 && *col_stride != 1 {
            return l.fail("a result whose columns are not adjacent");
        }
        let row_stride = if rows == 1 { cols } else { *row_stride };
        spec.outputs.push(PointOutput { step: at[*step], elem: l.elem(*value)?, row_stride });
    }
    let mut args = l.places(&l.operands);
    args.extend(l.places(&l.results));
    l.launch(pointwise(&spec), args);
    Ok(())
}

fn region_of(l: &Lowering<'_>) -> Result<Pointwise, KernelError> {
    let ty = l.ty(l.results[0]);
    if let Op::Fused(region) = l.op() {
        return Ok(region.clone());
    }
    let inputs: Vec<usize> = (0..l.operands.len()).collect();
    let Some(step) = l.op().step(&inputs) else {
        return l.fail(format!("{} is not pointwise", l.op().name()));
    };
    let steps = inputs.iter().map(|input| PointOp::Input(*input)).chain([step]).collect();
    Ok(Pointwise { shape: ty.shape.clone(), steps, outputs: vec![(inputs.len(), ty.dtype)] })
}

fn unary(f: UnaryOp) -> PointUnary {
    match f {
        UnaryOp::Neg => PointUnary::Neg,
        UnaryOp::Exp => PointUnary::Exp,
        UnaryOp::Log => PointUnary::Log,
        UnaryOp::Sqrt => PointUnary::Sqrt,
        UnaryOp::Rsqrt => PointUnary::Rsqrt,
        UnaryOp::Recip => PointUnary::Recip,
        UnaryOp::Sigmoid => PointUnary::Sigmoid,
        UnaryOp::Silu => PointUnary::Silu,
        UnaryOp::Tanh => PointUnary::Tanh,
        UnaryOp::Relu => PointUnary::Relu,
    }
}

fn binary(f: BinaryOp) -> PointBinary {
    match f {
        BinaryOp::Add => PointBinary::Add,
        BinaryOp::Sub => PointBinary::Sub,
        BinaryOp::Mul => PointBinary::Mul,
        BinaryOp::Div => PointBinary::Div,
        BinaryOp::Max => PointBinary::Max,
        BinaryOp::Min => PointBinary::Min,
        BinaryOp::Greater => PointBinary::Greater,
        BinaryOp::Mask => PointBinary::Mask,
    }
}
