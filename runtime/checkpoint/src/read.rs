//! Reads the tensors of a checkpoint, one at a time: a file may be larger than the memory that is left beside the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use linc_exec::Executor;
use linc_plan::Role;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::write::{TENSORS_FILE, TensorSums};
use crate::{CheckpointError, MODEL_FILE, OPTIMIZER_FILE, checksums, shards, unreadable};

/// Bytes of the length of the header, with which a safetensors file begins.
const LENGTH: u64 = 8;
/// More than the header of any model takes; the format's own library has the same limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// Told, again and again while files are read, how many bytes are read and how many there are; an error ends the reading.
pub type Proceed<'a, E> = dyn FnMut(u64, u64) -> Result<(), E> + 'a;

/// Receives a tensor: its name and its little-endian f32 bytes.
type Sink<'a, E> = dyn FnMut(&str, &[u8]) -> Result<(), E> + 'a;

/// Reads tensors of one kind into `write`, after checking that there are exactly the wanted ones, but for the scale of
/// the loss: those that are `here`, since other ranks may have the others.
///
/// # Errors
/// [`CheckpointError::Corrupt`] if a file is no safetensors file, [`CheckpointError::Mismatch`] if names or shapes differ,
/// [`CheckpointError::Io`], or what `write` answers, which ends the reading.
fn load<E: From<CheckpointError>>(
    tensors: &Tensors,
    wanted: &BTreeMap<String, Vec<usize>>,
    here: &dyn Fn(&str) -> bool,
    write: &mut Sink<'_, E>,
) -> Result<(), E> {
    for name in tensors.wanted(wanted)?.iter().filter(|name| here(name)) {
        write(name, &tensors.read(name)?)?;
    }
    Ok(())
}

/// Loads a checkpoint's weights into programs of its model; `proceed` is asked before each tensor.
///
/// # Errors
/// As [`load`], what the device refuses, or the answer of `proceed`.
pub fn load_weights<E: From<CheckpointError>>(
    executor: &mut Executor,
    checkpoint: &Path,
    proceed: &mut Proceed<'_, E>,
) -> Result<(), E> {
    let is_param = |role: &Role| *role == Role::Param;
    let whole = executor.tensors(is_param).into_iter().map(|t| (t.name, t.shape)).collect();
    load_into(executor, checkpoint, MODEL_FILE, &whole, is_param, proceed)
}

/// What a model has in common with the weights that it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Parameters of the model that the file lacks: they hold anything.
    pub new: Vec<String>,
    /// Tensors of the file that the model does not have.
    pub left_out: Vec<String>,
}

/// As [`load_weights`], for a model that may have other parameters than the checkpoint's besides those that they share: by
/// name, and then of one shape.
///
/// # Errors
/// As [`load_weights`], and [`CheckpointError::Mismatch`] if they share none.
pub fn load_shared_weights<E: From<CheckpointError>>(
    executor: &mut Executor,
    checkpoint: &Path,
    proceed: &mut Proceed<'_, E>,
) -> Result<Shared, E> {
    let params = executor.tensors(|role| *role == Role::Param);
    let wanted: BTreeMap<_, _> = params.into_iter().map(|t| (t.name, t.shape)).collect();
    let tensors = Tensors::open(checkpoint, MODEL_FILE)?;
    let mut counted =
        Counted { read: 0, total: tensors.bytes_of(&|name| wanted.contains_key(name)), proceed };
    load_shared(&tensors, &wanted, &mut |name, bytes| {
        counted.advance(bytes)?;
        Ok(executor.write_tensor(name, bytes).map_err(CheckpointError::from)?)
    })
}

/// Reads those of the wanted tensors that there are into `write`.
fn load_shared<E: From<CheckpointError>>(
    tensors: &Tensors,
    wanted: &BTreeMap<String, Vec<usize>>,
    write: &mut Sink<'_, E>,
) -> Result<Shared, E> {
    let held = tensors.held();
    let (shared, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
        wanted.clone().into_iter().partition(|(name, _)| held.contains_key(name));
    let left_out = held.into_keys().filter(|name| !wanted.contains_key(name)).collect();
    if shared.is_empty() {
        return Err(tensors.mismatch("none of its tensors is one of the model's".into()).into());
    }
    for name in tensors.fitting(&shared)? {
        write(&name, &tensors.read(&name)?)?;
    }
    Ok(Shared { new: new.into_keys().collect(), left_out })
}

/// As [`load_weights`], for what the optimizer carries from step to step: names and shapes of `whole` are those of all ranks, of
/// which this one may have a part.
///
/// # Errors
/// As [`load_weights`].
pub fn load_optimizer_state<E: From<CheckpointError>>(
    executor: &mut Executor,
    checkpoint: &Path,
    whole: &BTreeMap<String, Vec<usize>>,
    proceed: &mut Proceed<'_, E>,
) -> Result<(), E> {
    load_into(executor, checkpoint, OPTIMIZER_FILE, whole, Role::is_optimizer_state, proceed)
}

/// Loads exactly the tensors of some roles; `whole` are those of all ranks.
fn load_into<E: From<CheckpointError>>(
    executor: &mut Executor,
    checkpoint: &Path,
    base: &str,
    whole: &BTreeMap<String, Vec<usize>>,
    wanted: impl Fn(&Role) -> bool,
    proceed: &mut Proceed<'_, E>,
) -> Result<(), E> {
    let here: BTreeSet<String> = executor.tensors(wanted).into_iter().map(|t| t.name).collect();
    let is_here = |name: &str| here.contains(name);
    let tensors = Tensors::open(checkpoint, base)?;
    let mut counted = Counted { read: 0, total: tensors.bytes_of(&is_here), proceed };
    load(&tensors, whole, &is_here, &mut |name, bytes| {
        counted.advance(bytes)?;
        Ok(executor.write_tensor(name, bytes).map_err(CheckpointError::from)?)
    })
}

/// How much is read of what will be.
struct Counted<'p, 'a, E> {
    read: u64,
    total: u64,
    proceed: &'p mut Proceed<'a, E>,
}

impl<E> Counted<'_, '_, E> {
    fn advance(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.read += bytes.len() as u64;
        (self.proceed)(self.read, self.total)
    }
}

/// Whether only a run in f16 has the tensor, the scale of the loss. A run in another precision goes on without it, and one
/// in f16 that goes on from another precision begins with the initial scale.
fn is_of_one_precision(name: &str) -> bool {
    linc_driver::names::LOSS_SCALE_STATES.contains(&name)
}

/// Why a file is no safetensors file that can be read.
pub(crate) enum Unfit {
    /// The system does not let it be read.
    Io(io::Error),
    /// What is in it is not what should be.
    Damaged(String),
}

/// An open safetensors file.
pub(crate) struct TensorFile {
    pub(crate) path: PathBuf,
    file: File,
    bytes: u64,
    /// Where the tensors begin.
    start: u64,
    pub(crate) metadata: Metadata,
}

impl TensorFile {
    /// Opens a file and reads its header, which says where in it the tensors lie, one after the other without a gap.
    pub(crate) fn open(path: &Path) -> Result<Self, Unfit> {
        let damaged = |message: &str| Unfit::Damaged(format!("not a safetensors file: {message}"));
        let mut file = File::open(path).map_err(Unfit::Io)?;
        let bytes = file.metadata().map_err(Unfit::Io)?.len();
        let mut length = [0; LENGTH as usize];
        if bytes < LENGTH {
            return Err(damaged("it has no header"));
        }
        file.read_exact(&mut length).map_err(Unfit::Io)?;
        let length = u64::from_le_bytes(length);
        let start = length.checked_add(LENGTH).filter(|start| *start <= bytes);
        let start = start.ok_or_else(|| damaged("it ends within its header"))?;
        if length > LONGEST_HEADER {
            return Err(damaged(&format!("its header has {length} bytes, {LONGEST_HEADER} are allowed")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(Unfit::Io)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| damaged(&e.to_string()))?;
        if start.checked_add(metadata.data_len() as u64).is_none_or(|end| end < bytes) {
            return Err(damaged("there is more in it than its tensors"));
        }
        Ok(TensorFile { path: path.to_path_buf(), file, bytes, start, metadata })
    }

    /// The text that says what is in the file.
    pub(crate) fn header(&self) -> io::Result<Vec<u8>> {
        let mut header = vec![0; (self.start - LENGTH) as usize];
        self.read_at(LENGTH, &mut header)?;
        Ok(header)
    }

    /// Bytes that the file lacks of its tensors.
    pub(crate) fn missing_bytes(&self) -> u64 {
        (self.start + self.metadata.data_len() as u64).saturating_sub(self.bytes)
    }

    /// The contents of a tensor of the file, little-endian.
    pub(crate) fn read(&self, name: &str, info: &TensorInfo) -> Result<Vec<u8>, Unfit> {
        let (from, to) = info.data_offsets;
        let elements: usize = info.shape.iter().product();
        let wanted = elements * info.dtype.bitsize() / 8;
        let end = self.start.saturating_add(to as u64);
        if to.checked_sub(from) != Some(wanted) || end > self.bytes {
            let message = format!("not a safetensors file: it does not hold all of {name}");
            return Err(Unfit::Damaged(message));
        }
        let mut data = vec![0; wanted];
        self.read_at(self.start + from as u64, &mut data).map_err(Unfit::Io)?;
        Ok(data)
    }

    fn read_at(&self, at: u64, data: &mut [u8]) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(data)
    }
}

/// The tensors of one kind in a checkpoint, in one file or in several.
pub(crate) struct Tensors {
    /// The one file, also where there are shards instead: it is what people know.
    path: PathBuf,
    files: Vec<TensorFile>,
}

impl Tensors {
    /// Opens the files of `model.safetensors`, or of another base name.
    pub(crate) fn open(checkpoint: &Path, base: &str) -> Result<Self, CheckpointError> {
        let missing = || CheckpointError::corrupt(checkpoint.join(base), "it is missing".into());
        let names = shards::names(&checksums(checkpoint)?, base).ok_or_else(missing)?;
        Tensors::of(checkpoint, base, &names)
    }

    fn of(folder: &Path, base: &str, names: &[String]) -> Result<Self, CheckpointError> {
        let open = |name: &String| {
            let path = folder.join(name);
            TensorFile::open(&path).map_err(unfit(&path))
        };
        let files = names.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Tensors { path: folder.join(base), files })
    }

    /// The contents of a tensor, little-endian f32.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let found = self.files.iter().find_map(|file| Some((file, file.metadata.info(name)?)));
        let missing = || CheckpointError::corrupt(self.path.clone(), format!("{name} is missing"));
        let (file, info) = found.ok_or_else(missing)?;
        file.read(name, info).map_err(unfit(&file.path))
    }

    /// All tensors that there are.
    fn held(&self) -> BTreeMap<String, &TensorInfo> {
        self.files.iter().flat_map(|file| file.metadata.tensors()).collect()
    }

    /// Bytes of some of the tensors.
    fn bytes_of(&self, wanted: &dyn Fn(&str) -> bool) -> u64 {
        let bytes = |info: &TensorInfo| info.data_offsets.1.saturating_sub(info.data_offsets.0) as u64;
        self.held().into_iter().filter(|(name, _)| wanted(name)).map(|(_, info)| bytes(info)).sum()
    }

    /// What does not fit in a checkpoint.
    fn mismatch(&self, message: String) -> CheckpointError {
        let help = "use the model that it was made with, and its linear layers: a text may give those tensors of their own";
        CheckpointError::Mismatch { path: self.path.clone(), message, help: help.into() }
    }

    /// Names of the wanted tensors that a checkpoint has, in their order, after checking that it has no others.
    fn wanted(&self, wanted: &BTreeMap<String, Vec<usize>>) -> Result<Vec<String>, CheckpointError> {
        let held = self.held();
        if let Some(name) = held.keys().filter(|n| !wanted.contains_key(*n) && !is_of_one_precision(n)).min()
        {
            return Err(self.mismatch(format!("it has a tensor {name} that the model does not have")));
        }
        self.fitting(wanted)
    }

    /// Names of the wanted tensors, in their order; there may be others.
    fn fitting(&self, wanted: &BTreeMap<String, Vec<usize>>) -> Result<Vec<String>, CheckpointError> {
        let held = self.held();
        let mut found = vec![];
        for (name, shape) in wanted {
            let Some(info) = held.get(name).copied() else {
                if is_of_one_precision(name) {
                    continue;
                }
                return Err(self.mismatch(format!("it has no tensor {name}")));
            };
            if info.shape != *shape {
                let message = format!("{name} is {:?} in it, the model has {shape:?}", info.shape);
                return Err(self.mismatch(message));
            }
            if info.dtype != Dtype::F32 {
                return Err(self.mismatch(format!("{name} is {:?} in it, f32 is expected", info.dtype)));
            }
            found.push(name.clone());
        }
        Ok(found)
    }
}

/// Which tensors of a file are others than were written, in words; nothing if that cannot be told.
pub(crate) fn altered(path: &Path) -> Option<String> {
    let sums = fs::read(path.with_file_name(TENSORS_FILE)).ok()?;
    let sums: BTreeMap<String, TensorSums> = serde_json::from_slice(&sums).ok()?;
    let expected = sums.get(path.file_name()?.to_str()?)?;
    let file = TensorFile::open(path).ok()?;
    let held = file.metadata.tensors();
    let is_other = |(name, sum): &(&String, &u32)| {
        let contents = held.get(*name).and_then(|info| file.read(name, info).ok());
        contents.is_none_or(|contents| crc32fast::hash(&contents) != **sum)
    };
    let others: Vec<&String> = expected.iter().filter(is_other).map(|(name, _)| name).collect();
    let (first, rest) = others.split_first()?;
    Some(if rest.is_empty() { first.to_string() } else { format!("{first} and {} more tensors", rest.len()) })
}

/// The error of a checkpoint's file.
pub(crate) fn unfit(path: &Path) -> impl Fn(Unfit) -> CheckpointError + '_ {
    move |error| match error {
        Unfit::Io(source) => unreadable(path)(source),
        Unfit::Damaged(message) => CheckpointError::corrupt(path.to_path_buf(), message),
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
        let names = ["a.safetensors".to_owned()];
        let tensors = Tensors::of(folder.path(), &names[0], &names);
        match tensors.and_then(|tensors| load(&tensors, &wanted, &|_| true, &mut write)) {
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

    #[test]
    fn what_two_models_share_is_read_and_the_rest_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        let mut data = (header.len() as u64).to_le_bytes().to_vec();
        data.extend_from_slice(header);
        data.extend([1f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()));
        fs::write(&path, data).expect("written");
        let load = |wanted: &[(&str, usize)]| {
            let wanted = wanted.iter().map(|(name, size)| ((*name).to_string(), vec![*size])).collect();
            let mut read = vec![];
            let mut write = |name: &str, bytes: &[u8]| -> Result<(), CheckpointError> {
                read.push((name.to_string(), bytes.len()));
                Ok(())
            };
            let names = ["a.safetensors".to_owned()];
            let tensors = Tensors::of(folder.path(), &names[0], &names).expect("a file");
            let shared = load_shared(&tensors, &wanted, &mut write);
            shared.map(|shared| (read, shared.new, shared.left_out)).map_err(|error| error.to_string())
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>();
        let both = load(&[("b", 2), ("c", 7), ("a", 1)]).expect("shared tensors");
        assert_eq!(both, (vec![("a".into(), 4), ("b".into(), 8)], names(&["c"]), vec![]));
        let one = load(&[("b", 2), ("d", 1), ("c", 7)]).expect("a shared tensor");
        assert_eq!(one, (vec![("b".into(), 8)], names(&["c", "d"]), names(&["a"])));
        assert!(load(&[("c", 7)]).expect_err("nothing").contains("none of its tensors"));
        assert!(load(&[("b", 3)]).expect_err("another shape").contains("b is [2] in it, the model has [3]"));
    }
}
