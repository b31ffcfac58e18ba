//! Standard output through writes that may fail, where `println!` panics: the reader of a pipe may go away, a disk
//! may be full.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use console::Term;

use crate::wrap::wrapped;

/// The rank of this process, if there are others beside it that it is not the first of.
static RANK: OnceLock<usize> = OnceLock::new();

/// From now on each line begins with this rank; what comes in pieces does not.
pub(crate) fn label(rank: usize) {
    let _ = RANK.set(rank);
}

/// What [`label`] was given.
pub(crate) fn rank() -> Option<usize> {
    RANK.get().copied()
}

fn labelled(text: impl Display) -> String {
    let text = text.to_string();
    match rank() {
        None => text,
        Some(rank) => text.lines().map(|line| format!("[rank {rank}] {line}")).collect::<Vec<_>>().join("\n"),
    }
}

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
    writeln!(io::stdout().lock(), "{}", labelled(text))
}

/// As [`line`], of one that says itself which process it is of.
///
/// # Errors
/// As [`line`].
pub(crate) fn line_whole(text: String) -> io::Result<()> {
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
    complain_whole(labelled(text));
}

/// As [`complain`], of a line that says itself which process it is of.
pub(crate) fn complain_whole(text: String) {
    // In one piece: others may write to the same place.
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}
