//! Files that are made once and kept, under names that say all that they were made from. Several threads and processes
//! may want the same file at once: one makes it, beside its place, and renames it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// A folder of such files.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The folder `linc-emulator` beside that of the running program, which for a test is cargo's and goes with
    /// `cargo clean`; in the system's folder for temporary files where that cannot be written.
    pub(crate) fn open() -> Result<Cache, Error> {
        let beside =
            std::env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.into()));
        let mut reason = String::new();
        for place in [beside, Some(std::env::temp_dir())].into_iter().flatten() {
            let folder: PathBuf = place.join("linc-emulator");
            match fs::create_dir_all(&folder).and_then(|()| probe(&folder)) {
                Ok(()) => return Ok(Cache { folder }),
                Err(error) => reason = format!("{}: {error}", folder.display()),
            }
        }
        Err(Error::System(reason))
    }

    /// The file of that name, which `make` writes to the path that it is given if there is none yet.
    pub(crate) fn get(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let path = self.folder.join(name);
        if path.exists() {
            return Ok(path);
        }
        // The lock saves work only: the renaming is safe without it, so a file system without locks will do.
        let lock = File::create(self.folder.join(format!("{name}.lock")));
        let _held = lock.as_ref().map(File::lock);
        if !path.exists() {
            let beside = unique(&path);
            make(&beside)?;
            let renamed = fs::rename(&beside, &path);
            // Somebody else may have been there first; a folder cannot replace a folder.
            renamed.or_else(|error| if path.exists() { Ok(()) } else { Err(system(&path, &error)) })?;
        }
        Ok(path)
    }

    /// The file that [`Cache::keep_note`] was told of for this key, if it is still there.
    pub(crate) fn note(&self, key: &str) -> Option<PathBuf> {
        let name = fs::read_to_string(self.folder.join(format!("{key}.in"))).ok()?;
        Some(self.folder.join(name)).filter(|path| path.exists())
    }

    /// Remembers which of several files with a key's content to take.
    pub(crate) fn keep_note(&self, key: &str, path: &Path) -> Result<(), Error> {
        let (note, beside) = (self.folder.join(format!("{key}.in")), unique(&self.folder.join(key)));
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        fs::write(&beside, name).and_then(|()| fs::rename(&beside, &note)).map_err(|e| system(&note, &e))
    }
}

/// Whether files can be written there.
fn probe(folder: &Path) -> std::io::Result<()> {
    let file = unique(&folder.join("probe"));
    File::create(&file)?;
    fs::remove_file(&file)
}

/// A path in the same folder that no other thread or process uses.
fn unique(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let name = path.file_name().unwrap_or_default().display();
    path.with_file_name(format!("{process}-{count}-{name}"))
}

/// An error of the system with the file that it is about.
pub(crate) fn system(path: &Path, error: &std::io::Error) -> Error {
    Error::System(format!("{}: {error}", path.display()))
}

/// 16 digits that stand for the texts.
pub(crate) fn digest(texts: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
