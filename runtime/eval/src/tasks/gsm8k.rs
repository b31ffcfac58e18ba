//! GSM8K: word problems whose worked answers end in a number.

use std::path::Path;

use linc_infer::Prompt;
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::files::{find, json_lines, string};
use crate::error::EvalError;
use crate::sample::{Ask, GREEDY, Grade, Metric, Sample};
use crate::task::{Chance, Made, Setting, Task};

pub(crate) const TASKS: &[Task] = &[Task {
    name: "gsm8k",
    version: 3,
    about: "word problems, answered in words and a number behind examples of the training split: gsm8k/{train,test}.jsonl",
    shots: Some(5),
    options: &[],
    metric: "exact_match_strict",
    chance: Chance::None,
    make,
}];

/// Tokens of an answer at most.
const TOKENS: usize = 256;

fn make(task: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    let tokenizer = setting.tokenizer()?;
    let path = find(setting, &["gsm8k/test.jsonl"])?;
    let test = problems(&path)?;
    let shots = setting.shots.or(task.shots).unwrap_or(0);
    let train = if shots > 0 { problems(&find(setting, &["gsm8k/train.jsonl"])?)? } else { vec![] };
    if shots > train.len() {
        let message = format!("the training split has {} problems, --shots asks for {shots}", train.len());
        return Err(EvalError::request(message, "give fewer --shots"));
    }
    let wanted = setting.up_to(test.len());
    let (mut longest, mut too_long) = (0, 0);
    let sample = |(index, (question, answer)): (usize, (String, String))| {
        let mut rng = ChaCha8Rng::seed_from_u64(setting.seed);
        rng.set_stream(index as u64);
        let mut prompt = String::new();
        for shot in index::sample(&mut rng, train.len(), shots) {
            let (question, answer) = &train[shot];
            prompt.push_str(&format!("Question: {question}\nAnswer: {answer}\n\n"));
        }
        prompt.push_str(&format!("Question: {question}\nAnswer:"));
        let stop = ["Question:", "</s>", "<|im_end|>"].map(str::to_owned).to_vec();
        let first = setting.bos.token(tokenizer, false);
        let read = Prompt::behind(first, tokenizer, &prompt, Some(TOKENS), usize::MAX)?.ids.len();
        longest = longest.max(read);
        too_long += usize::from(read + TOKENS > setting.context);
        Ok(Sample {
            id: index.to_string(),
            group: String::new(),
            doc: json!({ "question": question, "answer": answer, "prompt": prompt }),
            ask: Ask::Write { prompt, tokens: TOKENS, stop, draws: vec![GREEDY] },
            grade: Grade::Number(answer),
        })
    };
    let samples =
        test.into_iter().enumerate().take(wanted).map(sample).collect::<Result<Vec<_>, EvalError>>()?;
    if too_long > 0 {
        let message = format!(
            "{too_long} of {} prompts of the task {} have no room for an answer of {TOKENS} tokens in the context of {}: the longest has {longest} tokens",
            samples.len(),
            task.name,
            setting.context
        );
        let help = format!("a context of {} has room for all; fewer shots need less", longest + TOKENS);
        return Err(EvalError::request(message, help));
    }
    Ok(samples.into())
}

fn problems(path: &Path) -> Result<Vec<(String, String)>, EvalError> {
    let read = |(line, object): (usize, Value)| {
        let field = |name: &str| string(path, line, &object, name).map(str::to_owned);
        Ok((field("/question")?, field("/answer")?))
    };
    json_lines(path)?.into_iter().map(read).collect()
}

/// Whether a worked answer ends in the number of the published one: by the mark `####` before it, and by the last number in it.
pub(crate) fn graded(published: &str, written: &str) -> Vec<Metric> {
    let expected = plain(published);
    let matches = |found: Option<&str>| found.is_some_and(|found| plain(found) == expected);
    let share = |name: &str, right: bool| Metric {
        name: name.to_owned(),
        sum: f64::from(u8::from(right)),
        weight: 1.0,
    };
    vec![
        share("exact_match_strict", matches(marked(written))),
        share("exact_match_flexible", matches(last_number(written))),
    ]
}

/// The number behind the first `#### ` that has one.
fn marked(text: &str) -> Option<&str> {
    text.match_indices("#### ").find_map(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let sign = usize::from(rest.starts_with('-'));
        let digits =
            rest[sign..].bytes().take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b',')).count();
        (digits > 0).then(|| &rest[..sign + digits])
    })
}

/// The last piece of a text that looks like a number: two characters or more of digits, `$`, `.` and `,`, with a sign or
/// without, or one digit.
fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let (mut at, mut found) = (0, None);
    while at < bytes.len() {
        let sign = usize::from(bytes[at] == b'-');
        let run = |ok: fn(u8) -> bool| bytes[at + sign..].iter().take_while(|b| ok(**b)).count();
        let wide = run(|b| b.is_ascii_digit() || matches!(b, b'$' | b'.' | b','));
        let digits = run(|b| b.is_ascii_digit());
        let length = if wide >= 2 { wide } else { digits };
        match length {
            0 => at += 1,
            length => {
                found = Some(&text[at..at + sign + length]);
                at += sign + length;
            }
        }
    }
    found
}

/// A number without what is written around it: all up to the last mark, commas, dollars, and the dot at its end.
fn plain(text: &str) -> String {
    let number = text.rsplit("#### ").next().unwrap_or(text);
    let number: String = number.chars().filter(|c| !matches!(c, ',' | '$')).collect();
    number.strip_suffix('.').unwrap_or(&number).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(published: &str, written: &str) -> [f64; 2] {
        let found = graded(published, written);
        [found[0].sum, found[1].sum]
    }

    #[test]
    fn numbers_are_compared_without_what_is_around_them() {
        let published = "He has 2*3=<<2*3=6>>6\n#### 1,234";
        assert_eq!(shares(published, published), [1.0, 1.0]);
        assert_eq!(shares(published, " so it is\n#### 1234\n\nmore 5"), [1.0, 0.0]);
        assert_eq!(shares(published, "It costs $1,234."), [0.0, 1.0]);
        assert_eq!(shares(published, "#### 12345"), [0.0, 0.0]);
        assert_eq!(shares("#### -7", "#### -7 apples"), [1.0, 1.0]);
        assert_eq!(shares("#### 7", "no number"), [0.0, 0.0]);
    }

    #[test]
    fn the_last_number_is_found_as_the_pattern_of_the_harness_does() {
        for (text, expected) in [
            ("a 5 b", Some("5")),
            ("5 -12.50 x", Some("-12.50")),
            ("$3, then.", Some("$3,")),
            ("é 4 – - ", Some("4")),
            ("1 .. 2...", Some("2...")),
            ("", None),
        ] {
            assert_eq!(last_number(text), expected, "{text}");
        }
    }
}
