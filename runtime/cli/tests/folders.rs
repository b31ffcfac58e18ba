//! Which folder a run writes to, that it has it for itself, and that nothing of an earlier run is lost there.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Folder, refuse, succeed};
use serde_json::Value;

/// What a run measured, without times.
fn losses(folder: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics.jsonl");
    let record = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let records = text.lines().map(record).filter(|r| r["loss"].is_number());
    records.map(|r| (r["step"].as_u64().expect("a step"), r["loss"].to_string())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let name =
        |e: std::io::Result<fs::DirEntry>| e.expect("an entry").file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// A run that goes on until it is stopped, once it has trained.
fn start(folder: &Folder, settings: &[&str]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_linc"))
        .args(["train", &folder.config(), "--training.steps", "1000000", "--lr_scheduler.decay_ratio", "0"])
        .args(settings)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("linc runs");
    let (begun, metrics) = (Instant::now(), folder.path("run/metrics.jsonl"));
    while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 4 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step after a minute");
        assert!(child.try_wait().expect("a status").is_none(), "the run ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn every_command_of_a_config_trains() {
    let folder = Folder::new("folders_own");
    let config = folder.config();
    let train = |settings: &[&str], writes: &str, said: &[&str]| {
        let text = succeed(&[&["train", &config][..], settings].concat());
        let writes = folder.path(writes).display().to_string();
        for word in [&["loss:", "Training completed", writes.as_str()], said].concat() {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        assert!(!text.contains("Nothing is left"), "{text}");
    };
    train(&[], "run", &["Writing to"]);
    let first = losses(&folder.path("run"));
    train(&[], "run-2", &["holds a run with these settings, with 6 steps done", "training.steps"]);
    assert_eq!(losses(&folder.path("run-2")), first, "the same run again has the same bits");
    let ratio = ["--model.linear_attn_ratio", "1.0", "--training.steps", "4"];
    train(
        &ratio,
        "run-3",
        &["run holds a run with other settings (model.linear_attn_ratio", "--job.dump_folder"],
    );
    train(&["--training.mixed_precision_param", "bfloat16"], "run-4", &["\"float32\" -> \"bfloat16\""]);
    train(&["--profile"], "run-5", &["run holds a run with these settings", "ms/step"]);
    train(&["--checkpoint.enable", "false"], "run-6", &["--checkpoint.load_step 6"]);
    train(&["--training.seed", "5"], "run-7", &["training.seed 0 -> 5"]);
    // What is asked for in the folder of another run is not in the way, nor are names that are not linc's.
    fs::create_dir(folder.path("run-08")).expect("a folder");
    // More steps of one of them: it goes on, and says so.
    train(
        &ratio[..2],
        "run-3",
        &["Going on with the run in", "has 4 of 6 steps done", "step 4", "training.steps 4 -> 6"],
    );
    assert_eq!(losses(&folder.path("run")), first, "the first run is as it was");

    // Another text, or another architecture under the same name, is another run.
    let text = folder.path("text.txt");
    let before = fs::read_to_string(&text).expect("the text");
    let other = |settings: &[&str]| {
        fs::write(&text, before.replace("lazy", "busy")).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_linc"));
        let output = command.args(["train", &config]).args(settings).output().expect("linc runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = other(&["--training.seed", "5", "--training.steps", "7"]);
    assert!(text.contains("run-8: ") && text.contains("cannot go on: ") && text.contains("data"), "{text}");
}

#[test]
fn of_several_runs_that_can_go_on_the_configs_own_does() {
    let folder = Folder::new("folders_first");
    let config = folder.config();
    let train = |settings: &[&str], said: &str| {
        let text = succeed(&[&["train", &config][..], settings].concat());
        let said = said.replace("FOLDER", &folder.path("run").display().to_string());
        assert!(text.contains(&said), "no {said:?} in: {text}");
    };
    let last = |name: &str| losses(&folder.path(name)).last().expect("a record").0;
    train(&[], "Writing to FOLDER\n");
    for _ in 0..2 {
        train(
            &[],
            "FOLDER holds a run with these settings, with 6 steps done; to go on with it, ask for more in",
        );
    }
    // More steps of three runs with equal settings: the first, then the others by their numbers.
    for (i, name) in ["run", "run-2", "run-3"].into_iter().enumerate() {
        let said = format!("Going on with the run in FOLDER{}, which has 6 of 7", &name[3..]);
        train(&["--training.steps", "7"], &said);
        let steps = ["run", "run-2", "run-3"].map(last);
        assert_eq!(steps, std::array::from_fn(|j| if j <= i { 7 } else { 6 }));
    }
    train(
        &["--training.steps", "7"],
        "Writing to FOLDER-4: FOLDER holds a run with these settings, with 7 steps",
    );
    // One step of them is in all.
    train(
        &["--training.steps", "7", "--checkpoint.load_step", "6"],
        "Going on with the run in FOLDER, from step 6",
    );
}

#[test]
fn a_folder_that_is_named_is_taken_and_nothing_in_it_is_lost() {
    let folder = Folder::new("folders_named");
    let (config, run) = (folder.config(), folder.path("run").display().to_string());
    let train =
        |settings: &[&str]| succeed(&[&["train", &config, "--job.dump_folder", &run][..], settings].concat());
    train(&[]);
    let first = (losses(&folder.path("run")), fs::read(folder.path("run/config.toml")).expect("a config"));

    // Another learning rate from a step in the middle: every change is said, and what was before is kept.
    let text =
        train(&["--checkpoint.load_step", "3", "--optimizer.lr", "0.01", "--training.max_norm", "0.5"]);
    for word in [
        "optimizer.lr 0.0008 -> 0.01",
        "training.max_norm 1.0 -> 0.5",
        "config-step-3.toml",
        "metrics-2.jsonl",
    ] {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert_eq!(fs::read(folder.path("run/config-step-3.toml")).expect("kept"), first.1);
    fs::rename(folder.path("run/metrics.jsonl"), folder.path("run/later.jsonl")).expect("renamed");
    fs::rename(folder.path("run/metrics-2.jsonl"), folder.path("run/metrics.jsonl")).expect("renamed");
    assert_eq!(losses(&folder.path("run")), first.0);

    // Without checkpoints a run starts anew: the records of the one before stay as well.
    let text = train(&["--checkpoint.enable", "false", "--optimizer.lr", "0.02"]);
    assert!(text.contains("up to step 6, are kept as metrics-2.jsonl"), "{text}");
    let now = losses(&folder.path("run"));
    assert_ne!(now, first.0);
    let text = train(&["--checkpoint.enable", "false", "--optimizer.lr", "0.02"]);
    assert!(text.contains("kept as metrics-3.jsonl") && !text.contains("Settings differ"), "{text}");
    let there = names(&folder.path("run"));
    for name in ["config-step-0.toml", "config-step-3.toml", "metrics-2.jsonl", "metrics-3.jsonl"] {
        assert!(there.iter().any(|n| n == name), "no {name} in {there:?}");
    }

    // A file of the user's own under the name of the resolved config.
    let own = folder.path("own");
    let text = format!("# Mine.\n{}", fs::read_to_string(&config).expect("the config"));
    fs::create_dir(&own).expect("a folder");
    fs::write(own.join("config.toml"), &text).expect("written");
    succeed(&[
        "train",
        &own.join("config.toml").display().to_string(),
        "--job.dump_folder",
        &own.display().to_string(),
    ]);
    assert_eq!(fs::read_to_string(own.join("config-step-0.toml")).expect("kept"), text);
}

#[test]
fn a_config_of_a_run_that_was_emptied_says_nothing_of_its_settings() {
    for (name, text) in [("emptied_config", ""), ("section_config", "[training]\n")] {
        let folder = Folder::new(name);
        let config = folder.config();
        succeed(&["train", &config]);
        let own = folder.path("run/config.toml");
        fs::write(&own, text).expect("written");
        let said = succeed(&["train", &config, "--training.steps", "2"]);
        assert!(said.contains("config.toml is missing, empty or damaged"), "{said}");
        assert!(!said.contains("other settings"), "{said}");
        // In a folder that is named, what is there is kept, and nothing is said to differ from it.
        let run = folder.path("run").display().to_string();
        let said = succeed(&["train", &config, "--job.dump_folder", &run, "--training.steps", "6"]);
        assert!(
            said.contains("The config.toml before is kept as") && !said.contains("Settings differ"),
            "{said}"
        );
    }
}

#[test]
fn weights_to_start_with_are_not_for_a_run_that_goes_on() {
    let folder = Folder::new("folders_initial");
    let config = folder.config();
    succeed(&["train", &config]);
    let weights = folder.path("run/checkpoint/step-3").display().to_string();
    let run = folder.path("other").display().to_string();
    let train = ["train", &config, "--job.dump_folder", &run, "--checkpoint.initial_load_path", &weights];
    let text = succeed(&train);
    assert!(text.contains("Starting from the weights of"), "{text}");
    let text = succeed(&[&train[..], &["--training.steps", "7"]].concat());
    assert!(text.contains("initial_load_path = ") && text.contains("not read"), "{text}");
}

#[test]
fn a_folder_is_written_by_one_run_at_a_time() {
    let folder = Folder::new("folders_lock");
    let mut first = start(&folder, &[]);
    let (config, run) = (folder.config(), folder.path("run").display().to_string());
    let same = ["train", &config, "--lr_scheduler.decay_ratio", "0", "--training.steps", "9"];
    let process = format!("process {}", first.id());
    refuse(&same, &["run is in use", &process, "help:", "--job.dump_folder"]);
    let named = ["train", &config, "--training.seed", "3", "--job.dump_folder", &run];
    refuse(&named, &["run is in use", &process]);
    // A run with other settings, none of whose folders has the step that it asks for.
    let step = ["train", &config, "--training.seed", "3", "--checkpoint.load_step", "3"];
    refuse(&step, &["run is in use", &process]);
    // Another run of the config goes on beside it.
    let text = succeed(&["train", &config, "--training.seed", "3"]);
    assert!(text.contains("run-2: a run goes on in"), "{text}");
    first.kill().expect("killed");
    first.wait().expect("an end");
    assert!(folder.path("run/.lock").exists(), "a killed run cannot remove it");
    let text = succeed(
        &[&same[..5], &["1000000000"], &["--job.dump_folder", &run, "--training.steps", "3"]].concat(),
    );
    assert!(text.contains("Training completed"), "{text}");
    assert!(!folder.path("run/.lock").exists());
}

#[test]
fn a_refused_compile_folder_leaves_the_run_as_it_was() {
    let folder = Folder::new("folders_compile");
    let (config, run) = (folder.config(), folder.path("run").display().to_string());
    let train = ["train", &config, "--job.dump_folder", &run, "--compile.dump", "true"];
    succeed(&train);
    fs::remove_file(folder.path("run/compile/files.txt")).expect("removed");
    let files =
        || ["config.toml", "metrics.jsonl"].map(|n| fs::read(folder.path("run").join(n)).expect("read"));
    let (before, there) = (files(), names(&folder.path("run")));
    let more = ["--training.steps", "8", "--optimizer.lr", "0.01"];
    refuse(&[&train[..], &more].concat(), &["compile", "not known to be of linc", "help:"]);
    assert!(files() == before, "a refused run changed something");
    assert_eq!(names(&folder.path("run")), there);
}

#[test]
fn checkpoints_stay_inside_the_dump_folder() {
    let folder = Folder::new("folders_checkpoint");
    let config = folder.config();
    let outside = folder.path("shared").display().to_string();
    for place in ["../shared", "a/../../shared", "..", &outside, ""] {
        let words = ["checkpoint.folder", "inside the dump folder"];
        refuse(&["train", &config, "--checkpoint.folder", place], &words);
    }
    succeed(&["train", &config, "--checkpoint.folder", "kept/here"]);
    assert_eq!(names(&folder.path("run/kept/here")), ["step-3", "step-6"]);
}

/// A run that is killed between its last checkpoint and the removal of the one too many is through, and its next start ends that.
#[test]
fn what_a_killed_run_had_still_to_remove_the_next_start_removes() {
    let folder = Folder::new("folders_left_over");
    let (config, run) = (folder.config(), folder.path("run").display().to_string());
    let often = ["--checkpoint.interval", "1", "--checkpoint.keep_latest_k", "2"];
    let train = [&["train", &config, "--job.dump_folder", &run][..], &often].concat();
    succeed(&train);
    let (checkpoints, state) = (folder.path("run/checkpoint"), "state.json");
    assert_eq!(names(&checkpoints), ["step-5", "step-6"]);
    fs::create_dir(checkpoints.join("step-4")).expect("made");
    fs::copy(checkpoints.join("step-5").join(state), checkpoints.join("step-4").join(state)).expect("copied");
    let named = succeed(&[&train[..], &["--checkpoint.load_step", "6"]].concat());
    assert!(named.contains("Nothing is left to train"), "{named}");
    assert_eq!(
        names(&checkpoints),
        ["step-4", "step-5", "step-6"],
        "a step that is named is a look at the past"
    );
    let again = succeed(&train);
    assert!(again.contains("Nothing is left to train"), "{again}");
    assert_eq!(names(&checkpoints), ["step-5", "step-6"]);
}

/// Killed at any moment, by a signal that no program can answer, a run goes on with the bits of one that was not.
#[cfg(unix)]
#[test]
fn runs_that_are_killed_go_on_with_the_same_bits() {
    let folder = Folder::new("folders_killed");
    let config = folder.config();
    let whole = folder.path("whole").display().to_string();
    let often = ["--checkpoint.interval", "1", "--checkpoint.keep_latest_k", "2", "--training.steps", "60"];
    succeed(&[&["train", &config, "--job.dump_folder", &whole][..], &often].concat());
    let run = folder.path("run").display().to_string();
    for round in 0..12u64 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_linc"))
            .args(["train", &config, "--job.dump_folder", &run])
            .args(often)
            // Every other time with checkpoints that are written beside the training.
            .args(["--checkpoint.async_mode", if round % 2 == 0 { "async" } else { "disabled" }])
            .env("CUDA_VISIBLE_DEVICES", "")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("linc runs");
        std::thread::sleep(Duration::from_millis(20 + 37 * round));
        child.kill().expect("killed");
        child.wait().expect("an end");
    }
    let beside = ["--checkpoint.async_mode", "async"];
    succeed(&[&["train", &config, "--job.dump_folder", &run][..], &often, &beside].concat());
    let files = |name: &str| {
        let step = folder.path(name).join("checkpoint/step-60");
        ["model.safetensors", "optimizer.safetensors", "state.json"]
            .map(|f| fs::read(step.join(f)).expect("read"))
    };
    assert!(files("run") == files("whole"), "other bits");
    let last = |name: &str| losses(&folder.path(name)).split_off(55);
    assert_eq!(last("run"), last("whole"));
    assert_eq!(names(&folder.path("run/checkpoint")), ["step-59", "step-60"], "leftovers");
}
