//! Scripts in Python: each can be read, and those with tests pass them.

use std::path::Path;
use std::process::Command;

use linc_tests::tree::root;

/// Runs Python in the repository; nothing where there is none.
fn python(args: &[&str]) -> Option<(bool, String)> {
    let ran =
        Command::new("python3").args(args).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(root()).output();
    let Ok(ran) = ran else {
        eprintln!("skipped: there is no python3");
        return None;
    };
    Some((ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned()))
}

#[test]
fn every_script_can_be_read() {
    let read = "import ast, pathlib, sys\nfor folder in sys.argv[1:]:\n for path in pathlib.Path(folder).glob('*.py'):\n  \
                ast.parse(path.read_text(), str(path))";
    let Some((succeeded, said)) = python(&["-c", read, "benches", "tools"]) else { return };
    assert!(succeeded, "{said}");
}

#[test]
fn a_comparison_counts_no_rounds_beside_others() {
    if !Path::new("/proc/stat").exists() {
        eprintln!("skipped: the system does not say what its processors do");
        return;
    }
    let Some((succeeded, said)) = python(&["-m", "unittest", "discover", "-s", "benches"]) else { return };
    assert!(succeeded && said.contains("\nOK"), "{said}");
}
