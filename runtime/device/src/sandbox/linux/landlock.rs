//! Which files a process may use, by the structures of `linux/landlock.h`, which the C library has no functions for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `struct landlock_ruleset_attr`: what is denied unless a rule allows it.
#[repr(C)]
#[derive(Default)]
struct Handled {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;
/// Rights of files: to be run, to be read, and of folders to be listed.
const EXECUTE: u64 = 1;
const READ_FILE: u64 = 1 << 2;
const READ_FOLDER: u64 = 1 << 3;

/// The version that the system knows.
pub(super) fn version() -> io::Result<u32> {
    // SAFETY: with this flag the call reads no structure.
    let found =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Handled>(), 0, VERSION) };
    u32::try_from(found).map_err(|_| io::Error::last_os_error())
}

/// All rights that a version knows are denied, but to read `readable` and what is below, and to run `executable`.
pub(super) fn rules(readable: &[PathBuf], executable: &[PathBuf]) -> io::Result<File> {
    let version = version()?;
    // Moving between folders, truncating, and requests to devices came later.
    let rights = [13, 14, 15, 15, 16].get(version.max(1) as usize - 1).copied().unwrap_or(16);
    let handled = Handled {
        files: (1 << rights) - 1,
        // TCP, both ways; sockets are denied altogether by the filter of system calls.
        network: if version >= 4 { 0b11 } else { 0 },
        // Abstract Unix sockets, and signals.
        scoped: if version >= 6 { 0b11 } else { 0 },
    };
    // SAFETY: the structure lives for the call, which gives a new file descriptor or -1.
    let rules = unsafe {
        let size = size_of::<Handled>();
        let rules = libc::syscall(libc::SYS_landlock_create_ruleset, &handled, size, 0);
        match i32::try_from(rules) {
            Ok(rules) if rules >= 0 => File::from_raw_fd(rules),
            _ => return Err(io::Error::last_os_error()),
        }
    };
    readable.iter().try_for_each(|path| allow(&rules, path, READ_FILE | READ_FOLDER))?;
    executable.iter().try_for_each(|path| allow(&rules, path, READ_FILE | EXECUTE))?;
    Ok(rules)
}

fn allow(rules: &File, path: &Path, rights: u64) -> io::Result<()> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Only folders can be listed.
    let rights = if file.metadata()?.is_dir() { rights } else { rights & !READ_FOLDER };
    let rule = Beneath { allowed: rights, parent: file.as_raw_fd() };
    // SAFETY: the structure and the files live for the call.
    let done = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
