//! Checkpoints: `step-N/` with the weights, the optimizer's state, and everything else that a run needs to go on with
//! the same bits.
//!
//! | file | contents |
//! |---|---|
//! | `model.safetensors` | parameters, TorchTitan's names, `[out, in]` |
//! | `optimizer.safetensors` | first and second moments |
//! | `state.json` | [`State`]: step, data position, model, checksums of the other files |
//! | `tokenizer.json` | the tokenizer, unless the model reads bytes |
//!
//! A checkpoint is written under another name and renamed when it is whole, so a crash or a full disk leaves the older
//! ones as they were.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::data::DataState;

/// Name of the file with the weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// Name of the file with the moments.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Name of the file with the tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
const STATE_FILE: &str = "state.json";
/// Raised when the meaning of a file changes.
const VERSION: u32 = 1;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The operating system refuses; nothing was replaced.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `write`, `read`, ..
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("{}: {message}; use another checkpoint (checkpoint.load_step)", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// How it differs.
        message: String,
    },
    /// The checkpoint is of another model.
    #[error("{}: {message}", path.display())]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// What differs and what to do.
        message: String,
    },
    /// There is no such checkpoint.
    #[error("{message}")]
    Missing {
        /// What was looked for, what there is.
        message: String,
    },
}

/// A model, so that a checkpoint explains itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Family.
    pub name: String,
    /// Size.
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
    /// `training.seed`; all randomness of a run derives from it, the step and the data position.
    pub seed: u64,
    /// Position in the training data.
    pub data: DataState,
    /// The model.
    pub model: ModelRecord,
    /// Size and CRC-32 of each other file.
    pub files: BTreeMap<String, FileRecord>,
}

/// What a file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Bytes.
    pub bytes: u64,
    /// CRC-32 (IEEE).
    pub crc32: u32,
}

/// A tensor that is read when it is written to disk: name, shape, and a way to get its f32 bytes.
pub struct Tensor<'a> {
    /// Name in the file.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Reads the little-endian f32 data, or says why it cannot be read.
    pub read: Box<dyn Fn() -> Result<Vec<u8>, String> + 'a>,
}

/// A tensor on its way to a file. The writer of the file format has no errors of its sources: they are kept here.
struct Source<'a> {
    tensor: &'a Tensor<'a>,
    failed: &'a RefCell<Option<String>>,
}

impl View for Source<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = (self.tensor.read)().unwrap_or_else(|error| {
            *self.failed.borrow_mut() = Some(error);
            vec![0; self.data_len()]
        });
        Cow::Owned(data)
    }

    fn data_len(&self) -> usize {
        self.tensor.shape.iter().product::<usize>() * 4
    }
}

/// What goes into a checkpoint.
pub struct Contents<'a> {
    /// Parameters.
    pub params: Vec<Tensor<'a>>,
    /// Optimizer state; empty to leave it out.
    pub optimizer: Vec<Tensor<'a>>,
    /// The tokenizer's file, if it has one.
    pub tokenizer: Option<PathBuf>,
    /// The rest; `files` is filled in.
    pub state: State,
}

impl State {
    /// The state of a new checkpoint.
    pub fn new(step: usize, tokens: u64, seed: u64, data: DataState, model: ModelRecord) -> Self {
        State { version: VERSION, step, tokens, seed, data, model, files: BTreeMap::new() }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { action, path, source }
}

/// Writes `folder/step-N` and returns its path; an older checkpoint of that step is replaced at the end.
///
/// # Errors
/// [`CheckpointError::Io`]; existing checkpoints are then untouched.
pub fn save(folder: &Path, mut contents: Contents<'_>) -> Result<PathBuf, CheckpointError> {
    let target = folder.join(format!("step-{}", contents.state.step));
    let partial = folder.join(format!(".step-{}.partial", contents.state.step));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(io_error("create", &partial))?;
    let result = write_files(&partial, &mut contents);
    if let Err(error) = result {
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    if target.exists() {
        fs::remove_dir_all(&target).map_err(io_error("replace", &target))?;
    }
    fs::rename(&partial, &target).map_err(io_error("create", &target))?;
    Ok(target)
}

fn write_files(partial: &Path, contents: &mut Contents<'_>) -> Result<(), CheckpointError> {
    let model = &contents.state.model;
    let metadata = HashMap::from([
        ("format".to_string(), "pt".to_string()),
        ("architecture".to_string(), format!("{} {}", model.name, model.flavor)),
        ("linear_attn_ratio".to_string(), model.linear_attn_ratio.clone()),
        ("layers".to_string(), model.layers.join(",")),
    ]);
    let mut names = vec![];
    for (name, tensors) in [(MODEL_FILE, &contents.params), (OPTIMIZER_FILE, &contents.optimizer)] {
        if tensors.is_empty() {
            continue;
        }
        let path = partial.join(name);
        let failed = RefCell::new(None);
        let views = tensors.iter().map(|tensor| (&tensor.name, Source { tensor, failed: &failed }));
        let written = safetensors::serialize_to_file(views, Some(metadata.clone()), &path);
        let written = written.map_err(|error| match error {
            safetensors::SafeTensorError::IoError(e) => e,
            other => io::Error::other(other.to_string()),
        });
        let read = failed.into_inner().map_or(Ok(()), |error| Err(io::Error::other(error)));
        written.and(read).map_err(io_error("write", &path))?;
        names.push(name);
    }
    if let Some(tokenizer) = &contents.tokenizer {
        let path = partial.join(TOKENIZER_FILE);
        fs::copy(tokenizer, &path).map_err(io_error("copy the tokenizer to", &path))?;
        names.push(TOKENIZER_FILE);
    }
    for name in names {
        contents.state.files.insert(name.to_string(), record(&partial.join(name))?);
    }
    let path = partial.join(STATE_FILE);
    let text = serde_json::to_string_pretty(&contents.state).map_err(|e| CheckpointError::Io {
        action: "write",
        path: path.clone(),
        source: e.into(),
    })?;
    let mut file = File::create(&path).map_err(io_error("write", &path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error("write", &path))?;
    // Tensors are written through private temporary files; who may read this file may read all.
    let permissions = file.metadata().map_err(io_error("read", &path))?.permissions();
    for name in contents.state.files.keys() {
        let path = partial.join(name);
        fs::set_permissions(&path, permissions.clone()).map_err(io_error("set the permissions of", &path))?;
    }
    Ok(())
}

/// Size and checksum of a file, flushed to disk.
fn record(path: &Path) -> Result<FileRecord, CheckpointError> {
    let mut file = File::open(path).map_err(io_error("read", path))?;
    file.sync_all().map_err(io_error("write", path))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer).map_err(io_error("read", path))?;
        if n == 0 {
            return Ok(FileRecord { bytes, crc32: hasher.finalize() });
        }
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// Steps of the checkpoints in a folder, ascending; none if there is no folder.
pub fn steps(folder: &Path) -> Vec<usize> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let step = |name: String| name.strip_prefix("step-")?.parse().ok();
    let mut steps: Vec<usize> =
        entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter_map(step).collect();
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
        return Ok(steps.last().map(|s| folder.join(format!("step-{s}"))));
    };
    if steps.contains(&wanted) {
        return Ok(Some(folder.join(format!("step-{wanted}"))));
    }
    let there: Vec<String> = steps.iter().map(usize::to_string).collect();
    let there = if there.is_empty() { "none".to_string() } else { there.join(", ") };
    let message = format!("checkpoint.load_step is {wanted}, but {} has steps {there}", folder.display());
    Err(CheckpointError::Missing { message })
}

/// Removes all but the newest `keep` checkpoints; 0 keeps all.
///
/// # Errors
/// [`CheckpointError::Io`] if one cannot be removed.
pub fn purge(folder: &Path, keep: usize) -> Result<(), CheckpointError> {
    let steps = steps(folder);
    let old = if keep == 0 { 0 } else { steps.len().saturating_sub(keep) };
    for step in &steps[..old] {
        let path = folder.join(format!("step-{step}"));
        fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Reads the state of a checkpoint and checks that its files are whole.
///
/// # Errors
/// [`CheckpointError::Missing`], [`CheckpointError::Io`], or [`CheckpointError::Corrupt`] if a file is truncated or
/// altered.
pub fn open(path: &Path) -> Result<State, CheckpointError> {
    let file = path.join(STATE_FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            let message = format!("{} is not a checkpoint: {}", path.display(), what_instead(path));
            return Err(CheckpointError::Missing { message });
        }
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Err(CheckpointError::Corrupt { path: file, message: "it is not text any more".into() });
        }
        Err(source) => return Err(CheckpointError::Io { action: "read", path: file, source }),
    };
    let corrupt = |message: String| CheckpointError::Corrupt { path: file.clone(), message };
    let state: State = serde_json::from_str(&text).map_err(|e| corrupt(format!("it does not parse: {e}")))?;
    if state.version != VERSION {
        return Err(corrupt(format!("it has format version {}, this linc reads {VERSION}", state.version)));
    }
    for (name, expected) in &state.files {
        let path = path.join(name);
        let found = record_of(&path)?;
        if found.bytes != expected.bytes {
            let message =
                format!("it has {} bytes, {} were written: it is truncated", found.bytes, expected.bytes);
            return Err(CheckpointError::Corrupt { path, message });
        }
        if found.crc32 != expected.crc32 {
            return Err(CheckpointError::Corrupt {
                path,
                message: "its checksum is wrong: it was altered".into(),
            });
        }
    }
    Ok(state)
}

/// What is there where a checkpoint was looked for.
fn what_instead(path: &Path) -> String {
    let within = [path.to_path_buf(), path.join("checkpoint")];
    let newest =
        within.iter().find_map(|folder| Some(folder.join(format!("step-{}", steps(folder).last()?))));
    match newest {
        Some(newest) => format!("it holds checkpoints, the newest is {}", newest.display()),
        None if path.is_dir() => format!("it has no {STATE_FILE}; name a step-N folder"),
        None if path.exists() => "it is a file; name a step-N folder".to_string(),
        None => "there is no such folder".to_string(),
    }
}

fn record_of(path: &Path) -> Result<FileRecord, CheckpointError> {
    if path.is_file() {
        return record(path);
    }
    Err(CheckpointError::Corrupt { path: path.to_path_buf(), message: "it is missing".into() })
}

/// Reads all tensors of a file into `write(name, shape, little-endian f32 bytes)`, after checking that they are exactly
/// the wanted ones.
///
/// # Errors
/// [`CheckpointError::Corrupt`] if it is no safetensors file, [`CheckpointError::Mismatch`] if names or shapes differ.
pub fn load(
    path: &Path,
    wanted: &BTreeMap<String, Vec<usize>>,
    write: &mut dyn FnMut(&str, &[u8]),
) -> Result<(), CheckpointError> {
    let data = fs::read(path).map_err(io_error("read", path))?;
    let corrupt = |message: String| CheckpointError::Corrupt { path: path.to_path_buf(), message };
    let mismatch = |message: String| CheckpointError::Mismatch { path: path.to_path_buf(), message };
    let tensors =
        SafeTensors::deserialize(&data).map_err(|e| corrupt(format!("not a safetensors file: {e}")))?;
    for name in tensors.names() {
        if !wanted.contains_key(name) {
            return Err(mismatch(format!("it has a tensor {name} that the model does not have")));
        }
    }
    for (name, shape) in wanted {
        let tensor = tensors
            .tensor(name)
            .map_err(|_| mismatch(format!("it has no tensor {name}: it is of another architecture")))?;
        if tensor.shape() != shape {
            return Err(mismatch(format!("{name} is {:?} in it, the model has {shape:?}", tensor.shape())));
        }
        if tensor.dtype() != Dtype::F32 {
            return Err(mismatch(format!("{name} is {:?} in it, f32 is expected", tensor.dtype())));
        }
        write(name, tensor.data());
    }
    Ok(())
}
