//! Which model a run, an evaluation or a study takes, and which of its layers use linear attention.

use std::collections::BTreeMap;

use linc_driver::{Placement, Ratio};

use crate::files::ConfigFiles;
use crate::scalar::Scalar;
use crate::section;
use crate::section::{KeyInfo, Section as _};
use crate::settings::Settings;
use crate::value::Setting;

/// Section whose keys are those of the model file.
pub const OVERRIDES: &str = "model.overrides";

section! {
    /// Which model, and which of its layers use linear attention.
    Model "model" {
        /// Architecture family: models/<name>_<flavor>.toml is the model file.
        name: String = "llama3".to_owned(), check crate::check::not_empty();
        /// Size within the family.
        flavor: String = "debugmodel".to_owned(), check crate::check::not_empty();
        /// Model file; replaces name and flavor.
        path: Option<String> = None, check crate::check::not_empty().if_set();
        /// A Hugging Face tokenizer.json, a rank file of tiktoken or Llama 3, or a folder with one; bytes if unset.
        tokenizer_path: Option<String> = None, aka ["hf_assets_path"], check crate::check::not_empty().if_set();
        /// Share of the layers that use linear attention, to the nearest whole number of layers; 0 if unset. Below 1 it
        /// leaves at least one layer to softmax attention, above 0 it has at least one linear one.
        linear_attn_ratio: Option<Ratio> = None;
        /// Which layers those are; a list needs no ratio.
        linear_attn_placement: Placement = Placement::Uniform;
    }
}

impl Model {
    /// The model that a config names; everything else in it is left alone, and so is what is wrong with it.
    pub(crate) fn of_config(files: &ConfigFiles) -> Self {
        let mut keys = Vec::new();
        Self::describe(&mut keys);
        Self::read(&mut Settings::new(files, &[], keys, &[OVERRIDES]))
    }
}

/// Takes `[model.overrides]`: values that replace those of the model file, by key; nested keys have dots.
pub fn take_overrides(settings: &mut Settings<'_>) -> BTreeMap<String, Scalar> {
    settings.take_open(OVERRIDES, &Scalar::Bool(false))
}

/// What `--list-settings` says of that section.
pub fn describe_overrides() -> KeyInfo {
    KeyInfo {
        name: format!("{OVERRIDES}.KEY"),
        help: "Replaces a number or flag of the model file: `--model.overrides.dim 256`, or a key of a table such as \
               `--model.overrides.linear_attention.rope false`."
            .to_owned(),
        expected: Scalar::expected(),
        default: None,
        aliases: vec![],
        about: "Numbers and flags of the model file, replaced for this run.".to_owned(),
        schema: Scalar::schema(),
    }
}
