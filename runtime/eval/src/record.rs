//! What is kept of each sample, a line of `samples_TASK.jsonl`, so that an evaluation that was ended goes on.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use linc_device::write_entry;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::EvalError;
use crate::numbers;
use crate::sample::{Metric, Sample};

/// So many bytes of what a sample is made of are kept; what is longer is made again from seed and files.
const LONGEST: usize = 16 << 10;

/// The measures of a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The sample's name in its task.
    pub id: String,
    /// Its part of the task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// What it is made of, if that is not long.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub doc: Value,
    /// What was answered.
    pub answer: Value,
    /// By name, `[sum, weight]`.
    #[serde(with = "numbers::parts")]
    pub metrics: BTreeMap<String, (f64, f64)>,
}

impl Record {
    pub(crate) fn new(sample: &Sample, metrics: Vec<Metric>, answer: Value) -> Self {
        let doc = if sample.doc.to_string().len() > LONGEST { Value::Null } else { sample.doc.clone() };
        let metrics = metrics.into_iter().map(|m| (m.name, (m.sum, m.weight))).collect();
        Record { id: sample.id.clone(), group: sample.group.clone(), doc, answer, metrics }
    }
}

/// The records of a task, as they come.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// By the samples' names.
    pub(crate) records: BTreeMap<String, Record>,
}

impl Log {
    /// Opens the records of a task, those of an evaluation that was ended before; what was written last may be a part of a
    /// line, which goes.
    ///
    /// # Errors
    /// [`EvalError::File`] if it cannot be read or written, or has a line that is no record.
    pub(crate) fn open(folder: &Path, task: &str) -> Result<Self, EvalError> {
        let path = folder.join(format!("samples_{task}.jsonl"));
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(EvalError::unwritable(&path))?;
        let (mut records, mut whole) = (BTreeMap::new(), 0);
        let mut reader = BufReader::new(&file);
        let mut line = vec![];
        for number in 1.. {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(EvalError::unreadable(&path))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            let record: Record = serde_json::from_slice(&line).map_err(|error| {
                let help =
                    "it is no record of this program: name another folder with --out, or move the file away";
                EvalError::line(&path, number, format!("is no record of a sample: {error}"), help)
            })?;
            records.insert(record.id.clone(), record);
            whole += read as u64;
        }
        file.set_len(whole).map_err(EvalError::unwritable(&path))?;
        file.seek(SeekFrom::End(0)).map_err(EvalError::unwritable(&path))?;
        Ok(Log { path, file, records })
    }

    /// Adds records, which are on their way to the disk then.
    ///
    /// # Errors
    /// [`EvalError::File`] if they cannot be written.
    pub(crate) fn add(&mut self, records: Vec<Record>) -> Result<(), EvalError> {
        let mut text = vec![];
        let failed = self.failed();
        for record in records {
            let line = serde_json::to_vec(&record).map_err(&failed)?;
            // As whoever goes on will read it, to the last bit of its numbers.
            let record: Record = serde_json::from_slice(&line).map_err(&failed)?;
            text.extend(line);
            text.push(b'\n');
            self.records.insert(record.id.clone(), record);
        }
        self.file.write_all(&text).map_err(EvalError::unwritable(&self.path))
    }

    /// A record that cannot be a line.
    fn failed(&self) -> impl Fn(serde_json::Error) -> EvalError + use<> {
        let path = self.path.clone();
        move |error| {
            let message = format!("cannot be written: {error}");
            EvalError::file(&path, message, "this is a bug of linc: please report it")
        }
    }

    /// Writes the records of these samples anew, in their order: of one that changed its first line is gone then.
    ///
    /// # Errors
    /// [`EvalError::File`] if they cannot be written.
    pub(crate) fn rewrite(&mut self, samples: &[Sample]) -> Result<(), EvalError> {
        let mut text = vec![];
        for record in samples.iter().filter_map(|sample| self.records.get(&sample.id)) {
            text.extend(serde_json::to_vec(record).map_err(self.failed())?);
            text.push(b'\n');
        }
        write_entry(&self.path, &[&text]).map_err(EvalError::unwritable(&self.path))?;
        let opened = OpenOptions::new().append(true).open(&self.path);
        self.file = opened.map_err(EvalError::unwritable(&self.path))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        let metrics = BTreeMap::from([("acc".to_owned(), (1.0, 1.0))]);
        Record { id: id.into(), group: String::new(), doc: Value::Null, answer: Value::Null, metrics }
    }

    #[test]
    fn a_line_that_was_not_written_to_its_end_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(folder.path(), "a").expect("new");
        log.add(vec![record("0"), record("1")]).expect("written");
        let path = folder.path().join("samples_a.jsonl");
        let whole = std::fs::read(&path).expect("there");
        std::fs::write(&path, &whole[..whole.len() - 5]).expect("cut");
        let mut log = Log::open(folder.path(), "a").expect("there");
        assert_eq!(log.records.keys().collect::<Vec<_>>(), ["0"]);
        log.add(vec![record("1")]).expect("written");
        assert_eq!(std::fs::read(&path).expect("there"), whole);
        std::fs::write(&path, [&whole[..], b"{}\n"].concat()).expect("damaged");
        let error = Log::open(folder.path(), "a").expect_err("no record").to_string();
        assert!(error.contains("samples_a.jsonl:3") && error.contains("help: "), "{error}");
    }
}
