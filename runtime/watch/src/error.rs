//! Why runs cannot be watched.

use std::io;
use std::path::PathBuf;

use linc_config::help_for_missing;
use linc_device::words::{help_to_read, reason};
use thiserror::Error;

/// Why runs cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// There is nothing of that name.
    #[error(
        "{}: there is no such folder{}",
        folder.display(),
        help_for_missing(folder).map_or_else(String::new, |help| format!("\n  help: {help}"))
    )]
    Missing {
        /// As it was named.
        folder: PathBuf,
    },
    /// It is no folder of a run, and none is in it.
    #[error("{}: {is}\n  help: name the folder of a run, which has a metrics.jsonl, or one with such folders in it", folder.display())]
    NoRun {
        /// As it was named.
        folder: PathBuf,
        /// Why it holds no run, in words.
        is: &'static str,
    },
    /// The system does not let a file be read.
    #[error("{}: it cannot be read: {}\n  help: {}", path.display(), reason(error), help_to_read(error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The terminal cannot be drawn on.
    #[error("cannot draw on this terminal: {}\n  help: --once prints the same as text", reason(.0))]
    Terminal(#[from] io::Error),
}
