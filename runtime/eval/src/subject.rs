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
    /// The checkpoint or the folder of Hugging Face that it is of, for people.
    pub path: PathBuf,
    /// The checkpoint with its weights.
    pub checkpoint: PathBuf,
    /// What the checkpoint says of itself.
    pub state: State,
    /// Makes tokens of texts; nothing where the model reads none.
    pub tokenizer: Option<Tokenizer>,
    /// What people should know.
    pub notes: Vec<String>,
    /// What was made for a model of Hugging Face; gone when the model is.
    _imported: Option<Imported>,
}

impl Subject {
    /// Opens what a path names. A folder of Hugging Face becomes a checkpoint in the folder `imported`, which is there as long
    /// as what is returned; `architecture` is the text of such models, and `tell` hears how far that is.
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
        let (checkpoint, imported) = if is_foreign {
            // What somebody's killed command left there may be of another model: nothing in it says of which.
            if imported.exists() {
                fs::remove_dir_all(imported).map_err(EvalError::unwritable(imported))?;
            }
            notes = hugging_face::import(path, imported, architecture, tell)?.notes;
            (imported.to_path_buf(), Some(Imported { folder: imported.to_path_buf() }))
        } else {
            (newest(path)?, None)
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
        let path = if is_foreign { path.to_path_buf() } else { checkpoint.clone() };
        Ok(Subject { model, path, checkpoint, state, tokenizer, notes, _imported: imported })
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
}

/// A folder that is removed when it is no longer used, whichever way that ends.
struct Imported {
    folder: PathBuf,
}

impl Drop for Imported {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
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
