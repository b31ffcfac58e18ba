//! A cage for programs that nobody has read: what a child process may read, and that it may do little else.
//!
//! Invariants: what a caged process may ask of the system is a list, and everything else fails (seccomp): no sockets, no other
//! processes or threads, no signals, nobody else's limits; it opens files to be read only, and only those that are named
//! (Landlock), though it can ask of any path whether something is there; time, memory and open files are limited, and it
//! cannot raise that, root included; it dies with the thread that started it. Where the system cannot do all of that nothing
//! is started.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod none;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use linux as system;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
use none as system;

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// What a caged process may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cage {
    /// Files, and folders with all that is below them, that it may read. Of those that do not exist there is nothing to read.
    pub readable: Vec<PathBuf>,
    /// Files that may be run as programs, in place of itself: the program, and the loader of its libraries.
    pub executable: Vec<PathBuf>,
    /// Seconds of a processor, at most.
    pub cpu_seconds: u64,
    /// Bytes of addresses, at most.
    pub memory: u64,
}

impl Cage {
    /// Whether this machine can hold a process in a cage.
    ///
    /// # Errors
    /// What it lacks, for people.
    pub fn check() -> Result<(), String> {
        system::check()
    }

    /// Has a command run in this cage. Its streams are what the command gives it; other files that this process has open it does
    /// not have.
    ///
    /// # Errors
    /// The system cannot do it. Where it fails in the child, starting the command fails.
    pub fn hold(&self, command: &mut Command) -> io::Result<()> {
        system::hold(self, command)
    }
}
