//! What a placement came to: numbers for people and programs, and the hybrid as a checkpoint.

use std::fmt::Write as _;
use std::path::{Path as FilePath, PathBuf};

use linc_checkpoint::{Contents, ModelRecord, State, Tensor};
use linc_data::Tokenizer;
use linc_driver::{AttentionFamily, Placement, Ratio, layer_kinds};
use linc_eval::Subject;
use linc_eval::stats::Estimate;
use serde::Serialize;

use super::gated::Gated;
use super::scores::{OneLayer, Path};
use super::search::Search;
use super::sequences::Sequences;
use super::{PlaceSettings, highest};
use crate::error::{StudyError, file};

/// How a table of scores begins.
pub(super) const TABLE_START: &str = "layer,linear,path,";

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Placed {
    /// Everything was done; else it was ended before.
    pub complete: bool,
    /// Layers of the model.
    pub layers: usize,
    /// How many of them stay softmax layers.
    pub softmax: usize,
    /// The ratio that was asked for.
    pub ratio: String,
    /// The linear layers: what `linear_attn_placement` takes.
    pub linear: Vec<usize>,
    /// Sequences that were searched on, and as many others that placements were compared on.
    pub sequences: usize,
    /// How many tokens a sequence has.
    pub tokens: usize,
    /// Of what was drawn.
    pub seed: u64,
    /// How linear branches were aligned.
    pub alignment: Option<Alignment>,
    /// Scores by path integration.
    pub path: Option<Path>,
    /// One layer at a time.
    pub one_layer: Option<OneLayer>,
    /// How placements were searched.
    pub search: Option<Search>,
    /// What each method chooses.
    pub methods: Vec<Method>,
    /// Placements on sequences that nothing was chosen by.
    pub compared: Vec<Compared>,
    /// What tells the weights of the hybrid from others, once it is written.
    pub hybrid: Option<String>,
    /// How long each part took.
    pub seconds: Vec<(String, f64)>,
}

/// Squares of what linear branches differ from softmax branches by, over those of the latter, in the order of layers.
#[derive(Clone, Debug, Serialize)]
pub struct Alignment {
    /// Steps that were done.
    pub steps: usize,
    /// On the batch of the first step, before it.
    pub before: Vec<f64>,
    /// On the same batch, after the last step; where it was ended, as it was read last.
    pub after: Vec<f64>,
}

/// A way to choose linear layers, and what it chooses.
#[derive(Clone, Debug, Serialize)]
pub struct Method {
    /// As tables call it.
    pub name: String,
    /// Linear layers.
    pub linear: Vec<usize>,
    /// For each layer how much it wants to stay softmax, if the method says so.
    pub scores: Option<Vec<f64>>,
}

/// A placement beside the one that was chosen, over sequences that it was not chosen by.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The method that chooses it.
    pub name: String,
    /// Linear layers.
    pub linear: Vec<usize>,
    /// Divergence from the softmax model at places that ask for something, nats.
    pub divergence: Estimate,
    /// The same less that of the placement that was chosen, over pairs.
    pub difference: Estimate,
    /// Share of right answers there.
    pub recall: Estimate,
    /// Mean negative log-probability of the right token there.
    pub loss: Estimate,
}

impl Method {
    /// The layers of the highest scores stay softmax.
    pub(super) fn scored(name: &str, scores: &[f64], softmax: usize) -> Method {
        Method { name: name.into(), linear: highest(scores, softmax), scores: Some(scores.to_vec()) }
    }

    /// A placement by its rule.
    pub(super) fn named(placement: &Placement, ratio: Ratio, layers: usize) -> Method {
        let kinds = layer_kinds(layers, Some(ratio), placement).unwrap_or_default();
        let linear = kinds.iter().enumerate().filter(|(_, kind)| kind.family() == AttentionFamily::Linear);
        let name = placement.name().unwrap_or_default().to_owned();
        Method { name, linear: linear.map(|(layer, _)| layer).collect(), scores: None }
    }
}

impl Placed {
    pub(super) fn new(
        settings: &PlaceSettings,
        layers: usize,
        softmax: usize,
        sequences: &Sequences,
    ) -> Placed {
        Placed {
            complete: false,
            layers,
            softmax,
            ratio: settings.ratio.to_string(),
            linear: vec![],
            sequences: sequences.search.len(),
            tokens: sequences.search.first().map_or(0, |sequence| sequence.tokens.len()),
            seed: settings.seed,
            alignment: None,
            path: None,
            one_layer: None,
            search: None,
            methods: vec![],
            compared: vec![],
            hybrid: None,
            seconds: vec![],
        }
    }

    /// The setting that makes a model of this placement.
    pub fn setting(&self) -> String {
        let layers: Vec<String> = self.linear.iter().map(usize::to_string).collect();
        format!("linear_attn_placement = [{}]", layers.join(", "))
    }

    /// Scores of all layers, a row for each: with half the width of 95 % intervals where a score is a mean over sequences.
    pub fn scores_csv(&self) -> String {
        let mut text = format!(
            "{TABLE_START}path_half_width,removal,removal_half_width,addition,addition_half_width,slice,halo,trained_gates\n"
        );
        let method = |name: &str| self.methods.iter().find(|method| method.name == name);
        for layer in 0..self.layers {
            let one = self.one_layer.as_ref();
            let means = [
                self.path.as_ref().map(|path| &path.scores),
                one.map(|one| &one.removal),
                one.map(|one| &one.addition),
            ];
            let _ = write!(text, "{layer},{}", self.linear.contains(&layer));
            for scores in means {
                let mean = scores.map(|scores| scores.layers[layer]);
                let half = mean.and_then(|mean| mean.half_width);
                let _ = write!(text, ",{},{}", cell(mean.map(|mean| mean.mean)), cell(half));
            }
            for name in ["slice", "halo", "trained gates"] {
                let scores = method(name).and_then(|method| method.scores.as_ref());
                let _ = write!(text, ",{}", cell(scores.map(|scores| scores[layer])));
            }
            text.push('\n');
        }
        text
    }

    /// Writes all numbers as JSON, and the scores as CSV beside it; returns where the latter is.
    ///
    /// # Errors
    /// [`StudyError::File`].
    pub fn write(&self, path: &FilePath) -> Result<PathBuf, StudyError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(file("create", folder))?;
        }
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        linc_device::write_entry(path, &[text.as_bytes(), b"\n"]).map_err(file("write", path))?;
        let table = path.with_extension("csv");
        linc_device::write_entry(&table, &[self.scores_csv().as_bytes()]).map_err(file("write", &table))?;
        Ok(table)
    }
}

fn cell(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// Writes a model with some layers linear as a checkpoint of weights alone, `folder/step-N`.
pub(super) fn write_hybrid(
    gated: &Gated,
    subject: &Subject,
    linear: &[usize],
    folder: &FilePath,
) -> Result<PathBuf, StudyError> {
    let before = &subject.state;
    let placement = Placement::Layers(linear.to_vec());
    let kinds = layer_kinds(gated.layers(), None, &placement);
    let kinds = kinds.map_err(|error| StudyError::Nothing {
        message: error.to_string(),
        help: "this is a fault of linc".into(),
    })?;
    let record = ModelRecord {
        linear_attn_ratio: Ratio::of(&kinds).to_string(),
        linear_attn_placement: placement.to_string(),
        layers: kinds.iter().map(|kind| kind.label().to_owned()).collect(),
        ..before.model.clone()
    };
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let read = {
            let name = name.clone();
            move || gated.value(&name, linear).map_err(|error| error.to_string())
        };
        Tensor { name, shape, read: Box::new(read) as Box<dyn Fn() -> Result<Vec<u8>, String>> }
    };
    let contents = Contents {
        params: gated.params().into_iter().map(tensor).collect(),
        optimizer: vec![],
        shard_bytes: u64::MAX,
        tokenizer: subject.tokenizer.as_ref().map_or(&[], Tokenizer::files),
        state: State::new(before.step, before.tokens, before.seed, before.data.clone(), record),
    };
    std::fs::create_dir_all(folder).map_err(file("create", folder))?;
    Ok(linc_checkpoint::save(folder, &contents)?)
}
