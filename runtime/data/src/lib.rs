//! Training and validation data: built-in tasks and text from disk, as batches of tokens.
//!
//! [`Data::open`] gives what [`DataSettings`] ask for. Batches are a function of these, of a [`Reading`] and of a small
//! [`DataState`], which a checkpoint keeps: a restored run reads on with the same bits, without reading
//! what came before. Validation batches are numbered and never change.
//!
//! To add a built-in recall task: a function that draws its sequences, in `recall/tasks.rs`, and a word in [`DatasetKind`]. Other
//! data: a module with the two batch types, a variant in [`TrainingData`] and [`ValidationData`], and such a word.

mod cache;
mod corpus;
mod error;
mod files;
mod loading;
mod open;
mod part;
mod reading;
mod recall;
mod recall_accuracy;
mod rng;
mod settings;
mod shards;
mod split;
mod stories;
mod text;
pub mod threads;
mod token_file;
mod tokenizer;
mod tokens;

pub use cache::TokenCache;
pub use error::DataError;
#[cfg(test)]
pub(crate) use loading::quiet;
pub use loading::{Event, Loading};
pub use part::Part;
pub use reading::{read_file, read_texts};
pub use recall::{RECALL_TASKS, RecallBatches, RecallTask, RecallValidation, Sequence};
pub use recall_accuracy::{RecallAccuracy, Score};
pub use settings::{DataSettings, DatasetKind, MqarConfig, RecallConfig, TrainingSource, ValidationSource};
pub use shards::{INDEX, TokenizeSettings, Tokenized, tokenize};
pub use text::{TextBatches, TextValidation};
pub use tokenizer::{Borders, Detokenizer, Encoded, TOKENIZER_FILE, Tokenizer, TokenizerFile};

use linc_device::words::{count, thousands};
use serde::{Deserialize, Serialize};

/// Inputs and targets of one forward pass, `B` sequences of `N` tokens, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `[B * N]` token ids.
    pub tokens: Vec<i32>,
    /// `[B * N]` ids to predict at each token; -1 where nothing is.
    pub targets: Vec<i32>,
    /// `[B * N]` position of each token in its document, where documents of a sequence are kept apart.
    pub positions: Option<Vec<i32>>,
    /// UTF-8 bytes of the text that the targets stand for; in validation batches of text, where they were counted.
    pub target_bytes: Option<u64>,
    /// Where recall is tested; empty for text.
    pub queries: Vec<Query>,
}

impl Batch {
    /// A batch of token 0 with nothing to predict.
    pub fn ignored(batch_size: usize, seq_len: usize) -> Self {
        let count = batch_size * seq_len;
        Self {
            tokens: vec![0; count],
            targets: vec![-1; count],
            positions: None,
            target_bytes: None,
            queries: Vec::new(),
        }
    }

    /// Number of targets that count.
    pub fn target_count(&self) -> usize {
        self.targets.iter().filter(|target| **target >= 0).count()
    }
}

/// What each batch of an optimizer step counts: its part of all their targets. They add up to 1, or are all 0 where
/// nothing is to be predicted.
///
/// `counts` has the targets of each batch.
pub fn target_shares(counts: &[usize]) -> Vec<f64> {
    let all = counts.iter().sum::<usize>().max(1) as f64;
    counts.iter().map(|count| *count as f64 / all).collect()
}

/// A recall query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its position in the flattened `[B * N]` batch.
    pub position: usize,
    /// Number of pairs in its sequence; of tasks without pairs, of queries.
    pub pairs: usize,
    /// Tokens between the last showing of its key and the query; 0 of tasks without keys.
    pub distance: usize,
}

/// Where in the data training is; kept in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataState {
    /// `text`, or the name of what is generated.
    pub kind: String,
    /// `training.seed`.
    pub seed: u64,
    /// `training.shuffle`.
    pub shuffle: bool,
    /// `training.seq_len`.
    pub seq_len: usize,
    /// Tokens of the training part, or number of generated sequences.
    pub size: u64,
    /// Checksum of the training part, or of the settings that generate it.
    pub checksum: u32,
    /// Share of the text that is held out, 0 for none; not known of old checkpoints, which held it out in any case.
    #[serde(default)]
    pub held_out: Option<f64>,
    /// What documents have around them, of text; not known of old checkpoints.
    #[serde(default)]
    pub borders: Option<Borders>,
    /// Passes over the data that are complete.
    pub epoch: u64,
    /// Samples read in this pass.
    pub index: u64,
    /// Where each source of a mixture is; none of a single source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceState>,
}

/// Where training is in one source of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceState {
    /// Its path.
    pub name: String,
    /// Its weight beside those of others.
    pub weight: f64,
    /// Its tokens.
    pub size: u64,
    /// Their checksum.
    pub checksum: u32,
    /// Passes over it that are complete.
    pub epoch: u64,
    /// Samples read in this pass.
    pub index: u64,
    /// Samples read in all.
    pub taken: u64,
}

impl DataState {
    /// Whether a saved position means the same in the data that `self` is a position in.
    ///
    /// # Errors
    /// [`DataError::Resume`] with what differs.
    pub fn check_same_data(&self, saved: &Self) -> Result<(), DataError> {
        let differs = |what: &str, saved: String, now: String| {
            Err(DataError::Resume { reason: format!("{what} was {saved} and is now {now}") })
        };
        if self.kind != saved.kind {
            return differs("the kind of data", saved.kind.clone(), self.kind.clone());
        }
        if self.seq_len != saved.seq_len {
            return differs("training.seq_len", saved.seq_len.to_string(), self.seq_len.to_string());
        }
        if self.seed != saved.seed {
            return differs("training.seed", saved.seed.to_string(), self.seed.to_string());
        }
        if self.shuffle != saved.shuffle {
            return differs("training.shuffle", saved.shuffle.to_string(), self.shuffle.to_string());
        }
        if saved.borders.is_some() && self.borders != saved.borders {
            let words = |state: &Self| state.borders.unwrap_or_default().to_string();
            return differs("what each document has around it", words(saved), words(self));
        }
        let mixture = |state: &Self| {
            let sources =
                state.sources.iter().map(|source| format!("{} (weight {})", source.name, source.weight));
            sources.collect::<Vec<String>>().join(", ")
        };
        if mixture(self) != mixture(saved) {
            let words = |state: &Self| match state.sources.len() {
                0 => "a single one".to_owned(),
                _ => mixture(state),
            };
            return differs("the mixture of training.datasets", words(saved), words(self));
        }
        if (self.size, self.checksum) != (saved.size, saved.checksum) {
            let (saved_size, size) = (count(saved.size as usize, "token"), thousands(self.size));
            let share = |held_out: Option<f64>| held_out.filter(|share| *share > 0.0);
            let reason = match (saved.held_out, share(saved.held_out), share(self.held_out)) {
                // Such a run goes on with the same bits once it validates.
                (None, _, None) if self.held_out.is_some() && saved.size < self.size => format!(
                    "the training data had {saved_size} and now has {size}; when that checkpoint was made, linc held out validation.fraction of the text even if nothing validated, as --validation.enable true does now"
                ),
                (Some(_), was, is) if was != is => format!(
                    "the training data had {saved_size} and now has {size}, since the share held out for validation was {} and is now {} (validation.enable, validation.fraction)",
                    was.unwrap_or(0.0),
                    is.unwrap_or(0.0)
                ),
                _ => format!(
                    "the training data (files, text_field, tokenizer, validation.fraction) has changed, from {saved_size} to {size}"
                ),
            };
            return Err(DataError::Resume { reason });
        }
        Ok(())
    }
}

/// Endless training batches.
#[derive(Debug)]
pub enum TrainingData {
    /// Text, built in or from disk.
    Text(TextBatches),
    /// Generated recall sequences.
    Recall(RecallBatches),
}

impl TrainingData {
    /// The next batch of `training.batch_size` sequences, of those that are this process's [`Part`].
    ///
    /// # Errors
    /// Tokens on disk cannot be read any more.
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        match self {
            Self::Text(data) => data.next_batch(),
            Self::Recall(data) => Ok(data.next_batch()),
        }
    }

    /// The position of the next batch; where ranks share a step, only between two steps the same on all of them.
    pub fn state(&self) -> DataState {
        match self {
            Self::Text(data) => data.state(),
            Self::Recall(data) => data.state(),
        }
    }

    /// Goes to a saved position.
    ///
    /// # Errors
    /// The state is of other data, another seed or another sequence length.
    pub fn restore(&mut self, state: &DataState) -> Result<(), DataError> {
        match self {
            Self::Text(data) => data.restore(state),
            Self::Recall(data) => data.restore(state),
        }
    }
}

/// Numbered validation batches.
#[derive(Debug)]
pub enum ValidationData {
    /// Text that is not trained on.
    Text(TextValidation),
    /// Recall sequences that are not trained on.
    Recall(RecallValidation),
}

impl ValidationData {
    /// Number of batches that cover the whole part; at least 1.
    pub fn batches(&self) -> usize {
        match self {
            Self::Text(data) => data.batches(),
            Self::Recall(data) => data.batches(),
        }
    }

    /// Number of batches of one measurement: at most `validation.steps`, all if that is -1.
    pub fn batches_of(&self, steps: i64) -> usize {
        usize::try_from(steps).map_or(self.batches(), |steps| steps.min(self.batches()))
    }

    /// Batch number `index`, below [`ValidationData::batches`].
    ///
    /// # Errors
    /// As [`TrainingData::next_batch`].
    pub fn batch(&self, index: usize) -> Result<Batch, DataError> {
        match self {
            Self::Text(data) => data.batch(index),
            Self::Recall(data) => Ok(data.batch(index)),
        }
    }
}

/// All data of a run.
#[derive(Debug)]
pub struct Data {
    /// Batches of training steps.
    pub training: TrainingData,
    /// What is validated on, if there is anything.
    pub validation: Option<ValidationData>,
    /// For text; `None` for recall, whose tokens are no text.
    pub tokenizer: Option<Tokenizer>,
    /// One line for people: what was read, how much of it.
    pub summary: String,
}

/// What a run makes of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// Sequences of a batch.
    pub batch_size: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Seed of the order, and of generated data.
    pub seed: u64,
    /// Whether anything is validated.
    pub validates: bool,
    /// As for [`Tokenizer::from_setting`]; bytes are tokens without it.
    pub tokenizer_path: Option<&'a str>,
    /// Tokens of the model.
    pub vocab_size: usize,
    /// Which batches of a step are read.
    pub part: Part,
}

impl Data {
    /// Opens, or generates, what settings ask for.
    ///
    /// # Errors
    /// Data or tokenizer is missing, unusable or too small, or has more tokens than the model; or
    /// [`DataError::Interrupted`].
    pub fn open(
        settings: &DataSettings,
        reading: Reading<'_>,
        loading: &mut Loading<'_>,
    ) -> Result<Self, DataError> {
        match (settings.training.dataset, settings.training.dataset.task()) {
            (DatasetKind::Mqar, _) => Self::mqar(settings, reading),
            (_, Some(task)) => Self::task(task, settings, reading),
            (_, None) => open::text(settings, reading, loading),
        }
    }

    /// Sequences of a recall task.
    fn task(task: RecallTask, settings: &DataSettings, reading: Reading<'_>) -> Result<Self, DataError> {
        let (config, shape) = (&settings.recall, [reading.batch_size, reading.seq_len]);
        let vocab = config.vocab_size.unwrap_or(reading.vocab_size);
        let of = format!("dataset {:?} (training.recall.vocab_size)", task.name);
        check_vocabulary(&of, vocab, reading.vocab_size)?;
        let vocab = u32::try_from(vocab).unwrap_or(u32::MAX);
        if !recall::exists(task, vocab, reading.seq_len) {
            let (task, seq_len) = (task.name, reading.seq_len);
            return Err(DataError::NoSequences { task, seq_len, vocab });
        }
        let examples = match config.num_examples {
            0 => "endless sequences".to_owned(),
            examples => count(examples, "sequence"),
        };
        let tokens = count(reading.seq_len, "token");
        let training =
            RecallBatches::task(task, config, vocab, shape, reading.seed, settings.training.shuffle)
                .of(reading.part);
        Ok(Self {
            training: TrainingData::Recall(training),
            validation: Some(ValidationData::Recall(RecallValidation::task(task, config, vocab, shape))),
            tokenizer: None,
            summary: format!("{}: {examples} of up to {tokens}, vocabulary {vocab}", task.name),
        })
    }

    fn mqar(settings: &DataSettings, reading: Reading<'_>) -> Result<Self, DataError> {
        let (training, mqar) = (&settings.training, &settings.mqar);
        check_vocabulary("dataset \"mqar\" (training.mqar.vocab_size)", mqar.vocab_size, reading.vocab_size)?;
        let (batch_size, seq_len, seed) = (reading.batch_size, reading.seq_len, reading.seed);
        let examples = match mqar.num_examples {
            0 => "endless sequences".to_owned(),
            examples => count(examples, "sequence"),
        };
        let summary = format!(
            "mqar: {examples} of {} with {:?} pairs, vocabulary {}",
            count(seq_len, "token"),
            mqar.num_kv_pairs,
            mqar.vocab_size
        );
        Ok(Self {
            training: TrainingData::Recall(
                RecallBatches::mqar(mqar, batch_size, seq_len, seed, training.shuffle).of(reading.part),
            ),
            validation: Some(ValidationData::Recall(RecallValidation::mqar(mqar, batch_size, seq_len))),
            tokenizer: None,
            summary,
        })
    }
}

fn check_vocabulary(tokens_of: &str, needed: usize, vocab_size: usize) -> Result<(), DataError> {
    if needed > vocab_size {
        return Err(DataError::Vocabulary { tokens_of: tokens_of.to_owned(), needed, vocab_size });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
