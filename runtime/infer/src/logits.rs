//! The logits of a text, for programs that compare them with those of other implementations.

use std::fs;
use std::path::Path;

use linc_device::words::{help_to_write, reason};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::error::InferError;

/// The tokens that a model was fed, and what it said of the next one after each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    /// Prompt and continuation.
    pub tokens: Vec<u32>,
    /// `[tokens, vocab]`, row by row.
    pub rows: Vec<f32>,
}

impl Logits {
    /// Writes a safetensors file with `tokens`, i32 `[n]`, and `logits`, f32 `[n, vocab]`.
    ///
    /// # Errors
    /// [`InferError::Request`] if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), InferError> {
        let refuse =
            |why: String, help: &str| InferError::request(format!("{}: {why}", path.display()), help);
        let too_large = |error: String| refuse(error, "give fewer --tokens");
        let tokens: Vec<u8> = self.tokens.iter().flat_map(|token| (*token as i32).to_le_bytes()).collect();
        let rows: Vec<u8> = self.rows.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        let (n, all) = (self.tokens.len(), self.rows.len());
        let view =
            |dtype, shape, data| TensorView::new(dtype, shape, data).map_err(|e| too_large(e.to_string()));
        let views = [
            ("logits", view(Dtype::F32, vec![n, all / n.max(1)], &rows)?),
            ("tokens", view(Dtype::I32, vec![n], &tokens)?),
        ];
        let bytes = safetensors::serialize(views, None).map_err(|error| too_large(error.to_string()))?;
        fs::write(path, bytes)
            .map_err(|error| refuse(format!("cannot write it: {}", reason(&error)), help_to_write(&error)))
    }
}
