//! What a model says of a short text: the question that an export is checked by.

use linc_device::Choice;
use linc_driver::{Entry, Model, Options, PersistentLayout, names};
use linc_exec::{ExecError, Executor};

use super::import::SHORT;
use super::names::Weight;
use crate::CheckpointError;

/// How the logits of an export were compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evaluated {
    /// They have the same bits; rounding the weights moved them by so much at most.
    Same {
        /// Largest difference to the logits of the checkpoint's own weights.
        rounding: f32,
    },
    /// The model does not fit the memory of this machine: only the tensors were compared.
    TooLarge,
}

/// Reads a tensor as little-endian f32 in linc's order.
pub(super) type Read<'a> = dyn Fn(&Weight) -> Result<Vec<u8>, String> + 'a;

/// The logits of a short text of many tokens, `[tokens, vocab]`, on the CPU, which every machine has; nothing if the model
/// does not fit it.
pub(super) fn evaluate(
    model: &Model,
    table: &[Weight],
    read: &Read<'_>,
) -> Result<Option<Vec<f32>>, CheckpointError> {
    const FORWARD: usize = 0;
    let seq = SHORT.min(model.shape.seq);
    let compiled = linc_driver::compile(
        model,
        &Entry::Forward,
        &Options::new(1, seq),
        &mut PersistentLayout::default(),
    )?;
    let device = Choice::Cpu.open(None).map_err(ExecError::from)?.device;
    let mut executor = match Executor::new(device, vec![compiled.plan]) {
        Ok(executor) => executor,
        Err(ExecError::DoesNotFit { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    executor.initialize_constants()?;
    for weight in table {
        let bytes = read(weight).map_err(super::folder::lost)?;
        executor.write_tensor(&weight.linc, &bytes)?;
    }
    // Far apart in the vocabulary, so that many rows of the embedding are asked for.
    let tokens: Vec<i32> = (0..seq).map(|i| ((i * 7919 + 13) % model.sizes.vocab_size) as i32).collect();
    executor.write_input(FORWARD, names::TOKENS, bytemuck::cast_slice(&tokens))?;
    executor.run(FORWARD)?;
    Ok(Some(executor.output(FORWARD, names::LOGITS)?))
}
