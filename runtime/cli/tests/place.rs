//! `linc place` as a user has it: from a softmax run to a hybrid that trains on, and what is refused.

use std::fs;

use serde_json::Value;

use crate::common::{Folder, linc, refuse, stoppable, succeed};

/// Settings of the smallest placement that is one.
const SMALL: [&str; 12] = [
    "--sequences",
    "8",
    "--batch-size",
    "4",
    "--align-steps",
    "4",
    "--points",
    "3",
    "--gate-steps",
    "3",
    "--random",
    "2",
];

/// A softmax run of four layers; its folder.
fn trained(folder: &Folder) -> String {
    let settings = ["--model.linear_attn_ratio", "0", "--model.overrides.n_layers", "4"];
    succeed(&[&["train", &folder.config()][..], &settings].concat());
    folder.path("run").display().to_string()
}

#[test]
fn a_softmax_run_becomes_a_hybrid_that_trains_on() {
    let folder = Folder::new("place");
    let run = trained(&folder);
    let (out, text) = (folder.path("place.json").display().to_string(), folder.path("text.txt"));
    let text = text.display().to_string();
    let place = ["place", &run, "--ratio", "0.5", "--text", &text, "--out", &out];
    let finetune = ["--finetune", "4", "--", "--optimizer.lr", "1e-4"];
    let said = succeed(&[&place[..], &SMALL, &finetune].concat());
    let json: Value = serde_json::from_slice(&fs::read(&out).expect("a file")).expect("JSON");
    assert_eq!(json["complete"], true);
    let linear: Vec<u64> =
        json["linear"].as_array().expect("layers").iter().map(|layer| layer.as_u64().expect("one")).collect();
    let list = linear.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let setting = format!("linear_attn_placement = [{list}]");
    for words in ["becomes", "removal", "trained gates", "random 2", "all linear", "add up to", &setting] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let csv = fs::read_to_string(folder.path("place.csv")).expect("a table");
    assert_eq!(csv.lines().count(), 5);
    // The hybrid is a model as others, and was trained on from its weights.
    let hybrid = folder.path("place/step-6").display().to_string();
    let card = succeed(&["inspect", &hybrid]);
    let map: String = (0..4).map(|layer| if linear.contains(&layer) { 'L' } else { 'S' }).collect();
    assert!(card.contains(&map), "{map} in {card}");
    let finetuned = folder.path("place/finetuned/checkpoint/step-4").display().to_string();
    assert!(succeed(&["inspect", &finetuned]).contains(&map));
    let config = fs::read_to_string(folder.path("place/finetuned/config.toml")).expect("a config");
    assert!(config.contains("lr = 0.0001"), "{config}");
    // As the setting says it, it is the same model.
    let other = folder.path("other").display().to_string();
    let settings = ["--model.overrides.n_layers", "4", "--checkpoint.initial_load_path", &hybrid];
    let list = linear.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let placement = ["--model.linear_attn_placement", &list, "--job.dump_folder", &other];
    let config = fs::read_to_string(folder.config()).expect("a config");
    let config = folder.file("plain.toml", config.replace("linear_attn_ratio = 0.5\n", ""));
    succeed(&[&["train", &config][..], &settings, &placement].concat());
}

#[test]
fn a_hugging_face_folder_is_placed_as_the_run_that_it_is_of() {
    let folder = Folder::new("place_hf");
    let run = trained(&folder);
    let foreign = folder.path("foreign").display().to_string();
    succeed(&["export", &format!("{run}/checkpoint/step-6"), "--out", &foreign]);
    let place = |model: &str, name: &str| {
        let out = folder.path(name).display().to_string();
        let args = ["place", model, "--ratio", "1/4", "--out", &out, "--context", "32", "--format", "json"];
        let said = succeed(&[&args[..], &SMALL].concat());
        let mut json: Value = serde_json::from_str(said.trim()).expect("JSON");
        // They have the step in them that the checkpoint is of.
        json["hybrid"] = Value::Null;
        json["seconds"] = Value::Null;
        json
    };
    let (one, other) = (place(&run, "one.json"), place(&foreign, "other.json"));
    assert_eq!(one, other);
    assert_eq!(one["linear"].as_array().map(Vec::len), Some(1));
    assert!(folder.path("other/step-0/model.safetensors").is_file());
    assert!(!folder.path("other/imported").exists(), "what was made of it is removed");
}

#[test]
fn what_cannot_be_placed_is_said() {
    let folder = Folder::new("place_refused");
    let run = trained(&folder);
    let out = folder.path("place.json").display().to_string();
    let base = ["place", &run, "--out", &out];
    refuse(&[&base[..], &["--ratio", "1.5"]].concat(), &["\"1.5\"", "from 0 to 1"]);
    refuse(&[&base[..], &["--ratio", "1"]].concat(), &["nothing to choose", "help:"]);
    refuse(&[&base[..], &["--ratio", "0.5", "--tasks", "mqra"]].concat(), &["there is no task", "mqar"]);
    refuse(&[&base[..], &["--ratio", "0.5", "--text", "nowhere.txt"]].concat(), &["nowhere.txt"]);
    refuse(
        &[&base[..], &["--ratio", "0.5", "--batch-size", "60000"]].concat(),
        &["two batches of 60000", "help:"],
    );
    refuse(&[&base[..], &["--ratio", "0.5", "--align-lr", "nan"]].concat(), &["--align-lr"]);
    refuse(&["place", "nowhere", "--ratio", "0.5", "--out", &out], &["nowhere"]);
    refuse(&["place", &run, "--ratio", "0.5", "--out", &format!("{run}.csv")], &["--out", "place.json"]);
    let foreign = folder.path("foreign").display().to_string();
    succeed(&["export", &format!("{run}/checkpoint/step-6"), "--out", &foreign]);
    let finetune = ["place", &foreign, "--ratio", "0.5", "--out", &out, "--finetune", "3"];
    refuse(&finetune, &["needs a config", "--config"]);
    // A hybrid has made its choice.
    let other = folder.path("hybrid").display().to_string();
    succeed(&["train", &folder.config(), "--job.dump_folder", &other]);
    refuse(&["place", &other, "--ratio", "0.5", "--out", &out], &["the layers of the model are LS", "help:"]);
    assert!(!folder.path("place.json").exists());
}

#[test]
fn what_is_there_already_is_not_lost() {
    let folder = Folder::new("place_there");
    let run = trained(&folder);
    let state = folder.path("run/checkpoint/step-6/state.json");
    let before = fs::read(&state).expect("a checkpoint");
    let place = |out: &str, more: &[&str]| {
        let args = ["place", &run, "--ratio", "0.5", "--out", out, "--context", "32"];
        [&args[..], &SMALL, more].concat().into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let refused = |out: &str, more: &[&str], words: &[&str]| {
        let args = place(out, more);
        refuse(&args.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    // The folder of the name is that of the run's own checkpoints.
    let among = format!("{run}/checkpoint.json");
    refused(&among, &[], &["step-3 is there", "another --out"]);
    assert_eq!(fs::read(&state).expect("a checkpoint"), before);
    assert!(!folder.path("run/checkpoint.json").exists());
    for name in ["own.json", "own.csv"] {
        let own = folder.file(name, "{\"model_type\": \"llama\"}");
        refused(&folder.path("own.json").display().to_string(), &[], &[name, "another --out"]);
        fs::remove_file(own).expect("removed");
    }
    let out = folder.path("place.json").display().to_string();
    let finetune = ["--finetune", "2", "--seed", "3", "--device", "cpu"];
    let args = place(&out, &finetune);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    succeed(&args);
    let config = fs::read_to_string(folder.path("place/finetuned/config.toml")).expect("a config");
    assert!(config.contains("seed = 3"), "{config}");
    let found = fs::read(&out).expect("a file");
    // What would train nothing, and what is wrong with the training, is said before the work.
    refuse(&args, &["finetuned has a run already", "--job.dump_folder"]);
    let other = folder.path("other.json").display().to_string();
    refused(&other, &["--finetune", "2", "--", "--optimizer.lrr", "1"], &["lrr"]);
    refused(&other, &["--finetune", "2", "--config", "nowhere.toml"], &["nowhere.toml"]);
    assert!(!folder.path("other.json").exists());
    // An aligning that diverges is no damaged checkpoint, and what an earlier placement found stays.
    refused(&out, &["--align-lr", "1e38"], &["of aligning", "--align-lr is 1e38"]);
    assert_eq!(fs::read(&out).expect("a file"), found);
    // Its own hybrid is replaced.
    let again = place(&out, &[]);
    succeed(&again.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!folder.path("place.incomplete.json").exists());
}

#[test]
fn numbers_that_no_machine_has_memory_for_are_refused() {
    let folder = Folder::new("place_numbers");
    let run = trained(&folder);
    let out = folder.path("place.json").display().to_string();
    let base = ["place", &run, "--ratio", "0.5", "--out", &out];
    for (name, value, said) in [
        ("--context", "1000000000000", "sequences of 32 tokens"),
        ("--points", "1000000", "from 1 to 1024"),
        ("--sequences", "18446744073709551615", "from 1 to 65536"),
        ("--batch-size", "18446744073709551615", "from 1 to 65536"),
        ("--random", "1000000000000", "from 0 to 65536"),
    ] {
        refuse(&[&base[..], &[name, value]].concat(), &[name, said]);
    }
}

#[cfg(unix)]
#[test]
fn a_placement_that_is_ended_leaves_what_it_found() {
    use std::time::{Duration, Instant};
    let folder = Folder::new("place_ended");
    let run = trained(&folder);
    let out = folder.path("place.json").display().to_string();
    let mut child = stoppable()
        .args([
            "place",
            &run,
            "--ratio",
            "0.5",
            "--out",
            &out,
            "--sequences",
            "32",
            "--align-steps",
            "1000000",
        ])
        .env("CUDA_VISIBLE_DEVICES", "")
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("linc runs");
    // The file is there before the work begins.
    let begun = Instant::now();
    while !folder.path("place.json").exists() && begun.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(1));
    let ended = Instant::now();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(ended.elapsed() < Duration::from_secs(60));
    let json: Value = serde_json::from_slice(&fs::read(&out).expect("a file")).expect("JSON");
    assert_eq!(json["complete"], false);
    assert_eq!(json["seconds"][0][0], "align", "it was written again at the end: {json}");
    // The next one writes over it.
    let args = ["place", &run, "--ratio", "0.5", "--out", &out];
    assert!(linc(&[&args[..], &SMALL].concat()).status.success());
}
