//! Where a run starts: at the beginning, at one of its checkpoints, or with another run's weights.

use std::path::{Path, PathBuf};

use linc_checkpoint::{CheckpointError, ModelRecord, Proceed, State, batch_change, check_model, differs};
use linc_data::TrainingData;
use linc_device::words::count;
use linc_session::Session;

use super::kept::Kept;
use crate::config::JobConfig;
use crate::error::TrainError;

/// The point that a run goes on from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Start {
    /// Steps done.
    pub(super) step: usize,
    /// Tokens trained on.
    pub(super) tokens: u64,
    /// Steps that were left out.
    pub(super) skipped: u64,
    /// Of those, the ones just before.
    pub(super) skipped_in_a_row: u64,
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
    Ok(path.map(|path| linc_checkpoint::describe(&path).map(|state| (path, state))).transpose()?)
}

fn own_checkpoint(config: &JobConfig) -> Result<Option<PathBuf>, TrainError> {
    let c = &config.checkpoint;
    let looks = c.enable || c.load_step >= 0;
    Ok(if looks { linc_checkpoint::find(&checkpoint_folder(config), c.load_step)? } else { None })
}

/// Loads what the config asks to go on from into the session, which is new, and the data; nothing if the run begins with
/// initial values. `whole` is a checkpoint that is known to be so.
pub(super) fn restore(
    config: &JobConfig,
    whole: Option<&Path>,
    record: &ModelRecord,
    (session, kept): (&mut Session, &Kept),
    data: &mut TrainingData,
    proceed: &mut Proceed<'_, TrainError>,
) -> Result<Option<Start>, TrainError> {
    let c = &config.checkpoint;
    if let Some(path) = own_checkpoint(config)? {
        let state = match whole == Some(&*path) {
            true => linc_checkpoint::describe(&path)?,
            false => linc_checkpoint::open_while(&path, proceed)?,
        };
        load(&path, &state, record, session, Some(kept), proceed)?;
        data.restore(&state.data)?;
        let mut message = format!("Resuming from {} (step {})", path.display(), state.step);
        let steps = linc_checkpoint::steps(&checkpoint_folder(config));
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
        if let Some(changed) = batch_change(&state.model, record)? {
            message.push_str(&format!("; it may go on as another model: {}", changed.text));
        }
        let message = Some(message);
        return Ok(Some(Start {
            step: state.step,
            tokens: state.tokens,
            skipped: state.skipped,
            skipped_in_a_row: state.skipped_in_a_row,
            checkpoint: Some(path),
            message,
        }));
    }
    let Some(path) = c.initial_load_path.as_deref().map(Path::new) else { return Ok(None) };
    if c.initial_load_linearize && !c.initial_load_model_only {
        let message = "initial_load_linearize makes another model of initial_load_path, whose optimizer's state is of no use to it";
        let help = "leave checkpoint.initial_load_model_only out, which is true then".to_owned();
        let names = ["checkpoint.initial_load_linearize", "checkpoint.initial_load_model_only"];
        return Err(config.problem(&names, message.into(), Some(help)).into());
    }
    let state = linc_checkpoint::open_while(path, proceed)?;
    let mut message = format!("Starting from the weights of {}", path.display());
    if c.initial_load_linearize {
        message.push_str(&linearize(path, &state, record, session, config.training.seed, proceed)?);
        return Ok(Some(Start { message: Some(message), ..Start::default() }));
    }
    load(path, &state, record, session, (!c.initial_load_model_only).then_some(kept), proceed)?;
    if c.initial_load_model_only {
        message.push_str(&other_kinds(&state.model, record));
        return Ok(Some(Start { message: Some(message), ..Start::default() }));
    }
    data.restore(&state.data)?;
    let message = Some(format!("Going on from {} (step {})", path.display(), state.step));
    Ok(Some(Start {
        step: state.step,
        tokens: state.tokens,
        skipped: state.skipped,
        skipped_in_a_row: state.skipped_in_a_row,
        checkpoint: None,
        message,
    }))
}

/// Loads the weights of a model whose layers may be of other kinds; parameters that it does not have get initial values. Says
/// what became of what.
fn linearize(
    path: &Path,
    state: &State,
    record: &ModelRecord,
    session: &mut Session,
    seed: u64,
    proceed: &mut Proceed<'_, TrainError>,
) -> Result<String, TrainError> {
    session.executor.initialize_constants()?;
    let shared = linc_checkpoint::load_shared_weights(&mut session.executor, path, proceed)?;
    session.executor.initialize_named(seed, &shared.new)?;
    let mut said = other_kinds(&state.model, record);
    for (what, names) in [("begins with initial values", &shared.new), ("is not used", &shared.left_out)] {
        if let Some(first) = names.first() {
            let others = match names.len() {
                1 => String::new(),
                all => format!(" and {}", count(all - 1, "other")),
            };
            said.push_str(&format!("; what {what}: {first}{others}"));
        }
    }
    Ok(said)
}

/// Which layers have other kinds than those that the weights were trained with, if any, for people.
fn other_kinds(saved: &ModelRecord, now: &ModelRecord) -> String {
    if saved.layers == now.layers || saved.layers.len() != now.layers.len() {
        return String::new();
    }
    let changed = saved.layers.iter().zip(&now.layers).enumerate().filter(|(_, (was, is))| was != is);
    let changed: Vec<String> =
        changed.map(|(layer, (was, is))| format!("{layer} ({was}, now {is})")).collect();
    let layers = if changed.len() == 1 { "layer" } else { "layers" };
    format!("; other kinds of attention in {layers} {}", changed.join(", "))
}

/// Loads weights and, if asked for, the optimizer's state of the same model, as far as this rank has it.
fn load(
    path: &Path,
    state: &State,
    record: &ModelRecord,
    session: &mut Session,
    kept: Option<&Kept>,
    proceed: &mut Proceed<'_, TrainError>,
) -> Result<(), TrainError> {
    // Weights alone may start a model of another kind, such as a hybrid from a softmax model; names and shapes decide.
    if kept.is_some() {
        check_model(path, &state.model, record)?;
        check_resumable(path, state)?;
    }
    // What a checkpoint does not hold. Drawing weights that are then loaded could take minutes.
    session.executor.initialize_constants()?;
    let loaded = linc_checkpoint::load_weights(&mut session.executor, path, proceed);
    loaded.map_err(|error| match error {
        TrainError::Checkpoint(CheckpointError::Mismatch { message, .. }) => {
            differs(path, &state.model, record, &message).into()
        }
        other => other,
    })?;
    if let Some(kept) = kept {
        let loaded =
            linc_checkpoint::load_optimizer_state(&mut session.executor, path, &kept.shapes(), proceed);
        loaded.map_err(|error| match error {
            // The model was compared above: what differs is what the optimizer keeps of it.
            TrainError::Checkpoint(CheckpointError::Mismatch { path: file, message, .. }) => {
                TrainError::Checkpoint(CheckpointError::Mismatch {
                    path: file,
                    message: format!("it is of another optimizer, or of other optimizer.groups: {message}"),
                    help: format!(
                        "go on with the settings that the run was begun with (config.toml in its folder), or start a new run with its weights, in another job.dump_folder: --checkpoint.initial_load_path {}",
                        path.display()
                    ),
                })
            }
            other => other,
        })?;
    }
    Ok(())
}

/// Refuses a checkpoint of weights alone: a run needs more than these to go on.
pub(super) fn check_resumable(path: &Path, state: &State) -> Result<(), CheckpointError> {
    if state.has_optimizer() {
        return Ok(());
    }
    Err(CheckpointError::Mismatch {
        path: path.to_path_buf(),
        message: "it has the weights only, a run cannot go on from it".into(),
        help: format!(
            "start a new run with them, in another job.dump_folder: --checkpoint.initial_load_path {}",
            path.display()
        ),
    })
}
