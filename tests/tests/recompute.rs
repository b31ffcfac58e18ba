//! Activation checkpointing by whole programs: how much memory each mode takes, and what it computes again for it. That
//! the results are the same bits, `random_models` checks on any architecture.

use linc_driver::{
    Candidate, CompileError, MemoryLimit, Model, Options, PersistentLayout, RecomputePolicy, Report, compile,
    fit, modes,
};
use linc_tests::models::{FLAVORS, compiled, flavor, sized, training};

/// Eight layers, so that what is kept for the backward sets the peak.
fn hybrid() -> Model {
    sized("nano", &[("n_layers", 8.0), ("dim", 64.0), ("vocab_size", 64.0)], "0.5")
}

const SHAPE: (usize, usize) = (2, 128);

fn options(recompute: RecomputePolicy) -> Options {
    Options { recompute, ..Options::new(SHAPE.0, SHAPE.1) }
}

fn peak(model: &Model, recompute: RecomputePolicy) -> u64 {
    compiled(model, &training(), &options(recompute)).report.peak_bytes
}

#[test]
fn a_share_of_the_memory_lies_between_full_and_none() {
    let model = hybrid();
    let (none, full) = (peak(&model, RecomputePolicy::None), peak(&model, RecomputePolicy::Full));
    let budget = |share| peak(&model, RecomputePolicy::Budget(MemoryLimit::Share(share)));
    let (most, least) = (budget(1.0), budget(0.0));
    // What is as fast may take less.
    assert!(most <= none, "{most} of a budget, {none} without recomputation");
    assert!(least <= full, "{least} of a budget, {full} of full");
    let mut last = least;
    for share in [0.2, 0.4, 0.6, 0.8] {
        let bytes = budget(share);
        // Decided by a plan of nodes, which the plan of steps may exceed by a little.
        let limit = (1.01 * (least as f64 + share * (none - least) as f64)) as u64;
        assert!(last <= bytes && bytes <= limit, "{share}: {bytes} bytes, at most {limit}, {last} before");
        last = bytes;
    }
    assert!(last > least, "the shares differ");
}

#[test]
fn no_plan_is_far_above_what_must_be_in_memory() {
    for (name, _) in FLAVORS {
        let model = flavor(name, "0.5");
        for recompute in [RecomputePolicy::None, RecomputePolicy::Selective, RecomputePolicy::Full] {
            let found = compiled(&model, &training(), &Options { recompute, ..Options::new(1, 2048) });
            let Report { peak_bytes, floor_bytes, memory, .. } = found.report;
            // Weights, gradients and moments are in it, and so is what the backward waits for at the fullest step.
            assert_eq!(floor_bytes, memory.values().sum::<u64>(), "{name}, {recompute}");
            let times = peak_bytes as f64 / floor_bytes as f64;
            assert!((1.0..=1.15).contains(&times), "{name}, {recompute}: {times} times its floor");
        }
    }
}

#[test]
fn a_budget_is_no_slower_than_a_mode_of_as_many_bytes() {
    let model = hybrid();
    let mut told = vec![];
    let found =
        modes(&model, &training(), &options(RecomputePolicy::None), &mut |done, all| told.push((done, all)));
    let found = found.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(told, (0..=found.len()).map(|done| (done, found.len())).collect::<Vec<_>>());
    let plain = [
        RecomputePolicy::None,
        RecomputePolicy::Selective,
        RecomputePolicy::Layers(2),
        RecomputePolicy::Full,
    ];
    for (candidate, mode) in found.iter().zip(plain) {
        assert_eq!(candidate.recompute, mode.to_string());
        let found = fit(&model, &training(), &options(mode), candidate.peak_bytes, &mut |_| {})
            .unwrap_or_else(|e| panic!("{e}"));
        let at = |candidate: &&Candidate| candidate.batch == SHAPE.0;
        let same =
            found.candidates.iter().find(at).unwrap_or_else(|| panic!("{mode} fits, a budget does not"));
        assert!(same.token_time <= candidate.token_time, "{mode}: {same:?} is slower than {candidate:?}");
    }
}

#[test]
fn what_fits_is_found_and_what_does_not_is_an_error() {
    let model = hybrid();
    let none = options(RecomputePolicy::None);
    // Two sequences with some recomputation, and not four.
    let bytes = peak(&model, RecomputePolicy::Budget(MemoryLimit::Share(0.1)));
    let mut tried = vec![];
    let found = fit(&model, &training(), &none, bytes, &mut |batch| tried.push(batch));
    let found = found.unwrap_or_else(|e| panic!("{e}"));
    assert!(tried.starts_with(&[1, 2]) && tried.len() == found.candidates.len() + 1, "{tried:?}");
    assert!(found.candidates.iter().all(|candidate| candidate.peak_bytes <= bytes));
    let (batch, least) = found.too_large.expect("some batch is too large");
    assert!(least > bytes && batch == 2 * found.candidates.last().expect("a candidate").batch);
    // The choice is a program that compiles under its limit, as a config would ask for it.
    let best = &found.candidates[found.best];
    let recompute = RecomputePolicy::Budget(MemoryLimit::Bytes(bytes));
    let again = Options { batch: best.batch, ..options(recompute) };
    assert_eq!(compiled(&model, &training(), &again).report.peak_bytes, best.peak_bytes);

    let tiny = fit(&model, &training(), &none, 1000, &mut |_| {}).expect_err("nothing fits");
    assert!(matches!(tiny, CompileError::Budget { batch: 1, limit: 1000, .. }), "{tiny}");
    let tiny = options(RecomputePolicy::Budget(MemoryLimit::Bytes(1000)));
    let tiny = compile(&model, &training(), &tiny, &mut PersistentLayout::default());
    assert!(tiny.expect_err("nothing fits").to_string().contains("lower the batch size"));
}

#[test]
fn limits_are_read_as_they_are_written() {
    let read = |text: &str| text.parse::<MemoryLimit>();
    for limit in [MemoryLimit::Share(0.25), MemoryLimit::Share(1.0), MemoryLimit::Bytes(24 << 30)] {
        assert_eq!(read(&limit.to_string()), Ok(limit));
    }
    assert_eq!(read("1.5 GiB"), Ok(MemoryLimit::Bytes(3 << 29)));
    assert_eq!(read("24gb"), Ok(MemoryLimit::Bytes(24_000_000_000)));
    for wrong in ["", "GiB", "-1", "1.5", "nan", "inf", "24", "-3GiB", "0GiB", "1e30GiB", "24 G"] {
        let error = read(wrong).expect_err(wrong);
        assert!(error.contains("a share from 0 to 1"), "{error}");
    }
}
