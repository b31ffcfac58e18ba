//! A folder is written by one run at a time: the run holds a lock of the operating system on a file in it, which is free
//! again when the process ends, in whatever way.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::JobConfig;

/// Name of the file that is locked.
const LOCK_FILE: &str = ".lock";
/// How often, at most, a holder is asked again who it is, or a lock on a file that is being deleted is tried again.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Who holds a folder.
#[derive(Debug)]
pub(super) struct Holder {
    /// Its process, if it says so.
    pub(super) pid: Option<u32>,
    /// What it trains, if that can be read.
    pub(super) config: Option<Box<JobConfig>>,
}

/// The run that is going on in a folder, if there is one.
pub(super) fn holder(folder: &Path) -> Option<Holder> {
    let mut file = File::open(folder.join(LOCK_FILE)).ok()?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Some(read(&mut file)),
        // Systems without locks cannot tell.
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// A run that has just got hold of a folder has not written yet who it is.
fn read(file: &mut File) -> Holder {
    for _ in 0..TRIES {
        let mut text = String::new();
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
        if let Some((pid, config)) = text.split_once('\n').filter(|(_, config)| config.ends_with("\n\n")) {
            let config = JobConfig::load(config, LOCK_FILE, &[]).ok().map(|loaded| Box::new(loaded.config));
            return Holder { pid: pid.parse().ok(), config };
        }
        std::thread::sleep(PAUSE);
    }
    Holder { pid: None, config: None }
}

/// A folder that this run alone writes into, until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    folder: PathBuf,
    /// None where the file system has no locks.
    file: Option<File>,
    /// Whether the folder is empty but for the lock, and goes with it.
    passing: bool,
}

impl Lock {
    /// Takes a folder, which is made if it does not exist; the one who holds it, if it is taken. `Err` is what the file
    /// system says.
    pub(super) fn take(folder: &Path, config: &JobConfig) -> io::Result<Result<Lock, Holder>> {
        let path = folder.join(LOCK_FILE);
        for _ in 0..TRIES {
            let passing = !folder.exists();
            fs::create_dir_all(folder)?;
            let mut file =
                match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path) {
                    // One that ends has just removed the folder that it had made.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    opened => opened?,
                };
            let mut lock = Lock { folder: folder.to_path_buf(), file: None, passing };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(Err(read(&mut file))),
                Err(TryLockError::Error(_)) => return Ok(Ok(lock)),
                Ok(()) => {}
            }
            // The one before may have deleted the file between its opening and its locking here.
            if !is_at(&file, &path) {
                std::thread::sleep(PAUSE);
                continue;
            }
            // The empty line at the end tells readers that it is whole.
            let text = format!("{}\n{}\n", std::process::id(), config.to_toml());
            let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
            lock.file = Some(file);
            return written.map(|()| Ok(lock));
        }
        Err(io::Error::other("it is deleted again and again"))
    }

    /// The folder stays when the run ends.
    pub(super) fn keep_folder(&mut self) {
        self.passing = false;
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Deleted while it is held: whoever opened it before sees that it is gone, and tries again.
        if self.file.is_some() {
            let _ = fs::remove_file(self.folder.join(LOCK_FILE));
        }
        if self.passing {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// Whether a file is still the one at its path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |m: fs::Metadata| (m.dev(), m.ino());
    file.metadata().ok().map(place) == fs::metadata(path).ok().map(place)
}

/// Elsewhere an open file cannot be deleted.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = folder.path().join("run");
        let mut config = JobConfig::default();
        config.training.steps = 7;
        let first = Lock::take(&run, &config).expect("a lock").expect("free");
        let other = Lock::take(&run, &config).expect("an answer").expect_err("taken");
        assert_eq!((other.pid, other.config), (Some(std::process::id()), Some(Box::new(config.clone()))));
        assert_eq!(holder(&run).and_then(|h| h.config).as_deref(), Some(&config));
        drop(first);
        assert!(!run.exists(), "a run that wrote nothing leaves nothing");
        assert!(holder(&run).is_none());

        let mut second = Lock::take(&run, &config).expect("a lock").expect("free");
        second.keep_folder();
        drop(second);
        assert_eq!(fs::read_dir(&run).expect("it stays").count(), 0);
        // What a killed run left is not in the way.
        fs::write(run.join(LOCK_FILE), "12345\n").expect("written");
        assert!(holder(&run).is_none());
        drop(Lock::take(&run, &config).expect("a lock").expect("free"));
        assert!(run.is_dir());
    }

    #[test]
    fn many_at_once_are_one_after_the_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (run, config) = (folder.path().join("run"), JobConfig::default());
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let Ok(Ok(lock)) = Lock::take(&run, &config) else { continue };
                        let before = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(before, 0, "two hold the folder");
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
