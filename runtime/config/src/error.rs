//! What is wrong with a job config, said so that a person can mend it.

use std::fmt;
use std::ops::Range;

use linc_driver::{Diagnostic, Diagnostics, Source};

/// Everything found wrong with one job; the command line exits with [`ConfigError::EXIT_CODE`].
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    /// At least one problem, in the order of the file, then of the command line.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// Exit status of a process that was given a bad config.
    pub const EXIT_CODE: i32 = 2;

    /// One problem without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { problems: vec![Problem { message: message.into(), place: None, help: None }] }
    }

    /// Adds advice to the last problem.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(problem) = self.problems.last_mut() {
            problem.help = Some(help.into());
        }
        self
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What was found and what was expected.
    pub message: String,
    /// Where, if it has a place.
    pub place: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// In a TOML file, by line and column.
    File(FilePlace),
    /// An argument as typed, such as `--training.seq_len 0`.
    CommandLine(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(FilePlace { file, line, column, .. }) => write!(f, "{file}:{line}:{column}"),
            Place::CommandLine(flag) => write!(f, "`{flag}`"),
        }
    }
}

/// A stretch of one line of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FilePlace {
    /// The file as the user named it.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The whole line, without its end.
    pub text: String,
    /// Characters to underline, at least 1.
    pub width: usize,
}

impl FilePlace {
    /// The place of a byte range of `text`; a range over several lines is cut at the end of its first.
    pub fn locate(file: &str, text: &str, span: Range<usize>) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let mut end = span.end.clamp(start, line_end);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            file: file.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end_matches('\r').replace('\t', " "),
            width: text[start..end].chars().count().max(1),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => write!(f, "error: {}", self.message)?,
            Some(Place::CommandLine(flag)) => {
                write!(f, "error: command line: `{flag}`: {}", self.message)?;
            }
            Some(Place::File(place)) => return f.write_str(self.in_a_file(place).to_string().trim_end()),
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl Problem {
    /// As the compiler shows what is wrong with a model, so that all errors of files look alike.
    fn in_a_file(&self, place: &FilePlace) -> Diagnostics {
        let bytes = |columns: usize| place.text.chars().take(columns).map(char::len_utf8).sum::<usize>();
        // Only the line itself is known of the file.
        let before = place.line - 1;
        let span = before + bytes(place.column - 1)..before + bytes(place.column - 1 + place.width);
        let text = format!("{}{}", "\n".repeat(before), place.text);
        let error = Diagnostic::new(&place.file, span, self.message.as_str()).help(self.help.clone());
        Diagnostics::new(vec![error], vec![Source { path: place.file.clone(), text }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_in_characters() {
        let text = "a = 1\nnaïve\t= \"é\" # c\r\nlast";
        let start = text.find('=').and_then(|first| text[first + 1..].find('=').map(|at| first + 1 + at));
        let start = start.expect("two equal signs");
        let place = FilePlace::locate("f.toml", text, start..start + 1);
        assert_eq!((place.line, place.column, place.width), (2, 7, 1));
        assert_eq!(place.text, "naïve = \"é\" # c");
    }

    #[test]
    fn places_at_and_beyond_the_end_are_safe() {
        for (text, span) in [("", 0..0), ("a\n", 2..2), ("a", 5..9), ("é", 1..2), ("a\nb", 0..3)] {
            let place = FilePlace::locate("f", text, span);
            assert!(place.width >= 1 && place.column >= 1 && place.line >= 1);
        }
        assert_eq!(FilePlace::locate("f", "ab\ncd", 1..5).width, 1);
    }

    #[test]
    fn a_problem_shows_its_line() {
        let place = FilePlace::locate("f.toml", "[training]\nseqlen = 5\n", 11..17);
        let problem = Problem {
            message: "unknown key".to_owned(),
            place: Some(Place::File(place)),
            help: Some("did you mean `seq_len`?".to_owned()),
        };
        assert_eq!(
            problem.to_string(),
            "f.toml:2:1: error: unknown key\n  |\n2 | seqlen = 5\n  | ^^^^^^\n  = help: did you mean `seq_len`?"
        );
    }
}
