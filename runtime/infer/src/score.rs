//! What a model says of given tokens: their log-probabilities, and the most likely token at each place.
//!
//! Sequences of any lengths are padded on the right to the length of a bucket; since a model that decodes is causal,
//! nothing of the padding reaches them. The bucket follows from a sequence's own length, and its program computes each
//! row of a batch by itself, so that what is said of a sequence does not depend on which others are scored with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use linc_device::{Device, words};
use linc_driver::{Entry, Model, Options, Precision, Target, names};
use linc_session::{Session, target};

use crate::error::InferError;

/// The shortest bucket: below it, a program's start is what takes the time.
const SHORTEST: usize = 32;

/// What a model says of a sequence of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Of each token but the first, the natural logarithm of its probability after those before it.
    pub log_probs: Vec<f32>,
    /// The most likely token after each token; not after the last one of a sequence that is longer than the context.
    pub best: Vec<Best>,
}

/// The most likely token at some place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Its id: the smallest of those that are equally likely.
    pub token: u32,
    /// The natural logarithm of its probability.
    pub log_prob: f32,
}

impl Scores {
    /// Whether the token at `index` of the sequence, 1 or more, is the most likely one there.
    pub fn is_best(&self, index: usize, token: u32) -> bool {
        index > 0 && self.best.get(index - 1).is_some_and(|best| best.token == token)
    }
}

/// A program for a batch of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    program: usize,
    batch: usize,
    seq: usize,
}

/// The programs of a session that score, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScorePrograms {
    /// From the shortest to the longest.
    buckets: Vec<Bucket>,
    /// Lengths of all that there could be: which one a sequence belongs to does not depend on which there are.
    sizes: Vec<usize>,
    context: usize,
    vocab: usize,
}

impl ScorePrograms {
    /// Programs for sequences of these `lengths`, or, where there are none, of any length up to `context` tokens and one
    /// more, of which nothing is asked but how likely it is. They are to be entries of a session from number `first` on, and
    /// share their tables with programs of generation for the same context.
    ///
    /// # Errors
    /// [`InferError::Request`] for a context or a length that the model cannot have, [`SessionError::Compile`] with the
    /// place in the model's text if it is not causal.
    pub fn plan(
        model: &Model,
        context: usize,
        lengths: &[usize],
        options: &Options,
        first: usize,
    ) -> Result<(Self, Vec<(Entry, Options)>), InferError> {
        // As long as those of generation, whose last block of a prompt has room for all of its tokens.
        let tables = linc_driver::prompt_blocks(model, options.target, context);
        let tables = tables.map_or(context, |blocks| blocks.context);
        Self::with_tables(model, context, lengths, options, first, tables)
    }

    /// As [`ScorePrograms::plan`], beside programs that train on sequences of `context` tokens, whose tables they share.
    ///
    /// # Errors
    /// As there.
    pub fn beside_training(
        model: &Model,
        context: usize,
        lengths: &[usize],
        options: &Options,
        first: usize,
    ) -> Result<(Self, Vec<(Entry, Options)>), InferError> {
        Self::with_tables(model, context, lengths, options, first, context)
    }

    fn with_tables(
        model: &Model,
        context: usize,
        lengths: &[usize],
        options: &Options,
        first: usize,
        tables: usize,
    ) -> Result<(Self, Vec<(Entry, Options)>), InferError> {
        crate::check_context(model, context)?;
        let vocab = model.sizes.vocab_size;
        let sizes = sizes(model, context);
        let context = sizes.last().copied().unwrap_or(context);
        let mut programs = ScorePrograms { buckets: vec![], sizes, context, vocab };
        let mut wanted = BTreeSet::new();
        for length in lengths {
            programs.check_length(*length)?;
            wanted.extend(programs.size(*length));
        }
        if lengths.is_empty() {
            wanted.extend(&programs.sizes);
        }
        let mut entries = vec![];
        for (program, seq) in (first..).zip(wanted) {
            let batch = (rows(options.target) / seq).max(1);
            programs.buckets.push(Bucket { program, batch, seq });
            entries.push((Entry::Score { context: tables }, Options { batch, seq, ..options.clone() }));
        }
        Ok((programs, entries))
    }

    /// A session for scoring alone.
    ///
    /// # Errors
    /// As [`ScorePrograms::plan`] and [`Session::new`].
    pub fn load(
        model: &Model,
        context: usize,
        lengths: &[usize],
        precision: Precision,
        device: Box<dyn Device>,
    ) -> Result<(Session, Self), InferError> {
        let options = crate::options(precision, target(&*device));
        let (programs, entries) = Self::plan(model, context, lengths, &options, 0)?;
        Ok((crate::session(model, &entries, device)?, programs))
    }

    /// Tokens that the model can read; a sequence may have one more.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Number of tokens that there are.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Whether there is a program for each of these lengths.
    pub fn covers(&self, lengths: &[usize]) -> bool {
        lengths.iter().all(|length| *length <= self.context + 1 && self.bucket(*length).is_some())
    }

    /// Scores sequences of token ids, in batches of those whose lengths are alike; `each` hears their numbers and scores,
    /// a batch at a time. False if `stop` is set before the end: those that `each` did not hear of were not scored.
    ///
    /// # Errors
    /// [`InferError::Request`] for a sequence that is too long or has a token that the model does not have, before
    /// anything runs; [`InferError::LogitsNotFinite`], or what the device refuses.
    pub fn score(
        &self,
        session: &mut Session,
        sequences: &[&[u32]],
        stop: &AtomicBool,
        each: &mut dyn FnMut(usize, Scores),
    ) -> Result<bool, InferError> {
        let mut by_bucket: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut nothing = vec![];
        for (index, ids) in sequences.iter().enumerate() {
            self.check_length(ids.len())?;
            if ids.is_empty() {
                nothing.push(index);
                continue;
            }
            if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab) {
                let message = format!("there is no token {id}: the model has tokens 0 to {}", self.vocab - 1);
                return Err(InferError::request(
                    message,
                    "use the tokenizer that the model was trained with",
                ));
            }
            match self.bucket(ids.len()) {
                Some(bucket) => by_bucket.entry(bucket).or_default().push(index),
                None => {
                    let message =
                        format!("no program was made for sequences of {}", words::count(ids.len(), "token"));
                    return Err(InferError::request(message, "this is a bug of linc: please report it"));
                }
            }
        }
        nothing.into_iter().for_each(|index| each(index, Scores::default()));
        for (bucket, indices) in by_bucket {
            let bucket = self.buckets[bucket];
            for part in indices.chunks(bucket.batch) {
                let batch: Vec<&[u32]> = part.iter().map(|index| sequences[*index]).collect();
                let Some(scores) = self.run(session, bucket, &batch, stop)? else { return Ok(false) };
                part.iter().zip(scores).for_each(|(index, scores)| each(*index, scores));
            }
        }
        Ok(true)
    }

    /// Scores one batch; nothing if `stop` is set before it is through.
    fn run(
        &self,
        session: &mut Session,
        bucket: Bucket,
        batch: &[&[u32]],
        stop: &AtomicBool,
    ) -> Result<Option<Vec<Scores>>, InferError> {
        let Bucket { program, seq, .. } = bucket;
        let mut tokens = vec![0_i32; bucket.batch * seq];
        let mut targets = vec![-1_i32; bucket.batch * seq];
        for (row, ids) in batch.iter().enumerate() {
            let (tokens, targets) = (&mut tokens[row * seq..], &mut targets[row * seq..]);
            let read = self.positions(ids.len());
            tokens.iter_mut().zip(&ids[..read]).for_each(|(to, id)| *to = *id as i32);
            targets.iter_mut().zip(&ids[1..]).for_each(|(to, id)| *to = *id as i32);
        }
        let x = &mut session.executor;
        x.write_input(program, names::TOKENS, bytemuck::cast_slice(&tokens))?;
        x.write_input(program, names::TARGETS, bytemuck::cast_slice(&targets))?;
        if !x.run_until(program, stop)? {
            return Ok(None);
        }
        let log_probs = x.output(program, names::LOG_PROBS)?;
        let best_log_probs = x.output(program, names::BEST_LOG_PROBS)?;
        let best = x.output_ids(program, names::BEST)?;
        let of_row = |(row, ids): (usize, &&[u32])| {
            let (from, read) = (row * seq, self.positions(ids.len()));
            let best = best[from..from + read].iter().zip(&best_log_probs[from..from + read]);
            let best: Vec<Best> =
                best.map(|(token, log_prob)| Best { token: *token as u32, log_prob: *log_prob }).collect();
            if let Some(at) = best.iter().position(|best| !best.log_prob.is_finite()) {
                return Err(InferError::LogitsNotFinite { tokens: at + 1, logit: best[at].log_prob });
            }
            Ok(Scores { log_probs: log_probs[from..from + ids.len() - 1].to_vec(), best })
        };
        batch.iter().enumerate().map(of_row).collect::<Result<_, _>>().map(Some)
    }

    /// Tokens of a sequence that the model reads.
    fn positions(&self, length: usize) -> usize {
        length.min(self.context)
    }

    /// Length of the program for sequences of a length.
    fn size(&self, length: usize) -> Option<usize> {
        self.sizes.iter().copied().find(|size| *size >= self.positions(length))
    }

    /// The program for sequences of a length, if it was made.
    fn bucket(&self, length: usize) -> Option<usize> {
        let size = self.size(length)?;
        self.buckets.iter().position(|bucket| bucket.seq == size)
    }

    fn check_length(&self, length: usize) -> Result<(), InferError> {
        if length <= self.context + 1 {
            return Ok(());
        }
        let message = format!(
            "a sequence has {}; with a context of {} it can have {}",
            words::count(length, "token"),
            self.context,
            self.context + 1
        );
        Err(InferError::request(message, "give a larger --context, or shorter texts"))
    }
}

/// Lengths of the programs for sequences of up to `context` tokens.
fn sizes(model: &Model, context: usize) -> Vec<usize> {
    // The text computes with that number, or has parameters for so many positions.
    if model.reads_seq {
        return vec![model.shape.seq];
    }
    let powers = std::iter::successors(Some(SHORTEST), |size| size.checked_mul(2));
    powers.take_while(|size| *size < context).chain([context]).collect()
}

/// Tokens of a batch: enough for matmuls to be at their speed, and few where one sequence is to be answered soon.
fn rows(target: Target) -> usize {
    match target {
        Target::Cpu => 512,
        Target::Cuda(_) => 8192,
    }
}

#[cfg(test)]
mod tests;
