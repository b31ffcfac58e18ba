//! Where a run starts: at the beginning, at one of its checkpoints, or with another run's weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use linc_driver::{AttentionKind, Entry, Layout, Options, layer_kinds};

use super::programs::model_of;
use crate::checkpoint::{self, CheckpointError, ModelRecord, State};
use crate::config::JobConfig;
use crate::data::TrainingData;
use crate::error::TrainError;
use crate::metrics::thousands;
use crate::session::Session;

/// The point that a run goes on from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Start {
    /// Steps done.
    pub(super) step: usize,
    /// Tokens trained on.
    pub(super) tokens: u64,
    /// This run's own checkpoint, if it goes on from one.
    pub(super) checkpoint: Option<PathBuf>,
    /// What to tell.
    pub(super) message: Option<String>,
}

/// The folder of a run's checkpoints.
pub(super) fn checkpoint_folder(config: &JobConfig) -> PathBuf {
    Path::new(&config.job.dump_folder).join(&config.checkpoint.folder)
}

/// The checkpoint that a run goes on from with the same bits, if it does not start anew, and what it says of itself.
pub(super) fn goes_on_from(config: &JobConfig) -> Result<Option<(PathBuf, State)>, TrainError> {
    let c = &config.checkpoint;
    let whole = c.initial_load_path.as_deref().map(PathBuf::from).filter(|_| !c.initial_load_model_only);
    let path = own_checkpoint(config)?.or(whole);
    Ok(path.map(|path| checkpoint::describe(&path).map(|state| (path, state))).transpose()?)
}

fn own_checkpoint(config: &JobConfig) -> Result<Option<PathBuf>, TrainError> {
    let c = &config.checkpoint;
    let looks = c.enable || c.load_step >= 0;
    Ok(if looks { checkpoint::find(&checkpoint_folder(config), c.load_step)? } else { None })
}

/// Loads what the config asks to go on from into the session, which is new, and the data; nothing if the run begins with
/// initial values. `whole` is a checkpoint that is known to be so.
pub(super) fn restore(
    config: &JobConfig,
    whole: Option<&Path>,
    record: &ModelRecord,
    session: &mut Session,
    data: &mut TrainingData,
    proceed: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<Option<Start>, TrainError> {
    let c = &config.checkpoint;
    if let Some(path) = own_checkpoint(config)? {
        let state = match whole == Some(&*path) {
            true => checkpoint::describe(&path)?,
            false => checkpoint::open_while(&path, proceed)?,
        };
        load(&path, &state, record, session, true, proceed)?;
        data.restore(&state.data)?;
        let mut message = format!("Resuming from {} (step {})", path.display(), state.step);
        let steps = checkpoint::steps(&checkpoint_folder(config));
        let later: Vec<String> = steps.iter().filter(|s| **s > state.step).map(usize::to_string).collect();
        if !later.is_empty() {
            message.push_str(&format!(
                "; later checkpoints stay until the run comes to their steps: {}",
                later.join(", ")
            ));
        }
        if let Some(initial) = &c.initial_load_path {
            message.push_str(&format!(
                "; checkpoint.initial_load_path = {initial:?} is for a new run, and not read"
            ));
        }
        let message = Some(message);
        return Ok(Some(Start { step: state.step, tokens: state.tokens, checkpoint: Some(path), message }));
    }
    let Some(path) = c.initial_load_path.as_deref().map(Path::new) else { return Ok(None) };
    let state = checkpoint::open_while(path, proceed)?;
    load(path, &state, record, session, !c.initial_load_model_only, proceed)?;
    if c.initial_load_model_only {
        let message = Some(format!("Starting from the weights of {}", path.display()));
        return Ok(Some(Start { message, ..Start::default() }));
    }
    data.restore(&state.data)?;
    let message = Some(format!("Going on from {} (step {})", path.display(), state.step));
    Ok(Some(Start { step: state.step, tokens: state.tokens, checkpoint: None, message }))
}

/// Loads weights and, if asked for, the optimizer's state of the same model.
fn load(
    path: &Path,
    state: &State,
    record: &ModelRecord,
    session: &mut Session,
    with_optimizer: bool,
    proceed: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    // Weights alone may start a model of another kind, such as a hybrid from a softmax model; names and shapes decide.
    if with_optimizer {
        check_model(path, &state.model, record)?;
        check_resumable(path, state)?;
    }
    // What a checkpoint does not hold. Drawing weights that are then loaded could take minutes.
    session.executor.initialize_constants()?;
    let params = session.params();
    load_file(session, &path.join(checkpoint::MODEL_FILE), &params, proceed)?;
    if with_optimizer {
        let wanted = session.optimizer_state();
        load_file(session, &path.join(checkpoint::OPTIMIZER_FILE), &wanted, proceed)?;
    }
    Ok(())
}

/// Refuses a checkpoint of weights alone: a run needs more than these to go on.
pub(super) fn check_resumable(path: &Path, state: &State) -> Result<(), CheckpointError> {
    if state.files.contains_key(checkpoint::OPTIMIZER_FILE) {
        return Ok(());
    }
    Err(CheckpointError::Mismatch {
        path: path.to_path_buf(),
        message: "it has the weights only, a run cannot go on from it".into(),
        help: "start a new run with them: checkpoint.initial_load_path".into(),
    })
}

/// Loads a checkpoint's weights into a session of its model.
///
/// # Errors
/// [`TrainError::Checkpoint`].
pub fn load_weights(session: &mut Session, path: &Path) -> Result<(), TrainError> {
    let params = session.params();
    load_file(session, &path.join(checkpoint::MODEL_FILE), &params, &mut || Ok(()))
}

fn load_file(
    session: &mut Session,
    path: &Path,
    wanted: &BTreeMap<String, Vec<usize>>,
    proceed: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    checkpoint::load(path, wanted, &mut |name, bytes| -> Result<(), TrainError> {
        proceed()?;
        Ok(session.executor.write_tensor(name, bytes)?)
    })
}

/// A run can only go on with the model that it was started with.
pub(super) fn check_model(path: &Path, saved: &ModelRecord, now: &ModelRecord) -> Result<(), TrainError> {
    let title = |m: &ModelRecord| format!("{} {} with {} parameters", m.name, m.flavor, thousands(m.params));
    let mut help = "use that model, or another job.dump_folder".to_string();
    let message = if saved.params != now.params {
        format!("it is of {}, the config asks for {}", title(saved), title(now))
    } else if saved.layers != now.layers {
        help = format!("set {}, or use another job.dump_folder", layer_settings(saved));
        format!("its layers are {}, the config asks for {}", letters(&saved.layers), letters(&now.layers))
    } else if !same_model(saved, now)? {
        format!("it was made with another {} or {}", now.model_path, now.architecture_path)
    } else {
        return Ok(());
    };
    Err(CheckpointError::Mismatch { path: path.to_path_buf(), message, help }.into())
}

/// Whether two records describe the same computation: by their texts, or else, since a comment changes nothing, by the
/// graphs that they become.
fn same_model(saved: &ModelRecord, now: &ModelRecord) -> Result<bool, TrainError> {
    let texts = |m: &ModelRecord| {
        (m.model_toml.clone(), m.architecture.clone(), m.overrides.clone(), m.layers.clone())
    };
    if texts(saved) == texts(now) {
        return Ok(true);
    }
    Ok(attention_graph(saved)? == attention_graph(now)?)
}

/// The graph of a model once every layer's attention is decided.
fn attention_graph(record: &ModelRecord) -> Result<Option<String>, TrainError> {
    let options = Options { dumps: true, ..Options::new(record.batch_size.max(1), record.seq_len) };
    let compiled =
        linc_driver::compile(&model_of(record)?, &Entry::Forward, &options, &mut Layout::default())?;
    Ok(compiled.dumps.into_iter().find(|d| d.path.ends_with("-attention.ir")).map(|d| d.text))
}

/// The settings that give a checkpoint's layers: those that it names, unless they mean other layers by now.
fn layer_settings(saved: &ModelRecord) -> String {
    let (ratio, placement) = (&saved.linear_attn_ratio, &saved.linear_attn_placement);
    let named = || {
        let kinds =
            layer_kinds(saved.layers.len(), Some(ratio.parse().ok()?), &placement.parse().ok()?).ok()?;
        Some(kinds.iter().map(|kind| kind.name()).eq(saved.layers.iter()))
    };
    if named() == Some(true) {
        return format!(
            "model.linear_attn_ratio = {ratio} and model.linear_attn_placement = \"{placement}\""
        );
    }
    let layers = saved.layers.iter().enumerate().filter(|(_, kind)| *kind == AttentionKind::Linear.name());
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
            model_toml: include_str!("../../../../models/llama3_nano.toml").into(),
            architecture_path: "llama3.linc".into(),
            architecture: include_str!("../../../../models/llama3.linc").into(),
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
            assert!(error.to_string().contains("expected softmax or linear"), "{error}");
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
}
