//! The tasks of `[eval]`: asked of a model while it trains, in the session of the run, whose weights they read where they are.
//!
//! Samples are made once, of files and of draws of their own: the same as `linc eval` makes, so that its numbers on a checkpoint
//! are those that were recorded at its step.

use std::sync::atomic::AtomicBool;

use linc_data::{DatasetKind, Tokenizer};
use linc_driver::{Entry, Options};
use linc_infer::{Programs, Prompt, ScorePrograms, Scores};
use linc_session::Session;
use linc_train::config::JobConfig;
use linc_train::error::TrainError;
use linc_train::trainer::{About, Measures, Questions};

use crate::error::EvalError;
use crate::record::Record;
use crate::results::TaskResult;
use crate::run::{answered, together};
use crate::sample::{Ask, Sample};
use crate::scorer::{Scorer, Writing, continued};
use crate::task::{Setting, Task, chosen};
use crate::tokens::Bos;

/// What a config asks of its model while it trains.
pub struct InTraining {
    config: JobConfig,
    tasks: Vec<Task>,
    begun: Option<Begun>,
}

/// What is asked, once the run is known.
struct Begun {
    samples: Vec<(Task, Vec<Sample>)>,
    tokenizer: Option<Tokenizer>,
    scores: Option<ScorePrograms>,
    decode: Option<Programs>,
    context: usize,
    vocab: usize,
}

impl InTraining {
    /// The tasks of a config; nothing if it names none.
    ///
    /// # Errors
    /// [`TrainError::Config`] at the place of what cannot be asked.
    pub fn of(config: &JobConfig) -> Result<Option<Box<dyn Questions>>, TrainError> {
        let eval = &config.eval;
        if eval.tasks.is_empty() {
            return Ok(None);
        }
        let problem = |name: &str, message: String, help: &str| {
            let names = [name, "eval.tasks"];
            Err(TrainError::from(config.problem(&names, message, Some(help.to_owned()))))
        };
        let tasks = chosen(&eval.tasks).map_err(|error| refused(config, error))?;
        let has = |name: &str| tasks.iter().any(|task| task.name == name);
        if let Some(task) = tasks.iter().find(|task| task.writes_programs() || task.name == "requests") {
            let message = format!("the task {} is not asked while training", task.name);
            return problem("eval.tasks", message, "ask it of a checkpoint: linc eval");
        }
        if has("text") && eval.text.is_none() {
            let message = "the task text needs a text".to_owned();
            return problem("eval.tasks", message, "name a file, a folder or a pattern: eval.text");
        }
        let seq_len = config.training.seq_len;
        if let Some(length) = eval.lengths.iter().find(|length| !(1..=seq_len).contains(*length)) {
            let message = format!("eval.lengths has {length}; expected 1 to training.seq_len, {seq_len}");
            return problem("eval.lengths", message, "ask for longer sequences of a checkpoint: linc eval");
        }
        Ok(Some(Box::new(InTraining { config: config.clone(), tasks, begun: None })))
    }

    /// Tokens that a task draws from, of a model that has `all`: where it is what the model is trained on, as it is there. To the
    /// model other tokens mean nothing.
    fn vocab_of(&self, task: &Task, all: usize) -> usize {
        let data = &self.config.data;
        let dataset = data.training.dataset;
        if dataset.word() != task.name {
            return all;
        }
        match dataset {
            DatasetKind::Mqar => data.mqar.vocab_size,
            _ => data.recall.vocab_size.unwrap_or(all),
        }
    }

    fn setting<'a>(&'a self, task: &Task, about: &About<'a>) -> Setting<'a> {
        let eval = &self.config.eval;
        Setting {
            data: eval.data.clone().into(),
            text: eval.text.clone(),
            text_field: self.config.data.training.text_field.clone(),
            requests: None,
            tokenizer: about.tokenizer,
            bos: Bos::Auto,
            context: about.context,
            vocab: self.vocab_of(task, about.model.sizes.vocab_size),
            stride: None,
            shots: None,
            limit: Some(eval.limit),
            lengths: eval.lengths.clone(),
            completions: 1,
            temperature: None,
            sandbox: None,
            seed: SEED,
            stop: about.stop,
        }
    }
}

/// As of `linc eval`.
const SEED: u64 = 0;

/// An error at the place of the setting that it is about.
fn refused(config: &JobConfig, error: EvalError) -> TrainError {
    match error {
        EvalError::Request { message, help } => config.problem(&["eval.tasks"], message, Some(help)).into(),
        EvalError::File { path, line: None, message, .. }
            if path.as_os_str() == config.eval.data.as_str() =>
        {
            let message = format!("{}: {message}", path.display());
            let help = "eval.data is the folder with the files of tasks, as they are published".to_owned();
            config.problem(&["eval.data", "eval.tasks"], message, Some(help)).into()
        }
        EvalError::Infer(error) => error.into(),
        EvalError::Data(error) => error.into(),
        EvalError::Checkpoint(error) => error.into(),
        error @ (EvalError::File { .. } | EvalError::Device(_)) => TrainError::Questions(Box::new(error)),
    }
}

impl Questions for InTraining {
    fn begin(&mut self, about: About<'_>) -> Result<Vec<(Entry, Options)>, TrainError> {
        let make = |task: &Task| {
            let setting = self.setting(task, &about);
            let samples = (task.make)(task, &setting).map_err(|error| refused(&self.config, error))?.samples;
            if samples.is_empty() {
                let message = format!("the task {} has no samples", task.name);
                let error = EvalError::request(message, "its texts are empty");
                return Err(refused(&self.config, error));
            }
            Ok((*task, samples))
        };
        let samples: Vec<(Task, Vec<Sample>)> = self.tasks.iter().map(make).collect::<Result<_, _>>()?;
        let all = || samples.iter().flat_map(|(_, samples)| samples);
        let lengths: Vec<usize> = all().flat_map(Sample::sequences).map(<[u32]>::len).collect();
        let (scores, entries) = match lengths.is_empty() {
            true => (None, vec![]),
            false => {
                let About { model, context, options, first, .. } = about;
                let planned = ScorePrograms::beside_training(model, context, &lengths, options, first)?;
                (Some(planned.0), planned.1)
            }
        };
        let decode = about.decode.map(|program| Programs::of_one(about.context, program));
        if let (None, Some((task, _))) =
            (&decode, samples.iter().find(|(_, samples)| samples.iter().any(Sample::is_written)))
        {
            let message = format!("the task {} has texts written, and the model writes none", task.name);
            let error = EvalError::request(message, "choose tasks that score tokens: linc eval --list-tasks");
            return Err(refused(&self.config, error));
        }
        // What does not fit is refused now, and not when the first questions are due.
        for (task, sample) in
            samples.iter().flat_map(|(task, samples)| samples.iter().map(move |one| (task, one)))
        {
            if let (Ask::Write { prompt, tokens, .. }, Some(tokenizer)) = (&sample.ask, about.tokenizer) {
                Prompt::new(tokenizer, prompt, Some(*tokens), about.context).map_err(|error| {
                    let message = format!("the task {}: {error}", task.name);
                    let (message, _) = message.split_once("\n").unwrap_or((&message, ""));
                    let help = "ask it of a checkpoint: linc eval has a --context of its own";
                    refused(&self.config, EvalError::request(message, help))
                })?;
            }
        }
        let tokenizer = about.tokenizer.cloned();
        let (context, vocab) = (about.context, about.model.sizes.vocab_size);
        self.begun = Some(Begun { samples, tokenizer, scores, decode, context, vocab });
        Ok(entries)
    }

    fn ask(
        &mut self,
        session: &mut Session,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<Option<Measures>, TrainError> {
        let Some(begun) = &self.begun else { return Ok(Some(Measures::new())) };
        let mut measures = Measures::new();
        let mut scorer = SessionScorer { session, begun, stop };
        for (task, samples) in &begun.samples {
            let samples: Vec<&Sample> = samples.iter().collect();
            let mut records: Vec<Record> = vec![];
            let mut rest = &samples[..];
            while !rest.is_empty() {
                tell(task.name, records.len(), samples.len());
                let (now, later) = rest.split_at(together(rest));
                let found = answered(&mut scorer, now).map_err(|error| refused(&self.config, error))?;
                let Some(answers) = found else { return Ok(None) };
                records.extend(now.iter().zip(answers).map(|(sample, answer)| {
                    let (metrics, answer) = sample.graded(&answer);
                    Record::new(sample, metrics, answer)
                }));
                rest = later;
            }
            tell(task.name, samples.len(), samples.len());
            let vocab = self.vocab_of(task, begun.vocab);
            let result = TaskResult::new(task, 0, SEED, vocab, records.iter(), String::new(), 0);
            let counts = |name: &str| {
                name == task.metric || !(name.contains("_after_") || name.contains("perplexity"))
            };
            let shown = result.metrics.iter().filter(|(name, _)| counts(name));
            measures.extend(shown.map(|(name, found)| (format!("{}/{name}", task.name), found.value)));
        }
        Ok(Some(measures))
    }
}

/// The model of a run, as it is.
struct SessionScorer<'a> {
    session: &'a mut Session,
    begun: &'a Begun,
    stop: &'a AtomicBool,
}

impl Scorer for SessionScorer<'_> {
    fn vocab(&self) -> usize {
        self.begun.vocab
    }

    fn context(&self) -> usize {
        self.begun.context
    }

    fn prepare(&mut self, _: &[usize]) -> Result<(), EvalError> {
        Ok(())
    }

    fn score(
        &mut self,
        sequences: &[&[u32]],
        each: &mut dyn FnMut(usize, Scores),
    ) -> Result<bool, EvalError> {
        match &self.begun.scores {
            Some(programs) => Ok(programs.score(self.session, sequences, self.stop, each)?),
            None => Ok(sequences.is_empty()),
        }
    }

    fn write(
        &mut self,
        prompts: &[Writing<'_>],
        each: &mut dyn FnMut(usize, String),
    ) -> Result<bool, EvalError> {
        match (&self.begun.decode, &self.begun.tokenizer) {
            (Some(programs), Some(tokenizer)) => continued(
                self.session,
                programs,
                self.begun.vocab,
                (tokenizer, Bos::Auto),
                prompts,
                self.stop,
                each,
            ),
            _ => Ok(prompts.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trained_on_is_asked_in_its_tokens() {
        const ALL: usize = 512;
        let vocab = |dataset: &str, task: &str| {
            let text = format!(
                "[training]\ndataset = \"{dataset}\"\n[training.mqar]\nvocab_size = 64\n[training.recall]\nvocab_size = 32\n"
            );
            let config = JobConfig::of_run(&text).expect("a config");
            let tasks = chosen(&[task.to_owned()]).expect("a task");
            InTraining { config, tasks: tasks.clone(), begun: None }.vocab_of(&tasks[0], ALL)
        };
        assert_eq!((vocab("copy", "copy"), vocab("s5", "s5"), vocab("mqar", "mqar")), (32, 32, 64));
        assert_eq!((vocab("copy", "mqar"), vocab("mqar", "copy"), vocab("stories", "text")), (ALL, ALL, ALL));
        let config = JobConfig::of_run("[training]\ndataset = \"copy\"\n").expect("a config");
        let tasks = chosen(&["copy".to_owned()]).expect("a task");
        assert_eq!(InTraining { config, tasks: tasks.clone(), begun: None }.vocab_of(&tasks[0], ALL), ALL);
    }
}
