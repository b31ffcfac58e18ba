//! How a run starts: everything that can be refused is, on all ranks alike, before anything is written or trained.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use linc_config::ModelFiles;
use linc_data::{Data, Event, Loading, Part, Reading, TokenCache};
use linc_device::Device;
use linc_driver::Options;
use linc_exec::Profile;
use linc_session::output::{check_folder, write_files};
use linc_session::{Session, autotune};

use super::kept::Kept;
use super::observer::paced;
use super::programs::{self, TRAIN, open_model, output};
use super::trace::Tracer;
use super::{About, Folder, Observer, Questions, Trainer, folder, health, optimizer, ranks, resume};
use crate::alerts::Monitor;
use crate::config::{Alerts, JobConfig};
use crate::error::TrainError;
use crate::lr::LrSchedule;
use crate::metrics::{EventFile, Measured, MetricsFile};
use crate::team::Team;

/// What a run trains on.
pub struct Machine {
    /// Of this process.
    pub device: Box<dyn Device>,
    /// The processes of the run, each with a device.
    pub team: Team,
}

impl From<Box<dyn Device>> for Machine {
    fn from(device: Box<dyn Device>) -> Machine {
        Machine { device, team: Team::alone() }
    }
}

impl Trainer {
    /// Opens model (`files`), data and checkpoint, compiles, and allocates; nothing is trained yet. The dump folder is the config's
    /// or, as `meaning` has it, one of the run's own beside it. `questions` are asked of the model as `[eval]` says. Looks at `stop`
    /// between pieces of that work. Of several ranks the first writes, and reads text before the others.
    ///
    /// # Errors
    /// Anything that would stop the run later: settings, data, model, memory, checkpoint, dump folder; or
    /// [`TrainError::is_interrupt`]. Of several ranks all have one where any has, and none where they differ in what must be the
    /// same.
    pub fn new(
        mut config: JobConfig,
        files: &ModelFiles,
        meaning: Folder,
        mut questions: Option<Box<dyn Questions>>,
        machine: impl Into<Machine>,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let Machine { mut device, team } = machine.into();
        let is_first = team.is_first();
        config.fix_global_batch(team.size());
        let mut proceed = || match stop.load(Ordering::Relaxed) {
            true => Err(TrainError::Interrupted),
            false => Ok(()),
        };
        observer.message(&format!("Starting job: {}", config.job.description));
        let begin = || {
            ranks::check_supported(&config, &team, &*device)?;
            let shares = config.shares(team.rank(), team.size())?;
            if is_first {
                folder::check_free(&config, meaning)?;
            }
            let (model, record) = open_model(&config, files)?;
            let updates = optimizer::updates(&config, &model)?;
            let health = health::begin(&config, &model, &*device)?;
            shares.check_optimizer(&config, &updates.options)?;
            // A folder that is named is held from here on: reading data may take minutes.
            let named = if is_first { folder::take_named(&config, meaning)? } else { None };
            Ok((shares, model, record, (updates, health), named))
        };
        let (shares, model, record, (updates, health), named) = team.settle("opening the model", begin())?;
        ranks::connect(&team, &mut *device)?;
        let mut tell = |event: Event<'_>| {
            team.give_sign();
            match event {
                Event::Note(text) => observer.message(text),
                // All ranks read the same data.
                Event::Warning(text) if is_first => observer.warning(text),
                Event::Warning(_) => {}
                Event::Progress { what, done, total } => observer.progress(what, done, total),
            }
        };
        let mut loading = Loading { stop, tell: &mut tell, cache: TokenCache::of_environment() };
        let reading = Reading {
            batch_size: config.training.batch_size,
            seq_len: config.training.seq_len,
            seed: config.training.seed,
            validates: config.validation.enable,
            tokenizer_path: config.model.tokenizer_path.as_deref(),
            vocab_size: model.sizes.vocab_size,
            part: Part { rank: shares.rank, ranks: shares.ranks, batches: shares.batches },
        };
        let mut open = || {
            let data = Data::open(&config.data, reading, &mut loading);
            let data = data.map_err(|error| programs::at_setting(&config, error))?;
            proceed().map(|()| data)
        };
        // What the first rank makes tokens of, the others find in the cache.
        let data = match team.of_first_alone("reading the data", &mut open)? {
            Some(data) => Ok(data),
            None => open(),
        };
        let mut data = team.settle("reading the data", data)?;
        ranks::agree(&team, &config, &record, &data)?;
        let chosen = match (named, is_first) {
            (Some(chosen), _) => Ok(Some(chosen)),
            (None, true) => folder::choose(&mut config, &record, &data.training, &mut proceed).map(Some),
            (None, false) => Ok(None),
        };
        let chosen = team.settle("choosing the folder", chosen)?;
        let whole = ranks::folder_of_first(&team, &mut config, chosen.as_ref())?;
        if let Some(chosen) = &chosen {
            observer.message(&chosen.message);
        }
        let mut lock = chosen.map(|chosen| chosen.lock);
        let mut programs = programs::programs(&config, &model, &data, &updates.options, shares)?;
        let health = health.map(|(mut health, program)| {
            health.program = programs.entries.len();
            programs.entries.push(program);
            health
        });
        let target = linc_session::target(&*device);
        let first = team.of_first_alone("measuring tile sizes", || {
            programs::tiles(&config, &model, &programs, target, stop, &team, observer)
        })?;
        let tiles = match (&first, team.is_alone()) {
            (Some(tiles), true) => Ok(tiles.clone()),
            _ => ranks::tiles_of_first(&team, first.as_ref(), &model, &programs, target),
        };
        let tiles = team.settle("tile sizes", tiles)?;
        for (_, options) in &mut programs.entries {
            options.tiles = tiles.clone();
        }
        let compile = || {
            if let Some(questions) = &mut questions {
                let about = About {
                    model: &model,
                    tokenizer: data.tokenizer.as_ref(),
                    context: config.training.seq_len,
                    options: &Options { target, ..programs::sister(&config, 1, 1) },
                    first: programs.entries.len(),
                    decode: programs.decode,
                    stop,
                };
                programs.entries.extend(questions.begin(about)?);
            }
            observer.message("Compiling the programs of the run");
            let session = Session::new(&model, &programs.entries, device, &mut proceed);
            let session = session.map_err(|error| programs::at_budget(&config, error))?;
            let dumps: Vec<&str> = session.dumps.iter().flatten().map(|dump| &*dump.path).collect();
            if is_first && !dumps.is_empty() {
                check_folder(&Path::new(&config.job.dump_folder).join("compile"), &dumps)?;
            }
            Ok(session)
        };
        let mut session = team.settle("compiling", compile())?;
        let kept = Kept::of_all(&team, &session.executor)?;
        let mut load = || {
            let mut progress = paced(|done, total| observer.progress("Reading the checkpoint", done, total));
            let restored = resume::restore(
                &config,
                whole.as_deref(),
                &record,
                (&mut session, &kept),
                &mut data.training,
                &mut |done, total| {
                    progress(done, total);
                    proceed()
                },
            )?;
            drop(progress);
            if let Some(start) = restored {
                return Ok(start);
            }
            let mut progress = paced(|done, total| observer.progress("Drawing initial values", done, total));
            if !session.executor.initialize_until(config.training.seed, stop, &mut progress)? {
                return Err(TrainError::Interrupted);
            }
            Ok(resume::Start::default())
        };
        let start = team.settle("loading weights", load())?;
        ranks::agree_on_start(&team, shares, &start, &data.training.state(), &session)?;

        // Nothing of an earlier run is touched before everything that can be refused was accepted.
        let folder = PathBuf::from(&config.job.dump_folder);
        let mut open_files = || {
            let Some(lock) = &mut lock else { return Ok((None, None)) };
            lock.keep_folder();
            for message in folder::write_config(&config, start.step)? {
                observer.message(&message);
            }
            let dumps: Vec<(&str, &[u8])> =
                session.dumps.iter().flatten().map(|dump| (&*dump.path, dump.text.as_bytes())).collect();
            if !dumps.is_empty() {
                write_files(&folder.join("compile"), &dumps)?;
            }
            let path = folder.join("metrics.jsonl");
            let metrics = MetricsFile::open(&path, start.step).map_err(output("write", &path))?;
            let events_folder = folder.join(&config.metrics.save_tb_folder);
            let events = match config.metrics.enable_tensorboard {
                true => Some(
                    EventFile::create(&events_folder, start.step).map_err(output("write", &events_folder))?,
                ),
                false => None,
            };
            Ok((Some(metrics), events))
        };
        let (metrics, events) = team.settle("opening the folder", open_files())?;
        let measured: Measured = ranks::measured_of_first(
            &team,
            metrics.as_ref().map_or_else(Measured::default, MetricsFile::measured),
        )?;
        session.dumps.clear();
        let metrics = metrics.unwrap_or_else(|| MetricsFile::nowhere(measured));
        let alerts = match is_first {
            true => config.alerts.clone(),
            false => Alerts { enable: false, command: String::new(), ..config.alerts.clone() },
        };
        // All ranks or none: where one runs a step kernel by kernel and others as a graph, their libraries may wait for each other.
        let profiles = config.profiling.enable_profiling;
        let trainer = Trainer {
            metrics,
            events,
            schedule: LrSchedule::new(&config),
            alerts: Monitor::new(&alerts, &folder),
            step: start.step,
            skipped: start.skipped,
            skipped_in_a_row: start.skipped_in_a_row,
            start_step: start.step,
            tokens: start.tokens,
            profile: profiles.then(Profile::default),
            unprofiled: 0,
            tracer: (profiles && is_first).then(|| {
                let traces = folder.join(&config.profiling.save_traces_folder);
                Tracer::new(traces, config.profiling.profile_freq)
            }),
            compared_step: start.step,
            saved_step: start.checkpoint.is_some().then_some(start.step),
            last_checkpoint: start.checkpoint,
            step_memory: session.memory(&[&[TRAIN][..], programs.update.as_slice()].concat()),
            peak: format!("{:.3e} ({})", session.executor.peak_flops(), session.executor.describe_peak()),
            config,
            model,
            record,
            session,
            kept,
            questions,
            decode: programs.decode,
            update: programs.update,
            health,
            grad_norms: updates.norms,
            tiles: autotune::record(&tiles, target),
            data,
            saving: None,
            lock,
            team,
            shares,
        };
        trainer.announce(start.message, &updates.lines, observer);
        if let Some(reason) = programs.no_sample {
            observer.message(&reason);
        }
        trainer.team.wait("the first step")?;
        Ok(trainer)
    }
}
