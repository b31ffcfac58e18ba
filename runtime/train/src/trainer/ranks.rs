//! What the ranks of a run must have in common, and what all take from the first of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use linc_checkpoint::ModelRecord;
use linc_data::{Data, DataState};
use linc_device::comm::of_processes;
use linc_device::{Device, words};
use linc_driver::tiles::Tiles;
use linc_driver::{Model, Options, Target};
use linc_exec::ExecError;
use linc_session::{Session, autotune};
use serde::{Deserialize, Serialize};

use super::Trainer;
use super::folder::Chosen;
use super::programs::{Programs, TRAIN};
use super::resume::Start;
use super::shares::Shares;
use crate::config::{JobConfig, Reduced};
use crate::error::TrainError;
use crate::metrics::Measured;
use crate::team::Team;

/// Refuses what one process does and several do not yet.
pub(super) fn check_supported(
    config: &JobConfig,
    team: &Team,
    device: &dyn Device,
) -> Result<(), TrainError> {
    if team.is_alone() {
        return Ok(());
    }
    if config.parallelism.reduce == Reduced::Library && device.arch().is_none() {
        let message =
            "parallelism.reduce is \"library\", and no library of CPUs adds up gradients here".to_owned();
        let help = "\"exact\", or --training.device cuda".to_owned();
        return Err(config.problem(&["parallelism.reduce"], message, Some(help)).into());
    }
    if !config.eval.tasks.is_empty() {
        let message = "eval.tasks are asked by one process only, while the other ranks would wait".to_owned();
        let help = "leave eval.tasks out, and ask the run's checkpoints: linc eval STEP_DIR --tasks NAMES"
            .to_owned();
        return Err(config.problem(&["eval.tasks"], message, Some(help)).into());
    }
    Ok(())
}

/// Has the devices of all ranks exchange with each other.
///
/// # Errors
/// That of the first rank that has one, on all of them; where some are GPUs and some are not.
pub(super) fn connect(team: &Team, device: &mut dyn Device) -> Result<(), TrainError> {
    if team.is_alone() {
        return Ok(());
    }
    let kind = if device.arch().is_some() { "a GPU" } else { "a CPU" };
    team.agree(&[("the device", kind.into())])?;
    let connected = device.connect(team.ranks().clone());
    team.settle("connecting the devices", connected.map_err(ExecError::from).map_err(TrainError::from))
}

/// The handshake: what would train something else on each rank is an error that says who has what.
pub(super) fn agree(
    team: &Team,
    config: &JobConfig,
    record: &ModelRecord,
    data: &Data,
) -> Result<(), TrainError> {
    if team.is_alone() {
        return Ok(());
    }
    let mut facts: Vec<(String, String)> =
        of_processes().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    // Where a rank looks for files, and with how many threads it works, is its own affair.
    let own = |name: &str| {
        name.ends_with("path") || ["training.threads", "training.datasets", "job.dump_folder"].contains(&name)
    };
    for setting in config.resolved() {
        let name = format!("{}.{}", setting.section, setting.key);
        if !own(&name) {
            facts.push((name, setting.value.unwrap_or_else(|| "not set".into())));
        }
    }
    let checksum = |text: &str| format!("{:08x}", crc32c::crc32c(text.as_bytes()));
    facts.push(("the checksum of the model file".into(), checksum(&record.model_toml)));
    facts.push(("the checksum of the model's text".into(), checksum(&record.architecture)));
    let training = data.training.state();
    let size = words::thousands(training.size);
    facts
        .push(("the training data".into(), format!("{size} tokens with checksum {:08x}", training.checksum)));
    let weights: Vec<String> = config.data.training.datasets.iter().map(|d| d.weight.to_string()).collect();
    facts.push(("the weights of training.datasets".into(), weights.join(", ")));
    facts.push(("the validation data".into(), validation_of(config, data)?));
    let facts: Vec<(&str, String)> =
        facts.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    team.agree(&facts)
}

/// What is validated on, as far as it is measured.
fn validation_of(config: &JobConfig, data: &Data) -> Result<String, TrainError> {
    let Some(validation) = &data.validation else { return Ok("nothing".into()) };
    let batches = validation.batches_of(config.validation.steps);
    let mut sum = 0;
    for index in 0..batches {
        let batch = validation.batch(index)?;
        sum = crc32c::crc32c_append(sum, bytemuck::cast_slice(&batch.tokens));
        sum = crc32c::crc32c_append(sum, bytemuck::cast_slice(&batch.targets));
    }
    Ok(format!("{} with checksum {sum:08x}", words::count(batches, "batch")))
}

/// All ranks begin with the same step, at the same place in the data, with programs that exchange the same.
pub(super) fn agree_on_start(
    team: &Team,
    shares: Shares,
    start: &Start,
    data: &DataState,
    session: &Session,
) -> Result<(), TrainError> {
    if team.is_alone() {
        return Ok(());
    }
    let (weights, state) = checksums(session)?;
    let exchanges = exchanges(session);
    // All would agree on nothing, and each would train a model of its own.
    if exchanges.is_empty() {
        let message =
            "its programs exchange no gradients with the other ranks: this is a fault of linc".into();
        return Err(TrainError::OfRank { rank: 0, message });
    }
    team.agree(&[
        ("the checksum of the weights to begin with", weights),
        ("the step to go on from", start.step.to_string()),
        ("the place in the data", format!("epoch {}, sample {}", data.epoch, data.index)),
        ("the checksum of the programs' exchanges", format!("{:08x}", crc32c::crc32c(exchanges.as_bytes()))),
    ])?;
    same_on_all(team, (start.step, STATE), &state, |rank| shares.first_with_part_of(rank))
}

/// What the optimizer keeps, as the subject of a sentence.
const STATE: &str = "the checksum of the optimizer's state";

/// Compares what each rank says with what another says that is to say the same.
///
/// # Errors
/// [`TrainError::Apart`] after that step, on all ranks alike.
fn same_on_all(
    team: &Team,
    (step, what): (usize, &'static str),
    mine: &str,
    other_of: impl Fn(usize) -> usize,
) -> Result<(), TrainError> {
    let all = team.gather(what, mine.as_bytes())?;
    let said = |rank: usize| String::from_utf8_lossy(&all[rank]).into_owned();
    match (0..all.len()).find(|rank| all[*rank] != all[other_of(*rank)]) {
        None => Ok(()),
        Some(rank) => {
            let beside = other_of(rank);
            Err(TrainError::Apart { step, what, beside, first: said(beside), rank, other: said(rank) })
        }
    }
}

/// Checksums of all parameters, and of what the optimizer keeps here, each in the order of names.
fn checksums(session: &Session) -> Result<(String, String), TrainError> {
    let of = |names: &mut dyn Iterator<Item = String>| -> Result<String, TrainError> {
        let mut sum = 0;
        for name in names {
            sum = crc32c::crc32c_append(sum, name.as_bytes());
            sum = crc32c::crc32c_append(sum, &session.executor.read_tensor(&name)?);
        }
        Ok(format!("{sum:08x}"))
    };
    Ok((of(&mut session.params().into_keys())?, of(&mut session.optimizer_state().into_iter())?))
}

impl Trainer {
    /// Whether all ranks still have the same weights, and those that have the same part of the optimizer's states the same of these:
    /// what they add up of their gradients is the same on all of them even where these are not. Costs a pass over both, once a step at most.
    ///
    /// # Errors
    /// [`TrainError::Apart`], on all ranks alike.
    pub(super) fn compare_weights(&mut self) -> Result<(), TrainError> {
        if self.team.is_alone() || self.compared_step == self.step {
            return Ok(());
        }
        let (weights, state) = checksums(&self.session)?;
        let (team, shares, step) = (&self.team, self.shares, self.step);
        same_on_all(team, (step, "the checksum of the weights"), &weights, |_| 0)?;
        same_on_all(team, (step, STATE), &state, |rank| shares.first_with_part_of(rank))?;
        self.compared_step = self.step;
        Ok(())
    }

    /// [`Trainer::compare_weights`] after each step where it is due.
    ///
    /// # Errors
    /// As it has.
    pub(super) fn compare_weights_now_and_then(&mut self) -> Result<(), TrainError> {
        let freq = self.config.comm.compare_weights_freq;
        if freq > 0 && self.step.is_multiple_of(freq) { self.compare_weights() } else { Ok(()) }
    }
}

/// What programs exchange, in their order, but for where a rank has it in its memory.
fn exchanges(session: &Session) -> String {
    let mut all = String::new();
    for program in 0..session.reports.len() {
        let plan = session.executor.plan(program);
        for (_, exchange) in plan.exchanges() {
            let group = plan.world.groups.get(exchange.group).map_or("", |group| &group.name);
            all.push_str(&format!("{program} {group} {}\n", exchange.name(plan.members(exchange))));
        }
    }
    all
}

/// Where the first rank writes, and what it goes on from.
#[derive(Serialize, Deserialize)]
struct FirstFolder {
    folder: String,
    whole: Option<PathBuf>,
}

/// Takes the folder that the first rank chose into the config; the checkpoint in it that is known to be whole.
pub(super) fn folder_of_first(
    team: &Team,
    config: &mut JobConfig,
    chosen: Option<&Chosen>,
) -> Result<Option<PathBuf>, TrainError> {
    let whole = chosen.and_then(|chosen| chosen.whole.clone());
    if team.is_alone() {
        return Ok(whole);
    }
    let mine = FirstFolder { folder: config.job.dump_folder.clone(), whole };
    let first: FirstFolder = of_first(team, "the folder", &mine)?;
    config.job.dump_folder = first.folder;
    Ok(first.whole)
}

/// The tile sizes of the first rank, for the kernels of this one.
pub(super) fn tiles_of_first(
    team: &Team,
    mine: Option<&Tiles>,
    model: &Model,
    programs: &Programs,
    target: Target,
) -> Result<Tiles, TrainError> {
    let record = mine.map_or_else(BTreeMap::new, |tiles| autotune::record(tiles, target));
    let record: BTreeMap<String, String> = of_first(team, "the tile sizes", &record)?;
    if let Some(tiles) = mine {
        return Ok(tiles.clone());
    }
    if record.is_empty() {
        return Ok(Tiles::new());
    }
    let (entry, options) = &programs.entries[TRAIN];
    let options = Options { target, dumps: false, ..options.clone() };
    let sites = linc_driver::compile(model, entry, &options, &mut linc_driver::layout_for([entry]))?.sites;
    let tiles = autotune::recorded(&record, &sites, target);
    tiles.map_err(|message| TrainError::OfRank { rank: 0, message: format!("its tile sizes: {message}") })
}

/// What the first rank has measured already.
pub(super) fn measured_of_first(team: &Team, mine: Measured) -> Result<Measured, TrainError> {
    if team.is_alone() {
        return Ok(mine);
    }
    let first: (Option<usize>, Option<usize>) =
        of_first(team, "what is measured", &(mine.validation, mine.evaluation))?;
    Ok(Measured { validation: first.0, evaluation: first.1 })
}

/// A value of the first rank, on all.
pub(super) fn of_first<T: Serialize + for<'a> Deserialize<'a>>(
    team: &Team,
    name: &str,
    mine: &T,
) -> Result<T, TrainError> {
    let bytes = team.of_first(name, serde_json::to_vec(mine).unwrap_or_default())?;
    // Both are this program, of one version.
    serde_json::from_slice(&bytes)
        .map_err(|error| TrainError::OfRank { rank: 0, message: format!("{name}: {error}") })
}
