//! Checkpoints: `step-N/` with the weights, the optimizer's state, and everything else that a run needs to go on with
//! the same bits.
//!
//! | file | contents |
//! |---|---|
//! | `model.safetensors` | parameters, TorchTitan's names, `[out, in]` |
//! | `optimizer.safetensors` | first and second moments; in f16, the state of the loss's scale |
//! | `state.json` | [`State`]: step, data position, model |
//! | `tokenizer.json` | the tokenizer, unless the model reads bytes |
//! | `tokenizer_config.json`, .. | what says which of its tokens are special, if there was such a file |
//! | `checksums.json` | size and CRC-32 of each of these |
//!
//! [`hugging_face`] imports and exports Hugging Face's folders.
//!
//! A checkpoint is written under another name and renamed when it is whole, so a crash or a full disk leaves the older
//! ones as they were.

mod background;
mod batch;
mod error;
pub mod hugging_face;
mod instead;
mod model;
mod read;
mod settings;
mod write;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use linc_data::{DataState, TokenizerFile};
use serde::{Deserialize, Serialize};

pub use background::{Outline, Saving, save_outline};
pub use batch::{BatchChange, batch_change};
pub use error::CheckpointError;
use error::{io_error, unreadable};
pub use model::{check_model, model_of};
pub use read::{load_optimizer_state, load_weights};
pub use settings::{AsyncMode, Checkpoint};
use write::{CHECKSUMS_FILE, record};
pub use write::{FileRecord, Tensor};

/// Name of the file with the weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// Name of the file with the optimizer's state.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
/// Raised when the meaning of a file changes.
const VERSION: u32 = 2;

/// A model, so that a checkpoint explains itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// AttentionFamily of models, such as `llama3`.
    pub name: String,
    /// Which of the family, such as `1b`.
    pub flavor: String,
    /// Share of linear layers, exact.
    pub linear_attn_ratio: String,
    /// Placement of linear layers.
    pub linear_attn_placement: String,
    /// `softmax` or `linear` per layer.
    pub layers: Vec<String>,
    /// Trainable numbers.
    pub params: u64,
    /// Path of the model file, for messages.
    pub model_path: String,
    /// Text of the model file.
    pub model_toml: String,
    /// Path of the architecture, for messages.
    pub architecture_path: String,
    /// Text of the architecture.
    pub architecture: String,
    /// Numbers that replace the model file's.
    pub overrides: Vec<(String, f64)>,
    /// Tokens of a training sequence.
    pub seq_len: usize,
    /// Sequences of a training batch, which the architecture may read; 0 in checkpoints that do not say.
    #[serde(default)]
    pub batch_size: usize,
}

/// Everything but the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Format version.
    pub version: u32,
    /// Optimizer steps done.
    pub step: usize,
    /// Tokens trained on.
    pub tokens: u64,
    /// Steps of these that updated nothing, since their gradients were not finite; in f16 the optimizer's state has them.
    #[serde(default)]
    pub skipped: u64,
    /// `training.seed`; all randomness of a run derives from it, the step and the data position.
    pub seed: u64,
    /// Position in the training data.
    pub data: DataState,
    /// Texts and numbers that the model was built from, so that a checkpoint can be read without its config.
    pub model: ModelRecord,
    /// Measured tile sizes that the run was started with, by target and kernel; see `linc_session::autotune`.
    #[serde(default)]
    pub tiles: BTreeMap<String, String>,
    /// Size and CRC-32 of each file; kept in a file of its own.
    #[serde(skip)]
    pub files: BTreeMap<String, FileRecord>,
}

/// What goes into a checkpoint.
pub struct Contents<'a> {
    /// Trainable tensors, by name.
    pub params: Vec<Tensor<'a>>,
    /// Optimizer state; empty to leave it out.
    pub optimizer: Vec<Tensor<'a>>,
    /// The tokenizer's files, if it has any.
    pub tokenizer: &'a [TokenizerFile],
    /// What the run goes on from besides tensors.
    pub state: State,
}

impl State {
    /// The state of a new checkpoint.
    pub fn new(step: usize, tokens: u64, seed: u64, data: DataState, model: ModelRecord) -> Self {
        let (tiles, files) = (BTreeMap::new(), BTreeMap::new());
        State { version: VERSION, step, tokens, skipped: 0, seed, data, model, tiles, files }
    }
}

/// What becomes of a `step-N` is first given a hidden name, so that no `step-N` is ever seen in parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// Not written to the end.
    Partial,
    /// An older one, while a newer takes its place.
    Replaced,
    /// Not deleted to the end.
    Removed,
}

impl Hidden {
    const ALL: [Hidden; 3] = [Hidden::Partial, Hidden::Replaced, Hidden::Removed];

    fn path(self, folder: &Path, step: usize) -> PathBuf {
        let word = match self {
            Hidden::Partial => "partial",
            Hidden::Replaced => "replaced",
            Hidden::Removed => "removed",
        };
        folder.join(format!(".step-{step}.{word}"))
    }
}

fn step_path(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("step-{step}"))
}

/// The number in a name such as `step-12`, if linc would write it so: `step-012`, `step-+12` or `step-12.bak` are names
/// that somebody else gave.
fn step_of(name: &str) -> Option<usize> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (name == format!("step-{step}")).then_some(step)
}

/// Whether a path has the name of a checkpoint, whatever is there.
pub fn is_named_so(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| step_of(name).is_some())
}

/// Writes `folder/step-N` and returns its path; an older checkpoint of that step is replaced at the end.
///
/// # Errors
/// [`CheckpointError::Io`]; existing checkpoints are then untouched.
pub fn save(folder: &Path, contents: &Contents<'_>) -> Result<PathBuf, CheckpointError> {
    let step = contents.state.step;
    let target = step_path(folder, step);
    let partial = Hidden::Partial.path(folder, step);
    clean(folder);
    fs::create_dir_all(&partial).map_err(io_error("create", &partial))?;
    let written = write::write_files(&partial, contents)
        .and_then(|()| sync_folder(&partial).map_err(io_error("write", &partial)));
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    let replaced = Hidden::Replaced.path(folder, step);
    if target.exists() {
        fs::rename(&target, &replaced).map_err(io_error("replace", &target))?;
    }
    fs::rename(&partial, &target).map_err(io_error("create", &target))?;
    sync_folder(folder).map_err(io_error("write", folder))?;
    clean(folder);
    Ok(target)
}

/// Has the entries of a folder reach the disk, where the system can do that: a file that is synced has no name yet after a
/// power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Puts a folder of checkpoints in order after a run that was killed: a checkpoint that was to be replaced is there
/// again, and what was not written or deleted to the end is gone. Only the run that holds the folder may do so. What
/// cannot be removed is in nobody's way.
pub fn clean(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let path = folder.join(&name);
        let step = name.strip_prefix('.').and_then(|n| step_of(n.rsplit_once('.')?.0));
        let Some(step) = step else { continue };
        let Some(hidden) = Hidden::ALL.into_iter().find(|h| h.path(folder, step) == path) else { continue };
        // Killed between the two renames of a replacement, there would be no checkpoint of that step.
        let back = hidden == Hidden::Replaced && !step_path(folder, step).exists();
        let _ = if back { fs::rename(&path, step_path(folder, step)) } else { fs::remove_dir_all(&path) };
    }
}

/// Steps of the checkpoints in a folder, ascending; none if there is no folder.
pub fn steps(folder: &Path) -> Vec<usize> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let steps = names.filter_map(|name| step_of(&name)).filter(|step| step_path(folder, *step).is_dir());
    let mut steps: Vec<usize> = steps.collect();
    steps.sort_unstable();
    steps
}

/// Path of step `step` in a folder, of the newest for -1; `None` for -1 in a folder without checkpoints.
///
/// # Errors
/// [`CheckpointError::Missing`] if that step was not saved, with those that were.
pub fn find(folder: &Path, step: i64) -> Result<Option<PathBuf>, CheckpointError> {
    let steps = steps(folder);
    let Ok(wanted) = usize::try_from(step) else {
        return Ok(steps.last().map(|step| step_path(folder, *step)));
    };
    if steps.contains(&wanted) {
        return Ok(Some(step_path(folder, wanted)));
    }
    let there: Vec<String> = steps.iter().map(usize::to_string).collect();
    let message = match there.is_empty() {
        true => {
            format!("checkpoint.load_step is {wanted}, but there are no checkpoints in {}", folder.display())
        }
        false => format!(
            "checkpoint.load_step is {wanted}, but {} has the steps {}",
            folder.display(),
            there.join(", ")
        ),
    };
    let help = match there.is_empty() {
        true => {
            "name the folder of the run that has it: --job.dump_folder DIR; leave load_step out for a new run"
        }
        false => "name one of these; leave it out for the newest",
    };
    Err(CheckpointError::Missing { message, help: help.to_owned() })
}

/// Removes all but the newest `keep` checkpoints up to `step`; 0 keeps all. Later ones are of a run that went further
/// before it was resumed at an earlier step: they are not this run's to remove.
///
/// # Errors
/// [`CheckpointError::Io`] if one cannot be removed.
pub fn purge(folder: &Path, keep: usize, step: usize) -> Result<(), CheckpointError> {
    let steps: Vec<usize> = steps(folder).into_iter().filter(|s| *s <= step).collect();
    let old = if keep == 0 { 0 } else { steps.len().saturating_sub(keep) };
    for step in &steps[..old] {
        let (path, removed) = (step_path(folder, *step), Hidden::Removed.path(folder, *step));
        fs::rename(&path, &removed)
            .and_then(|()| fs::remove_dir_all(&removed))
            .map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Reads the state of a checkpoint and checks that its files are whole.
///
/// # Errors
/// [`CheckpointError::Missing`], [`CheckpointError::Io`], or [`CheckpointError::Corrupt`] if a file is truncated or
/// altered.
pub fn open(path: &Path) -> Result<State, CheckpointError> {
    open_while(path, &mut || Ok(()))
}

/// As [`open`]; `proceed` is asked again and again whether to read on.
///
/// # Errors
/// As [`open`], or the answer of `proceed`.
pub fn open_while<E: From<CheckpointError>>(
    path: &Path,
    proceed: &mut dyn FnMut() -> Result<(), E>,
) -> Result<State, E> {
    let files = checksums(path)?;
    for (name, expected) in &files {
        check(&path.join(name), *expected, proceed)?;
    }
    Ok(state(path, files)?)
}

/// What a checkpoint says of itself, without reading its tensors.
///
/// # Errors
/// As [`open`], but for damage of other files.
pub fn describe(path: &Path) -> Result<State, CheckpointError> {
    let files = checksums(path)?;
    if let Some(expected) = files.get(STATE_FILE) {
        check(&path.join(STATE_FILE), *expected, &mut || Ok::<_, CheckpointError>(()))?;
    }
    state(path, files)
}

fn checksums(path: &Path) -> Result<BTreeMap<String, FileRecord>, CheckpointError> {
    let file = path.join(CHECKSUMS_FILE);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            let (is, help) = instead::of(path);
            let message = format!("{} is not a checkpoint: {is}", path.display());
            return Err(CheckpointError::Missing { message, help });
        }
        Err(error) => return Err(unreadable(&file)(error)),
    };
    parse(&file, &text)
}

fn state(path: &Path, files: BTreeMap<String, FileRecord>) -> Result<State, CheckpointError> {
    let file = path.join(STATE_FILE);
    let corrupt = |message: String| CheckpointError::Corrupt { path: file.clone(), message };
    if !files.contains_key(STATE_FILE) || !files.contains_key(MODEL_FILE) {
        let message = format!("{CHECKSUMS_FILE} beside it does not name all files");
        return Err(corrupt(message));
    }
    let text = fs::read(&file).map_err(unreadable(&file))?;
    let version: Version = parse(&file, &text)?;
    if version.version != VERSION {
        let message = format!("it has format version {}, this linc reads {VERSION}", version.version);
        return Err(corrupt(message));
    }
    let state: State = parse(&file, &text)?;
    Ok(State { files, ..state })
}

/// What can be read of any version.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path, text: &[u8]) -> Result<T, CheckpointError> {
    let corrupt = |message: String| CheckpointError::Corrupt { path: path.to_path_buf(), message };
    serde_json::from_slice(text).map_err(|e| corrupt(format!("it is damaged: {e}")))
}

/// Compares a file with what was written.
fn check<E: From<CheckpointError>>(
    path: &Path,
    expected: FileRecord,
    proceed: &mut dyn FnMut() -> Result<(), E>,
) -> Result<(), E> {
    let corrupt =
        |message: String| Err(CheckpointError::Corrupt { path: path.to_path_buf(), message }.into());
    if !path.is_file() {
        return corrupt("it is missing".into());
    }
    let found = record(path, proceed)?;
    if found.bytes < expected.bytes {
        return corrupt(format!("it is truncated: {} of {} bytes are left", found.bytes, expected.bytes));
    }
    if found != expected {
        return corrupt("it was altered: its checksum is wrong".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_is_not_there_names_the_newest_beside_it() {
        let folder = folder_with(&["step-3", "step-20"]);
        let missing = open(&folder.path().join("step-999")).expect_err("missing").to_string();
        let newest = folder.path().join("step-20").display().to_string();
        assert!(
            missing.contains("no such folder") && missing.contains(&format!("beside it is {newest}")),
            "{missing}"
        );
        let missing = open(&folder.path().join("none/step-1")).expect_err("missing").to_string();
        assert!(missing.contains("none either; name a step-N folder"), "{missing}");
    }

    /// The names in a folder, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            fs::create_dir(folder.path().join(name)).expect("a folder");
            fs::write(folder.path().join(name).join("file"), name).expect("a file");
        }
        folder
    }

    #[test]
    fn only_names_that_linc_writes_are_checkpoints() {
        let foreign = ["step-007", "step-+8", "step-3.bak", "step-12 copy", "step-", "step-9x", "Step-4"];
        let folder = folder_with(&[&["step-0", "step-2", "step-5"], &foreign[..]].concat());
        fs::write(folder.path().join("step-99"), "a file").expect("a file");
        assert_eq!(steps(folder.path()), [0, 2, 5]);
        assert_eq!(find(folder.path(), -1).expect("found"), Some(folder.path().join("step-5")));
        assert!(find(folder.path(), 7).is_err(), "step-007 is not step 7");
        purge(folder.path(), 1, 5).expect("purged");
        let mut left = [&["step-5", "step-99"], &foreign[..]].concat();
        left.sort_unstable();
        assert_eq!(names(folder.path()), left);
    }

    #[test]
    fn what_a_killed_run_left_is_cleaned_and_nothing_else() {
        let foreign =
            [".step-1.bak", ".step-01.partial", ".step-2.partial.old", ".step-x.removed", "step-3.partial"];
        let leftovers = [".step-1.partial", ".step-2.removed", ".step-4.replaced", ".step-6.replaced"];
        let folder = folder_with(&[&["step-4"], &leftovers[..], &foreign[..]].concat());
        clean(folder.path());
        let mut left = [&["step-4", "step-6"], &foreign[..]].concat();
        left.sort_unstable();
        assert_eq!(names(folder.path()), left);
        // The newer of two stays; the only one of a step is there again.
        let content = |name: &str| fs::read_to_string(folder.path().join(name).join("file")).expect("a file");
        assert_eq!((content("step-4").as_str(), content("step-6").as_str()), ("step-4", ".step-6.replaced"));
    }
}
