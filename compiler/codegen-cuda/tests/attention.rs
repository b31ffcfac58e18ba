//! Generated attention kernels on the emulator: errors no more than twice those of the same computation rounded where
//! the kernel rounds, the same bits in every run, no bank conflicts, whole sectors. Skips without a C++ compiler.

use std::collections::BTreeSet;

use linc_cases::attention::{Measured, linear, linear_apart, softmax, softmax_apart};
use linc_cases::exhaustive;
use linc_cases::launch::bytes;
use linc_cases::operands::Keys;
use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel, compile};
use linc_emulator::{Access, Emulator, LaunchOptions, Operation, Order, Report};
use linc_tile::Elem;
use linc_tile::interp::Buffer;
use linc_tile::library::attention::HeadShape;

/// What a plan gives: that of its buffers.
const ALIGNMENT: u32 = 64;

/// With products of warps, and of warpgroups.
const ARCHES: [Arch; 2] = [Arch::Sm80, Arch::Sm90a];

fn generate(measured: &Measured, arch: Arch) -> CudaKernel {
    let options = CudaCodegenOptions { arch, alignment: vec![ALIGNMENT; measured.kernel.params.len()] };
    compile(&measured.kernel, &options).unwrap_or_else(|e| panic!("{e}"))
}

/// What a kernel does, without its name and what it says of itself.
fn code(kernel: &CudaKernel) -> String {
    let own = kernel.text.replace(&kernel.name, "");
    own.lines().filter(|line| !line.trim_start().starts_with("//")).collect()
}

/// Where a case runs: on both architectures where everything is asked for, else on one, by turns.
fn arches(turn: usize) -> &'static [Arch] {
    if exhaustive() { &ARCHES } else { &ARCHES[turn % ARCHES.len()..][..1] }
}

/// Runs kernels for the architectures that they come with; one whose text is the same for both runs once.
fn check(cases: &[(Measured, &[Arch])]) {
    let Some(emulator) = Emulator::find() else { return };
    let (mut known, mut own, mut kernels) = (BTreeSet::new(), vec![], vec![]);
    for (i, (case, arches)) in cases.iter().enumerate() {
        for arch in *arches {
            let kernel = generate(case, *arch);
            if known.insert((i, code(&kernel))) {
                own.push(case);
                kernels.push(kernel);
            }
        }
    }
    run(&emulator, &own, &kernels);
}

fn check_on(cases: &[Measured], arch: Arch) -> Option<Vec<Report>> {
    let kernels: Vec<CudaKernel> = cases.iter().map(|case| generate(case, arch)).collect();
    Some(run(&Emulator::find()?, &cases.iter().collect::<Vec<_>>(), &kernels))
}

/// Runs each kernel in an order of its threads that changes from case to case, and some, or all where everything is asked
/// for, in a second one; returns what the first runs counted.
fn run(emulator: &Emulator, cases: &[&Measured], kernels: &[CudaKernel]) -> Vec<Report> {
    let built = emulator.build(kernels).unwrap_or_else(|e| panic!("{e}"));
    let (mut failures, mut reports) = (vec![], vec![]);
    for (i, (case, kernel)) in cases.iter().zip(kernels).enumerate() {
        let run = |order| {
            let mut buffers = case.buffers.clone();
            let alignment = vec![ALIGNMENT; case.kernel.params.len()];
            let launch = LaunchOptions { alignment, ..LaunchOptions::ordered(order) };
            built.run(i, &case.kernel.params, &mut buffers, &launch).map(|report| (buffers, report))
        };
        // Chains have four to seven kernels: a step of five brings each to every order, and to the second runs.
        let [first, second] = [i, i + 3].map(|i| Order::ALL[i % Order::ALL.len()]);
        let again = if exhaustive() || i % 5 == 0 { Some(run(second)) } else { None };
        match (run(first), again.transpose()) {
            (Ok((first, report)), Ok(second)) => {
                failures.extend(case.worse(&first));
                if second.is_some_and(|(second, _)| !same_bits(&first, &second)) {
                    let says = kernel.text.lines().next().unwrap_or_default();
                    failures.push(format!("two runs differ: {says}"));
                }
                reports.push(report);
            }
            (Err(error), _) | (_, Err(error)) => failures.push(error.to_string()),
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    reports
}

/// NaN is equal to the same NaN.
fn same_bits(a: &[Buffer], b: &[Buffer]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| bytes(a) == bytes(b))
}

/// An attention to try.
struct Form {
    shape: HeadShape,
    elem: Elem,
    causal: bool,
    arches: &'static [Arch],
    seed: u64,
}

/// Every length with every head size where everything is asked for, else with every other one: those of even or of odd
/// turns. Types and architectures in turn, so that each length and each head size comes to both architectures somewhere.
fn forms(parity: usize) -> Vec<Form> {
    let mut forms = vec![];
    for (i, seq) in [1, 63, 64, 65, 200, 257].into_iter().enumerate() {
        for (j, head_dim) in [32, 64, 128].into_iter().enumerate() {
            if exhaustive() || (i + j) % 2 == parity {
                let group = [1, 2, 4][(i + j) % 3];
                let kv_heads = if group == 4 { 1 } else { 2 };
                forms.push(Form {
                    shape: HeadShape { batch: 1, seq, heads: group * kv_heads, kv_heads, head_dim },
                    elem: narrow(i + j),
                    causal: (i + 2 * j) % 4 != 3,
                    arches: arches(i / 2 + j / 2),
                    seed: (i * 4 + j + 1) as u64,
                });
            }
        }
    }
    forms
}

fn on(arches: &'static [Arch], cases: Vec<Measured>) -> Vec<(Measured, &'static [Arch])> {
    cases.into_iter().map(|case| (case, arches)).collect()
}

/// f16 for every third case, else bf16.
fn narrow(case: usize) -> Elem {
    if case % 3 == 2 { Elem::F16 } else { Elem::Bf16 }
}

#[test]
fn softmax_is_as_precise_as_its_rounding() {
    let mut cases = vec![];
    for Form { shape, elem, causal, arches, seed } in forms(0) {
        cases.extend(on(arches, softmax(shape, elem, causal, (64, 64), seed)));
    }
    check(&cases);
}

#[test]
fn linear_is_as_precise_as_its_rounding() {
    let mut cases = vec![];
    for Form { shape, elem, arches, seed, .. } in forms(1) {
        cases.extend(on(arches, linear(shape, elem, Keys::Normal, 3.0, seed)));
    }
    check(&cases);
}

#[test]
fn documents_are_kept_apart() {
    let mut cases = vec![];
    for (i, (seq, head_dim)) in [(200, 64), (65, 128), (256, 32), (192, 128)].into_iter().enumerate() {
        let (kv_heads, group) = (1 + i % 2, 1 + i / 2);
        let shape = HeadShape { batch: 2 - i % 2, seq, heads: kv_heads * group, kv_heads, head_dim };
        let (elem, seed) = (narrow(i), i as u64 + 1);
        let tile = [(64, 64), (128, 64)][i % 2];
        cases.extend(on(arches(i), softmax_apart(shape, elem, tile, seed)));
        cases.extend(on(arches(i + 1), linear_apart(shape, elem, Keys::Normal, 1.0, seed)));
    }
    for (i, keys) in [Keys::Uniform(100.0), Keys::Ramp(-100.0), Keys::Spike].into_iter().enumerate() {
        let shape = HeadShape { batch: 1, seq: 150, heads: 2, kv_heads: 1, head_dim: 64 };
        let elem = [Elem::F32, Elem::Bf16, Elem::F16][i];
        cases.extend(on(arches(i), linear_apart(shape, elem, keys, 1.0, i as u64 + 1)));
    }
    check(&cases);
}

/// Sequences of whole tiles, which the Tensor Memory Accelerator (TMA) copies, over several iterations. Products of
/// warps and of warpgroups take every other shape each, or all where everything is asked for.
#[test]
fn whole_tiles_come_by_tensor_copies() {
    let mut cases = [vec![], vec![]];
    for (i, (seq, head_dim, group)) in
        [(128, 32, 1), (256, 64, 2), (192, 64, 4), (256, 128, 1), (256, 128, 2), (128, 96, 1)]
            .into_iter()
            .enumerate()
    {
        let shape =
            HeadShape { batch: 1 + i % 2, seq, heads: (2 - i % 2) * group, kv_heads: 2 - i % 2, head_dim };
        let seed = i + 1;
        let tile = [(64, 64), (128, 64), (64, 128)][seed % 3];
        for (turn, cases) in cases.iter_mut().enumerate() {
            if exhaustive() || turn == i % 2 {
                let (elem, seed) = (narrow(seed), seed as u64);
                cases.extend(softmax(shape, elem, seed % 4 != 3, tile, seed));
                cases.extend(linear(shape, elem, Keys::Normal, 1.0, seed));
            }
        }
    }
    for (arch, cases) in [Arch::Sm90, Arch::Sm90a].into_iter().zip(cases) {
        let Some(reports) = check_on(&cases, arch) else { return };
        let of = |operation| reports.iter().filter(|report| report.count(operation) > 0).count();
        let copied = of(Operation::CopyTile);
        // Walks over states, and kernels that load each tile once, have none.
        assert!(3 * copied > cases.len(), "only {copied} of {} kernels", cases.len());
        assert_eq!(of(Operation::Wgmma) > 0, arch.has_warpgroups());
    }
}

#[test]
fn linear_is_safe_for_any_keys() {
    let mut cases = vec![];
    for (seed, keys) in Keys::ALL.into_iter().enumerate() {
        for (i, elem) in [Elem::F32, Elem::Bf16, Elem::F16].into_iter().enumerate() {
            // Two types for each distribution.
            if !exhaustive() && (seed + i) % 3 == 2 {
                continue;
            }
            // Both sizes of heads with each type, but not with each distribution.
            let heads = [(64, 2), (128, 1)];
            let heads = if exhaustive() { &heads[..] } else { &heads[(seed + i) % 2..][..1] };
            for &(head_dim, group) in heads {
                let shape = HeadShape { batch: 1, seq: 150, heads: group, kv_heads: 1, head_dim };
                cases.extend(on(arches(seed / 2 + i), linear(shape, elem, keys, 1.0, seed as u64 + 1)));
            }
        }
    }
    check(&cases);
}

#[test]
fn linear_with_odd_heads() {
    let mut cases = vec![];
    let heads = [(24, Elem::F32), (40, Elem::Bf16), (72, Elem::F32), (96, Elem::Bf16), (40, Elem::F16)];
    for (i, (head_dim, elem)) in heads.into_iter().enumerate() {
        let batch = if exhaustive() { 2 } else { 1 + i % 2 };
        let shape = HeadShape { batch, seq: 100, heads: 2, kv_heads: 1, head_dim };
        let keys = [Keys::Normal, Keys::Uniform(100.0)];
        let keys = if exhaustive() { &keys[..] } else { &keys[i % 2..][..1] };
        for keys in keys {
            cases.extend(on(arches(i / 2), linear(shape, elem, *keys, 1.0, 5)));
        }
    }
    check(&cases);
}

#[test]
fn main_paths_have_no_bank_conflicts_and_whole_sectors() {
    for head_dim in [64, 128] {
        let shape = HeadShape { batch: 1, seq: 256, heads: 2, kv_heads: 1, head_dim };
        let mut cases = softmax(shape, Elem::Bf16, true, (64, 64), 1);
        cases.extend(linear(shape, Elem::Bf16, Keys::Normal, 1.0, 1));
        for arch in ARCHES {
            let Some(reports) = check_on(&cases, arch) else { return };
            for (case, report) in cases.iter().zip(reports) {
                let name = format!("{} for {}", case.kernel.name, arch.name());
                assert_eq!(report.bank_conflicts(), 0, "{name}: {:?}", report.shared);
                for access in [Access::Load, Access::Store, Access::Copy] {
                    let share = report.sectors(access).efficiency();
                    assert!(
                        share == 1.0,
                        "{name}: {access:?} moves {share} of its sectors\n{:?}",
                        report.global
                    );
                }
                let by_warps = [Operation::Mma, Operation::LoadMatrices].map(|o| report.count(o));
                println!("{name}: {by_warps:?} {}", report.count(Operation::Wgmma));
            }
        }
    }
}
