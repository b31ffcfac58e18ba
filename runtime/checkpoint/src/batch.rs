//! Whether a model is the same for batches of another size: its text may compute with the number `batch`. (A run that goes
//! on keeps the length of its sequences: its place in the data depends on that.)

use linc_driver::{Entry, Options, PersistentLayout, Room};

use crate::model::model_of;
use crate::{CheckpointError, ModelRecord};

/// A number of sequences in a batch that the model's text reads, and that is another than it was trained with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchChange {
    /// ``its text reads `batch`, which was 2 and is 4 now``.
    pub text: String,
    /// A single token of it is computed in another way. A model that cannot generate does not tell.
    pub is_other: bool,
}

/// What another size of batches makes of a model with the same text; nothing if it computes the same for each token, as
/// where the number only gives tensors other axes.
///
/// # Errors
/// [`CheckpointError::Model`] if the model of now cannot be built.
pub fn batch_change(saved: &ModelRecord, now: &ModelRecord) -> Result<Option<BatchChange>, CheckpointError> {
    // Checkpoints of older versions do not say what their batches were.
    let is_same = saved.batch_size == 0 || saved.batch_size == now.batch_size;
    if is_same || !model_of(now)?.reads_batch {
        return Ok(None);
    }
    let (before, after) = (token_graph(saved), token_graph(now));
    if before.is_some() && before == after {
        return Ok(None);
    }
    let text =
        format!("its text reads `batch`, which was {} and is {} now", saved.batch_size, now.batch_size);
    Ok(Some(BatchChange { text, is_other: before.is_some() && after.is_some() }))
}

/// The graph of one token in one sequence, without what does nothing; none if the model cannot generate.
fn token_graph(record: &ModelRecord) -> Option<String> {
    let options = Options { dumps: true, ..Options::new(1, 1) };
    let model = model_of(record).ok()?;
    let entry = Entry::Decode(Room::of_one(record.seq_len));
    let compiled = linc_driver::compile(&model, &entry, &options, &mut PersistentLayout::default()).ok()?;
    compiled.graph_after("dce").map(str::to_string)
}
