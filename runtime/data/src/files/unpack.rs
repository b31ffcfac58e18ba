//! The text of a file: unpacked, checked, without a byte order mark.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use linc_device::words::reason;

use super::unreadable;
use crate::error::DataError;
use crate::loading::Paced;

/// So many bytes are read, and checked, at once: less than a millisecond's work.
const BLOCK: usize = 1 << 20;
/// First bytes of what gzip packed; no UTF-8 text begins with them.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Byte order marks of UTF-16.
const UTF16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// Reads a file as UTF-8 text. Gzip is known by its first bytes, whatever the file is called.
///
/// # Errors
/// It cannot be read or unpacked, is no text, or reading was stopped.
pub(super) fn read_text(path: &Path, reading: &mut Paced<'_, '_>) -> Result<String, DataError> {
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let size = file.metadata().map_or(0, |about| usize::try_from(about.len()).unwrap_or(0));
    let mut file = BufReader::with_capacity(BLOCK, Followed { inner: file, reading });
    let start = file.fill_buf();
    let is_gzip = start.is_ok_and(|start| start.starts_with(&GZIP))
        || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let mut text = Text { path, text: String::new(), cut: Vec::new(), checked: 0 };
    // What the file system says may be wrong, and memory may be short of it.
    let _ = text.text.try_reserve_exact(size);
    let read = if is_gzip { unpack(&mut file, &mut text) } else { copy(&mut file, &mut text) };
    match read {
        Ok(()) => text.finish(),
        Err(Failure::Text(error)) => Err(error),
        Err(Failure::Read(error)) => {
            file.get_ref().reading.check()?;
            Err(match error.kind() {
                std::io::ErrorKind::InvalidInput
                | std::io::ErrorKind::InvalidData
                | std::io::ErrorKind::UnexpectedEof
                    if is_gzip =>
                {
                    DataError::Gzip { path: path.to_path_buf(), reason: reason(&error) }
                }
                _ => unreadable(path, &error),
            })
        }
    }
}

/// Why there is no text.
enum Failure {
    Read(std::io::Error),
    Text(DataError),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::Text(error)
    }
}

fn copy(from: &mut impl BufRead, into: &mut Text<'_>) -> Result<(), Failure> {
    loop {
        let block = from.fill_buf()?;
        if block.is_empty() {
            return Ok(());
        }
        into.push(block)?;
        let bytes = block.len();
        from.consume(bytes);
    }
}

/// Unpacks one packed file behind the other. Zeros behind the last fill up a block of a tape or a disk image.
fn unpack(from: &mut impl BufRead, into: &mut Text<'_>) -> Result<(), Failure> {
    loop {
        copy(&mut BufReader::with_capacity(BLOCK, flate2::bufread::GzDecoder::new(&mut *from)), into)?;
        loop {
            let rest = from.fill_buf()?;
            match rest.iter().position(|byte| *byte != 0) {
                Some(zeros) => {
                    from.consume(zeros);
                    break;
                }
                None if rest.is_empty() => return Ok(()),
                None => {
                    let zeros = rest.len();
                    from.consume(zeros);
                }
            }
        }
    }
}

/// Text that comes in blocks, each of which is checked as it comes: to check a large file as a whole would keep a request
/// to stop waiting for seconds.
struct Text<'a> {
    path: &'a Path,
    text: String,
    /// First bytes of a character whose others are in the next block.
    cut: Vec<u8>,
    /// Bytes that became text; those of `cut` follow.
    checked: usize,
}

impl Text<'_> {
    fn push(&mut self, mut block: &[u8]) -> Result<(), DataError> {
        let path = self.path.to_path_buf();
        if self.checked == 0 && UTF16.iter().any(|mark| block.starts_with(mark)) {
            return Err(DataError::Binary { path, offset: 0, byte: block[0] });
        }
        if block.contains(&0) {
            let before = block.iter().take_while(|byte| **byte != 0).count();
            let offset = self.checked + self.cut.len() + before;
            return Err(DataError::Binary { path, offset, byte: 0 });
        }
        if let Some(first) = self.cut.first() {
            let rest = (width(*first) - self.cut.len()).min(block.len());
            self.cut.extend_from_slice(&block[..rest]);
            block = &block[rest..];
            if self.cut.len() < width(self.cut[0]) {
                return Ok(());
            }
            let whole = std::mem::take(&mut self.cut);
            self.append(&whole)?;
        }
        let whole = block.len() - cut_off(block);
        self.append(&block[..whole])?;
        self.cut.extend_from_slice(&block[whole..]);
        Ok(())
    }

    /// Adds whole characters.
    fn append(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                let begins = self.checked == 0;
                self.text.push_str(text.strip_prefix('\u{feff}').filter(|_| begins).unwrap_or(text));
                self.checked += bytes.len();
                Ok(())
            }
            Err(error) => {
                let at = error.valid_up_to();
                let byte = bytes.get(at).copied().unwrap_or_default();
                let path = self.path.to_path_buf();
                Err(DataError::NotUtf8 { path, offset: self.checked + at, byte })
            }
        }
    }

    /// The text, which must not end within a character.
    fn finish(self) -> Result<String, DataError> {
        match self.cut.first() {
            Some(byte) => {
                Err(DataError::NotUtf8 { path: self.path.to_path_buf(), offset: self.checked, byte: *byte })
            }
            None => Ok(self.text),
        }
    }
}

/// Bytes of a character that begins with this one; 1 where none does, which is an error elsewhere.
fn width(first: u8) -> usize {
    match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    }
}

/// Bytes at the end of a block that are the beginning of a character.
fn cut_off(block: &[u8]) -> usize {
    (1..=3.min(block.len())).find(|back| width(block[block.len() - back]) > *back).unwrap_or(0)
}

/// A reader that tells how far it is, and fails once it is to stop. (Not as `Interrupted`, after which readers try again.)
struct Followed<'a, 'b, 'l, R> {
    inner: R,
    reading: &'a mut Paced<'b, 'l>,
}

impl<R: Read> Read for Followed<'_, '_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reading.check().map_err(std::io::Error::other)?;
        // Large files are asked for in one go.
        let most = buffer.len().min(8 << 20);
        self.inner.read(&mut buffer[..most]).inspect(|bytes| self.reading.advance(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of blocks of that size, or its error.
    fn text(bytes: &[u8], size: usize) -> Result<String, DataError> {
        let mut text = Text { path: Path::new("t.txt"), text: String::new(), cut: Vec::new(), checked: 0 };
        bytes.chunks(size).try_for_each(|block| text.push(block))?;
        text.finish()
    }

    #[test]
    fn blocks_may_end_within_characters() {
        let all = "\u{feff}a é \u{feff} 中 🦊\u{10ffff} ü";
        for size in 1..=all.len() {
            assert_eq!(text(all.as_bytes(), size).as_deref(), Ok(&all[3..]), "blocks of {size}");
        }
        assert_eq!(text(b"", 1).as_deref(), Ok(""));
        assert_eq!(text("\u{feff}".as_bytes(), 2).as_deref(), Ok(""));
    }

    #[test]
    fn what_is_no_text_is_found_where_it_is() {
        let good = "né 中🦊".as_bytes();
        // A byte that continues nothing, characters without their ends, and what encodes nothing.
        for bad in [
            &b"\x80"[..],
            b"\xc3",
            b"\xe4\xb8",
            b"\xf0\x9f\xa6",
            b"\xc3(",
            b"\xed\xa0\x80",
            b"\xff",
            b"\xc0\x80",
            b"\xf5\x80",
        ] {
            for rest in [&b""[..], b" and more text"] {
                let bytes = [good, bad, rest].concat();
                let whole = std::str::from_utf8(&bytes).expect_err("no text").valid_up_to();
                for size in 1..=bytes.len() {
                    let error = text(&bytes, size).expect_err("no text");
                    let DataError::NotUtf8 { offset, byte, .. } = error else { panic!("{error}") };
                    assert_eq!((offset, byte), (whole, bytes[whole]), "{bad:?} in blocks of {size}");
                }
            }
        }
        let nul = [good, b"\0"].concat();
        for size in 1..=nul.len() {
            let error = text(&nul, size).expect_err("binary");
            assert_eq!(error, DataError::Binary { path: "t.txt".into(), offset: good.len(), byte: 0 });
        }
        assert!(matches!(text(b"\xff\xfea\0", 4), Err(DataError::Binary { offset: 0, byte: 0xff, .. })));
    }
}
