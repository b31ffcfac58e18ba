//! NVIDIA GPUs on the command line: names, and what is said on a machine without one. No GPU is used where there is one.

use crate::common::{Folder, linc, refuse, succeed};
use serde_json::Value;

const MODEL: &str = "models/llama3_nano.toml";

#[test]
fn unknown_machines_are_refused_with_those_that_are_known() {
    refuse(&["compile", MODEL, "--target", "gpu"], &["--target", "\"gpu\"", "cpu or cuda"]);
    let arch = ["compile", MODEL, "--target", "cuda", "--arch", "sm_70"];
    refuse(&arch, &["--arch", "\"sm_70\"", "sm_80, sm_89, sm_90, sm_90a"]);
    refuse(&["compile", MODEL, "--arch", "sm_80"], &["--arch sm_80", "--target cuda"]);
    let folder = Folder::new("machines");
    let config = folder.config();
    for bad in ["gpu", "cuda:x", "cuda:-1", ""] {
        let setting = format!("--training.device={bad}");
        refuse(&["train", &config, &setting], &["training.device", "\"auto\"", "\"cuda:N\""]);
        let flag = format!("--device={bad}");
        refuse(&["generate", "--checkpoint", "none", &flag], &["--device", "auto, cpu, cuda"]);
    }
    refuse(&["train", &config, "--device", "cuda"], &["`--device`", "did you mean `--training.device`?"]);
    assert!(!folder.path("run").exists(), "a refused run writes nothing");
}

#[test]
fn heads_that_a_gpu_cannot_hold_are_refused_with_their_layer() {
    let model = ["compile", MODEL, "--set", "dim=1024", "--set", "n_heads=1", "--set", "n_kv_heads=1"];
    let cuda = [&model[..], &["--target", "cuda", "--arch", "sm_90a"]].concat();
    let words = [
        "bytes of shared memory; sm_90a has",
        "(for layers.0/attention softmax_attention)",
        "help: ",
        "bfloat16",
    ];
    refuse(&cuda, &words);
    succeed(&model);
}

#[test]
fn without_a_gpu_cuda_is_refused_and_auto_is_the_cpu() {
    let folder = Folder::new("no_gpu");
    let config = folder.config();
    let refused = |args: &[&str]| {
        let output = linc(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.starts_with("error: there is no ") && !error.contains("panicked"), "{error}");
    };
    refused(&["train", &config, "--training.device", "cuda"]);
    refused(&["train", &config, "--training.device", "cuda:7"]);
    assert!(!folder.path("run").exists(), "a refused run writes nothing");
    let output = linc(&["train", &config, "--training.device", "auto", "--training.steps", "2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("Running on the CPU: there is no "), "{text}");
    let step = folder.path("run/checkpoint/step-2").display().to_string();
    let generate = ["generate", "--checkpoint", &step, "--prompt", "the", "--tokens", "2", "--device"];
    refused(&[&generate[..], &["cuda"]].concat());
    assert!(linc(&[&generate[..], &["cpu"]].concat()).stderr.is_empty());
    let automatic = linc(&[&generate[..], &["auto"]].concat());
    let note = String::from_utf8_lossy(&automatic.stderr);
    assert!(automatic.status.success() && note.lines().count() == 1, "{note}");
    // The choice is part of the run's record.
    let resolved = std::fs::read_to_string(folder.path("run/config.toml")).expect("the config");
    assert!(resolved.contains("device = \"auto\""), "{resolved}");
}

#[test]
fn kernels_for_a_gpu_need_no_gpu() {
    let folder = Folder::new("cuda_kernels");
    let out = folder.path("out").display().to_string();
    let args = ["compile", MODEL, "--ratio", "0.5", "--seq-len", "64", "--target", "cuda", "--arch", "sm_80"];
    let text = succeed(&[&args[..], &["--out", &out]].concat());
    assert!(text.contains("Kernels for sm_80"), "{text}");
    let report: Value =
        serde_json::from_str(&succeed(&[&args[..], &["--format", "json"]].concat())).expect("JSON");
    let kernels = report["cuda"]["kernels"].as_array().expect("a list");
    assert!(!kernels.is_empty());
    let compiled = report["cuda"]["nvrtc"].is_string();
    for kernel in kernels {
        let name = kernel["name"].as_str().expect("a name");
        assert!(folder.path(&format!("out/kernels/{name}.cu")).is_file(), "{name}.cu");
        for kind in ["cubin", "ptx"] {
            assert_eq!(
                folder.path(&format!("out/kernels/{name}.{kind}")).is_file(),
                compiled,
                "{name}.{kind}"
            );
        }
        assert_eq!(kernel["resources"].is_object(), compiled, "{kernel}");
    }
}
