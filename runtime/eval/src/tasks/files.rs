//! Files of tasks, in their published layout.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::EvalError;
use crate::task::Setting;

/// The first of some paths below the data folder that is there.
///
/// # Errors
/// [`EvalError::File`] with all of them.
pub(crate) fn find(setting: &Setting<'_>, names: &[&str]) -> Result<PathBuf, EvalError> {
    let found = names.iter().map(|name| setting.data.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        let expected = names.join(" or ");
        let message = match setting.data.is_dir() {
            true => format!("there is no {expected} in it"),
            false => "there is no such folder".to_owned(),
        };
        EvalError::file(
            &setting.data,
            message,
            format!("name the folder that has {expected}, as it is published: --data DIR"),
        )
    })
}

/// The objects of a file of JSON lines, packed by gzip or not, with their line numbers.
///
/// # Errors
/// [`EvalError::Data`] if it cannot be read, [`EvalError::File`] with the line that is no JSON object.
pub(crate) fn json_lines(path: &Path) -> Result<Vec<(usize, Value)>, EvalError> {
    let text = linc_data::read_file(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Ok((index + 1, Value::Object(object))),
        Ok(_) => Err(EvalError::line(path, index + 1, "is no JSON object", "each line is one of a sample")),
        Err(error) => {
            let message = format!("is no JSON: {error}");
            Err(EvalError::line(path, index + 1, message, "the file may be cut off: get it again"))
        }
    };
    let found: Vec<(usize, Value)> = lines.map(parse).collect::<Result<_, _>>()?;
    match found.is_empty() {
        true => Err(EvalError::file(path, "there is nothing in it", "get it again")),
        false => Ok(found),
    }
}

/// A string of an object.
///
/// # Errors
/// [`EvalError::File`] if it has none.
pub(crate) fn string<'a>(
    path: &Path,
    line: usize,
    object: &'a Value,
    pointer: &str,
) -> Result<&'a str, EvalError> {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.ok_or_else(|| {
        let name = pointer.trim_start_matches('/').replace('/', ".");
        EvalError::line(path, line, format!("has no string `{name}`"), "the file is to be as it is published")
    })
}

/// The rows of a file of comma-separated values, with the number of the line that each begins on. A field in quotes may
/// have commas, line breaks and quotes, which are written twice.
///
/// # Errors
/// [`EvalError::Data`] if it cannot be read, [`EvalError::File`] with the line of a quote that does not end.
pub(crate) fn csv(path: &Path) -> Result<Vec<(usize, Vec<String>)>, EvalError> {
    let text = linc_data::read_file(path)?;
    rows(&text).map_err(|line| {
        EvalError::line(path, line, "a quote does not end", "the file may be cut off: get it again")
    })
}

/// Rows, or the line of a quote that does not end.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let (mut rows, mut row, mut field) = (vec![], vec![], String::new());
    let (mut line, mut start, mut quoted) = (1, 1, None);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        line += usize::from(c == '\n');
        match (c, quoted) {
            ('"', Some(_)) if characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            ('"', Some(_)) => quoted = None,
            (c, Some(_)) => field.push(c),
            ('"', None) if field.is_empty() => quoted = Some(line),
            (',', None) => row.push(std::mem::take(&mut field)),
            ('\r', None) if characters.peek() == Some(&'\n') => {}
            ('\n', None) => {
                row.push(std::mem::take(&mut field));
                // An empty line is no row.
                if row.len() > 1 || row.iter().any(|field: &String| !field.is_empty()) {
                    rows.push((start, std::mem::take(&mut row)));
                }
                row.clear();
                start = line;
            }
            (c, None) => field.push(c),
        }
    }
    if let Some(line) = quoted {
        return Err(line);
    }
    if !row.is_empty() || !field.is_empty() {
        row.push(field);
        rows.push((start, row));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_have_commas_quotes_and_line_breaks() {
        let text = "a,\"b, \"\"c\"\"\",d\r\n\n\"two\nlines\",5\" tall,\nlast,";
        let found = rows(text).expect("whole");
        let row = |line, fields: [&str; 3]| (line, fields.map(String::from).to_vec());
        assert_eq!(found[0], row(1, ["a", "b, \"c\"", "d"]));
        assert_eq!(found[1], row(3, ["two\nlines", "5\" tall", ""]));
        assert_eq!(found[2], (5, vec!["last".to_owned(), String::new()]));
        assert_eq!(rows("a\n\"b\nc"), Err(2));
        assert_eq!(rows(""), Ok(vec![]));
    }
}
