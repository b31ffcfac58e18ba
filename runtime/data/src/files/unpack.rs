//! The text of a file: unpacked, checked, without a byte order mark, whole or block by block.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use linc_device::words::reason;

use super::unreadable;
use crate::error::DataError;
use crate::loading::Paced;

/// So many bytes are read, and checked, at once: less than a millisecond's work.
const BLOCK: usize = 1 << 20;
/// What packs files, with the ending of their names and their first bytes, with which no UTF-8 text begins.
const PACKINGS: [(Packing, &str, &[u8]); 2] =
    [(Packing::Gzip, "gz", &[0x1f, 0x8b]), (Packing::Zstd, "zst", &[0x28, 0xb5, 0x2f, 0xfd])];
/// Text archives are packed with windows of up to 2 GiB (`zstd --long=31`), above what the library takes unasked.
const WINDOW_LOG: u32 = 31;
/// Byte order marks of UTF-16.
const UTF16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// What packed a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
}

/// Reads a file as UTF-8 text. What packed it is known by its first bytes, whatever the file is called.
///
/// # Errors
/// It cannot be read or unpacked, is no text, or reading was stopped.
pub(crate) fn read_text(path: &Path, reading: &mut Paced<'_, '_>) -> Result<String, DataError> {
    let size = std::fs::metadata(path).map_or(0, |about| usize::try_from(about.len()).unwrap_or(0));
    let mut text = String::new();
    // What the file system says may be wrong, and memory may be short of it.
    let _ = text.try_reserve_exact(size);
    read(path, reading, Text { path, text, cut: Vec::new(), checked: 0, each: &mut |_| Ok(()) })
}

/// [`read_text`] of which `each` may take away what it is done with, from the start, whenever a block has come; what is
/// left at the end. So a file of any size is read in little memory.
///
/// # Errors
/// As [`read_text`], and those of `each`.
pub(super) fn read_blocks(
    path: &Path,
    reading: &mut Paced<'_, '_>,
    each: &mut dyn FnMut(&mut String) -> Result<(), DataError>,
) -> Result<String, DataError> {
    read(path, reading, Text { path, text: String::new(), cut: Vec::new(), checked: 0, each })
}

fn read(path: &Path, reading: &mut Paced<'_, '_>, mut text: Text<'_>) -> Result<String, DataError> {
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut file = BufReader::with_capacity(BLOCK, Followed { inner: file, reading });
    let start = file.fill_buf().unwrap_or_default();
    let by_content = PACKINGS.iter().find(|(_, _, magic)| start.starts_with(magic));
    let is_called = |ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    let by_name = || PACKINGS.iter().find(|(_, ending, _)| is_called(ending));
    let packing = by_content.or_else(by_name).map(|(packing, _, _)| *packing);
    let unpacked = match packing {
        Some(Packing::Gzip) => unpack_gzip(&mut file, &mut text),
        Some(Packing::Zstd) => unpack_zstd(&mut file, &mut text),
        None => copy(&mut file, &mut text),
    };
    match unpacked {
        Ok(()) => text.finish(),
        Err(Failure::Text(error)) => Err(error),
        Err(Failure::Read(error)) => {
            file.get_ref().reading.check()?;
            // The system's own errors have its numbers.
            let what = packing.filter(|_| error.raw_os_error().is_none()).map(|packing| match packing {
                Packing::Gzip => "gzip file",
                Packing::Zstd => "zstd file",
            });
            let damaged =
                |what| DataError::Damaged { path: path.to_path_buf(), what, reason: reason(&error) };
            Err(what.map_or_else(|| unreadable(path, &error), damaged))
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
        (into.each)(&mut into.text)?;
        let bytes = block.len();
        from.consume(bytes);
    }
}

/// Unpacks one packed file behind the other. Zeros behind the last fill up a block of a tape or a disk image.
fn unpack_gzip(from: &mut impl BufRead, into: &mut Text<'_>) -> Result<(), Failure> {
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

/// Unpacks one frame behind the other.
fn unpack_zstd(from: &mut impl BufRead, into: &mut Text<'_>) -> Result<(), Failure> {
    // To the library a file without a single frame is whole.
    if from.fill_buf()?.is_empty() {
        return Err(Failure::Read(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?;
    decoder.window_log_max(WINDOW_LOG)?;
    copy(&mut BufReader::with_capacity(BLOCK, decoder), into)
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
    /// Takes what it is done with.
    each: &'a mut dyn FnMut(&mut String) -> Result<(), DataError>,
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
        let (path, each) = (Path::new("t.txt"), &mut |_: &mut String| Ok(()));
        let mut text = Text { path, text: String::new(), cut: Vec::new(), checked: 0, each };
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
