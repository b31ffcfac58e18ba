//! `linc config`, and runs whose configs start from others.

use std::fs;

use serde_json::Value;

use crate::common::{Folder, linc, refuse, succeed};

#[test]
fn what_is_printed_is_a_config_with_origins() {
    let folder = Folder::new("config_printed");
    let config = folder.file("run.toml", "base = \"quickstart\"\n[training]\nsteps = 50\n");
    let said = succeed(&["config", &config, "--optimizer.lr", "0.5"]);
    let line = |key: &str| {
        said.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {said}"))
    };
    assert!(line("lr = 0.5 ").ends_with("# command line"), "{said}");
    assert!(line("steps = 50 ").ends_with("run.toml:3"), "{said}");
    assert!(line("seq_len = 256 ").contains("# (built in)/configs/quickstart.toml:"), "{said}");
    assert!(line("max_norm = 1.0 ").ends_with("# default"), "{said}");
    let values = |said: &str| {
        let values =
            said.lines().map(|line| line.split("  # ").next().unwrap_or_default().trim_end().to_owned());
        values.collect::<Vec<_>>()
    };
    let again = folder.file("printed.toml", &said);
    assert_eq!(values(&succeed(&["config", &again])), values(&said));
}

#[test]
fn json_has_the_same() {
    let folder = Folder::new("config_json");
    let config = folder.file("run.toml", "[training]\nsteps = 50\n[optimizer]\nimplementation = \"fused\"\n");
    let parse = |said: &str| serde_json::from_str::<Value>(said).expect("JSON");
    let report = parse(&succeed(&["config", &config, "--training.seq_len", "64", "--format", "json"]));
    assert_eq!(report, parse(&succeed(&["config", "--format=json", &config, "--training.seq_len", "64"])));
    let settings = report["settings"].as_array().expect("a list");
    let setting = |name: &str| settings.iter().find(|setting| setting["name"] == name).expect("listed");
    let steps = setting("training.steps");
    assert_eq!((&steps["value"], &steps["from"], &steps["line"]), (&50.into(), &"file".into(), &2.into()));
    assert_eq!(steps["file"], config.as_str());
    assert_eq!(
        (&setting("training.seq_len")["value"], &setting("training.seq_len")["from"]),
        (&64.into(), &"command line".into())
    );
    assert_eq!(
        (&setting("model.path")["value"], &setting("model.path")["from"]),
        (&Value::Null, &"default".into())
    );
    assert!(report["warnings"][0].as_str().is_some_and(|text| text.contains("optimizer.implementation")));
    let output = linc(&["config", &config]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("warning: ") && error.contains("run.toml:4:1"), "{error}");
}

#[test]
fn the_schema_is_json() {
    let schema: Value = serde_json::from_str(&succeed(&["config", "--schema"])).expect("JSON");
    assert_eq!(schema["properties"]["training"]["properties"]["steps"]["minimum"], 1);
}

#[test]
fn what_is_no_request_is_refused() {
    let folder = Folder::new("config_refused");
    let config = folder.file("run.toml", "base = \"nowhere.toml\"\n");
    refuse(
        &["config", &config],
        &["run.toml:1:8: error: `base`: there is no file", "nowhere.toml", "help: "],
    );
    refuse(&["train", &config], &["run.toml:1:8: error: `base`: there is no file"]);
    let config = folder.file("a/run.toml", "base = \"../b/run.toml\"\n[training]\nsteps = 5\n");
    folder.file("b/run.toml", format!("base = {config:?}\n"));
    refuse(&["train", &config], &["leads back to where it began", "b/run.toml:1"]);
    for (args, words) in [
        (
            vec!["config", "quickstart", "--training.seed", "1", "--format", "yaml"],
            ["--format takes text or json", "help: "],
        ),
        (
            vec!["config", "quickstart", "--training.seed", "1", "--format"],
            ["--format takes text or json", "help: "],
        ),
        (
            vec!["config", "quickstart", "--base", "llama3_1b"],
            ["unexpected argument `--base`", "above the first section"],
        ),
        (
            vec!["train", "quickstart", "--base", "llama3_1b"],
            ["unexpected argument `--base`", "above the first section"],
        ),
        (vec!["config", "quickstart", "--training.step", "5"], ["unknown setting", "--training.steps"]),
        (
            vec!["config", "--training.steps", "5"],
            ["no config is named before it", "linc config configs/quickstart.toml"],
        ),
        (vec!["config", "--shema"], ["is no option of linc config", "did you mean --schema?"]),
        (vec!["config", "quikstart"], ["cannot read the config file", "did you mean quickstart"]),
        (vec!["config", "models/llama3_1b.toml"], ["a model file, not the config of a run", "help: "]),
    ] {
        refuse(&args, &words);
    }
}

#[test]
fn a_run_keeps_its_resolved_config_and_goes_on_by_it() {
    let folder = Folder::new("config_based_run");
    folder.config();
    let config = folder.file("mine.toml", "base = \"config.toml\"\n[training]\nsteps = 3\n");
    succeed(&["train", &config]);
    let kept = fs::read_to_string(folder.path("run/config.toml")).expect("the run's config");
    assert!(
        !kept.contains("base =") && kept.contains("steps = 3\n") && kept.contains("seq_len = 32\n"),
        "{kept}"
    );
    // The same settings by another way are the same run, to which more steps are added.
    let config = folder.file("more.toml", "base = \"mine.toml\"\n[training]\nsteps = 6\n");
    let said = succeed(&["train", &config]);
    assert!(said.contains("step-3") && said.contains("step-6"), "{said}");
    // A change of the base changes the run.
    let text = fs::read_to_string(folder.path("config.toml")).expect("a config");
    folder.file("config.toml", text.replace("batch_size = 2", "batch_size = 1"));
    let said = succeed(&["train", &config]);
    assert!(said.contains("batch_size 2 -> 1"), "{said}");
}
