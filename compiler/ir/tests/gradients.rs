//! Every gradient operation against central finite differences of its forward, in double precision.

use crate::common::{Numbers, close, differences, eval1};
use linc_ir::interp::{Tensor, eval};
use linc_ir::{
    AttentionSpec, DType, EfficientForm, EfficientOp, EfficientSpec, EluOp, EluSpec, Op, SoftmaxOp,
    TableKind, TensorType,
};

/// Error of central differences with step 1e-5 on functions of order 1.
const TOLERANCE: f64 = 2e-9;

fn rope_table(len: usize, pairs: usize) -> Tensor<f64> {
    let kind = TableKind::Rope { theta: 100.0, scaling: None };
    let ty = TensorType::f32([len, pairs, 2]);
    eval1(&Op::Table { name: "rope".into(), ty, kind }, &[])
}

#[test]
fn rms_norm() {
    let mut numbers = Numbers(1);
    // 130 rows: 64 blocks of 3 rows would be 192, so the last blocks stay empty.
    for rows in [[1, 1], [2, 3], [10, 13]] {
        let d = 4;
        let (x, w) = (numbers.tensor([rows[0], rows[1], d]), numbers.tensor([d]));
        let dy = numbers.tensor([rows[0], rows[1], d]);
        let forward = Op::RmsNorm { eps: 1e-3 };
        let found = eval(&Op::RmsNormGrad { eps: 1e-3 }, &[&x, &w, &dy]).unwrap();
        close("dx", &found[0].doubles(), &differences(&forward, &[&x, &w], 0, &dy.doubles()), TOLERANCE);
        let dw = eval1(&Op::Sum { axes: vec![0], keep: false }, &[&found[1]]);
        close("dw", &dw.doubles(), &differences(&forward, &[&x, &w], 1, &dy.doubles()), TOLERANCE);
        let more = eval(&Op::RmsNormGrad { eps: 1e-3 }, &[&x, &w, &dy, &x]).unwrap();
        let sum: Vec<f64> = found[0].doubles().iter().zip(x.doubles()).map(|(dx, x)| dx + x).collect();
        assert_eq!((more[0].doubles(), more[1].doubles()), (sum, found[1].doubles()));
    }
}

#[test]
fn rms_norm_has_row_blocks_by_rows() {
    for (rows, blocks) in [(1, 1), (63, 63), (130, 64), (1024, 128), (16_384, 256)] {
        assert_eq!(linc_ir::rms_norm_row_blocks(rows), blocks, "{rows} rows");
    }
}

#[test]
fn rms_norm_partial_sums_are_contiguous_row_blocks() {
    let (rows, d) = (130, 2);
    let ones = Tensor::float([rows, d], vec![1.0; rows * d]);
    let w = Tensor::float([d], vec![1.0; d]);
    let dy = Tensor::float([rows, d], (0..rows * d).map(|i| (i / d) as f64).collect());
    let partial = eval(&Op::RmsNormGrad { eps: 0.0 }, &[&ones, &w, &dy]).unwrap().swap_remove(1);
    assert_eq!(partial.shape.dims(), [64, d]);
    for block in 0..64 {
        let expected: f64 = (block * 3..(block * 3 + 3).min(rows)).map(|r| r as f64).sum();
        close("block", &partial.doubles()[block * d..][..d], &[expected; 2], 1e-14);
    }
}

#[test]
fn rope_inverse_is_gradient_and_inverse() {
    let mut numbers = Numbers(2);
    let (x, dy, table) = (numbers.tensor([2, 3, 2, 4]), numbers.tensor([2, 3, 2, 4]), rope_table(8, 2));
    let start = Tensor::int([2], vec![4, 1]);
    for operands in [vec![&x, &table], vec![&x, &table, &start]] {
        let forward = Op::Rope { inverse: false };
        let mut back = operands.clone();
        back[0] = &dy;
        let dx = eval1(&Op::Rope { inverse: true }, &back);
        close("dx", &dx.doubles(), &differences(&forward, &operands, 0, &dy.doubles()), TOLERANCE);
        let y = eval1(&forward, &operands);
        back[0] = &y;
        close("x", &eval1(&Op::Rope { inverse: true }, &back).doubles(), &x.doubles(), 1e-15);
    }
}

#[test]
fn embedding() {
    let mut numbers = Numbers(3);
    let table = numbers.tensor([5, 3]);
    let ids = Tensor::int([2, 3], vec![4, 0, 4, 1, 1, 4]);
    let dy = numbers.tensor([2, 3, 3]);
    let found = eval1(&Op::EmbeddingGrad { vocab: 5, sorted: false }, &[&ids, &dy]);
    let expected = differences(&Op::Embedding { dtype: DType::F32 }, &[&table, &ids], 0, &dy.doubles());
    close("dtable", &found.doubles(), &expected, TOLERANCE);
}

#[test]
fn softmax_attention() {
    let mut numbers = Numbers(4);
    for (heads, groups, causal) in [(2, 2, true), (4, 2, true), (3, 1, false)] {
        let (q, dout) = (numbers.tensor([2, 5, heads, 4]), numbers.tensor([2, 5, heads, 4]));
        let (k, v) = (numbers.tensor([2, 5, groups, 4]), numbers.tensor([2, 5, groups, 4]));
        let forward = Op::from(SoftmaxOp::Forward { causal, scale: 0.7 });
        let saved = eval(&forward, &[&q, &k, &v]).unwrap();
        let operands = [&q, &k, &v, &saved[0], &saved[1], &dout];
        let found = eval(&Op::from(SoftmaxOp::Backward { causal, scale: 0.7 }), &operands).unwrap();
        for i in 0..3 {
            let expected = differences(&forward, &[&q, &k, &v], i, &dout.doubles());
            close(["dq", "dk", "dv"][i], &found[i].doubles(), &expected, TOLERANCE);
        }
    }
}

#[test]
fn abstract_attention() {
    let mut numbers = Numbers(5);
    let table = rope_table(5, 2);
    for rope in [false, true] {
        let spec = AttentionSpec { layer: 0, causal: true, rope, kind: None };
        let (q, dout) = (numbers.tensor([1, 5, 4, 4]), numbers.tensor([1, 5, 4, 4]));
        let (k, v) = (numbers.tensor([1, 5, 2, 4]), numbers.tensor([1, 5, 2, 4]));
        let mut operands = vec![&q, &k, &v];
        operands.extend(rope.then_some(&table));
        let forward = Op::Attention(spec.clone());
        let out = eval1(&forward, &operands);
        let mut all = vec![&q, &k, &v, &out, &dout];
        all.extend(rope.then_some(&table));
        let found = eval(&Op::AttentionGrad(spec), &all).unwrap();
        for i in 0..3 {
            let expected = differences(&forward, &operands, i, &dout.doubles());
            close(["dq", "dk", "dv"][i], &found[i].doubles(), &expected, TOLERANCE);
        }
    }
}

/// The key of a token with some noise of order 1.
type Key = fn(usize, f64) -> f64;

/// Families of keys that break unguarded implementations.
const KEYS: [(&str, Key); 7] = [
    ("normal", |_, noise| noise),
    ("uniform 10", |_, noise| 10.0 * noise),
    ("uniform 100", |_, noise| 100.0 * noise),
    ("ramp up", |t, noise| 25.0 * t as f64 + noise),
    ("ramp down", |t, noise| -25.0 * t as f64 + noise),
    ("steps", |t, noise| 100.0 * (t / 3) as f64 - 100.0 + noise),
    ("spikes", |t, noise| noise + [0.0, 100.0, -100.0, 0.0][t % 4]),
];

#[test]
fn efficient_attention() {
    let mut numbers = Numbers(6);
    let (b, n, d) = (2, 7, 3);
    for (name, key) in KEYS {
        for (heads, groups, causal, temperature) in
            [(1, 1, true, 1.0), (4, 2, true, 1.0), (2, 1, true, 1.7), (4, 2, false, 1.0), (1, 1, false, 0.6)]
        {
            let (q, dout) = (numbers.tensor([b, n, heads, d]), numbers.tensor([b, n, heads, d]));
            let (k, v) = (numbers.tensor([b, n, groups, d]), numbers.tensor([b, n, groups, d]));
            let keys = k.doubles().iter().enumerate().map(|(i, x)| key(i / (d * groups) % n, *x)).collect();
            let k = Tensor::float([b, n, groups, d], keys);
            let spec = EfficientSpec { causal, chunk: 3, temperature, form: EfficientForm::Fused };
            let forward = Op::from(EfficientOp::Forward(spec.clone()));
            let saved = eval(&forward, &[&q, &k, &v]).unwrap();
            let operands = [&q, &k, &v, &saved[0], &saved[1], &saved[2], &dout];
            let found = eval(&Op::from(EfficientOp::Backward(spec)), &operands).unwrap();
            for i in 0..3 {
                let what = format!("{name} {heads}/{groups} causal {causal}: d{}", ["q", "k", "v"][i]);
                let expected = differences(&forward, &[&q, &k, &v], i, &dout.doubles());
                close(&what, &found[i].doubles(), &expected, 5.0 * TOLERANCE);
            }
        }
    }
}

/// Documents of 3, 1 and 3 tokens, and of 2 and 5.
fn positions() -> Tensor<f64> {
    Tensor::int([2, 7], vec![0, 1, 2, 0, 0, 1, 2, 0, 1, 0, 1, 2, 3, 4])
}

/// Tokens `range` of sequence `b` of a tensor.
fn part(x: &Tensor<f64>, b: usize, range: std::ops::Range<usize>) -> Tensor<f64> {
    let [_, n, heads, d] = x.shape.dims() else { panic!("{}", x.shape) };
    let row = heads * d;
    let values = x.doubles()[(b * n + range.start) * row..(b * n + range.end) * row].to_vec();
    Tensor::float([1, range.len(), *heads, *d], values)
}

#[test]
fn documents_see_nothing_of_each_other() {
    let mut numbers = Numbers(12);
    let (b, n, d) = (2, 7, 4);
    let spec = EfficientSpec { causal: true, chunk: 3, temperature: 1.5, form: EfficientForm::Fused };
    let rope = AttentionSpec { layer: 0, causal: true, rope: true, kind: None };
    let (table, positions) = (rope_table(n, d / 2), positions());
    for forward in [
        Op::from(SoftmaxOp::Forward { causal: true, scale: 0.7 }),
        Op::from(EfficientOp::Forward(spec)),
        Op::Attention(rope.clone()),
    ] {
        let (q, dout) = (numbers.tensor([b, n, 4, d]), numbers.tensor([b, n, 4, d]));
        let (k, v) = (numbers.tensor([b, n, 2, d]), numbers.tensor([b, n, 2, d]));
        let is_abstract = matches!(forward, Op::Attention(_));
        let more = if is_abstract { vec![&table] } else { vec![] };
        let operands = [&[&q, &k, &v][..], &more, &[&positions]].concat();
        let saved = eval(&forward, &operands).unwrap();
        let backward = match &forward {
            Op::Kind(kind) => kind.gradient().map(Op::Kind).expect("a gradient"),
            _ => Op::AttentionGrad(rope.clone()),
        };
        let results: Vec<&Tensor<f64>> = saved.iter().collect();
        let of_backward = [&[&q, &k, &v][..], &results, &[&dout], &more, &[&positions]].concat();
        let found = eval(&backward, &of_backward).unwrap();
        for i in 0..3 {
            let expected = differences(&forward, &operands, i, &dout.doubles());
            let what = format!("{}: d{}", forward.name(), ["q", "k", "v"][i]);
            close(&what, &found[i].doubles(), &expected, 5.0 * TOLERANCE);
        }
        for (sequence, range) in [(0, 0..3), (0, 3..4), (0, 4..7), (1, 0..2), (1, 2..7)] {
            let [q, k, v] = [&q, &k, &v].map(|x| part(x, sequence, range.clone()));
            let alone = eval1(&forward, &[&[&q, &k, &v][..], &more].concat());
            let together = part(&saved[0], sequence, range);
            close("a document alone", &together.doubles(), &alone.doubles(), 1e-13);
        }
        // They count each document from 0.
        let mut wrong = operands.clone();
        let other = Tensor::int([b, n], vec![0, 1, 3, 0, 0, 1, 2, 0, 1, 0, 1, 2, 3, 4]);
        *wrong.last_mut().expect("positions") = &other;
        let error = eval(&forward, &wrong).unwrap_err().to_string();
        assert!(error.contains("positions count each document from 0"), "{error}");
    }
    let (q, k) = (numbers.tensor([b, n, 4, d]), numbers.tensor([b, n, 2, d]));
    let full = Op::from(SoftmaxOp::Forward { causal: false, scale: 0.7 });
    let error = eval(&full, &[&q, &k, &k, &positions]).unwrap_err().to_string();
    assert!(error.contains("only causal attention keeps documents apart"), "{error}");
}

#[test]
fn elu_attention() {
    let mut numbers = Numbers(9);
    let (b, n, d) = (2, 7, 3);
    for (heads, groups) in [(1, 1), (4, 2), (3, 1)] {
        let (q, dout) = (numbers.tensor([b, n, heads, d]), numbers.tensor([b, n, heads, d]));
        let (k, v) = (numbers.tensor([b, n, groups, d]), numbers.tensor([b, n, groups, d]));
        let spec = EluSpec { causal: true, chunk: 3 };
        let forward = Op::from(EluOp::Forward(spec.clone()));
        let saved = eval(&forward, &[&q, &k, &v]).unwrap();
        let operands = [&q, &k, &v, &saved[0], &saved[1], &saved[2], &dout];
        let found = eval(&Op::from(EluOp::Backward(spec)), &operands).unwrap();
        for i in 0..3 {
            let expected = differences(&forward, &[&q, &k, &v], i, &dout.doubles());
            close(["dq", "dk", "dv"][i], &found[i].doubles(), &expected, TOLERANCE);
        }
    }
    let x = numbers.tensor([1, 2, 1, 3]);
    let error =
        eval(&Op::from(EluOp::Forward(EluSpec { causal: false, chunk: 3 })), &[&x, &x, &x]).unwrap_err();
    assert!(error.to_string().contains("only causal"), "{error}");
}

/// The definition at one feature, by hand: weights φ(q)·φ(k) are 1·1 and 1·2 for keys of 0 and 1 and queries of 0.
#[test]
fn elu_attention_of_two_tokens() {
    let tensor = |values: [f64; 2]| Tensor::float([1, 2, 1, 1], values.to_vec());
    let (q, k, v) = (tensor([0.0, 0.0]), tensor([0.0, 1.0]), tensor([3.0, 6.0]));
    let found = eval(&Op::from(EluOp::Forward(EluSpec { causal: true, chunk: 1 })), &[&q, &k, &v]).unwrap();
    assert_eq!(found[0].doubles(), [3.0, (3.0 + 2.0 * 6.0) / 3.0]);
    assert_eq!(
        (found[1].doubles(), found[2].doubles()),
        (vec![0.0, 1.0], vec![0.0, 3.0]),
        "before each token"
    );
}

#[test]
fn the_chunked_form_has_workspaces_of_zeros() {
    let mut numbers = Numbers(8);
    let (wide, narrow) = ([2, 7, 4, 3], [2, 7, 2, 3]);
    let (q, k, v) = (numbers.tensor(wide), numbers.tensor(narrow), numbers.tensor(narrow));
    let spec = |causal, form| EfficientSpec { causal, chunk: 3, temperature: 1.0, form };
    let saved =
        eval(&Op::from(EfficientOp::Forward(spec(true, EfficientForm::Chunked))), &[&q, &k, &v]).unwrap();
    let operands = [&q, &k, &v, &saved[0], &saved[1], &saved[2], &q];
    let fused = eval(&Op::from(EfficientOp::Backward(spec(true, EfficientForm::Fused))), &operands).unwrap();
    let chunked =
        eval(&Op::from(EfficientOp::Backward(spec(true, EfficientForm::Chunked))), &operands).unwrap();
    assert_eq!(fused, chunked[..3]);
    let workspaces: [&[usize]; 4] = [&[2, 4, 7], &[2, 2, 3, 3, 3], &[2, 2, 3, 3], &[2, 7, 2, 3]];
    for (workspace, shape) in chunked[3..].iter().zip(workspaces) {
        assert_eq!(workspace.shape.dims(), shape);
        assert!(workspace.doubles().iter().all(|x| *x == 0.0));
    }
    let error = eval(&Op::from(EfficientOp::Forward(spec(false, EfficientForm::Chunked))), &[&q, &k, &v])
        .unwrap_err();
    assert!(error.to_string().contains("only causal attention has a chunked form"), "{error}");
}

#[test]
fn cross_entropy() {
    let mut numbers = Numbers(7);
    let logits = numbers.tensor([5, 6]);
    let targets = Tensor::int([5], vec![0, -100, 5, 2, -1]);
    let dloss = Tensor::scalar(1.5);
    let found = eval1(&Op::CrossEntropyGrad, &[&logits, &targets, &dloss]);
    let expected = differences(&Op::CrossEntropy, &[&logits, &targets], 0, &[1.5]);
    close("dlogits", &found.doubles(), &expected, TOLERANCE);
    assert_eq!(found.doubles()[6..12], [0.0; 6], "an ignored row has no gradient");
}

#[test]
fn linear_cross_entropy() {
    let mut numbers = Numbers(8);
    let (h, w) = (numbers.tensor([5, 3]), numbers.tensor([7, 3]));
    let targets = Tensor::int([5], vec![6, -100, 0, 3, 3]);
    let dloss = Tensor::scalar(-0.5);
    let forward = Op::LinearCrossEntropy { chunk: 2 };
    let found = eval(&Op::LinearCrossEntropyGrad { chunk: 2 }, &[&h, &w, &targets, &dloss]).unwrap();
    for i in 0..2 {
        let expected = differences(&forward, &[&h, &w, &targets], i, &[-0.5]);
        close(["dh", "dw"][i], &found[1 + i].doubles(), &expected, TOLERANCE);
    }
    let logits = eval1(&Op::MatMul { trans_a: false, trans_b: true, dtype: DType::F32 }, &[&h, &w]);
    let loss = eval1(&Op::CrossEntropy, &[&logits, &targets]);
    let both = eval(&forward, &[&h, &w, &targets]).unwrap();
    close("loss", &found[0].doubles(), &loss.doubles(), 1e-15);
    close("loss", &both[0].doubles(), &loss.doubles(), 1e-15);
    close("nll", &[both[2].doubles().iter().sum::<f64>() / 4.0], &loss.doubles(), 1e-15);
}

#[test]
fn no_counted_target_gives_zero_loss_and_gradient() {
    let logits = Numbers(9).tensor([2, 3]);
    let targets = Tensor::int([2], vec![-100, -1]);
    assert_eq!(eval1(&Op::CrossEntropy, &[&logits, &targets]).doubles(), [0.0]);
    let grad = eval1(&Op::CrossEntropyGrad, &[&logits, &targets, &Tensor::scalar(1.0)]);
    assert_eq!(grad.doubles(), [0.0; 6]);
}
