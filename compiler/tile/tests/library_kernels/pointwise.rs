//! Pointwise programs: every step kind, every way an operand can be spread.

use linc_tile::Elem;
use linc_tile::library::TILE;
use linc_tile::library::pointwise::{
    PointBinary, PointInput, PointOutput, PointStep, PointUnary, PointwiseSpec, pointwise,
};

use super::harness::{Data, SENTINEL, assert_close, floats, random, round, run, unit};

/// Evaluates one element in f64, with the roundings that the program asks for.
fn element(spec: &PointwiseSpec, inputs: &[Vec<f32>], i: usize, j: usize) -> Vec<f64> {
    let mut values: Vec<f64> = vec![];
    for step in &spec.steps {
        let value = match step {
            PointStep::Input(n) => {
                let input = &spec.inputs[*n];
                f64::from(inputs[*n][i * input.row_stride + j * input.col_stride])
            }
            PointStep::Const(value) => *value,
            PointStep::RoundF16(x) => f64::from(round(values[*x] as f32, Elem::F16)),
            PointStep::RoundBf16(x) => f64::from(round(values[*x] as f32, Elem::Bf16)),
            PointStep::Unary(op, x) => unary(*op, values[*x]),
            PointStep::Binary(op, x, y) => binary(*op, values[*x], values[*y]),
        };
        values.push(value);
    }
    values
}

fn unary(op: PointUnary, x: f64) -> f64 {
    match op {
        PointUnary::Neg => -x,
        PointUnary::Abs => x.abs(),
        PointUnary::Exp => x.exp(),
        PointUnary::Log => x.ln(),
        PointUnary::Sqrt => x.sqrt(),
        PointUnary::Rsqrt => 1.0 / x.sqrt(),
        PointUnary::Recip => 1.0 / x,
        PointUnary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        PointUnary::Silu => x / (1.0 + (-x).exp()),
        PointUnary::Tanh => x.tanh(),
        PointUnary::Relu => x.max(0.0),
    }
}

fn binary(op: PointBinary, x: f64, y: f64) -> f64 {
    match op {
        PointBinary::Add => x + y,
        PointBinary::Sub => x - y,
        PointBinary::Mul => x * y,
        PointBinary::Div => x / y,
        PointBinary::Max => x.max(y),
        PointBinary::Min => x.min(y),
        PointBinary::Greater => f64::from(u8::from(x > y)),
        PointBinary::Mask if y == 0.0 => 0.0,
        PointBinary::Mask => x,
    }
}

/// Runs a program and compares all outputs; what lies between strided rows must stay untouched.
fn check(spec: &PointwiseSpec, inputs: &[Vec<f32>]) {
    let what = format!("{spec:?}");
    let mut args: Vec<Data> =
        spec.inputs.iter().zip(inputs).map(|(input, values)| Data::of(input.elem, values)).collect();
    let mut expected = vec![];
    for output in &spec.outputs {
        let len = (spec.rows - 1) * output.row_stride + spec.cols;
        args.push(Data::of(output.elem, &vec![SENTINEL; len]));
        let mut values = vec![f64::from(SENTINEL); len];
        for i in 0..spec.rows {
            for j in 0..spec.cols {
                values[i * output.row_stride + j] = element(spec, inputs, i, j)[output.step];
            }
        }
        expected.push(values);
    }
    let out = run(&pointwise(spec), args);
    for (i, values) in expected.iter().enumerate() {
        let tolerance = unit(spec.outputs[i].elem, 5e-6);
        assert_close(&floats(&out[spec.inputs.len() + i]), values, 1e-6, tolerance, &what);
    }
}

/// Random operands as large as their strides need.
fn operands(spec: &PointwiseSpec) -> Vec<Vec<f32>> {
    let size = |x: &PointInput| (spec.rows - 1) * x.row_stride + (spec.cols - 1) * x.col_stride + 1;
    let values = |(i, x): (usize, &PointInput)| {
        random(size(x), i as u64 + 1).into_iter().map(|v| round(v, x.elem)).collect()
    };
    spec.inputs.iter().enumerate().map(values).collect()
}

fn input(elem: Elem, row_stride: usize, col_stride: usize) -> PointInput {
    PointInput { elem, row_stride, col_stride }
}

const SIZES: [(usize, usize); 9] =
    [(1, 1), (1, 3), (3, 1), (63, 65), (65, 63), (257, 3), (3, 257), (2, 5000), (70, 129)];

#[test]
fn gated_unit_over_every_spread() {
    for (rows, cols) in SIZES {
        let dense = input(Elem::F32, cols, 1);
        let others = [
            dense.clone(),
            input(Elem::Bf16, cols, 1),
            input(Elem::F32, 0, 0),
            input(Elem::F32, 1, 0),
            input(Elem::F32, 0, 1),
            input(Elem::Bf16, 0, 2),
            input(Elem::F32, 3, 0),
            input(Elem::F32, cols + 7, 1),
            input(Elem::F32, 1, rows),
        ];
        for other in others {
            for output_stride in [cols, cols + 2] {
                let spec = PointwiseSpec {
                    rows,
                    cols,
                    inputs: vec![dense.clone(), other.clone()],
                    steps: vec![
                        PointStep::Input(0),
                        PointStep::Input(1),
                        PointStep::Unary(PointUnary::Silu, 0),
                        PointStep::Binary(PointBinary::Mul, 2, 1),
                        PointStep::Const(0.5),
                        PointStep::Binary(PointBinary::Add, 3, 4),
                    ],
                    outputs: vec![
                        PointOutput { step: 5, elem: Elem::F32, row_stride: output_stride },
                        PointOutput { step: 2, elem: Elem::Bf16, row_stride: cols },
                    ],
                    block: TILE,
                };
                check(&spec, &operands(&spec));
            }
        }
    }
}

#[test]
fn every_function() {
    let unaries = [
        PointUnary::Neg,
        PointUnary::Abs,
        PointUnary::Exp,
        PointUnary::Log,
        PointUnary::Sqrt,
        PointUnary::Rsqrt,
        PointUnary::Recip,
        PointUnary::Sigmoid,
        PointUnary::Silu,
        PointUnary::Tanh,
        PointUnary::Relu,
    ];
    let binaries = [
        PointBinary::Add,
        PointBinary::Sub,
        PointBinary::Mul,
        PointBinary::Div,
        PointBinary::Max,
        PointBinary::Min,
        PointBinary::Greater,
        PointBinary::Mask,
    ];
    let mut steps = vec![
        PointStep::Input(0),
        PointStep::Input(1),
        // Away from zero, for the functions that are steep there.
        PointStep::Unary(PointUnary::Abs, 0),
        PointStep::Const(0.25),
        PointStep::Binary(PointBinary::Add, 2, 3),
        PointStep::RoundBf16(1),
    ];
    for op in unaries {
        let positive =
            matches!(op, PointUnary::Log | PointUnary::Sqrt | PointUnary::Rsqrt | PointUnary::Recip);
        steps.push(PointStep::Unary(op, if positive { 4 } else { 1 }));
    }
    for op in binaries {
        steps.push(PointStep::Binary(op, 1, if op == PointBinary::Div { 4 } else { 0 }));
    }
    let outputs =
        (5..steps.len()).map(|step| PointOutput { step, elem: Elem::F32, row_stride: 65 }).collect();
    let dense = input(Elem::F32, 65, 1);
    let spec =
        PointwiseSpec { rows: 3, cols: 65, inputs: vec![dense.clone(), dense], steps, outputs, block: 64 };
    let mut inputs = operands(&spec);
    // Equal operands, where max, min and the comparison tie.
    inputs[1][7] = inputs[0][7];
    check(&spec, &inputs);
}

#[test]
fn blocks_of_any_size() {
    for block in [1, 16, 63, 4096] {
        for (rows, cols, stride) in [(5, 63, 63), (5, 63, 64), (1, 257, 257)] {
            let spec = PointwiseSpec {
                rows,
                cols,
                inputs: vec![input(Elem::F32, stride, 1)],
                steps: vec![PointStep::Input(0), PointStep::Unary(PointUnary::Neg, 0)],
                outputs: vec![PointOutput { step: 1, elem: Elem::F32, row_stride: cols }],
                block,
            };
            check(&spec, &operands(&spec));
        }
    }
}
