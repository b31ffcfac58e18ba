//! Sums over a middle axis, and the global norm.

use linc_tile::Elem;
use linc_tile::library::parts::{PartsReduction, ReducePartsSpec, reduce_parts};
use linc_tile::library::reduce::{
    NormFinishSpec, SQUARES_BLOCK, SumMiddleSpec, SumOfSquaresSpec, norm_finish, sum_middle, sum_of_squares,
};

use super::harness::{Data, SENTINEL, assert_close, floats, random, round, run};

#[test]
fn sum_over_the_middle() {
    let shapes = [
        (1, 1, 1),
        (3, 65, 1),
        (63, 1, 1),
        (257, 3, 1),
        (2, 9000, 1),
        (1, 257, 65),
        (1, 65, 3000),
        (3, 1, 65),
        (65, 3, 63),
        (2, 63, 2),
        (5, 2, 1030),
        (40, 5, 2),
        (5000, 5, 2),
        (1, 20000, 3),
    ];
    for (outer, mid, inner) in shapes {
        let x = random(outer * mid * inner, 1);
        let mut expected = vec![0.0; outer * inner];
        for o in 0..outer {
            for m in 0..mid {
                for i in 0..inner {
                    expected[o * inner + i] += f64::from(x[(o * mid + m) * inner + i]);
                }
            }
        }
        let spec = SumMiddleSpec { outer, mid, inner, x: Elem::F32, y: Elem::F32, strip: 16 };
        let out = run(&sum_middle(&spec), vec![Data::f32(&x), Data::f32(&vec![SENTINEL; outer * inner])]);
        assert_close(&floats(&out[1]), &expected, 1e-6 * (mid as f64).sqrt(), 1e-5, &format!("{spec:?}"));
    }
}

#[test]
fn sum_in_bf16_accumulates_in_f32() {
    // 4096 ones: bf16 accumulation would stop at 256.
    let spec = SumMiddleSpec { outer: 1, mid: 4096, inner: 3, x: Elem::Bf16, y: Elem::Bf16, strip: 16 };
    let out = run(&sum_middle(&spec), vec![Data::bf16(&vec![1.0; 3 * 4096]), Data::bf16(&[0.0; 3])]);
    assert_close(&floats(&out[1]), &[4096.0; 3], 0.0, 0.0, "bf16");
}

#[test]
fn global_norm_of_three_tensors() {
    let sizes = [1, 65, 2 * SQUARES_BLOCK + 5000];
    let mut partials = vec![];
    let mut expected = 0.0;
    for (i, numel) in sizes.into_iter().enumerate() {
        let elem = if i == 1 { Elem::Bf16 } else { Elem::F32 };
        let x: Vec<f32> = random(numel, i as u64).into_iter().map(|x| round(x, elem)).collect();
        let spec = SumOfSquaresSpec { numel, x: elem };
        assert_eq!(spec.partials(), numel.div_ceil(SQUARES_BLOCK));
        let out = run(
            &sum_of_squares(&spec),
            vec![Data::of(elem, &x), Data::f32(&vec![SENTINEL; spec.partials()])],
        );
        let out = floats(&out[1]);
        for (part, block) in out.iter().zip(x.chunks(SQUARES_BLOCK)) {
            let sum: f64 = block.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert_close(&[*part], &[sum], 0.0, 1e-5, "partial");
            expected += sum;
        }
        partials.extend(out);
    }
    let count = partials.len();
    assert_eq!(count, 5);
    let out = run(
        &norm_finish(&NormFinishSpec { partials: count }),
        vec![Data::f32(&partials), Data::f32(&[SENTINEL])],
    );
    assert_close(&floats(&out[1]), &[expected.sqrt()], 0.0, 1e-5, "norm");
}

#[test]
fn norm_of_many_partials() {
    for count in [1, 63, 4096, 10001] {
        let partials: Vec<f32> = random(count, 9).into_iter().map(f32::abs).collect();
        let expected: f64 = partials.iter().map(|x| f64::from(*x)).sum();
        let out = run(
            &norm_finish(&NormFinishSpec { partials: count }),
            vec![Data::f32(&partials), Data::f32(&[SENTINEL])],
        );
        assert_close(&floats(&out[1]), &[expected.sqrt()], 0.0, 1e-5, "norm");
    }
}

/// Sums of f32 in the one order that all share: bit by bit.
#[test]
fn parts_meet_in_pairs() {
    fn tree(parts: &[Vec<f32>], by: fn(f32, f32) -> f32) -> Vec<f32> {
        match parts {
            [part] => part.clone(),
            _ => {
                let mut half = 1;
                while half * 2 < parts.len() {
                    half *= 2;
                }
                let (left, right) = (tree(&parts[..half], by), tree(&parts[half..], by));
                left.into_iter().zip(right).map(|(a, b)| by(a, b)).collect()
            }
        }
    }
    for (parts, numel) in [(1, 5), (2, 4096), (3, 4097), (4, 1), (6, 9000), (7, 33), (16, 130)] {
        let x: Vec<Vec<f32>> = (0..parts).map(|part| random(numel, part as u64 + 1)).collect();
        for (by, plain) in [
            (PartsReduction::Sum, (|a, b| a + b) as fn(f32, f32) -> f32),
            (PartsReduction::Max, f32::max as fn(f32, f32) -> f32),
        ] {
            let spec = ReducePartsSpec { parts, numel, by };
            let out =
                run(&reduce_parts(&spec), vec![Data::f32(&x.concat()), Data::f32(&vec![SENTINEL; numel])]);
            assert_eq!(floats(&out[1]), tree(&x, plain), "{spec:?}");
        }
    }
}

/// What one rank computed wrong is seen by all, whichever part it is.
#[test]
fn parts_with_nan_have_no_sum_and_no_maximum() {
    for by in [PartsReduction::Sum, PartsReduction::Max] {
        for parts in 2..=5 {
            for wrong in 0..parts {
                let x: Vec<f32> =
                    (0..parts).map(|part| if part == wrong { f32::NAN } else { part as f32 }).collect();
                let spec = ReducePartsSpec { parts, numel: 1, by };
                let out = run(&reduce_parts(&spec), vec![Data::f32(&x), Data::f32(&[SENTINEL])]);
                assert!(floats(&out[1])[0].is_nan(), "{spec:?} with NaN at {wrong}");
            }
        }
    }
}
