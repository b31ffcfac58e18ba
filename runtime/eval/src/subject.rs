//! The model that is asked: of a checkpoint, the newest one of a run, or a folder of Hugging Face.

use std::fs;
use std::path::{Path, PathBuf};

use linc_checkpoint::hugging_face::{self, NO_TOKENIZER, Tell};
use linc_checkpoint::{CheckpointError, State, find, model_of};
use linc_data::{TOKENIZER_FILE, Tokenizer};
use linc_driver::{Model, Source};
use serde_json::{Value, json};

use crate::error::EvalError;

/// A model with its weights on disk.
pub struct Subject {
    /// Built from the texts that the checkpoint has of it.
    pub model: Model,
    /// The checkpoint with its weights.
    pub checkpoint: PathBuf,
    /// What the checkpoint says of itself.
    pub state: State,
    /// Makes tokens of texts; nothing where the model reads none.
    pub tokenizer: Option<Tokenizer>,
    /// What people should know.
    pub notes: Vec<String>,
    /// The folder that was made for a model of Hugging Face.
    imported: Option<PathBuf>,
}

impl Subject {
    /// Opens what a path names. A folder of Hugging Face becomes a checkpoint in the folder `imported`, which is used again
    /// where it is there; `architecture` is the text of such models, and `tell` hears how far that is.
    ///
    /// # Errors
    /// There is no model, or it is damaged.
    pub fn open(
        path: &Path,
        imported: &Path,
        architecture: &Source,
        tell: &mut Tell<'_>,
    ) -> Result<Self, EvalError> {
        let is_foreign = path.join("config.json").is_file() && !path.join("state.json").is_file();
        let mut notes = vec![];
        let checkpoint = if is_foreign {
            if linc_checkpoint::open(imported).is_err() {
                if imported.exists() {
                    fs::remove_dir_all(imported).map_err(EvalError::unwritable(imported))?;
                }
                notes = hugging_face::import(path, imported, architecture, tell)?.notes;
            }
            imported.to_path_buf()
        } else {
            newest(path)?
        };
        let state = linc_checkpoint::open(&checkpoint)?;
        let model = model_of(&state.model)?;
        let tokenizer = match state.data.kind.as_str() {
            NO_TOKENIZER => None,
            "text" if state.files.contains_key(TOKENIZER_FILE) => {
                Some(Tokenizer::open(&checkpoint.join(TOKENIZER_FILE))?)
            }
            "text" => Some(Tokenizer::bytes()),
            _ => None,
        };
        let imported = is_foreign.then(|| imported.to_path_buf());
        Ok(Subject { model, checkpoint, state, tokenizer, notes, imported })
    }

    /// What its numbers depend on.
    pub fn identity(&self) -> Value {
        json!({
            "name": self.model.title(),
            "params": self.model.sizes.params,
            "layers": self.model.layer_map(),
            "step": self.state.step,
            "weights": self.state.weights_digest(),
            "tokenizer": self.tokenizer.as_ref().map(Tokenizer::fingerprint),
        })
    }

    /// Removes what was made for a model of Hugging Face, whose folder is as it was.
    pub fn clean(&self) {
        if let Some(folder) = &self.imported {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The checkpoint that a path is, or the newest one in the folder of a run.
fn newest(path: &Path) -> Result<PathBuf, CheckpointError> {
    for folder in [path.join("checkpoint"), path.to_path_buf()] {
        if let Some(found) = find(&folder, -1)? {
            return Ok(found);
        }
    }
    Ok(path.to_path_buf())
}
