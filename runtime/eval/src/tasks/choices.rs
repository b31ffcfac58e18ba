//! Multiple choice and last words by log-likelihood: MMLU, HellaSwag, ARC, LAMBADA.

use std::path::Path;

use serde_json::{Value, json};

use super::files::{csv, find, json_lines, string};
use crate::error::EvalError;
use crate::sample::{Ask, Grade, Sample};
use crate::task::{Chance, Made, Setting, Task};
use crate::tokens::pair;

const FOUR: Chance = Chance::Of(0.25);

pub(crate) const TASKS: &[Task] = &[
    Task {
        name: "mmlu",
        version: 2,
        about: "57 subjects, the letter of the right answer: mmlu/{dev,test}/SUBJECT_{dev,test}.csv",
        shots: Some(0),
        options: &[],
        metric: "acc",
        chance: FOUR,
        make: |_, setting| mmlu(setting, true),
    },
    Task {
        name: "mmlu_continuation",
        version: 2,
        about: "the same questions, the text of the right answer, which says more of small models",
        shots: Some(0),
        options: &[],
        metric: "acc",
        chance: FOUR,
        make: |_, setting| mmlu(setting, false),
    },
    Task {
        name: "hellaswag",
        version: 2,
        about: "which of four endings comes next: hellaswag/hellaswag_val.jsonl",
        shots: None,
        options: &[],
        metric: "acc_norm",
        chance: FOUR,
        make: |_, setting| hellaswag(setting),
    },
    Task {
        name: "arc_easy",
        version: 2,
        about: "questions of science: ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl",
        shots: Some(0),
        options: &[],
        metric: "acc",
        chance: FOUR,
        make: |_, setting| arc(setting, "Easy"),
    },
    Task {
        name: "arc_challenge",
        version: 2,
        about: "the difficult ones of them: ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Test.jsonl",
        shots: Some(0),
        options: &[],
        metric: "acc_norm",
        chance: FOUR,
        make: |_, setting| arc(setting, "Challenge"),
    },
    Task {
        name: "lambada",
        version: 2,
        about: "the last word of a passage (OpenAI's version): lambada/lambada_test.jsonl",
        shots: None,
        options: &[],
        metric: "acc",
        chance: Chance::None,
        make: |_, setting| lambada(setting),
    },
];

/// A question with the texts that may follow it.
struct Question {
    context: String,
    /// What follows, with the blank that it begins with.
    choices: Vec<String>,
    gold: usize,
}

impl Question {
    /// The question with its right answer, as an example.
    fn example(&self) -> String {
        format!("{}{}", self.context, self.choices[self.gold])
    }

    /// A sample behind some text.
    fn sample(
        self,
        setting: &Setting<'_>,
        id: String,
        group: &str,
        before: &str,
    ) -> Result<Sample, EvalError> {
        let tokenizer = setting.tokenizer()?;
        let context = format!("{before}{}", self.context);
        let parts = self
            .choices
            .iter()
            .map(|choice| pair(tokenizer, setting.bos, setting.context, &context, choice))
            .collect::<Result<_, _>>()?;
        // The blank between the two is of neither.
        let characters = self.choices.iter().map(|choice| choice.trim_start().chars().count()).collect();
        Ok(Sample {
            id,
            group: group.to_owned(),
            doc: json!({ "context": context, "choices": self.choices, "gold": self.gold }),
            ask: Ask::Likelihoods(parts),
            grade: Grade::Choice { gold: self.gold, characters },
        })
    }
}

fn mmlu(setting: &Setting<'_>, letters: bool) -> Result<Made, EvalError> {
    let folder = find(setting, &["mmlu/test", "test"])?;
    let subjects = subjects_in(&folder, "test")?;
    if subjects.is_empty() {
        return Err(EvalError::file(&folder, "there is no SUBJECT_test.csv in it", "get the folder again"));
    }
    // A file that was lost would make another number of the mean, and nobody would know.
    let dev = folder.with_file_name("dev");
    let examples = if dev.is_dir() { subjects_in(&dev, "dev")? } else { vec![] };
    if let Some(subject) = examples.iter().find(|subject| !subjects.contains(subject)) {
        let message =
            format!("there is no {subject}_test.csv in it, and {subject}_dev.csv is in {}", dev.display());
        return Err(EvalError::file(
            &folder,
            message,
            "get the folder again, or remove both to leave the subject out",
        ));
    }
    let mut samples = vec![];
    let shots = setting.shots.unwrap_or(0);
    for subject in &subjects {
        let test = questions(&folder.join(format!("{subject}_test.csv")), letters)?;
        let name = subject.replace('_', " ");
        let kind = if letters { "multiple choice questions" } else { "questions" };
        let mut before = format!("The following are {kind} (with answers) about {name}.\n\n");
        if shots > 0 {
            let path = dev.join(format!("{subject}_dev.csv"));
            let examples = questions(&path, letters)?;
            enough(&path, examples.len(), shots)?;
            examples[..shots].iter().for_each(|one| before.push_str(&format!("{}\n\n", one.example())));
        }
        let wanted = setting.up_to(test.len());
        for (index, question) in test.into_iter().enumerate().take(wanted) {
            samples.push(question.sample(setting, format!("{subject}/{index}"), subject, &before)?);
        }
    }
    Ok(samples.into())
}

/// The subjects of a folder of MMLU, in order of their names.
fn subjects_in(folder: &Path, part: &str) -> Result<Vec<String>, EvalError> {
    let entries = std::fs::read_dir(folder).map_err(EvalError::unreadable(folder))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let end = format!("_{part}.csv");
    let mut subjects: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(&end)?.to_owned())).collect();
    subjects.sort();
    Ok(subjects)
}

/// The questions of a file of MMLU: rows of a question, four answers and a letter.
fn questions(path: &Path, letters: bool) -> Result<Vec<Question>, EvalError> {
    const LETTERS: [&str; 4] = ["A", "B", "C", "D"];
    let read = |(line, row): (usize, Vec<String>)| {
        let refuse = |message: String| {
            let help = "each row is a question, four answers and the letter of the right one";
            Err(EvalError::line(path, line, message, help))
        };
        let [question, answers @ .., letter] = &row[..] else { return refuse("is no question".into()) };
        if answers.len() != 4 {
            return refuse(format!("has {} fields, 6 are expected", row.len()));
        }
        let Some(gold) = LETTERS.iter().position(|known| *known == letter.trim()) else {
            return refuse(format!("has {letter:?} where a letter from A to D is expected"));
        };
        let question = question.trim();
        Ok(match letters {
            true => {
                let list =
                    LETTERS.iter().zip(answers).map(|(letter, answer)| format!("{letter}. {answer}\n"));
                let context = format!("{question}\n{}Answer:", list.collect::<String>());
                Question { context, choices: LETTERS.map(|letter| format!(" {letter}")).to_vec(), gold }
            }
            false => Question {
                context: format!("Question: {question}\nAnswer:"),
                choices: answers.iter().map(|answer| format!(" {answer}")).collect(),
                gold,
            },
        })
    };
    csv(path)?.into_iter().map(read).collect()
}

/// Refuses more examples than there are.
fn enough(path: &Path, there: usize, shots: usize) -> Result<(), EvalError> {
    if shots <= there {
        return Ok(());
    }
    let message = format!("has {there} examples, --shots asks for {shots}");
    Err(EvalError::file(path, message, format!("give --shots {there} or fewer")))
}

fn hellaswag(setting: &Setting<'_>) -> Result<Made, EvalError> {
    let path = find(setting, &["hellaswag/hellaswag_val.jsonl", "hellaswag_val.jsonl"])?;
    let lines = json_lines(&path)?;
    let wanted = setting.up_to(lines.len());
    let sample = |(index, (line, object)): (usize, (usize, Value))| {
        let field = |name: &str| string(&path, line, &object, name);
        let capital = field("/ctx_b").map(capitalized).or_else(|_| field("/ctx").map(|_| String::new()))?;
        let context = format!("{}: {} {capital}", field("/activity_label")?, field("/ctx_a")?);
        let endings = strings(&path, line, &object, "endings")?;
        let gold = gold(&path, line, &object["label"], endings.len())?;
        let choices = endings.iter().map(|ending| format!(" {}", without_markup(ending))).collect();
        Question { context: without_markup(&context), choices, gold }.sample(
            setting,
            index.to_string(),
            "",
            "",
        )
    };
    lines.into_iter().enumerate().take(wanted).map(sample).collect()
}

/// The first letter large, the others small.
fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + &characters.as_str().to_lowercase()
}

/// HellaSwag's texts without the marks of their source.
fn without_markup(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let mut found = String::new();
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once('[') {
        let Some((_, after)) = behind.split_once(']') else { break };
        found.push_str(before);
        rest = after;
    }
    found.push_str(rest);
    found.replace("  ", " ")
}

fn arc(setting: &Setting<'_>, part: &str) -> Result<Made, EvalError> {
    let file = |split: &str| format!("ARC-{part}/ARC-{part}-{split}.jsonl");
    let names = ["ARC-V1-Feb2018-2/", "arc/ARC-V1-Feb2018-2/", "arc/", ""]
        .map(|folder| folder.to_owned() + &file("Test"));
    let path = find(setting, &names.each_ref().map(String::as_str))?;
    let shots = setting.shots.unwrap_or(0);
    let mut before = String::new();
    if shots > 0 {
        let examples = path.with_file_name(format!("ARC-{part}-Train.jsonl"));
        let examples_there = arc_questions(&examples)?;
        enough(&examples, examples_there.len(), shots)?;
        examples_there[..shots].iter().for_each(|one| before.push_str(&format!("{}\n\n", one.example())));
    }
    let questions = arc_questions(&path)?;
    let wanted = setting.up_to(questions.len());
    let sample =
        |(index, question): (usize, Question)| question.sample(setting, index.to_string(), "", &before);
    questions.into_iter().enumerate().take(wanted).map(sample).collect()
}

fn arc_questions(path: &Path) -> Result<Vec<Question>, EvalError> {
    let read = |(line, object): (usize, Value)| {
        let stem = string(path, line, &object, "/question/stem")?;
        let key = string(path, line, &object, "/answerKey")?;
        let choices = object["question"]["choices"].as_array().cloned().unwrap_or_default();
        let (mut texts, mut labels) = (vec![], vec![]);
        for choice in &choices {
            texts.push(format!(" {}", string(path, line, choice, "/text")?));
            labels.push(string(path, line, choice, "/label")?);
        }
        let Some(gold) = labels.iter().position(|label| *label == key) else {
            let message = format!("its answer is {key}, of the choices {}", labels.join(", "));
            return Err(EvalError::line(path, line, message, "the file is to be as it is published"));
        };
        Ok(Question { context: format!("Question: {stem}\nAnswer:"), choices: texts, gold })
    };
    json_lines(path)?.into_iter().map(read).collect()
}

fn lambada(setting: &Setting<'_>) -> Result<Made, EvalError> {
    let tokenizer = setting.tokenizer()?;
    let path = find(
        setting,
        &["lambada/lambada_test.jsonl", "lambada/lambada_test_en.jsonl", "lambada_test.jsonl"],
    )?;
    let lines = json_lines(&path)?;
    let wanted = setting.up_to(lines.len());
    let sample = |(index, (line, object)): (usize, (usize, Value))| {
        let text = string(&path, line, &object, "/text")?;
        let Some((context, word)) = text.rsplit_once(' ') else {
            return Err(EvalError::line(
                &path,
                line,
                "has one word",
                "a passage and its last word are expected",
            ));
        };
        let word = format!(" {word}");
        let part = pair(tokenizer, setting.bos, setting.context, context, &word)?;
        Ok(Sample {
            id: index.to_string(),
            group: String::new(),
            doc: json!({ "context": context, "target": word }),
            ask: Ask::Likelihoods(vec![part]),
            grade: Grade::Greedy,
        })
    };
    lines.into_iter().enumerate().take(wanted).map(sample).collect()
}

/// A list of strings of an object.
fn strings(path: &Path, line: usize, object: &Value, name: &str) -> Result<Vec<String>, EvalError> {
    let list = object[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Option<Vec<String>> = list.iter().map(|text| Some(text.as_str()?.to_owned())).collect();
    texts.filter(|texts| !texts.is_empty()).ok_or_else(|| {
        let message = format!("has no list of strings `{name}`");
        EvalError::line(path, line, message, "the file is to be as it is published")
    })
}

/// The number of the right choice, which may be written as a string.
fn gold(path: &Path, line: usize, label: &Value, choices: usize) -> Result<usize, EvalError> {
    let number = label.as_u64().or_else(|| label.as_str()?.parse().ok());
    number.and_then(|number| usize::try_from(number).ok()).filter(|gold| *gold < choices).ok_or_else(|| {
        let message = format!("its label is {label}, of {choices} choices");
        EvalError::line(path, line, message, "only splits with answers can be graded: the validation split")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellaswag_loses_the_marks_of_its_source() {
        let text = " Roof [title] How to [step] pull it.[substeps] Now  go ";
        assert_eq!(without_markup(text), "Roof. How to pull it. Now go");
        assert_eq!(capitalized("he DOES it"), "He does it");
        assert_eq!(capitalized(""), "");
    }
}
