//! Prompts from files and pipes.

use std::fs::File;
use std::io::{ErrorKind, Read, Stdin};
use std::path::Path;

use linc_config::help_for_missing;
use linc_device::words::{help_to_read, reason};
use serde_json::{Map, Value};

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

/// A prompt among others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// The text to continue.
    pub text: String,
    /// Its line in a file of prompts, from 1.
    pub line: Option<usize>,
    /// What else a JSON line says, which belongs to its answer.
    pub fields: Map<String, Value>,
}

impl Given {
    /// A prompt by itself.
    pub fn text(text: String) -> Self {
        Given { text, ..Given::default() }
    }
}

/// The prompts in a file: one in each line, or JSON lines with a `prompt` each. Empty lines are none.
///
/// # Errors
/// As [`from_file`], and [`InferError::Request`] with the line that is no JSON or has no prompt, or if there is none.
pub fn many_from_file(path: &Path) -> Result<Vec<Given>, InferError> {
    many_of(&from_file(path)?, path)
}

/// The prompts in a file's text, as [`many_from_file`] for who has read it already: a pipe is empty the second time.
///
/// # Errors
/// As there.
pub fn many_of(text: &str, path: &Path) -> Result<Vec<Given>, InferError> {
    let is_json = path.extension().is_some_and(|end| end == "jsonl" || end == "ndjson");
    many(text, &path.display().to_string(), is_json)
}

/// The prompts that are piped in, as [`many_from_file`].
///
/// # Errors
/// As there.
pub fn many_from_pipe(stdin: &Stdin) -> Result<Vec<Given>, InferError> {
    many(&read(stdin.lock(), PIPE)?, PIPE, false)
}

/// The prompts of a text; JSON lines if the file says so by its name, or the first line is such a line.
fn many(text: &str, name: &str, is_json: bool) -> Result<Vec<Given>, InferError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let is_record = |line: &str| {
        let json: Option<Value> = serde_json::from_str(line).ok();
        json.is_some_and(|json| json.get("prompt").is_some_and(Value::is_string))
    };
    let is_json = is_json || lines.clone().next().is_some_and(|(_, line)| is_record(line));
    let given = |(at, line): (usize, &str)| {
        let number = at + 1;
        if !is_json {
            return Ok(Given { text: line.to_owned(), line: Some(number), fields: Map::new() });
        }
        let place = format!("{name}:{number}");
        let help = "a line is such as {\"prompt\": \"Once upon a time\"}";
        let json =
            serde_json::from_str(line).map_err(|e| refuse(&place, &format!("is no JSON: {e}"), help))?;
        let Value::Object(mut fields) = json else { return Err(refuse(&place, "is no JSON object", help)) };
        match fields.remove("prompt") {
            Some(Value::String(text)) => Ok(Given { text, line: Some(number), fields }),
            Some(_) => Err(refuse(&place, "has a prompt that is no text", help)),
            None => {
                let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
                Err(refuse(&place, &format!("has no field `prompt`; it has {}", keys.join(", ")), help))
            }
        }
    };
    let prompts: Vec<Given> = lines.map(given).collect::<Result<_, _>>()?;
    if prompts.is_empty() {
        return Err(refuse(name, "has no prompt", "write one in each line"));
    }
    Ok(prompts)
}

/// What a pipe is called.
const PIPE: &str = "the prompt on standard input";

/// The prompt that is piped in, without the line break that `echo` ends it with.
///
/// # Errors
/// As [`from_file`].
pub fn from_pipe(stdin: &Stdin) -> Result<String, InferError> {
    read(stdin.lock(), PIPE)
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
    fn prompts_are_lines_or_records() {
        let texts = |text: &str, is_json: bool| -> Vec<(String, usize)> {
            let prompts = many(text, "p.jsonl", is_json).expect("prompts");
            prompts.into_iter().map(|given| (given.text, given.line.expect("a line"))).collect()
        };
        let line = |text: &str, line: usize| (text.to_owned(), line);
        assert_eq!(texts("a b\r\n\n {x\n", false), [line("a b", 1), line(" {x", 3)]);
        let records = "{\"prompt\": \"a\\nb\", \"id\": 7}\n\n{\"prompt\": \"\"}";
        assert_eq!(texts(records, false), [line("a\nb", 1), line("", 3)]);
        assert_eq!(many(records, "p", true).expect("prompts")[0].fields["id"], 7);
        for (text, is_json, said) in [
            ("{\"prompt\": \"a\"}\n{\"prompt\": 3}", false, "p.jsonl:2 has a prompt that is no text"),
            ("{\"text\": \"a\", \"id\": 1}", true, "p.jsonl:1 has no field `prompt`; it has id, text"),
            ("a", true, "p.jsonl:1 is no JSON: "),
            ("[1]", true, "p.jsonl:1 is no JSON object"),
            ("\n \n", false, "p.jsonl has no prompt"),
        ] {
            let error = many(text, "p.jsonl", is_json).expect_err(said).to_string();
            assert!(error.contains(said) && error.contains("help: "), "{error}");
        }
    }

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
