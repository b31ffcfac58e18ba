//! What generation, inspection and settings of a model are asked for on the command line, rightly and wrongly.

use std::fs;

use crate::common::{Folder, refuse, succeed};

const MODEL: &str = "models/llama3_nano.toml";

#[test]
fn generation_beyond_its_limits_is_refused_before_anything_is_printed() {
    let folder = Folder::new("limits");
    succeed(&["train", &folder.config()]);
    let step = folder.path("run/checkpoint/step-6").display().to_string();
    let generate = ["generate", "--checkpoint", &step, "--prompt"];
    let long = "the quick brown fox jumps over the lazy dog";
    // 43 bytes and the token at the start; trained on 32.
    let refused = |args: &[&str], expected: &[&str]| {
        let all = [&generate[..], args].concat();
        refuse(&all, expected);
        assert!(crate::common::linc(&all).stdout.is_empty(), "{args:?} printed something");
    };
    refused(&[long], &["44 tokens", "context of 32", "--context"]);
    refused(&["the", "--tokens", "100"], &["4 tokens", "100 more", "--tokens"]);
    refused(&["the", "--temperature", "-1"], &["temperature is -1"]);
    refused(&["the", "--temperature", "NaN"], &["temperature is NaN"]);
    refused(&["the", "--top-p", "0"], &["top-p is 0"]);
    refused(&["the", "--context", "0"], &["--context"]);
    refused(&["the", "--context", "18446744073709551615"], &["expected 1 to 2147483647"]);
    refused(&[long, "--tokens", "0"], &["44 tokens", "context of 32"]);
    let text = succeed(&[&generate[..], &[long, "--context", "64", "--tokens", "5"]].concat());
    assert!(text.starts_with(long), "{text}");
    // As many as there is room for.
    succeed(&[&generate[..], &["the"]].concat());
}

#[test]
fn precision_is_a_choice_of_each_program() {
    let card = |precision: &str| {
        succeed(&["compile", MODEL, "--ratio", "0.5", "--seq-len", "64", "--precision", precision])
    };
    let (exact, rounded) = (card("float32"), card("bfloat16"));
    assert!(exact.contains("64 tokens, float32)") && !exact.contains("bf16"), "{exact}");
    assert!(rounded.contains("64 tokens, bfloat16)"), "{rounded}");
    // Casts of weights are kernels like any other.
    assert!(rounded.lines().any(|l| l.starts_with("copy_384x128_f32_bf16")), "{rounded}");
    refuse(
        &["compile", MODEL, "--precision", "bf16"],
        &["--precision is \"bf16\"", "\"float32\", \"bfloat16\", \"float16\"", "did you mean \"bfloat16\"?"],
    );
    // Checkpoints hold the f32 masters, so every precision reads what another wrote.
    let folder = Folder::new("precision");
    succeed(&["train", &folder.config(), "--training.mixed_precision_param", "bfloat16"]);
    let step = folder.path("run/checkpoint/step-6").display().to_string();
    for precision in ["float32", "bfloat16", "float16"] {
        let args = ["--prompt", "the", "--greedy", "--tokens", "8", "--precision", precision];
        let text = succeed(&[&["generate", "--checkpoint", &step][..], &args].concat());
        assert!(text.starts_with("the"), "{text}");
    }
    let go_on =
        ["train", &folder.config(), "--checkpoint.load_step", "3", "--training.mixed_precision_param"];
    let text = succeed(&[&go_on[..], &["float16"]].concat());
    assert!(text.contains("loss_scale: 65536") && text.contains("skipped: 0"), "{text}");
    let text = succeed(&[&go_on[..], &["float32"]].concat());
    assert!(!text.contains("loss_scale"), "{text}");
}

#[test]
fn recall_models_write_no_text() {
    let folder = Folder::new("no_text");
    let config = std::fs::read_to_string(folder.config()).expect("the config");
    let config: String =
        config.lines().filter(|l| !l.starts_with("dataset")).map(|l| format!("{l}\n")).collect();
    let config = folder.file("recall.toml", config);
    let recall = ["--training.dataset", "mqar", "--training.mqar.vocab_size", "64", "--training.steps", "2"];
    succeed(&[&["train", &config][..], &recall].concat());
    let step = folder.path("run/checkpoint/step-2").display().to_string();
    refuse(&["generate", "--checkpoint", &step], &["mqar", "no text"]);
}

#[test]
fn numbers_and_flags_of_a_model_can_be_set() {
    let text = |set: &[&str]| {
        let args = ["compile", MODEL, "--ratio", "0.5", "--seq-len", "64", "--dump", "attention"];
        succeed(&[&args[..], set].concat())
    };
    let ropes = |set: &[&str]| text(set).matches(" = rope(%").count();
    let (with, without) =
        (ropes(&["--set", "linear_attention.rope=true"]), ropes(&["--set", "linear_attention.rope=0"]));
    assert!(with == 2 * without && without > 0, "{with} and {without} rotations");
    let warm = text(&["--set", "linear_attention.temperature=7"]);
    assert!(warm.contains("temperature = 7") || warm.contains("temperature=7"), "{warm}");
    let card = succeed(&["inspect", MODEL, "--set", "tie_embeddings=true", "--format", "json"]);
    let untied = succeed(&["inspect", MODEL, "--set", "tie_embeddings=false", "--format", "json"]);
    assert_ne!(card, untied);
    refuse(&["compile", MODEL, "--set", "tie_embeddings=maybe"], &["tie_embeddings=maybe", "key=true"]);
    refuse(&["compile", MODEL, "--set", "tie_embeddings=2"], &["tie_embeddings", "true or false", "2"]);
    refuse(&["compile", MODEL, "--set", "linear_attention.temperature=-2"], &["temperature", "above 0"]);

    let folder = Folder::new("flags");
    let config = folder.config();
    let settings =
        ["--model.overrides.linear_attention.rope", "false", "--model.overrides.tie_embeddings", "true"];
    succeed(&[&["train", &config, "--training.steps", "1"][..], &settings].concat());
    let resolved = std::fs::read_to_string(folder.path("run/config.toml")).expect("the config");
    assert!(resolved.contains("linear_attention.rope = false"), "{resolved}");
}

#[test]
fn what_is_no_config_is_named() {
    refuse(&["train", "configs"], &["configs", "folder"]);
    refuse(&["train", "configs/none.toml"], &["configs/none.toml", "no such file"]);
    refuse(&["train", "models/llama3.linc"], &["models/llama3.linc: this is an architecture", "linc init"]);
    refuse(&["compile", "models"], &["models", "folder"]);
    refuse(&["inspect", "models/none.toml"], &["models/none.toml", "no such file"]);
    let folder = Folder::new("misspelt");
    let config = folder.config();
    refuse(&["train", "configs/quickstart.tml"], &["no such file", "did you mean configs/quickstart.toml?"]);
    refuse(&["train", "config/recall.toml"], &["did you mean configs/recall.toml?"]);
    refuse(&["train", "quickstrat"], &["did you mean quickstart, which is built in?"]);
    refuse(&["compile", "models/llama3_nan.toml"], &["did you mean models/llama3_nano.toml?"]);
    let near = |name: &str| format!("did you mean {}?", folder.path(name).display());
    let typed = |name: &str| folder.path(name).display().to_string();
    folder.file("tokenizer.json", "{}");
    refuse(&["train", &config, "--training.dataset_path", &typed("txt.txt")], &[&near("text.txt")]);
    refuse(
        &["train", &config, "--model.tokenizer_path", &typed("tokeniser.json")],
        &[&near("tokenizer.json")],
    );
    fs::create_dir_all(folder.path("run/checkpoint/step-3")).expect("a folder");
    fs::create_dir_all(folder.path("run/checkpoint/step-20")).expect("a folder");
    let newest =
        format!("the newest checkpoint beside it is {}", folder.path("run/checkpoint/step-20").display());
    let missing = typed("run/checkpoint/step-999");
    refuse(&["generate", "--checkpoint", &missing], &[&newest]);
    refuse(&["inspect", &missing], &[&newest]);
    refuse(&["train", &config, "--checkpoint.initial_load_path", &missing], &[&newest]);
    let settings = succeed(&["train", "--list-settings"]);
    assert!(settings.contains("--training.seq_len") && settings.contains("--model.linear_attn_ratio"));
}

#[test]
fn the_largest_models_are_refused_with_the_plan_before_the_first_step() {
    let folder = Folder::new("too_large");
    let dump_folder = folder.path("run").display().to_string();
    let settings = ["--model.flavor", "70B", "--job.dump_folder", &dump_folder];
    let message = refuse(
        &[&["train", "configs/llama3_1b.toml"][..], &settings].concat(),
        &["GiB", "memory at the peak", "optimizer_state", "parameters", "together"],
    );
    assert!(!message.contains("step:"), "{message}");
    assert!(!folder.path("run").exists(), "a refused run writes nothing");
}

/// A config of a model of the test's own: `start` follows the embedding, `options` the attention's operands.
fn own_model(folder: &Folder, start: &str, options: &str) -> Vec<String> {
    let numbers =
        "name = \"own\"\nflavor = \"t\"\narchitecture = \"own.linc\"\nn_heads = 4\nvocab_size = 256\n";
    let toml = folder.file("own.toml", format!("{numbers}dim = 32\nn_layers = 2\n"));
    let text = format!(
        "model own(tokens: [batch, seq] int) {{\n  param e [vocab_size, dim] init normal(1.0)\n  x = embedding(tokens, e)\n  {start}\n  \
         for _layer in layers {{\n    param w [dim, dim] init trunc_normal(0.02)\n    h = split_heads(x @ w.T, n_heads)\n    \
         x = x + merge_heads(attention(h, h, h{options}))\n  }}\n  logits = x @ e.T\n}}\n"
    );
    folder.file("own.linc", text);
    let config = folder.config();
    let args = ["train", &config, "--model.path", &toml, "--training.steps", "1"];
    args.map(str::to_string).to_vec()
}

#[test]
fn a_model_that_cannot_be_decoded_trains_without_a_sample() {
    let shift = "x = x + concat(slice(x, 0, 1, 1) * 0, slice(x, 0, seq - 1, 1), 1)";
    let cases = [
        ("acausal", "x = x * 2", ", causal = false", "own.linc:8:25: ", "attention is not causal"),
        ("shift", shift, "", "own.linc:4:18: ", "picks positions"),
    ];
    for (name, start, options, place, what) in cases {
        let folder = Folder::new(name);
        let shown = succeed(&own_model(&folder, start, options));
        let told: Vec<&str> = shown.lines().filter(|line| line.contains("no sample at the end")).collect();
        assert_eq!(told.len(), 1, "{shown}");
        assert!(told[0].contains(place) && told[0].contains(what), "{}", told[0]);
        let step = folder.path("run/checkpoint/step-1").display().to_string();
        refuse(&["generate", "--checkpoint", &step, "--prompt", "the"], &[place, what, "help: "]);
    }
}

#[test]
fn learned_positions_go_as_far_as_they_were_trained() {
    let folder = Folder::new("learned");
    let shown = succeed(&own_model(&folder, "param p [seq, dim] init normal(1.0) x = x + p", ""));
    assert!(!shown.contains("no sample at the end"), "{shown}");
    let step = folder.path("run/checkpoint/step-1").display().to_string();
    let generate = ["generate", "--checkpoint", &step, "--prompt", "the quick", "--greedy"];
    let text = succeed(&[&generate[..], &["--tokens", "20"]].concat());
    assert!(text.starts_with("the quick"), "{text}");
    refuse(&[&generate[..], &["--context", "33"]].concat(), &["context is 33", "at most 32"]);
}

/// Numbers of the command line are refused in words, negative ones too.
#[test]
fn arguments_that_are_no_such_number() {
    let checkpoint = ["generate", "--checkpoint", "nowhere"];
    let cases: [(&[&str], &str); 6] = [
        (&["--tokens", "-8"], "expected an integer of at least 0"),
        (&["--tokens", "many"], "expected an integer of at least 0"),
        (&["--context", "0"], "expected an integer of at least 1"),
        (&["--temperature", "hot"], "expected a number"),
        (&["--seed", "1.5"], "expected an integer from 0 to"),
        (&["--threads", "99999999999999999999999"], "expected an integer of at least 0"),
    ];
    for (flag, expected) in cases {
        let value = format!("invalid value '{}' for '{}", flag[1], flag[0]);
        refuse(&[&checkpoint[..], flag].concat(), &[&value, expected]);
    }
    let model = "models/llama3_nano.toml";
    refuse(&["compile", model, "--batch-size", "-1"], &["'-1'", "expected an integer of at least 1"]);
    refuse(&["bench", "train", model, "--rounds", "-3"], &["'-3'", "expected an integer of at least 1"]);
    refuse(&["bench", "attention", "--head-dim", "64,0"], &["'0'", "expected an integer of at least 1"]);
    refuse(
        &["train", "configs/quickstart.toml", "--training.batch_size", "-8"],
        &["at least 1, found the integer -8"],
    );
}

/// What is found wrong with a model after its text was read is shown in the text, with the numbers behind it.
#[test]
fn what_passes_and_kernels_refuse_has_a_place() {
    let folder = Folder::new("places");
    let attention = "own.linc:8:25: error: attention with heads of 6 features, which must be a multiple of 8";
    let cases: [(&str, &[&str], &[&str]); 4] = [
        (
            "x = x * 2",
            &["--model.overrides.dim", "24"],
            &[attention, "own.toml:", "overridden to 24", "n_heads = 4", "--model.overrides.head_dim N"],
        ),
        (
            "param idle [dim] init ones let _y = x * idle",
            &[],
            &["own.linc:4:", "parameter idle.weight does not influence the loss", "help: "],
        ),
        (
            "x = x * 2",
            &["--model.overrides.n_layers", "0"],
            &["command line: `--model.overrides.n_layers 0`: `n_layers` must be a whole number from 1"],
        ),
        (
            "x = x * 2",
            &["--model.overrides.max_length", "16"],
            &["the model has no number `max_length`", "own.toml has dim, ffn_dim_multiplier"],
        ),
    ];
    for (start, overrides, expected) in cases {
        let args =
            [own_model(&folder, start, ""), overrides.iter().map(|a| (*a).to_owned()).collect()].concat();
        refuse(&args, expected);
    }
    assert!(!folder.path("run").exists(), "a refused run writes nothing");
}
