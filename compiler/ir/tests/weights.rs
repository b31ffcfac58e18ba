//! The weights of a head against the operation that they are of: its results on values of which each has a one in one place
//! are the columns of the matrix.

use crate::common::{Numbers, eval1};
use linc_ir::interp::{Tensor, head_weights};
use linc_ir::{
    AttentionKind, EfficientForm, EfficientOp, EfficientSpec, EluOp, EluSpec, KindOp, Op, SoftmaxOp,
};

const N: usize = 70;
const D: usize = 8;

/// A as the operation has it, `[N, N]`.
fn by_unit_values(op: &KindOp, q: &[f32], k: &[f32]) -> Vec<f64> {
    let tensor = |x: &[f32]| Tensor::float([1, N, 1, D], x.iter().map(|x| f64::from(*x)).collect());
    let mut a = vec![0.0; N * N];
    for first in (0..N).step_by(D) {
        let mut units = vec![0.0; N * D];
        (0..D.min(N - first)).for_each(|i| units[(first + i) * D + i] = 1.0);
        let units = Tensor::float([1, N, 1, D], units);
        let out = eval1(&Op::Kind(op.clone()), &[&tensor(q), &tensor(k), &units]).doubles();
        for t in 0..N {
            (0..D.min(N - first)).for_each(|i| a[t * N + first + i] = out[t * D + i]);
        }
    }
    a
}

fn forwards() -> Vec<KindOp> {
    let efficient = |causal: bool, temperature: f64| {
        let form = EfficientForm::Fused;
        KindOp::Efficient(EfficientOp::Forward(EfficientSpec { causal, chunk: 16, temperature, form }))
    };
    vec![
        KindOp::Softmax(SoftmaxOp::Forward { causal: true, scale: 0.35 }),
        KindOp::Softmax(SoftmaxOp::Forward { causal: false, scale: 1.0 }),
        efficient(true, 1.0),
        efficient(true, 2.5),
        efficient(false, 2.5),
        KindOp::Elu(EluOp::Forward(EluSpec { causal: true, chunk: 16 })),
    ]
}

#[test]
fn weights_are_those_of_the_operation() {
    let found: Vec<&str> = forwards().iter().map(KindOp::name).collect();
    assert!(AttentionKind::ALL.len() <= found.len(), "a kind is missing: {found:?}");
    let mut numbers = Numbers(5);
    // Keys of everyday size, and such that a common reference would overflow.
    for size in [1.0, 120.0] {
        let mut draw =
            |size: f64| -> Vec<f32> { (0..N * D).map(|_| (size * numbers.uniform()) as f32).collect() };
        let (q, k) = (draw(3.0), draw(size));
        for op in forwards() {
            let expected = by_unit_values(&op, &q, &k);
            let head = head_weights(&op, &q, &k, D).expect("a forward");
            for step in [1, 7, 64] {
                for start in (0..N).step_by(step) {
                    let rows = start..N.min(start + step);
                    // What was there before does not matter.
                    let mut found = vec![f64::NAN; rows.len() * N];
                    head.rows(rows.clone(), &mut found);
                    for (found, expected) in found.iter().zip(&expected[start * N..]) {
                        assert!((found - expected).abs() < 1e-12, "{}: {found} {expected}", op.name());
                    }
                    for row in found.chunks_exact(N) {
                        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{}", op.name());
                    }
                }
            }
            let shares = head.features(N - 1).map(|features| features.iter().sum::<f64>());
            assert!(shares.is_none_or(|sum| (sum - 1.0).abs() < 1e-12), "{}: {shares:?}", op.name());
        }
    }
}

#[test]
fn only_a_forward_has_weights() {
    for op in forwards() {
        let gradient = op.gradient().expect("the gradient of a forward");
        assert!(head_weights(&gradient, &[0.0; D], &[0.0; D], D).is_none());
    }
}

#[test]
fn chunks_are_within_a_range_by_how_much_their_keys_add() {
    let chunks = |op: &KindOp, headroom: f64, key: &dyn Fn(usize) -> f32| {
        // One feature is enough to leave the range.
        let keys: Vec<f32> = (0..N * D).map(|i| if i % D == 3 { key(i / D) } else { 0.0 }).collect();
        head_weights(op, &vec![0.0; N * D], &keys, D).expect("a forward").chunks_within(30.0, headroom)
    };
    let causal = &forwards()[2];
    // Four chunks of 16 keys, and one of 6.
    assert_eq!(chunks(causal, 0.0, &|_| 3.0), Some([5, 5]));
    assert_eq!(chunks(causal, 0.0, &|t| -9.0 * t as f32), Some([5, 5]));
    assert_eq!(chunks(causal, 0.0, &|t| if t < 35 { -20.0 } else { 20.0 }), Some([4, 5]));
    let steep = |t: usize| 2.5 * t as f32;
    assert_eq!(chunks(causal, 0.0, &steep), Some([1, 5]));
    assert_eq!(chunks(causal, 8.0, &steep), Some([2, 5]));
    for other in forwards().iter().filter(|op| *op != causal && *op != &forwards()[3]) {
        assert_eq!(chunks(other, 0.0, &|_| 0.0), None, "{}", other.name());
    }
}
