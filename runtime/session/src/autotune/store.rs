//! Winners on disk: a small text file for each kernel, shape and device.
//!
//! ```text
//! linc tiles 1
//! key cpu, avx512, 2 threads; cpu; softmax_attention_dq_f32_b8_n256_h4_g2_d32_causal; linc 0.1.0; kernels 8d1f52c3
//! tile 128x64
//! seconds 0.00123
//! default_seconds 0.00145
//! crc32 5b7e01aa
//! ```
//!
//! The key has all that a time depends on: the device in words, which on a GPU names its driver and NVRTC, what
//! programs are compiled for, linc's version, and the checksum of the candidates' programs. An entry with another key, or one that is damaged, is none.

use std::fs;
use std::path::PathBuf;

use linc_device::{cache_folder, write_entry};
use linc_driver::tiles::{Site, Tile};
use linc_plan::Plan;

const HEADER: &str = "linc tiles 1";

/// The outcome of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// The size to take.
    pub tile: Tile,
    /// Seconds of a run with it.
    pub seconds: f64,
    /// Seconds of a run with linc's own choice.
    pub default_seconds: f64,
}

/// A folder of entries, or none.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Option<PathBuf>,
}

impl Store {
    /// The user's, see [`cache_folder`].
    pub fn of_environment() -> Store {
        Store { folder: cache_folder().map(|f| f.join("tiles")) }
    }

    /// A store of a caller's choice, such as a test's.
    pub fn at(folder: PathBuf) -> Store {
        Store { folder: Some(folder) }
    }

    /// A whole entry of that key with one of these sizes.
    pub(super) fn get(&self, site: &Site, key: &str, candidates: &[Tile]) -> Option<Entry> {
        let text = fs::read_to_string(self.path(site, key)?).ok()?;
        decode(&text, key).filter(|entry| candidates.contains(&entry.tile))
    }

    /// Writes an entry. A disk that refuses is no error: it is measured again next time.
    pub(super) fn put(&self, site: &Site, key: &str, entry: &Entry) {
        if let Some(path) = self.path(site, key) {
            let _ = write_entry(&path, &[encode(key, entry).as_bytes()]);
        }
    }

    fn path(&self, site: &Site, key: &str) -> Option<PathBuf> {
        let hash = crc32fast::hash(key.as_bytes());
        Some(self.folder.as_ref()?.join(format!("{site}-{hash:08x}.txt")))
    }
}

/// All that the times of a site's candidates depend on, in one line.
pub(super) fn key<'a>(machine: &str, site: &Site, plans: impl Iterator<Item = &'a Plan>) -> String {
    let mut hash = crc32fast::Hasher::new();
    for kernel in plans.flat_map(|plan| &plan.kernels) {
        hash.update(kernel.text.as_bytes());
    }
    let machine = machine.replace(['\n', '\r'], " ");
    format!("{machine}; {site}; linc {}; kernels {:08x}", env!("CARGO_PKG_VERSION"), hash.finalize())
}

fn encode(key: &str, entry: &Entry) -> String {
    let Entry { tile, seconds, default_seconds } = entry;
    let text =
        format!("{HEADER}\nkey {key}\ntile {tile}\nseconds {seconds}\ndefault_seconds {default_seconds}\n");
    format!("{text}crc32 {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// The entry, if it is whole and of that key.
fn decode(text: &str, key: &str) -> Option<Entry> {
    let end = text.strip_suffix('\n')?.rfind('\n')? + 1;
    let (text, checksum) = text.split_at(end);
    if checksum != format!("crc32 {:08x}\n", crc32fast::hash(text.as_bytes())) {
        return None;
    }
    let mut lines = text.lines();
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_string);
    let known = field("linc")? == HEADER["linc ".len()..] && field("key")? == key;
    let entry = Entry {
        tile: field("tile")?.parse().ok()?,
        seconds: field("seconds")?.parse().ok()?,
        default_seconds: field("default_seconds")?.parse().ok()?,
    };
    known.then_some(entry)
}

#[cfg(test)]
mod tests {
    use linc_driver::tiles::{DType, TunableKernel};

    use super::*;

    const ENTRY: Entry =
        Entry { tile: Tile { queries: 128, keys: 32 }, seconds: 0.0012345, default_seconds: 0.002 };

    fn site(seq: usize) -> Site {
        let kernel = TunableKernel::Forward;
        Site { kernel, dtype: DType::F32, batch: 1, seq, heads: 4, kv_heads: 2, head_dim: 16, causal: true }
    }

    #[test]
    fn what_was_put_is_found_under_the_same_key_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path().join("new/below"));
        let tiles = [ENTRY.tile];
        assert_eq!(store.get(&site(64), "key", &tiles), None);
        store.put(&site(64), "key", &ENTRY);
        assert_eq!(store.get(&site(64), "key", &tiles), Some(ENTRY));
        assert_eq!(store.get(&site(64), "another key", &tiles), None);
        assert_eq!(store.get(&site(128), "key", &tiles), None);
        assert_eq!(store.get(&site(64), "key", &[]), None, "a size that is no candidate any more");
        // A file that somebody copied from another device.
        fs::copy(store.path(&site(64), "key").expect("a path"), store.path(&site(64), "k").expect("a path"))
            .expect("copied");
        assert_eq!(store.get(&site(64), "k", &tiles), None);
    }

    #[test]
    fn damage_is_noticed_and_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path().to_path_buf());
        let path = store.path(&site(64), "key").expect("a path");
        let good = encode("key", &ENTRY);
        assert_eq!(decode(&good, "key"), Some(ENTRY));
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("written");
            assert_eq!(store.get(&site(64), "key", &[ENTRY.tile]), None, "byte {at}");
            fs::write(&path, &good[..at]).expect("written");
            assert_eq!(store.get(&site(64), "key", &[ENTRY.tile]), None, "{at} bytes");
        }
        fs::write(&path, format!("{good}more\n")).expect("written");
        assert_eq!(store.get(&site(64), "key", &[ENTRY.tile]), None);
        store.put(&site(64), "key", &ENTRY);
        assert_eq!(store.get(&site(64), "key", &[ENTRY.tile]), Some(ENTRY));
    }

    #[test]
    fn keys_tell_devices_and_programs_apart() {
        let plan = |keys| {
            let tile = Tile { queries: 64, keys };
            linc_driver::trial(&site(64), tile, linc_driver::Target::Cpu).expect("a plan").plan
        };
        let (a, b) = (plan(64), plan(32));
        let keys = [
            key("cpu", &site(64), [&a].into_iter()),
            key("gpu", &site(64), [&a].into_iter()),
            key("cpu", &site(64), [&b].into_iter()),
            key("cpu", &site(128), [&a].into_iter()),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|other| other != one));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_store() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "in the way").expect("written");
        for store in [Store::at(file.join("below")), Store { folder: None }] {
            store.put(&site(64), "key", &ENTRY);
            assert_eq!(store.get(&site(64), "key", &[ENTRY.tile]), None);
        }
    }
}
