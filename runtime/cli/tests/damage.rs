//! Checkpoints that are not what was written, or of another model: refused with the file's name, nothing else touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Folder, refuse, succeed, workspace};

/// Every file below a folder with its contents.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let contents = fs::read(&path).expect("read");
                files.insert(path, contents);
            }
        }
    }
    files
}

/// A tokenizer with one token for each letter, in the format of Hugging Face.
fn tokenizer(folder: &Folder) -> String {
    let words: Vec<String> = ('a'..='z').enumerate().map(|(i, c)| format!("\"{c}\": {}", i + 3)).collect();
    let vocab = format!("\"?\": 0, \" \": 1, \"\\n\": 2, {}", words.join(", "));
    folder.file(
        "tokenizer.json",
        format!(
            "{{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [], \
             \"normalizer\": null, \"pre_tokenizer\": {{\"type\": \"Split\", \"pattern\": {{\"Regex\": \"[\\\\s\\\\S]\"}}, \
             \"behavior\": \"Isolated\", \"invert\": false}}, \"post_processor\": null, \
             \"decoder\": {{\"type\": \"Fuse\"}}, \
             \"model\": {{\"type\": \"WordLevel\", \"unk_token\": \"?\", \"vocab\": {{{vocab}}}}}}}"
        ),
    )
}

#[test]
fn damage_anywhere_is_found_and_named() {
    let folder = Folder::new("damage");
    let config = folder.config();
    let tokenizer = tokenizer(&folder);
    succeed(&["train", &config, "--model.tokenizer_path", &tokenizer]);
    let step = folder.path("run/checkpoint/step-6");
    let name = step.display().to_string();
    let train = ["train", &config, "--model.tokenizer_path", &tokenizer, "--training.steps", "8"];
    let generate = ["generate", "--checkpoint", &name, "--prompt", "the", "--tokens", "4"];
    let inspect = ["inspect", &name];
    let before = tree(&folder.path("run"));
    let files: Vec<&PathBuf> = before.keys().filter(|path| path.starts_with(&step)).collect();
    assert_eq!(files.len(), 6, "{files:?}");
    for path in files {
        let (whole, file) = (&before[path], path.file_name().expect("a name").to_str().expect("UTF-8"));
        let refused = || {
            let damaged = tree(&folder.path("run"));
            // The checksums are all that their own damage can be seen by: it may seem to be another file's.
            let named = if file == "checksums.json" { "step-6" } else { file };
            for args in [&train[..], &generate, &inspect] {
                let error = refuse(args, &[named, "help:"]);
                let names_whole = error.contains("step-3 (checkpoint.load_step 3)");
                assert!(names_whole || file == "checksums.json", "{error}");
            }
            assert!(tree(&folder.path("run")) == damaged, "a refused run changed something");
        };
        for len in [0, 1, whole.len() / 2, whole.len() - 2] {
            fs::write(path, &whole[..len]).expect("write");
            refused();
        }
        for (i, bit) in [(0, 0), (7, 3), (whole.len() / 3, 0), (whole.len() / 2, 6), (whole.len() - 3, 1)] {
            let mut flipped = whole.clone();
            flipped[i] ^= 1 << bit;
            fs::write(path, &flipped).expect("write");
            refused();
        }
        fs::remove_file(path).expect("removed");
        for args in [&train[..], &generate, &inspect] {
            refuse(args, &[file]);
        }
        fs::write(path, whole).expect("write");
    }
    assert!(tree(&folder.path("run")) == before, "a refused run changed something");
    succeed(&generate);
    succeed(&train);
}

#[test]
fn damage_in_a_folder_beside_the_configs_own_keeps_no_run_from_starting() {
    let folder = Folder::new("damage_beside");
    let config = folder.config();
    let train = ["train", &config, "--training.steps", "7"];
    succeed(&["train", &config]);
    succeed(&["train", &config]);
    // Now the second of two equal runs is the one that can go on.
    assert!(succeed(&train).contains("which has 6 of 7"));
    let (run, step) = (folder.path("run-2"), folder.path("run-2/checkpoint/step-6"));
    let name = run.display().to_string();
    let named = [&train[..], &["--job.dump_folder", &name]].concat();
    let files = [
        ("state.json", (|bytes| bytes.truncate(100)) as fn(&mut Vec<u8>)),
        ("model.safetensors", |bytes| bytes[1000] ^= 1),
        ("optimizer.safetensors", |bytes| bytes.truncate(50)),
        ("checksums.json", Vec::clear),
    ];
    for (number, (file, damage)) in (3..).zip(files) {
        let whole = fs::read(step.join(file)).expect("read");
        let mut damaged = whole.clone();
        damage(&mut damaged);
        fs::write(step.join(file), &damaged).expect("written");
        let before = tree(&run);
        let text = succeed(&train);
        let remedy = format!("step 3 there, add --job.dump_folder {name} --checkpoint.load_step 3");
        for word in [&format!("run-{number}: {name} holds a run that cannot go on"), file, &remedy] {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        // Whoever asks for that run hears that it is damaged.
        refuse(&named, &[file, "help:"]);
        assert!(tree(&run) == before, "what is passed over was changed");
        fs::write(step.join(file), whole).expect("written");
    }
    succeed(&[&named[..], &["--checkpoint.load_step", "3"]].concat());
    assert!(folder.path("run-2/checkpoint/step-7").exists());
}

#[test]
fn weights_alone_are_no_run_that_goes_on() {
    let folder = Folder::new("weights_alone");
    let config = folder.config();
    let train = ["train", &config, "--checkpoint.last_save_model_only", "true"];
    succeed(&train);
    // Asking for more steps would be refused: what is said instead does what it says.
    let text = succeed(&train);
    let run = folder.path("run").display().to_string();
    let weights = format!("--checkpoint.initial_load_path {run}/checkpoint/step-6");
    let earlier = format!("--job.dump_folder {run} --checkpoint.load_step 3");
    assert!(text.contains("run-2: ") && text.contains("weights only"), "{text}");
    assert!(text.contains(&weights) && text.contains(&earlier) && !text.contains("training.steps"), "{text}");
    let say = |what: &str| succeed(&[&train[..], &what.split(' ').collect::<Vec<_>>()].concat());
    let text = say(&weights);
    assert!(text.contains("run-3: ") && text.contains("Starting from the weights of"), "{text}");
    assert!(say(&earlier).contains("(step 3)"));
    fs::remove_dir_all(folder.path("run-3")).expect("removed");
    let more = [&train[..], &["--training.steps", "7"]].concat();
    refuse(&more, &["run/checkpoint/step-6", "weights only", "checkpoint.initial_load_path"]);
    // The config's own run has what it needs by now, and the one beside it has not.
    fs::remove_dir_all(folder.path("run/checkpoint/step-6")).expect("removed");
    assert!(succeed(&more).contains("which has 3 of 7"));
    let text = succeed(&more);
    assert!(text.contains("run-3: ") && text.contains("weights only"), "{text}");
}

#[test]
fn checkpoints_of_another_model_are_refused() {
    let folder = Folder::new("another_model");
    let model = fs::read_to_string(workspace().join("models/llama3_nano.toml")).expect("the model");
    let architecture = fs::read_to_string(workspace().join("models/llama3.linc")).expect("the architecture");
    let model = folder.file("llama3_nano.toml", model);
    let linc = folder.file("llama3.linc", &architecture);
    let config = folder.config();
    succeed(&["train", &config, "--model.path", &model]);
    let before = tree(&folder.path("run"));
    let run = folder.path("run").display().to_string();
    let train =
        ["train", &config, "--model.path", &model, "--training.steps", "8", "--job.dump_folder", &run];
    let refused = |settings: &[&str], expected: &[&str]| {
        refuse(&[&train[..], settings].concat(), &[expected, &["checkpoint/step-6", "help:"]].concat());
        assert!(tree(&folder.path("run")) == before, "a refused run changed something");
    };
    refused(&["--model.overrides.dim", "64"], &["parameters"]);
    refused(&["--model.linear_attn_ratio", "1"], &["LS", "LL", "linear_attn_ratio = 0.5"]);
    refused(&["--model.linear_attn_placement", "back"], &["LS", "SL"]);
    refused(&["--model.overrides.norm_eps", "1e-4"], &["llama3_nano.toml"]);
    refused(&["--model.overrides.linear_attention.rope", "false"], &["llama3_nano.toml"]);

    let edited =
        architecture.replace("silu(h @ w1.T)", "silu(h @ w3.T)").replace("* (h @ w3.T)", "* (h @ w1.T)");
    assert_ne!(edited, architecture);
    fs::write(&linc, edited).expect("write");
    refused(&[], &["llama3.linc"]);
    // A comment changes nothing.
    fs::write(&linc, format!("# My model.\n{architecture}")).expect("write");
    succeed(&train);
}

/// A run whose text computes with the shape of its batches goes on with that shape only, if that makes a difference.
#[test]
fn a_model_that_computes_with_its_batches_goes_on_with_these() {
    let folder = Folder::new("another_shape");
    let toml = "name = \"m\"\nflavor = \"s\"\narchitecture = \"a.linc\"\ndim = 16\nn_layers = 2\nn_heads = 2\nvocab_size = 257\n";
    let model = folder.file("m.toml", toml);
    let (config, run) = (folder.config(), folder.path("run").display().to_string());
    let config_text =
        fs::read_to_string(&config).expect("the config").replace("dim = 32\nn_layers = 2\n", "");
    fs::write(&config, config_text).expect("written");
    let train = ["train", &config, "--model.path", &model, "--job.dump_folder", &run];
    let train = |settings: &[&[&str]]| -> Vec<String> {
        train.iter().copied().chain(settings.iter().copied().flatten().copied()).map(String::from).collect()
    };
    let attention = "for l in layers { h = reshape(x, [batch, seq, n_heads, head_dim])\n x = x + merge_heads(attention(h, h, h)) }";
    let batch = ["--training.batch_size", "1"];
    let words = ["`batch`, which was 2 and is 1 now", "set training.batch_size = 2", "initial_load_path"];
    for (body, is_refused) in [
        ("x = x * (1.0 + 1.0 / batch)", true),
        ("x = x * (1.0 + 1.0 / seq)", false),
        // Other axes are the same numbers.
        ("x = reshape(x * 2, [batch * seq, dim])\n x = reshape(x, [batch, seq, dim])", false),
    ] {
        let _ = fs::remove_dir_all(folder.path("run"));
        let text = format!(
            "model m(tokens: [batch, seq] int) {{\n param e [vocab_size, dim] init normal(0.1)\n x = embedding(tokens, e)\n {attention}\n {body}\n logits = x @ e.T\n}}\n"
        );
        folder.file("a.linc", &text);
        succeed(&train(&[]));
        let more = train(&[&batch, &["--training.steps", "7"]]);
        if is_refused {
            refuse(&more, &words);
            succeed(&train(&[&["--training.steps", "7"]]));
            continue;
        }
        // A comment is no other model, whatever the batch.
        folder.file("a.linc", format!("# Mine.\n{text}"));
        let text = succeed(&more);
        assert!(text.contains("Resuming from") && !text.contains("`batch`"), "{text}");
    }
    // Of a model that cannot generate nobody knows.
    let _ = fs::remove_dir_all(folder.path("run"));
    let shift = "x = x + concat(slice(x, 0, 1, 1) * 0, slice(x, 0, seq - 1, 1), 1) / batch";
    folder.file("a.linc", format!("model m(tokens: [batch, seq] int) {{\n param e [vocab_size, dim] init normal(0.1)\n x = embedding(tokens, e)\n {shift}\n logits = x @ e.T\n}}\n"));
    succeed(&train(&[]));
    let text = succeed(&train(&[&batch, &["--training.steps", "7"]]));
    assert!(text.contains("another model: its text reads `batch`, which was 2 and is 1 now"), "{text}");
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let folder = Folder::new("no_checkpoint");
    let config = folder.config();
    succeed(&["train", &config]);
    let shown = |path: &str| folder.path(path).display().to_string();
    let refused = |path: &str, expected: &[&str]| {
        refuse(
            &["generate", "--checkpoint", &shown(path)],
            &[&[path, "not a checkpoint"], expected].concat(),
        );
    };
    refused("run", &["step-6"]);
    refused("run/checkpoint", &["step-6"]);
    refused("text.txt", &["file"]);
    refused("nothing", &["no such folder"]);
    refuse(&["inspect", &shown("run")], &["step-6"]);
    let load = ["train", &config, "--checkpoint.load_step", "5"];
    refuse(&load, &["load_step is 5", "3, 6"]);
}
