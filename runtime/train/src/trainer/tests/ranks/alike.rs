//! What ranks must have in common while they run: weights, what they validate on, the sequences of a step, and when they stop.

use super::*;

#[test]
fn ranks_that_begin_with_other_weights_are_refused() {
    let weights = tempfile::tempdir().expect("a folder");
    let trained = "steps = 1\n[checkpoint]\nenable = true\ninterval = 1\n";
    run(weights.path(), 1, trained);
    let path = weights.path().join("run/checkpoint/step-1");
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |rank: usize| match rank {
        1 => "steps = 1\n".to_owned(),
        _ => format!("steps = 1\n[checkpoint]\ninitial_load_path = {path:?}\n"),
    };
    for error in Run::new(folder.path(), 3, &settings).errors() {
        let words = ["the checksum of the weights to begin with is", "on ranks 0 and 2, but", "on rank 1"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    assert!(!folder.path().join("run/config.toml").exists());
    let settings = |_: usize| format!("steps = 1\n[checkpoint]\ninitial_load_path = {path:?}\n");
    Run::new(folder.path(), 2, &settings).same();
}

#[test]
fn a_weight_that_changes_on_one_rank_ends_all_and_is_not_saved() {
    for (checkpoints, step) in [("", 3), ("[checkpoint]\nenable = true\ninterval = 2\n", 2)] {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = |_: usize| format!("steps = 3\n{checkpoints}");
        let errors = Run { flips: Some(2), ..Run::new(folder.path(), 4, &settings) }.errors();
        let words = format!("step {step}: the ranks have come apart: the checksum of the weights is");
        for error in &errors {
            assert!(error.contains(&words) && error.contains("but"), "{errors:?}");
            assert!(error.contains("on rank 2"), "{errors:?}");
        }
        assert_eq!(linc_checkpoint::steps(&folder.path().join("run/checkpoint")), [0; 0]);
    }
}

#[test]
fn a_rank_that_is_asked_to_stop_in_a_validation_takes_the_others_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |_: usize| "steps = 9\n[validation]\nenable = true\nfreq = 3\nsteps = 40\n".to_owned();
    let stopped = Run { stops_validating: Some((1, 4)), ..Run::new(folder.path(), 2, &settings) };
    for ran in stopped.run() {
        let ran = ran.unwrap_or_else(|e| panic!("{e}"));
        assert!(ran.interrupted && ran.step == 3 && ran.validation.is_none(), "{ran:?}");
        assert!((4..=6).contains(&ran.validated), "{} batches", ran.validated);
    }
    assert_eq!(linc_checkpoint::steps(&folder.path().join("run/checkpoint")), [3]);
}

#[test]
fn a_folder_says_how_many_sequences_the_ranks_made_of_a_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |until: usize| {
        format!("steps = 4\nstop_at_step = {until}\n[checkpoint]\nenable = true\ninterval = 1\n")
    };
    run(folder.path(), 2, &settings(2));
    let config =
        |name: &str| std::fs::read_to_string(folder.path().join("run").join(name)).expect("a config");
    assert!(config("config.toml").contains("global_batch_size = 2\n"), "{}", config("config.toml"));
    // Another number of ranks makes something else of it, which is kept as any other setting that changes.
    run(folder.path(), 4, &settings(3));
    assert!(config("config.toml").contains("global_batch_size = 4\n"));
    assert!(config("config-step-2.toml").contains("global_batch_size = 2\n"));
}

#[test]
fn ranks_read_from_places_of_their_own_but_the_same() {
    let texts = tempfile::tempdir().expect("a folder");
    let path = |name: &str| texts.path().join(name);
    for (name, word) in [("a0", "one"), ("a1", "one"), ("b0", "two"), ("b1", "two"), ("c", "six")] {
        std::fs::write(path(name), format!("{word} of them. ").repeat(60)).expect("written");
    }
    let mixed = |rank: usize| {
        let of = |name: &str| path(&format!("{name}{rank}"));
        format!(
            "steps = 1\ndataset = \"text\"\n[[training.datasets]]\npath = {:?}\nweight = 2.0\n\
             [[training.datasets]]\npath = {:?}\n",
            of("a"),
            of("b")
        )
    };
    let folder = tempfile::tempdir().expect("a folder");
    Run::new(folder.path(), 2, &mixed).same();
    // As many tokens, and others, to validate on.
    let other = |rank: usize| {
        let held_out = path(["b0", "c"][rank]);
        format!(
            "steps = 1\ndataset = \"text\"\ndataset_path = {:?}\n[validation]\nenable = true\ndataset = \"text\"\n\
             dataset_path = {held_out:?}\n",
            path("a0")
        )
    };
    let folder = tempfile::tempdir().expect("a folder");
    for error in Run::new(folder.path(), 2, &other).errors() {
        assert!(error.contains("the validation data is") && error.contains("on rank 1"), "{error}");
    }
}
