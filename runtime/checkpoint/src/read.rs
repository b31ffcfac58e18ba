//! Reads the tensors of a checkpoint, one at a time: a file may be larger than the memory that is left beside the model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use linc_exec::Executor;
use linc_plan::Role;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::{CheckpointError, MODEL_FILE, OPTIMIZER_FILE, unreadable};

/// Bytes of the length of the header, with which a safetensors file begins.
const LENGTH: u64 = 8;

/// Receives a tensor: its name and its little-endian f32 bytes.
type Sink<'a, E> = dyn FnMut(&str, &[u8]) -> Result<(), E> + 'a;

/// Reads all tensors of a file into `write`, after checking that they are exactly the
/// wanted ones, but for the scale of the loss.
///
/// # Errors
/// [`CheckpointError::Corrupt`] if it is no safetensors file, [`CheckpointError::Mismatch`] if names or shapes differ,
/// [`CheckpointError::Io`], or what `write` answers, which ends the reading.
fn load<E: From<CheckpointError>>(
    path: &Path,
    wanted: &BTreeMap<String, Vec<usize>>,
    write: &mut Sink<'_, E>,
) -> Result<(), E> {
    let mut file = TensorFile::open(path)?;
    for (name, info) in file.wanted(wanted)? {
        write(&name, &file.read(&name, &info)?)?;
    }
    Ok(())
}

/// Loads a checkpoint's weights into programs of its model; `proceed` is asked before each tensor whether to go on.
///
/// # Errors
/// As [`load`], what the device refuses, or the answer of `proceed`.
pub fn load_weights<E: From<CheckpointError>>(
    executor: &mut Executor,
    checkpoint: &Path,
    proceed: &mut dyn FnMut() -> Result<(), E>,
) -> Result<(), E> {
    load_into(executor, &checkpoint.join(MODEL_FILE), |role| *role == Role::Param, proceed)
}

/// As [`load_weights`], for what the optimizer carries from step to step.
///
/// # Errors
/// As [`load_weights`].
pub fn load_optimizer_state<E: From<CheckpointError>>(
    executor: &mut Executor,
    checkpoint: &Path,
    proceed: &mut dyn FnMut() -> Result<(), E>,
) -> Result<(), E> {
    load_into(executor, &checkpoint.join(OPTIMIZER_FILE), Role::is_optimizer_state, proceed)
}

/// Loads a file of exactly the tensors of some roles.
fn load_into<E: From<CheckpointError>>(
    executor: &mut Executor,
    path: &Path,
    wanted: impl Fn(&Role) -> bool,
    proceed: &mut dyn FnMut() -> Result<(), E>,
) -> Result<(), E> {
    let wanted = executor.tensors(wanted).into_iter().map(|t| (t.name, t.shape)).collect();
    load(path, &wanted, &mut |name, bytes| {
        proceed()?;
        Ok(executor.write_tensor(name, bytes).map_err(CheckpointError::from)?)
    })
}

/// Whether only a run in f16 has the tensor, the scale of the loss. A run in another precision goes on without it, and one
/// in f16 that goes on from another precision begins with the initial scale.
fn is_of_one_precision(name: &str) -> bool {
    linc_driver::names::LOSS_SCALE_STATES.contains(&name)
}

/// An open safetensors file.
struct TensorFile<'a> {
    path: &'a Path,
    file: File,
    bytes: u64,
    /// Where the tensors begin.
    start: u64,
    metadata: Metadata,
}

impl<'a> TensorFile<'a> {
    fn open(path: &'a Path) -> Result<Self, CheckpointError> {
        let corrupt = |message: &str| CheckpointError::Corrupt {
            path: path.to_path_buf(),
            message: format!("not a safetensors file: {message}"),
        };
        let mut file = File::open(path).map_err(unreadable(path))?;
        let bytes = file.metadata().map_err(unreadable(path))?.len();
        let mut length = [0; LENGTH as usize];
        if bytes < LENGTH {
            return Err(corrupt("it has no header"));
        }
        file.read_exact(&mut length).map_err(unreadable(path))?;
        let length = u64::from_le_bytes(length);
        let start = length.checked_add(LENGTH).filter(|start| *start <= bytes);
        let start = start.ok_or_else(|| corrupt("it ends within its header"))?;
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(unreadable(path))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| corrupt(&e.to_string()))?;
        if start.checked_add(metadata.data_len() as u64).is_none_or(|end| end < bytes) {
            return Err(corrupt("there is more in it than its tensors"));
        }
        Ok(TensorFile { path, file, bytes, start, metadata })
    }

    /// The wanted tensors with their places, in the order of their names.
    fn wanted(
        &self,
        wanted: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Vec<(String, TensorInfo)>, CheckpointError> {
        let mismatch = |message: String| {
            CheckpointError::Mismatch {
            path: self.path.to_path_buf(),
            message,
            help: "use the model that it was made with, and its linear layers: a text may give those tensors of their own"
                .into(),
        }
        };
        let held = self.metadata.tensors();
        if let Some(name) = held.keys().filter(|n| !wanted.contains_key(*n) && !is_of_one_precision(n)).min()
        {
            return Err(mismatch(format!("it has a tensor {name} that the model does not have")));
        }
        let mut found = vec![];
        for (name, shape) in wanted {
            let Some(info) = held.get(name).copied() else {
                if is_of_one_precision(name) {
                    continue;
                }
                return Err(mismatch(format!("it has no tensor {name}")));
            };
            if info.shape != *shape {
                return Err(mismatch(format!("{name} is {:?} in it, the model has {shape:?}", info.shape)));
            }
            if info.dtype != Dtype::F32 {
                return Err(mismatch(format!("{name} is {:?} in it, f32 is expected", info.dtype)));
            }
            found.push((name.clone(), info.clone()));
        }
        Ok(found)
    }

    fn read(&mut self, name: &str, info: &TensorInfo) -> Result<Vec<u8>, CheckpointError> {
        let (from, to) = info.data_offsets;
        let wanted = info.shape.iter().product::<usize>() * 4;
        let end = self.start.saturating_add(to as u64);
        if to.checked_sub(from) != Some(wanted) || end > self.bytes {
            let message = format!("not a safetensors file: it does not hold all of {name}");
            return Err(CheckpointError::Corrupt { path: self.path.to_path_buf(), message });
        }
        let mut data = vec![0; wanted];
        let at = SeekFrom::Start(self.start + from as u64);
        self.file.seek(at).and_then(|_| self.file.read_exact(&mut data)).map_err(unreadable(self.path))?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file with tensor `w` `[3]` and the error of loading it, after `damage`.
    fn error(damage: impl Fn(&mut Vec<u8>), shape: &[usize]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let header = br#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}"#;
        let mut data = (header.len() as u64).to_le_bytes().to_vec();
        data.extend_from_slice(header);
        data.extend([1f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()));
        damage(&mut data);
        fs::write(&path, data).expect("written");
        let wanted = BTreeMap::from([("w".to_string(), shape.to_vec())]);
        let mut read = vec![];
        let mut write = |name: &str, bytes: &[u8]| -> Result<(), CheckpointError> {
            read.push((name.to_string(), bytes.to_vec()));
            Ok(())
        };
        match load(&path, &wanted, &mut write) {
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_string(),
            Ok(()) => {
                assert_eq!(read.len(), 1);
                assert_eq!((read[0].0.as_str(), &read[0].1[8..]), ("w", &3f32.to_le_bytes()[..]));
                "none".into()
            }
        }
    }

    #[test]
    fn whole_files_are_read_and_damaged_ones_named() {
        assert_eq!(error(|_| {}, &[3]), "none");
        for (damage, words) in [
            ((|d| d.truncate(5)) as fn(&mut Vec<u8>), "no header"),
            (|d| d.truncate(30), "within its header"),
            (|d| d[7] = 0x7f, "within its header"),
            (|d| d[8] = b'x', "not a safetensors file"),
            (|d| d.truncate(d.len() - 1), "does not hold all of w"),
            (|d| d.push(0), "more in it than its tensors"),
        ] {
            let message = error(damage, &[3]);
            assert!(message.contains(words), "{message}");
        }
        assert!(error(|_| {}, &[4]).contains("w is [3] in it, the model has [4]"));
    }
}
