//! The CUDA C++ of a hybrid of one linear and one softmax layer in bf16: one kernel of each kind, with heads of 64
//! features, so that the text is that of real models.
//!
//! To accept a change, read the diff, then run
//! `INSTA_UPDATE=always cargo test --release -p linc-tests cuda_snapshots::`, or `cargo insta review`.

use std::collections::BTreeMap;

use insta::{Settings, assert_snapshot};
use linc_driver::{Arch, Model, Options, Precision, Target};
use linc_tests::models::{compiled, flavor, sized, training};

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
    // As many sequences as give a Hopper work, and so the tiles of large models.
    let options = Options { precision, target, dumps: true, ..Options::new(72, 128) };
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

fn compare(prefix: &str, kernels: BTreeMap<String, String>) {
    let mut settings = Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (kind, text) in kernels {
        settings.bind(|| assert_snapshot!(format!("{prefix}__{kind}"), text));
    }
}

#[test]
fn every_kind_of_kernel() {
    let kernels = kernels(Arch::Sm80);
    assert!(kernels.len() > 20, "only {} kinds: {:?}", kernels.len(), kernels.keys());
    compare("cuda", kernels);
}

/// On Hopper, kernels with products differ, and no other.
#[test]
fn kernels_of_hopper() {
    let (ampere, mut hopper) = (kernels(Arch::Sm80), kernels(Arch::Sm90a));
    assert_eq!(ampere.keys().collect::<Vec<_>>(), hopper.keys().collect::<Vec<_>>());
    for (kind, text) in &ampere {
        if !text.contains("mma_bf16") {
            assert_eq!(Some(text.replace("sm_80", "sm_90a")), hopper.remove(kind), "{kind}");
        }
    }
    assert!(hopper.values().all(|text| text.contains("wgmma_bf16")), "{:?}", hopper.keys());
    compare("hopper", hopper);
}

/// Ada has 99 KiB of memory that threads share, and Hopper 227: every kernel of heads of 128 features has room on all.
#[test]
fn every_gpu_has_room_for_large_heads() {
    for arch in Arch::ALL {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            let options = Options { precision, target: Target::Cuda(arch), ..Options::new(1, 2048) };
            assert!(!compiled(&flavor("8b", "0.5"), &training(), &options).plan.kernels.is_empty());
        }
    }
}
