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
//! | `tensor_checksums.json` | CRC-32 of each tensor by the file that has it |
//! | `checksums.json` | size and CRC-32 of each of these |
//!
//! Above a size tensors are cut into `model-00001-of-0000N.safetensors`, .. with `model.safetensors.index.json`.
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
mod shards;
mod steps;
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
pub use model::{check_model, differs, model_of};
pub use read::{Proceed, Shared, load_optimizer_state, load_shared_weights, load_weights};
pub use settings::{AsyncMode, Checkpoint, inside_dump_folder};
use steps::{Hidden, step_path};
pub use steps::{clean, find, is_named_so, purge, steps};
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
    /// Of those, the ones just before the next step: so many in a row end a run, also one that was interrupted among them.
    #[serde(default)]
    pub skipped_in_a_row: u64,
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
    /// Bytes of a file of tensors at most; more are cut into shards.
    pub shard_bytes: u64,
    /// What the run goes on from besides tensors.
    pub state: State,
}

impl State {
    /// The state of a new checkpoint.
    pub fn new(step: usize, tokens: u64, seed: u64, data: DataState, model: ModelRecord) -> Self {
        let (tiles, files) = (BTreeMap::new(), BTreeMap::new());
        let (skipped, skipped_in_a_row) = (0, 0);
        State { version: VERSION, step, tokens, skipped, skipped_in_a_row, seed, data, model, tiles, files }
    }

    /// Whether the optimizer's state is in the checkpoint, without which no run goes on from it.
    pub fn has_optimizer(&self) -> bool {
        shards::names(&self.files, OPTIMIZER_FILE).is_some()
    }

    /// What tells these weights from others: sizes and checksums of their files.
    pub fn weights_digest(&self) -> Option<String> {
        let names = shards::names(&self.files, MODEL_FILE)?;
        let sums = names.iter().filter_map(|name| self.files.get(name));
        let each: Vec<String> = sums.map(|file| format!("crc32:{:08x}:{}", file.crc32, file.bytes)).collect();
        Some(each.join(","))
    }
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

/// Reads the state of a checkpoint and checks that its files are whole.
///
/// # Errors
/// [`CheckpointError::Missing`], [`CheckpointError::Io`], or [`CheckpointError::Corrupt`] if a file is truncated or
/// altered.
pub fn open(path: &Path) -> Result<State, CheckpointError> {
    open_while(path, &mut |_, _| Ok(()))
}

/// As [`open`]; `proceed` is asked again and again whether to read on, as [`Proceed`] has it.
///
/// # Errors
/// As [`open`], or the answer of `proceed`.
pub fn open_while<E: From<CheckpointError>>(path: &Path, proceed: &mut Proceed<'_, E>) -> Result<State, E> {
    let files = checksums(path)?;
    let total = files.values().map(|file| file.bytes).sum();
    let mut before = 0;
    for (name, expected) in &files {
        check(&path.join(name), *expected, &mut |read| proceed(before + read, total))?;
        before += expected.bytes;
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
        check(&path.join(STATE_FILE), *expected, &mut |_| Ok::<_, CheckpointError>(()))?;
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
    let corrupt = |message: String| CheckpointError::corrupt(file.clone(), message);
    if !files.contains_key(STATE_FILE) || shards::names(&files, MODEL_FILE).is_none() {
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
    let corrupt = |message: String| CheckpointError::corrupt(path.to_path_buf(), message);
    serde_json::from_slice(text).map_err(|e| corrupt(format!("it is damaged: {e}")))
}

/// Compares a file with what was written.
fn check<E: From<CheckpointError>>(
    path: &Path,
    expected: FileRecord,
    proceed: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    let corrupt = |message: String| Err(CheckpointError::corrupt(path.to_path_buf(), message).into());
    if !path.is_file() {
        return corrupt("it is missing".into());
    }
    let found = record(path, proceed)?;
    if found.bytes < expected.bytes {
        return corrupt(format!("it is truncated: {} of {} bytes are left", found.bytes, expected.bytes));
    }
    if found != expected {
        return corrupt(match read::altered(path) {
            Some(tensors) => format!("it was altered: the checksum of {tensors} is wrong"),
            None => "it was altered: its checksum is wrong".into(),
        });
    }
    Ok(())
}
