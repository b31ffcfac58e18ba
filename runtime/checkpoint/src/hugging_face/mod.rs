//! Hugging Face's format, in and out: a folder with `config.json`, safetensors and a tokenizer becomes a checkpoint, and a
//! checkpoint becomes such a folder.
//!
//! Names, shapes and orders of rows are one table (`names.rs`), which both ways go by. What is written is written under
//! another name and renamed when it is whole. Nothing is guessed: a key of `config.json` that linc does not know may change
//! what the model computes, and ends the import.

mod config;
mod convert;
mod counter;
mod description;
mod export;
mod folder;
mod import;
mod json;
mod layers;
mod likeness;
mod logits;
mod model_file;
mod names;
mod reader;
mod rope;
mod same;
mod weights;

#[cfg(test)]
mod tests;

pub use convert::Element;
pub use counter::Tell;
pub use export::{ExportOptions, Exported, export};
pub(crate) use import::CONFIG;
pub use import::{Imported, MODEL_TOML, NO_TOKENIZER, import, usual_folder};
pub use logits::Evaluated;
