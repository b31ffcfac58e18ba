//! Writes the files of a checkpoint. The same contents give the same bytes: the header of a safetensors file is written
//! here, in order, because the crate that reads it writes metadata in a random one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    CheckpointError, Contents, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, io_error, shards, unreadable,
};

/// Name of the file with the checksum of each tensor by the file that has it, so that damage has a place.
pub(super) const TENSORS_FILE: &str = "tensor_checksums.json";
/// Name of the file with size and checksum of all others.
pub(super) const CHECKSUMS_FILE: &str = "checksums.json";

/// What a file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Size of the file.
    pub bytes: u64,
    /// CRC-32 (IEEE).
    pub crc32: u32,
}

/// CRC-32 of the contents of tensors, by name.
pub(super) type TensorSums = BTreeMap<String, u32>;

/// A tensor that is read when it is written to disk: name, shape, and a way to get its bytes.
pub struct Tensor<'a> {
    /// Name in the file.
    pub name: String,
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Reads the little-endian data, f32 in a checkpoint, or says why it cannot be read.
    pub read: Box<dyn Fn() -> Result<Vec<u8>, String> + 'a>,
}

impl Tensor<'_> {
    fn bytes(&self, dtype: Dtype) -> usize {
        self.shape.iter().product::<usize>() * dtype.bitsize() / 8
    }
}

/// Writes all files of a checkpoint into a folder.
pub(super) fn write_files(folder: &Path, contents: &Contents<'_>) -> Result<(), CheckpointError> {
    let model = &contents.state.model;
    let metadata = BTreeMap::from([
        ("architecture", format!("{} {}", model.name, model.flavor)),
        // What other readers of such files take for the layout of the tensors.
        ("format", "pt".to_string()),
        ("layers", model.layers.join(",")),
        ("linear_attn_ratio", model.linear_attn_ratio.clone()),
    ]);
    let mut names: Vec<String> = vec![STATE_FILE.into(), TENSORS_FILE.into()];
    let mut sums: BTreeMap<String, TensorSums> = BTreeMap::new();
    let mut records = BTreeMap::new();
    for (base, tensors) in [(MODEL_FILE, &contents.params), (OPTIMIZER_FILE, &contents.optimizer)] {
        let mut sorted: Vec<&Tensor<'_>> = tensors.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let written = write_shards(folder, base, &sorted, contents.shard_bytes, &metadata, Dtype::F32)?;
        for (name, file) in written {
            match file {
                Written::Tensors(of_tensors, whole) => {
                    records.insert(name.clone(), whole);
                    if !of_tensors.is_empty() {
                        sums.insert(name, of_tensors);
                    }
                }
                Written::Index => names.push(name),
            }
        }
    }
    write_json(&folder.join(TENSORS_FILE), &sums)?;
    for file in contents.tokenizer {
        let path = folder.join(file.name);
        write_bytes(&path, &file.bytes).map_err(io_error("write", &path))?;
        names.push(file.name.to_owned());
    }
    write_json(&folder.join(STATE_FILE), &contents.state)?;
    for name in names {
        let written = record(&folder.join(&name), &mut |_| Ok::<_, CheckpointError>(()))?;
        records.insert(name, written);
    }
    write_json(&folder.join(CHECKSUMS_FILE), &records)
}

/// A file of weights.
pub(super) enum Written {
    /// Of tensors, with the checksum of each and that of the whole file.
    Tensors(TensorSums, FileRecord),
    /// Which file has which tensor.
    Index,
}

/// Bytes that are written before the disk has to have them. The last wait would take minutes else, and other ranks would hear
/// nothing of it.
const UNSYNCED: u64 = 256 << 20;

/// A file whose size and checksum are known as it is written.
struct Summed {
    file: BufWriter<File>,
    hasher: crc32fast::Hasher,
    bytes: u64,
    /// Bytes that the disk has.
    synced: u64,
}

impl Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        if self.bytes - self.synced >= UNSYNCED {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.synced = self.bytes;
        }
        Ok(())
    }

    fn finish(self) -> io::Result<FileRecord> {
        self.file.into_inner()?.sync_all()?;
        Ok(FileRecord { bytes: self.bytes, crc32: self.hasher.finalize() })
    }
}

/// Writes tensors, in their order, into a file or, where they are more than `limit` bytes, into several and the index of these.
/// Gives the names of all files with what is in them.
pub(super) fn write_shards(
    folder: &Path,
    base: &str,
    tensors: &[&Tensor<'_>],
    limit: u64,
    metadata: &BTreeMap<&str, String>,
    dtype: Dtype,
) -> Result<BTreeMap<String, Written>, CheckpointError> {
    let sizes: Vec<u64> = tensors.iter().map(|tensor| tensor.bytes(dtype) as u64).collect();
    let shards = shards::cut(base, &sizes, limit);
    let mut written = BTreeMap::new();
    for shard in &shards {
        let path = folder.join(&shard.name);
        let file = write_tensors(&path, &tensors[shard.tensors.clone()], metadata, dtype);
        let (sums, whole) = file.map_err(io_error("write", &path))?;
        written.insert(shard.name.clone(), Written::Tensors(sums, whole));
    }
    if shards.len() > 1 {
        let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        write_json(&folder.join(shards::index_name(base)), &shards::Index::new(&shards, &names))?;
        written.insert(shards::index_name(base), Written::Index);
    }
    Ok(written)
}

/// A safetensors file: the length of the header, the header, the tensors in the order of their names. Gives the checksums of
/// the tensors, and of the file.
fn write_tensors(
    path: &Path,
    tensors: &[&Tensor<'_>],
    metadata: &BTreeMap<&str, String>,
    dtype: Dtype,
) -> io::Result<(TensorSums, FileRecord)> {
    let mut sorted = tensors.to_vec();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!(metadata));
    let mut start = 0;
    for tensor in &sorted {
        let end = start + tensor.bytes(dtype);
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // The data starts at a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');

    let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut file = Summed { file, hasher: crc32fast::Hasher::new(), bytes: 0, synced: 0 };
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    let mut sums = TensorSums::new();
    for tensor in sorted {
        let data = (tensor.read)().map_err(io::Error::other)?;
        if data.len() != tensor.bytes(dtype) {
            let message =
                format!("{} has {} bytes, its shape has {}", tensor.name, data.len(), tensor.bytes(dtype));
            return Err(io::Error::other(message));
        }
        file.write(&data)?;
        sums.insert(tensor.name.clone(), crc32fast::hash(&data));
    }
    Ok((sums, file.finish()?))
}

fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a file of a checkpoint or an export.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    write_bytes(path, bytes).map_err(io_error("write", path))
}

pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), CheckpointError> {
    let write = || {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        write_bytes(path, text.as_bytes())
    };
    write().map_err(io_error("write", path))
}

/// Size and checksum of a file, as it lies on disk; `proceed` is asked before each piece whether to read on, and told how many
/// bytes are read.
pub(super) fn record<E: From<CheckpointError>>(
    path: &Path,
    proceed: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<FileRecord, E> {
    let mut file = File::open(path).map_err(unreadable(path))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        proceed(bytes)?;
        let n = file.read(&mut buffer).map_err(unreadable(path))?;
        if n == 0 {
            return Ok(FileRecord { bytes, crc32: hasher.finalize() });
        }
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;
    use std::fs;

    fn tensor(name: &str, shape: &[usize], value: f32) -> Tensor<'static> {
        let n: usize = shape.iter().product();
        let read = move || Ok(value.to_le_bytes().repeat(n));
        Tensor { name: name.into(), shape: shape.to_vec(), read: Box::new(read) }
    }

    #[test]
    fn the_file_is_read_back_by_the_crate() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let metadata = BTreeMap::from([("format", "pt".to_string())]);
        let tensors = [tensor("b", &[2, 3], 1.5), tensor("a", &[], -2.0), tensor("c", &[0, 4], 0.0)];
        let tensors: Vec<&Tensor<'_>> = tensors.iter().collect();
        let (sums, whole) = write_tensors(&path, &tensors, &metadata, Dtype::F32).expect("written");
        assert!(whole == record(&path, &mut |_| Ok::<_, CheckpointError>(())).expect("it is there"));
        assert_eq!(sums["b"], crc32fast::hash(&1.5f32.to_le_bytes().repeat(6)));
        let data = fs::read(&path).expect("read");
        let (_, header) = SafeTensors::read_metadata(&data).expect("a header");
        assert_eq!(header.metadata().as_ref().map(|m| m["format"].as_str()), Some("pt"));
        let read = SafeTensors::deserialize(&data).expect("a safetensors file");
        assert_eq!(read.names().len(), 3);
        let b = read.tensor("b").expect("b");
        assert_eq!((b.shape(), b.data()), (&[2, 3][..], &1.5f32.to_le_bytes().repeat(6)[..]));
        assert_eq!(read.tensor("a").expect("a").data(), (-2f32).to_le_bytes());
        assert_eq!(read.tensor("c").expect("c").shape(), [0, 4]);
    }

    #[test]
    fn a_tensor_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let broken = Tensor { name: "a".into(), shape: vec![1], read: Box::new(|| Err("lost".into())) };
        let error = write_tensors(&path, &[&broken], &BTreeMap::new(), Dtype::F32).expect_err("an error");
        assert_eq!(error.to_string(), "lost");
        let short = Tensor { name: "a".into(), shape: vec![2], read: Box::new(|| Ok(vec![0; 4])) };
        assert!(write_tensors(&path, &[&short], &BTreeMap::new(), Dtype::F32).is_err());
    }
}
