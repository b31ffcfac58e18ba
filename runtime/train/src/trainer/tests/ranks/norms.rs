//! Norms of parts of the gradients are of the gradients of all ranks, and the first of them looks at linear layers.

use super::*;

/// Bits of the norms in the records of a run, and of what they say of linear layers.
fn norms(folder: &Path) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(folder.join("run/metrics.jsonl")).expect("metrics");
    let records = text.lines().map(|line| serde_json::from_str::<Record>(line).expect("a record"));
    let numbers = records.flat_map(|record| record.grad_norms.into_iter().chain(record.linear_attention));
    numbers.map(|(name, norm)| (name, norm.to_bits())).collect()
}

#[test]
fn any_number_of_ranks_finds_the_same_norms() {
    // Of one batch a rank, in the program of the step, and of several, in that of the update.
    for batches in [2, 4] {
        let settings = format!(
            "steps = 2\nglobal_batch_size = {batches}\n[metrics]\nlog_freq = 1\ngrad_norms = \"blocks\"\nlinear_health_freq = 1\n"
        );
        let found = [1, 2].map(|ranks| {
            let folder = tempfile::tempdir().expect("a folder");
            run(folder.path(), ranks, &settings);
            norms(folder.path())
        });
        assert!(found[0].len() >= 2 * (7 + 3) && found[0] == found[1], "{found:?}");
    }
}
