//! Validation batches of text.

use super::documents::Apart;
use crate::Batch;
use crate::error::DataError;
use crate::tokens::Tokens;

/// The validation part of a text, in a fixed order, every token a target once but those that begin a sample. Of several
/// parts the batches are spread evenly, so that the first ones are of all of them.
#[derive(Debug)]
pub struct TextValidation {
    parts: Vec<Tokens>,
    /// Part and number within it of each batch.
    order: Vec<(usize, usize)>,
    batch_size: usize,
    seq_len: usize,
    /// Where documents are kept apart.
    apart: Option<Apart>,
}

impl TextValidation {
    /// `None` if there is nothing to predict.
    pub(crate) fn new(
        mut parts: Vec<Tokens>,
        batch_size: usize,
        seq_len: usize,
        apart: Option<Apart>,
    ) -> Option<Self> {
        parts.retain(|tokens| tokens.len() >= 2);
        let mut order = Vec::new();
        for (part, tokens) in parts.iter().enumerate() {
            let count = batches_of(tokens.len(), batch_size, seq_len);
            let place = |index: usize| (index as f64 + 0.5) / count as f64;
            order.extend((0..count).map(|index| (place(index), (part, index))));
        }
        order.sort_by(|(a, at), (b, other)| a.total_cmp(b).then(at.cmp(other)));
        let order: Vec<(usize, usize)> = order.into_iter().map(|(_, batch)| batch).collect();
        (!order.is_empty()).then_some(Self { parts, order, batch_size, seq_len, apart })
    }

    /// Number of tokens.
    pub(crate) fn tokens(&self) -> u64 {
        self.parts.iter().map(Tokens::len).sum()
    }

    /// Number of batches that cover the part.
    pub fn batches(&self) -> usize {
        self.order.len()
    }

    /// One of the batches, below [`TextValidation::batches`]; what is missing from the last of a part is ignored.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub fn batch(&self, index: usize) -> Result<Batch, DataError> {
        let (part, index) = self.order[index];
        let tokens = &self.parts[part];
        let mut batch = Batch::ignored(self.batch_size, self.seq_len);
        let width = self.seq_len as u64 + 1;
        let mut sample = vec![0; self.seq_len + 1];
        let mut target_bytes = Some(0);
        // Of rows that do not exist as well, each token is somewhere in a document.
        batch.positions = self.apart.map(|_| vec![0; self.batch_size * self.seq_len]);
        for row in 0..self.batch_size {
            let from = (index as u64 * self.batch_size as u64 + row as u64) * width;
            let to = (from + width).min(tokens.len());
            if from + 1 >= to {
                break;
            }
            let count = (to - from) as usize;
            tokens.copy(from, &mut sample[..count])?;
            let at = row * self.seq_len;
            batch.tokens[at..at + count - 1].copy_from_slice(&sample[..count - 1]);
            batch.targets[at..at + count - 1].copy_from_slice(&sample[1..count]);
            let of_row = tokens.bytes_of(from + 1..to)?;
            target_bytes = target_bytes.zip(of_row).map(|(sum, of_row)| sum + of_row);
            let Some((apart, positions)) = self.apart.zip(batch.positions.as_mut()) else { continue };
            let starts = tokens.starts_in(from..to)?;
            let starts: Vec<usize> = starts.into_iter().map(|start| (start - from) as usize).collect();
            let range = at..at + self.seq_len;
            for target in apart.mark(&starts, &mut positions[range.clone()], &mut batch.targets[range]) {
                let token = from + 1 + target as u64;
                let of_token = tokens.bytes_of(token..token + 1)?;
                target_bytes = target_bytes.zip(of_token).map(|(sum, of_token)| sum - of_token);
            }
        }
        batch.target_bytes = target_bytes;
        Ok(batch)
    }
}

/// Number of batches that cover so many tokens.
fn batches_of(tokens: u64, batch_size: usize, seq_len: usize) -> usize {
    let per_batch = (seq_len as u64 + 1) * batch_size as u64;
    // A last sample of a single token has nothing to predict.
    let tokens = if tokens % (seq_len as u64 + 1) == 1 { tokens - 1 } else { tokens };
    usize::try_from(tokens.div_ceil(per_batch)).unwrap_or(usize::MAX)
}
