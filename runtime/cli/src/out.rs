//! Standard output through writes that may fail, where `println!` panics: the reader of a pipe may go away, a disk
//! may be full.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use console::Term;

use crate::wrap::wrapped;

/// Columns of the terminal that standard output goes to, if it does.
pub(crate) fn width() -> Option<usize> {
    io::stdout().is_terminal().then(|| usize::from(Term::stdout().size().1))
}

/// As [`line`], in lines that fit the terminal.
///
/// # Errors
/// As [`line`].
pub(crate) fn prose(text: impl Display) -> io::Result<()> {
    line(wrapped(&text.to_string(), width()))
}

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
