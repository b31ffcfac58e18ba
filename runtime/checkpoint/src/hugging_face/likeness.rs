//! Whether the architecture of a checkpoint computes what a Llama model computes, however it is written.

use linc_config::{ConfigError, Problem};
use linc_driver::{BatchShape, Model, Source, check_same};

use crate::{CheckpointError, ModelRecord};

const HELP: &str = "Hugging Face's format has Llama models and hybrids of them; an edited architecture needs a model class of its own there";

/// Refuses a model that is no Llama model but for the kinds of its layers.
///
/// # Errors
/// [`CheckpointError::Model`] at the first expression that makes another model of it, or [`CheckpointError::HuggingFace`] if
/// its numbers alone do.
pub(super) fn check(model: &Model, record: &ModelRecord, llama: &Source) -> Result<(), CheckpointError> {
    let toml = Source { path: record.model_path.clone(), text: record.model_toml.clone() };
    let shape = BatchShape { batch: model.shape.batch, seq: model.shape.seq };
    let describe = |reason: &str| format!("it is not the architecture of a Llama model: it {reason}");
    match Model::with_kinds(&toml, llama, &record.overrides, model.kinds.clone(), shape) {
        Ok(llama) => Ok(check_same(model, &llama, &describe, HELP)?),
        Err(error) => {
            let error = error.to_string();
            let first = error.lines().next().unwrap_or_default();
            let reason = describe(&format!("has numbers of its own ({first})"));
            let message = format!("{}: {reason}", record.architecture_path);
            Err(ConfigError::from(Problem { message, place: None, help: Some(HELP.to_owned()) }).into())
        }
    }
}
