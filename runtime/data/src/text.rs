//! Training batches of text: TorchTitan's packing, shuffled by seed, resumable at any sample.
//!
//! Documents stand one after the other, each as BOS + tokens + EOS, and a sample is the next
//! `seq_len + 1` of those tokens: inputs are all but the last, targets all but the first. Samples do
//! not overlap. Without shuffling that stream repeats for ever in file order, as in TorchTitan.
//!
//! With shuffling each epoch draws, from the seed and its own number, an order of the documents, how
//! many tokens to skip at the start (so that samples are cut elsewhere each time), and an order of the
//! samples. The position is therefore just (epoch, index of the sample), whatever has been read before.

use super::corpus::Corpus;
use super::error::DataError;
use super::rng::{Use, below, permutation, stream};
use super::{Batch, Borders, DataState};

/// Endless training batches.
#[derive(Debug)]
pub struct TextBatches {
    corpus: Corpus,
    batch_size: usize,
    seq_len: usize,
    seed: u64,
    order: Order,
    epoch: u64,
    index: u64,
    held_out: f64,
    borders: Borders,
}

/// What is said and kept of a text besides its tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextSource<'a> {
    /// What it is called in messages.
    pub(super) name: &'a str,
    /// The share that is not in the corpus, since it is held out.
    pub(super) held_out: f64,
    /// What documents have around them.
    pub(super) borders: Borders,
}

#[derive(Debug)]
enum Order {
    /// File order, for ever.
    Files,
    /// One epoch's order.
    Shuffled { documents: Vec<u32>, starts: Vec<u64>, offset: u64, samples: Vec<u32> },
}

impl TextBatches {
    /// Starts at the first sample.
    ///
    /// # Errors
    /// Fewer tokens than one sample.
    pub(super) fn new(
        corpus: Corpus,
        shape: (usize, usize),
        seed: u64,
        shuffle: bool,
        source: TextSource<'_>,
    ) -> Result<Self, DataError> {
        let (batch_size, seq_len) = shape;
        let TextSource { name, held_out, borders } = source;
        let needed = seq_len as u64 + 1;
        if corpus.len() < needed {
            return Err(DataError::TooShort {
                source_name: name.to_owned(),
                tokens: corpus.len(),
                needed,
                held_out: held_out > 0.0,
            });
        }
        let order = if shuffle { shuffled(&corpus, seq_len, seed, 0) } else { Order::Files };
        Ok(Self { corpus, batch_size, seq_len, seed, order, epoch: 0, index: 0, held_out, borders })
    }

    /// The tokenized text.
    pub(super) fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// The batch at the current position, which moves on by its samples.
    pub fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::ignored(self.batch_size, self.seq_len);
        let mut sample = vec![0; self.seq_len + 1];
        for row in 0..self.batch_size {
            self.next_sample(&mut sample);
            let range = row * self.seq_len..(row + 1) * self.seq_len;
            batch.tokens[range.clone()].copy_from_slice(&sample[..self.seq_len]);
            batch.targets[range].copy_from_slice(&sample[1..]);
        }
        batch
    }

    fn next_sample(&mut self, sample: &mut [i32]) {
        let width = sample.len() as u64;
        match &self.order {
            Order::Files => {
                let total = self.corpus.len();
                // u128: the index may grow without bound, the position is what counts.
                let mut from = (u128::from(self.index) * u128::from(width) % u128::from(total)) as u64;
                let mut filled = 0;
                while filled < sample.len() {
                    let count = (sample.len() - filled).min((total - from) as usize);
                    self.corpus.copy(from, &mut sample[filled..filled + count]);
                    filled += count;
                    from = (from + count as u64) % total;
                }
                self.index += 1;
            }
            Order::Shuffled { documents, starts, offset, samples } => {
                let from = offset + u64::from(samples[self.index as usize]) * width;
                let mut at = starts.partition_point(|start| *start <= from) - 1;
                let mut skip = from - starts[at];
                let mut filled = 0;
                while filled < sample.len() {
                    filled += self.corpus.copy_document(documents[at], skip, &mut sample[filled..]);
                    at += 1;
                    skip = 0;
                }
                self.index += 1;
                if self.index as usize == samples.len() {
                    self.epoch += 1;
                    self.index = 0;
                    self.order = shuffled(&self.corpus, self.seq_len, self.seed, self.epoch);
                }
            }
        }
    }

    /// The position of the next sample, and what it is a position in.
    pub fn state(&self) -> DataState {
        DataState {
            kind: "text".to_owned(),
            seed: self.seed,
            shuffle: matches!(self.order, Order::Shuffled { .. }),
            seq_len: self.seq_len,
            size: self.corpus.len(),
            checksum: self.corpus.checksum(),
            held_out: Some(self.held_out),
            borders: Some(self.borders),
            epoch: self.epoch,
            index: self.index,
        }
    }

    /// Goes to a saved position; the batches from there have the same bits as those of the run that saved it.
    ///
    /// # Errors
    /// The state is of other data, another seed or another sequence length.
    pub fn restore(&mut self, state: &DataState) -> Result<(), DataError> {
        self.state().check_same_data(state)?;
        if let Order::Shuffled { .. } = self.order {
            let order = shuffled(&self.corpus, self.seq_len, self.seed, state.epoch);
            let Order::Shuffled { samples, .. } = &order else { return Ok(()) };
            if state.index >= samples.len() as u64 {
                let reason = format!("sample {} of {} in epoch {}", state.index, samples.len(), state.epoch);
                return Err(DataError::Resume { reason });
            }
            self.order = order;
        }
        self.epoch = state.epoch;
        self.index = state.index;
        Ok(())
    }
}

fn shuffled(corpus: &Corpus, seq_len: usize, seed: u64, epoch: u64) -> Order {
    let width = seq_len as u64 + 1;
    let documents = permutation(&mut stream(seed, Use::Documents, epoch), corpus.documents());
    let mut starts = Vec::with_capacity(documents.len());
    let mut start = 0;
    for document in &documents {
        starts.push(start);
        start += corpus.document_len(*document);
    }
    // At least one sample must remain.
    let choices = width.min(corpus.len() - width + 1);
    let offset = below(&mut stream(seed, Use::Offset, epoch), choices);
    let count = u32::try_from((corpus.len() - offset) / width).unwrap_or(u32::MAX);
    let samples = permutation(&mut stream(seed, Use::Samples, epoch), count);
    Order::Shuffled { documents, starts, offset, samples }
}

/// The validation part of a text, in a fixed order, every token a target once but those that begin a sample.
#[derive(Debug)]
pub struct TextValidation {
    corpus: Corpus,
    batch_size: usize,
    seq_len: usize,
}

impl TextValidation {
    /// `None` if there is nothing to predict.
    pub(super) fn new(corpus: Corpus, batch_size: usize, seq_len: usize) -> Option<Self> {
        (corpus.len() >= 2).then_some(Self { corpus, batch_size, seq_len })
    }

    /// The tokenized text.
    pub(super) fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// Number of batches that cover the part.
    pub fn batches(&self) -> usize {
        let per_batch = (self.seq_len as u64 + 1) * self.batch_size as u64;
        // A last sample of a single token has nothing to predict.
        let tokens = match self.corpus.len() % (self.seq_len as u64 + 1) {
            1 => self.corpus.len() - 1,
            _ => self.corpus.len(),
        };
        usize::try_from(tokens.div_ceil(per_batch)).unwrap_or(usize::MAX)
    }

    /// One of the batches, below [`TextValidation::batches`]; what is missing from the last is ignored.
    pub fn batch(&self, index: usize) -> Batch {
        let mut batch = Batch::ignored(self.batch_size, self.seq_len);
        let width = self.seq_len as u64 + 1;
        let mut sample = vec![0; self.seq_len + 1];
        let mut target_bytes = 0;
        for row in 0..self.batch_size {
            let from = (index as u64 * self.batch_size as u64 + row as u64) * width;
            let to = (from + width).min(self.corpus.len());
            if from + 1 >= to {
                break;
            }
            let count = (to - from) as usize;
            self.corpus.copy(from, &mut sample[..count]);
            let at = row * self.seq_len;
            batch.tokens[at..at + count - 1].copy_from_slice(&sample[..count - 1]);
            batch.targets[at..at + count - 1].copy_from_slice(&sample[1..count]);
            target_bytes += self.corpus.bytes_of(from + 1..to);
        }
        batch.target_bytes = Some(target_bytes);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loading::quiet;
    use crate::tokenizer::Tokenizer;

    fn corpus(documents: &[&str]) -> Corpus {
        let documents: Vec<String> = documents.iter().map(|text| (*text).to_owned()).collect();
        quiet(|loading| Corpus::new(documents, &Tokenizer::bytes(), true, loading)).expect("bytes")
    }

    fn batches(documents: &[&str], shape: (usize, usize), seed: u64, shuffle: bool) -> TextBatches {
        let source = TextSource { name: "test", held_out: 0.0, borders: Tokenizer::bytes().borders() };
        TextBatches::new(corpus(documents), shape, seed, shuffle, source).expect("long enough")
    }

    fn text(tokens: &[i32]) -> String {
        tokens.iter().map(|id| if *id == 0 { '|' } else { *id as u8 as char }).collect()
    }

    #[test]
    fn packing_is_titans() {
        let mut data = batches(&["abcd", "ef"], (1, 2), 0, false);
        // The stream is |abcd|ef|abcd|ef..., cut into threes.
        let rows: Vec<(String, String)> = (0..4)
            .map(|_| {
                let batch = data.next_batch();
                (text(&batch.tokens), text(&batch.targets))
            })
            .collect();
        let expected = [("|a", "ab"), ("cd", "d|"), ("ef", "f|"), ("ab", "bc")];
        assert_eq!(rows, expected.map(|(x, y)| (x.to_owned(), y.to_owned())));
    }

    #[test]
    fn batches_are_rows_of_consecutive_samples() {
        let mut wide = batches(&["abcdefghijkl"], (2, 3), 0, false);
        let mut narrow = batches(&["abcdefghijkl"], (1, 3), 0, false);
        let rows = [narrow.next_batch().tokens, narrow.next_batch().tokens].concat();
        assert_eq!(wide.next_batch().tokens, rows);
    }

    #[test]
    fn an_epoch_visits_every_sample_once() {
        let text: String = (0..200).map(|i| char::from(33 + (i % 90) as u8)).collect();
        let documents = [&text[..70], &text[70..75], &text[75..]];
        let mut data = batches(&documents, (1, 4), 7, true);
        for epoch in 0..3 {
            let mut seen = 0;
            let mut counts = [0i32; 256];
            while data.state().epoch == epoch {
                let batch = data.next_batch();
                counts[batch.tokens[0] as usize] += 1;
                batch.targets.iter().for_each(|token| counts[*token as usize] += 1);
                seen += 5;
            }
            let all: i32 = counts.iter().sum();
            assert_eq!(all, seen);
            assert!((195..=200).contains(&seen), "{seen}");
            // 203 tokens: each character occurs two or three times, less those skipped at the ends.
            let missing: i32 = (33..123)
                .map(|c| text.bytes().filter(|b| i32::from(*b) == c).count() as i32 - counts[c as usize])
                .inspect(|missing| assert!(*missing >= 0))
                .sum();
            assert!(missing <= 8, "{missing}");
        }
    }

    #[test]
    fn shuffling_follows_the_seed() {
        let text = "abcdefghijklmnopqrstuvwxyz".repeat(20);
        let first = |seed| batches(&[&text, "0123456789"], (4, 8), seed, true).next_batch().tokens;
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn a_restored_run_goes_on_with_the_same_bits() {
        let text = "the quick brown fox jumps over the lazy dog ".repeat(9);
        for shuffle in [false, true] {
            let fresh = || batches(&[&text, "and another"], (3, 7), 5, shuffle);
            let mut whole = fresh();
            let mut states = Vec::new();
            let mut expected = Vec::new();
            for _ in 0..60 {
                states.push(whole.state());
                expected.push(whole.next_batch());
            }
            assert!(!shuffle || states.iter().any(|state| state.epoch > 2));
            for (at, state) in states.iter().enumerate() {
                let mut resumed = fresh();
                let json = serde_json::to_string(state).expect("serialises");
                resumed.restore(&serde_json::from_str(&json).expect("reads back")).expect("same data");
                assert_eq!(resumed.next_batch(), expected[at]);
                assert_eq!(resumed.state(), states.get(at + 1).cloned().unwrap_or(whole.state()));
            }
        }
    }

    #[test]
    fn a_state_of_other_data_is_refused() {
        let state = batches(&["abcdefgh"], (1, 2), 1, true).state();
        let refuse = |mut data: TextBatches| data.restore(&state).expect_err("refused").to_string();
        assert!(refuse(batches(&["abcdefgX"], (1, 2), 1, true)).contains("data"));
        assert!(refuse(batches(&["abcdefgh"], (1, 3), 1, true)).contains("seq_len"));
        assert!(refuse(batches(&["abcdefgh"], (1, 2), 2, true)).contains("seed"));
        assert!(refuse(batches(&["abcdefgh"], (1, 2), 1, false)).contains("shuffle"));
        let other = DataState { borders: Some(Borders { bos: Some(0), eos: Some(3) }), ..state.clone() };
        let error = batches(&["abcdefgh"], (1, 2), 1, true).restore(&other).expect_err("refused").to_string();
        assert!(error.contains("was BOS token 0, EOS token 3 and is now BOS token 0, EOS none"), "{error}");
        let beyond = DataState { index: 1000, ..state.clone() };
        assert!(batches(&["abcdefgh"], (1, 2), 1, true).restore(&beyond).is_err());
    }

    #[test]
    fn too_little_text_is_refused() {
        let source = TextSource { name: "x.txt", held_out: 0.05, borders: Borders::default() };
        let error = TextBatches::new(corpus(&["abc"]), (1, 4), 0, true, source).expect_err("refused");
        let error = error.to_string();
        assert!(
            error.contains("4 tokens, fewer than one sequence of 5") && error.contains("validation.fraction")
        );
        // Exactly one sample is enough.
        let mut data = batches(&["abc"], (2, 3), 0, true);
        assert_eq!(text(&data.next_batch().tokens), "|ab|ab");
    }

    #[test]
    fn validation_covers_everything_once() {
        let data = TextValidation::new(corpus(&["abcdefgh", "ij"]), 2, 3).expect("not empty");
        // |abc defg... : 12 tokens with the two boundaries, in fours, two rows a batch.
        assert_eq!(data.batches(), 2);
        let first = data.batch(0);
        assert_eq!((text(&first.tokens), text(&first.targets)), ("|abdef".to_owned(), "abcefg".to_owned()));
        assert_eq!(first.target_bytes, Some(6));
        let last = data.batch(1);
        assert_eq!(text(&last.tokens[..3]), "h|i");
        assert_eq!(last.targets[3..], [-1, -1, -1]);
        // Of the targets "|ij" one stands for no byte.
        assert_eq!(last.target_bytes, Some(2));
        assert!(TextValidation::new(corpus(&[]), 2, 3).is_none());
        let odd = TextValidation::new(corpus(&["abcd"]), 1, 3).expect("not empty");
        assert_eq!(odd.batches(), 1);
    }
}
