//! The text of a file: unpacked, checked, without a byte order mark.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::unreadable;
use crate::error::DataError;
use crate::loading::Paced;

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
    let mut file = BufReader::with_capacity(1 << 20, Followed { inner: file, reading });
    let start = file.fill_buf();
    let is_gzip = start.is_ok_and(|start| start.starts_with(&GZIP))
        || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let mut bytes = Vec::new();
    let read = if is_gzip { unpack(&mut file, &mut bytes) } else { file.read_to_end(&mut bytes).map(|_| ()) };
    if let Err(error) = read {
        file.get_ref().reading.check()?;
        return Err(match error.kind() {
            std::io::ErrorKind::InvalidInput
            | std::io::ErrorKind::InvalidData
            | std::io::ErrorKind::UnexpectedEof
                if is_gzip =>
            {
                DataError::Gzip { path: path.to_path_buf(), reason: error.to_string() }
            }
            _ => unreadable(path, &error),
        });
    }
    text(path, bytes)
}

/// Unpacks one packed file behind the other. Zeros behind the last fill up a block of a tape or a disk image.
fn unpack(from: &mut impl BufRead, into: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        flate2::bufread::GzDecoder::new(&mut *from).read_to_end(into)?;
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

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, DataError> {
    if UTF16.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(DataError::Binary { path: path.to_path_buf(), offset: 0, byte: bytes[0] });
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(DataError::Binary { path: path.to_path_buf(), offset, byte: 0 });
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(offset).copied().unwrap_or_default();
        DataError::NotUtf8 { path: path.to_path_buf(), offset, byte }
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
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
