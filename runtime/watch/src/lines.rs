//! A file of lines that grows while it is read.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Reads on where it was.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    path: PathBuf,
    /// Bytes that were read.
    at: u64,
    /// Which file that was, on systems that number them.
    number: Option<u64>,
    /// A line that has no end yet.
    rest: Vec<u8>,
}

/// What a look at a file found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct New {
    /// It is not the file that it was: what was read of that one counts no more.
    pub(crate) anew: bool,
    /// Whole lines that were not read before.
    pub(crate) lines: Vec<String>,
}

impl Lines {
    pub(crate) fn new(path: PathBuf) -> Lines {
        Lines { path, ..Lines::default() }
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// What has come since the last look; nothing where there is no file yet.
    pub(crate) fn read(&mut self) -> io::Result<New> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(New::default()),
            Err(error) => return Err(error),
        };
        let about = file.metadata()?;
        let number = number(&about);
        let anew = about.len() < self.at || (self.at > 0 && number != self.number);
        if anew {
            (self.at, self.rest) = (0, vec![]);
        }
        self.number = number;
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = std::mem::take(&mut self.rest);
        let before = bytes.len() as u64;
        file.read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64 - before;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes.split_off(end);
        let lines = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
        Ok(New { anew, lines })
    }
}

#[cfg(unix)]
fn number(about: &fs::Metadata) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(about.ino())
}

#[cfg(not(unix))]
fn number(_: &fs::Metadata) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_grows_is_read_on_and_one_that_was_replaced_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let mut lines = Lines::new(path.clone());
        let new = |anew, lines: &[&str]| New { anew, lines: lines.iter().map(|l| (*l).to_owned()).collect() };
        assert_eq!(lines.read().expect("none yet"), new(false, &[]));
        let mut file = File::create(&path).expect("a file");
        file.write_all(b"one\ntw").expect("written");
        assert_eq!(lines.read().expect("read"), new(false, &["one"]));
        file.write_all("o\nthr\u{e9}e".as_bytes()).expect("written");
        assert_eq!(lines.read().expect("read"), new(false, &["two"]));
        assert_eq!(lines.read().expect("read"), new(false, &[]));
        // As a run does that goes on from an earlier step.
        let other = folder.path().join("b");
        fs::write(&other, "one\nother two\nthree\nfour\n").expect("written");
        fs::rename(&other, &path).expect("renamed");
        let all = ["one", "other two", "three", "four"];
        assert_eq!(
            lines.read().expect("read"),
            new(cfg!(unix), if cfg!(unix) { &all[..] } else { &all[2..] })
        );
        fs::write(&path, "x\n").expect("written");
        assert_eq!(lines.read().expect("read"), new(true, &["x"]));
    }
}
