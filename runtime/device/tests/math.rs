//! Accuracy and special values of the transcendental functions, on every instruction set.

use linc_cases::Random;
use linc_device::cpu::Cpu;
use linc_tile::interp::Buffer;
use linc_tile::{Builder, Elem, Kernel, Mode, Unary};

use crate::support::{devices, run_on};

const N: usize = 4099;

fn kernel(op: Unary) -> Kernel {
    let mut b = Builder::new(format!("{op:?}").to_lowercase(), [1, 1, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let y = b.param("y", Elem::F32, Mode::Write);
    let zero = b.index(0);
    let tile = b.load(x, zero, &[N], &[(1, None)]);
    let value = b.unary(op, tile);
    b.store(y, zero, value, &[(1, None)]);
    b.finish()
}

fn apply(cpu: &mut Cpu, op: Unary, x: &[f32]) -> Vec<f32> {
    let mut padded = x.to_vec();
    padded.resize(N, 0.5);
    let out = run_on(cpu, &kernel(op), &[Buffer::F32(padded), Buffer::F32(vec![0.0; N])]);
    match &out[1] {
        Buffer::F32(y) => y[..x.len()].to_vec(),
        other => panic!("{other:?} is not f32"),
    }
}

/// Distance in units in the last place of f32; the subnormal unit below the smallest normal number.
fn ulps(actual: f32, expected: f64) -> f64 {
    let exponent = expected.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    (f64::from(actual) - expected).abs() / 2f64.powf(exponent - 23.0)
}

fn worst(op: Unary, exact: impl Fn(f64) -> f64, sample: impl Fn(&mut Random) -> f32, bar: f64) {
    let mut random = Random::new(5);
    let x: Vec<f32> = (0..N).map(|_| sample(&mut random)).collect();
    for mut cpu in devices() {
        let y = apply(&mut cpu, op, &x);
        for (x, y) in x.iter().zip(&y) {
            let e = exact(f64::from(*x));
            let off = ulps(*y, e);
            assert!(
                off <= bar,
                "{op:?}({x:e}) on {} is {y:e}, expected {e:e}: {off} ulp",
                cpu.level().name()
            );
        }
    }
}

#[test]
fn functions_are_accurate() {
    let wide = |random: &mut Random| ((random.uniform() - 0.5) * 170.0) as f32;
    let near = |random: &mut Random| ((random.uniform() - 0.5) * 4.0) as f32;
    let positive = |random: &mut Random| ((random.uniform() - 0.5) * 170.0).exp() as f32;
    let one = |random: &mut Random| (1.0 + (random.uniform() - 0.5) * 0.2) as f32;
    let tiny = |random: &mut Random| ((random.uniform() - 0.5) * 1e-3) as f32;
    worst(Unary::Exp, f64::exp, wide, 1.5);
    worst(Unary::Exp, f64::exp, near, 1.5);
    worst(Unary::Exp, f64::exp, |r| (-87.0 - r.uniform() * 16.0) as f32, 1.5);
    worst(Unary::Exp2, f64::exp2, |r| ((r.uniform() - 0.5) * 250.0) as f32, 1.5);
    worst(Unary::Exp2, f64::exp2, near, 1.5);
    worst(Unary::Exp2, f64::exp2, |r| (-126.0 - r.uniform() * 22.0) as f32, 1.5);
    worst(Unary::Log, f64::ln, positive, 1.5);
    worst(Unary::Log, f64::ln, one, 1.5);
    worst(Unary::Log, f64::ln, |r| (r.uniform() * 1e-39) as f32, 1.5);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    worst(Unary::Sigmoid, sigmoid, near, 2.5);
    worst(Unary::Sigmoid, sigmoid, wide, 3.0);
    worst(Unary::Tanh, f64::tanh, near, 2.5);
    worst(Unary::Tanh, f64::tanh, wide, 2.5);
    worst(Unary::Tanh, f64::tanh, tiny, 2.5);
}

#[test]
fn special_values() {
    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    let cases: [(Unary, &[(f32, f32)]); 5] = [
        (
            Unary::Exp,
            &[
                (-INF, 0.0),
                (INF, INF),
                (NAN, NAN),
                (0.0, 1.0),
                (-0.0, 1.0),
                (-200.0, 0.0),
                (f32::MIN, 0.0),
                (89.5, INF),
            ],
        ),
        (
            Unary::Exp2,
            &[
                (-INF, 0.0),
                (INF, INF),
                (NAN, NAN),
                (0.0, 1.0),
                (10.0, 1024.0),
                (-126.0, f32::MIN_POSITIVE),
                (-200.0, 0.0),
                (f32::MIN, 0.0),
                (128.0, INF),
                (f32::MAX, INF),
            ],
        ),
        (
            Unary::Log,
            &[(0.0, -INF), (-0.0, -INF), (INF, INF), (-1.0, NAN), (-INF, NAN), (NAN, NAN), (1.0, 0.0)],
        ),
        (Unary::Sigmoid, &[(-INF, 0.0), (INF, 1.0), (NAN, NAN), (0.0, 0.5), (200.0, 1.0), (-200.0, 0.0)]),
        (Unary::Tanh, &[(-INF, -1.0), (INF, 1.0), (NAN, NAN), (0.0, 0.0), (50.0, 1.0), (-50.0, -1.0)]),
    ];
    for mut cpu in devices() {
        for (op, pairs) in cases {
            let x: Vec<f32> = pairs.iter().map(|(x, _)| *x).collect();
            // As part of a vector and as the rest behind the last whole one.
            let mut long = x.clone();
            long.resize(N - x.len(), 0.25);
            long.extend(&x);
            let y = apply(&mut cpu, op, &long);
            for start in [0, N - x.len()] {
                for (i, (x, e)) in pairs.iter().enumerate() {
                    let y = y[start + i];
                    assert!(y == *e || (y.is_nan() && e.is_nan()), "{op:?}({x}) is {y}, expected {e}");
                }
            }
        }
        let negative = apply(&mut cpu, Unary::Tanh, &[-0.0]);
        assert!(negative[0] == 0.0 && negative[0].is_sign_negative());
    }
}

/// `[max, min]` of two tiles, and the maxima of rows and columns.
#[test]
fn extremes_keep_nan() {
    let mut b = Builder::new("extremes", [1, 1, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let y = b.param("y", Elem::F32, Mode::Write);
    let (zero, half) = (b.index(0), b.index(7 * 37));
    let shape = [7, 37];
    let axes = [(37, None), (1, None)];
    let (p, q) = (b.load(x, zero, &shape, &axes), b.load(x, half, &shape, &axes));
    let results = [b.max(p, q), b.min(p, q)];
    let (rows, cols) = (b.reduce_max(1, p), b.reduce_max(0, p));
    for (k, value) in results.into_iter().enumerate() {
        let at = b.index(k * 7 * 37);
        b.store(y, at, value, &axes);
    }
    let at = b.index(2 * 7 * 37);
    b.store(y, at, rows, &[(1, None)]);
    let at = b.index(2 * 7 * 37 + 7);
    b.store(y, at, cols, &[(1, None)]);
    let kernel = b.finish();
    let mut random = Random::new(1);
    let mut input: Vec<f32> = (0..2 * 7 * 37).map(|_| random.normal() as f32).collect();
    for at in [3, 36, 80, 120, 7 * 37 + 3, 7 * 37 + 90] {
        input[at] = f32::NAN;
    }
    let buffers = [Buffer::F32(input), Buffer::F32(vec![0.0; 2 * 7 * 37 + 44])];
    let expected = linc_cases::reference(&kernel, &buffers);
    let marked = expected[1].to_f64().iter().filter(|x| x.is_nan()).count();
    assert!(marked > 12, "the interpreter keeps NaN");
    for mut cpu in devices() {
        let actual = run_on(&mut cpu, &kernel, &buffers);
        for (a, e) in actual[1].to_f64().into_iter().zip(expected[1].to_f64()) {
            assert!(a == e || (a.is_nan() && e.is_nan()), "{a} instead of {e} on {}", cpu.level().name());
        }
    }
}
