//! Errors that point at the text they are about, rendered as plain text.
//!
//! The first line is `path:line:col: error: message`, so that editors can jump to it; excerpts follow.

use std::fmt;
use std::ops::Range;

/// A text with the path a person knows it by. The path is only shown, never opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Path as shown in errors.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// A place in a text with a remark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Path of the text.
    pub path: String,
    /// Bytes of the text.
    pub span: Range<usize>,
    /// The remark; may be empty.
    pub text: String,
}

/// One error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// Where it is; `None` for what came from outside any text (a value set on the command line).
    pub place: Option<Label>,
    /// What was found and what was expected.
    pub message: String,
    /// Other places that matter.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn new(path: &str, span: impl Into<Range<usize>>, message: impl Into<String>) -> Self {
        let place = Label { path: path.into(), span: span.into(), text: String::new() };
        Diagnostic { place: Some(place), message: message.into(), labels: Vec::new(), help: None }
    }

    /// An error that no text shows.
    pub fn nowhere(message: impl Into<String>) -> Self {
        Diagnostic { place: None, message: message.into(), labels: Vec::new(), help: None }
    }

    /// Sets the remark at the error's own place.
    #[must_use]
    pub fn remark(mut self, text: impl Into<String>) -> Self {
        if let Some(place) = &mut self.place {
            place.text = text.into();
        }
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn label(mut self, path: &str, span: impl Into<Range<usize>>, text: impl Into<String>) -> Self {
        self.labels.push(Label { path: path.into(), span: span.into(), text: text.into() });
        self
    }

    /// Sets the remedy, if there is one.
    #[must_use]
    pub fn help(mut self, text: impl Into<Option<String>>) -> Self {
        if let Some(text) = text.into() {
            self.help = Some(text);
        }
        self
    }
}

/// `1 argument`, `2 arguments`, of a word whose plural has an s.
pub(crate) fn count(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// One or more errors with the texts they point into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostics {
    /// The errors, never empty.
    pub errors: Vec<Diagnostic>,
    sources: Vec<Source>,
    note: Option<String>,
}

impl Diagnostics {
    /// Errors with the texts whose paths they name.
    pub fn new(errors: Vec<Diagnostic>, sources: Vec<Source>) -> Self {
        Diagnostics { errors, sources, note: None }
    }

    /// The same errors with a remark about all of them.
    #[must_use]
    pub fn noting(self, note: String) -> Self {
        Diagnostics { note: Some(note), ..self }
    }

    /// The same errors, each with what is to be added to it about another text.
    pub(crate) fn in_addition(self, source: &Source, add: impl Fn(Diagnostic) -> Diagnostic) -> Self {
        let mut sources = self.sources;
        sources.push(source.clone());
        Diagnostics { errors: self.errors.into_iter().map(add).collect(), sources, note: self.note }
    }

    fn text(&self, path: &str) -> &str {
        self.sources.iter().find(|s| s.path == path).map_or("", |s| s.text.as_str())
    }

    fn excerpts(&self, f: &mut fmt::Formatter<'_>, error: &Diagnostic) -> fmt::Result {
        let mut marks: Vec<Mark<'_>> = Vec::new();
        for (i, label) in error.place.iter().chain(&error.labels).enumerate() {
            let mark = Mark::new(self.text(&label.path), label, i == 0 && error.place.is_some());
            marks.push(mark);
        }
        let gutter = marks.iter().map(|m| m.line.to_string().len()).max().unwrap_or(1);
        // The error's own file first, then the others; top to bottom within a file.
        let mut paths: Vec<&str> = Vec::new();
        for mark in &marks {
            if !paths.contains(&mark.label.path.as_str()) {
                paths.push(&mark.label.path);
            }
        }
        for (i, path) in paths.iter().enumerate() {
            let mut here: Vec<&Mark<'_>> = marks.iter().filter(|m| m.label.path == *path).collect();
            here.sort_by_key(|m| (m.line, !m.primary, m.column));
            if i > 0 {
                writeln!(f, "{:gutter$}--> {path}:{}:{}", "", here[0].line, here[0].column)?;
            }
            writeln!(f, "{:gutter$} |", "")?;
            let mut last = 0;
            for mark in here {
                if mark.line != last {
                    if last != 0 && mark.line > last + 1 {
                        writeln!(f, "{:gutter$} |", "")?;
                    }
                    let gap = if mark.excerpt.is_empty() { "" } else { " " };
                    writeln!(f, "{:>gutter$} |{gap}{}", mark.line, mark.excerpt)?;
                    last = mark.line;
                }
                let underline = if mark.primary { "^" } else { "-" }.repeat(mark.width);
                let text = &mark.label.text;
                let gap = if text.is_empty() { "" } else { " " };
                writeln!(f, "{:gutter$} | {:indent$}{underline}{gap}{text}", "", "", indent = mark.indent)?;
            }
        }
        if let Some(help) = &error.help {
            writeln!(f, "{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// Errors after this many are counted, not shown.
const SHOWN: usize = 20;

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().take(SHOWN).enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            if let Some(place) = &error.place {
                let (line, column) = position(self.text(&place.path), place.span.start);
                write!(f, "{}:{line}:{column}: ", place.path)?;
            }
            writeln!(f, "error: {}", error.message)?;
            self.excerpts(f, error)?;
        }
        if self.errors.len() > SHOWN {
            writeln!(f, "\nand {}", count(self.errors.len() - SHOWN, "more error"))?;
        }
        if let Some(note) = &self.note {
            writeln!(f, "  = note: {note}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Line and column, from 1, of a byte; columns count characters.
pub(crate) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..floor(text, byte)];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The largest character boundary at or before `byte`.
fn floor(text: &str, byte: usize) -> usize {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}

/// Characters of a source line that are shown at most.
const LINE_WIDTH: usize = 140;

/// A label placed on its line.
struct Mark<'a> {
    label: &'a Label,
    primary: bool,
    line: usize,
    column: usize,
    excerpt: String,
    indent: usize,
    width: usize,
}

impl<'a> Mark<'a> {
    fn new(text: &str, label: &'a Label, primary: bool) -> Self {
        let start = floor(text, label.span.start);
        let end = floor(text, label.span.end).max(start);
        let (line, column) = position(text, start);
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        // A long line is cut to a window that starts a little before the marked text.
        let skip = column.saturating_sub(LINE_WIDTH / 2);
        let shown = text[line_start..line_end].trim_end().chars().skip(skip).take(LINE_WIDTH);
        let excerpt: String = shown.map(printable).collect();
        let indent = column - 1 - skip;
        // A span over several lines is underlined to the end of its first one.
        let marked = text[start..end.min(line_end)].trim_end().chars().count();
        let width = marked.min(LINE_WIDTH.saturating_sub(indent)).max(1);
        Mark { label, primary, line, column, excerpt, indent, width }
    }
}

/// One column for every character: tabs become spaces, other control characters a replacement mark.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}
