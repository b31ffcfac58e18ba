//! Prompts from files and pipes.

use std::fs::File;
use std::io::{ErrorKind, Read, Stdin};
use std::path::Path;

use linc_config::help_for_missing;
use linc_device::words::{help_to_read, reason};

use crate::error::InferError;

/// A prompt of more bytes is a mistake: no context holds it, and a device such as `/dev/zero` never ends.
const MOST: u64 = 64 << 20;

/// The prompt in a file, without a byte order mark and without the line break that ends the file.
///
/// # Errors
/// [`InferError::Request`] if the file cannot be read, is too large, or is not UTF-8.
pub fn from_file(path: &Path) -> Result<String, InferError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| {
        let help = match error.kind() {
            ErrorKind::NotFound => help_for_missing(path).unwrap_or_else(|| help_to_read(&error).to_owned()),
            _ => help_to_read(&error).to_owned(),
        };
        refuse(&name, &format!("cannot be read: {}", reason(&error)), &help)
    })?;
    read(file, &name)
}

/// The prompt that is piped in, without the line break that `echo` ends it with.
///
/// # Errors
/// As [`from_file`].
pub fn from_pipe(stdin: &Stdin) -> Result<String, InferError> {
    read(stdin.lock(), "the prompt on standard input")
}

fn read(from: impl Read, name: &str) -> Result<String, InferError> {
    let mut bytes = Vec::new();
    let read = from.take(MOST + 1).read_to_end(&mut bytes);
    read.map_err(|error| refuse(name, &format!("cannot be read: {}", reason(&error)), help_to_read(&error)))?;
    if bytes.len() as u64 > MOST {
        return Err(refuse(name, &format!("has more than {} MiB", MOST >> 20), "give a shorter prompt"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        let help = "if it is Latin-1 (or another encoding), convert it with `iconv -f LATIN1 -t UTF-8`";
        refuse(name, &format!("is not UTF-8 text: byte {at} is 0x{byte:02x}"), help)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(text.to_owned())
}

fn refuse(name: &str, reason: &str, help: &str) -> InferError {
    InferError::request(format!("{name} {reason}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_the_files_own() {
        let text = |bytes: &[u8]| read(bytes, "p.txt").expect("a prompt");
        assert_eq!(text("\u{feff}né\r\n".as_bytes()), "né");
        assert_eq!(text(b"a\n\n"), "a\n");
        assert_eq!(text(b"a \r"), "a \r");
        assert_eq!(text(b""), "");
        let error = |bytes: &[u8]| read(bytes, "p.txt").expect_err("refused").to_string();
        assert!(error(b"caf\xe9").contains("p.txt is not UTF-8 text: byte 3 is 0xe9"));
        assert!(read(std::io::repeat(b'a'), "p.txt").expect_err("endless").to_string().contains("64 MiB"));
        let folder = tempfile::tempdir().expect("a folder");
        let missing = from_file(&folder.path().join("none.txt")).expect_err("missing").to_string();
        assert!(missing.contains("none.txt") && missing.contains("cannot be read"), "{missing}");
        let none = from_file(folder.path()).expect_err("a folder is no prompt").to_string();
        assert!(
            none.contains("it is a folder") && none.contains("help: ") && !none.contains("os error"),
            "{none}"
        );
    }
}
