//! What people type in their first hour: the error names the place that they typed it at, and the right command.

use std::fs;

use crate::common::{Folder, linc, refuse, succeed};

#[test]
fn a_file_of_another_kind_is_told_its_command() {
    for model in ["models/llama3_nano.toml", "llama3_nano"] {
        let linc_compile = format!("linc compile {model}");
        refuse(&["train", model], &["a model file, not the config of a run", &linc_compile, "--model.path"]);
    }
    let compile = "its model: linc compile models/llama3_nano.toml --ratio 0.5";
    for command in ["compile", "inspect"] {
        let error = refuse(
            &[command, "configs/quickstart.toml"],
            &["the config of a run, not a model file", compile],
        );
        assert!(error.contains("linc train configs/quickstart.toml trains it"), "{error}");
    }
    refuse(&["bench", "train", "quickstart"], &["the config of a run", compile]);
    // What is proposed works.
    succeed(&["compile", "models/llama3_nano.toml", "--ratio", "0.5"]);
    let folder = Folder::new("other_kind").path("run").display().to_string();
    let steps = ["--training.steps", "1", "--validation.enable", "false", "--job.dump_folder", &folder];
    succeed(
        &[&["train", "configs/quickstart.toml", "--model.path", "models/llama3_nano.toml"][..], &steps]
            .concat(),
    );
}

#[test]
fn settings_without_a_config_are_told_where_it_stands() {
    refuse(
        &["train", "--training.steps", "5"],
        &["no config is named", "linc train configs/quickstart.toml --training.steps 5"],
    );
    let behind = ["train", "--training.steps", "5", "configs/debug_model.toml", "--model.flavor=nano"];
    refuse(&behind, &["linc train configs/debug_model.toml --training.steps 5 --model.flavor=nano"]);
    refuse(&["train", "--profil", "x"], &["--profil is no option", "did you mean --profile?"]);
}

#[test]
fn toml_of_another_language_is_told_how_it_is_written() {
    let folder = Folder::new("toml_mistakes");
    let config = folder.file("unquoted.toml", "[model]\nflavor = nano\n");
    refuse(&["train", &config], &["unquoted.toml:2:10", "put text in quotes: `flavor = \"nano\"`"]);
    let model = folder.file("model.toml", "architecture = \"llama3.linc\"\ndim: 64\n");
    refuse(&["compile", &model], &["model.toml:2:", "write = between key and value: `dim = 64`"]);
}

#[test]
fn what_the_command_line_sets_is_said_to_be_there() {
    let folder = Folder::new("typed_places");
    let config = folder.config();
    folder.file("rows/a.csv", "a,b\n");
    let (rows, empty) = (folder.path("rows").display().to_string(), folder.file("empty.txt", ""));
    for (setting, said) in [
        (["--training.batch_size", "100000000"], "more than 2147483647 tokens"),
        (["--training.global_batch_size", "3"], "not a multiple of batch_size 2"),
        (["--model.overrides.dims", "5"], "did you mean `dim`?"),
        (["--model.overrides.dim", "-5"], "must be a whole number"),
        (["--model.tokenizer_path", "nowhere"], "there is no such file or folder"),
        (["--training.dataset_path", "nowhere/*.txt"], "nowhere: there is no such file or folder"),
        (["--validation.dataset_path", "nowhere"], "there is no such file or folder"),
        (["--training.dataset_path", ""], "expected a string that is not empty"),
        (["--model.tokenizer_path", ""], "expected a string that is not empty"),
        (
            ["--training.dataset_path", rows.as_str()],
            "no data files found\n  help: write its rows as JSON lines",
        ),
        (["--training.dataset_path", empty.as_str()], "there is no text in it\n  help: "),
    ] {
        let place = format!("command line: `{} {}`: ", setting[0], setting[1]);
        let error = refuse(&[&["train", &config][..], &setting].concat(), &[&place, said]);
        assert!(!error.contains("config.toml:"), "{error}");
    }
    refuse(
        &["compile", "llama3_nano", "--set", "dims=5"],
        &["command line: `--set dims=5`: ", "did you mean `dim`?"],
    );
    // In the file, it is said to be there.
    let text = fs::read_to_string(&config).expect("the config").replace("dim = 32", "dims = 32");
    let typo = folder.file("typo.toml", text);
    refuse(
        &["train", &typo],
        &["typo.toml:9:8: error: the model has no number `dims`", "help: did you mean `dim`?"],
    );
    let error = refuse(
        &["train", &config, "--training.batch_size", "3", "--training.global_batch_size", "4"],
        &["command line: `--training.global_batch_size 4`"],
    );
    assert!(!error.contains("config.toml:"), "{error}");
    assert!(!folder.path("run").exists(), "a refused run writes nothing");
}

#[test]
fn an_empty_config_is_no_run_of_the_defaults() {
    let folder = Folder::new("empty_config");
    for (name, text) in [("empty.toml", ""), ("comments.toml", "# nothing\n[training]\n[job]\n")] {
        let config = folder.file(name, text);
        for command in ["train", "config"] {
            refuse(&[command, &config], &[name, "the config is empty", "help: linc init quickstart"]);
        }
        // Where the command line says what is wanted, the file is only remarked on.
        let run = folder.path(name).with_extension("run").display().to_string();
        let settings = [
            "--training.steps",
            "1",
            "--training.seq_len",
            "16",
            "--model.flavor",
            "nano",
            "--job.dump_folder",
            &run,
        ];
        let output = linc(&[&["train", &config][..], &settings].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("the config is empty") && said.contains("1 step in"),
            "{said}"
        );
    }
    // What a config starts from counts.
    let based = folder.file("based.toml", "base = \"quickstart.toml\"\n");
    assert!(succeed(&["config", &based]).contains("steps = 300"));
}

#[test]
fn a_warmup_that_the_command_line_makes_too_long_is_said_to_be_there() {
    let folder = Folder::new("warmup_place");
    let output = linc(&["train", &folder.config(), "--training.steps", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("warning: command line: `--training.steps 1`: a warmup of 2 steps is longer"),
        "{said}"
    );
}

#[test]
fn a_path_typed_behind_a_config_with_other_data_is_text() {
    let folder = Folder::new("typed_path");
    let text = folder.file("tale.txt", "once upon a time there was a fox\n".repeat(200));
    let run = folder.path("run").display().to_string();
    let shape = ["--training.steps", "1", "--training.batch_size", "1", "--training.seq_len", "32"];
    let settings =
        ["--training.dataset_path", &text, "--validation.enable", "false", "--job.dump_folder", &run];
    let said = succeed(&[&["train", "configs/quickstart.toml"][..], &settings, &shape].concat());
    assert!(said.contains("tale.txt: 1 document"), "{said}");
    let both = [
        "train",
        "configs/quickstart.toml",
        "--training.dataset",
        "stories",
        "--training.dataset_path",
        &text,
    ];
    refuse(&both, &["command line: `--training.dataset_path", "is built in and reads no files"]);
}

#[test]
fn a_folder_of_hugging_face_is_no_checkpoint_yet() {
    let folder = Folder::new("mistakes_hugging_face");
    folder.file("hf/config.json", "{}");
    let hf = folder.path("hf").display().to_string();
    refuse(&["generate", "--checkpoint", &hf], &["a folder of Hugging Face", &format!("linc import {hf}")]);
}

#[test]
fn settings_are_listed_by_section() {
    let listed = succeed(&["train", "--list-settings"]);
    let headings: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix('[')).collect();
    let names: Vec<&str> = headings.iter().filter_map(|line| line.split(']').next()).collect();
    let first = [
        "job",
        "profiling",
        "metrics",
        "alerts",
        "model",
        "model.overrides",
        "optimizer",
        "lr_scheduler",
        "training",
        "training.mqar",
    ];
    assert_eq!(names[..first.len()], first, "each once, in the order of config.toml");
    assert!(
        headings.iter().all(|heading| heading.len() > heading.find(']').unwrap_or(0) + 10),
        "{headings:?}"
    );
    for (at, line) in listed.lines().enumerate().filter(|(_, line)| line.starts_with("  --")) {
        let above =
            listed.lines().take(at).filter_map(|line| line.strip_prefix('[')?.split(']').next()).last();
        assert!(
            above.is_some_and(|section| line.starts_with(&format!("  --{section}."))),
            "{line} below {above:?}"
        );
    }
}

#[test]
fn a_checkpoint_that_is_not_asked_for_is_pointed_at() {
    let folder = Folder::new("unread_checkpoint");
    let (config, run) = (folder.config(), folder.path("run").display().to_string());
    succeed(&["train", &config, "--training.steps", "3"]);
    let named = ["--job.dump_folder", &run, "--checkpoint.enable", "false"];
    let said = succeed(&[&["train", &config, "--training.steps", "4"][..], &named].concat());
    assert!(said.contains("to go on from it, add --checkpoint.load_step 3"), "{said}");
    assert!(said.contains("Training starts at step 1."), "{said}");
    let again =
        [&["train", &config, "--training.steps", "4"][..], &named, &["--checkpoint.load_step", "3"]].concat();
    let said = succeed(&again);
    assert!(said.contains("Training starts at step 4.") && !said.contains("is not read"), "{said}");
}

#[test]
fn what_is_refused_says_what_to_do() {
    let folder = Folder::new("remedies");
    let config = folder.config();
    succeed(&["train", &config, "--training.steps", "3", "--validation.enable", "false"]);
    let step = folder.path("run/checkpoint/step-3").display().to_string();
    let run = folder.path("run").display().to_string();
    let (above, none) =
        (folder.0.display().to_string(), folder.path("run/checkpoint/step-4").display().to_string());
    let (weights, text) = (format!("{step}/model.safetensors"), folder.file("latin.txt", b"caf\xe9"));
    let generate = |settings: &[&str], said: &[&str]| {
        let error = refuse(&[&["generate", "--checkpoint", &step][..], settings].concat(), said);
        assert!(error.contains("help: ") && !error.contains("os error"), "{error}");
    };
    generate(&["--prompt", "the", "--tokens", "500"], &["the context of 32", "at most 28 --tokens"]);
    generate(&["--prompt", "the", "--context", "1"], &["the context of 1", "a larger --context"]);
    generate(&["--context", "99999999999"], &["expected 1 to 2147483647"]);
    generate(&["--temperature", "-1"], &["--temperature is -1"]);
    generate(&["--top-p", "2"], &["--top-p is 2"]);
    generate(&["--precision", "float33"], &["--precision is \"float33\"", "did you mean \"float32\"?"]);
    generate(
        &["--prompt-file", "nowhere.txt"],
        &["nowhere.txt cannot be read: there is no such file or folder"],
    );
    generate(&["--prompt-file", "."], &["cannot be read: it is a folder"]);
    generate(&["--prompt-file", &text], &["not UTF-8", "iconv"]);
    for (path, said) in [
        (&run, "the newest is"),
        (&above, "one of their checkpoints is"),
        (&none, "the newest checkpoint beside it is"),
        (&weights, "name its folder"),
    ] {
        let error = refuse(&["generate", "--checkpoint", path], &["is not a checkpoint", "help: ", said]);
        assert!(error.contains("step-3"), "{error}");
    }
    for (args, said) in [
        (&["compile", "llama3_nano", "--entry", "trian"][..], "did you mean train?"),
        (&["compile", "llama3_nano", "--dump", "fusoin"], "did you mean fusion?"),
        (&["compile", "llama3_nano", "--target", "gpu"], "help: cuda is for NVIDIA GPUs"),
        (&["compile", "llama3_nano", "--arch", "sm_90"], "help: add --target cuda"),
        (&["compile", "llama3_nano", "--target", "cuda", "--arch", "sm_91"], "did you mean sm_90?"),
        (&["compile", "llama3_nano", "--set", "dim"], "help: such as --set n_layers=4"),
        (&["bench", "attention", "--heads", "3", "--kv-heads", "2"], "give --heads 4"),
        (&["bench", "attention", "--head-dim", "10"], "help: the next is 16"),
        (&["bench", "attention", "--rounds", "9999999"], "help: "),
        (&["inspect", &none], "the newest checkpoint beside it is"),
        (&["train", &config, "--job.dump_folder", &run, "--checkpoint.load_step", "9"], "name one of these"),
        (&["train", &config, "--job.dump_folder", &text], "something of that name is there already"),
        (&["init", "quickstart", &text], "help: "),
        (&["compile", "llama3_nano", "--out", &text], "help: "),
    ] {
        let error = refuse(args, &[said]);
        assert!(!error.contains("os error"), "{error}");
    }
}

#[test]
fn values_that_are_nearly_right_are_told_how_they_are_written() {
    let folder = Folder::new("nearly_right");
    let config = folder.config();
    for (setting, said) in [
        (["--training.steps", "1e3"], "help: write 1000"),
        (["--activation_checkpoint.mode", "memry"], "\"memory_budget\""),
        (["--lr_scheduler.decay_type", "linaer"], "did you mean linear?"),
        (["--model.linear_attn_placement", "midle"], "did you mean middle?"),
    ] {
        let place = format!("command line: `{} {}`: ", setting[0], setting[1]);
        refuse(&[&["train", &config][..], &setting].concat(), &[&place, said]);
    }
    for (args, said) in [
        (&["compile", "nano"][..], &["did you mean llama3_nano, which is built in?"][..]),
        (&["train", "debug"], &["did you mean debug_model, which is built in?"]),
        (&["compile", "llama3_nano", "--fit", "5"], &["with its unit, such as 24GiB"]),
        (&["compile", "llama3_nano", "--fit", "0.5"], &["with its unit, such as 24GiB"]),
        (
            &["compile", "llama3_nano", "--ratio", "2"],
            &["command line: `--ratio 2`", "0.75 for three of four"],
        ),
        (&["bench", "train", "llama3_nano", "--ratio", "0,75"], &["command line: `--ratio 75`"]),
        (&["compile", "llama3_nano", "--recompute", "memry"], &["did you mean \"memory_budget\"?"]),
    ] {
        refuse(args, said);
    }
}

#[test]
fn numbers_that_do_not_fit_together_name_the_flag_that_set_them() {
    let folder = Folder::new("overridden");
    let config = folder.config();
    let error = refuse(&["train", &config, "--model.overrides.n_heads", "3"], &["overridden to 3"]);
    assert!(
        error.contains("numbers are overridden by") && error.contains("`--model.overrides.n_heads 3`"),
        "{error}"
    );
    assert!(error.contains("config.toml:9:7"), "{error}");
    let error = refuse(&["compile", "llama3_nano", "--set", "head_dim=3"], &["even head size"]);
    assert!(error.contains("= note: numbers are overridden by `--set head_dim=3`"), "{error}");
    let error = refuse(&["compile", "llama3_nano", "--set", "dim=100", "--set", "n_heads=7"], &["dim = 100"]);
    assert_eq!(error.matches("note: ").count(), 1, "once for all errors: {error}");
}

#[test]
fn all_errors_of_files_look_alike() {
    let folder = Folder::new("looks");
    let linc = "model m {\n  x = nothing\n}\n";
    folder.file("own.linc", linc);
    let model =
        folder.file("own.toml", "name = \"m\"\nflavor = \"x\"\narchitecture = \"own.linc\"\ndims = 8\n");
    let config = folder.file("run.toml", "[training]\nstep = 3\n");
    let lost = folder.file("lost.toml", "name = \"m\"\narchitecture = \"lost.linc\"\n");
    for (args, place) in [
        (["compile", &model], "own.toml:4:1"),
        (["train", &config], "run.toml:2:1"),
        (["compile", &lost], "lost.toml:2:16"),
    ] {
        let error = refuse(&args, &[&format!("{place}: error: ")]);
        let lines: Vec<&str> = error.lines().collect();
        let at =
            lines.iter().position(|line| line.contains(&format!("{place}: error: "))).expect("the place");
        assert!(!lines[at].starts_with("error"), "an editor jumps to the place: {error}");
        assert_eq!(lines[at + 1], "  |", "{error}");
        assert!(
            lines[at + 2].split_once(" | ").is_some_and(|(number, _)| number.parse::<usize>().is_ok()),
            "{error}"
        );
        assert!(lines[at + 3].starts_with("  | ") && lines[at + 3].contains('^'), "{error}");
        assert!(lines.get(at + 4).is_none_or(|line| line.starts_with("  = help: ")), "{error}");
    }
}

#[test]
fn weights_of_another_model_say_what_differs() {
    let folder = Folder::new("other_weights");
    let config = folder.config();
    succeed(&["train", &config, "--training.steps", "1", "--validation.enable", "false"]);
    let step = folder.path("run/checkpoint/step-1").display().to_string();
    let other = folder.path("other").display().to_string();
    let start = ["--checkpoint.initial_load_path", &step, "--job.dump_folder", &other];
    let said = ["dim is 32 in it, not 64", "llama3 nano", "linc inspect"];
    refuse(&[&["train", &config, "--model.overrides.dim", "64"][..], &start].concat(), &said);
    // An imported folder has its model beside the weights.
    let (hf, back) = (folder.path("hf").display().to_string(), folder.path("back").display().to_string());
    succeed(&["export", &step, "--out", &hf]);
    succeed(&["import", &hf, "--out", &back]);
    let start = ["--checkpoint.initial_load_path", &back, "--job.dump_folder", &other];
    let help = format!("--model.path {back}/model.toml");
    refuse(&[&["train", &config, "--model.overrides.dim", "64"][..], &start].concat(), &["dim is 32", &help]);
    // What is proposed works, without the numbers that the config sets.
    let text = fs::read_to_string(&config).expect("the config");
    let plain = folder.file("plain.toml", text.replace("[model.overrides]\ndim = 32\nn_layers = 2\n", ""));
    succeed(&[&["train", &plain, "--model.path", &format!("{back}/model.toml")][..], &start].concat());
}
