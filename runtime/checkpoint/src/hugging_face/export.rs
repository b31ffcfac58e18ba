//! From a checkpoint to a Hugging Face folder, which is imported again and asked the same before it gets its name.

use std::collections::BTreeMap;
use std::path::Path;

use linc_config::{ConfigError, Problem};
use linc_data::{TOKENIZER_FILE, Tokenizer, TokenizerFile};
use linc_driver::{AttentionFamily, AttentionKind, Model, Source};

use super::config::Dimensions;
use super::convert::{Element, Way, narrowed, reordered, widened};
use super::counter::{Counter, Tell};
use super::description::{self, GENERATION, Special};
use super::folder::{Unfinished, in_plain_words};
use super::import::{CONFIG, check_table, parameters};
use super::logits::{Evaluated, evaluate};
use super::names::{Weight, weights};
use super::same;
use super::weights::ONE;
use super::{import, likeness};
use crate::read::Tensors;
use crate::write::{self, Tensor, Written};
use crate::{CheckpointError, MODEL_FILE, State, model_of};

/// How a checkpoint is exported.
pub struct ExportOptions {
    /// Number format of the weights.
    pub element: Element,
    /// Bytes of a file of weights at most, unless one tensor has more.
    pub shard_bytes: u64,
    /// The text of the Llama models.
    pub architecture: Source,
}

/// What was exported.
pub struct Exported {
    /// The model, as its checkpoint describes it.
    pub model: Model,
    /// It has the model class that linc writes, which transformers loads only where it is trusted.
    pub own_class: bool,
    /// Files of weights.
    pub shards: usize,
    /// Bytes of the weights.
    pub bytes: u64,
    /// Whether the logits of what was written were compared with the checkpoint's, and were the same: bit by bit, of weights
    /// of the format that was asked for.
    pub logits: Evaluated,
    /// What people should know.
    pub notes: Vec<String>,
}

/// The weights of a checkpoint, by Hugging Face's names and in its order.
pub(super) struct Held {
    tensors: Tensors,
    element: Element,
}

impl Held {
    /// A tensor's contents as they are written.
    pub(super) fn read(&self, weight: &Weight) -> Result<Vec<u8>, String> {
        let wide = reordered(self.wide(weight)?, weight, Way::Export);
        narrowed(wide, self.element)
            .ok_or_else(|| format!("{} has numbers beyond the range of {}", weight.linc, self.element.name()))
    }

    /// A tensor's f32 contents in linc's order.
    pub(super) fn wide(&self, weight: &Weight) -> Result<Vec<u8>, String> {
        self.tensors.read(&weight.linc).map_err(|error| error.to_string())
    }
}

/// Exports a checkpoint as `out`, which must not exist; `tell` hears how far it is.
///
/// # Errors
/// The checkpoint cannot be read, its model is not of a form that can be exported, its weights do not fit the number
/// format, or files cannot be written; nothing is at `out` then.
pub fn export(
    checkpoint: &Path,
    out: &Path,
    options: &ExportOptions,
    tell: &mut Tell<'_>,
) -> Result<Exported, CheckpointError> {
    export_to(checkpoint, out, options, tell).map_err(in_plain_words)
}

fn export_to(
    checkpoint: &Path,
    out: &Path,
    options: &ExportOptions,
    tell: &mut Tell<'_>,
) -> Result<Exported, CheckpointError> {
    let state = crate::open(checkpoint)?;
    let model = model_of(&state.model)?;
    let sizes = sizes(&model)?;
    let linear = linear(&model)?;
    let table = weights(&sizes);
    check_table(&model, &table)?;
    likeness::check(&model, &state.model, &options.architecture)?;
    let held = Held { tensors: Tensors::open(checkpoint, MODEL_FILE)?, element: options.element };
    if options.element == Element::F16 {
        check_range(&held, &table)?;
    }
    let mut notes = vec![];
    let tokenizer = tokenizer(checkpoint, &state, &mut notes)?;
    let special = Special::of(tokenizer.as_ref());
    let own_class = description::needs_class(&sizes, &linear);
    if own_class && !linear.contains(&true) {
        notes.push(format!(
            "transformers has no Llama model of {} features and {} heads, so it gets a model class of its own, as hybrids do",
            sizes.dim, sizes.heads
        ));
    }

    let unfinished = Unfinished::new(out)?;
    let partial = unfinished.path();
    let files = tokenizer.as_ref().map_or(&[][..], Tokenizer::files);
    let described = description::config(&model, &state.model, &sizes, &linear, options.element, special);
    write::write_json(&partial.join(CONFIG), &described)?;
    write_tokenizer(partial, files, special)?;
    if own_class {
        for (name, text) in description::PYTHON {
            write::write_file(&partial.join(name), text.as_bytes())?;
        }
    }
    let size = |weight: &Weight| weight.shape.iter().product::<usize>() * options.element.bytes();
    let bytes = table.iter().map(|weight| size(weight) as u64).sum();
    let wide = bytes * 4 / options.element.bytes() as u64;
    // Each tensor is written once, compared in two places, and loaded for each of the texts.
    let texts = if options.element == Element::F32 { 2 } else { 3 };
    let counter = Counter::new(bytes + (2 + texts) * wide, tell);
    let files = write_weights(partial, &table, options.shard_bytes, &held, &counter)?;

    let logits = check(partial, &model, &table, &held, options, &counter)?;
    unfinished.finish()?;
    Ok(Exported { model, own_class, shards: files, bytes, logits, notes })
}

fn refuse(message: String, help: &str) -> CheckpointError {
    ConfigError::from(Problem { message, place: None, help: Some(help.to_owned()) }).into()
}

fn sizes(model: &Model) -> Result<Dimensions, CheckpointError> {
    let params = parameters(model)?;
    let of_llama = Dimensions {
        layers: model.sizes.n_layers,
        dim: model.sizes.dim,
        heads: model.sizes.n_heads,
        kv_heads: model.sizes.n_kv_heads,
        head_dim: model.sizes.head_dim,
        ffn_dim: 1,
        vocab: model.sizes.vocab_size,
        tied: true,
    };
    // By the names that a Llama model gives them: the feed-forward network's, and the output projection.
    let table = weights(&Dimensions { tied: false, ..of_llama });
    let shape = |foreign: &str| {
        let weight = table.iter().find(|weight| weight.foreign == foreign)?;
        params.get(&weight.linc)
    };
    let ffn_dim = shape("model.layers.0.mlp.gate_proj.weight").map_or(1, |shape| shape[0]);
    Ok(Dimensions { ffn_dim, tied: shape(super::names::OUTPUT).is_none(), ..of_llama })
}

/// Whether each layer has linear attention, of the kind that exported models have.
fn linear(model: &Model) -> Result<Vec<bool>, CheckpointError> {
    let is_known = |kind: &AttentionKind| *kind == kind.family().default_kind();
    match model.kinds.iter().find(|kind| !is_known(kind)) {
        Some(kind) => Err(refuse(
            format!("a layer has {} attention", kind.label()),
            "exported models have softmax attention and linc's own kind of linear attention",
        )),
        None => Ok(model.kinds.iter().map(|kind| kind.family() == AttentionFamily::Linear).collect()),
    }
}

fn check_range(held: &Held, table: &[Weight]) -> Result<(), CheckpointError> {
    match table.iter().find_map(|weight| held.read(weight).err()) {
        None => Ok(()),
        Some(message) => Err(refuse(message, "choose --dtype bfloat16, which has the range of float32")),
    }
}

fn tokenizer(
    checkpoint: &Path,
    state: &State,
    notes: &mut Vec<String>,
) -> Result<Option<Tokenizer>, CheckpointError> {
    if state.files.contains_key(TOKENIZER_FILE) {
        return Ok(Some(Tokenizer::open(&checkpoint.join(TOKENIZER_FILE))?));
    }
    if state.data.kind != "text" {
        return Ok(None);
    }
    notes.push(
        "the model reads bytes: its tokens are the bytes of a text, after a 0; no tokenizer is written"
            .into(),
    );
    Ok(Some(Tokenizer::bytes()))
}

fn write_tokenizer(folder: &Path, files: &[TokenizerFile], special: Special) -> Result<(), CheckpointError> {
    for file in files {
        write::write_file(&folder.join(file.name), &file.bytes)?;
    }
    if files.iter().any(|file| file.name == GENERATION) {
        return Ok(());
    }
    write::write_json(&folder.join(GENERATION), &description::generation(special))
}

/// Writes the weights, and says in how many files.
fn write_weights(
    folder: &Path,
    table: &[Weight],
    limit: u64,
    held: &Held,
    counter: &Counter<'_>,
) -> Result<usize, CheckpointError> {
    let metadata = BTreeMap::from([("format", "pt".to_owned())]);
    let tensor = |weight| {
        let weight: &Weight = weight;
        let read = || counter.count(held.read(weight)?);
        Tensor { name: weight.foreign.clone(), shape: weight.shape.clone(), read: Box::new(read) }
    };
    let tensors: Vec<Tensor<'_>> = table.iter().map(tensor).collect();
    let tensors: Vec<&Tensor<'_>> = tensors.iter().collect();
    let written = write::write_shards(folder, ONE, &tensors, limit, &metadata, held.element.dtype())?;
    Ok(written.values().filter(|file| matches!(file, Written::Tensors(sums, _) if !sums.is_empty())).count())
}

/// Imports what was written, and compares the logits of a short text with those of the checkpoint.
fn check(
    written: &Path,
    model: &Model,
    table: &[Weight],
    held: &Held,
    options: &ExportOptions,
    counter: &Counter<'_>,
) -> Result<Evaluated, CheckpointError> {
    let foreign = import::Foreign::open(written, written, &options.architecture)?;
    let in_order = |bytes: Vec<u8>, weight: &Weight| counter.count(reordered(bytes, weight, Way::Import));
    let rounded = |weight: &Weight| in_order(widened(held.read(weight)?, held.element), weight);
    let imported = |weight: &Weight| in_order(foreign.weights.read(weight)?, weight);
    same::check(&foreign.table, table, &imported, &rounded)?;
    let Some(expected) = evaluate(model, table, &rounded)? else { return Ok(Evaluated::TooLarge) };
    let Some(found) = evaluate(&foreign.model, &foreign.table, &imported)? else {
        return Ok(Evaluated::TooLarge);
    };
    same::check_logits(&expected, &found)?;
    if held.element == Element::F32 {
        return Ok(Evaluated::Same { rounding: 0.0 });
    }
    let before = evaluate(model, table, &|weight| counter.count(held.wide(weight)?))?;
    let rounding = before.map_or(0.0, |before| same::largest_difference(&before, &expected));
    Ok(Evaluated::Same { rounding })
}
