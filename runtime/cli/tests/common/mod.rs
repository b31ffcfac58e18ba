//! Runs the program as a user does, in a folder of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An empty folder for one test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join(name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("the folder of an earlier run can be removed");
        }
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and returns its path as text.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, contents).expect("a file");
        path.display().to_string()
    }

    /// A config that trains the smallest useful hybrid on a text of this folder, a second or less.
    pub(crate) fn config(&self) -> String {
        let text = self.file("text.txt", "the quick brown fox jumps over the lazy dog\n".repeat(200));
        let folder = self.path("run").display().to_string();
        let model = workspace().join("models/llama3_nano.toml").display().to_string();
        self.file(
            "config.toml",
            format!(
                "[job]\ndump_folder = {folder:?}\n[metrics]\nlog_freq = 1\n\
                 [model]\npath = {model:?}\nlinear_attn_ratio = 0.5\n\
                 [model.overrides]\ndim = 32\nn_layers = 2\n\
                 [lr_scheduler]\nwarmup_steps = 2\n\
                 [training]\ndataset = \"text\"\ndataset_path = {text:?}\nbatch_size = 2\nseq_len = 32\nsteps = 6\ndevice = \"cpu\"\n\
                 [validation]\nenable = true\nfreq = 3\nsteps = 2\n\
                 [checkpoint]\nenable = true\ninterval = 3\n"
            ),
        )
    }
}

/// `linc`, to which requests to end can be sent: what started the tests may have been told to ignore some of them, as
/// `nohup` and a shell's background jobs are, and linc keeps to that.
pub(crate) fn stoppable() -> Command {
    let binary = env!("CARGO_BIN_EXE_linc");
    // Elsewhere `env` has no such option.
    if !cfg!(target_os = "linux") {
        return Command::new(binary);
    }
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", binary]);
    command
}

/// Runs `linc` from the root of the workspace, on the CPU on every machine: a driver, if there is one, sees no GPU.
pub(crate) fn linc<S: AsRef<str>>(args: &[S]) -> Output {
    let args = args.iter().map(AsRef::as_ref);
    let mut command = Command::new(env!("CARGO_BIN_EXE_linc"));
    command.args(args).current_dir(workspace()).env("CUDA_VISIBLE_DEVICES", "").output().expect("linc runs")
}

/// Standard output of a run that must succeed.
pub(crate) fn succeed<S: AsRef<str>>(args: &[S]) -> String {
    let output = linc(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "linc failed: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Standard error of a run that must be refused: exit code 2, a message with all of `expected`, and no panic.
pub(crate) fn refuse<S: AsRef<str>>(args: &[S], expected: &[&str]) -> String {
    let shown = args.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
    let output = linc(args);
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "linc {shown}: {error}");
    assert!(error.contains("error: "), "linc {shown} does not say `error: `: {error}");
    for word in expected {
        assert!(error.contains(word), "linc {shown} does not say {word:?}: {error}");
    }
    for word in ["panicked", "RUST_BACKTRACE", "internal error"] {
        assert!(!error.contains(word), "linc {shown}: {error}");
    }
    error
}
