//! The model that a checkpoint is of: compiled again from its record, and compared with another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use linc_device::words::thousands;
use linc_driver::{
    AttentionFamily, AttentionKind, BatchShape, CompileError, Entry, Model, Options, PersistentLayout,
    Source, layer_kinds,
};

use crate::batch::batch_change;
use crate::hugging_face::MODEL_TOML;
use crate::{CheckpointError, ModelRecord};

/// The model that a checkpoint describes.
///
/// # Errors
/// The texts in it do not parse (a checkpoint of another version).
pub fn model_of(record: &ModelRecord) -> Result<Model, CheckpointError> {
    let source = |path: &str, text: &str| Source { path: path.to_string(), text: text.to_string() };
    let toml = source(&record.model_path, &record.model_toml);
    let architecture = source(&record.architecture_path, &record.architecture);
    // The layers decide, not what they were once derived from: how a ratio is rounded may change.
    let kinds: Option<Vec<AttentionKind>> =
        record.layers.iter().map(|name| AttentionKind::from_name(name)).collect();
    let shape = BatchShape { batch: record.batch_size.max(1), seq: record.seq_len };
    let mut model = match kinds
        .map(|kinds| Model::with_kinds(&toml, &architecture, &record.overrides, kinds, shape))
    {
        Some(Ok(model)) => model,
        Some(Err(CompileError::Pass(_))) | None => {
            let message = format!(
                "the checkpoint has the layers {}; expected a kind of attention, such as softmax or linear, for each layer of the model",
                record.layers.join(", ")
            );
            return Err(CheckpointError::Layers { message });
        }
        Some(Err(error)) => return Err(error.into()),
    };
    model.placement = record.linear_attn_placement.parse().map_err(CompileError::Pass)?;
    Ok(model)
}

/// Refuses a checkpoint of another model than the one that is to go on from it.
///
/// # Errors
/// [`CheckpointError::Mismatch`] with the settings that fit, or [`CheckpointError::Model`].
pub fn check_model(path: &Path, saved: &ModelRecord, now: &ModelRecord) -> Result<(), CheckpointError> {
    let title = |m: &ModelRecord| format!("{} {} with {} parameters", m.name, m.flavor, thousands(m.params));
    let numbers = || match numbers_that_differ(saved, now)[..] {
        [] => String::new(),
        ref differ => format!(": {}", differ.join(", ")),
    };
    let mut help = "use that model, or another job.dump_folder".to_string();
    let placed_otherwise = saved.layers != now.layers && saved.layers.len() == now.layers.len();
    let named_alike = (&saved.name, &saved.flavor) == (&now.name, &now.flavor);
    // A text may give layers of one kind more parameters, so that other layers are the first thing to say.
    let message = if placed_otherwise && (named_alike || saved.params == now.params) {
        help = format!("set {}, or use another job.dump_folder", layer_settings(saved));
        let layers = [&saved.layers, &now.layers].map(|layers| letters(layers));
        let params = match saved.params == now.params {
            true => [String::new(), String::new()],
            false => [saved, now].map(|model| format!(" with {} parameters", thousands(model.params))),
        };
        format!("its layers are {}{}, the config asks for {}{}", layers[0], params[0], layers[1], params[1])
    } else if saved.params != now.params || saved.layers != now.layers {
        format!("it is of {}, the config asks for {}{}", title(saved), title(now), numbers())
    } else if !same_model(saved, now)? {
        format!("it was made with another {} or {}{}", now.model_path, now.architecture_path, numbers())
    } else if let Some(change) = batch_change(saved, now)?.filter(|change| change.is_other) {
        help = format!(
            "set training.batch_size = {}, or start a new run with its weights: checkpoint.initial_load_path in another job.dump_folder",
            saved.batch_size
        );
        format!("{}, which makes another model of it", change.text)
    } else {
        return Ok(());
    };
    Err(CheckpointError::Mismatch { path: path.to_path_buf(), message, help })
}

/// How the model of weights differs from the one that they are to start, for whoever asked for that, with what to do about it.
pub fn differs(path: &Path, saved: &ModelRecord, now: &ModelRecord, message: &str) -> CheckpointError {
    let mut different = numbers_that_differ(saved, now);
    if different.is_empty() && saved.layers != now.layers {
        let [there, here] = [saved, now].map(|model| letters(&model.layers));
        different.push(format!("its layers are {there}, not {here}"));
    }
    let told = match different.is_empty() {
        true => message.to_owned(),
        false => format!("{message}: {}", different.join(", ")),
    };
    let own = path.join(MODEL_TOML);
    let is_other_placement = numbers_that_differ(saved, now).is_empty() && saved.layers != now.layers;
    let help = match own.is_file() {
        _ if is_other_placement => {
            "to start from it all the same, with initial values for parameters that it does not have: --checkpoint.initial_load_linearize true".to_owned()
        }
        true => format!("its model is beside it: --model.path {}", own.display()),
        false => format!(
            "it is of {} {} ({}; linc inspect {} shows it): train that model, with its linear layers",
            saved.name,
            saved.flavor,
            saved.model_path,
            path.display()
        ),
    };
    CheckpointError::Mismatch { path: path.to_path_buf(), message: told, help }
}

/// The numbers of two models that are not the same, in words.
fn numbers_that_differ(saved: &ModelRecord, now: &ModelRecord) -> Vec<String> {
    let numbers = |record: &ModelRecord| -> BTreeMap<String, f64> {
        let model = model_of(record).ok();
        let numbers = |model: Model| {
            model.config().numbers().map(|(key, number)| (key.to_owned(), number.as_f64())).collect()
        };
        model.map(numbers).unwrap_or_default()
    };
    let (there, here) = (numbers(saved), numbers(now));
    let said = |number: Option<&f64>| number.map_or("unset".to_owned(), f64::to_string);
    let keys: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let differ = keys.into_iter().filter(|key| there.get(*key) != here.get(*key));
    differ
        .map(|key| format!("{key} is {} in it, not {}", said(there.get(key)), said(here.get(key))))
        .collect()
}

/// Whether two records describe the same computation: by their texts, or else, since a comment changes nothing, by the
/// graphs that they become.
fn same_model(saved: &ModelRecord, now: &ModelRecord) -> Result<bool, CheckpointError> {
    let texts = |m: &ModelRecord| {
        (m.model_toml.clone(), m.architecture.clone(), m.overrides.clone(), m.layers.clone())
    };
    if texts(saved) == texts(now) {
        return Ok(true);
    }
    // What the numbers of batches make of a text is another question. A text that cannot be built for these is another.
    let saved = ModelRecord { batch_size: now.batch_size, seq_len: now.seq_len, ..saved.clone() };
    let now = attention_graph(now)?;
    Ok(attention_graph(&saved).is_ok_and(|saved| saved == now))
}

/// The graph of a model once every layer's attention is decided.
fn attention_graph(record: &ModelRecord) -> Result<Option<String>, CheckpointError> {
    let options = Options { dumps: true, ..Options::new(record.batch_size.max(1), record.seq_len) };
    let compiled = linc_driver::compile(
        &model_of(record)?,
        &Entry::Forward,
        &options,
        &mut PersistentLayout::default(),
    )?;
    Ok(compiled.graph_after("attention").map(str::to_string))
}

/// The settings that give a checkpoint's layers: those that it names, unless they mean other layers by now.
fn layer_settings(saved: &ModelRecord) -> String {
    let (ratio, placement) = (&saved.linear_attn_ratio, &saved.linear_attn_placement);
    let named = || {
        let kinds =
            layer_kinds(saved.layers.len(), Some(ratio.parse().ok()?), &placement.parse().ok()?).ok()?;
        Some(kinds.iter().map(|kind| kind.label()).eq(saved.layers.iter()))
    };
    if named() == Some(true) {
        return format!(
            "model.linear_attn_ratio = {ratio} and model.linear_attn_placement = \"{placement}\""
        );
    }
    let is_linear = |kind: &str| {
        AttentionKind::from_name(kind).is_some_and(|kind| kind.family() == AttentionFamily::Linear)
    };
    let layers = saved.layers.iter().enumerate().filter(|(_, kind)| is_linear(kind));
    let layers: Vec<String> = layers.map(|(layer, _)| layer.to_string()).collect();
    format!("model.linear_attn_placement = [{}] without model.linear_attn_ratio", layers.join(", "))
}

fn letters(layers: &[String]) -> String {
    layers.iter().filter_map(|l| l.chars().next()).map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of four layers as older versions of linc recorded it, which made two of them linear of a ratio of 0.3.
    fn older(placement: &str) -> ModelRecord {
        ModelRecord {
            name: "llama3".into(),
            flavor: "nano".into(),
            linear_attn_ratio: "0.3".into(),
            linear_attn_placement: placement.into(),
            layers: ["linear", "softmax", "linear", "softmax"].map(String::from).to_vec(),
            params: 0,
            model_path: "llama3_nano.toml".into(),
            model_toml: include_str!("../../../models/llama3_nano.toml").into(),
            architecture_path: "llama3.linc".into(),
            architecture: include_str!("../../../models/llama3.linc").into(),
            overrides: vec![],
            seq_len: 32,
            batch_size: 1,
        }
    }

    #[test]
    fn the_layers_of_a_checkpoint_count_and_not_what_they_came_from() {
        for placement in ["uniform", "0,2"] {
            let model = model_of(&older(placement)).expect("a model");
            assert_eq!(model.layer_map(), "LSLS");
            assert_eq!(
                (model.share_text().as_str(), model.placement.to_string().as_str()),
                ("0.5", placement)
            );
        }
        for layers in [vec!["linear"; 3], vec!["linear", "softmax", "linear", "mamba"]] {
            let layers = layers.into_iter().map(String::from).collect();
            let error = model_of(&ModelRecord { layers, ..older("uniform") }).expect_err("no such layers");
            assert!(error.to_string().contains("such as softmax or linear"), "{error}");
        }
    }

    #[test]
    fn settings_are_those_that_give_the_layers_now() {
        let list = "model.linear_attn_placement = [0, 2] without model.linear_attn_ratio";
        assert_eq!(layer_settings(&older("uniform")), list);
        let newer = ModelRecord { linear_attn_ratio: "0.5".into(), ..older("uniform") };
        let named = "model.linear_attn_ratio = 0.5 and model.linear_attn_placement = \"uniform\"";
        assert_eq!(layer_settings(&newer), named);
    }

    #[test]
    fn layers_of_a_kind_have_their_parameters_and_another_placement_is_said() {
        let gate = "if kind == linear {\n        param gate [dim] init ones\n        h = h * gate\n      }\n      q =";
        let gated = |layers: [&str; 4]| {
            let layers = layers.map(String::from).to_vec();
            let architecture = older("uniform").architecture.replacen("q =", gate, 1);
            let record = ModelRecord { layers, architecture, ..older("uniform") };
            let model = model_of(&record).expect("a model");
            (ModelRecord { params: model.sizes.params, ..record }, model)
        };
        let (one, model) = gated(["linear", "softmax", "softmax", "softmax"]);
        let (two, _) = gated(["linear", "softmax", "linear", "softmax"]);
        assert_eq!(two.params, one.params + model.sizes.dim as u64);
        let error = check_model(Path::new("step-1"), &two, &one).expect_err("another placement");
        let CheckpointError::Mismatch { message, help, .. } = error else { panic!("{error}") };
        let [one, two] = [one, two].map(|record| thousands(record.params));
        assert_eq!(
            message,
            format!(
                "its layers are LSLS with {two} parameters, the config asks for LSSS with {one} parameters"
            )
        );
        assert!(help.contains("linear_attn_placement = [0, 2]"), "{help}");
    }
}
