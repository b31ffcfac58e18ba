//! Hugging Face's folders, in and out, as a user has them: a run's checkpoint is exported, imported, continued and trained on.

use std::fs;

use serde_json::Value;

use crate::common::{Folder, linc, refuse, succeed};

/// A run of softmax attention and the folder of its last checkpoint.
fn trained(folder: &Folder, ratio: &str) -> (String, String) {
    let config = folder.config();
    succeed(&["train", &config, "--model.linear_attn_ratio", ratio]);
    (config, folder.path("run/checkpoint/step-6").display().to_string())
}

#[test]
fn a_checkpoint_goes_out_and_comes_back_as_the_same_model() {
    let folder = Folder::new("hugging_face");
    let (config, step) = trained(&folder, "0");
    let [out, back, again] = ["out", "back", "again"].map(|name| folder.path(name).display().to_string());
    let said = succeed(&["export", &step, "--out", &out, "--max-shard-size", "50KB"]);
    assert!(said.contains("layers SS") && said.contains("have the same bits"), "{said}");
    assert!(
        said.contains("AutoModelForCausalLM.from_pretrained") && !said.contains("trust_remote_code"),
        "{said}"
    );
    assert!(folder.path("out/model.safetensors.index.json").is_file());
    let said = succeed(&["import", &out, "--out", &back]);
    assert!(said.contains(&format!("linc generate --checkpoint {back}")), "{said}");
    // The same weights write the same text, and give the same logits.
    let logits = |checkpoint: &str, name: &str| {
        let file = folder.path(name).display().to_string();
        let text = succeed(&[
            "generate",
            "--checkpoint",
            checkpoint,
            "--prompt",
            "the quick",
            "--tokens",
            "9",
            "--greedy",
            "--logits",
            &file,
        ]);
        (text, fs::read(file).expect("a file"))
    };
    assert_eq!(logits(&step, "a"), logits(&back, "b"));
    // And train on, as what the command says.
    let flags =
        said.lines().find_map(|line| line.strip_prefix("linc train CONFIG.toml ")).expect("a command");
    let dump = folder.path("on").display().to_string();
    let overrides = ["--job.dump_folder", &dump, "--training.steps", "2", "--model.linear_attn_ratio", "0"];
    let args: Vec<&str> = ["train", &config].into_iter().chain(flags.split(' ')).chain(overrides).collect();
    let said = succeed(&args);
    assert!(said.contains("Starting from the weights of"), "{said}");
    // A run cannot go on from what is no more than weights, and nothing is overwritten.
    refuse(&["export", &step, "--out", &out], &["there is something already"]);
    refuse(&["import", &out, "--out", &back], &["there is something already"]);
    succeed(&["export", &back, "--out", &again, "--dtype", "bfloat16"]);
    let config: Value =
        serde_json::from_slice(&fs::read(folder.path("again/config.json")).expect("a file")).expect("JSON");
    assert_eq!(config["torch_dtype"], "bfloat16");
}

#[test]
fn logits_are_those_of_each_token() {
    let folder = Folder::new("logits");
    let (_, step) = trained(&folder, "0.5");
    let header = |tokens: &str| -> Value {
        let file = folder.path("logits.safetensors").display().to_string();
        let base = ["generate", "--checkpoint", &step, "--prompt", "the", "--greedy", "--logits", &file];
        succeed(&[&base[..], &["--tokens", tokens]].concat());
        let bytes = fs::read(&file).expect("a file");
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        serde_json::from_slice(&bytes[8..8 + length]).expect("JSON")
    };
    // A zero starts the text; the last token that is written is not fed.
    for (tokens, fed) in [("0", 4), ("1", 4), ("5", 8)] {
        let header = header(tokens);
        assert_eq!(header["tokens"]["shape"], serde_json::json!([fed]));
        assert_eq!(header["logits"]["shape"], serde_json::json!([fed, 256]));
    }
    let nowhere = folder.path("none/logits").display().to_string();
    refuse(
        &["generate", "--checkpoint", &step, "--prompt", "the", "--tokens", "1", "--logits", &nowhere],
        &["cannot write it"],
    );
}

#[test]
fn a_model_without_a_tokenizer_is_told_to_get_one() {
    let folder = Folder::new("hugging_face_mute");
    // More tokens than bytes, and nothing that says which texts they are.
    succeed(&["train", &folder.config(), "--model.overrides.vocab_size", "300"]);
    let step = folder.path("run/checkpoint/step-6").display().to_string();
    let [out, back] = ["out", "back"].map(|name| folder.path(name).display().to_string());
    let output = linc(&["export", &step, "--out", &out]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the model reads bytes"));
    let output = linc(&["import", &out, "--out", &back]);
    let (said, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(notes.contains("there is no tokenizer.json"), "{notes}");
    assert!(said.contains("linc train") && !said.contains("linc generate"), "{said}");
    refuse(
        &["generate", "--checkpoint", &back, "--prompt", "the"],
        &["it was imported without a tokenizer", "tokenizer.json beside its config.json"],
    );
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = Folder::new("hugging_face_arguments");
    let (_, step) = trained(&folder, "0");
    let out = folder.path("out").display().to_string();
    for (flags, words) in [
        (["--dtype", "int8"], "expected float32, bfloat16 or float16"),
        (["--max-shard-size", "0"], "expected a size such as"),
        (["--max-shard-size", "5 XB"], "expected a size such as"),
        (["--max-shard-size", "99999999999GB"], "expected a size such as"),
    ] {
        refuse(&[&["export", &step, "--out", &out][..], &flags].concat(), &[words]);
    }
    let empty = folder.path("empty").display().to_string();
    fs::create_dir(&empty).expect("a folder");
    refuse(&["export", &empty, "--out", &out], &["is not a checkpoint"]);
    refuse(&["import", &empty, "--out", &out], &["config.json", "cannot read the config"]);
    refuse(&["import", &step, "--out", &out], &["config.json"]);
    assert!(!folder.path("out").exists());
    // Where nothing may be written, nothing is left.
    let file = folder.file("a_file", "x");
    refuse(&["export", &step, "--out", &format!("{file}/out")], &["cannot create", "--out"]);
    assert_eq!(linc(&["export", &step]).status.code(), Some(2), "--out is missing");
}
