//! Standard output through writes that may fail, where `println!` panics: the reader of a pipe may go away, a disk
//! may be full.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a text and a newline.
///
/// # Errors
/// What the system says; [`io::ErrorKind::BrokenPipe`] when nobody reads any more.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes a piece of a line at once.
///
/// # Errors
/// As [`line`].
pub(crate) fn piece(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to standard error. If that fails there is nobody left to tell.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
