//! Runs whose ranks share the optimizer out: the bits of one process, whatever part of it each has, and in checkpoints all of it.

use super::*;

/// In a folder of its own, where so many of the ranks share the optimizer out. A part is at least a block of the norm, of which this
/// model has three: of four parts the last one is empty.
fn shared_out(ranks: usize, shards: usize, ratio: &str, settings: &str) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    Run { ratio, shards, ..Run::new(folder.path(), ranks, &|_| settings.to_owned()) }.same()
}

#[test]
fn an_optimizer_that_is_shared_out_trains_what_one_process_trains() {
    for ratio in ["0.0", "0.5", "1.0"] {
        let settings = format!("steps = 3\nglobal_batch_size = 4\n{VALIDATION}");
        let one = fresh(1, ratio, &settings);
        for (ranks, shards) in [(2, 2), (4, 4), (4, 2)] {
            if ratio != "0.5" && ranks != shards {
                continue;
            }
            let ran = shared_out(ranks, shards, ratio, &settings);
            assert!(ran == one, "ratio {ratio}: {shards} parts, {ranks} ranks");
        }
    }
}

#[test]
fn whatever_a_step_is_made_of_its_optimizer_can_be_shared_out() {
    let cases = [
        // Each group is shared out by itself; all of the norms are one rank's.
        "mixed_precision_param = \"bfloat16\"\n[optimizer]\nname = \"Adam\"\n[[optimizer.groups]]\nrole = \"norm\"\nlr_factor = 2.0\n\
         [profiling]\nenable_profiling = true\n",
        // Too large a scale at first: steps are left out on all ranks.
        "mixed_precision_param = \"float16\"\nreset_at_document = true\nmax_norm = 0.01\n\
         [activation_checkpoint]\nmode = \"full\"\n",
    ];
    for case in cases {
        let settings = format!("steps = 2\nglobal_batch_size = 8\n{case}");
        let one = fresh(1, "0.5", &settings);
        assert!(shared_out(4, 4, "0.5", &settings) == one, "{case}");
        assert!(shared_out(4, 2, "0.5", &settings) == one, "{case}");
    }
}

#[test]
fn a_run_goes_on_in_another_mode_with_another_number_of_ranks() {
    for mode in ["disabled", "async"] {
        let settings = |until: usize| {
            format!(
                "steps = 5\nstop_at_step = {until}\nglobal_batch_size = 4\n{VALIDATION}\
                 [checkpoint]\nenable = true\ninterval = 1\nlast_save_model_only = false\nasync_mode = {mode:?}\n"
            )
        };
        let whole = fresh(1, "0.5", &settings(5));
        let folder = tempfile::tempdir().expect("a folder");
        let mut losses = vec![];
        for (ranks, shards, until) in [(4, 1, 1), (2, 2, 2), (1, 1, 3), (4, 2, 4), (4, 4, 5)] {
            let settings = |_| settings(until);
            let ran = Run { shards, ..Run::new(folder.path(), ranks, &settings) }.same();
            losses.extend(ran.losses.clone());
            assert_eq!(ran.step, until);
            if until == 5 {
                assert!(ran.tensors == whole.tensors, "other bits after five starts");
                assert_eq!(ran.validation, whole.validation);
            }
        }
        assert_eq!(losses, whole.losses);
        // The last checkpoint is byte for byte that of one process.
        let alone = tempfile::tempdir().expect("a folder");
        run(alone.path(), 1, &settings(5));
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let [mine, other] = [&folder, &alone].map(|folder| {
                std::fs::read(folder.path().join("run/checkpoint/step-5").join(file)).expect("a file")
            });
            assert!(mine == other, "{file}");
        }
    }
}

#[test]
fn muon_is_not_shared_out_and_the_remedy_is_said() {
    for (setting, word) in [
        ("[optimizer]\nname = \"Muon\"\n", "Muon"),
        ("[[optimizer.groups]]\nrole = \"matrix\"\nname = \"Muon\"\n", "Muon"),
        ("[metrics]\ngrad_norms = \"layers\"\n", "metrics.grad_norms"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = |_: usize| format!("steps = 1\n{setting}");
        let errors = Run { shards: 2, ..Run::new(folder.path(), 2, &settings) }.errors();
        for error in &errors {
            let words = [
                word,
                "data_parallel_shard_degree 2",
                "replicate_degree 2 --parallelism.data_parallel_shard_degree 1",
            ];
            assert!(words.iter().all(|word| error.contains(word)), "{errors:?}");
        }
        assert!(!folder.path().join("run/config.toml").exists());
    }
}

#[test]
fn copies_of_a_part_that_come_apart_end_all_at_the_next_comparison() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |_: usize| "steps = 6\n[comm]\ncompare_weights_freq = 2\n".to_owned();
    let flipped =
        Run { shards: 2, flips: Some(1), flips_state: true, ..Run::new(folder.path(), 4, &settings) };
    let errors = flipped.errors();
    for error in &errors {
        assert!(error.contains("step 2: the ranks have come apart: the checksum of"), "{error}");
    }
    // A moment that only one rank has makes weights that differ from nobody's.
    let folder = tempfile::tempdir().expect("a folder");
    let alone = Run { folder: folder.path(), shards: 4, ..flipped };
    assert!(alone.run().into_iter().all(|ran| ran.is_ok_and(|ran| ran.step == 6)));
}

#[test]
fn a_step_that_is_not_finite_leaves_statistics_of_whole_tensors() {
    let statistics = |ranks: usize, shards: usize| {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = |_: usize| "steps = 40\nglobal_batch_size = 4\n[optimizer]\nlr = 1e30\n".to_owned();
        let errors = Run { shards, ..Run::new(folder.path(), ranks, &settings) }.errors();
        assert!(errors.iter().all(|error| error.contains("step 2: loss is")), "{errors:?}");
        let text = std::fs::read_to_string(folder.path().join("run/non-finite-step-2/statistics.json"));
        let all: serde_json::Value = serde_json::from_str(&text.expect("a file")).expect("JSON");
        let of = |row: &serde_json::Value| {
            ["name", "role", "numel", "non_finite", "max_abs"].map(|key| row[key].clone())
        };
        let rows = all.as_array().expect("rows").iter();
        // One process adds the gradients of its batches up.
        rows.filter(|row| row["role"] != "gradient").map(of).collect::<Vec<_>>()
    };
    let one = statistics(1, 1);
    assert!(one.iter().any(|row| row[1] == "moment"));
    assert!(statistics(4, 4) == one && statistics(4, 2) == one);
}

#[test]
fn what_the_first_rank_cannot_write_ends_all() {
    for mode in ["disabled", "async"] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("run")).expect("a folder");
        std::fs::write(folder.path().join("run/checkpoint"), "in the way").expect("written");
        let settings = |_: usize| {
            format!("steps = 4\n[checkpoint]\nenable = true\ninterval = 2\nasync_mode = {mode:?}\n")
        };
        let errors = Run { shards: 4, ..Run::new(folder.path(), 4, &settings) }.errors();
        assert!(errors.iter().all(|error| error.contains("checkpoint")), "{errors:?}");
    }
}

/// What a rank sends in a step beside gradients and parameters: of each batch its targets, and whether to stop; of each its loss,
/// and the norm; the lengths of both.
fn words_of_a_step(ranks: u64, batches: u64) -> u64 {
    (ranks - 1) * (8 + 8 * (1 + batches) + 8 + 4 * (1 + batches))
}

#[test]
fn ranks_send_in_a_step_what_the_formula_of_their_mode_says() {
    const BLOCK: u64 = 16384;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = "steps = 3\nglobal_batch_size = 8\n";
    let params = {
        let one = run(folder.path(), 1, settings);
        // Each weight has two moments of its size beside it; tables are no weights.
        let bytes =
            one.tensors.iter().filter(|(name, _)| !name.contains("rope")).map(|(_, bytes)| bytes.len());
        bytes.sum::<usize>() as u64 / 3 / 4
    };
    for (ranks, shards) in [(2, 1), (4, 1), (2, 2), (4, 4), (4, 2)] {
        let folder = tempfile::tempdir().expect("a folder");
        let all = Run { shards, ..Run::new(folder.path(), ranks, &|_| settings.to_owned()) }.run();
        let sent: Vec<u64> = all
            .into_iter()
            .map(|ran| ran.unwrap_or_else(|e| panic!("{e}")).sent)
            .map(|sent| sent[2] - sent[1])
            .collect();
        let (k, s) = (ranks as u64, shards as u64);
        // Parts of the gradients are padded to the block of the norm that all have as many of.
        let part = params.next_multiple_of(s * BLOCK) / s;
        let copies = k / s;
        let words = words_of_a_step(k, 8 / k);
        let expected = match (s, copies) {
            // Buckets are padded to a multiple of the ranks.
            (1, _) => 2 * (k - 1) * 4 * params / k,
            _ => (s - 1) * (2 * 4 * part + 4 * part / BLOCK) + 2 * (copies - 1) * 4 * part / copies,
        };
        let padding = if s == 1 { 2 * (k - 1) * 4 * 8 } else { 0 };
        for sent in &sent {
            assert!(
                (expected..=expected + padding).contains(&(sent - words)),
                "{ranks} ranks, {shards} parts: {sent} bytes, {expected} expected and {words} of words"
            );
        }
    }
}
