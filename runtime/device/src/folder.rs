//! The user's folder of what is costly to find out again. Anybody may delete any of it at any time.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// `$LINC_CACHE_DIR`, else `$XDG_CACHE_HOME/linc`, else `~/.cache/linc`; nothing where there is no home.
pub fn cache_folder() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    path("LINC_CACHE_DIR")
        .or_else(|| Some(path("XDG_CACHE_HOME")?.join("linc")))
        .or_else(|| Some(path("HOME")?.join(".cache/linc")))
}

/// Writes an entry, given as slices that follow each other, beside its place and renames it when it is whole, so that
/// readers and other writers never see half.
///
/// # Errors
/// What the file system says; nothing is left behind.
pub fn write_entry(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    write_beside(path, parts, false)
}

/// [`write_entry`] of what must not be lost if the machine loses power: when this returns, it is on the disk.
///
/// # Errors
/// As [`write_entry`].
pub fn write_to_disk(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    write_beside(path, parts, true)?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

fn write_beside(path: &Path, parts: &[&[u8]], is_synced: bool) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // Of this writer alone, among all processes and threads.
    let beside = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::File::create(&beside))
        .and_then(|mut file| {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            if is_synced { file.sync_all() } else { Ok(()) }
        })
        .and_then(|()| fs::rename(&beside, path));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// Marks an entry as used just now, so that [`trim_folder`] removes it late. A disk that refuses keeps it a little shorter.
pub fn touch_entry(path: &Path) {
    let _ = fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

/// Removes the entries of a folder (and what writers left behind) that were not used for longest, down to three quarters
/// of `most` bytes, once all together have more. Files of other extensions stay and do not count.
pub fn trim_folder(folder: &Path, extensions: &[&str], most: u64) {
    let Ok(folder) = fs::read_dir(folder) else { return };
    let entry = |entry: fs::DirEntry| {
        let (path, about) = (entry.path(), entry.metadata().ok()?);
        let ours = path.extension().is_some_and(|e| e == "tmp" || extensions.iter().any(|ours| e == *ours));
        (ours && about.is_file()).then(|| Some((about.modified().ok()?, about.len(), path)))?
    };
    let mut entries: Vec<(SystemTime, u64, PathBuf)> = folder.flatten().filter_map(entry).collect();
    let mut bytes: u64 = entries.iter().map(|(_, len, _)| len).sum();
    if bytes <= most {
        return;
    }
    entries.sort();
    for (_, len, path) in entries {
        if bytes <= most / 4 * 3 {
            break;
        }
        // Another process may have been faster.
        if fs::remove_file(path).is_ok() {
            bytes -= len;
        }
    }
}
