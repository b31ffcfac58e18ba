//! Running a kernel on the tile interpreter, test data, and comparison.

use linc_tile::interp::{Buffer, RunOptions};
use linc_tile::{Elem, Kernel, interp};

/// What destinations hold before a kernel runs; a bf16 or f16 too.
pub(crate) const SENTINEL: f32 = -768.0;

/// The argument of one parameter.
#[derive(Clone)]
pub(crate) struct Data(Buffer);

impl Data {
    pub(crate) fn f32(values: &[f32]) -> Self {
        Data(Buffer::F32(values.to_vec()))
    }

    pub(crate) fn bf16(values: &[f32]) -> Self {
        Data(Buffer::Bf16(values.iter().map(|x| half::bf16::from_f32(*x).to_bits()).collect()))
    }

    pub(crate) fn i32(values: &[i32]) -> Self {
        Data(Buffer::I32(values.to_vec()))
    }

    /// Values as a float type.
    pub(crate) fn of(elem: Elem, values: &[f32]) -> Self {
        let values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        Data(Buffer::from_f64(elem, &values).expect("a float type"))
    }
}

/// Contents as f32.
pub(crate) fn floats(data: &Data) -> Vec<f32> {
    data.0.to_f64().into_iter().map(|x| x as f32).collect()
}

/// Contents of i32.
pub(crate) fn ints(data: &Data) -> Vec<i32> {
    data.0.to_f64().into_iter().map(|x| x as i32).collect()
}

/// Runs a kernel with race checks and returns its arguments as it leaves them, which must be the same bits in
/// whatever order the programs run.
pub(crate) fn run(kernel: &Kernel, args: Vec<Data>) -> Vec<Data> {
    let run_in_order = |order: u64| {
        let mut buffers: Vec<Buffer> = args.iter().map(|data| data.0.clone()).collect();
        let options = RunOptions { order, check_races: true, ..RunOptions::default() };
        interp::run(kernel, &mut buffers, &options).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
        buffers
    };
    // A NaN is like another of the same bits.
    let bits = |buffers: &[Buffer]| -> Vec<Vec<u64>> {
        buffers.iter().map(|buffer| buffer.to_f64().into_iter().map(f64::to_bits).collect()).collect()
    };
    let (result, other) = (run_in_order(0), run_in_order(1));
    let alike = result == other || bits(&result) == bits(&other);
    assert!(alike, "{}: the order of the programs matters", kernel.name);
    result.into_iter().map(Data).collect()
}

/// Uniform numbers in (-1, 1), never 0 (which would hide a missing factor).
pub(crate) fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 + 0.5) / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Ids below `limit`.
pub(crate) fn random_ids(count: usize, limit: usize, seed: u64) -> Vec<i32> {
    let unit = |x: f32| (f64::from(x) + 1.0) / 2.0;
    random(count, seed).into_iter().map(|x| (unit(x) * limit as f64) as i32).collect()
}

/// A number as an element type holds it.
pub(crate) fn round(x: f32, elem: Elem) -> f32 {
    floats(&Data::of(elem, &[x]))[0]
}

/// Relative error of one rounding to a narrow type, or what is given for f32.
pub(crate) fn unit(elem: Elem, single: f64) -> f64 {
    match elem {
        Elem::Bf16 => 1.0 / 256.0,
        Elem::F16 => 1.0 / 2048.0,
        Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => single,
    }
}

/// Exact comparison.
#[track_caller]
pub(crate) fn assert_equal(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!(a == e, "{what}: element {i} is {a}, expected {e}");
    }
}

/// Comparison to an absolute and a relative tolerance.
#[track_caller]
pub(crate) fn assert_close(actual: &[f32], expected: &[f64], absolute: f64, relative: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - e).abs();
        let close = error <= absolute + relative * e.abs();
        assert!(close, "{what}: element {i} is {a}, expected {e}");
    }
}
