//! RMS norm, forward and gradient.

use linc_tile::Elem;
use linc_tile::library::norm::{RmsNormGradSpec, RmsNormSpec, rms_norm, rms_norm_grad};

use super::harness::{Data, SENTINEL, assert_close, assert_equal, floats, random, round, run, unit};

const EPS: f64 = 1e-5;

fn inverse_rms(row: &[f64], eps: f64) -> f64 {
    let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
    1.0 / (mean + eps).sqrt()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// Rows of a strided matrix, dense.
fn dense(values: &[f32], rows: usize, d: usize, stride: usize) -> Vec<f32> {
    (0..rows).flat_map(|i| values[i * stride..i * stride + d].to_vec()).collect()
}

fn forward(rows: usize, d: usize, x_stride: usize, elem: Elem, residual: bool) {
    let spec = RmsNormSpec { rows, d, eps: EPS, x_stride, x: elem, w: Elem::F32, y: elem, residual };
    let what = format!("{spec:?}");
    let strided: Vec<f32> =
        random((rows - 1) * x_stride + d, 1).into_iter().map(|x| round(x, elem)).collect();
    let x = dense(&strided, rows, d, x_stride);
    let r: Vec<f32> = random(rows * d, 2).into_iter().map(|x| round(x, elem)).collect();
    let w = random(d, 3);
    let sum: Vec<f32> =
        x.iter().zip(&r).map(|(x, r)| if residual { round(x + r, elem) } else { *x }).collect();
    let mut expected = vec![];
    for row in wide(&sum).chunks(d) {
        let scale = inverse_rms(row, EPS);
        expected.extend(row.iter().zip(&w).map(|(x, w)| x * scale * f64::from(*w)));
    }
    let blank = vec![SENTINEL; rows * d];
    let tolerance = unit(elem, 2e-6);
    if residual {
        let args = vec![
            Data::of(elem, &strided),
            Data::of(elem, &r),
            Data::f32(&w),
            Data::of(elem, &blank),
            Data::of(elem, &blank),
        ];
        let out = run(&rms_norm(&spec), args);
        assert_close(&floats(&out[3]), &expected, 1e-6, tolerance, &what);
        assert_close(&floats(&out[4]), &wide(&sum), 0.0, 0.0, &what);
    } else {
        let args = vec![Data::of(elem, &strided), Data::f32(&w), Data::of(elem, &blank)];
        let out = run(&rms_norm(&spec), args);
        assert_close(&floats(&out[2]), &expected, 1e-6, tolerance, &what);
    }
}

#[test]
fn forward_of_odd_sizes() {
    for (rows, d) in [(1, 1), (3, 63), (65, 65), (63, 257), (257, 3), (2, 5001)] {
        for elem in [Elem::F32, Elem::Bf16, Elem::F16] {
            forward(rows, d, d, elem, false);
            forward(rows, d, d + 5, elem, false);
            forward(rows, d, d, elem, true);
        }
    }
}

/// `dx` and the partial sums of `dw`.
fn run_gradient(
    spec: &RmsNormGradSpec,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    dres: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mut args = vec![Data::of(spec.x, x), Data::f32(w), Data::of(spec.dy, dy)];
    if spec.residual {
        args.push(Data::of(spec.dy, dres));
    }
    args.push(Data::of(spec.dx, &vec![SENTINEL; spec.rows * spec.d]));
    args.push(Data::f32(&vec![SENTINEL; spec.blocks * spec.d]));
    let out = run(&rms_norm_grad(spec), args);
    let first = out.len() - 2;
    (floats(&out[first]), floats(&out[first + 1]))
}

fn gradient(rows: usize, d: usize, blocks: usize, elem: Elem, residual: bool, x_stride: usize) {
    let spec = RmsNormGradSpec {
        rows,
        d,
        eps: EPS,
        blocks,
        x_stride,
        x: elem,
        w: Elem::F32,
        dy: elem,
        dx: elem,
        residual,
    };
    let what = format!("{spec:?}");
    let strided: Vec<f32> =
        random((rows - 1) * x_stride + d, 1).into_iter().map(|x| round(x, elem)).collect();
    let x = wide(&dense(&strided, rows, d, x_stride));
    let dy: Vec<f32> = random(rows * d, 2).into_iter().map(|x| round(x, elem)).collect();
    let dres: Vec<f32> = random(rows * d, 4).into_iter().map(|x| round(x, elem)).collect();
    let w = random(d, 3);
    let (mut dx, mut dw, mut largest) = (vec![0.0; rows * d], vec![0.0; blocks * d], 0f64);
    for i in 0..rows {
        let row = &x[i * d..(i + 1) * d];
        let scale = inverse_rms(row, EPS);
        let g: Vec<f64> = (0..d).map(|j| f64::from(dy[i * d + j]) * f64::from(w[j])).collect();
        let along = (0..d).map(|j| g[j] * row[j] * scale).sum::<f64>() / d as f64;
        let block = i / rows.div_ceil(blocks);
        for j in 0..d {
            let gradient = scale * (g[j] - row[j] * scale * along);
            largest = gradient.abs().max(largest);
            let extra = if residual { f64::from(dres[i * d + j]) } else { 0.0 };
            dx[i * d + j] = gradient + extra;
            dw[block * d + j] += f64::from(dy[i * d + j]) * row[j] * scale;
        }
    }
    let (found_dx, found_dw) = run_gradient(&spec, &strided, &w, &dy, &dres);
    let tolerance = unit(elem, 1e-5);
    // A narrow gradient is rounded before the rest is added.
    let absolute = if residual && elem != Elem::F32 { tolerance * largest } else { 1e-5 };
    assert_close(&found_dx, &dx, absolute, tolerance, &what);
    assert_close(&found_dw, &dw, 1e-5 * (rows as f64).sqrt(), 1e-5, &what);
}

#[test]
fn gradient_of_odd_sizes() {
    for (rows, d, blocks) in [(1, 1, 1), (3, 63, 64), (65, 65, 64), (257, 63, 8), (300, 3, 7), (3, 5001, 2)] {
        for elem in [Elem::F32, Elem::Bf16, Elem::F16] {
            gradient(rows, d, blocks, elem, false, d);
            gradient(rows, d, blocks, elem, true, d);
        }
        gradient(rows, d, blocks, Elem::F32, false, d + 3);
    }
}

/// What moves into the kernel changes no bit: the gradient is rounded before `dres` is added.
#[test]
fn a_residual_gradient_is_added_as_if_afterwards() {
    let (rows, d) = (33, 65);
    for elem in [Elem::F32, Elem::Bf16, Elem::F16] {
        let numbers =
            |seed| -> Vec<f32> { random(rows * d, seed).into_iter().map(|x| round(x, elem)).collect() };
        let (x, dy, dres, w) = (numbers(1), numbers(2), numbers(4), random(d, 3));
        let plain = RmsNormGradSpec {
            rows,
            d,
            eps: EPS,
            blocks: 4,
            x_stride: d,
            x: elem,
            w: Elem::F32,
            dy: elem,
            dx: elem,
            residual: false,
        };
        let (dx, _) = run_gradient(&plain, &x, &w, &dy, &dres);
        let expected: Vec<f32> = dx.iter().zip(&dres).map(|(dx, dres)| round(dx + dres, elem)).collect();
        let fused = RmsNormGradSpec { residual: true, ..plain };
        let (found, _) = run_gradient(&fused, &x, &w, &dy, &dres);
        assert_equal(&found, &expected, &format!("{elem:?}"));
    }
}

/// The reference above is itself the derivative of the forward: central differences of Σ y·dy.
#[test]
fn gradient_is_the_derivative_of_the_forward() {
    let (rows, d) = (2, 7);
    let (x, w, dy) = (wide(&random(rows * d, 1)), wide(&random(d, 3)), wide(&random(rows * d, 2)));
    let loss = |x: &[f64], w: &[f64]| -> f64 {
        let row = |i: usize| {
            let scale = inverse_rms(&x[i * d..(i + 1) * d], EPS);
            (0..d).map(|j| x[i * d + j] * scale * w[j] * dy[i * d + j]).sum::<f64>()
        };
        (0..rows).map(row).sum()
    };
    let step = 1e-5;
    let derivative = |i: usize, of_w: bool| {
        let shifted = |by: f64| {
            let (mut x, mut w) = (x.clone(), w.clone());
            if of_w {
                w[i] += by
            } else {
                x[i] += by
            }
            loss(&x, &w)
        };
        (shifted(step) - shifted(-step)) / (2.0 * step)
    };
    let narrow = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let spec = RmsNormGradSpec {
        rows,
        d,
        eps: EPS,
        blocks: 1,
        x_stride: d,
        x: Elem::F32,
        w: Elem::F32,
        dy: Elem::F32,
        dx: Elem::F32,
        residual: false,
    };
    let args = vec![
        Data::f32(&narrow(&x)),
        Data::f32(&narrow(&w)),
        Data::f32(&narrow(&dy)),
        Data::f32(&vec![SENTINEL; rows * d]),
        Data::f32(&vec![SENTINEL; d]),
    ];
    let out = run(&rms_norm_grad(&spec), args);
    let dx: Vec<f64> = (0..rows * d).map(|i| derivative(i, false)).collect();
    let dw: Vec<f64> = (0..d).map(|i| derivative(i, true)).collect();
    assert_close(&floats(&out[3]), &dx, 1e-6, 1e-5, "dx");
    assert_close(&floats(&out[4]), &dw, 1e-6, 1e-5, "dw");
}

/// Rows of zeros, which also pad a tile, stay zero without an epsilon.
#[test]
fn zero_rows_without_epsilon() {
    let spec = RmsNormGradSpec {
        rows: 3,
        d: 65,
        eps: 0.0,
        blocks: 1,
        x_stride: 65,
        x: Elem::F32,
        w: Elem::F32,
        dy: Elem::F32,
        dx: Elem::F32,
        residual: false,
    };
    let zeros = vec![0.0; 3 * 65];
    let args = vec![
        Data::f32(&zeros),
        Data::f32(&random(65, 1)),
        Data::f32(&zeros),
        Data::f32(&zeros),
        Data::f32(&[SENTINEL; 65]),
    ];
    let out = run(&rms_norm_grad(&spec), args);
    assert_close(&floats(&out[3]), &vec![0.0; 3 * 65], 0.0, 0.0, "dx");
    assert_close(&floats(&out[4]), &[0.0; 65], 0.0, 0.0, "dw");
}
