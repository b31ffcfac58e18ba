//! The training loop: batches in, one program run per step, validation, metrics and checkpoints out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linc_driver::{AdamWSpec, Entry, Model, OptimizerOptions, Options, Placement, Source, names};
use linc_exec::Profile;
use linc_exec::device::Device;

use crate::checkpoint::{self, Contents, ModelRecord, State, Tensor};
use crate::config::{ConfigError, JobConfig, ModelFiles};
use crate::data::{Data, RecallAccuracy, ValidationData};
use crate::error::TrainError;
use crate::generate::{Generator, Sampling};
use crate::lr::LrSchedule;
use crate::metrics::{MetricsFile, Record};
use crate::session::Session;
use crate::system;

/// Number of the training program in the session.
const TRAIN: usize = 0;
/// Number of the evaluation program, where there is one.
const EVAL: usize = 1;
/// Number of the program behind the sample at the end, where there is one.
const DECODE: usize = 2;
/// Tokens of the sample at the end.
const SAMPLE_TOKENS: usize = 160;

/// What a run tells while it goes on.
pub trait Observer {
    /// A remark for people.
    fn message(&mut self, text: &str);
    /// A step is done (every step).
    fn step(&mut self, step: usize, steps: usize, loss: f32);
    /// A training record was written.
    fn record(&mut self, record: &Record, memory: (u64, u64));
    /// A validation record was written.
    fn validation(&mut self, record: &Record);
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Steps done.
    pub step: usize,
    /// Tokens trained on in this run.
    pub tokens: u64,
    /// Tokens per second over this run, without validation and checkpoints.
    pub tps: f64,
    /// Loss of the last step.
    pub loss: f32,
    /// The last validation.
    pub validation: Option<Record>,
    /// Largest memory of the process, bytes.
    pub peak_memory: u64,
    /// Where the last checkpoint is.
    pub checkpoint: Option<PathBuf>,
    /// Text from the trained model.
    pub sample: Option<String>,
    /// Ended by request before the last step.
    pub interrupted: bool,
    /// Kernel times, where profiling was on.
    pub profile: Option<Profile>,
}

/// A run.
pub struct Trainer {
    config: JobConfig,
    model: Model,
    record: ModelRecord,
    session: Session,
    data: Data,
    schedule: LrSchedule,
    metrics: MetricsFile,
    step: usize,
    tokens: u64,
    profile: Option<Profile>,
    last_checkpoint: Option<PathBuf>,
    peak_flops: f64,
}

/// The model of a config, with the record of it that checkpoints keep.
///
/// # Errors
/// The model's files are missing, malformed, or do not fit the settings.
pub fn open_model(
    config: &JobConfig,
    config_path: Option<&Path>,
) -> Result<(Model, ModelRecord), TrainError> {
    let files = ModelFiles::resolve(&config.model, config_path)?;
    let overrides: Vec<(String, f64)> =
        config.model_overrides.iter().map(|(key, value)| (key.clone(), value.to_f64())).collect();
    let source =
        |path: &Path, text: &str| Source { path: path.display().to_string(), text: text.to_string() };
    let toml = source(&files.model_path, &files.model_text);
    let architecture = source(&files.architecture_path, &files.architecture_text);
    let (ratio, placement) = (config.model.linear_attn_ratio, config.model.linear_attn_placement.clone());
    let model = Model::new(&toml, &architecture, &overrides, ratio, placement)?;
    let record = ModelRecord {
        name: model.name().to_string(),
        flavor: model.flavor().to_string(),
        linear_attn_ratio: ratio.to_string(),
        linear_attn_placement: model.placement.to_string(),
        layers: model.kinds.iter().map(|k| k.name().to_string()).collect(),
        params: model.sizes.params,
        model_path: toml.path,
        model_toml: toml.text,
        architecture_path: architecture.path,
        architecture: architecture.text,
        overrides,
        seq_len: config.training.seq_len,
    };
    Ok((model, record))
}

/// The model that a checkpoint describes.
///
/// # Errors
/// The texts in it do not parse (a checkpoint of another version).
pub fn model_of(record: &ModelRecord) -> Result<Model, TrainError> {
    let source = |path: &str, text: &str| Source { path: path.to_string(), text: text.to_string() };
    let toml = source(&record.model_path, &record.model_toml);
    let architecture = source(&record.architecture_path, &record.architecture);
    let setting = |e: linc_driver::PassError| TrainError::Compile(e.into());
    let ratio = record.linear_attn_ratio.parse().map_err(setting)?;
    let placement: Placement = record.linear_attn_placement.parse().map_err(setting)?;
    Ok(Model::new(&toml, &architecture, &record.overrides, ratio, placement)?)
}

/// Compile-time settings of a training run.
pub fn train_entry(config: &JobConfig) -> Entry {
    let o = &config.optimizer;
    let adamw = AdamWSpec { beta1: o.beta1, beta2: o.beta2, eps: o.eps, weight_decay: o.weight_decay };
    Entry::Train(OptimizerOptions { adamw, max_norm: config.training.max_norm })
}

/// Compiler options of a training run.
pub fn compile_options(config: &JobConfig) -> Options {
    let mut options = Options::new(config.training.batch_size, config.training.seq_len);
    options.recompute = config.activation_checkpoint.mode;
    options.disabled = config.compile.disable_passes.iter().cloned().collect();
    options.dumps = config.compile.dump;
    options.clock = Some(system::seconds);
    options
}

impl Trainer {
    /// Opens model, data and checkpoint, compiles, and allocates; nothing is trained yet.
    ///
    /// # Errors
    /// Anything that would stop the run later: settings, data, model, memory, checkpoint, dump folder.
    pub fn new(
        config: JobConfig,
        config_path: Option<&Path>,
        device: Box<dyn Device>,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        if config.accumulation_steps() > 1 {
            return Err(ConfigError::new("training.global_batch_size must equal training.batch_size")
                .help("linc does not add up gradients over batches; raise training.batch_size")
                .into());
        }
        let (model, record) = open_model(&config, config_path)?;
        let data = Data::open(&config, model.sizes.vocab_size)?;
        let entries = programs(&config, &data);
        let mut session = Session::new(&model, &entries, device)?;

        let folder = PathBuf::from(&config.job.dump_folder);
        fs::create_dir_all(&folder).map_err(output("create", &folder))?;
        let resolved = folder.join("config.toml");
        fs::write(&resolved, config.to_toml()).map_err(output("write", &resolved))?;
        for dump in session.dumps.iter_mut().flat_map(std::mem::take) {
            write_dump(&folder.join("compile"), &dump)?;
        }
        session.executor.initialize(config.training.seed)?;
        let schedule = LrSchedule::new(&config);
        let metrics_path = folder.join("metrics.jsonl");
        let mut trainer = Trainer {
            metrics: MetricsFile::open(&metrics_path, usize::MAX).map_err(output("write", &metrics_path))?,
            config,
            model,
            record,
            session,
            data,
            schedule,
            step: 0,
            tokens: 0,
            profile: None,
            last_checkpoint: None,
            peak_flops: 0.0,
        };
        trainer.restore(observer)?;
        trainer.metrics =
            MetricsFile::open(&metrics_path, trainer.step).map_err(output("write", &metrics_path))?;
        if trainer.config.profiling.enable_profiling {
            trainer.profile = Some(Profile::default());
        }
        trainer.peak_flops = trainer.session.executor.peak_flops();
        trainer.announce(observer);
        Ok(trainer)
    }

    /// TorchTitan's start-up lines, with the layer map.
    fn announce(&self, observer: &mut dyn Observer) {
        let (model, training) = (&self.model, &self.config.training);
        let report = &self.session.reports[TRAIN];
        observer.message(&format!("Starting job: {}", self.config.job.description));
        if self.config.job.print_config {
            observer.message(&self.config.to_toml());
        }
        observer.message(&self.session.executor.describe_device());
        let count = crate::metrics::thousands(model.sizes.params);
        observer.message(&format!("Model {} size: {count} total parameters", model.title()));
        observer.message(&format!(
            "Linear attention ratio {} ({}): {}",
            model.ratio,
            model.placement,
            model.layer_map()
        ));
        observer.message(&format!("Data: {}", self.data.summary));
        observer.message(&format!("Peak FLOPS used for computing MFU: {:.3e}", self.peak_flops));
        observer.message(&format!(
            "Memory of a step: {:.2} GiB, known before it: {}",
            report.peak_bytes as f64 / f64::from(1 << 30),
            report
                .memory
                .iter()
                .filter(|(_, bytes)| **bytes > 0)
                .map(|(name, bytes)| format!("{name} {:.1} MiB", *bytes as f64 / f64::from(1 << 20)))
                .collect::<Vec<_>>()
                .join(", ")
        ));
        observer.message(&format!(
            "Trainer is initialized with local batch size {}, global batch size {}, sequence length {}, total steps {} (warmup {}).",
            training.batch_size, training.batch_size, training.seq_len, training.steps, self.config.lr_scheduler.warmup_steps
        ));
        observer.message(&format!("Training starts at step {}.", self.step + 1));
    }

    /// Trains until the last step, or until `stop` is set: then the step is finished and a checkpoint saved.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] before a bad update is kept, or what device and disk refuse.
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Summary, TrainError> {
        let steps = self.config.training.steps;
        let start_tokens = self.tokens;
        let mut meter = Meter::default();
        let mut total = Duration::ZERO;
        let (mut loss, mut validation, mut interrupted) = (f32::NAN, None, false);
        while self.step < steps {
            let begun = Instant::now();
            let batch = self.data.training.next_batch();
            meter.data += begun.elapsed();
            let (step_loss, grad_norm) = self.train_step(&batch.tokens, &batch.targets)?;
            loss = step_loss;
            let elapsed = begun.elapsed();
            meter.time += elapsed;
            total += elapsed;
            meter.steps += 1;
            meter.tokens += batch.tokens.len() as u64;
            self.tokens += batch.tokens.len() as u64;
            observer.step(self.step, steps, loss);
            if self.step == 1 || self.step % self.config.metrics.log_freq == 0 || self.step == steps {
                let record = self.training_record(loss, grad_norm, &std::mem::take(&mut meter));
                self.write(&record)?;
                observer.record(&record, (self.session.executor.arena_bytes(), system::total_memory()));
            }
            let last = self.step == steps;
            if self.validates() && (last || self.step % self.config.validation.freq == 0) {
                let record = self.validate()?;
                self.write(&record)?;
                observer.validation(&record);
                validation = Some(record);
            }
            interrupted = stop.load(Ordering::Relaxed) && !last;
            let c = &self.config.checkpoint;
            if (c.enable && (last || self.step % c.interval == 0)) || interrupted {
                let path = self.save(last)?;
                observer.message(&format!("Saved checkpoint {}", path.display()));
            }
            if interrupted {
                observer.message(&format!(
                    "Interrupted after step {}; run the same command again to go on",
                    self.step
                ));
                break;
            }
        }
        let sample = if interrupted { None } else { self.sample()? };
        Ok(Summary {
            step: self.step,
            tokens: self.tokens - start_tokens,
            tps: (self.tokens - start_tokens) as f64 / total.as_secs_f64().max(1e-9),
            loss,
            validation,
            peak_memory: system::peak_memory(),
            checkpoint: self.last_checkpoint.clone(),
            sample,
            interrupted,
            profile: self.profile.take(),
        })
    }

    fn train_step(&mut self, tokens: &[i32], targets: &[i32]) -> Result<(f32, f32), TrainError> {
        let lr = self.schedule.lr(self.step) as f32;
        let number = (self.step + 1) as f32;
        let x = &mut self.session.executor;
        x.write_input(TRAIN, names::TOKENS, bytemuck::cast_slice(tokens))?;
        x.write_input(TRAIN, names::TARGETS, bytemuck::cast_slice(targets))?;
        x.write_input(TRAIN, names::LEARNING_RATE, bytemuck::bytes_of(&lr))?;
        x.write_input(TRAIN, names::STEP, bytemuck::bytes_of(&number))?;
        match &mut self.profile {
            Some(profile) => x.run_profiled(TRAIN, profile)?,
            None => x.run(TRAIN)?,
        }
        self.step += 1;
        let loss = self.session.scalar(TRAIN, names::LOSS)?;
        let grad_norm = self.session.scalar(TRAIN, names::GRAD_NORM)?;
        if loss.is_finite() && grad_norm.is_finite() {
            return Ok((loss, grad_norm));
        }
        Err(TrainError::NotFinite { step: self.step, loss, grad_norm })
    }

    fn training_record(&self, loss: f32, grad_norm: f32, meter: &Meter) -> Record {
        let report = &self.session.reports[TRAIN];
        let tps = meter.tokens as f64 / meter.time.as_secs_f64().max(1e-9);
        let steps = meter.steps.max(1) as f64;
        let titan = report.titan_flops_per_token as f64 * tps;
        let percent = |flops: f64| 100.0 * flops / self.peak_flops.max(1.0);
        Record {
            loss: Some(f64::from(loss)),
            grad_norm: Some(f64::from(grad_norm)),
            lr: Some(self.schedule.lr(self.step - 1)),
            tps: Some(tps),
            step_ms: Some(1e3 * meter.time.as_secs_f64() / steps),
            data_ms: Some(1e3 * meter.data.as_secs_f64() / steps),
            tflops: Some(titan / 1e12),
            mfu: Some(percent(titan)),
            true_mfu: Some(percent(report.flops_per_token as f64 * tps)),
            memory: report.memory.iter().map(|(name, bytes)| (name.to_string(), *bytes)).collect(),
            ..Record::new(self.step, self.tokens)
        }
    }

    fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        let path = Path::new(&self.config.job.dump_folder).join("metrics.jsonl");
        self.metrics.write(record).map_err(output("write", &path))
    }

    fn validates(&self) -> bool {
        self.config.validation.enable && self.data.validation.is_some()
    }

    /// Loss over the validation part, weighted by targets; accuracy on recall.
    fn validate(&mut self) -> Result<Record, TrainError> {
        let mut record = Record::new(self.step, self.tokens);
        let Some(validation) = &self.data.validation else { return Ok(record) };
        let (mut nats, mut count, mut bytes) = (0.0, 0u64, 0u64);
        let mut accuracy = RecallAccuracy::default();
        for index in 0..validation.batches_of(self.config.validation.steps) {
            let batch = validation.batch(index);
            match validation {
                ValidationData::Text(_) => {
                    let loss = self.session.loss(EVAL, &batch.tokens, &batch.targets)?;
                    nats += f64::from(loss) * batch.target_count() as f64;
                }
                ValidationData::Mqar(_) => {
                    let logits = logits(&mut self.session, &batch.tokens)?;
                    let vocab = self.model.sizes.vocab_size;
                    let row = |position: usize| &logits[position * vocab..(position + 1) * vocab];
                    nats += batch
                        .queries
                        .iter()
                        .map(|q| nll(row(q.position), batch.targets[q.position]))
                        .sum::<f64>();
                    accuracy.add(&batch, |position| argmax(row(position)));
                }
            }
            count += batch.target_count() as u64;
            bytes += batch.target_bytes.unwrap_or(0);
        }
        record.validation_loss = Some(nats / count.max(1) as f64);
        if bytes > 0 {
            record.validation_bits_per_byte = Some(nats / std::f64::consts::LN_2 / bytes as f64);
        }
        if accuracy.overall.total > 0 {
            record.validation_accuracy = Some(accuracy.overall.accuracy());
        }
        Ok(record)
    }

    /// Text from the trained model, where its tokens are text.
    fn sample(&mut self) -> Result<Option<String>, TrainError> {
        let Some(tokenizer) = self.data.tokenizer.clone() else { return Ok(None) };
        let sampling = Sampling { temperature: 0.8, top_k: 40, top_p: 1.0, seed: self.config.training.seed };
        let context = self.config.training.seq_len;
        let mut generator =
            Generator::new(&mut self.session, DECODE, context, self.model.sizes.vocab_size, tokenizer);
        let text =
            generator.generate("", SAMPLE_TOKENS.min(context.saturating_sub(1)), &sampling, &mut |_| {})?;
        Ok(Some(text))
    }

    fn checkpoint_folder(&self) -> PathBuf {
        Path::new(&self.config.job.dump_folder).join(&self.config.checkpoint.folder)
    }

    fn save(&mut self, last: bool) -> Result<PathBuf, TrainError> {
        let folder = self.checkpoint_folder();
        let executor = &self.session.executor;
        let read = |name: String, shape: Vec<usize>| {
            let source = name.clone();
            Tensor { name, shape, read: Box::new(move || executor.read_tensor(&source).unwrap_or_default()) }
        };
        let model_only = last && self.config.checkpoint.last_save_model_only;
        let moments = if model_only { Default::default() } else { self.session.moments() };
        let contents = Contents {
            params: self.session.params().into_iter().map(|(n, s)| read(n, s)).collect(),
            optimizer: moments.into_iter().map(|(n, s)| read(n, s)).collect(),
            tokenizer: self.config.model.tokenizer_path.as_deref().map(tokenizer_file),
            state: State::new(
                self.step,
                self.tokens,
                self.config.training.seed,
                self.data.training.state(),
                self.record.clone(),
            ),
        };
        let path = checkpoint::save(&folder, contents)?;
        checkpoint::purge(&folder, self.config.checkpoint.keep_latest_k)?;
        self.last_checkpoint = Some(path.clone());
        Ok(path)
    }

    /// Goes to the checkpoint that the config asks for, if any.
    fn restore(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let c = self.config.checkpoint.clone();
        let explicit = c.load_step >= 0;
        if c.enable || explicit {
            if let Some(path) = checkpoint::find(&self.checkpoint_folder(), c.load_step)? {
                let state = self.load_tensors(&path, true)?;
                self.data.training.restore(&state.data)?;
                (self.step, self.tokens) = (state.step, state.tokens);
                self.last_checkpoint = Some(path.clone());
                observer.message(&format!("Resuming from {} (step {})", path.display(), state.step));
                return Ok(());
            }
        }
        if let Some(path) = &c.initial_load_path {
            let path = PathBuf::from(path);
            let state = self.load_tensors(&path, !c.initial_load_model_only)?;
            if !c.initial_load_model_only {
                self.data.training.restore(&state.data)?;
                (self.step, self.tokens) = (state.step, state.tokens);
            }
            observer.message(&format!("Starting from the weights of {}", path.display()));
        }
        Ok(())
    }

    fn load_tensors(&mut self, path: &Path, with_optimizer: bool) -> Result<State, TrainError> {
        let state = checkpoint::open(path)?;
        check_model(path, &state.model, &self.record)?;
        let mut wanted = vec![(checkpoint::MODEL_FILE, self.session.params())];
        if with_optimizer {
            if !state.files.contains_key(checkpoint::OPTIMIZER_FILE) {
                let message = "it has the weights only; use it as checkpoint.initial_load_path".to_string();
                return Err(
                    checkpoint::CheckpointError::Mismatch { path: path.to_path_buf(), message }.into()
                );
            }
            wanted.push((checkpoint::OPTIMIZER_FILE, self.session.moments()));
        }
        for (file, tensors) in wanted {
            let mut failed = None;
            let executor = &mut self.session.executor;
            checkpoint::load(&path.join(file), &tensors, &mut |name, bytes| {
                if let Err(error) = executor.write_tensor(name, bytes) {
                    failed = Some(error);
                }
            })?;
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok(state)
    }
}

/// Loads a checkpoint's weights into a session of its model.
///
/// # Errors
/// [`TrainError::Checkpoint`].
pub fn load_weights(session: &mut Session, path: &Path) -> Result<(), TrainError> {
    let params = session.params();
    let mut failed = None;
    checkpoint::load(&path.join(checkpoint::MODEL_FILE), &params, &mut |name, bytes| {
        if let Err(error) = session.executor.write_tensor(name, bytes) {
            failed = Some(error);
        }
    })?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// A run can only go on with the model that it was started with.
fn check_model(path: &Path, saved: &ModelRecord, now: &ModelRecord) -> Result<(), TrainError> {
    let differs = if saved.params != now.params || saved.architecture != now.architecture {
        Some(format!(
            "it is of {} {} with {} parameters, the config asks for {} {} with {}; use that model or another job.dump_folder",
            saved.name, saved.flavor, saved.params, now.name, now.flavor, now.params
        ))
    } else if saved.layers != now.layers {
        Some(format!(
            "its layers are {}, the config asks for {}; set model.linear_attn_ratio = {} or another job.dump_folder",
            letters(&saved.layers),
            letters(&now.layers),
            saved.linear_attn_ratio
        ))
    } else {
        None
    };
    match differs {
        None => Ok(()),
        Some(message) => {
            Err(checkpoint::CheckpointError::Mismatch { path: path.to_path_buf(), message }.into())
        }
    }
}

fn letters(layers: &[String]) -> String {
    layers.iter().filter_map(|l| l.chars().next()).map(|c| c.to_ascii_uppercase()).collect()
}

/// The programs of a run, numbered [`TRAIN`], [`EVAL`], [`DECODE`].
fn programs(config: &JobConfig, data: &Data) -> Vec<(Entry, Options)> {
    let options = compile_options(config);
    let mut entries = vec![(train_entry(config), options.clone())];
    let sister = |batch: usize, seq: usize| {
        let mut sister = Options::new(batch, seq);
        sister.disabled = options.disabled.clone();
        sister
    };
    let evaluation = match data.validation {
        Some(ValidationData::Mqar(_)) => Entry::Forward,
        Some(ValidationData::Text(_)) | None => Entry::Eval,
    };
    entries.push((evaluation, sister(options.batch, options.seq)));
    if data.tokenizer.is_some() {
        entries.push((Entry::Decode { context: options.seq }, sister(1, 1)));
    }
    entries
}

/// Logits `[B*N, vocab]` of a batch by the evaluation program.
fn logits(session: &mut Session, tokens: &[i32]) -> Result<Vec<f32>, TrainError> {
    session.executor.write_input(EVAL, names::TOKENS, bytemuck::cast_slice(tokens))?;
    session.executor.run(EVAL)?;
    Ok(session.executor.output(EVAL, names::LOGITS)?)
}

/// Negative log likelihood of a target in a row of logits.
fn nll(row: &[f32], target: i32) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
    let own = usize::try_from(target).ok().and_then(|t| row.get(t)).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() - f64::from(own - max)
}

fn argmax(row: &[f32]) -> i32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map_or(-1, |(i, _)| i as i32)
}

/// The tokenizer's file, which may be named by its folder.
fn tokenizer_file(path: &str) -> PathBuf {
    let path = PathBuf::from(path);
    if path.is_dir() { path.join("tokenizer.json") } else { path }
}

/// Writes a text of the compiler under a folder.
///
/// # Errors
/// [`TrainError::Output`].
pub fn write_dump(folder: &Path, dump: &linc_driver::Dump) -> Result<(), TrainError> {
    let path = folder.join(&dump.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(output("create", parent))?;
    }
    fs::write(&path, &dump.text).map_err(output("write", &path))
}

fn output(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.to_path_buf();
    move |source| TrainError::Output { action, path, source }
}

/// Time and tokens since the last record.
#[derive(Default)]
struct Meter {
    steps: u64,
    tokens: u64,
    time: Duration,
    data: Duration,
}
