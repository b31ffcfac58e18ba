//! Forward operations of the interpreter against values worked out by hand or by an independent formula.

use crate::common::{Numbers, close, eval1};
use linc_ir::UpdateOp;
use linc_ir::interp::{Bindings, Real, Tensor, eval, rope_table, run, run_all};
use linc_ir::{
    AdamSpec, AdamWSpec, BinaryOp, DType, IrError, NORM_BLOCK, Op, PointOp, Pointwise, RopeScaling, Shape,
    SoftmaxOp, TableKind, TensorType, UnaryOp, Value, parse,
};

fn vector(x: &[f64]) -> Tensor<f64> {
    Tensor::float([x.len()], x.to_vec())
}

fn matrix(rows: usize, x: &[f64]) -> Tensor<f64> {
    Tensor::float([rows, x.len() / rows], x.to_vec())
}

#[test]
fn unary() {
    let x = vector(&[-2.0, 0.0, 0.25]);
    let expected: [(UnaryOp, [f64; 3]); 10] = [
        (UnaryOp::Neg, [2.0, 0.0, -0.25]),
        (UnaryOp::Exp, [0.1353352832366127, 1.0, 1.2840254166877414]),
        (UnaryOp::Log, [f64::NAN, f64::NEG_INFINITY, -1.3862943611198906]),
        (UnaryOp::Sqrt, [f64::NAN, 0.0, 0.5]),
        (UnaryOp::Rsqrt, [f64::NAN, f64::INFINITY, 2.0]),
        (UnaryOp::Recip, [-0.5, f64::INFINITY, 4.0]),
        (UnaryOp::Sigmoid, [0.11920292202211755, 0.5, 0.5621765008857981]),
        (UnaryOp::Silu, [-0.2384058440442351, 0.0, 0.14054412522144952]),
        (UnaryOp::Tanh, [-0.9640275800758169, 0.0, 0.24491866240370913]),
        (UnaryOp::Relu, [0.0, 0.0, 0.25]),
    ];
    for (op, expected) in expected {
        for (found, expected) in eval1(&Op::Unary(op), &[&x]).doubles().into_iter().zip(expected) {
            let same = found == expected || (found.is_nan() && expected.is_nan());
            assert!(same || (found - expected).abs() < 1e-15, "{}: {found} {expected}", op.name());
        }
    }
}

#[test]
fn binary() {
    let (x, y) = (vector(&[1.0, 2.0, -3.0]), vector(&[4.0, 2.0, -5.0]));
    let (i, j) = (Tensor::int([3], vec![1, 2, -3]), Tensor::int([3], vec![4, 2, -5]));
    let expected: [(BinaryOp, [f64; 3]); 8] = [
        (BinaryOp::Add, [5.0, 4.0, -8.0]),
        (BinaryOp::Sub, [-3.0, 0.0, 2.0]),
        (BinaryOp::Mul, [4.0, 4.0, 15.0]),
        (BinaryOp::Div, [0.25, 1.0, 0.6]),
        (BinaryOp::Max, [4.0, 2.0, -3.0]),
        (BinaryOp::Min, [1.0, 2.0, -5.0]),
        (BinaryOp::Greater, [0.0, 0.0, 1.0]),
        (BinaryOp::Mask, [1.0, 2.0, -3.0]),
    ];
    for (op, expected) in expected {
        assert_eq!(eval1(&Op::Binary(op), &[&x, &y]).doubles(), expected, "{}", op.name());
        if op != BinaryOp::Div {
            assert_eq!(eval1(&Op::Binary(op), &[&i, &j]).doubles(), expected, "{}", op.name());
        }
    }
    assert!(matches!(eval(&Op::Binary(BinaryOp::Div), &[&i, &j]), Err(IrError::Type { .. })));
}

#[test]
fn casts_round_to_bf16_ties_to_even_and_truncate_to_i32() {
    let x = vector(&[1.0, 1.00390625, 1.01171875, 1.005, -3.7, 3e38, 1e-42]);
    let found = eval1(&Op::Cast { dtype: DType::Bf16 }, &[&x]);
    let f32_then_bf16: Vec<f64> = x.doubles().iter().map(|x| f64::from((*x as f32).round_bf16())).collect();
    assert_eq!(found.doubles(), f32_then_bf16);
    assert_eq!(found.doubles()[..5], [1.0, 1.0, 1.015625, 1.0078125, -3.703125]);
    assert_eq!(eval1(&Op::Cast { dtype: DType::I32 }, &[&x]).doubles()[..5], [1.0, 1.0, 1.0, 1.0, -3.0]);
    // Just above the tie 1 + 2^-8, by less than f32 can tell: rounds up, not to even.
    assert_eq!((1.0 + 2f64.powi(-8) + 2f64.powi(-40)).round_bf16(), 1.0078125);
    assert_eq!((1.0 + 3.0 * 2f64.powi(-8) - 2f64.powi(-40)).round_bf16(), 1.0078125);
    assert_eq!(f64::MAX.round_bf16(), f64::INFINITY);
    assert!(f64::NAN.round_bf16().is_nan());
    let ids = Tensor::<f64>::int([2], vec![3, -1]);
    assert_eq!(eval1(&Op::Cast { dtype: DType::F32 }, &[&ids]).floats(), Some(&[3.0, -1.0][..]));
}

#[test]
fn casts_round_to_f16_ties_to_even_with_subnormals_and_overflow() {
    let tiny = 2f64.powi(-24);
    let exact = [
        (1.0 + 2f64.powi(-11), 1.0),
        (1.0 + 3.0 * 2f64.powi(-11), 1.0 + 2f64.powi(-9)),
        // Just beside a tie, by less than f32 can tell.
        (1.0 + 2f64.powi(-11) + 2f64.powi(-40), 1.0 + 2f64.powi(-10)),
        (1.0 + 3.0 * 2f64.powi(-11) - 2f64.powi(-40), 1.0 + 2f64.powi(-10)),
        (65519.9, 65504.0),
        (65520.0, f64::INFINITY),
        (-1e300, f64::NEG_INFINITY),
        // Subnormal numbers are multiples of 2^-24.
        (2f64.powi(-14) - 0.25 * tiny, 2f64.powi(-14)),
        (2.5 * tiny, 2.0 * tiny),
        (0.5 * tiny, 0.0),
        (0.5000001 * tiny, tiny),
        (1e-300, 0.0),
    ];
    for (x, rounded) in exact {
        assert_eq!(x.round_f16(), rounded, "{x}");
        assert_eq!((-x).round_f16(), -rounded, "-{x}");
        let single = x as f32;
        assert_eq!(f64::from(single.round_f16()), f64::from(single).round_f16(), "{single}");
    }
    assert_eq!((-1e-30f64).round_f16().to_bits(), (-0.0f64).to_bits());
    assert!(f64::NAN.round_f16().is_nan());
    let cast = eval1(&Op::Cast { dtype: DType::F16 }, &[&vector(&[0.1, 7e4])]);
    assert_eq!(cast.doubles(), [0.0999755859375, f64::INFINITY]);
}

#[test]
fn every_result_of_bf16_type_is_rounded() {
    let text = r#"graph "g" {
        %0: bf16[2] = input() {name = "x"}
        %1: bf16[2] = add(%0, %0)
        %2: bf16[2] = mul(%1, %0)
        output "x" = %0 output "y" = %2
    }"#;
    let x = Bindings::from([("x".into(), vector(&[1.005, -0.1]))]);
    let results = run(&parse(text).unwrap(), &x).unwrap();
    assert_eq!(results.outputs["x"].doubles(), [1.0078125, -0.10009765625]);
    let rounded = (2.0 * 1.0078125 * 1.0078125).round_bf16();
    assert_eq!(results.outputs["y"].doubles(), [rounded, 0.02001953125]);
}

#[test]
fn views() {
    let x = matrix(2, &[1., 2., 3., 4., 5., 6.]);
    let shape = |dims: &[usize]| Shape::from(dims);
    let broadcast = eval1(&Op::Broadcast { shape: shape(&[2, 2, 3]) }, &[&vector(&[1., 2., 3.])]);
    assert_eq!(broadcast.doubles(), [1., 2., 3., 1., 2., 3., 1., 2., 3., 1., 2., 3.]);
    let column = eval1(&Op::Broadcast { shape: shape(&[2, 3]) }, &[&matrix(2, &[1., 2.])]);
    assert_eq!(column.doubles(), [1., 1., 1., 2., 2., 2.]);
    let scalar = eval1(&Op::Broadcast { shape: shape(&[2]) }, &[&Tensor::scalar(7.)]);
    assert_eq!(scalar.doubles(), [7., 7.]);
    assert_eq!(eval1(&Op::Reshape { shape: shape(&[3, 2]) }, &[&x]).doubles(), x.doubles());
    let transposed = eval1(&Op::Transpose { perm: vec![1, 0] }, &[&x]);
    assert_eq!((transposed.shape.dims(), transposed.doubles()), (&[3, 2][..], vec![1., 4., 2., 5., 3., 6.]));
    let cube = Tensor::float([2, 3, 4], (0..24).map(f64::from).collect());
    let turned = eval1(&Op::Transpose { perm: vec![2, 0, 1] }, &[&cube]);
    // [1, 1, 2] of the result is [1, 2, 1] of the cube.
    assert_eq!(turned.shape.dims(), [4, 2, 3]);
    assert_eq!(turned.doubles()[11], 12. + 2. * 4. + 1.);
    assert_eq!(eval1(&Op::Slice { axis: 1, start: 1, len: 2 }, &[&x]).doubles(), [2., 3., 5., 6.]);
    assert_eq!(eval1(&Op::Slice { axis: 0, start: 1, len: 1 }, &[&x]).doubles(), [4., 5., 6.]);
    let padded = eval1(&Op::Pad { axis: 1, before: 1, after: 2 }, &[&matrix(2, &[1., 2.])]);
    assert_eq!(padded.doubles(), [0., 1., 0., 0., 0., 2., 0., 0.]);
    let joined = eval1(&Op::Concat { axis: 1 }, &[&x, &matrix(2, &[7., 8.])]);
    assert_eq!(joined.doubles(), [1., 2., 3., 7., 4., 5., 6., 8.]);
    let stacked = eval1(&Op::Concat { axis: 0 }, &[&x, &matrix(1, &[7., 8., 9.])]);
    assert_eq!(stacked.doubles(), [1., 2., 3., 4., 5., 6., 7., 8., 9.]);
    let ints = Tensor::<f64>::int([2, 2], vec![1, 2, 3, 4]);
    assert_eq!(eval1(&Op::Transpose { perm: vec![1, 0] }, &[&ints]).ints(), Some(&[1, 3, 2, 4][..]));
    let pad = Op::Pad { axis: 0, before: 1, after: 0 };
    assert_eq!(eval1(&pad, &[&ints]).ints(), Some(&[0, 0, 1, 2, 3, 4][..]));
    assert_eq!(eval1(&Op::Concat { axis: 0 }, &[&ints, &ints]).len(), 8);
}

#[test]
fn sums() {
    let x = Tensor::float([2, 2, 2], (1..=8).map(f64::from).collect());
    let sum = |axes: &[usize], keep| eval1(&Op::Sum { axes: axes.to_vec(), keep }, &[&x]);
    assert_eq!(sum(&[0], false).doubles(), [6., 8., 10., 12.]);
    assert_eq!(sum(&[1], true).doubles(), [4., 6., 12., 14.]);
    assert_eq!(sum(&[1], true).shape.dims(), [2, 1, 2]);
    assert_eq!(sum(&[0, 2], false).doubles(), [14., 22.]);
    assert_eq!(sum(&[0, 1, 2], false).doubles(), [36.]);
    assert_eq!(sum(&[], false).doubles(), x.doubles());
    let ints = Tensor::<f64>::int([2, 2], vec![1, 2, 3, 4]);
    assert_eq!(eval1(&Op::Sum { axes: vec![0], keep: false }, &[&ints]).ints(), Some(&[4, 6][..]));
}

#[test]
fn matmul_in_all_orientations() {
    let (a, b) = (matrix(2, &[1., 2., 3., 4., 5., 6.]), matrix(3, &[1., 0., 2., 1., 0., 3.]));
    let t = |x: &Tensor<f64>| eval1(&Op::Transpose { perm: vec![1, 0] }, &[x]);
    for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
        let a = if trans_a { t(&a) } else { a.clone() };
        let b = if trans_b { t(&b) } else { b.clone() };
        assert_eq!(
            eval1(&Op::MatMul { trans_a, trans_b, dtype: DType::F32 }, &[&a, &b]).doubles(),
            [5., 11., 14., 23.]
        );
    }
}

#[test]
fn fused_region_equals_its_steps() {
    let region = Pointwise {
        shape: [2, 2].into(),
        steps: vec![
            PointOp::Input(0),
            PointOp::Input(1),
            PointOp::Const(0.5),
            PointOp::Unary(UnaryOp::Silu, 0),
            PointOp::Binary(BinaryOp::Mul, 3, 1),
            PointOp::Binary(BinaryOp::Add, 4, 2),
            PointOp::Cast(DType::Bf16, 5),
            PointOp::Cast(DType::I32, 1),
        ],
        outputs: vec![(5, DType::F32), (6, DType::F32), (5, DType::Bf16), (7, DType::I32)],
    };
    let (x, y) = (matrix(2, &[1., -2., 0.3, 4.]), vector(&[2.9, -3.1]));
    let found = eval(&Op::Fused(region), &[&x, &y]).unwrap();
    let silu = eval1(&Op::Unary(UnaryOp::Silu), &[&x]);
    let wide = eval1(&Op::Broadcast { shape: [2, 2].into() }, &[&y]);
    let product = eval1(&Op::Binary(BinaryOp::Mul), &[&silu, &wide]);
    let sum: Vec<f64> = product.doubles().iter().map(|x| x + 0.5).collect();
    let rounded: Vec<f64> = sum.iter().map(|x| x.round_bf16()).collect();
    assert_eq!(found[0].doubles(), sum);
    assert_eq!(found[1].doubles(), rounded);
    assert_eq!(found[2].doubles(), rounded);
    assert_eq!(found[3].ints(), Some(&[2, -3, 2, -3][..]));
}

#[test]
fn rms_norm() {
    let (x, w) = (matrix(2, &[3., 4., 0., 2.]), vector(&[1., 2.]));
    let found = eval1(&Op::RmsNorm { eps: 0.5 }, &[&x, &w]).doubles();
    let (r0, r1) = (13f64.sqrt(), 2.5f64.sqrt());
    close("y", &found, &[3. / r0, 8. / r0, 0., 4. / r1], 1e-15);
    let (part, residual) = (matrix(2, &[1., 5., -1., 2.]), matrix(2, &[2., -1., 1., 0.]));
    let found = eval(&Op::RmsNorm { eps: 0.5 }, &[&part, &w, &residual]).unwrap();
    close("y", &found[0].doubles(), &[3. / r0, 8. / r0, 0., 4. / r1], 1e-15);
    assert_eq!(found[1].doubles(), x.doubles());
}

#[test]
fn rope_rotates_interleaved_pairs() {
    let kind = TableKind::Rope { theta: 100.0, scaling: None };
    let table = Tensor::float([4, 2, 2], rope_table(&kind, &[4, 2, 2].into()));
    // Frequencies 1 and 1/10; two tokens, one head.
    let x = Tensor::float([1, 2, 1, 4], vec![1., 0., 0., 1., 2., 0., 0., 3.]);
    let start = Tensor::int([1], vec![2]);
    let found = eval1(&Op::Rope { inverse: false }, &[&x, &table, &start]).doubles();
    let (a, b) = (2f64, 0.2f64);
    let (c, d) = (3f64, 0.3f64);
    let expected =
        [a.cos(), a.sin(), -b.sin(), b.cos(), 2. * c.cos(), 2. * c.sin(), -3. * d.sin(), 3. * d.cos()];
    close("y", &found, &expected, 1e-15);
    // Each sequence has a position of its own.
    let both = Tensor::float([2, 1, 1, 4], vec![1., 0., 0., 1., 2., 0., 0., 3.]);
    let starts = Tensor::int([2], vec![2, 3]);
    close("y", &eval1(&Op::Rope { inverse: false }, &[&both, &table, &starts]).doubles(), &expected, 1e-15);
    let far = Tensor::int([1], vec![3]);
    let error = eval(&Op::Rope { inverse: false }, &[&x, &table, &far]).unwrap_err();
    assert_eq!(error.to_string(), "rope: positions 3..5 exceed the table of 4");
}

#[test]
fn llama_31_rope_scaling() {
    let scaling =
        RopeScaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 8192 };
    let plain = TableKind::Rope { theta: 500_000.0, scaling: None };
    let scaled = TableKind::Rope { theta: 500_000.0, scaling: Some(scaling) };
    let shape: Shape = [2, 64, 2].into();
    let angles = |kind| -> Vec<f64> {
        rope_table(kind, &shape)[128..].chunks(2).map(|x| f64::atan2(x[1], x[0])).collect()
    };
    let (plain, scaled) = (angles(&plain), angles(&scaled));
    let mut kinds = [0; 3];
    for (f, g) in plain.iter().zip(&scaled) {
        // Written as by Meta, in wavelengths.
        let wavelength = 2.0 * std::f64::consts::PI / f;
        let (expected, kind) = if wavelength < 8192.0 / 4.0 {
            (*f, 0)
        } else if wavelength > 8192.0 / 1.0 {
            (f / 8.0, 1)
        } else {
            let smooth = (8192.0 / wavelength - 1.0) / (4.0 - 1.0);
            ((1.0 - smooth) * f / 8.0 + smooth * f, 2)
        };
        kinds[kind] += 1;
        assert!((g - expected).abs() < 1e-12 * f, "{g} {expected}");
    }
    // 64 ln(2048 / 2π) / ln 500000 = 28.2 and 64 ln(8192 / 2π) / ln 500000 = 34.98.
    assert_eq!(kinds, [29, 29, 6]);
}

#[test]
fn embedding() {
    let table = matrix(3, &[1., 2., 3., 4., 5., 6.]);
    let ids = Tensor::int([2, 1], vec![2, 0]);
    let found = eval1(&Op::Embedding { dtype: DType::F32 }, &[&table, &ids]);
    assert_eq!((found.shape.dims(), found.doubles()), (&[2, 1, 2][..], vec![5., 6., 1., 2.]));
    for bad in [3, -1] {
        let error =
            eval(&Op::Embedding { dtype: DType::F32 }, &[&table, &Tensor::int([1], vec![bad])]).unwrap_err();
        assert_eq!(error.to_string(), format!("embedding: id {bad} is outside 0..3"));
    }
}

#[test]
fn softmax_attention_by_hand() {
    // One head, two tokens, two features.
    let q = Tensor::float([1, 2, 1, 2], vec![1., 0., 0., 2.]);
    let k = Tensor::float([1, 2, 1, 2], vec![1., 1., 0., 3.]);
    let v = Tensor::float([1, 2, 1, 2], vec![1., 10., 2., 20.]);
    let found = eval(&Op::from(SoftmaxOp::Forward { causal: true, scale: 0.5 }), &[&q, &k, &v]).unwrap();
    // Token 1 scores 1 and 3.
    let w = 1.0 / (1.0 + 2f64.exp());
    close("out", &found[0].doubles(), &[1., 10., w + 2. * (1. - w), 10. * w + 20. * (1. - w)], 1e-15);
    close("lse", &found[1].doubles(), &[0.5, (1f64.exp() + 3f64.exp()).ln()], 1e-15);
    let found = eval(&Op::from(SoftmaxOp::Forward { causal: false, scale: 0.5 }), &[&q, &k, &v]).unwrap();
    let w0 = 0.5f64.exp() / (0.5f64.exp() + 1.0);
    close("out", &found[0].doubles()[..2], &[w0 + 2. * (1. - w0), 10. * w0 + 20. * (1. - w0)], 1e-15);
}

#[test]
fn decoding_by_tokens_or_blocks_is_causal_softmax_attention() {
    let mut numbers = Numbers(11);
    let (b, n, h, g, d) = (2, 6, 4, 2, 3);
    let q = numbers.tensor([b, n, h, d]);
    let (k, v) = (numbers.tensor([b, n, g, d]), numbers.tensor([b, n, g, d]));
    let expected = eval1(&Op::from(SoftmaxOp::Forward { causal: true, scale: 0.6 }), &[&q, &k, &v]);
    let empty = [(); 2].map(|()| Tensor::float([b, n + 1, g, d], vec![9.0; b * (n + 1) * g * d]));
    let slot = Tensor::int([b], vec![1, 0]);
    for (len, range) in [(1, None), (1, Some(2)), (2, None), (3, None)] {
        let op = Op::from(SoftmaxOp::Decode { scale: 0.6, range });
        let mut caches = empty.clone();
        for start in (0..n).step_by(len) {
            let part = |x| eval1(&Op::Slice { axis: 1, start, len }, &[x]);
            let pos = Tensor::int([b], vec![start as i32; b]);
            let operands = [&part(&q), &part(&k), &part(&v), &caches[0], &caches[1], &pos, &slot];
            let mut found = eval(&op, &operands).unwrap();
            let split = found.split_off(3);
            let [out, kcache, vcache]: [Tensor<f64>; 3] = found.try_into().unwrap();
            close("out", &out.doubles(), &part(&expected).doubles(), 1e-15);
            let [mut kept, fresh] = [&kcache, &k].map(|x| part(x).doubles());
            // The cache of sequence 0 is in slot 1.
            let half = kept.len() / 2;
            kept.rotate_left(half);
            assert_eq!(kept, fresh);
            // Parts of sequence 0 and head 0, of two query heads: with the fresh key they are the whole.
            if let [top, sum, acc] = &split[..] {
                let (top, sum, acc) = (top.doubles(), sum.doubles(), acc.doubles());
                let scale = |part: usize| top[part * 2].exp();
                let [q, k, v] = [&q, &k, &v].map(|x| part(x).doubles()[..d].to_vec());
                let fresh = (q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() * 0.6).exp();
                let whole = fresh + (0..4).map(|part| scale(part) * sum[part * 2]).sum::<f64>();
                let value = |i: usize| (0..4).map(|part| scale(part) * acc[part * 2 * d + i]).sum::<f64>();
                let merged: Vec<f64> =
                    v.iter().enumerate().map(|(i, v)| (fresh * v + value(i)) / whole).collect();
                close("merged", &merged, &out.doubles()[..d], 1e-14);
            }
            caches = [kcache, vcache];
        }
        let pos = Tensor::int([b], vec![0, (n + 2 - len) as i32]);
        let part = |x| eval1(&Op::Slice { axis: 1, start: 0, len }, &[x]);
        let operands = [&part(&q), &part(&k), &part(&v), &caches[0], &caches[1], &pos, &slot];
        let room = format!("softmax_decode: position {} is outside 0..{}", n + 2 - len, n + 2 - len);
        assert_eq!(eval(&op, &operands).unwrap_err().to_string(), room);
        let same = Tensor::int([b], vec![1; b]);
        let operands = [operands[0], operands[1], operands[2], &caches[0], &caches[1], &slot, &same];
        let shared = "softmax_decode: two sequences share slot 1";
        assert_eq!(eval(&op, &operands).unwrap_err().to_string(), shared);
    }
}

#[test]
fn cross_entropy_ignores_negative_targets() {
    let logits = matrix(3, &[1., 2., 9., 9., 1000., 0.]);
    let targets = Tensor::int([3], vec![0, -100, 1]);
    let found = eval1(&Op::CrossEntropy, &[&logits, &targets]).doubles();
    close("loss", &found, &[((1.0 + 1f64.exp()).ln() + 1000.0) / 2.0], 1e-15);
    let error = eval(&Op::CrossEntropy, &[&logits, &Tensor::int([3], vec![0, 2, 0])]).unwrap_err();
    assert_eq!(error.to_string(), "cross_entropy: id 2 is outside 0..2");
}

#[test]
fn log_probs_are_of_targets_and_of_the_first_of_the_largest() {
    let logits = matrix(3, &[1., 2., 7., 7., 1000., 0.]);
    let targets = Tensor::int([3], vec![0, -1, 1]);
    let found = eval(&Op::LogProbs, &[&logits, &targets]).expect("scores");
    let ln = |x: f64| x.ln();
    let all = ln(1.0 + 1f64.exp()) + 1.0;
    close("targets", &found[0].doubles(), &[1.0 - all, 0.0, -1000.0], 1e-15);
    close("best", &found[1].doubles(), &[2.0 - all, -ln(2.0), 0.0], 1e-15);
    assert_eq!(found[2].ints(), Some(&[1, 0, 0][..]));
    let (h, w) = (matrix(3, &[1., 2., 7., 7., 1000., 0.]), matrix(2, &[1., 0., 0., 1.]));
    let linear = eval(&Op::LinearLogProbs { chunk: 2 }, &[&h, &w, &targets]).expect("scores");
    assert_eq!(linear[..3], found[..]);
    let error = eval(&Op::LogProbs, &[&logits, &Tensor::int([3], vec![0, 2, 0])]).unwrap_err();
    assert_eq!(error.to_string(), "log_probs: id 2 is outside 0..2");
}

#[test]
fn global_norm_in_blocks() {
    let (x, y) = (vector(&vec![0.5; NORM_BLOCK + 3]), vector(&[2.0, 1.0]));
    let found = eval(&Op::GlobalNorm, &[&x, &y]).unwrap();
    assert_eq!(found[1].doubles(), [NORM_BLOCK as f64 / 4.0, 0.75, 5.0]);
    assert_eq!(found[0].doubles(), [(NORM_BLOCK as f64 / 4.0 + 5.75).sqrt()]);
}

#[test]
fn a_mask_keeps_what_it_hides_from_everything() {
    let x = vector(&[f64::NAN, f64::INFINITY, 3.0]);
    assert_eq!(eval1(&Op::Binary(BinaryOp::Mask), &[&x, &vector(&[0.0; 3])]).doubles(), [0.0; 3]);
    assert_eq!(
        eval1(&Op::Binary(BinaryOp::Mask), &[&vector(&[-2.0, 0.5, 3.0]), &vector(&[1.0, -1.0, f64::NAN])])
            .doubles(),
        [-2.0, 0.5, 3.0]
    );
}

#[test]
fn adam_adds_weight_decay_to_the_gradient() {
    let spec = AdamWSpec { beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.1 };
    let (p, g, zero) = (vector(&[1.0, -2.0]), vector(&[0.5, 0.25]), vector(&[0.0, 0.0]));
    let (lr, step, clip) = (Tensor::scalar(0.1), Tensor::scalar(1.0), Tensor::scalar(0.5));
    let found = eval(&Op::from(AdamSpec(spec)), &[&p, &g, &zero, &zero, &lr, &step, &clip]).unwrap();
    // torch.optim.Adam: the decay is a part of the gradient, and so of both moments.
    for (i, (p, g)) in [(1.0f64, 0.5f64), (-2.0, 0.25)].into_iter().enumerate() {
        let g = 0.5 * g + 0.1 * p;
        let expected = p - 0.1 * g / (g.abs() + 1e-3);
        assert!((found[0].doubles()[i] - expected).abs() < 1e-12);
        assert!((found[1].doubles()[i] - 0.1 * g).abs() < 1e-12);
        assert!((found[2].doubles()[i] - 0.01 * g * g).abs() < 1e-12);
    }
}

#[test]
fn adamw_two_steps() {
    let spec = AdamWSpec { beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.1 };
    let (lr, clip, g) = (0.01, 0.5, 4.0);
    let mut p = vector(&[1.0]);
    let (mut m, mut v) = (vector(&[0.0]), vector(&[0.0]));
    for step in [1.0, 2.0] {
        let scalars = [lr, step, clip].map(Tensor::scalar);
        let operands = [&p, &vector(&[g]), &m, &v, &scalars[0], &scalars[1], &scalars[2]];
        let found: [Tensor<f64>; 3] =
            eval(&Op::from(UpdateOp::AdamW(spec.clone())), &operands).unwrap().try_into().unwrap();
        [p, m, v] = found;
    }
    // With a constant clipped gradient of 2 the corrected moments are exactly 2 and 4.
    let update = lr * 2.0 / (2.0 + 1e-3);
    let once = 1.0 * (1.0 - lr * 0.1) - update;
    close("p", &p.doubles(), &[once * (1.0 - lr * 0.1) - update], 1e-15);
    close("m", &m.doubles(), &[2.0 * (1.0 - 0.81)], 1e-15);
    close("v", &v.doubles(), &[4.0 * (1.0 - 0.99 * 0.99)], 1e-15);
}

#[test]
fn adamw_can_be_told_to_do_nothing() {
    let spec = AdamWSpec { beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.1 };
    let (p, m, v) = (vector(&[1.0, -2.0]), vector(&[0.1, 0.2]), vector(&[0.3, 0.4]));
    let g = vector(&[f64::INFINITY, f64::NAN]);
    let [lr, step, clip] = [0.01, 0.0, f64::NAN].map(Tensor::scalar);
    let run = |g: &Tensor<f64>, step: &Tensor<f64>, clip: &Tensor<f64>, update: f64| {
        let update = Tensor::scalar(update);
        eval(&Op::from(UpdateOp::AdamW(spec.clone())), &[&p, g, &m, &v, &lr, step, clip, &update]).unwrap()
    };
    assert_eq!(run(&g, &step, &clip, 0.0), [p.clone(), m.clone(), v.clone()]);
    let (g, one) = (vector(&[1.0, 2.0]), Tensor::scalar(1.0));
    let seven = eval(&Op::from(UpdateOp::AdamW(spec.clone())), &[&p, &g, &m, &v, &lr, &one, &one]).unwrap();
    assert_eq!(run(&g, &one, &one, 1.0), seven);
}

#[test]
fn leaves_outputs_updates_and_intermediate_values() {
    let text = r#"graph "g" {
        %0: f32[2] = param() {name = "w", init = ones}
        %1: f32[2] = state() {name = "m", role = recurrent}
        %2: f32[1, 1, 2] = table() {name = "t", kind = rope(theta = 10.0)}
        %3: f32[2] = constant() {value = 3.0}
        %4: f32[2] = add(%0, %3)
        %5: f32[2] = add(%4, %1)
        %6: f32[2] = reshape(%2)
        output "sum" = %5
        output "table" = %6
        update %0 = %4
        update %1 = %5
    }"#;
    let graph = parse(text).unwrap();
    let error = run::<f64>(&graph, &Bindings::new()).unwrap_err();
    assert_eq!(error.to_string(), "input w: is not bound, expected f32[2]");
    let mut bindings = Bindings::from([("w".into(), vector(&[1., 2.]))]);
    let found = run_all(&graph, &bindings).unwrap();
    assert_eq!(found.outputs["sum"].doubles(), [4., 5.]);
    assert_eq!(found.outputs["table"].doubles(), [1., 0.]);
    assert_eq!(found.updates["w"].doubles(), [4., 5.]);
    assert_eq!(found.values.len(), 7);
    let param = graph.leaf("w").unwrap();
    assert_eq!(found.values[&Value { node: param, port: 0 }].doubles(), [1., 2.]);
    bindings.insert("m".into(), vector(&[10., 20.]));
    let found = run(&graph, &bindings).unwrap();
    assert_eq!(found.updates["m"].doubles(), [14., 25.]);
    assert!(found.values.is_empty());
    for (bad, message) in [
        (vector(&[1.]), "input m: is bound to float data of shape [1], expected f32[2]"),
        (Tensor::int([2], vec![1, 2]), "input m: is bound to integer data of shape [2], expected f32[2]"),
        (Tensor::float([2], vec![1.]), "input m: is bound to 1 elements, f32[2] has 2"),
    ] {
        bindings.insert("m".into(), bad);
        assert_eq!(run(&graph, &bindings).unwrap_err().to_string(), message);
    }
}

#[test]
fn constants_have_their_type() {
    let ty = TensorType::i32([2]);
    assert_eq!(eval1(&Op::Constant { value: 3.0, ty }, &[]).ints(), Some(&[3, 3][..]));
    let ty = TensorType::new(DType::Bf16, [1]);
    assert_eq!(eval1(&Op::Constant { value: 0.1, ty }, &[]).doubles(), [0.10009765625]);
}
