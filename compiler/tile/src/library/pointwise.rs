//! Pointwise regions: a straight-line program evaluated for every element of a matrix.
//!
//! Operands that are contiguous like the result, or one number for all of it, run over flat blocks. Everything else
//! runs over matrix tiles, where a row or a column vector is loaded once per program.

use super::{bound, grid_indices, hash, tag};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Kernel, Mode, ParamId, Unary, ValueId};

/// An operand: element `(i, j)` is at `i*row_stride + j*col_stride`; stride 0 repeats.
#[derive(Clone, PartialEq, Debug)]
pub struct PointInput {
    /// Element type in memory; read as f32.
    pub elem: Elem,
    /// Distance of rows, in elements.
    pub row_stride: usize,
    /// Distance of columns, in elements.
    pub col_stride: usize,
}

/// A result: element `(i, j)` is at `i*row_stride + j`.
#[derive(Clone, PartialEq, Debug)]
pub struct PointOutput {
    /// The step whose value is stored.
    pub step: usize,
    /// Element type in memory.
    pub elem: Elem,
    /// Distance of rows, in elements; at least the number of columns.
    pub row_stride: usize,
}

/// Functions of one operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PointUnary {
    /// -x
    Neg,
    /// |x|
    Abs,
    /// e^x
    Exp,
    /// natural logarithm
    Log,
    /// √x
    Sqrt,
    /// 1/√x
    Rsqrt,
    /// 1/x
    Recip,
    /// 1/(1+e^-x)
    Sigmoid,
    /// x·sigmoid(x)
    Silu,
    /// hyperbolic tangent
    Tanh,
    /// max(x, 0)
    Relu,
}

/// Functions of two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PointBinary {
    /// x + y
    Add,
    /// x - y
    Sub,
    /// x · y
    Mul,
    /// x / y
    Div,
    /// larger of x and y
    Max,
    /// smaller of x and y
    Min,
    /// 1.0 where x > y, else 0.0
    Greater,
    /// x where y is not 0, else 0
    Mask,
}

/// One step; operands are numbers of earlier steps.
#[derive(Clone, PartialEq, Debug)]
pub enum PointStep {
    /// An operand of the kernel.
    Input(usize),
    /// A constant.
    Const(f64),
    /// A function of one step.
    Unary(PointUnary, usize),
    /// A function of two steps.
    Binary(PointBinary, usize, usize),
    /// Rounding to bf16 and back.
    RoundBf16(usize),
    /// Rounding to f16 and back.
    RoundF16(usize),
}

/// A pointwise program over `[rows, cols]`.
#[derive(Clone, PartialEq, Debug)]
pub struct PointwiseSpec {
    /// All dimensions but the last, as one.
    pub rows: usize,
    /// The last dimension.
    pub cols: usize,
    /// What is read from memory, each with its own strides.
    pub inputs: Vec<PointInput>,
    /// Each step reads inputs and the steps before it.
    pub steps: Vec<PointStep>,
    /// Results, dense along columns.
    pub outputs: Vec<PointOutput>,
    /// Elements per program; [`super::TILE`] unless measured better.
    pub block: usize,
}

/// How an operand fills a tile.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    /// One number.
    Scalar,
    /// One number per row.
    PerRow,
    /// One number per column.
    PerCol,
    /// All different.
    Full,
}

fn spread_of(spec: &PointwiseSpec, input: &PointInput) -> Spread {
    let varies_by_row = input.row_stride != 0 && spec.rows > 1;
    let varies_by_col = input.col_stride != 0 && spec.cols > 1;
    match (varies_by_row, varies_by_col) {
        (false, false) => Spread::Scalar,
        (true, false) => Spread::PerRow,
        (false, true) => Spread::PerCol,
        (true, true) => Spread::Full,
    }
}

/// True if elements lie one after the other in row-major order.
fn dense(spec: &PointwiseSpec, row_stride: usize, col_stride: usize) -> bool {
    (spec.rows == 1 || row_stride == spec.cols) && (spec.cols == 1 || col_stride == 1)
}

/// Parameters: the inputs in order, then the outputs in order.
///
/// An output may be the same memory as a dense input of the same element type: each element is read before it is
/// written, by the same program.
pub fn pointwise(spec: &PointwiseSpec) -> Kernel {
    let inputs_flat = spec
        .inputs
        .iter()
        .all(|i| spread_of(spec, i) == Spread::Scalar || dense(spec, i.row_stride, i.col_stride));
    let flat = inputs_flat && spec.outputs.iter().all(|o| dense(spec, o.row_stride, 1));
    if flat { flat_program(spec) } else { matrix_program(spec) }
}

fn name(spec: &PointwiseSpec) -> String {
    format!("pointwise_{}x{}_{:016x}", spec.rows, spec.cols, hash(&format!("{spec:?}")))
}

/// Declares the parameters: inputs, outputs.
fn params(b: &mut Builder, spec: &PointwiseSpec) -> (Vec<ParamId>, Vec<ParamId>) {
    let inputs = spec.inputs.iter().enumerate();
    let inputs = inputs.map(|(i, x)| b.param(&format!("x{i}_{}", tag(x.elem)), x.elem, Mode::Read)).collect();
    let outputs = spec.outputs.iter().enumerate();
    let outputs =
        outputs.map(|(i, y)| b.param(&format!("y{i}_{}", tag(y.elem)), y.elem, Mode::Write)).collect();
    (inputs, outputs)
}

fn flat_program(spec: &PointwiseSpec) -> Kernel {
    let numel = spec.rows * spec.cols;
    let block = spec.block.min(numel);
    let mut b = Builder::new(name(spec), [numel.div_ceil(block), 1, 1]);
    let (inputs, outputs) = params(&mut b, spec);
    let shape = [block];
    let start = grid_indices(&mut b, &[numel.div_ceil(block)])[0];
    let start = b.scale_index(start, block);
    let axes = [(1, bound(&mut b, numel, start, block))];
    let mut tiles = Vec::with_capacity(inputs.len());
    for (input, param) in spec.inputs.iter().zip(&inputs) {
        tiles.push(if spread_of(spec, input) == Spread::Scalar {
            let zero = b.index(0);
            let value = b.load_f32(*param, zero, &[], &[]);
            b.splat(value, &shape)
        } else {
            b.load_f32(*param, start, &shape, &axes)
        });
    }
    let values = evaluate(&mut b, spec, &tiles, &shape);
    for (output, param) in spec.outputs.iter().zip(&outputs) {
        b.store(*param, start, values[output.step], &axes);
    }
    b.finish()
}

fn matrix_program(spec: &PointwiseSpec) -> Kernel {
    let (rows, cols) = (spec.rows, spec.cols);
    let tile_cols = cols.min(spec.block);
    let tile_rows = (spec.block / tile_cols).clamp(1, rows);
    let counts = [rows.div_ceil(tile_rows), cols.div_ceil(tile_cols)];
    let mut b = Builder::new(name(spec), [counts[0] * counts[1], 1, 1]);
    let (inputs, outputs) = params(&mut b, spec);
    let shape = [tile_rows, tile_cols];
    let at = grid_indices(&mut b, &counts);
    let row = b.scale_index(at[0], tile_rows);
    let col = b.scale_index(at[1], tile_cols);
    let row_bound = bound(&mut b, rows, row, tile_rows);
    let col_bound = bound(&mut b, cols, col, tile_cols);
    let mut tiles = Vec::with_capacity(inputs.len());
    for (input, param) in spec.inputs.iter().zip(&inputs) {
        let (row_stride, col_stride) = (input.row_stride, input.col_stride);
        tiles.push(match spread_of(spec, input) {
            Spread::Scalar => {
                let zero = b.index(0);
                let value = b.load_f32(*param, zero, &[], &[]);
                b.splat(value, &shape)
            }
            Spread::PerRow => {
                let offset = b.scale_index(row, row_stride);
                let vector = b.load_f32(*param, offset, &shape[..1], &[(row_stride, row_bound)]);
                b.expand_cols(vector, tile_cols)
            }
            Spread::PerCol => {
                let offset = b.scale_index(col, col_stride);
                let vector = b.load_f32(*param, offset, &shape[1..], &[(col_stride, col_bound)]);
                b.expand_rows(vector, tile_rows)
            }
            Spread::Full => {
                let (across, down) = (b.scale_index(col, col_stride), b.scale_index(row, row_stride));
                let offset = b.add(down, across);
                b.load_f32(*param, offset, &shape, &[(row_stride, row_bound), (col_stride, col_bound)])
            }
        });
    }
    let values = evaluate(&mut b, spec, &tiles, &shape);
    for (output, param) in spec.outputs.iter().zip(&outputs) {
        let down = b.scale_index(row, output.row_stride);
        let offset = b.add(down, col);
        b.store(*param, offset, values[output.step], &[(output.row_stride, row_bound), (1, col_bound)]);
    }
    b.finish()
}

/// Values of all steps.
fn evaluate(b: &mut Builder, spec: &PointwiseSpec, tiles: &[ValueId], shape: &[usize]) -> Vec<ValueId> {
    let mut values = Vec::with_capacity(spec.steps.len());
    for step in &spec.steps {
        let value = match step {
            PointStep::Input(i) => tiles[*i],
            PointStep::Const(value) => b.full(*value, shape),
            PointStep::Unary(op, x) => unary(b, *op, values[*x], shape),
            PointStep::Binary(op, x, y) => binary(b, *op, values[*x], values[*y], shape),
            PointStep::RoundBf16(x) => round(b, Elem::Bf16, values[*x]),
            PointStep::RoundF16(x) => round(b, Elem::F16, values[*x]),
        };
        values.push(value);
    }
    values
}

fn round(b: &mut Builder, elem: Elem, x: ValueId) -> ValueId {
    let rounded = b.cast(x, elem);
    b.cast(rounded, Elem::F32)
}

fn unary(b: &mut Builder, op: PointUnary, x: ValueId, shape: &[usize]) -> ValueId {
    match op {
        PointUnary::Neg => b.unary(Unary::Neg, x),
        PointUnary::Abs => b.unary(Unary::Abs, x),
        PointUnary::Exp => b.unary(Unary::Exp, x),
        PointUnary::Log => b.unary(Unary::Log, x),
        PointUnary::Sqrt => b.unary(Unary::Sqrt, x),
        PointUnary::Rsqrt => b.unary(Unary::Rsqrt, x),
        PointUnary::Recip => b.unary(Unary::Recip, x),
        PointUnary::Sigmoid => b.unary(Unary::Sigmoid, x),
        PointUnary::Tanh => b.unary(Unary::Tanh, x),
        PointUnary::Silu => {
            let gate = b.unary(Unary::Sigmoid, x);
            b.mul(x, gate)
        }
        PointUnary::Relu => {
            let zero = b.full(0.0, shape);
            b.max(x, zero)
        }
    }
}

fn binary(b: &mut Builder, op: PointBinary, x: ValueId, y: ValueId, shape: &[usize]) -> ValueId {
    match op {
        PointBinary::Add => b.binary(Binary::Add, x, y),
        PointBinary::Sub => b.binary(Binary::Sub, x, y),
        PointBinary::Mul => b.binary(Binary::Mul, x, y),
        PointBinary::Div => b.binary(Binary::Div, x, y),
        PointBinary::Max => b.binary(Binary::Max, x, y),
        PointBinary::Min => b.binary(Binary::Min, x, y),
        PointBinary::Greater => {
            let greater = b.compare(Compare::Gt, x, y);
            let (one, zero) = (b.full(1.0, shape), b.full(0.0, shape));
            b.select(greater, one, zero)
        }
        PointBinary::Mask => {
            let zero = b.full(0.0, shape);
            let kept = b.compare(Compare::Ne, y, zero);
            b.select(kept, x, zero)
        }
    }
}
