//! What grows with the length of a sequence or the number of layers, and what does not, read from plans: no run, no clock.

use linc_driver::{Compiled, Entry, Options, Room};
use linc_plan::validate::validate;
use linc_plan::{Buffer, Category, Plan, Space, memory};
use linc_tests::models::{compiled, flavor, sized, small_hybrid, training};

/// Four layers of dimension 256, one sequence.
fn plan(ratio: &str, seq: usize) -> Compiled {
    let numbers = [("dim", 256.0), ("n_layers", 4.0), ("n_heads", 4.0), ("n_kv_heads", 4.0)];
    compiled(&sized("nano", &numbers, ratio), &training(), &Options::new(1, seq))
}

/// Bytes that live from the forward to the backward, at most.
fn activations(plan: &Plan) -> u64 {
    memory::peak(&[plan]).kept.iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn memory_grows_with_the_sequence_and_not_with_its_square() {
    for ratio in ["0", "0.5", "1"] {
        let plans: Vec<Plan> = [4096, 8192, 16384, 32768].map(|seq| plan(ratio, seq).plan).into();
        for pair in plans.windows(2) {
            let doubled = |bytes: fn(&Plan) -> u64| bytes(&pair[1]) as f64 / bytes(&pair[0]) as f64;
            assert!(activations(&pair[0]) > 0);
            assert!(doubled(activations) <= 2.1, "ratio {ratio}: activations x{}", doubled(activations));
            assert!(
                doubled(|p| p.scratch_bytes) <= 2.1,
                "ratio {ratio}: scratch x{}",
                doubled(|p| p.scratch_bytes)
            );
            assert_eq!(pair[0].persistent_bytes - rope(&pair[0]), pair[1].persistent_bytes - rope(&pair[1]));
        }
    }
}

/// Bytes of the table of positions, which is as long as the sequence.
fn rope(plan: &Plan) -> u64 {
    plan.buffers.iter().filter(|b| b.name == "rope").map(|b| b.bytes).sum()
}

#[test]
fn a_token_costs_the_same_in_any_sequence_of_a_linear_model_only() {
    let flops = |ratio, seq| plan(ratio, seq).report.flops_per_token as f64;
    let growth = |ratio| flops(ratio, 32768) / flops(ratio, 4096);
    assert!(growth("1") < 1.01, "linear: x{}", growth("1"));
    assert!(growth("0") > 3.0, "softmax: x{}", growth("0"));
    assert!((growth("1")..growth("0")).contains(&growth("0.5")));
}

#[test]
fn full_logits_never_exist() {
    let (seq, vocab) = (8192, 128_256);
    let plan = compiled(&flavor("1b", "0.5"), &training(), &Options::new(1, seq)).plan;
    let other = |b: &&Buffer| b.space == Space::Scratch && b.category != Category::Gradients;
    let scratch = plan.buffers.iter().filter(other);
    let largest = scratch.max_by_key(|b| b.bytes).expect("scratch buffers");
    // Gradients are as large as the model. Of the rest the largest is a part of the embedding's gradient, a quarter of
    // what the logits would take.
    let logits = 4 * (seq * vocab) as u64;
    assert!(largest.bytes <= logits / 4, "{} has {} bytes", largest.name, largest.bytes);
}

#[test]
fn scores_of_a_long_text_take_less_than_its_logits() {
    let (seq, vocab) = (8192, 128_256);
    let plan = compiled(&flavor("1b", "0.5"), &Entry::Score { context: seq }, &Options::new(1, seq)).plan;
    // Activations of a layer are the most of it.
    let logits = 4 * (seq * vocab) as u64;
    assert!(plan.scratch_bytes < logits / 4, "{} bytes, logits have {logits}", plan.scratch_bytes);
}

#[test]
fn plans_keep_their_rules_and_are_the_same_twice() {
    let model = small_hybrid();
    let score = Entry::Score { context: 32 };
    let decode = Entry::Decode(Room { slots: 2, context: 24 });
    let entries = [training(), Entry::Eval, Entry::Forward, score, decode];
    for entry in entries {
        let options = Options::new(2, 24);
        let plan = compiled(&model, &entry, &options).plan;
        validate(&plan).unwrap_or_else(|e| panic!("{entry:?}: {e}"));
        assert_eq!(plan, compiled(&model, &entry, &options).plan, "{entry:?}");
    }
}

#[test]
fn a_thousand_layers_compile_and_grow_a_plan_by_one_layer_each() {
    let plan = |layers: f64| {
        let numbers = [("dim", 32.0), ("n_layers", layers)];
        compiled(&sized("nano", &numbers, "0.5"), &training(), &Options::new(1, 16)).plan
    };
    let plans = [100.0, 200.0, 1000.0].map(plan);
    for plan in &plans {
        validate(plan).unwrap_or_else(|e| panic!("{e}"));
    }
    let [few, more, most] = &plans;
    assert_eq!(most.steps.len() - more.steps.len(), 8 * (more.steps.len() - few.steps.len()));
    let [few, more, most] = plans.each_ref().map(|plan| memory::peak(&[plan]).bytes as f64);
    assert!((most - more) / (more - few) <= 8.1, "{few}, {more}, {most} bytes");
}
