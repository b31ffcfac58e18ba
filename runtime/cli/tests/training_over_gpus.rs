//! `linc train` as ranks with a GPU each, on a made-up driver and a made-up NCCL: kernels compute next to nothing there, so that losses mean
//! nothing, but all that ranks, streams, graphs and exchanges do is what it would be.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::common::{Folder, workspace};
use crate::ranks::said;
use crate::training_over_ranks::{by_torchrun, outputs, wait_for_step};

/// A folder with the made-up libraries under the names of NVIDIA's; nothing where they cannot be built.
fn made_up_driver(folder: &Folder) -> Option<PathBuf> {
    let libraries = folder.path("libraries");
    fs::create_dir_all(&libraries).expect("a folder");
    let sources = workspace().join("runtime/device/src/cuda/fake");
    let driver = libraries.join("libcuda.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&driver);
    compiler.args(["driver.c", "streams.c", "nccl.c"].map(|name| sources.join(name))).arg("-lm");
    if !compiler.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs a C compiler");
        return None;
    }
    for name in ["libcublasLt.so", "libnvrtc.so", "libnccl.so.2"] {
        fs::hard_link(&driver, libraries.join(name)).expect("a link");
    }
    Some(libraries)
}

/// Starts `linc train` as ranks with these libraries, `more` being set in their environment.
fn train(libraries: &Path, ranks: usize, more: &[(&str, &str)], config: &str, args: &[&str]) -> Vec<Child> {
    let folder = libraries.display().to_string();
    let variables =
        ["LD_LIBRARY_PATH", "LINC_NVRTC", "LINC_CUBLASLT", "LINC_NCCL", "LINC_CACHE_DIR", "FAKE_NCCL_FOLDER"];
    let mut environment: Vec<(&str, &str)> = variables.iter().map(|name| (*name, &*folder)).collect();
    environment.extend([("FAKE_GPUS", "4"), ("CUDA_VISIBLE_DEVICES", "0,1,2,3")]);
    environment.extend(more);
    let args = [&["train", config, "--training.device", "cuda"][..], args].concat();
    by_torchrun(ranks, &environment, &args)
}

/// Exit codes, and the words of all ranks.
fn ended(children: Vec<Child>) -> (Vec<Option<i32>>, String) {
    let all: Vec<(Option<i32>, String)> = outputs(children).iter().map(said).collect();
    (all.iter().map(|(code, _)| *code).collect(), all.into_iter().map(|(_, text)| text).collect())
}

#[test]
fn ranks_with_gpus_train_in_each_mode_and_go_on() {
    let folder = Folder::new("training_over_gpus");
    let Some(libraries) = made_up_driver(&folder) else { return };
    let config = folder.config();
    for (ranks, copies, optimizer) in [
        (2, "2", "the whole optimizer"),
        (2, "1", "one of 2 parts of the optimizer"),
        (4, "2", "one of 2 parts of the optimizer"),
    ] {
        let run = folder.path(&format!("{ranks}_{copies}")).display().to_string();
        let mode = ["--job.dump_folder", &run, "--parallelism.data_parallel_replicate_degree", copies];
        for until in ["3", "6"] {
            let args =
                [&mode[..], &["--training.stop_at_step", until, "--comm.compare_weights_freq", "1"]].concat();
            let (codes, text) = ended(train(&libraries, ranks, &[], &config, &args));
            assert!(codes.iter().all(|code| *code == Some(0)), "{mode:?}: {codes:?} {text}");
            assert_eq!(text.matches("NCCL 2.32.3").count(), 1, "one rank speaks: {text}");
            assert!(text.contains(optimizer) && text.contains("cuda:0, Fake H200"), "{text}");
        }
        assert!(Path::new(&run).join("checkpoint/step-6").exists(), "{mode:?}");
        // Sums that NCCL makes.
        let other = folder.path("library").display().to_string();
        let library =
            [&mode[2..], &["--job.dump_folder", &other, "--parallelism.reduce", "library"]].concat();
        let (codes, text) = ended(train(&libraries, ranks, &[], &config, &library));
        assert!(codes.iter().all(|code| *code == Some(0)), "{library:?}: {codes:?} {text}");
        fs::remove_dir_all(&other).expect("a folder");
    }
}

/// A setting of the environment.
type Variable = (&'static str, &'static str);

#[test]
fn what_ranks_with_gpus_lack_is_said_once() {
    let folder = Folder::new("gpus_refused");
    let Some(libraries) = made_up_driver(&folder) else { return };
    let config = folder.config();
    let cases: [(&[Variable], &[&str], &str); 5] = [
        (&[("LINC_NCCL", "no/such/libnccl.so.2")], &[], "pip install nvidia-nccl-cu13"),
        (&[("FAKE_NCCL_VERSION", "21000")], &[], "version 2.10.0, which is too old"),
        (&[("FAKE_GPUS", "1")], &[], "the driver sees 1 GPU"),
        (&[], &["--training.device", "cuda:1"], "cuda:1 is one GPU, and each rank takes one of its own"),
        (&[], &["--training.global_batch_size", "3"], "global_batch_size 3 is not a multiple of"),
    ];
    for (environment, args, words) in cases {
        let (codes, text) = ended(train(&libraries, 2, environment, &config, args));
        assert!(codes.iter().all(|code| *code == Some(2)), "{environment:?} {args:?}: {codes:?} {text}");
        assert_eq!(text.matches(words).count(), 1, "{environment:?} {args:?}: {text}");
        assert!(!folder.path("run").exists(), "something was written");
    }
    // With its leave, ranks share a GPU.
    let shared = [("FAKE_GPUS", "1"), ("NCCL_MULTI_RANK_GPU_ENABLE", "1")];
    let (codes, text) = ended(train(&libraries, 2, &shared, &config, &[]));
    assert!(codes.iter().all(|code| *code == Some(0)), "{codes:?} {text}");
}

#[test]
fn a_rank_with_a_gpu_that_dies_or_hangs_ends_all_and_is_named() {
    let folder = Folder::new("gpus_lost");
    let Some(libraries) = made_up_driver(&folder) else { return };
    let config = folder.config();
    let long =
        ["--training.steps", "100000", "--checkpoint.interval", "5", "--comm.train_timeout_seconds", "3"];
    for signal in ["-KILL", "-STOP"] {
        let run = folder.path(signal).display().to_string();
        let args = [&["--job.dump_folder", &run][..], &long].concat();
        let mut children = train(&libraries, 2, &[], &config, &args);
        wait_for_step(Path::new(&run), 5, &mut children[0]);
        let mut culprit = children.pop().expect("two");
        let sent = Command::new("kill").args([signal, &culprit.id().to_string()]).status();
        assert!(sent.expect("kill").success());
        let (codes, text) = ended(children);
        culprit.kill().expect("a process");
        culprit.wait().expect("it ends");
        assert_eq!(codes, [Some(3)], "{signal}: {text}");
        assert!(text.contains("rank 0 waits for rank 1 in"), "{signal}: {text}");
    }
    // The line between the GPUs fails in the middle of a step, and carries nothing in another.
    for (environment, words) in [
        (("FAKE_NCCL_FAIL", "1 7"), "remote process exited or there was a network error"),
        (("FAKE_NCCL_HANG", "1 7"), "and so do all others"),
    ] {
        let run = folder.path(environment.0).display().to_string();
        let args = [&["--job.dump_folder", &run][..], &long].concat();
        let (codes, text) = ended(train(&libraries, 2, &[environment], &config, &args));
        assert_eq!(codes, [Some(3); 2], "{environment:?}: {text}");
        assert!(text.contains(words) && text.contains("in step "), "{environment:?}: {text}");
    }
}
