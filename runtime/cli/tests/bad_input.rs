//! Whatever a user can type or pass wrongly: a message that says what, where and what was expected, and exit code 2.

use std::fs;

use crate::common::{Folder, linc, refuse, succeed};

const MODEL: &str = "models/llama3_nano.toml";

#[test]
fn ratios_out_of_range() {
    for ratio in ["-0.1", "1.5", "NaN", "x", "", "1/0", "4/3", "inf", "0,5"] {
        let flag = format!("--ratio={ratio}");
        refuse(&["compile", MODEL, &flag], &[&format!("`--ratio {ratio}`"), "from 0 to 1"]);
    }
    let folder = Folder::new("ratios");
    let config = folder.config();
    for ratio in ["-0.1", "1.5", "NaN", "x"] {
        refuse(
            &["train", &config, "--model.linear_attn_ratio", ratio],
            &["linear_attn_ratio", "from 0 to 1"],
        );
        let text = fs::read_to_string(&config).expect("the config");
        let value = if ratio == "x" { "\"x\"".to_string() } else { ratio.to_lowercase() };
        let bad = folder.file("bad.toml", text.replace("ratio = 0.5", &format!("ratio = {value}")));
        refuse(&["train", &bad], &["bad.toml", "linear_attn_ratio"]);
    }
    assert!(!folder.path("run").exists(), "a refused run writes nothing");
}

#[test]
fn a_list_of_layers_beside_another_ratio() {
    let contradiction = ["linear_attn_placement lists 1 of", "linear_attn_ratio", "leave the ratio out"];
    for ratio in ["0", "1"] {
        let said = format!("`--ratio {ratio} --placement 2`");
        let expected = [&contradiction[..], &[said.as_str()]].concat();
        refuse(&["compile", MODEL, "--ratio", ratio, "--placement", "2"], &expected);
        refuse(&["inspect", MODEL, "--ratio", ratio, "--placement", "2"], &expected);
        refuse(&["bench", "train", MODEL, "--ratio", ratio, "--placement", "2"], &expected);
    }
    let card = succeed(&["compile", MODEL, "--placement", "2"]);
    assert!(card.contains("Layers      SSLS") && card.contains("Linear      ratio 0.25, 2"), "{card}");
    let card = succeed(&["compile", MODEL, "--ratio", "0.3"]);
    assert!(card.contains("ratio 0.3 of 4 layers: 1 layer, 0.25, uniform"), "{card}");
    succeed(&["inspect", MODEL, "--ratio", "1/4", "--placement", "3"]);

    let folder = Folder::new("lists");
    let config = folder.config();
    let text = fs::read_to_string(&config).expect("the config");
    let list = "linear_attn_ratio = 1\nlinear_attn_placement = [1]";
    let both = folder.file("both.toml", text.replace("linear_attn_ratio = 0.5", list));
    let expected = [&contradiction[..], &["both.toml:8:25", "linear_attn_placement = [1]"]].concat();
    refuse(&["train", &both], &expected);
    refuse(
        &["train", &config, "--model.linear_attn_placement", "0,1"],
        &["command line: `--model.linear_attn_placement 0,1`", "lists 2 of 2", "linear_attn_ratio = 0.5"],
    );
    refuse(&["train", &config, "--model.linear_attn_placement", "7"], &["command line:", "layers 0 to 1"]);
    assert!(!folder.path("run").exists(), "a refused run writes nothing");
}

#[test]
fn configs_with_mistakes() {
    let folder = Folder::new("configs");
    let cases: [(&str, &[&str]); 5] = [
        ("[training\nsteps = 3\n", &["bad.toml", "1:"]),
        ("[training]\nstepz = 3\n", &["bad.toml", "2:", "stepz", "steps"]),
        ("[training]\nsteps = \"many\"\n", &["bad.toml", "2:", "steps"]),
        ("[trainign]\nsteps = 3\n", &["bad.toml", "trainign", "training"]),
        ("[training]\nsteps = -3\n", &["bad.toml", "2:", "steps"]),
    ];
    for (text, expected) in cases {
        let path = folder.file("bad.toml", text);
        refuse(&["train", &path], expected);
    }
    refuse(&["train", &folder.path("none.toml").display().to_string()], &["none.toml"]);
    refuse(
        &["train", "configs/quickstart.toml", "--training.stepz", "3"],
        &["training.stepz", "training.steps"],
    );
    refuse(&["train", "configs/quickstart.toml", "--training.steps"], &["training.steps"]);
}

#[test]
fn models_with_mistakes() {
    refuse(&["compile", MODEL, "--set", "n_heads=3"], &["llama3", "3"]);
    refuse(&["compile", MODEL, "--set", "n_haeds=4"], &["n_haeds", "n_heads"]);
    refuse(&["compile", MODEL, "--placement", "7,9"], &["linear_attn_placement"]);
    refuse(&["compile", "models/none.toml"], &["none.toml"]);
    refuse(&["compile", MODEL, "--disable-pass", "fuson"], &["fuson", "fusion"]);
    refuse(&["compile", MODEL, "--dump", "fuson"], &["fuson", "fusion"]);
    // It takes time, and is named with the passes where that is said, but it leaves no graph.
    refuse(
        &["compile", MODEL, "--dump", "kernels"],
        &["--dump is \"kernels\"", "fusion, residual, pack_heads, memory\n"],
    );

    let folder = Folder::new("models");
    let toml = "name = \"m\"\nflavor = \"f\"\narchitecture = \"m.linc\"\ndim = 16\nn_layers = 1\nn_heads = 2\nvocab_size = 8\n";
    let model = folder.file("m.toml", toml);
    let head = "model m(tokens: [batch, seq] int) {\n  param table [vocab_size, dim] init normal(1.0)\n";
    let cases: [(&str, &[&str]); 5] = [
        ("  x = embedding(tokens, table)\n  logits = y @ table.T\n}\n", &["m.linc:4:", "`y`"]),
        (
            "  param w [7, dim] init ones\n  x = embedding(tokens, table) @ w\n  logits = x @ table.T\n}\n",
            &["m.linc:4:", "7", "dim = 16"],
        ),
        ("  x = embedding(tokens, table)\n  logits = x @ table.T\n", &["m.linc:", "}"]),
        (
            "  logits = f(embedding(tokens, table)) @ table.T\n}\nfn f(x) { return f(x) }\n",
            &["m.linc:", "`f`"],
        ),
        ("  logits = embedding(tokens, table) @ table.T $\n}\n", &["m.linc:3:", "$"]),
    ];
    for (body, expected) in cases {
        folder.file("m.linc", format!("{head}{body}"));
        refuse(&["compile", &model], expected);
    }
    folder.file("m.linc", b"\xff\xfe\x00model");
    refuse(&["compile", &model], &["m.linc", "UTF-8"]);
}

#[test]
fn data_that_cannot_be_trained_on() {
    let folder = Folder::new("data");
    let config = folder.config();
    let with = |path: &str, expected: &[&str]| {
        refuse(&["train", &config, "--training.dataset_path", path], expected);
    };
    with(&folder.path("none.txt").display().to_string(), &["none.txt"]);
    with(&folder.file("empty.txt", ""), &["empty.txt"]);
    with(&folder.file("binary.txt", [0u8, 159, 146, 150].repeat(4000)), &["binary.txt"]);
    with(&folder.file("latin.txt", b"caf\xe9 ".repeat(2000)), &["latin.txt", "UTF-8"]);
    with(&folder.file("short.txt", "too short"), &["short"]);
    with(&folder.file("broken.jsonl", "{\"text\": \"a\"}\n{\"text\": \n"), &["broken.jsonl", "2"]);
    with(&folder.file("fields.jsonl", "{\"words\": \"a\"}\n".repeat(2000)), &["fields.jsonl", "text"]);
    for name in ["broken.jsonl.gz", "broken.jsonl.zst", "broken.parquet"] {
        with(&folder.file(name, "neither packed nor rows"), &[name, "cut off or damaged", "fetch"]);
    }
    with(&format!("{}/*.md", folder.0.display()), &["*.md"]);
    assert!(!folder.path("run").exists(), "a refused run writes nothing");
}

#[test]
fn tokenizers_that_do_not_fit() {
    let folder = Folder::new("tokenizers");
    let config = folder.config();
    let words: Vec<String> = (0..300).map(|i| format!("\"w{i}\": {i}")).collect();
    let tokenizer = folder.file(
        "tokenizer.json",
        format!(
            "{{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [], \
             \"normalizer\": null, \"pre_tokenizer\": {{\"type\": \"Whitespace\"}}, \"post_processor\": null, \
             \"decoder\": null, \"model\": {{\"type\": \"WordLevel\", \"unk_token\": \"w0\", \"vocab\": {{{}}}}}}}",
            words.join(", ")
        ),
    );
    refuse(&["train", &config, "--model.tokenizer_path", &tokenizer], &["300", "256", "vocab"]);
    let broken = folder.file("broken/tokenizer.json", "{");
    refuse(&["train", &config, "--model.tokenizer_path", &broken], &["tokenizer.json"]);
}

#[test]
fn checkpoints_that_are_damaged_or_of_another_model() {
    let folder = Folder::new("checkpoints");
    let config = folder.config();
    succeed(&["train", &config]);
    let step = folder.path("run/checkpoint/step-6");
    let (weights, step_name) = (step.join("model.safetensors"), step.display().to_string());
    let whole = fs::read(&weights).expect("weights");
    let generate = ["generate", "--checkpoint", &step_name, "--prompt", "the", "--tokens", "4"];
    let train = ["train", &config, "--training.steps", "8"];

    fs::write(&weights, &whole[..whole.len() / 2]).expect("write");
    refuse(&generate, &["model.safetensors"]);
    refuse(&train, &["model.safetensors"]);
    let mut flipped = whole.clone();
    flipped[whole.len() - 9] ^= 0x10;
    fs::write(&weights, &flipped).expect("write");
    refuse(&generate, &["model.safetensors"]);
    refuse(&train, &["model.safetensors"]);
    fs::write(&weights, &whole).expect("write");

    let run = folder.path("run").display().to_string();
    let here = ["--training.steps", "8", "--job.dump_folder", &run];
    refuse(&[&["train", &config, "--model.linear_attn_ratio", "1"][..], &here].concat(), &["linear"]);
    let other = folder
        .file("other.toml", fs::read_to_string(&config).expect("config").replace("dim = 32", "dim = 64"));
    refuse(&[&["train", &other][..], &here].concat(), &["checkpoint"]);
    fs::remove_file(step.join("state.json")).expect("remove");
    refuse(&generate, &["state.json"]);
    refuse(&["generate", "--checkpoint", &folder.path("nothing").display().to_string()], &["nothing"]);
    // Nothing was lost on the way.
    assert_eq!(fs::read(&weights).expect("weights"), whole);
    assert!(folder.path("run/checkpoint/step-3/state.json").is_file());
}

#[test]
fn dump_folders_that_cannot_be_written() {
    let folder = Folder::new("dump");
    let config = folder.config();
    let file = folder.file("file", "not a folder");
    refuse(&["train", &config, "--job.dump_folder", &format!("{file}/run")], &["file"]);
    let out = format!("{file}/out");
    refuse(&["compile", MODEL, "--out", &out], &["file"]);
}

#[test]
fn models_that_do_not_fit_in_memory_are_refused_before_the_first_step() {
    let run = Folder::new("memory_too_small").path("run");
    let dump_folder = run.display().to_string();
    let model = ["--model.flavor", "405B", "--job.dump_folder", &dump_folder];
    let args = [&["train", "configs/llama3_1b.toml"][..], &model].concat();
    let message = refuse(&args, &["GiB", "parameters", "optimizer_state"]);
    assert!(!run.exists(), "a refused run writes nothing");
    assert!(!message.contains("step:"), "{message}");
}

#[test]
fn command_lines_that_mean_nothing() {
    for args in
        [&["trian"][..], &[], &["compile"], &["train"], &["generate"], &["compile", MODEL, "--seq-len", "0"]]
    {
        let output = linc(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}
