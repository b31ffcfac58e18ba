//! A folder is written by one run at a time: the run holds a lock of the operating system on a file in it, which is free
//! again when the process ends, in whatever way.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::JobConfig;

/// Name of the file that is locked.
const LOCK_FILE: &str = ".lock";
/// How often, at most, a holder is asked again who it is, or a lock that another has is tried again: for about a second.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Who holds a folder.
#[derive(Debug)]
pub(super) struct Holder {
    /// Its process, if it says so.
    pub(super) pid: Option<u32>,
    /// What it trains, if that can be read.
    pub(super) config: Option<Box<JobConfig>>,
}

/// The run that is going on in a folder, if there is one. Asking is a shared lock, so that those who ask at once are not
/// taken for a run by each other.
pub(super) fn holder(folder: &Path) -> Option<Holder> {
    let path = folder.join(LOCK_FILE);
    for _ in 0..TRIES {
        let mut file = File::open(&path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            // Systems without locks cannot tell.
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        // A file that is deleted by now says who was here before.
        if let Some(holder) = read(&mut file).filter(|_| is_at(&file, &path)) {
            return Some(holder);
        }
        std::thread::sleep(PAUSE);
    }
    Some(Holder { pid: None, config: None })
}

/// Who a file says holds it; nothing of a run that has just got hold of it and has not written yet who it is.
fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let (pid, config) = text.split_once('\n').filter(|(_, config)| config.ends_with("\n\n"))?;
    let config = JobConfig::load(config, LOCK_FILE, &[]).ok().map(|loaded| Box::new(loaded.config));
    Some(Holder { pid: pid.parse().ok(), config })
}

/// A folder that this run alone writes into, until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    folder: PathBuf,
    /// Locked as long as it is open; none where the file system has no locks.
    #[allow(dead_code, reason = "it is held, not read")]
    file: Option<File>,
    /// Whether the folder is empty but for the lock, and goes with it.
    passing: bool,
}

impl Lock {
    /// Takes a folder, which is made if it does not exist; the one who holds it, if it is taken. `Err` is what the file
    /// system says.
    pub(super) fn take(folder: &Path, config: &JobConfig) -> io::Result<Result<Lock, Holder>> {
        Self::take_by(File::try_lock, folder, config)
    }

    /// [`Lock::take`] by what locks a file for one alone.
    fn take_by(
        try_lock: fn(&File) -> Result<(), TryLockError>,
        folder: &Path,
        config: &JobConfig,
    ) -> io::Result<Result<Lock, Holder>> {
        let path = folder.join(LOCK_FILE);
        let mut passing = false;
        let mut taken = None;
        for _ in 0..TRIES {
            passing |= !folder.exists();
            fs::create_dir_all(folder)?;
            let mut file =
                match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path) {
                    // One that ends has just removed the folder that it had made.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    opened => opened?,
                };
            let locks = match try_lock(&file) {
                // Who only asks whether the folder is taken is gone in no time; what the file says may be of a run that
                // was killed.
                Err(TryLockError::WouldBlock) => {
                    taken = Some(read(&mut file).unwrap_or(Holder { pid: None, config: None }));
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(TryLockError::Error(_)) => false,
                Ok(()) => true,
            };
            // The one before may have deleted the file between its opening and its locking here.
            if locks && !is_at(&file, &path) {
                std::thread::sleep(PAUSE);
                continue;
            }
            let mut lock = Lock { folder: folder.to_path_buf(), file: None, passing };
            if !locks {
                return Ok(Ok(lock));
            }
            // The empty line at the end tells readers that it is whole.
            let text = format!("{}\n{}\n", std::process::id(), config.to_toml());
            let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
            lock.file = Some(file);
            return written.map(|()| Ok(lock));
        }
        taken.map(Err).ok_or_else(|| io::Error::other("it is deleted again and again"))
    }

    /// The folder stays when the run ends.
    pub(super) fn keep_folder(&mut self) {
        self.passing = false;
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Deleted while it is held: whoever opened it before sees that it is gone, and tries again.
        let _ = fs::remove_file(self.folder.join(LOCK_FILE));
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
    fn nothing_is_left_where_files_have_no_locks() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = folder.path().join("run");
        let none = |_: &File| Err(TryLockError::Error(io::ErrorKind::Unsupported.into()));
        let mut lock = Lock::take_by(none, &run, &JobConfig::default()).expect("a lock").expect("free");
        assert!(run.join(LOCK_FILE).exists());
        lock.keep_folder();
        drop(lock);
        assert_eq!(fs::read_dir(&run).expect("it stays").count(), 0);
    }

    #[test]
    fn many_at_once_are_one_after_the_other_and_who_asks_is_in_nobodys_way() {
        use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
        let folder = tempfile::tempdir().expect("a folder");
        let (run, config) = (folder.path().join("run"), JobConfig::default());
        fs::create_dir(&run).expect("a folder");
        // Of a run that was killed: whoever asks has a file to lock.
        fs::write(run.join(LOCK_FILE), "12345\n").expect("written");
        let (inside, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !ended.load(SeqCst) {
                        if let Some(holder) = holder(&run) {
                            assert_eq!(
                                holder.pid,
                                Some(std::process::id()),
                                "nobody holds it and says not who"
                            );
                        }
                        std::thread::yield_now();
                    }
                });
            }
            let runs: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..25 {
                            let taken = Lock::take(&run, &config).expect("an answer");
                            let lock = taken.expect("each holds it for a moment only");
                            let before = inside.fetch_add(1, SeqCst);
                            assert_eq!(before, 0, "two hold the folder");
                            inside.fetch_sub(1, SeqCst);
                            drop(lock);
                        }
                    })
                })
                .collect();
            let ends: Vec<bool> = runs.into_iter().map(|run| run.join().is_ok()).collect();
            ended.store(true, SeqCst);
            assert_eq!(ends, [true; 4]);
        });
    }
}
