//! `metrics.jsonl`: a record a line, appended.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use super::{Kind, Record};

/// Records of steps that a run did again from an earlier checkpoint, in the order in which they were first written.
pub(super) const SUPERSEDED: &str = "metrics-superseded.jsonl";

/// Appends records to `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsFile {
    /// Nothing where another process writes.
    file: Option<File>,
    measured: Measured,
}

/// Steps of the last measurements in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Of the last validation.
    pub validation: Option<usize>,
    /// Of the last questions beside it.
    pub evaluation: Option<usize>,
}

impl Measured {
    fn note(&mut self, record: &Record) {
        match record.kind() {
            Kind::Training => {}
            Kind::Validation => self.validation = Some(record.step),
            Kind::Evaluation => self.evaluation = Some(record.step),
        }
    }
}

impl MetricsFile {
    /// Opens the file of a run that goes on after `step`: later records, of a run that went further before, move to
    /// [`SUPERSEDED`] beside it. The old file is replaced only when the new one is written.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path, step: usize) -> io::Result<Self> {
        let kept = match File::open(path) {
            Ok(file) if step > 0 => keep_until(file, step)?,
            Ok(_) => Kept::default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        if !kept.superseded.is_empty() {
            set_aside(&path.with_file_name(SUPERSEDED), &kept.superseded)?;
        }
        let partial = path.with_extension("jsonl.partial");
        let mut file = File::create(&partial)?;
        let replaced = file.write_all(kept.text.as_bytes()).and_then(|()| fs::rename(&partial, path));
        if let Err(error) = replaced {
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        Ok(MetricsFile { file: Some(file), measured: kept.measured })
    }

    /// Of a run whose records another process writes, to a file with these measurements.
    pub fn nowhere(measured: Measured) -> Self {
        MetricsFile { file: None, measured }
    }

    /// The steps of the last measurements in the file.
    pub fn measured(&self) -> Measured {
        self.measured
    }

    /// Takes the questions after a step for answered, though there may be nothing to record.
    pub fn pass_over(&mut self, step: usize) {
        self.measured.evaluation = Some(step);
    }

    /// Appends a record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_string(record)?;
            line.push('\n');
            file.write_all(line.as_bytes())?;
        }
        self.measured.note(record);
        Ok(())
    }
}

/// Appends lines to a file, but for those that it has: a start that was killed between this and the new `metrics.jsonl` has
/// set them aside already. (No two records are alike, since they have times.)
fn set_aside(path: &Path, lines: &str) -> io::Result<()> {
    let before = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let there: HashSet<&str> = before.lines().collect();
    // What the kill left of a line is a line by itself, which readers pass over.
    let mut new = String::from(if before.is_empty() || before.ends_with('\n') { "" } else { "\n" });
    for line in lines.lines().filter(|line| !there.contains(line)) {
        new.push_str(line);
        new.push('\n');
    }
    OpenOptions::new().create(true).append(true).open(path)?.write_all(new.as_bytes())
}

/// The last step of which a file has a record; `None` without such a file.
///
/// # Errors
/// The file cannot be read.
pub fn last_step(path: &Path) -> io::Result<Option<usize>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut last = None;
    for line in BufReader::new(file).lines() {
        last = last.max(serde_json::from_str::<Record>(&line?).ok().map(|record| record.step));
    }
    Ok(last)
}

/// The steps of the last measurements of which a file has records; none without such a file.
///
/// # Errors
/// The file cannot be read.
pub fn last_measured(path: &Path) -> io::Result<Measured> {
    match File::open(path) {
        Ok(file) => Ok(keep_until(file, usize::MAX)?.measured),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Measured::default()),
        Err(error) => Err(error),
    }
}

/// Records of a run that goes on.
#[derive(Default)]
struct Kept {
    text: String,
    /// Lines of later steps.
    superseded: String,
    measured: Measured,
}

/// The lines of records up to a step; a line that does not parse, such as one cut off by a crash, is dropped.
fn keep_until(file: File, step: usize) -> io::Result<Kept> {
    let mut kept = Kept::default();
    for line in BufReader::new(file).lines() {
        let line = line?;
        let Ok(record) = serde_json::from_str::<Record>(&line) else { continue };
        let text = if record.step <= step { &mut kept.text } else { &mut kept.superseded };
        text.push_str(&line);
        text.push('\n');
        if record.step > step {
            continue;
        }
        kept.measured.note(&record);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_drops_later_records() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).expect("a file");
        for step in 1..=5 {
            file.write(&Record::new(step, 0)).expect("written");
        }
        drop(file);
        let mut file = MetricsFile::open(&path, 3).expect("a file");
        file.write(&Record::new(4, 7)).expect("written");
        let steps = |path: &Path| -> Vec<usize> {
            let text = fs::read_to_string(path).expect("text");
            text.lines().map(|l| serde_json::from_str::<Record>(l).expect("a record").step).collect()
        };
        assert_eq!(steps(&path), [1, 2, 3, 4]);
        drop(MetricsFile::open(&path, 3).expect("a file"));
        assert_eq!(steps(&path), [1, 2, 3]);
        assert_eq!(steps(&path.with_file_name(SUPERSEDED)), [4, 5, 4]);
    }
    #[test]
    fn a_start_that_was_killed_sets_nothing_aside_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).expect("a file");
        for step in 1..=5 {
            let record = Record { step_ms: Some(step as f64 + 0.25), ..Record::new(step, 0) };
            file.write(&record).expect("written");
        }
        drop(file);
        let aside = path.with_file_name(SUPERSEDED);
        let all = fs::read_to_string(&path).expect("text");
        let later = all.lines().skip(3).map(|line| format!("{line}\n")).collect::<String>();
        // Killed when all was set aside, when a half of it was, and then started from another step.
        for (left, step) in [(later.len(), 3), (later.len() / 2 + 5, 3), (later.len(), 2)] {
            fs::write(&path, &all).expect("written");
            fs::write(&aside, &later[..left]).expect("written");
            drop(MetricsFile::open(&path, step).expect("a file"));
            let text = fs::read_to_string(&aside).expect("text");
            for line in all.lines().skip(step) {
                assert_eq!(text.lines().filter(|other| *other == line).count(), 1, "{left}, {step}: {text}");
            }
        }
    }
}
