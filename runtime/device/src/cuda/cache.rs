//! Machine code on disk, so that a model that was run before starts at once.
//!
//! An entry is named by a hash of all that its code depends on and begins with a checksum: what is damaged is compiled
//! again and replaced, never run. Without a folder that can be written there is no cache, and nothing else changes.

use std::fs;
use std::path::PathBuf;

use hmac_sha256::Hash as Sha256;

use super::nvrtc::Cubin;
use super::resources::Resources;
use crate::folder::{cache_folder, touch_entry, trim_folder, write_entry};

/// First bytes of an entry; another format gets another number.
const MAGIC: &[u8; 12] = b"linc-cubin 2";
const CHECKSUM: usize = 32;
/// Bytes that entries may have together.
const MOST: u64 = 1 << 30;

/// A folder of entries.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The user's, see [`cache_folder`].
    pub fn of_environment() -> Cache {
        Cache { folder: cache_folder().map(|f| f.join("cubin")) }
    }

    /// A cache of a caller's choice, such as a test's.
    pub fn at(folder: PathBuf) -> Cache {
        Cache { folder: Some(folder) }
    }

    /// The entry of a source and of all else that its code depends on.
    pub(super) fn get(&self, source: &str, fingerprint: &str) -> Option<Cubin> {
        let path = self.path(source, fingerprint)?;
        let cubin = decode(&fs::read(&path).ok()?)?;
        touch_entry(&path);
        Some(cubin)
    }

    /// Writes an entry, in place of a damaged one if there is one. A disk that refuses is no error: the code is there.
    pub(super) fn put(&self, source: &str, fingerprint: &str, cubin: &Cubin) {
        if let Some(path) = self.path(source, fingerprint) {
            let _ = write_entry(&path, &[&encode(cubin)]);
        }
    }

    /// Removes the entries that were not used for longest, down to three quarters, once all together are too large.
    pub(super) fn trim(&self) {
        self.trim_to(MOST);
    }

    fn trim_to(&self, most: u64) {
        if let Some(folder) = &self.folder {
            trim_folder(folder, &["cubin"], most);
        }
    }

    fn path(&self, source: &str, fingerprint: &str) -> Option<PathBuf> {
        let mut hash = Sha256::new();
        // The length keeps the two texts apart.
        hash.update((fingerprint.len() as u64).to_le_bytes());
        hash.update(fingerprint);
        hash.update(source);
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.folder.as_ref()?.join(format!("{name}.cubin")))
    }
}

/// Magic, checksum of the rest, length of the code, seven numbers, code; all numbers little-endian.
fn encode(cubin: &Cubin) -> Vec<u8> {
    let Resources { registers, stack, spill_stores, spill_loads, static_shared, barriers, serialised } =
        cubin.resources;
    let mut rest = (cubin.bytes.len() as u64).to_le_bytes().to_vec();
    for number in
        [registers, stack, spill_stores, spill_loads, static_shared, barriers, u32::from(serialised)]
    {
        rest.extend(number.to_le_bytes());
    }
    rest.extend(&cubin.bytes);
    let checksum = Sha256::hash(&rest);
    [&MAGIC[..], checksum.as_slice(), &rest].concat()
}

/// The entry, if it is whole.
fn decode(bytes: &[u8]) -> Option<Cubin> {
    let (checksum, rest) = bytes.strip_prefix(MAGIC)?.split_at_checked(CHECKSUM)?;
    if Sha256::hash(rest) != *checksum {
        return None;
    }
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let mut rest = rest;
    let mut number = || -> Option<u32> {
        let (number, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        Some(u32::from_le_bytes(*number))
    };
    let resources = Resources {
        registers: number()?,
        stack: number()?,
        spill_stores: number()?,
        spill_loads: number()?,
        static_shared: number()?,
        barriers: number()?,
        serialised: number()? != 0,
    };
    (rest.len() as u64 == u64::from_le_bytes(*len)).then(|| Cubin { bytes: rest.to_vec(), resources })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn cubin(seed: u8) -> Cubin {
        let resources =
            Resources { registers: 40, stack: 8, barriers: 1, serialised: true, ..Resources::default() };
        Cubin { bytes: (0..1000).map(|i| (i % 251) as u8 ^ seed).collect(), resources }
    }

    #[test]
    fn what_was_put_is_found_under_the_same_key_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().join("new/below"));
        assert_eq!(cache.get("source", "sm_80"), None);
        cache.put("source", "sm_80", &cubin(1));
        assert_eq!(cache.get("source", "sm_80"), Some(cubin(1)));
        assert_eq!(cache.get("source", "sm_90a"), None);
        assert_eq!(cache.get("source ", "sm_80"), None);
        // The border between the two texts counts.
        assert_eq!(cache.get("0source", "sm_8"), None);
    }

    #[test]
    fn damage_is_noticed_and_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().to_path_buf());
        cache.put("source", "sm_80", &cubin(1));
        let path = cache.path("source", "sm_80").expect("a path");
        let good = fs::read(&path).expect("an entry");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert_eq!(decode(&bad), None, "byte {at}");
        }
        for len in [0, 5, 11, 12, 43, 44, 50, 60, good.len() - 1] {
            fs::write(&path, &good[..len]).expect("written");
            assert_eq!(cache.get("source", "sm_80"), None, "{len} bytes");
        }
        fs::write(&path, [&good[..], b"more"].concat()).expect("written");
        assert_eq!(cache.get("source", "sm_80"), None);
        cache.put("source", "sm_80", &cubin(1));
        assert_eq!(cache.get("source", "sm_80"), Some(cubin(1)));
    }

    #[test]
    fn writers_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().to_path_buf());
        std::thread::scope(|scope| {
            for seed in 0..8 {
                let cache = &cache;
                scope.spawn(move || {
                    for _ in 0..20 {
                        cache.put("source", "sm_80", &cubin(seed));
                        let found = cache.get("source", "sm_80").expect("a whole entry at all times");
                        assert!((0..8).any(|seed| found == cubin(seed)));
                    }
                });
            }
        });
        let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
        assert_eq!(names.len(), 1, "only the entry is left");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "in the way").expect("written");
        for cache in [Cache::at(file.join("below")), Cache { folder: None }] {
            cache.put("source", "sm_80", &cubin(1));
            assert_eq!(cache.get("source", "sm_80"), None);
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().to_path_buf());
        let sources: Vec<String> = (0..8).map(|i| format!("source {i}")).collect();
        for (i, source) in sources.iter().enumerate() {
            cache.put(source, "sm_80", &cubin(i as u8));
            let path = cache.path(source, "sm_80").expect("a path");
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 + i as u64);
            fs::File::open(path).expect("an entry").set_modified(time).expect("its owner");
        }
        let other = folder.path().join("other.txt");
        fs::write(&other, vec![0; 1 << 20]).expect("a file");
        let size = fs::metadata(cache.path("source 0", "sm_80").expect("a path")).expect("an entry").len();
        // The oldest is used again, and so the youngest.
        assert!(cache.get(&sources[0], "sm_80").is_some());
        cache.trim_to(8 * size);
        assert!(sources.iter().all(|s| cache.path(s, "sm_80").is_some_and(|p| p.exists())), "all fit");
        cache.trim_to(8 * size - 1);
        let left: Vec<usize> = (0..8).filter(|i| cache.get(&sources[*i], "sm_80").is_some()).collect();
        assert_eq!(left, [0, 4, 5, 6, 7], "three quarters of less than eight");
        assert!(other.exists(), "what is not ours stays");
        Cache { folder: None }.trim();
        Cache::at(folder.path().join("none")).trim();
    }
}
