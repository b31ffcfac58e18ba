//! Samples of one source, in file order or shuffled.
//!
//! Without shuffling the stream of tokens repeats for ever in file order, as in TorchTitan.
//!
//! With shuffling each epoch draws, from the seed and its own number, how many tokens to skip at the start (so that samples
//! are cut elsewhere each time), and an order of the samples; of tokens in memory an order of the documents too. The
//! position is therefore just (epoch, index of the sample), whatever has been read before.

use super::permutation::Permutation;
use crate::corpus::Corpus;
use crate::error::DataError;
use crate::rng::{Use, below, permutation, stream};
use crate::tokens::Tokens;

/// Where a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Passes over it that are complete.
    pub(crate) epoch: u64,
    /// Samples read in this pass.
    pub(crate) index: u64,
    /// Samples read in all.
    pub(crate) taken: u64,
}

#[derive(Debug)]
pub(super) struct Sampler {
    tokens: Tokens,
    seq_len: usize,
    seed: u64,
    shuffle: bool,
    order: Order,
    spot: Spot,
}

/// The order of one epoch.
#[derive(Debug)]
enum Order {
    /// File order, for ever.
    Files,
    /// Samples are cut from documents in random order, and put in random order too.
    Shuffled { documents: Documents, offset: u64, samples: Vec<u32> },
    /// Samples shuffled, of documents in file order: of a large corpus no list of either is made.
    Far { offset: u64, samples: Permutation },
}

/// Documents in random order.
#[derive(Debug)]
struct Documents {
    /// Where each is among the tokens.
    origins: Vec<u64>,
    /// Where each starts in this order, and where the last ends.
    starts: Vec<u64>,
}

impl Sampler {
    /// At the first sample of tokens that have at least one.
    pub(super) fn new(tokens: Tokens, seq_len: usize, seed: u64, shuffle: bool) -> Self {
        let order = Order::of(&tokens, seq_len, seed, shuffle, 0);
        Self { tokens, seq_len, seed, shuffle, order, spot: Spot::default() }
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub(super) fn spot(&self) -> Spot {
        self.spot
    }

    /// Samples of the present epoch; `None` where it has no end.
    fn samples(&self) -> Option<u64> {
        match &self.order {
            Order::Files => None,
            Order::Shuffled { samples, .. } => Some(samples.len() as u64),
            Order::Far { samples, .. } => Some(samples.len()),
        }
    }

    /// Goes to another place, without reading what is before it.
    pub(super) fn go_to(&mut self, spot: Spot) {
        if spot.epoch != self.spot.epoch {
            self.order = Order::of(&self.tokens, self.seq_len, self.seed, self.shuffle, spot.epoch);
        }
        self.spot = spot;
    }

    /// That a place of a checkpoint is one of this source.
    ///
    /// # Errors
    /// It is behind the samples of its epoch.
    pub(super) fn check(&self, spot: Spot) -> Result<(), DataError> {
        let order = Order::of(&self.tokens, self.seq_len, self.seed, self.shuffle, spot.epoch);
        let samples = match order {
            Order::Files => return Ok(()),
            Order::Shuffled { samples, .. } => samples.len() as u64,
            Order::Far { samples, .. } => samples.len(),
        };
        if spot.index < samples {
            return Ok(());
        }
        let reason = format!("sample {} of {samples} in epoch {}", spot.index, spot.epoch);
        Err(DataError::Resume { reason })
    }

    /// The next sample, of `seq_len + 1` tokens; in `starts`, if that is asked for, the places in it of the first tokens of
    /// documents.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub(super) fn next_sample(
        &mut self,
        sample: &mut [i32],
        mut starts: Option<&mut Vec<usize>>,
    ) -> Result<(), DataError> {
        let width = sample.len() as u64;
        let tokens = &self.tokens;
        if let Some(starts) = &mut starts {
            starts.clear();
        }
        // Copies tokens from a place on to one in the sample.
        let mut copy = |from: u64, filled: usize, out: &mut [i32]| {
            tokens.copy(from, out)?;
            if let Some(starts) = &mut starts {
                let found = tokens.starts_in(from..from + out.len() as u64)?;
                starts.extend(found.into_iter().map(|start| filled + (start - from) as usize));
            }
            Ok::<(), DataError>(())
        };
        match &self.order {
            Order::Files => {
                let total = self.tokens.len();
                // u128: the index may grow without bound, the position is what counts.
                let mut from = (u128::from(self.spot.index) * u128::from(width) % u128::from(total)) as u64;
                let mut filled = 0;
                while filled < sample.len() {
                    let count = (sample.len() - filled).min((total - from) as usize);
                    copy(from, filled, &mut sample[filled..filled + count])?;
                    filled += count;
                    from = (from + count as u64) % total;
                }
            }
            Order::Shuffled { documents: Documents { origins, starts }, offset, samples } => {
                let from = offset + u64::from(samples[self.spot.index as usize]) * width;
                let mut at = starts.partition_point(|start| *start <= from) - 1;
                let mut skip = from - starts[at];
                let mut filled = 0;
                while filled < sample.len() {
                    let left = starts[at + 1] - starts[at] - skip;
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(sample.len() - filled);
                    copy(origins[at] + skip, filled, &mut sample[filled..filled + count])?;
                    filled += count;
                    at += 1;
                    skip = 0;
                }
            }
            Order::Far { offset, samples } => {
                copy(offset + samples.at(self.spot.index) * width, 0, sample)?;
            }
        }
        self.pass();
        Ok(())
    }

    /// Goes to the sample behind the next one.
    pub(super) fn pass(&mut self) {
        self.spot.index += 1;
        self.spot.taken += 1;
        if Some(self.spot.index) == self.samples() {
            self.go_to(Spot { epoch: self.spot.epoch + 1, index: 0, taken: self.spot.taken });
        }
    }
}

impl Order {
    fn of(tokens: &Tokens, seq_len: usize, seed: u64, shuffle: bool, epoch: u64) -> Self {
        if !shuffle {
            return Self::Files;
        }
        let width = seq_len as u64 + 1;
        // At least one sample must remain.
        let choices = width.min(tokens.len() - width + 1);
        let offset = below(&mut stream(seed, Use::Offset, epoch), choices);
        let count = (tokens.len() - offset) / width;
        match tokens {
            Tokens::Memory(corpus) => {
                let documents = Documents::shuffled(corpus, seed, epoch);
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                let samples = permutation(&mut stream(seed, Use::Samples, epoch), count);
                Self::Shuffled { documents, offset, samples }
            }
            Tokens::Shards(_) => Self::Far { offset, samples: Permutation::new(count, seed, epoch) },
        }
    }
}

impl Documents {
    fn shuffled(corpus: &Corpus, seed: u64, epoch: u64) -> Self {
        let order = permutation(&mut stream(seed, Use::Documents, epoch), corpus.documents());
        let (mut origins, mut starts) =
            (Vec::with_capacity(order.len()), Vec::with_capacity(order.len() + 1));
        let mut start = 0;
        for document in order {
            let place = corpus.document(document);
            origins.push(place.start);
            starts.push(start);
            start += place.end - place.start;
        }
        starts.push(start);
        Self { origins, starts }
    }
}
