//! Words of messages, one way for all of linc: sizes, counts, and what to do about an error of the system.

use std::io::{self, ErrorKind};

/// `1.23 GiB`, `4.56 MiB`, `789 B`.
pub fn bytes(n: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| n >> shift > 0) {
        Some((shift, unit)) => format!("{:.2} {unit}", n as f64 / (1u64 << shift) as f64),
        None => format!("{n} B"),
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 token`, `1,234 tokens`, of a word whose plural has an s.
pub fn count(n: usize, word: &str) -> String {
    format!("{} {word}{}", thousands(n as u64), if n == 1 { "" } else { "s" })
}

/// What the system says of a file or folder, in words: without its number, and without the jargon of the usual cases.
pub fn reason(error: &io::Error) -> String {
    let usual = match error.kind() {
        ErrorKind::NotFound => "there is no such file or folder",
        ErrorKind::PermissionDenied => "permission is denied",
        ErrorKind::AlreadyExists => "something of that name is there already",
        ErrorKind::NotADirectory => "a part of the path is a file, not a folder",
        ErrorKind::IsADirectory => "it is a folder",
        ErrorKind::StorageFull => "no space is left on the disk",
        ErrorKind::QuotaExceeded => "the disk quota is used up",
        ErrorKind::ReadOnlyFilesystem => "the disk is read-only",
        ErrorKind::FileTooLarge => "the file would be larger than this process may write",
        ErrorKind::InvalidFilename => "the name is too long, or has characters that names cannot have",
        ErrorKind::BrokenPipe => "nobody reads it any more",
        _ => "",
    };
    if !usual.is_empty() {
        return usual.to_owned();
    }
    let said = error.to_string();
    let words = said.split_once(" (os error ").map_or(said.as_str(), |(words, _)| words);
    let mut letters = words.chars();
    match letters.next() {
        // Words of the system begin like a sentence.
        Some(first) if error.raw_os_error().is_some() => first.to_lowercase().chain(letters).collect(),
        Some(_) | None => words.to_owned(),
    }
}

/// What to do where a file or folder cannot be written, as the help line of an error.
pub fn help_to_write(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "change its permissions (chmod), or choose another folder",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room there, or choose a folder on another disk"
        }
        ErrorKind::ReadOnlyFilesystem => "choose a folder on another disk",
        ErrorKind::NotADirectory => "choose another folder",
        ErrorKind::IsADirectory | ErrorKind::AlreadyExists => "move it away, or choose another folder",
        ErrorKind::InvalidFilename => "choose a folder with a shorter name",
        ErrorKind::FileTooLarge => "raise the limit of the shell that starts linc (ulimit -f unlimited)",
        _ => "choose another folder",
    }
}

/// What to do where a file or folder cannot be read, as the help line of an error.
pub fn help_to_read(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "change its permissions (chmod), or name another",
        ErrorKind::NotFound => "look at its name",
        ErrorKind::NotADirectory => "look at its name",
        ErrorKind::IsADirectory => "name a file in it",
        ErrorKind::InvalidFilename => "no file can have that name: look at it",
        _ => "name another, or copy it to another disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!([0, 1023, 1536, 1 << 30].map(bytes), ["0 B", "1023 B", "1.50 KiB", "1.00 GiB"]);
        assert_eq!([107_374, 3 << 40].map(bytes), ["104.86 KiB", "3.00 TiB"]);
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 1234].map(|n| count(n, "token")), ["0 tokens", "1 token", "1,234 tokens"]);
    }

    #[test]
    fn reasons_are_words() {
        let all = (1..=133).map(|number| reason(&io::Error::from_raw_os_error(number)));
        for words in all {
            assert!(!words.contains("os error") && words.len() > 5, "{words}");
            assert!(words.starts_with(|c: char| !c.is_uppercase()), "{words}");
        }
        assert_eq!(reason(&io::Error::other("It is my own")), "It is my own");
        if cfg!(target_os = "linux") {
            assert_eq!(reason(&io::Error::from_raw_os_error(17)), "something of that name is there already");
            assert_eq!(reason(&io::Error::from_raw_os_error(5)), "input/output error");
        }
    }

    #[test]
    fn advice_fits_the_error() {
        // By the system's numbers: EACCES, ENOSPC, EROFS, ENOTDIR, EFBIG.
        if cfg!(target_os = "linux") {
            let help = |number| help_to_write(&io::Error::from_raw_os_error(number));
            let expected = ["permissions", "make room", "another disk", "another folder", "ulimit -f"];
            for (number, word) in [13, 28, 30, 20, 27].into_iter().zip(expected) {
                assert!(help(number).contains(word), "{number}: {}", help(number));
                assert_eq!(help(number).contains("make room"), word == "make room");
            }
            assert!(help_to_read(&io::Error::from_raw_os_error(13)).contains("permissions"));
        }
    }
}
