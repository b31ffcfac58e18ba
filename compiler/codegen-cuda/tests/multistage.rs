//! Kernels that stream through memory, at the sizes of a model: accesses move whole sectors, and wide ones.

use std::collections::{BTreeMap, BTreeSet};

use linc_cases::{Case, inputs};
use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel, compile};
use linc_emulator::{Access, Emulator, LaunchOptions, Order};
use linc_tile::library::TILE;
use linc_tile::library::embedding::{EmbeddingSpec, embedding};
use linc_tile::library::loss::{CrossEntropyRowsSpec, cross_entropy_rows};
use linc_tile::library::norm::{RmsNormGradSpec, RmsNormSpec, rms_norm, rms_norm_grad};
use linc_tile::library::optimizer::{AdamWKernelSpec, Decay, adamw};
use linc_tile::library::pointwise::{
    PointBinary, PointInput, PointOutput, PointStep, PointUnary, PointwiseSpec, pointwise,
};
use linc_tile::library::reduce::{SumMiddleSpec, SumOfSquaresSpec, sum_middle, sum_of_squares};
use linc_tile::library::rope::{Positions, RopeSpec, rope};
use linc_tile::{Builder, Elem, Kernel, Mode, Op, ParamId};

const ROWS: usize = 8;
const D: usize = 2048;

fn kernels(elem: Elem) -> Vec<Kernel> {
    let dense = |cols| PointInput { elem, row_stride: cols, col_stride: 1 };
    let (x, w, y, eps) = (elem, Elem::F32, elem, 1e-5);
    let (dy, dx) = (elem, elem);
    let strides = [ROWS * D, D, 64];
    vec![
        rms_norm(&RmsNormSpec { rows: ROWS, d: D, eps, x_stride: D, x, w, y, residual: true }),
        rms_norm_grad(&RmsNormGradSpec {
            rows: ROWS,
            d: D,
            eps,
            blocks: 2,
            x_stride: D,
            x,
            w,
            dy,
            dx,
            residual: true,
        }),
        pointwise(&PointwiseSpec {
            rows: ROWS,
            cols: D,
            // gate and up side by side in one product
            inputs: vec![
                PointInput { row_stride: 2 * D, ..dense(D) },
                PointInput { row_stride: 2 * D, ..dense(D) },
            ],
            steps: vec![
                PointStep::Input(0),
                PointStep::Unary(PointUnary::Silu, 0),
                PointStep::Input(1),
                PointStep::Binary(PointBinary::Mul, 1, 2),
            ],
            outputs: vec![PointOutput { step: 3, elem, row_stride: D }],
            block: TILE,
        }),
        rope(&RopeSpec {
            batch: 1,
            seq: ROWS,
            heads: 32,
            dim: 64,
            x: elem,
            x_strides: strides,
            y: elem,
            y_strides: strides,
            table_len: ROWS,
            block: 1,
            positions: Positions::FromZero,
            inverse: false,
        }),
        embedding(&EmbeddingSpec { tokens: ROWS, d: D, vocab: 5, table: Elem::F32, y: elem }),
        cross_entropy_rows(&CrossEntropyRowsSpec {
            rows: 2,
            vocab: 32064,
            logits: elem,
            in_place_gradient: true,
            block: (4, if elem == Elem::F32 { 2048 } else { 4096 }),
        }),
        adamw(&AdamWKernelSpec {
            numel: ROWS * D,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            decay: Decay::Decoupled,
            g: Elem::F32,
            guarded: false,
        }),
        sum_of_squares(&SumOfSquaresSpec { numel: 4 * ROWS * D, x: elem }),
        sum_middle(&SumMiddleSpec { outer: 1, mid: ROWS, inner: D, x: Elem::F32, y: Elem::F32, strip: 16 }),
    ]
}

#[test]
fn accesses_move_whole_sectors() {
    let Some(emulator) = Emulator::find() else { return };
    for elem in [Elem::F32, Elem::Bf16] {
        let cases: Vec<Case> = kernels(elem)
            .into_iter()
            .map(|kernel| Case::new(&kernel, &inputs(&kernel, 70_000, 5, 1), (1.0, 1.0)))
            .collect();
        let generate = |case: &Case| {
            let options =
                CudaCodegenOptions { arch: Arch::Sm90a, alignment: vec![64; case.kernel.params.len()] };
            compile(&case.kernel, &options).unwrap_or_else(|e| panic!("{e}"))
        };
        let generated: Vec<CudaKernel> = cases.iter().map(generate).collect();
        let built = emulator.build(&generated).unwrap_or_else(|e| panic!("{e}"));
        for (i, case) in cases.iter().enumerate() {
            let mut buffers = case.buffers.clone();
            let report = built.run(i, &case.kernel.params, &mut buffers, &LaunchOptions::default());
            let report = report.unwrap_or_else(|e| panic!("{e}"));
            let name = &case.kernel.name;
            // A rotation's angles, and rows of logits in blocks that do not end with a sector, share some.
            let least = if name.starts_with("rope") || name.starts_with("cross_entropy") { 0.7 } else { 1.0 };
            let vectors = vectors_beside_matrices(&case.kernel);
            // Vectors have the width of the matrices: f32 beside bf16 comes in two accesses to each sector, the second from
            // the cache.
            for (access, beside, least) in [
                (Access::Load, false, least),
                (Access::Store, false, least),
                (Access::Load, true, 0.5),
                (Access::Store, true, 0.5),
            ] {
                let share = report.sectors_of(access, |p| vectors.contains(&p) == beside).efficiency();
                assert!(
                    share >= least,
                    "{name}: {access:?} uses {share} of its sectors\n{:?}",
                    report.global
                );
            }
            assert_eq!(report.bank_conflicts(), 0, "{name}: {:?}", report.shared);
        }
    }
}

/// Parameters that a kernel sees as vectors only, where others are matrices.
fn vectors_beside_matrices(kernel: &Kernel) -> BTreeSet<usize> {
    let mut axes: BTreeMap<usize, usize> = BTreeMap::new();
    kernel.for_each_stmt(|stmt| {
        if let Op::Load(view) | Op::Store(view, _) = &stmt.op {
            let most = axes.entry(view.param.0 as usize).or_default();
            *most = view.axes.len().max(*most);
        }
    });
    let matrices = axes.values().any(|n| *n == 2);
    axes.into_iter().filter(|(_, n)| matrices && *n < 2).map(|(param, _)| param).collect()
}

/// A loop over rows of `x`, which it also writes to, on the emulator beside the interpreter.
fn agrees(name: &str, body: impl FnOnce(&mut Builder, ParamId, ParamId)) {
    let Some(emulator) = Emulator::find() else { return };
    let mut b = Builder::new(name, [1, 1, 1]);
    let x = b.param("x", Elem::F32, Mode::ReadWrite);
    let y = b.param("y", Elem::F32, Mode::Write);
    body(&mut b, x, y);
    let kernel = b.finish();
    let case = Case::new(&kernel, &inputs(&kernel, 4 * 4096, 5, 1), (1e-5, 1e-5));
    let generated = compile(&kernel, &CudaCodegenOptions { arch: Arch::Sm80, alignment: vec![64; 2] });
    let generated = generated.unwrap_or_else(|e| panic!("{e}"));
    assert!(generated.text.contains("copy_async16") != name.contains("order"), "{}", generated.text);
    let built = emulator.build(std::slice::from_ref(&generated)).unwrap_or_else(|e| panic!("{e}"));
    for order in [Order::RoundRobin, Order::Reverse, Order::Permuted(1), Order::Greedy(0), Order::Greedy(7)] {
        let mut buffers = case.buffers.clone();
        let launch = LaunchOptions { order, ..LaunchOptions::default() };
        built.run(0, &kernel.params, &mut buffers, &launch).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(case.difference(&buffers, &case.expected()), None);
    }
}

#[test]
fn a_load_behind_a_store_does_not_come_ahead() {
    agrees("order", |b, x, y| {
        let (zero, end, none) = (b.index(0), b.index(3 * 4096), b.float(0.0));
        let sum = b.for_loop(zero, end, 4096, &[none], |b, at, carried| {
            let (all, axes) = ([4096], [(1, None)]);
            let two = b.full(2.0, &all);
            b.store(x, at, two, &axes);
            let tile = b.load(x, at, &all, &axes);
            let part = b.sum(0, tile);
            vec![b.add(carried[0], part)]
        });
        b.store(y, zero, sum[0], &[]);
    });
}

#[test]
fn what_is_read_ahead_is_not_overwritten_by_others() {
    agrees("race", |b, x, y| {
        let (zero, end) = (b.index(0), b.index(2 * 8192));
        // Leaves something in the memory that threads share.
        let first = b.load(x, zero, &[4096], &[(1, None)]);
        let first = b.sum(0, first);
        let none = b.full(-1e30, &[4096]);
        let top = b.for_loop(zero, end, 8192, &[none], |b, at, carried| {
            let tile = b.load(x, at, &[2, 4096], &[(4096, None), (1, None)]);
            let most = b.reduce_max(0, tile);
            vec![b.max(carried[0], most)]
        });
        let one = b.index(4096);
        let first = b.splat(first, &[4096]);
        b.store(x, one, first, &[(1, None)]);
        b.store(y, zero, top[0], &[(1, None)]);
    });
}
