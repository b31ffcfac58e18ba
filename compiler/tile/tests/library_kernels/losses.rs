//! Cross-entropy: rows, mean, gradient, targets that are left out.

use linc_tile::Elem;
use linc_tile::library::loss::{
    CountTargetsSpec, CrossEntropyRowsSpec, CrossEntropySpec, MeanNllSpec, count_targets, cross_entropy,
    cross_entropy_grad, cross_entropy_rows, log_probs, mean_nll,
};

use super::harness::{Data, SENTINEL, assert_close, floats, ints, random, random_ids, round, run, unit};

const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 2), (5, 63), (65, 65), (63, 257), (257, 3), (2, 4097), (3, 9001), (1, 128_256)];

/// Of a CPU, and one that cuts rows into pieces of all kinds.
const BLOCKS: [(usize, usize); 2] = [(8, 512), (4, 64)];

struct Case {
    logits: Vec<f32>,
    targets: Vec<i32>,
    nll: Vec<f64>,
    softmax: Vec<f64>,
    count: usize,
}

/// Logits of a wide range; every fourth target, from the second on, is left out.
fn case(rows: usize, vocab: usize, elem: Elem) -> Case {
    let logits: Vec<f32> = random(rows * vocab, 1).into_iter().map(|x| round(20.0 * x, elem)).collect();
    let mut targets = random_ids(rows, vocab, 2);
    for target in targets.iter_mut().skip(1).step_by(4) {
        *target = -100;
    }
    let (mut nll, mut softmax) = (vec![], vec![]);
    for (row, target) in logits.chunks(vocab).zip(&targets) {
        let max = row.iter().fold(f64::NEG_INFINITY, |m, x| m.max(f64::from(*x)));
        let sum: f64 = row.iter().map(|x| (f64::from(*x) - max).exp()).sum();
        let lse = max + sum.ln();
        softmax.extend(row.iter().map(|x| (f64::from(*x) - lse).exp()));
        nll.push(usize::try_from(*target).map_or(0.0, |t| lse - f64::from(row[t])));
    }
    let count = targets.iter().filter(|t| **t >= 0).count();
    Case { logits, targets, nll, softmax, count }
}

impl Case {
    fn gradient(&self, vocab: usize, scale: f64) -> Vec<f64> {
        let element = |i: usize| {
            let target = self.targets[i / vocab];
            let hot = f64::from(u8::from(target as usize == i % vocab));
            if target < 0 { 0.0 } else { (self.softmax[i] - hot) * scale }
        };
        (0..self.softmax.len()).map(element).collect()
    }
}

fn tolerance(elem: Elem) -> f64 {
    unit(elem, 1e-5)
}

#[test]
fn rows_and_their_mean() {
    for (rows, vocab) in SHAPES {
        for (elem, block) in
            [Elem::F32, Elem::Bf16, Elem::F16].into_iter().flat_map(|e| BLOCKS.map(|b| (e, b)))
        {
            let case = case(rows, vocab, elem);
            let spec = CrossEntropyRowsSpec { rows, vocab, logits: elem, in_place_gradient: false, block };
            let what = format!("{spec:?}");
            let args = vec![
                Data::of(elem, &case.logits),
                Data::i32(&case.targets),
                Data::f32(&vec![SENTINEL; rows]),
            ];
            let out = run(&cross_entropy_rows(&spec), args);
            assert_close(&floats(&out[2]), &case.nll, 1e-5, 1e-6, &what);

            let args = vec![Data::i32(&case.targets), Data::f32(&[SENTINEL])];
            let count = run(&count_targets(&CountTargetsSpec { tokens: rows }), args);
            let inverse = 1.0 / case.count as f64;
            assert_close(&floats(&count[1]), &[inverse], 0.0, 1e-6, &what);

            let args = vec![out[2].clone(), count[1].clone(), Data::f32(&[SENTINEL])];
            let mean = run(&mean_nll(&MeanNllSpec { tokens: rows }), args);
            let expected = case.nll.iter().sum::<f64>() * inverse;
            assert_close(&floats(&mean[2]), &[expected], 1e-5, 1e-6, &what);

            let spec = CrossEntropySpec { rows, vocab, logits: elem, block };
            let args = vec![Data::of(elem, &case.logits), Data::i32(&case.targets), Data::f32(&[SENTINEL])];
            let loss = run(&cross_entropy(&spec), args);
            assert_close(&floats(&loss[2]), &[expected], 1e-5, 1e-6, &what);
        }
    }
}

#[test]
fn log_probs_and_the_most_likely() {
    for (rows, vocab) in SHAPES {
        for (elem, block) in
            [Elem::F32, Elem::Bf16, Elem::F16].into_iter().flat_map(|e| BLOCKS.map(|b| (e, b)))
        {
            let mut case = case(rows, vocab, elem);
            // Of two that are equally likely the first one counts, and in the second row it is the very last.
            for (row, logits) in case.logits.chunks_mut(vocab).enumerate() {
                let largest = logits.iter().fold(f32::MIN, |m, x| m.max(*x));
                logits[vocab - 1] = if row == 1 { round(largest + 1.0, elem) } else { largest };
            }
            let spec = CrossEntropySpec { rows, vocab, logits: elem, block };
            let args = vec![
                Data::of(elem, &case.logits),
                Data::i32(&case.targets),
                Data::f32(&vec![SENTINEL; rows]),
                Data::f32(&vec![SENTINEL; rows]),
                Data::i32(&vec![-7; rows]),
            ];
            let out = run(&log_probs(&spec), args);
            let (mut chosen, mut best, mut places) = (vec![], vec![], vec![]);
            for (row, target) in case.logits.chunks(vocab).zip(&case.targets) {
                let max = row.iter().fold(f64::NEG_INFINITY, |m, x| m.max(f64::from(*x)));
                let log_sum = max + row.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln();
                chosen.push(usize::try_from(*target).map_or(0.0, |t| f64::from(row[t]) - log_sum));
                best.push(max - log_sum);
                places.push(row.iter().position(|x| f64::from(*x) == max).expect("a largest") as i32);
            }
            let what = format!("{spec:?}");
            assert_close(&floats(&out[2]), &chosen, 1e-5, 1e-6, &what);
            assert_close(&floats(&out[3]), &best, 1e-5, 1e-6, &what);
            assert_eq!(ints(&out[4]), places, "{what}");
            // Where the target is the most likely one, the two are one number.
            let pairs = floats(&out[2]).into_iter().zip(floats(&out[3]));
            for ((target, place), (a, b)) in case.targets.iter().zip(&places).zip(pairs) {
                assert!(target != place || a == b, "{what}");
            }
        }
    }
}

#[test]
fn no_number_is_the_largest_of_what_is_none() {
    let spec = CrossEntropySpec { rows: 3, vocab: 5, logits: Elem::F32, block: BLOCKS[0] };
    let inf = f32::INFINITY;
    let logits = [[-inf; 5], [1.0, 2.0, 0.0, 2.0, 0.0], [0.0, -inf, 3.0, -inf, 1.0]].concat();
    let args = vec![
        Data::f32(&logits),
        Data::i32(&[-1, 5, 1]),
        Data::f32(&[SENTINEL; 3]),
        Data::f32(&[SENTINEL; 3]),
        Data::i32(&[-7; 3]),
    ];
    let out = run(&log_probs(&spec), args);
    assert_eq!(ints(&out[4]), [0, 1, 2]);
    let chosen = floats(&out[2]);
    assert_eq!((chosen[1], chosen[2]), (-inf, -inf), "beyond the vocabulary, and masked");
}

#[test]
fn gradients() {
    for (rows, vocab) in SHAPES {
        for (elem, block) in
            [Elem::F32, Elem::Bf16, Elem::F16].into_iter().flat_map(|e| BLOCKS.map(|b| (e, b)))
        {
            let case = case(rows, vocab, elem);
            let spec = CrossEntropyRowsSpec { rows, vocab, logits: elem, in_place_gradient: true, block };
            let what = format!("{spec:?}");
            // A scale of about 1, so that the absolute tolerance means something.
            let (inverse, dloss) = (0.25f32, 3.0f32);
            let expected = case.gradient(vocab, 0.75);
            let args = vec![
                Data::of(elem, &case.logits),
                Data::i32(&case.targets),
                Data::f32(&vec![SENTINEL; rows]),
                Data::f32(&[inverse]),
                Data::f32(&[dloss]),
            ];
            let out = run(&cross_entropy_rows(&spec), args);
            assert_close(&floats(&out[0]), &expected, 1e-6, tolerance(elem), &what);
            assert_close(&floats(&out[2]), &case.nll, 1e-5, 1e-6, &what);

            let spec = CrossEntropySpec { rows, vocab, logits: elem, block };
            let scale = 3.0 * case.count as f64;
            let args = vec![
                Data::of(elem, &case.logits),
                Data::i32(&case.targets),
                Data::f32(&[scale as f32]),
                Data::of(elem, &vec![SENTINEL; rows * vocab]),
            ];
            let out = run(&cross_entropy_grad(&spec), args);
            let expected = case.gradient(vocab, 3.0);
            assert_close(&floats(&out[3]), &expected, 1e-5, tolerance(elem), &what);
        }
    }
}

#[test]
fn a_target_beyond_the_vocabulary_is_loud() {
    let (rows, vocab, block) = (3, 65, BLOCKS[0]);
    let logits = random(rows * vocab, 1);
    let targets = [3, 65, i32::MAX];
    let spec = CrossEntropyRowsSpec { rows, vocab, logits: Elem::F32, in_place_gradient: true, block };
    let args = vec![
        Data::f32(&logits),
        Data::i32(&targets),
        Data::f32(&[SENTINEL; 3]),
        Data::f32(&[1.0]),
        Data::f32(&[1.0]),
    ];
    let out = run(&cross_entropy_rows(&spec), args);
    let nll = floats(&out[2]);
    assert!(nll[0].is_finite());
    assert_eq!(nll[1..], [f32::INFINITY; 2]);
    assert!(floats(&out[0])[vocab..].iter().all(|x| *x == 0.0));
}

#[test]
fn counting() {
    for tokens in [1, 63, 4096, 4097, 9001] {
        let targets: Vec<i32> = (0..tokens as i32).map(|i| if i % 3 == 0 { -1 } else { i }).collect();
        let count = targets.iter().filter(|t| **t >= 0).count();
        let args = vec![Data::i32(&targets), Data::f32(&[SENTINEL])];
        let out = run(&count_targets(&CountTargetsSpec { tokens }), args);
        assert_close(&floats(&out[1]), &[1.0 / count.max(1) as f64], 0.0, 1e-6, &tokens.to_string());
    }
}

#[test]
fn logits_of_any_size_do_not_overflow() {
    let (vocab, block) = (5000, BLOCKS[0]);
    for shift in [-1e4f32, 0.0, 1e4, 1e20, -1e20] {
        let mut logits = vec![shift; vocab];
        logits[4999] = shift + 1.0;
        let spec =
            CrossEntropyRowsSpec { rows: 1, vocab, logits: Elem::F32, in_place_gradient: false, block };
        let args = vec![Data::f32(&logits), Data::i32(&[4999]), Data::f32(&[SENTINEL])];
        let out = run(&cross_entropy_rows(&spec), args);
        // The numbers as f32 sees them: at 1e20 the difference is gone.
        let gap = f64::from(logits[4999]) - f64::from(shift);
        let expected = (4999.0 * (-gap).exp() + 1.0).ln();
        let absolute = f64::from(shift.abs()) * 1e-7 + 1e-5;
        assert_close(&floats(&out[2]), &[expected], absolute, 1e-5, &shift.to_string());
    }
}
