//! Tensors in several files above a size, named and indexed as Hugging Face's are, which other readers understand.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

use crate::write::FileRecord;

/// One of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) name: String,
    /// Which of the tensors, in the order in which they were given.
    pub(crate) tensors: Range<usize>,
    pub(crate) bytes: u64,
}

/// Cuts tensors of so many bytes into files of at most `limit` bytes, or of one tensor that is larger. The one file that is
/// enough has the name `base`, such as `model.safetensors`.
pub(crate) fn cut(base: &str, sizes: &[u64], limit: u64) -> Vec<Shard> {
    let mut shards: Vec<Shard> = vec![];
    for (index, bytes) in sizes.iter().enumerate() {
        match shards.last_mut().filter(|shard| shard.bytes.saturating_add(*bytes) <= limit) {
            Some(shard) => {
                shard.tensors.end = index + 1;
                shard.bytes += bytes;
            }
            None => shards.push(Shard { name: base.to_owned(), tensors: index..index + 1, bytes: *bytes }),
        }
    }
    let count = shards.len();
    if count > 1 {
        for (index, shard) in shards.iter_mut().enumerate() {
            shard.name = name(base, index + 1, count);
        }
    }
    shards
}

fn name(base: &str, index: usize, count: usize) -> String {
    format!("{}-{index:05}-of-{count:05}.safetensors", stem(base))
}

fn stem(base: &str) -> &str {
    base.strip_suffix(".safetensors").unwrap_or(base)
}

/// Name of the file that says which tensor is in which of several.
pub(crate) fn index_name(base: &str) -> String {
    format!("{base}.index.json")
}

/// That file.
#[derive(Debug, Serialize)]
pub(crate) struct Index {
    metadata: IndexMetadata,
    /// File by tensor.
    weight_map: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct IndexMetadata {
    /// Bytes of all tensors.
    total_size: u64,
}

impl Index {
    /// Of tensors with these names, in the order in which they were cut.
    pub(crate) fn new(shards: &[Shard], names: &[&str]) -> Self {
        let of = |shard: &Shard| -> Vec<(String, String)> {
            names[shard.tensors.clone()].iter().map(|name| (name.to_string(), shard.name.clone())).collect()
        };
        Index {
            metadata: IndexMetadata { total_size: shards.iter().map(|shard| shard.bytes).sum() },
            weight_map: shards.iter().flat_map(of).collect(),
        }
    }
}

/// Names of the files that have a checkpoint's tensors of one kind, if there are all of them: only such as have a checksum,
/// whatever else lies in the folder.
pub(crate) fn names(files: &BTreeMap<String, FileRecord>, base: &str) -> Option<Vec<String>> {
    if files.contains_key(base) {
        return Some(vec![base.to_owned()]);
    }
    files.get(&index_name(base))?;
    let stem = format!("{}-", stem(base));
    // linc lists no others whose names are like these.
    let count = files.keys().filter(|name| name.starts_with(&stem)).count();
    let names = (1..=count).map(|index| name(base, index, count));
    names.map(|name| files.contains_key(&name).then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = "model.safetensors";

    fn ranges(sizes: &[u64], limit: u64) -> Vec<(String, Range<usize>, u64)> {
        cut(MODEL, sizes, limit).into_iter().map(|shard| (shard.name, shard.tensors, shard.bytes)).collect()
    }

    #[test]
    fn tensors_fill_files_in_their_order() {
        assert_eq!(ranges(&[4, 4, 2], 10), [(MODEL.to_owned(), 0..3, 10)]);
        let named = |index, count| format!("model-0000{index}-of-0000{count}.safetensors");
        let cut = ranges(&[4, 4, 30, 2, 8], 10);
        assert_eq!(cut, [(named(1, 3), 0..2, 8), (named(2, 3), 2..3, 30), (named(3, 3), 3..5, 10)]);
        assert!(ranges(&[], 10).is_empty());
    }

    #[test]
    fn all_files_of_a_kind_are_found_or_none() {
        let record = FileRecord { bytes: 1, crc32: 2 };
        let files = |names: &[&str]| -> BTreeMap<String, FileRecord> {
            names.iter().map(|name| (name.to_string(), record)).collect()
        };
        let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        let index = "model.safetensors.index.json";
        let count = |names: &[&str]| super::names(&files(names), MODEL).map(|found| found.len());
        assert_eq!(count(&[MODEL, "state.json"]), Some(1));
        assert_eq!(count(&[index, first, second, "optimizer.safetensors"]), Some(2));
        assert_eq!(count(&[index, first]), None);
        assert_eq!(count(&[first, second]), None, "without the index nobody finds them");
        assert_eq!(count(&["optimizer.safetensors"]), None);
    }
}
