//! The check itself, on the device that is always there: the CPU passes, what is wrong is noticed, and without a GPU the
//! program says so.

use std::fs;
use std::process::{Command, Output};

use linc_device::cpu::{Cpu, CpuOptions};
use linc_gpu_check::{check, group, matmul};

fn program(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linc-gpu-check"));
    command.args(args).env("CUDA_VISIBLE_DEVICES", "").output().expect("the program runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn some_of_every_group_passes_on_the_cpu() {
    let extent = group::Extent { every: 23, random: 12 };
    let mut cpu = Cpu::new(CpuOptions::default()).expect("a CPU");
    for name in group::names() {
        let checks = group::checks(name, extent).expect("a group");
        let outcome = check::run(&mut cpu, &checks);
        assert!(outcome.cases > 0, "{name} is empty");
        assert!(outcome.failures.is_empty(), "{name}: {}", outcome.failures.join("\n"));
    }
    let outcome = matmul::run(&mut cpu, 5).expect("no failure of the device");
    assert!(outcome.cases > 10 && outcome.failures.is_empty(), "{}", outcome.failures.join("\n"));
}

#[test]
fn wrong_results_are_noticed() {
    for name in ["norms", "softmax-precision", "linear-extremes", "random"] {
        let extent = group::Extent { every: 40, random: 2 };
        let checks = group::checks(name, extent).expect("a group");
        let noticed = checks.iter().filter(|check| !check.judge(check.buffers()).is_empty()).count();
        // The gradient of a single token's softmax is zero, as its buffer is before.
        assert!(4 * noticed >= 3 * checks.len(), "{name}: {noticed} of {} are noticed", checks.len());
    }
}

#[test]
fn the_program_reports_each_group() {
    let args = ["kernels", "--device", "cpu", "--quick", "--group", "reductions,rope,matmuls"];
    let output = program(&args);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for expected in ["cpu, ", "reductions", "rope", "matmuls", " ok"] {
        assert!(said.contains(expected), "{said}");
    }
    let listed = text(&program(&["kernels", "--list"]));
    assert!(group::names().iter().all(|name| listed.lines().any(|line| line == *name)), "{listed}");
    let unknown = program(&["kernels", "--device", "cpu", "--group", "norm"]);
    assert!(unknown.status.code() == Some(2) && text(&unknown).contains("norms"), "{}", text(&unknown));
}

#[test]
fn without_a_gpu_there_is_nothing_to_check() {
    for device in ["cuda", "auto"] {
        let output = program(&["kernels", "--device", device]);
        let said = text(&output);
        assert!(output.status.code() == Some(2) && said.contains("there is no "), "{said}");
    }
}

#[test]
fn losses_of_two_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let a = write("a", "{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"loss\":2.0}\n");
    let b = write("b", "{\"step\":1,\"loss\":3.01}\n{\"step\":2,\"loss\":2.04}\n");
    for (tolerance, code) in [("0.05", 0), ("0.03", 1)] {
        let output = program(&["losses", &a, &b, "--tolerance", tolerance]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains("step 2"), "{}", text(&output));
    }
    let short = write("c", "{\"step\":1,\"loss\":3.0}\n");
    assert_eq!(program(&["losses", &a, &short, "--tolerance", "1"]).status.code(), Some(2));
    assert_eq!(program(&["losses", &a, "nothing", "--tolerance", "1"]).status.code(), Some(2));
}
