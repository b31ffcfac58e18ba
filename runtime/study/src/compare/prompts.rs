//! The prompts of a comparison: those that are built in, or a file's.

use std::path::Path;

use linc_infer::prompt::{self, Given};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StudyError;

/// Twenty prompts of many sorts, a JSON object in each line.
const BUILT_IN: &str = include_str!("../../assets/prompts.jsonl");

/// What models are asked to continue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The text to continue; where there are several, each comes behind what a model wrote of those before.
    pub turns: Vec<String>,
    /// What sort of prompt it is, if somebody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Its line in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// The prompts of a file: one in each line, JSON lines with a `prompt` each, or with `turns` as the questions of MT-bench have
/// them. Those that are built in, if there is no file.
///
/// # Errors
/// The file cannot be read, or has a line that is no prompt.
pub(super) fn prompts(path: Option<&Path>) -> Result<Vec<Prompt>, StudyError> {
    let Some(path) = path else {
        return parsed(BUILT_IN, "the built-in prompts");
    };
    let text = prompt::from_file(path)?;
    let name = path.display().to_string();
    let has_turns = |line: &str| {
        let json: Option<Value> = serde_json::from_str(line).ok();
        json.is_some_and(|json| json.get("turns").is_some())
    };
    if text.lines().find(|line| !line.trim().is_empty()).is_some_and(has_turns) {
        return parsed(&text, &name);
    }
    let given = prompt::many_of(&text, path)?;
    let of = |given: Given| Prompt {
        turns: vec![given.text],
        category: given.fields.get("category").and_then(Value::as_str).map(str::to_owned),
        line: given.line,
    };
    Ok(given.into_iter().map(of).collect())
}

/// JSON lines with a `prompt` or `turns`.
fn parsed(text: &str, name: &str) -> Result<Vec<Prompt>, StudyError> {
    let mut prompts = vec![];
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |message: &str| StudyError::Nothing {
            message: format!("{name}:{number} {message}"),
            help: "a line is such as {\"turns\": [\"Tell me a story.\", \"And how does it end?\"]}"
                .to_owned(),
        };
        let json: Value =
            serde_json::from_str(line).map_err(|error| wrong(&format!("is no JSON: {error}")))?;
        let texts = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|turn| turn.as_str().map(str::to_owned)).collect()
        };
        let turns = match (json.get("turns"), json.get("prompt").and_then(Value::as_str)) {
            (Some(turns), _) => texts(turns).ok_or_else(|| wrong("has turns that are no list of texts"))?,
            (None, Some(prompt)) => vec![prompt.to_owned()],
            (None, None) => return Err(wrong("has no turns")),
        };
        if turns.is_empty() {
            return Err(wrong("has an empty list of turns"));
        }
        let category = json.get("category").and_then(Value::as_str).map(str::to_owned);
        prompts.push(Prompt { turns, category, line: Some(number) });
    }
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_are_built_in() {
        let all = prompts(None).expect("prompts");
        assert_eq!(all.len(), 20);
        let mut texts: Vec<&String> = all.iter().flat_map(|prompt| &prompt.turns).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 20, "no two are the same");
        assert!(all.iter().all(|prompt| prompt.category.is_some()));
    }

    #[test]
    fn files_are_lines_records_or_questions_of_mt_bench() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |text: &str| {
            let path = folder.path().join("p.jsonl");
            std::fs::write(&path, text).expect("written");
            prompts(Some(&path))
        };
        let question = "{\"question_id\": 81, \"category\": \"writing\", \"turns\": [\"One\", \"Two\"], \"reference\": []}\n";
        let found = of(question).expect("questions");
        assert_eq!(
            (found[0].turns.len(), found[0].category.as_deref(), found[0].line),
            (2, Some("writing"), Some(1))
        );
        let found = of("\n{\"prompt\": \"a\", \"category\": \"x\"}\n").expect("records");
        assert_eq!((found[0].turns.clone(), found[0].category.as_deref()), (vec!["a".to_owned()], Some("x")));
        for (text, said) in [
            ("{\"turns\": []}", "p.jsonl:1 has an empty list"),
            ("{\"turns\": [\"a\"]}\n{\"turns\": [3]}", "p.jsonl:2 has turns that are no list of texts"),
            ("{\"turns\": [\"a\"]}\n{", "p.jsonl:2 is no JSON"),
            ("{\"turns\": [\"a\"]}\n{\"text\": \"a\"}", "p.jsonl:2 has no turns"),
            ("", "has no prompt"),
        ] {
            let error = of(text).expect_err(said).to_string();
            assert!(error.contains(said) && error.contains("help: "), "{error}");
        }
    }

    /// What a shell's `<(..)` is: its bytes come once.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_is_read_once() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(b"one\ntwo\n").expect("written");
        drop(writer);
        let found = prompts(Some(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())))).expect("prompts");
        assert_eq!(found.iter().map(|prompt| &*prompt.turns[0]).collect::<Vec<_>>(), ["one", "two"]);
    }
}
