//! Training batches of text: TorchTitan's packing, shuffled by seed, resumable at any sample.
//!
//! Documents stand one after the other, each as BOS + tokens + EOS, and a sample is the next
//! `seq_len + 1` of those tokens: inputs are all but the last, targets all but the first. Samples do
//! not overlap. Documents of one sample may be kept apart (`documents.rs`). In which order a source gives its samples is `sampler.rs`'; which source gives the next one of a mixture, `mix.rs`'.
//! Where tokens are on disk, a thread reads some batches ahead (`ahead.rs`).

mod ahead;
mod documents;
mod mix;
mod permutation;
mod sampler;
mod validation;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::DataError;
use super::tokens::Tokens;
use super::{Batch, Borders, DataState, Part};
use ahead::Ahead;
pub(super) use documents::Apart;
use mix::Mix;
use sampler::Sampler;
pub(super) use sampler::Spot;
pub use validation::TextValidation;

/// Endless training batches.
#[derive(Debug)]
pub struct TextBatches {
    batch_size: usize,
    seq_len: usize,
    /// What [`TextBatches::state`] says of any place. Kept beside the mixture, which a thread that reads ahead holds while
    /// it waits for a disk.
    start: DataState,
    mix: Arc<Mutex<Mix>>,
    /// Whether a thread may read ahead.
    reads_ahead: bool,
    ahead: Option<Ahead>,
    /// Where each source is, behind the batches that were given out.
    spots: Vec<Spot>,
    about: About,
}

/// Sizes of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) documents: u64,
    pub(super) tokens: u64,
    pub(super) text_bytes: u64,
}

/// A text to train on, alone or as a part of a mixture.
#[derive(Debug)]
pub(super) struct TextSource {
    /// What it is called in messages and in checkpoints.
    pub(super) name: String,
    pub(super) tokens: Tokens,
    /// Its share of the samples, beside the weights of others.
    pub(super) weight: f64,
}

/// How a text is trained on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    pub(super) batch_size: usize,
    pub(super) seq_len: usize,
    pub(super) seed: u64,
    pub(super) shuffle: bool,
    /// The share of the text that is not in the sources, since it is held out.
    pub(super) held_out: f64,
    /// What documents have around them.
    pub(super) borders: Borders,
    /// Documents of a sample see nothing of each other.
    pub(super) apart: bool,
}

impl TextBatches {
    /// Starts at the first sample of each source; there is at least one.
    ///
    /// # Errors
    /// A source has fewer tokens than one sample.
    pub(super) fn new(sources: Vec<TextSource>, packing: Packing) -> Result<Self, DataError> {
        let Packing { batch_size, seq_len, seed, shuffle, held_out, borders, apart } = packing;
        let mut about = About::default();
        for TextSource { name, tokens, .. } in &sources {
            let needed = seq_len as u64 + 1;
            if tokens.len() < needed {
                return Err(DataError::TooShort {
                    source_name: name.clone(),
                    tokens: tokens.len(),
                    needed,
                    held_out: held_out > 0.0,
                });
            }
            about.documents += tokens.documents();
            about.tokens += tokens.len();
            about.text_bytes += tokens.text_bytes();
        }
        let reads_ahead = sources.iter().any(|source| source.tokens.are_on_disk());
        let apart = apart.then(|| Apart::new(borders));
        let mix = Mix::new(sources, apart, |tokens| Sampler::new(tokens, seq_len, seed, shuffle));
        let spots = mix.spots();
        let start = mix.state(DataState {
            kind: "text".to_owned(),
            seed,
            shuffle,
            seq_len,
            size: about.tokens,
            held_out: Some(held_out),
            borders: Some(borders),
            ..DataState::default()
        });
        let mix = Arc::new(Mutex::new(mix));
        Ok(Self { batch_size, seq_len, start, mix, reads_ahead, ahead: None, spots, about })
    }

    /// The batches of one rank among several, from the place where this is.
    pub(super) fn of(self, part: Part) -> Self {
        locked(&self.mix).share(part);
        self
    }

    /// Its size.
    pub(super) fn about(&self) -> About {
        self.about
    }

    /// The batch at the current position, which moves on by its samples.
    ///
    /// # Errors
    /// A shard cannot be read; the position is then where it was, and a step begins there.
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        if self.reads_ahead && self.ahead.is_none() {
            self.ahead = Ahead::start(&self.mix, self.batch_size, self.seq_len);
            // A machine without room for a thread does without.
            self.reads_ahead = self.ahead.is_some();
        }
        let next = match &self.ahead {
            Some(ahead) => ahead.next(),
            None => {
                let mut mix = locked(&self.mix);
                mix.next_batch(self.batch_size, self.seq_len).map(|batch| (batch, mix.spots()))
            }
        };
        match next {
            Ok((batch, spots)) => {
                self.spots = spots;
                Ok(batch)
            }
            Err(error) => {
                self.go_to(self.spots.clone());
                Err(error)
            }
        }
    }

    /// Forgets what was read ahead.
    fn go_to(&mut self, spots: Vec<Spot>) {
        if let Some(ahead) = self.ahead.take() {
            ahead.end();
        }
        locked(&self.mix).go_to(&spots);
        self.spots = spots;
    }

    /// The position of the next sample, and what it is a position in. Waits for nothing.
    pub fn state(&self) -> DataState {
        mix::state_at(self.start.clone(), &self.spots)
    }

    /// Goes to a saved position; the batches from there have the same bits as those of the run that saved it.
    ///
    /// # Errors
    /// The state is of other data, another seed or another sequence length.
    pub fn restore(&mut self, state: &DataState) -> Result<(), DataError> {
        self.state().check_same_data(state)?;
        let spots = locked(&self.mix).spots_of(state)?;
        self.go_to(spots);
        Ok(())
    }
}

fn locked(mix: &Mutex<Mix>) -> MutexGuard<'_, Mix> {
    mix.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
