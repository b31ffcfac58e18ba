//! JSON whose fields have places: what is wrong in a `config.json` is said with its line, and a field that is written twice,
//! of which a parser keeps the last without a word, is found.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use linc_config::{FilePlace, Place, Problem, help_for_missing};
use linc_device::words::{help_to_read, reason};
use serde_json::Value;

/// A member of an object or an element of a list.
struct Field {
    /// Keys and indices that lead to it.
    path: Vec<String>,
    /// The key with its quotes; of an element, the value.
    place: Range<usize>,
}

/// A JSON file whose outermost value is an object.
pub(super) struct Document {
    file: String,
    text: String,
    root: Value,
    fields: Vec<Field>,
}

impl Document {
    /// Reads a file; `what` is its role in messages.
    pub(super) fn open(path: &Path, what: &str) -> Result<Self, Problem> {
        let file = path.display().to_string();
        let whole = |message: String, help: Option<String>| Problem { message, place: None, help };
        if is_special(path) {
            let message = format!("{file}: the {what} is a pipe, socket or device, which may have no end");
            return Err(whole(message, Some("write it into a file".to_owned())));
        }
        let bytes = fs::read(path).map_err(|error| {
            let help = help_for_missing(path).filter(|_| error.kind() == std::io::ErrorKind::NotFound);
            let help = help.unwrap_or_else(|| help_to_read(&error).to_owned());
            whole(format!("{file}: cannot read the {what}: {}", reason(&error)), Some(help))
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            whole(format!("{file}: the {what} is not UTF-8 text (byte {at})"), None)
        })?;
        Self::parse(file, text, what)
    }

    /// Takes a text that a file holds.
    pub(super) fn parse(file: String, text: String, what: &str) -> Result<Self, Problem> {
        let root: Value = serde_json::from_str(&text).map_err(|error| {
            let line_start =
                text.split_inclusive('\n').take(error.line().max(1) - 1).map(str::len).sum::<usize>();
            let at = line_start + error.column().max(1) - 1;
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message);
            Problem {
                message: format!("the {what} is no JSON: {message}"),
                place: Some(Place::File(FilePlace::locate(&file, &text, at..at + 1))),
                help: Some("it may be cut off: get the file again".to_owned()),
            }
        })?;
        if !root.is_object() {
            let message = format!("{file}: the {what} is no JSON object");
            return Err(Problem { message, place: None, help: None });
        }
        let mut scanner = Scanner { text: &text, at: 0, path: vec![], fields: vec![] };
        scanner.value();
        let fields = scanner.fields;
        Ok(Document { file, text, root, fields })
    }

    /// The value at a path of keys and indices; nothing where there is none.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.root, |value, part| match value {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            other => other.get(part),
        })
    }

    /// Keys of the object at a path, as they are written, doubles included.
    pub(super) fn keys(&self, path: &[&str]) -> Vec<&str> {
        let inside = |field: &&Field| {
            field.path.len() == path.len() + 1 && field.path.iter().zip(path).all(|(a, b)| a == b)
        };
        self.fields.iter().filter(inside).filter_map(|field| field.path.last().map(String::as_str)).collect()
    }

    /// What is wrong with the last field of that path.
    pub(super) fn problem(
        &self,
        path: &[&str],
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Problem {
        let field = self.fields.iter().rfind(|field| field.path == path);
        let span = field.map_or(0..1, |field| field.place.clone());
        let place = Some(Place::File(FilePlace::locate(&self.file, &self.text, span)));
        Problem { message: message.into(), place, help: Some(help.into()) }
    }

    /// Every field that is written a second time.
    pub(super) fn doubles(&self) -> Vec<Problem> {
        let mut seen = BTreeSet::new();
        let doubles = self.fields.iter().filter(|field| !seen.insert(&field.path));
        let problem = |field: &Field| {
            let name = field.path.join(".");
            let place = FilePlace::locate(&self.file, &self.text, field.place.clone());
            Problem {
                message: format!("`{name}` is there twice"),
                place: Some(Place::File(place)),
                help: Some("keep the one that is meant".to_owned()),
            }
        };
        doubles.map(problem).collect()
    }
}

/// Whether something is at a path that is neither a file nor a folder: reading it may wait forever.
pub(super) fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Walks over a text that is known to be JSON, nested as deep as its parser allows.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    path: Vec<String>,
    fields: Vec<Field>,
}

impl Scanner<'_> {
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    fn string(&mut self) -> Range<usize> {
        let (start, bytes) = (self.at, self.text.as_bytes());
        self.at += 1;
        while bytes.get(self.at).is_some_and(|byte| *byte != b'"') {
            self.at += if bytes[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at = (self.at + 1).min(bytes.len());
        start..self.at
    }

    fn value(&mut self) {
        match self.peek() {
            b'"' => drop(self.string()),
            b'{' => self.items(b'}', |scanner, _| {
                let place = scanner.string();
                let name = serde_json::from_str(&scanner.text[place.clone()]).unwrap_or_default();
                scanner.peek();
                scanner.at += 1;
                (name, Some(place))
            }),
            b'[' => self.items(b']', |_, index| (index.to_string(), None)),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}'));
                self.at += end.unwrap_or(rest.len());
            }
        }
    }

    /// The members of an object or list up to `close`; `name` reads what comes before a value.
    fn items(&mut self, close: u8, name: impl Fn(&mut Self, usize) -> (String, Option<Range<usize>>)) {
        self.at += 1;
        let mut index = 0;
        while !matches!(self.peek(), 0) && self.peek() != close {
            if self.peek() == b',' {
                self.at += 1;
                self.peek();
            }
            let (part, place) = name(self, index);
            self.path.push(part);
            self.peek();
            let start = self.at;
            let slot = self.fields.len();
            self.fields.push(Field { path: self.path.clone(), place: place.clone().unwrap_or(start..start) });
            self.value();
            if place.is_none() {
                self.fields[slot].place = start..self.at;
            }
            self.path.pop();
            index += 1;
        }
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, Problem> {
        Document::parse("c.json".into(), text.into(), "config")
    }

    #[test]
    fn fields_have_places() {
        let text = "{\n  \"a\": 1, \"b\\u0063\": {\"d\": [true, {\"e\": \"}\\\"]\"}]},\n\n  \"f\": []\n}\n";
        let document = parse(text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(document.keys(&[]), ["a", "bc", "f"]);
        assert_eq!(document.keys(&["bc", "d", "1"]), ["e"]);
        assert_eq!(document.get(&["bc", "d", "1", "e"]), Some(&Value::from("}\"]")));
        assert_eq!(document.get(&["bc", "x"]), None);
        let said = document.problem(&["bc", "d", "1", "e"], "no", "do").to_string();
        assert!(said.starts_with("c.json:2:36: error: no\n") && said.ends_with("help: do"), "{said}");
        assert!(document.problem(&["f"], "no", "do").to_string().starts_with("c.json:4:3: error: no"));
        assert!(
            document.problem(&["bc", "d", "0"], "no", "do").to_string().starts_with("c.json:2:29: error: no")
        );
    }

    #[test]
    fn what_is_written_twice_is_found() {
        let document =
            parse("{\"a\": {\"b\": 1,\n\"b\": 2}, \"c\": 3,\n \"c\": 3}").unwrap_or_else(|e| panic!("{e}"));
        let said: Vec<String> = document.doubles().iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with("c.json:2:1: error: `a.b` is there twice"), "{}", said[0]);
        assert!(said[1].starts_with("c.json:3:2: error: `c` is there twice"), "{}", said[1]);
    }

    #[test]
    fn what_is_no_json_object_is_said() {
        for text in ["", "{", "[1]", "7", "{\"a\": NaN}", "{\"a\": 1,}", &"[".repeat(10_000)] {
            assert!(parse(text).is_err(), "{text:.20}");
        }
        let said = parse("{\n\"a\": 1,\n\"b\" 2}").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said.starts_with("c.json:3:5: error: the config is no JSON: expected `:`"), "{said}");
    }
}
