//! The CUDA C++ of a hybrid of one linear and one softmax layer in bf16: one kernel of each kind, with heads of 64
//! features, so that the text is that of real models.
//!
//! To accept a change, read the diff, then run
//! `INSTA_UPDATE=always cargo test --release -p linc-tests --test cuda_snapshots`, or `cargo insta review`.

use std::collections::BTreeMap;

use insta::{Settings, assert_snapshot};
use linc_driver::{Arch, Model, Options, Precision, Target};
use linc_tests::models::{compiled, sized, training};

fn hybrid() -> Model {
    let numbers = [
        ("dim", 128.0),
        ("n_layers", 2.0),
        ("n_heads", 2.0),
        ("n_kv_heads", 1.0),
        ("vocab_size", 512.0),
        ("multiple_of", 64.0),
    ];
    sized("nano", &numbers, "0.5")
}

/// The kernels' own texts, by the part of their names before the sizes; of several, the first.
fn kernels(arch: Arch) -> BTreeMap<String, String> {
    let (precision, target) = (Precision::Bfloat16, Target::Cuda(arch));
    let options = Options { precision, target, dumps: true, ..Options::new(1, 128) };
    let mut kernels = BTreeMap::new();
    for dump in compiled(&hybrid(), &training(), &options).dumps {
        let Some(name) = dump.path.strip_prefix("kernels/").and_then(|p| p.strip_suffix(".cu")) else {
            continue;
        };
        let sizes = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
        let kind = name[..sizes].trim_end_matches(['_', 'b']).trim_end_matches("_bf").to_string();
        let own = dump.text.find(&format!("// {name}:")).expect("a header");
        kernels.entry(kind).or_insert_with(|| dump.text[own..].to_string());
    }
    kernels
}

#[test]
fn every_kind_of_kernel() {
    let kernels = kernels(Arch::Sm80);
    assert!(kernels.len() > 20, "only {} kinds: {:?}", kernels.len(), kernels.keys());
    let mut settings = Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (kind, text) in kernels {
        settings.bind(|| assert_snapshot!(format!("cuda__{kind}"), text));
    }
}

#[test]
fn hopper_runs_the_same_text() {
    let (ampere, hopper) = (kernels(Arch::Sm80), kernels(Arch::Sm90a));
    assert_eq!(ampere.keys().collect::<Vec<_>>(), hopper.keys().collect::<Vec<_>>());
    for (kind, text) in &ampere {
        assert_eq!(text.replace("sm_80", "sm_90a"), hopper[kind], "{kind}");
    }
}
