//! Generated sequences that test recall: batches of them to train on, and others to validate on.
//!
//! Row `i` of a seed is always the same sequence, made without making any other.

mod mqar;
mod tasks;

pub use tasks::{RECALL_TASKS, RecallTask, Sequence};

use super::error::DataError;
use super::rng::{Use, permutation, stream};
use super::{Batch, DataState, Part, Query};
use crate::part::Turn;
use crate::settings::{MqarConfig, RecallConfig};

/// What makes the sequences of one part, training or validation.
#[derive(Clone, Debug)]
enum Generator {
    Mqar(mqar::Generator),
    Task { task: RecallTask, config: RecallConfig, vocab: u32, seq_len: usize, seed: u64, purpose: Use },
}

impl Generator {
    /// Writes one sequence into row `row` of a batch.
    fn write(&self, index: u64, row: usize, batch: &mut Batch) {
        match self {
            Self::Mqar(mqar) => mqar.write(index, row, batch),
            Self::Task { task, vocab, seq_len, seed, purpose, .. } => {
                let mut rng = stream(*seed, *purpose, index);
                // A draw that leaves nothing to ask for is a row of nothing to predict.
                let Some((ids, answers)) = task.draw(&mut rng, *seq_len, *vocab) else { return };
                let from = row * seq_len;
                batch.tokens[from..].iter_mut().zip(&ids).for_each(|(to, id)| *to = *id as i32);
                for (at, token) in &answers {
                    batch.targets[from + at] = *token as i32;
                    batch.queries.push(Query { position: from + at, pairs: answers.len(), distance: 0 });
                }
            }
        }
    }

    fn seq_len(&self) -> usize {
        match self {
            Self::Mqar(mqar) => mqar.seq_len(),
            Self::Task { seq_len, .. } => *seq_len,
        }
    }

    fn seed(&self) -> u64 {
        match self {
            Self::Mqar(mqar) => mqar.seed(),
            Self::Task { seed, .. } => *seed,
        }
    }

    /// Sequences before they repeat, 0 for never, and those to validate on.
    fn examples(&self) -> [usize; 2] {
        match self {
            Self::Mqar(mqar) => [mqar.config().num_examples, mqar.config().num_validation_examples],
            Self::Task { config, .. } => [config.num_examples, config.num_validation_examples],
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Mqar(_) => "mqar",
            Self::Task { task, .. } => task.name,
        }
    }

    /// Of all that sequences depend on, beside their length and the seed.
    fn checksum(&self) -> u32 {
        let settings = match self {
            Self::Mqar(mqar) => format!("{:?}", mqar.config()),
            Self::Task { config, vocab, .. } => format!("{vocab} {}", config.num_examples),
        };
        crc32fast::hash(settings.as_bytes())
    }
}

/// Whether a task has sequences of so many tokens.
pub(super) fn exists(task: RecallTask, vocab: u32, seq_len: usize) -> bool {
    let mut batch = Batch::ignored(1, seq_len);
    let config = RecallConfig::default();
    let generator = Generator::Task { task, config, vocab, seq_len, seed: 0, purpose: Use::TaskTraining };
    // By chance there may be one without a question.
    (0..8).for_each(|index| generator.write(index, 0, &mut batch));
    !batch.queries.is_empty()
}

/// Endless training batches.
#[derive(Debug)]
pub struct RecallBatches {
    generator: Generator,
    batch_size: usize,
    shuffle: bool,
    epoch: u64,
    index: u64,
    /// Rows of this epoch; empty where they come in order.
    order: Vec<u32>,
    turn: Turn,
}

impl RecallBatches {
    pub(super) fn mqar(
        config: &MqarConfig,
        batch_size: usize,
        seq_len: usize,
        seed: u64,
        shuffle: bool,
    ) -> Self {
        let generator = mqar::Generator::new(config, seq_len, seed, Use::RecallTraining);
        Self::new(Generator::Mqar(generator), batch_size, shuffle)
    }

    /// Sequences of a task, with tokens below `vocab`.
    pub(super) fn task(
        task: RecallTask,
        config: &RecallConfig,
        vocab: u32,
        [batch_size, seq_len]: [usize; 2],
        seed: u64,
        shuffle: bool,
    ) -> Self {
        let (config, purpose) = (config.clone(), Use::TaskTraining);
        Self::new(Generator::Task { task, config, vocab, seq_len, seed, purpose }, batch_size, shuffle)
    }

    fn new(generator: Generator, batch_size: usize, shuffle: bool) -> Self {
        let turn = Turn::new(Part::WHOLE);
        let mut batches =
            Self { generator, batch_size, shuffle, epoch: 0, index: 0, order: Vec::new(), turn };
        batches.order = batches.order_of(0);
        batches
    }

    /// The batches of one rank among several, from the place where this is.
    pub(super) fn of(self, part: Part) -> Self {
        Self { turn: Turn::new(part), ..self }
    }

    /// Goes over a number of sequences.
    fn pass(&mut self, count: usize) {
        let [examples, _] = self.generator.examples();
        for _ in 0..count {
            self.index += 1;
            // With no number of examples, no sequence ever repeats.
            if self.index == examples as u64 {
                self.epoch += 1;
                self.index = 0;
                self.order = self.order_of(self.epoch);
            }
        }
    }

    fn order_of(&self, epoch: u64) -> Vec<u32> {
        let [examples, _] = self.generator.examples();
        match u32::try_from(examples) {
            Ok(count) if self.shuffle => {
                permutation(&mut stream(self.generator.seed(), Use::Samples, epoch), count)
            }
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// The batch at the current position, which moves on by its samples.
    pub fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::ignored(self.batch_size, self.generator.seq_len());
        self.pass(self.turn.before() * self.batch_size);
        for row in 0..self.batch_size {
            let index = self.order.get(self.index as usize).map_or(self.index, |index| u64::from(*index));
            self.generator.write(index, row, &mut batch);
            self.pass(1);
        }
        let after = self.turn.after() * self.batch_size;
        self.pass(after);
        batch
    }

    /// The position of the next sequence, and what it is a position in.
    pub fn state(&self) -> DataState {
        let [examples, _] = self.generator.examples();
        DataState {
            kind: self.generator.name().to_owned(),
            seed: self.generator.seed(),
            shuffle: self.shuffle,
            seq_len: self.generator.seq_len(),
            size: examples as u64,
            checksum: self.generator.checksum(),
            held_out: Some(0.0),
            epoch: self.epoch,
            index: self.index,
            ..DataState::default()
        }
    }

    /// Goes to a saved position.
    ///
    /// # Errors
    /// The state is of another task, seed or sequence length.
    pub fn restore(&mut self, state: &DataState) -> Result<(), DataError> {
        self.state().check_same_data(state)?;
        let [examples, _] = self.generator.examples();
        if examples > 0 && state.index >= examples as u64 {
            return Err(DataError::Resume { reason: format!("sequence {} of {examples}", state.index) });
        }
        self.turn.begin();
        self.order = self.order_of(state.epoch);
        self.epoch = state.epoch;
        self.index = state.index;
        Ok(())
    }
}

/// Validation sequences, independent of those for training and the same for every training seed.
#[derive(Debug)]
pub struct RecallValidation {
    generator: Generator,
    batch_size: usize,
}

impl RecallValidation {
    /// MQAR of `seq_len` tokens, `batch_size` sequences in a batch.
    pub fn mqar(config: &MqarConfig, batch_size: usize, seq_len: usize) -> Self {
        let generator = mqar::Generator::new(config, seq_len, 0, Use::RecallValidation);
        Self { generator: Generator::Mqar(generator), batch_size }
    }

    /// Sequences of a task, with tokens below `vocab`.
    pub(super) fn task(
        task: RecallTask,
        config: &RecallConfig,
        vocab: u32,
        [batch_size, seq_len]: [usize; 2],
    ) -> Self {
        let (config, purpose) = (config.clone(), Use::TaskValidation);
        Self { generator: Generator::Task { task, config, vocab, seq_len, seed: 0, purpose }, batch_size }
    }

    /// Number of batches that cover the validation sequences.
    pub fn batches(&self) -> usize {
        let [_, examples] = self.generator.examples();
        examples.div_ceil(self.batch_size)
    }

    /// One of the batches, below [`RecallValidation::batches`]; what is missing from the last is ignored.
    pub fn batch(&self, index: usize) -> Batch {
        let mut batch = Batch::ignored(self.batch_size, self.generator.seq_len());
        let first = index * self.batch_size;
        let [_, examples] = self.generator.examples();
        let rows = examples.saturating_sub(first).min(self.batch_size);
        for row in 0..rows {
            self.generator.write((first + row) as u64, row, &mut batch);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn tasks_are_trained_on_by_other_draws_than_they_are_asked_by() {
        for task in RECALL_TASKS {
            let (config, shape) = (RecallConfig::default(), [4, 64]);
            let mut training = RecallBatches::task(*task, &config, 256, shape, 0, true);
            let batch = training.next_batch();
            assert_eq!(batch.queries.len(), batch.target_count(), "{}", task.name);
            assert!(batch.target_count() > 0 && batch.tokens.iter().all(|id| (0..256).contains(id)));
            let validation = RecallValidation::task(*task, &config, 256, shape).batch(0);
            assert_ne!(batch.tokens, validation.tokens, "{}", task.name);
            // As `linc eval` draws, by default with the seed that training has by default.
            for stream in 0..4 {
                let mut rng = ChaCha8Rng::seed_from_u64(0);
                rng.set_stream((64 << 32) | stream);
                let (ids, _) = task.draw(&mut rng, 64, 256).expect("a sequence");
                let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
                let rows = batch.tokens.chunks(64).chain(validation.tokens.chunks(64));
                assert!(rows.clone().all(|row| row[..ids.len()] != ids), "{}", task.name);
            }
            // The sequence and its answers are the generator's.
            let mut rng = stream(0, Use::TaskTraining, 2);
            let (ids, answers) = task.draw(&mut rng, 64, 256).expect("a sequence");
            assert!(batch.tokens[128..].iter().zip(&ids).all(|(a, b)| *a == *b as i32), "{}", task.name);
            assert!(answers.iter().all(|(at, token)| batch.targets[128 + at] == *token as i32));
        }
    }

    #[test]
    fn a_restored_run_of_a_task_goes_on_with_the_same_bits() {
        let copy = *RECALL_TASKS.iter().find(|task| task.name == "copy").expect("a task");
        for (examples, vocab) in [(0, 32), (5, 32)] {
            let config = RecallConfig { num_examples: examples, ..RecallConfig::default() };
            let fresh = |vocab| RecallBatches::task(copy, &config, vocab, [3, 17], 1, true);
            let mut whole = fresh(vocab);
            let states: Vec<_> = (0..5).map(|_| (whole.state(), whole.next_batch())).collect();
            for (state, expected) in &states {
                let mut resumed = fresh(vocab);
                resumed.restore(state).expect("same task");
                assert_eq!(&resumed.next_batch(), expected);
                assert!(fresh(33).restore(state).is_err(), "another vocabulary");
            }
        }
    }
}
