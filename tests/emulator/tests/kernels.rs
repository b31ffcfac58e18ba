//! Right kernels, written by hand in the vocabulary of the prelude: their results are those of plain loops, in every
//! order of the threads.

use linc_emulator::{Emulator, Error, LaunchOptions, Operation, Order};
use linc_tile::interp::Buffer;
use linc_tile::ir::Mode;

use crate::common;
use crate::common::{
    Case, attention, bf16_noise, block_sum, matmul, nans, narrow, noise, scale, through_shared, warp_sum,
    warpgroup, widen,
};

#[test]
fn elements_one_by_one() {
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = scale();
        case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        let expected: Vec<f32> = case.f32(0).iter().map(|x| 2.0f32.mul_add(*x, 1.0)).collect();
        assert_eq!(case.f32(1), expected);
    }
}

#[test]
fn a_sum_through_shared_memory() {
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = block_sum();
        let report = case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        let tree = |mut x: Vec<f32>| {
            while x.len() > 1 {
                let half = x.len() / 2;
                x = (0..half).map(|i| x[i] + x[i + half]).collect();
            }
            x[0]
        };
        let x = case.f32(0);
        let sums = x.chunks(256).map(|block| tree(block.to_vec()));
        let squares = x.chunks(256).map(|block| tree(block.iter().map(|x| x * x).collect()));
        assert_eq!(case.f32(1), sums.chain(squares).collect::<Vec<f32>>());
        assert_eq!(report.barriers, 4 * 2 * 10);
    }
}

#[test]
fn a_sum_between_lanes() {
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = warp_sum();
        let report = case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        let x = case.bf16(0);
        for warp in 0..4 {
            let mut sums = x[warp * 32..][..32].to_vec();
            for mask in [16, 8, 4, 2, 1] {
                sums = (0..32).map(|lane| sums[lane] + sums[lane ^ mask]).collect();
            }
            assert_eq!(case.f32(1)[warp], sums[0]);
            for lane in 0..32 {
                assert_eq!(case.f32(2)[warp * 32 + lane], x[warp * 32 + (lane + 3) % 32]);
            }
        }
        assert_eq!(report.count(Operation::ShuffleXor), 4 * 5);
        assert_eq!(report.count(Operation::Shuffle), 4);
    }
}

#[test]
fn a_matmul_on_tensor_cores() {
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = matmul();
        let report = case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        let (a, b) = (case.bf16(0), case.bf16(1));
        for i in 0..64 {
            for j in 0..64 {
                let sum = (0..64).fold(0.0, |sum, k| sum + a[i * 64 + k] * b[k * 64 + j]);
                assert_eq!(case.f32(2)[i * 64 + j], sum, "({i}, {j})");
            }
        }
        assert_eq!(report.count(Operation::Mma), 4 * 4 * 8);
    }
}

#[test]
fn copies_through_shared_memory() {
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = through_shared();
        case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        assert_eq!(case.buffers[0], case.buffers[1]);
        // Copies that are not valid read nothing, wherever they point, and leave zeros.
        let mut case = through_shared().with("x + t * 32 + part * 8, true", "x + 1000000 + t * 32, false");
        let report = case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        assert_eq!(case.buffers[1], Buffer::Bf16(vec![0; 128 * 32]));
        assert!(report.global.iter().all(|g| g.parameter == 1));
    }
}

#[test]
fn attention_with_tiles_copied_ahead() {
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = attention(4);
        let started = std::time::Instant::now();
        let report = case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        println!("{order:?}: {:?}, {} switches", started.elapsed(), report.switches);
        assert_eq!(report.bank_conflicts(), 0);
        let (q, k, v, o) = (case.bf16(0), case.bf16(1), case.bf16(2), case.bf16(3));
        for row in 0..256 {
            let score = |key: usize| {
                (0..64).map(|d| f64::from(q[row * 64 + d]) * f64::from(k[key * 64 + d])).sum::<f64>() / 8.0
            };
            let weights: Vec<f64> = (0..=row).map(|key| score(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..64 {
                let expected =
                    weights.iter().enumerate().map(|(key, w)| w * f64::from(v[key * 64 + d])).sum::<f64>()
                        / total;
                let found = f64::from(o[row * 64 + d]);
                assert!((found - expected).abs() < 6e-3, "({row}, {d}): {found}, expected {expected}");
            }
        }
    }
}

#[test]
fn several_kernels_in_one_program() {
    let Some(emulator) = Emulator::find() else { return };
    // Two of one name, and one twice.
    let helped = scale()
        .with("constexpr int COUNT", "__device__ float factor() { return 2.0f; }\nconstexpr int COUNT")
        .with("fmaf(2.0f", "fmaf(factor()");
    let (right, other) = (helped.clone(), helped.with("2.0f", "3.0f"));
    let kernels = [right.kernel.clone(), other.kernel.clone(), block_sum().kernel, right.kernel.clone()];
    let built = emulator.build(&kernels).unwrap();
    let run = |which: usize| {
        let mut case = scale();
        built.run(which, &case.params, &mut case.buffers, &LaunchOptions::default()).unwrap();
        case.f32(1)[0]
    };
    let x = right.f32(0)[0];
    assert_eq!([run(0), run(1), run(3)], [2.0, 3.0, 2.0].map(|by: f32| by.mul_add(x, 1.0)));
}

#[test]
fn values_are_rounded_as_on_the_device() {
    let Some(emulator) = Emulator::find() else { return };
    let mut x = vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.5,
        127.0,
        -126.0,
        -126.5,
        -149.0,
        -200.0,
        1e-40,
        -1e-40,
        129.0,
        300.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::from_bits(0xbf80_8000),
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::from_bits(0x3f80_8001),
    ];
    x.extend(noise(32 - x.len(), 11));
    let text = include_str!("kernels/numerics.cu");
    let mut case = common::Case::new("numerics", text, 32, 0, 1)
        .param("x", Mode::Read, Buffer::F32(x.clone()))
        .param("y", Mode::Write, common::nans(6 * 32))
        .param("narrow", Mode::Write, Buffer::Bf16(vec![0; 32]))
        .param("bits", Mode::Write, Buffer::I32(vec![0; 32]));
    case.run(&emulator, &LaunchOptions::default()).unwrap();
    let Buffer::Bf16(narrowed) = &case.buffers[2] else { panic!("not bf16") };
    let Buffer::I32(packed) = &case.buffers[3] else { panic!("not i32") };
    let y: Vec<&[f32]> = case.f32(1).chunks(32).collect();
    // Rust's and the machine's differ in the last place.
    let near = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= b.abs() * 1e-6;
    let flush = |x: f32| if x.is_subnormal() { 0.0 } else { x };
    for (i, x) in x.into_iter().enumerate() {
        let bf16 = if x.is_nan() { 0x7fff } else { narrow(x) };
        let negated = if x.is_nan() { 0x7fff } else { narrow(-x) };
        assert_eq!(narrowed[i], bf16, "{x}");
        assert_eq!(packed[i] as u32, u32::from(negated) << 16 | u32::from(bf16), "{x}");
        assert_eq!(y[3][i].to_bits(), widen(bf16).to_bits(), "{x}");
        assert!(near(y[0][i], flush(flush(x).exp2())), "2^{x} is {}", y[0][i]);
        assert!(near(y[1][i], 1.0 / x), "1/{x} is {}", y[1][i]);
        assert!(near(y[2][i], 1.0 / x.sqrt()), "1/sqrt {x} is {}", y[2][i]);
        if x.abs() < 80.0 {
            assert!((y[4][i] - x.exp()).abs() <= x.exp() * 1e-5, "e^{x} is {}", y[4][i]);
        }
        if !x.is_nan() {
            let sigmoid = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(y[5][i]) - sigmoid).abs() <= 1e-6, "sigmoid {x} is {}", y[5][i]);
        }
    }
}

#[test]
fn launches_that_do_not_fit_are_refused() {
    let Some(emulator) = Emulator::find() else { return };
    let refused = |change: fn(&mut common::Case, &mut LaunchOptions), expected: &str| {
        let (mut case, mut options) = (scale(), LaunchOptions::default());
        change(&mut case, &mut options);
        let error = case.run(&emulator, &options).unwrap_err();
        assert!(matches!(error, Error::Launch { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused(|case, _| case.kernel.threads = 33, "33 threads");
    refused(|case, _| drop(case.buffers.pop()), "2 parameters, but 1 buffers");
    refused(|case, _| case.buffers[0] = Buffer::I32(vec![]), "parameter x is F32");
    refused(|_, options| options.alignment = vec![4], "1 alignments");
    refused(|_, options| options.alignment = vec![2, 2], "an alignment of 2 bytes");
    let error = scale().with("load<4>", "load<3>").run(&emulator, &LaunchOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Compile { what, .. } if what == "kernel scale"), "{error}");
    assert!(error.to_string().contains("an access has 4, 8 or 16 bytes"), "{error}");
}

#[test]
fn products_of_a_warpgroup() {
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = warpgroup();
        let report = case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        let (a, b) = (case.bf16(0), case.bf16(1));
        let mut expected = vec![0.0f32; 64 * 64];
        for (at, sum) in expected.iter_mut().enumerate() {
            let (m, n) = (at / 64, at % 64);
            *sum = (0..64).fold(0.0, |sum, k| sum + a[k * 64 + m] * b[k * 64 + n]);
            *sum = (0..64).fold(*sum, |sum, k| sum + a[m * 64 + k] * b[n * 64 + k]);
        }
        assert_eq!(case.f32(2), expected);
        assert_eq!(report.count(Operation::Wgmma), 8);
    }
}

/// A panel is 64 columns; a narrower tile has the pattern of its row.
#[test]
fn patterns_of_all_widths() {
    let Some(emulator) = Emulator::find() else { return };
    for (columns, rows) in [(16, 64), (32, 64), (64, 64), (128, 64), (192, 64)] {
        let pieces = (columns / 8usize).min(8);
        let text = format!(
            "extern \"C\" __global__ void __launch_bounds__(128) wide(const bf16* a, const bf16* b, float* c) {{
              int t = threadIdx.x, warp = t / 32, lane = t % 32;
              for (int i = t; i < 64 * {columns} / 8; i += 128) {{
                int row = i / ({columns} / 8), piece = i % ({columns} / 8);
                copy_async16(swizzled<{pieces}, {rows}>(row, piece), a + row * {columns} + piece * 8, true);
                copy_async16({bytes} + swizzled<{pieces}, {rows}>(row, piece), b + row * {columns} + piece * 8, true);
              }}
              copy_async_commit();
              copy_async_wait<0>();
              fence_async();
              barrier();
              float sums[2][16];
              const u64 left = matrix_descriptor<{pieces}>(0, 1), right = matrix_descriptor<{pieces}>({bytes}, 1);
              wgmma_fence();
              for (int k = 0; k < {columns} / 16; k++) {{
                const int at = k / {steps} * {panel} + k % {steps} * 2;
                wgmma_bf16<0, 0>(sums[0], sums[1], left + at, right + at, k > 0);
              }}
              wgmma_commit();
              wgmma_wait<0>();
              for (int n = 0; n < 8; n++) {{
                int row = warp * 16 + lane / 4, column = n * 8 + lane % 4 * 2;
                store<2>(c + row * 64 + column, &sums[0][n * 2]);
                store<2>(c + (row + 8) * 64 + column, &sums[1][n * 2]);
              }}
            }}",
            bytes = rows * columns * 2,
            steps = pieces / 2,
            panel = rows * pieces,
        );
        let bytes = (2 * rows * columns * 2) as u32;
        let mut case = Case::new("wide", &text, 128, bytes, 1)
            .param("a", Mode::Read, bf16_noise(64 * columns, 4))
            .param("b", Mode::Read, bf16_noise(64 * columns, 5))
            .param("c", Mode::Write, nans(64 * 64));
        case.run(&emulator, &LaunchOptions::default()).unwrap();
        let (a, b) = (case.bf16(0), case.bf16(1));
        let dot = |m: usize, n: usize| {
            (0..columns).fold(0.0f32, |sum, k| sum + a[m * columns + k] * b[n * columns + k])
        };
        let expected: Vec<f32> = (0..64 * 64).map(|at| dot(at / 64, at % 64)).collect();
        assert_eq!(case.f32(2), expected, "{columns} columns");
    }
}
