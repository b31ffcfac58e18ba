//! From a Hugging Face folder to a checkpoint of weights alone, with its model's texts beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use linc_config::{ConfigError, Problem};
use linc_data::{DataError, DataState, TOKENIZER_FILE, Tokenizer};
use linc_driver::{
    AttentionFamily, AttentionKind, Entry, HEAD_DIM_MULTIPLE, Model, Options, PersistentLayout, Placement,
    Ratio, Source, layer_kinds,
};
use linc_plan::Role;

use super::config::Config;
use super::convert::{Way, reordered};
use super::counter::{Counter, Tell};
use super::folder::{Unfinished, in_plain_words};
use super::json::Document;
use super::model_file::{self, FAMILY};
use super::names::{Weight, weights};
use super::weights::Weights;
use crate::write::{self, Tensor};
use crate::{Checkpoint as Settings, CheckpointError, Contents, ModelRecord, State, model_of};

/// The model file of an imported model, in its folder.
pub const MODEL_TOML: &str = "model.toml";
/// The kind of data of a model that was imported without a tokenizer, so that it reads no text.
pub const NO_TOKENIZER: &str = "token";
/// The file that says what a model of Hugging Face is.
pub(crate) const CONFIG: &str = "config.json";

/// What was imported.
pub struct Imported {
    /// The model, as its checkpoint describes it.
    pub model: Model,
    /// Number formats of the weights that were read; the checkpoint has f32.
    pub formats: String,
    /// Whether texts become tokens of this model, by its tokenizer or as bytes.
    pub reads_text: bool,
    /// Whether it has a tokenizer's file.
    pub has_tokenizer: bool,
    /// What people should know.
    pub notes: Vec<String>,
}

/// A folder that was read and checked, but for the weights themselves.
pub(super) struct Foreign {
    pub(super) config: Config,
    pub(super) table: Vec<Weight>,
    pub(super) weights: Weights,
    pub(super) record: ModelRecord,
    pub(super) model: Model,
    pub(super) notes: Vec<String>,
}

impl Foreign {
    /// Opens a folder; `out` is where its model file will be, for messages.
    pub(super) fn open(folder: &Path, out: &Path, architecture: &Source) -> Result<Self, CheckpointError> {
        let refuse = |problems: Vec<Problem>| CheckpointError::from(ConfigError { problems });
        let document = Document::open(&folder.join(CONFIG), "config of a model")
            .map_err(|problem| refuse(vec![problem]))?;
        let config = Config::read(&document).and_then(|config| {
            match config.sizes.head_dim.is_multiple_of(HEAD_DIM_MULTIPLE) {
                true => Ok(config),
                false => {
                    let message = format!("heads have {} features", config.sizes.head_dim);
                    let help = format!("linc has kernels for multiples of {HEAD_DIM_MULTIPLE}");
                    Err(vec![document.problem(&["head_dim"], message, help)])
                }
            }
        });
        let config = config.map_err(refuse)?;
        let table = weights(&config.sizes);
        let weights = Weights::open(folder, &config, &table).map_err(refuse)?;
        weights.check_tie(folder, &config).map_err(|problem| refuse(vec![problem]))?;
        let record = record(folder, out, &config, architecture);
        let model = model_of(&record)?;
        let record = ModelRecord { params: model.sizes.params, ..record };
        check_table(&model, &table)?;
        let mut notes = weights.notes.clone();
        if config.linear.contains(&true) && config.linear_options.is_none() {
            let options = model.config().linear_attention();
            notes.push(format!(
                "config.json gives no options for linear attention: rope = {}, temperature = {}",
                options.rope, options.temperature
            ));
        }
        Ok(Foreign { config, table, weights, record, model, notes })
    }
}

/// Imports a folder as `out`, which must not exist. `architecture` is the text of the Llama models; `tell` hears how far it
/// is.
///
/// # Errors
/// [`CheckpointError::HuggingFace`] with all that is wrong with the folder, [`CheckpointError::Data`] for its tokenizer,
/// or [`CheckpointError::Io`]; nothing is at `out` then.
pub fn import(
    folder: &Path,
    out: &Path,
    architecture: &Source,
    tell: &mut Tell<'_>,
) -> Result<Imported, CheckpointError> {
    import_to(folder, out, architecture, tell).map_err(in_plain_words)
}

fn import_to(
    folder: &Path,
    out: &Path,
    architecture: &Source,
    tell: &mut Tell<'_>,
) -> Result<Imported, CheckpointError> {
    let foreign = Foreign::open(folder, out, architecture)?;
    let mut notes = foreign.notes.clone();
    let tokenizer = tokenizer(folder, &foreign.config, &mut notes)?;
    let unfinished = Unfinished::new(out)?;
    let total = foreign.table.iter().map(|weight| 4 * weight.shape.iter().product::<usize>() as u64).sum();
    let counter = Counter::new(total, tell);
    let tensor = |weight| {
        let weight: &Weight = weight;
        let read = || {
            let bytes = counter.count(foreign.weights.read(weight)?)?;
            Ok(reordered(bytes, weight, Way::Import))
        };
        Tensor { name: weight.linc.clone(), shape: weight.shape.clone(), read: Box::new(read) }
    };
    let kind = if tokenizer.is_some() { "text" } else { NO_TOKENIZER };
    let data = DataState {
        kind: kind.to_owned(),
        seq_len: foreign.record.seq_len,
        borders: tokenizer.as_ref().map(Tokenizer::borders),
        ..DataState::default()
    };
    let contents = Contents {
        params: foreign.table.iter().map(tensor).collect(),
        optimizer: vec![],
        tokenizer: tokenizer.as_ref().map_or(&[], Tokenizer::files),
        shard_bytes: Settings::default().max_shard_size.0,
        state: State::new(0, 0, 0, data, foreign.record.clone()),
    };
    let partial = unfinished.path();
    write::write_files(partial, &contents)?;
    write::write_file(&partial.join(MODEL_TOML), foreign.record.model_toml.as_bytes())?;
    write::write_file(&partial.join(architecture_name(architecture)), architecture.text.as_bytes())?;
    unfinished.finish()?;
    drop(contents);
    let formats = foreign.weights.formats();
    let has_tokenizer = tokenizer.as_ref().is_some_and(|tokenizer| !tokenizer.files().is_empty());
    Ok(Imported { model: foreign.model, formats, reads_text: tokenizer.is_some(), has_tokenizer, notes })
}

/// The tokenizer of a folder. A model of 256 tokens that has none reads bytes.
fn tokenizer(
    folder: &Path,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<Option<Tokenizer>, CheckpointError> {
    let vocab = config.sizes.vocab;
    let Some(path) = Tokenizer::find(folder)? else {
        let bytes = Tokenizer::bytes();
        if vocab == bytes.vocab_size() {
            return Ok(Some(bytes));
        }
        notes.push(format!(
            "{}: there is no {TOKENIZER_FILE} and no rank file, so the model reads no text; have transformers write one (AutoTokenizer, save_pretrained)",
            folder.display()
        ));
        return Ok(None);
    };
    let is_llama3 = path.extension().is_some_and(|extension| extension == "model");
    let tokenizer = match Tokenizer::open(&path) {
        // Of other models' rank files it is not known how they split a text.
        Err(error @ DataError::UnknownEncoding { .. }) => {
            notes.push(format!("the model reads no text: {error}"));
            return Ok(None);
        }
        opened => opened?,
    };
    notes.extend(tokenizer.notes().iter().cloned());
    // Llama 3's special tokens have the ids behind the ranks of the file, which are others where it was cut.
    let differs = is_llama3 && tokenizer.vocab_size() < vocab;
    if differs || tokenizer.vocab_size() > vocab {
        let message = format!(
            "{} has {} tokens, vocab_size of config.json is {vocab}",
            tokenizer.name(),
            tokenizer.vocab_size()
        );
        let help = Some("tokenizer and weights belong together: get both again".to_owned());
        return Err(ConfigError::from(Problem { message, place: None, help }).into());
    }
    Ok(Some(tokenizer))
}

fn architecture_name(architecture: &Source) -> String {
    let name = Path::new(&architecture.path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The model as a checkpoint records it.
fn record(folder: &Path, out: &Path, config: &Config, architecture: &Source) -> ModelRecord {
    let kind = |linear: &bool| -> AttentionKind {
        if *linear { AttentionFamily::Linear.default_kind() } else { AttentionFamily::Softmax.default_kind() }
    };
    let kinds: Vec<AttentionKind> = config.linear.iter().map(kind).collect();
    let ratio = Ratio::of(&kinds);
    let is_uniform =
        layer_kinds(kinds.len(), Some(ratio), &Placement::Uniform).is_ok_and(|uniform| uniform == kinds);
    let linear = config.linear.iter().enumerate().filter(|(_, linear)| **linear);
    let list: Vec<String> = linear.map(|(layer, _)| layer.to_string()).collect();
    // The folder's own name, whatever path leads to it.
    let named = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let named = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let flavor: String = named.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let name = architecture_name(architecture);
    ModelRecord {
        name: FAMILY.to_owned(),
        model_toml: model_file::text(config, &flavor, &name),
        flavor,
        linear_attn_ratio: ratio.to_string(),
        linear_attn_placement: if is_uniform { Placement::Uniform.to_string() } else { list.join(",") },
        layers: kinds.iter().map(|kind| kind.label().to_owned()).collect(),
        params: 0,
        model_path: out.join(MODEL_TOML).display().to_string(),
        architecture_path: out.join(&name).display().to_string(),
        architecture: architecture.text.clone(),
        overrides: vec![],
        seq_len: config.positions,
        batch_size: 1,
    }
}

/// Names and shapes of a model's parameters.
pub(super) fn parameters(model: &Model) -> Result<BTreeMap<String, Vec<usize>>, CheckpointError> {
    let options = Options::new(1, SHORT.min(model.shape.seq));
    let compiled = linc_driver::compile(model, &Entry::Forward, &options, &mut PersistentLayout::default())?;
    let params = compiled.plan.bindings.into_iter().filter(|binding| binding.role == Role::Param);
    Ok(params.map(|binding| (binding.name, binding.shape)).collect())
}

/// Compares the parameters of a model with the table.
pub(super) fn check_table(model: &Model, table: &[Weight]) -> Result<(), CheckpointError> {
    let params = parameters(model)?;
    let params: BTreeMap<&str, &[usize]> = params.iter().map(|(name, shape)| (&**name, &shape[..])).collect();
    let wanted: BTreeMap<&str, &[usize]> = table.iter().map(|w| (w.linc.as_str(), &w.shape[..])).collect();
    let describe = |name: &str| -> String {
        let shape = |map: &BTreeMap<&str, &[usize]>| {
            map.get(name).map_or("none".to_owned(), |shape| format!("{shape:?}"))
        };
        format!("{name}: {} in the text, {} in a Llama model", shape(&params), shape(&wanted))
    };
    let names = params.keys().chain(wanted.keys());
    match names.copied().find(|name| params.get(name) != wanted.get(name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!("its parameters are not those of a Llama model; {}", describe(name));
            let help = Some(
                "Hugging Face's models of type llama have no others: an edited architecture has none there"
                    .to_owned(),
            );
            Err(ConfigError::from(Problem { message, place: None, help }).into())
        }
    }
}

/// Tokens of a sequence that shows what a model computes.
pub(super) const SHORT: usize = 32;

/// Where an import goes if nobody says where.
pub fn usual_folder(folder: &Path) -> PathBuf {
    let named = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    Path::new("outputs").join(named.file_name().unwrap_or_default())
}
