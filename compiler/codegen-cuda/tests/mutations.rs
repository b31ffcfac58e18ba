//! The tests test: bugs of the usual classes, planted into right kernels of softmax attention by substitution in
//! their text, are caught by the emulator or by the comparison with exact results.

use linc_cases::attention::{Measured, softmax};
use linc_cases::exhaustive;
use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel, compile};
use linc_emulator::{Emulator, LaunchOptions};
use linc_tile::Elem;
use linc_tile::library::attention::HeadShape;

/// A kernel whose text differs.
struct Mutant {
    bug: String,
    case: usize,
    kernel: CudaKernel,
}

fn cases() -> Vec<Measured> {
    attention(130, true)
}

fn attention(seq: usize, causal: bool) -> Vec<Measured> {
    let shape = HeadShape { batch: 1, seq, heads: 2, kv_heads: 1, head_dim: 64 };
    softmax(shape, Elem::Bf16, causal, (64, 64), 5)
}

fn generate(cases: &[Measured], arch: Arch) -> Vec<CudaKernel> {
    let options = |m: &Measured| CudaCodegenOptions { arch, alignment: vec![64; m.kernel.params.len()] };
    cases.iter().map(|m| compile(&m.kernel, &options(m)).unwrap_or_else(|e| panic!("{e}"))).collect()
}

/// One mutant per occurrence of `from`; where not everything is asked for, of each kernel the first and the last only.
fn replaced(bug: &str, from: &str, to: &str, kernels: &[CudaKernel]) -> Vec<Mutant> {
    let mut mutants = vec![];
    for (case, kernel) in kernels.iter().enumerate() {
        let mut places: Vec<usize> = kernel.text.match_indices(from).map(|(at, _)| at).collect();
        if !exhaustive() && places.len() > 2 {
            places.drain(1..places.len() - 1);
        }
        for at in places {
            let mut kernel = kernel.clone();
            kernel.text.replace_range(at..at + from.len(), to);
            let line = kernel.text[..at].lines().count();
            mutants.push(Mutant { bug: format!("{bug} at line {line} of {}", kernel.name), case, kernel });
        }
    }
    assert!(!mutants.is_empty(), "{bug}: nothing to replace");
    mutants
}

/// Runs the mutants and returns those that nobody noticed.
fn survivors(cases: &[Measured], mutants: &[Mutant]) -> Vec<String> {
    let Some(emulator) = Emulator::find() else { return vec![] };
    let kernels: Vec<CudaKernel> = mutants.iter().map(|m| m.kernel.clone()).collect();
    let built = emulator.build(&kernels).unwrap_or_else(|e| panic!("{e}"));
    let survives = |(i, mutant): (usize, &Mutant)| {
        let case = &cases[mutant.case];
        let mut buffers = case.buffers.clone();
        let launch = LaunchOptions { alignment: vec![64; buffers.len()], ..LaunchOptions::default() };
        let fine = built.run(i, &case.kernel.params, &mut buffers, &launch).is_ok();
        (fine && case.worse(&buffers).is_empty()).then(|| mutant.bug.clone())
    };
    mutants.iter().enumerate().filter_map(survives).collect()
}

fn assert_caught(bug: &str, from: &str, to: &str) {
    assert_caught_on(Arch::Sm80, bug, from, to);
}

fn assert_caught_on(arch: Arch, bug: &str, from: &str, to: &str) {
    assert_all_caught(&cases(), arch, bug, from, to);
}

fn assert_all_caught(cases: &[Measured], arch: Arch, bug: &str, from: &str, to: &str) {
    let mutants = replaced(bug, from, to, &generate(cases, arch));
    let survivors = survivors(cases, &mutants);
    assert!(
        survivors.is_empty(),
        "{} of {} survive:\n{}",
        survivors.len(),
        mutants.len(),
        survivors.join("\n")
    );
}

#[test]
fn unchanged_kernels_pass() {
    let cases = cases();
    for arch in [Arch::Sm80, Arch::Sm90a] {
        let same: Vec<Mutant> = generate(&cases, arch)
            .into_iter()
            .enumerate()
            .map(|(case, kernel)| Mutant { bug: kernel.name.clone(), case, kernel })
            .collect();
        if Emulator::find().is_some() {
            assert_eq!(survivors(&cases, &same).len(), same.len());
        }
    }
}

#[test]
fn wrong_swizzle() {
    assert_caught("pieces exchanged", "swizzled<8>(i, j)", "swizzled<8>(i, j ^ 1)");
}

#[test]
fn missing_barrier() {
    assert_caught("no barrier", "barrier();", "");
}

#[test]
fn copies_not_waited_for() {
    // At the start of an iteration. Behind a loop, which may have had no iteration, another wait can be one too many.
    let round = "copy_async_wait<0>();\n    barrier();\n    if";
    assert_caught("no wait", round, "barrier();\n    if");
}

#[test]
fn mask_off_by_one() {
    // Keys at or before the query, and queries at or after the key.
    assert_caught("mask", " <= ", " < ");
}

#[test]
fn wrong_lane_map() {
    assert_caught("lanes shifted", "lane % 16", "(lane + 1) % 16");
    assert_caught("halves exchanged", "lane / 16", "(1 - lane / 16)");
}

#[test]
fn uninitialised_shared_memory() {
    assert_caught("the last row is not copied", "copy_async16(", "if (i < 63) copy_async16(");
}

#[test]
fn products_of_warpgroups_out_of_order() {
    let caught = |bug, from, to| assert_caught_on(Arch::Sm90a, bug, from, to);
    // At the start of an iteration; behind a loop, which may have had no iteration, another one can be one too many.
    caught("operands not announced", "fence_async();\n    barrier();\n    if", "barrier();\n    if");
    caught("registers not announced", "wgmma_fence();", "");
    // All at once: the wait for a product that nobody reads before the next one is covered by that one's.
    let cases = cases();
    let deaf = |(case, mut kernel): (usize, CudaKernel)| {
        kernel.text = kernel.text.replace("wgmma_wait<0>();", "wgmma_wait<1>();");
        Mutant { bug: format!("no wait in {}", kernel.name), case, kernel }
    };
    let mutants: Vec<Mutant> = generate(&cases, Arch::Sm90a).into_iter().enumerate().map(deaf).collect();
    let left: Vec<String> =
        survivors(&cases, &mutants).into_iter().filter(|bug| !bug.contains("_delta_")).collect();
    assert!(left.is_empty(), "{left:?}");
    caught("no barrier", "barrier();", "");
}

#[test]
fn wrong_descriptors() {
    let caught = |bug, from, to| assert_caught_on(Arch::Sm90a, bug, from, to);
    caught("another step along the rows", "right + k * 2", "right + k * 4");
    caught("another step down the rows", "right + k * 128", "right + k * 64");
    caught("another pattern", "matrix_descriptor<8>", "matrix_descriptor<4>");
    caught("not transposed", "wgmma_bf16<1>", "wgmma_bf16<0>");
    caught("nothing added", "128, true)", "128, k > 0)");
}

#[test]
fn wrong_tensor_copies() {
    // Whole tiles, and several in each loop: a place that is filled once needs no waiting.
    let cases = attention(256, false);
    let caught = |bug, from, to| assert_all_caught(&cases, Arch::Sm90a, bug, from, to);
    caught("tiles not waited for", "pipeline_wait(", "if (warp != 1) pipeline_wait(");
    caught("places not waited for", "pipeline_acquire(PIPELINES + 0, turn);", "");
    caught("places not given back", "pipeline_release(", "if (warp != 2) pipeline_release(");
    caught("turns not counted", "turns[0] += 1;", "");
    caught("another row", "x, y, arrival", "x, y + 1, arrival");
    caught("another column", "x, y, arrival", "x + 8, y, arrival");
    caught("another place", "turn % 2 * 8192, maps", "(turn + 1) % 2 * 8192, maps");
    caught("too few bytes", "turn, 16384)", "turn, 8192)");
    caught("another count", "pipeline_init(PIPELINES + p * 32, 4)", "pipeline_init(PIPELINES + p * 32, 5)");
    caught("no barrier", "barrier();", "");
    // Warps that read tiles themselves go another way than TMA.
    let told = "fence_async();\n        const u32 arrival";
    assert_all_caught(&cases, Arch::Sm90, "reads not announced", told, "const u32 arrival");
}
