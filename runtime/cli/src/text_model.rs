//! A checkpoint of a model that reads text, for commands that ask it something.

use std::path::Path;

use anyhow::{Result, bail};
use linc_checkpoint::hugging_face::NO_TOKENIZER;
use linc_checkpoint::{ModelRecord, model_of};
use linc_data::{TOKENIZER_FILE, Tokenizer};
use linc_device::words::bytes;
use linc_driver::Model;

use crate::progress::Progress;

/// What a checkpoint says of its model.
pub(crate) struct TextModel {
    pub(crate) record: ModelRecord,
    pub(crate) model: Model,
    pub(crate) tokenizer: Tokenizer,
}

impl TextModel {
    /// Reads it; the weights are not loaded.
    pub(crate) fn open(checkpoint: &Path, bar: &Progress) -> Result<Self> {
        let state = linc_checkpoint::open_while(checkpoint, &mut reading(bar, "checking the checkpoint"))?;
        if state.data.kind == NO_TOKENIZER {
            bail!(
                "{}: it was imported without a tokenizer, so it reads no text\n  help: put the model's {TOKENIZER_FILE} beside its config.json, and import it again",
                checkpoint.display()
            );
        }
        if state.data.kind != "text" {
            bail!(
                "{}: the model was trained on {} sequences, which are no text\n  help: the run says how well it recalls: linc inspect shows the model",
                checkpoint.display(),
                state.data.kind
            );
        }
        let model = model_of(&state.model)?;
        let tokenizer = if state.files.contains_key(TOKENIZER_FILE) {
            Tokenizer::open(&checkpoint.join(TOKENIZER_FILE))?
        } else {
            Tokenizer::bytes()
        };
        Ok(TextModel { record: state.model, model, tokenizer })
    }

    /// The same model with softmax attention in all layers, to compare with.
    pub(crate) fn all_softmax(&self) -> Result<Model> {
        let layers = vec!["softmax".to_owned(); self.record.layers.len()];
        Ok(model_of(&ModelRecord { layers, ..self.record.clone() })?)
    }
}

/// Shows how much of a checkpoint is read.
pub(crate) fn reading<'a>(bar: &'a Progress, what: &'a str) -> impl FnMut(u64, u64) -> Result<()> + 'a {
    move |done, total| {
        bar.show(what, &format!("{what}: {} of {}", bytes(done), bytes(total)), done, total);
        Ok(())
    }
}
