//! Every kernel of the library at odd sizes, and random tile programs: the generated CUDA on the emulator against the
//! tile interpreter. Skips with a message where there is no C++ compiler.

use linc_cases::{Case, decoding, elu, embeddings, exhaustive, library};
use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel, compile};
use linc_emulator::{Emulator, LaunchOptions, Order};
use linc_tile::Elem;

/// At least that of an element.
fn alignments(case: &Case, alignment: u32) -> Vec<u32> {
    let size = |elem: Elem| if elem.is_narrow() { 2 } else { 4 };
    case.kernel.params.iter().map(|p| alignment.max(size(p.elem))).collect()
}

fn generate(case: &Case, alignment: u32) -> CudaKernel {
    let options = CudaCodegenOptions { arch: Arch::Sm80, alignment: alignments(case, alignment) };
    compile(&case.kernel, &options).unwrap_or_else(|e| panic!("{e}\n{}", case.kernel))
}

/// Runs all cases in an order of the threads that changes from case to case, as aligned as `alignment` says.
fn check_all(cases: &[Case], alignment: u32) {
    let Some(emulator) = Emulator::find() else { return };
    let kernels: Vec<CudaKernel> = cases.iter().map(|case| generate(case, alignment)).collect();
    let built = emulator.build(&kernels).unwrap_or_else(|e| panic!("{e}"));
    let mut failures = vec![];
    for (i, (case, kernel)) in cases.iter().zip(&kernels).enumerate() {
        let order = Order::ALL[i % Order::ALL.len()];
        let mut buffers = case.buffers.clone();
        let launch =
            LaunchOptions { alignment: alignments(case, alignment), ..LaunchOptions::ordered(order) };
        match built.run(i, &case.kernel.params, &mut buffers, &launch) {
            Ok(_) => failures.extend(case.difference(&buffers, &case.expected())),
            Err(error) => failures.push(error.to_string()),
        }
        if std::env::var("LINC_SHOW").is_ok() && !failures.is_empty() {
            panic!("{}\n{}\n{}", failures[0], kernel.text, case.kernel);
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn check(cases: &[Case]) {
    check_all(cases, 16);
}

#[test]
fn norms() {
    check(&library::norms());
}

#[test]
fn pointwise_programs() {
    check(&library::pointwise_programs());
}

#[test]
fn copies_and_fills() {
    check(&library::copies_and_fills());
}

#[test]
fn reductions() {
    check(&library::reductions());
}

#[test]
fn ropes() {
    check(&library::ropes());
}

#[test]
fn embeddings_and_their_gradients() {
    check(&embeddings::embeddings());
}

#[test]
fn losses_and_optimizer() {
    check(&library::losses_and_optimizer());
}

#[test]
fn softmax_attention() {
    check(&library::softmax_attention());
}

/// For each shape, each type and each of three settings in turn there are five kernels, and two for each of two settings with
/// documents. Where not everything is asked
/// for, a shape and a type come with one setting, so that each setting meets all types and all shapes.
#[test]
fn efficient_attention() {
    let cases = library::efficient_attention();
    assert_eq!(cases.len() % 57, 0, "shapes with three types, and 19 kernels each");
    // Of 19: three settings of five, and the four with documents.
    let turn = |i: usize| (i / 57 + i / 19 + i % 19 / 5) % 3;
    let some = cases.into_iter().enumerate().filter(|(i, _)| exhaustive() || turn(*i) == 0);
    check(&some.map(|(_, case)| case).collect::<Vec<_>>());
}

#[test]
fn elu_attention() {
    check(&elu::elu_attention());
}

#[test]
fn decoding() {
    for cases in [decoding::tokens(), decoding::prompts()] {
        check(&some_operands(cases));
    }
}

/// Every kernel once where not everything is asked for, with operands (positions, mostly) by turns.
fn some_operands(cases: Vec<Case>) -> Vec<Case> {
    if exhaustive() {
        return cases;
    }
    let mut kernels: Vec<(String, Vec<Case>)> = vec![];
    for case in cases {
        let text = case.kernel.to_string();
        match kernels.iter_mut().find(|(known, _)| *known == text) {
            Some((_, same)) => same.push(case),
            None => kernels.push((text, vec![case])),
        }
    }
    kernels.into_iter().enumerate().map(|(i, (_, mut same))| same.swap_remove(i % same.len())).collect()
}

#[test]
fn pointers_without_alignment() {
    let mut cases = library::reductions();
    cases.extend(library::copies_and_fills());
    cases.extend(library::softmax_attention().into_iter().take(8));
    check_all(&cases, 2);
}

#[test]
fn random_programs() {
    let usual = if exhaustive() { 60 } else { 20 };
    let count = std::env::var("LINC_RANDOM_KERNELS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let cases: Vec<Case> = (1..=count).map(linc_cases::random_kernel).collect();
    check(&cases);
}
