//! Whether what was written is what was to be written.

use linc_config::{ConfigError, Problem};

use super::folder::lost;
use super::logits::Read;
use super::names::Weight;
use crate::CheckpointError;

/// Compares two models tensor by tensor, bit by bit.
///
/// # Errors
/// They differ, or one cannot be read.
pub(super) fn check(
    a: &[Weight],
    b: &[Weight],
    read_a: &Read<'_>,
    read_b: &Read<'_>,
) -> Result<(), CheckpointError> {
    if a != b {
        return Err(differs("the tensors of the model that was written are others"));
    }
    for weight in a {
        if read_a(weight).map_err(lost)? != read_b(weight).map_err(lost)? {
            return Err(differs(&format!("{} came back with other bits", weight.linc)));
        }
    }
    Ok(())
}

/// Compares two rows of logits bit by bit.
///
/// # Errors
/// They differ.
pub(super) fn check_logits(expected: &[f32], found: &[f32]) -> Result<(), CheckpointError> {
    let bits = |logits: &[f32]| -> Vec<u32> { logits.iter().map(|logit| logit.to_bits()).collect() };
    if bits(expected) == bits(found) {
        return Ok(());
    }
    let difference = largest_difference(expected, found);
    Err(differs(&format!("the logits of the model that was written differ by up to {difference:.3e}")))
}

pub(super) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn differs(message: &str) -> CheckpointError {
    let help = "nothing was exported: the disk or its memory may be damaged, else this is a mistake of linc";
    ConfigError::from(Problem { message: message.to_owned(), place: None, help: Some(help.to_owned()) })
        .into()
}
