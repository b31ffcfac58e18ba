//! What a program in a cage can do: with the shell, whose own commands need no other program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use linc_device::sandbox::Cage;

/// Runs commands of the shell's own in a cage; nothing where there are no cages.
fn caged(readable: &[&Path], script: &str) -> Option<Output> {
    if let Err(lacking) = Cage::check() {
        eprintln!("skipped: {lacking}");
        return None;
    }
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].map(PathBuf::from);
    let libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"].map(PathBuf::from);
    let shell = fs::canonicalize("/bin/sh").expect("a shell");
    let cage = Cage {
        readable: libraries.into_iter().chain(readable.iter().map(|path| path.to_path_buf())).collect(),
        executable: loaders.into_iter().chain([shell.clone()]).collect(),
        cpu_seconds: 1,
        memory: 256 << 20,
    };
    let mut command = Command::new(shell);
    command.args(["-c", script]).env_clear();
    cage.hold(&mut command).expect("a cage");
    Some(command.output().expect("it begins"))
}

#[test]
fn a_cage_lets_a_program_compute_and_read_what_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (open, secret) = (folder.path().join("open"), folder.path().join("secret"));
    [&open, &secret].iter().for_each(|path| fs::write(path, "words\n").expect("written"));
    let script = format!("read a < {}; echo $((6 * 7)) $a", open.display());
    let Some(done) = caged(&[&open], &script) else { return };
    assert_eq!(String::from_utf8_lossy(&done.stdout), "42 words\n", "{done:?}");
    let script = format!("read a < {}; echo \"got $a\"", secret.display());
    let Some(done) = caged(&[&open], &script) else { return };
    assert!(!String::from_utf8_lossy(&done.stdout).contains("words"), "{done:?}");
}

#[test]
fn nothing_outside_a_cage_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    fs::write(&path, "words").expect("written");
    let scripts = [
        format!("echo other > {}", path.display()),
        format!("echo other >> {}", path.display()),
        format!("echo other > {}", folder.path().join("new").display()),
        format!("kill -9 {} && exit 0; exit 1", std::process::id()),
        "kill -9 $PPID && exit 0; exit 1".to_owned(),
        "(exit 0); exit 0".to_owned(),
        "ulimit -t 100 && exit 0; exit 1".to_owned(),
        "exec /usr/bin/env".to_owned(),
    ];
    for script in scripts {
        // It is there to be read, which is no leave to write.
        let Some(done) = caged(&[folder.path()], &script) else { return };
        assert!(!done.status.success(), "{script}: {done:?}");
    }
    assert_eq!(fs::read(&path).expect("there"), b"words");
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
}

#[test]
#[cfg(unix)]
fn time_and_memory_of_a_cage_end() {
    use std::os::unix::process::ExitStatusExt;
    let Some(done) = caged(&[], "while :; do :; done") else { return };
    assert!(done.status.signal().is_some(), "{done:?}");
    let Some(done) = caged(&[], "a=0123456789abcdef; while :; do a=$a$a; done") else { return };
    assert!(!done.status.success(), "{done:?}");
}
