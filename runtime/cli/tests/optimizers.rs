//! Optimizers and groups of parameters, as a user sets them.

use std::fs;

use crate::common::{Folder, refuse, succeed};

/// Muon, with groups by role, by pattern, and by both.
const GROUPS: &str = "[optimizer]\nname = \"Muon\"\nlr = 2e-3\n\
    [[optimizer.groups]]\nrole = \"norm\"\nweight_decay = 0.0\n\
    [[optimizer.groups]]\nrole = \"linear_attention\"\nparams = \"*.wo.weight\"\nlr = 1e-3\nmomentum = 0.9\n\
    [[optimizer.groups]]\nparams = [\"tok_*\", \"output.*\"]\nlr_factor = 0.5\nname = \"Adam\"\nbeta1 = 0.8\n";

fn config(folder: &Folder, more: &str) -> String {
    let text = fs::read_to_string(folder.config()).expect("a config");
    folder.file("groups.toml", format!("{text}{more}"))
}

fn tensors(folder: &Folder, run: &str, step: usize) -> [Vec<u8>; 3] {
    let step = folder.path(run).join(format!("checkpoint/step-{step}"));
    ["model.safetensors", "optimizer.safetensors", "state.json"]
        .map(|f| fs::read(step.join(f)).expect("read"))
}

#[test]
fn groups_are_shown_and_a_resume_keeps_the_bits() {
    let folder = Folder::new("optimizer_groups");
    let config = config(&folder, GROUPS);
    let train = |run: &str, settings: &[&str]| {
        let run = folder.path(run).display().to_string();
        succeed(&[&["train", &config, "--job.dump_folder", &run][..], settings].concat())
    };
    let shown = train("one", &["--training.threads", "1"]);
    for line in [
        "Optimizer: AdamW, learning rate 0.002, weight decay 0: 5 parameters of 160 numbers: layers.0.attention_norm.weight,",
        "Optimizer: Muon, learning rate 0.001, weight decay 0.1: 1 parameter of 1,024 numbers: layers.0.attention.wo.weight",
        "Optimizer: Adam, learning rate 0.001, weight decay 0.1: 2 parameters of 16,384 numbers: tok_embeddings.weight, output.weight",
        "Optimizer: Muon, learning rate 0.002, weight decay 0.1: 13 parameters of",
    ] {
        assert!(shown.contains(line), "{line} is not in:\n{shown}");
    }
    let whole = tensors(&folder, "one", 6);
    let states = String::from_utf8_lossy(&whole[1][..20_000.min(whole[1].len())]).into_owned();
    for (name, there) in [
        ("layers.0.attention.wo.weight.momentum_buffer", true),
        ("layers.0.attention.wo.weight.exp_avg", false),
        ("layers.0.attention_norm.weight.exp_avg_sq", true),
        ("output.weight.exp_avg", true),
        ("output.weight.momentum_buffer", false),
    ] {
        assert_eq!(states.contains(&format!("\"{name}\"")), there, "{name}");
    }
    train("two", &["--training.threads", "2"]);
    assert!(whole == tensors(&folder, "two", 6), "the number of threads changes the bits");
    train("two", &["--checkpoint.load_step", "3"]);
    assert!(whole == tensors(&folder, "two", 6), "resuming changes the bits");
    // The same by accumulated gradients, whose programs are others.
    let more = ["--training.global_batch_size", "4"];
    train("parts", &more);
    let parts = tensors(&folder, "parts", 6);
    train("parts", &[&more[..], &["--checkpoint.load_step", "3"]].concat());
    assert!(parts == tensors(&folder, "parts", 6) && parts != whole);
}

#[test]
fn every_optimizer_learns_in_every_precision() {
    let folder = Folder::new("optimizers_learn");
    let config = config(&folder, "");
    for name in ["AdamW", "Adam", "Muon"] {
        for precision in ["float32", "bfloat16", "float16"] {
            let run = folder.path(&format!("{name}-{precision}")).display().to_string();
            let settings = "--training.steps 60 --optimizer.lr 4e-3 --optimizer.weight_decay 0.01 --metrics.log_freq 1 \
                            --validation.enable false --checkpoint.enable false";
            let mut args = vec!["train", &config, "--job.dump_folder", &run, "--optimizer.name", name];
            args.extend(["--training.mixed_precision_param", precision]);
            args.extend(settings.split_whitespace());
            succeed(&args);
            let records = fs::read_to_string(folder.path(&run).join("metrics.jsonl")).expect("records");
            let loss = |line: Option<&str>| {
                let record: serde_json::Value = serde_json::from_str(line.expect("a record")).expect("JSON");
                record["loss"].as_f64().expect("a loss")
            };
            let (first, last) = (loss(records.lines().next()), loss(records.lines().last()));
            assert!(first > 5.0 && last < 0.6 * first, "{name}, {precision}: {first} -> {last}");
        }
    }
}

#[test]
fn groups_without_parameters_are_refused() {
    let folder = Folder::new("optimizer_groups_refused");
    for (group, expected) in [
        ("params = \"*.nrom\"", "no parameter's name matches `*.nrom`"),
        ("params = \"layers.0.attention.wx\"", "the nearest is `layers.0.attention.wq.weight`"),
        ("params = \"a[\"", "is no pattern"),
        (
            "params = \"*\"\n[[optimizer.groups]]\nrole = \"norm\"",
            "entries before it have all its parameters",
        ),
        ("params = \"*norm*\"\nrole = \"embedding\"", "among those that `params` match"),
        ("weight_decay = 0.0", "neither `params` nor `role`"),
        ("role = \"norm\"\nlr = 1.0\nlr_factor = 2.0", "keep one of the two"),
        ("role = \"norms\"", "expected a list, each one of \"embedding\""),
        ("rolle = \"norm\"", "did you mean `role`?"),
    ] {
        let config = config(&folder, &format!("[[optimizer.groups]]\n{group}\n"));
        refuse(&["train", &config], &[expected, "groups.toml:", "entry"]);
    }
    // A model without linear layers has no such role.
    let config = config(&folder, "[[optimizer.groups]]\nrole = \"linear_attention\"\n");
    refuse(
        &["train", &config, "--model.linear_attn_ratio", "0"],
        &["no parameter with the role \"linear_attention\""],
    );
}
