//! The tasks: what each asks, of which data, and what somebody who knows nothing gets.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use linc_data::Tokenizer;

use crate::code::Sandbox;
use crate::error::EvalError;
use crate::sample::Sample;
use crate::tasks;
use crate::tokens::Bos;

/// What samples are made of.
pub struct Setting<'a> {
    /// Folder with the files of tasks, in their published layout.
    pub data: PathBuf,
    /// File, folder or pattern of the task `text`.
    pub text: Option<String>,
    /// The field of JSON objects that has their text.
    pub text_field: String,
    /// Samples that lm-evaluation-harness logged, of the task `requests`.
    pub requests: Option<PathBuf>,
    /// Makes tokens of texts; nothing for a model that reads none.
    pub tokenizer: Option<&'a Tokenizer>,
    /// What stands before a text.
    pub bos: Bos,
    /// Tokens that the model reads.
    pub context: usize,
    /// Tokens that tasks on tokens draw from: those that the model was trained on, of all that it has.
    pub vocab: usize,
    /// Tokens that count in each window of a text but the first; as many as the context has, if not given.
    pub stride: Option<usize>,
    /// Examples before each question; the task's own number, if not given.
    pub shots: Option<usize>,
    /// Samples of each task, or of each of its groups, at most.
    pub limit: Option<usize>,
    /// Lengths in tokens of tasks that have no length of their own; what the context has, if not given.
    pub lengths: Vec<usize>,
    /// Texts for each problem, of tasks that have programs written; 1 or more.
    pub completions: usize,
    /// Their temperature; 0 for one of them and the task's own for several, if not given.
    pub temperature: Option<f64>,
    /// Runs the programs that were written, if they are to be run.
    pub sandbox: Option<&'a Sandbox>,
    /// Of all that is drawn.
    pub seed: u64,
    /// Set by a request to end.
    pub stop: &'a AtomicBool,
}

impl Setting<'_> {
    /// The tokenizer, which a task of texts needs.
    ///
    /// # Errors
    /// [`EvalError::Request`] if there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer, EvalError> {
        self.tokenizer.ok_or_else(|| {
            let message =
                "the model reads no text: it was trained on numbers, or imported without a tokenizer";
            EvalError::request(message, "choose tasks that score tokens: linc eval --list-tasks")
        })
    }

    /// The lengths that are asked for.
    ///
    /// # Errors
    /// [`EvalError::Request`] for one that the model has no room for.
    pub(crate) fn lengths(&self) -> Result<Vec<usize>, EvalError> {
        let lengths = if self.lengths.is_empty() { vec![self.context] } else { self.lengths.clone() };
        match lengths.iter().find(|length| **length > self.context) {
            None => Ok(lengths),
            Some(length) => {
                let message = format!("--lengths has {length}, and the model reads {} tokens", self.context);
                Err(EvalError::request(message, format!("give a --context of {length} as well")))
            }
        }
    }

    /// How many of so many samples are wanted.
    pub(crate) fn up_to(&self, samples: usize) -> usize {
        self.limit.map_or(samples, |limit| limit.min(samples))
    }
}

/// The samples of a task.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// What is asked.
    pub samples: Vec<Sample>,
    /// How many more there are, which the context has no room for.
    pub left_out: usize,
}

impl From<Vec<Sample>> for Made {
    fn from(samples: Vec<Sample>) -> Self {
        Self { samples, left_out: 0 }
    }
}

impl FromIterator<Sample> for Made {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Self {
        Vec::from_iter(samples).into()
    }
}

/// Makes the samples of a task.
pub type Make = fn(&Task, &Setting<'_>) -> Result<Made, EvalError>;

/// What somebody gets who knows nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Chance {
    /// No share to speak of.
    None,
    /// Of one right answer among so many.
    Of(f64),
    /// Of one right token in the vocabulary.
    Vocab,
}

/// One set of questions of a kind, as plain data but for the function that makes them.
#[derive(Clone, Copy)]
pub struct Task {
    /// As it is asked for, and as its files are called.
    pub name: &'static str,
    /// Raised when other prompts or grades make other numbers.
    pub version: u32,
    /// What it asks, and of which files.
    pub about: &'static str,
    /// Examples before each question, if it is not said otherwise; nothing for a task that has none.
    pub shots: Option<usize>,
    /// Options of `linc eval` that it reads and others do not, such as `lengths`.
    pub options: &'static [&'static str],
    /// The measure that counts first.
    pub metric: &'static str,
    /// What somebody gets of it who knows nothing.
    pub chance: Chance,
    /// Makes its samples.
    pub make: Make,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("name", &self.name).field("version", &self.version).finish()
    }
}

impl Task {
    /// Whether it has programs written, which can be run.
    pub fn writes_programs(&self) -> bool {
        self.metric.starts_with("pass@")
    }
}

/// Every task that there is, in the order in which they are listed.
pub fn all() -> Vec<Task> {
    [
        tasks::text::TASKS,
        tasks::choices::TASKS,
        tasks::gsm8k::TASKS,
        tasks::humaneval::TASKS,
        &tasks::recall::tasks(),
        tasks::needle::TASKS,
        tasks::ruler::TASKS,
        tasks::requests::TASKS,
    ]
    .concat()
}

/// The tasks of a list of names.
///
/// # Errors
/// [`EvalError::Request`] for a name that is none, with the nearest one, or one that comes twice.
pub fn chosen(names: &[String]) -> Result<Vec<Task>, EvalError> {
    let all = all();
    let mut found: Vec<Task> = vec![];
    for name in names {
        let Some(task) = all.iter().find(|task| task.name == name) else {
            let near = linc_config::nearest(name, all.iter().map(|task| task.name));
            let help = match near {
                Some(near) => format!("did you mean {near}? linc eval --list-tasks lists all"),
                None => "linc eval --list-tasks lists all".to_owned(),
            };
            return Err(EvalError::request(format!("there is no task {name:?}"), help));
        };
        if found.iter().any(|known| known.name == task.name) {
            return Err(EvalError::request(format!("the task {name} is asked for twice"), "name it once"));
        }
        found.push(*task);
    }
    Ok(found)
}
