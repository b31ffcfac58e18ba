//! The model and the programs of a run: from a config, or from a checkpoint's record of it.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use linc_checkpoint::{CheckpointError, ModelRecord};
use linc_config::{ModelFiles, OVERRIDES};
use linc_data::{Data, DataError, ValidationData};
use linc_device::{Device, process};
use linc_driver::tiles::Tiles;
use linc_driver::{
    BatchShape, CompileError, Entry, Model, OptimizerOptions, Options, Reduce, Room, Source, Target,
    decode_support,
};
use linc_exec::ExecError;
use linc_session::{SessionError, autotune};

use super::shares::Shares;
use super::{Observer, health, optimizer, resume};
use crate::config::{JobConfig, Reduced};
use crate::error::TrainError;
use crate::team::Team;
pub(super) use linc_session::output::output;

/// Number of the program that runs once a batch, in the session.
pub(super) const TRAIN: usize = 0;
/// Number of the evaluation program.
pub(super) const EVAL: usize = 1;

/// The model of a config, with the record of it that checkpoints keep.
///
/// # Errors
/// The model's files are malformed, or do not fit the settings.
pub fn open_model(config: &JobConfig, files: &ModelFiles) -> Result<(Model, ModelRecord), TrainError> {
    let overrides = config.model_overrides();
    let source =
        |path: &Path, text: &str| Source { path: path.display().to_string(), text: text.to_string() };
    let toml = source(&files.model_path, &files.model_text);
    let architecture = source(&files.architecture_path, &files.architecture_text);
    let (ratio, placement) = (config.model.linear_attn_ratio, config.model.linear_attn_placement.clone());
    let shape = BatchShape { batch: config.training.batch_size, seq: config.training.seq_len };
    // The numbers of layers are the model's, so that only now a list can be seen to be wrong.
    let model = Model::new(&toml, &architecture, &overrides, ratio, placement, shape);
    let model = model.map_err(|error| match error {
        CompileError::Override { ref key, .. } => problem(config, &[&format!("{OVERRIDES}.{key}")], &error),
        CompileError::Pass(error) => {
            problem(config, &["model.linear_attn_placement", "model.linear_attn_ratio"], &error)
        }
        CompileError::Model(errors) if !overrides.is_empty() => {
            let given =
                overrides.iter().filter_map(|(key, _)| config.place_of(&format!("{OVERRIDES}.{key}")));
            let given: Vec<String> = given.collect();
            CompileError::Model(errors.noting(format!("numbers are overridden by {}", given.join(", "))))
                .into()
        }
        other => TrainError::from(other),
    })?;
    let record = ModelRecord {
        name: model.name().to_string(),
        flavor: model.flavor().to_string(),
        linear_attn_ratio: model.share().to_string(),
        linear_attn_placement: model.placement.to_string(),
        layers: model.kinds.iter().map(|k| k.label().to_string()).collect(),
        params: model.sizes.params,
        model_path: toml.path,
        model_toml: toml.text,
        architecture_path: architecture.path,
        architecture: architecture.text,
        overrides,
        seq_len: config.training.seq_len,
        batch_size: config.training.batch_size,
    };
    Ok((model, record))
}

/// An error of the data that is a setting's, at the setting's place.
pub(super) fn at_setting(config: &JobConfig, error: DataError) -> TrainError {
    let DataError::Setting { setting, error } = error else { return error.into() };
    problem(config, &[setting], &error)
}

/// An error of the compiler that is a setting's, at the setting's place.
pub(super) fn at_budget(config: &JobConfig, error: TrainError) -> TrainError {
    match &error {
        TrainError::Session(SessionError::Compile(budget @ CompileError::Budget { .. })) => {
            problem(config, &["activation_checkpoint.memory_budget"], budget)
        }
        _ => error,
    }
}

/// An error at the place of settings, with its help below the line that it is about.
fn problem(config: &JobConfig, settings: &[&str], error: &impl ToString) -> TrainError {
    let message = error.to_string();
    let (message, help) = match message.split_once("\n  help: ") {
        Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
        None => (message, None),
    };
    config.problem(settings, message, help).into()
}

/// Compiler options of a training run.
fn compile_options(config: &JobConfig) -> Options {
    let mut options = sister(config, config.training.batch_size, config.training.seq_len);
    options.documents = config.data.training.reset_at_document;
    options.recompute = config.activation_checkpoint.policy();
    options.dumps = config.compile.dump;
    options.clock = Some(process::seconds);
    options
}

/// Compiler options of a program that shares the parameters of a run and does not train.
pub(super) fn sister(config: &JobConfig, batch: usize, seq: usize) -> Options {
    let mut sister = Options::new(batch, seq);
    sister.precision = config.training.mixed_precision_param;
    sister.disabled = config.compile.disable_passes.iter().cloned().collect();
    sister
}

/// The programs of a run: numbered [`TRAIN`] and [`EVAL`], and the numbers of those that not every run has.
pub(super) struct Programs {
    pub(super) entries: Vec<(Entry, Options)>,
    /// Behind the sample at the end, where tokens are text and the model can generate.
    pub(super) decode: Option<usize>,
    /// Why there is none though tokens are text.
    pub(super) no_sample: Option<String>,
    /// The optimizer's step, where [`TRAIN`] only adds up gradients.
    pub(super) update: Option<usize>,
}

/// The programs that a config asks for.
pub(super) fn programs(
    config: &JobConfig,
    model: &Model,
    data: &Data,
    optimizer: &OptimizerOptions,
    shares: Shares,
) -> Result<Programs, TrainError> {
    // Also of programs that exchange nothing: they find the parameters where those that do have room for parts.
    let reduce = match config.parallelism.reduce {
        Reduced::Exact => Reduce::Exact,
        Reduced::Library => Reduce::Library,
    };
    let options = Options { mesh: shares.mesh()?, reduce, ..compile_options(config) };
    // Batches of this process, whose operations the update's count for.
    let steps = shares.batches;
    let adds_up = steps > 1;
    let train = if adds_up { Entry::Accumulate } else { Entry::Train(optimizer.clone()) };
    let mut entries = vec![(train, options.clone())];
    let sister = |batch, seq| Options { mesh: options.mesh.clone(), ..sister(config, batch, seq) };
    let evaluation = match data.validation {
        Some(ValidationData::Recall(_)) => Entry::Forward,
        Some(ValidationData::Text(_)) | None => Entry::Eval,
    };
    let documents = options.documents;
    entries.push((evaluation, Options { documents, ..sister(options.batch, options.seq) }));
    let mut push = |entry: Entry, options: Options| {
        entries.push((entry, options));
        entries.len() - 1
    };
    // Before the programs that have caches, so that the arena of a step ends before those. Its operations count for all
    // tokens of the step.
    let update =
        adds_up.then(|| push(Entry::Update(optimizer.clone()), sister(options.batch * steps, options.seq)));
    let context = options.seq;
    let generates = data.tokenizer.as_ref().map(|_| decode_support(model));
    let (decode, no_sample) = match generates {
        None => (None, None),
        Some(Ok(_)) => (Some(push(Entry::Decode(Room::of_one(context)), sister(1, 1))), None),
        Some(Err(error)) => {
            let reason = error.to_string();
            let reason = reason.lines().next().unwrap_or_default().replacen("error: ", "", 1);
            (None, Some(format!("There will be no sample at the end: {reason}")))
        }
    };
    Ok(Programs { entries, decode, no_sample, update })
}

/// Bytes of the arena of a run on a device, as far as steps and validations need it, before anything is allocated.
///
/// # Errors
/// The model is malformed, does not fit the settings, or does not compile.
pub fn planned_memory(
    config: &JobConfig,
    files: &ModelFiles,
    device: &dyn Device,
) -> Result<u64, TrainError> {
    let (model, _) = open_model(config, files)?;
    let optimizer = optimizer::updates(config, &model)?.options;
    let options = Options { target: linc_session::target(device), dumps: false, ..compile_options(config) };
    let entries = match config.accumulation_steps() {
        1 => vec![Entry::Train(optimizer), Entry::Eval],
        _ => vec![Entry::Accumulate, Entry::Update(optimizer), Entry::Eval],
    };
    let mut layout = linc_driver::layout_for(&entries);
    let mut entries: Vec<(Entry, Options)> =
        entries.into_iter().map(|entry| (entry, options.clone())).collect();
    entries.extend(health::begin(config, &model, device)?.map(|(_, program)| program));
    let mut bytes = 0;
    for (entry, options) in &entries {
        bytes = bytes.max(linc_driver::compile(&model, entry, options, &mut layout)?.plan.arena_bytes());
    }
    Ok(bytes)
}

/// Tile sizes for a run: of the checkpoint that it goes on from, else measured, if that is asked for.
///
/// # Errors
/// The checkpoint cannot be read, the model does not compile, or the device is not there.
pub(super) fn tiles(
    config: &JobConfig,
    model: &Model,
    programs: &Programs,
    target: Target,
    stop: &AtomicBool,
    team: &Team,
    observer: &mut dyn Observer,
) -> Result<Tiles, TrainError> {
    let limit = Duration::from_secs_f64(config.compile.autotune_seconds.min(1e9));
    let before = resume::goes_on_from(config)?;
    if before.as_ref().map_or(limit.is_zero(), |(_, state)| state.tiles.is_empty()) {
        if !limit.is_zero() {
            observer
                .message("Tile sizes are linc's own: the run goes on with the bits that it was started with");
        }
        return Ok(Tiles::new());
    }
    let (entry, options) = &programs.entries[TRAIN];
    let options = Options { target, dumps: false, ..options.clone() };
    let mut layout = linc_driver::layout_for([entry]);
    let sites = linc_driver::compile(model, entry, &options, &mut layout)?.sites;
    let Some((path, state)) = before else {
        let threads = config.training.threads;
        // A device of its own, so that its memory is free again afterwards.
        let open = config.training.device.open((threads > 0).then_some(threads));
        let mut device = open.map_err(ExecError::from)?.device;
        let store = autotune::Store::of_environment();
        let mut tell = |told: autotune::Told<'_>| {
            team.give_sign();
            match told {
                autotune::Told::Choice(text) => observer.message(text),
                autotune::Told::Runs { done, total } => observer.tuning(done, total),
            }
        };
        return Ok(autotune::tune(&sites, &mut *device, target, limit, &store, stop, &mut tell));
    };
    let tiles = autotune::recorded(&state.tiles, &sites, target)
        .map_err(|message| CheckpointError::corrupt(path, message))?;
    for (site, tile) in &tiles {
        observer.message(&format!("{site}: tiles of {tile}, as the run was started with"));
    }
    Ok(tiles)
}
