//! From tasks to results: samples in batches, kept as they are answered, and what they add up to.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use hmac_sha256::Hash as Sha256;
use linc_infer::{Sampling, Scores};
use serde_json::{Value, json};

use crate::code::run_all;
use crate::error::EvalError;
use crate::record::{Log, Record};
use crate::results::TaskResult;
use crate::sample::{Answer, Ask, Grade, Sample};
use crate::scorer::{Scorer, Writing};
use crate::task::{Made, Setting, Task};
use crate::tasks::humaneval;

/// Sequences that are scored between two looks at the disk: more than a batch of each length.
const AT_ONCE: usize = 128;

/// Hears how far an evaluation is.
pub trait Observer {
    /// The samples of a task are being made.
    fn preparing(&mut self, task: &str);
    /// So many samples of a task are done, of how many there are; `before` were there already.
    fn progress(&mut self, task: &str, done: usize, total: usize, before: usize);
}

/// Name of the file that says what results of a folder are of.
const IDENTITY: &str = "evaluation.json";
/// Name of the file that an evaluation holds while it writes.
const LOCK: &str = ".lock";
/// How often a folder is looked at that another evaluation seems to hold.
const PATIENCE: usize = 100;
/// Name of the file with results.
const RESULTS: &str = "results.json";

/// A folder of results, which belongs to one model with one way to ask it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    identity: Value,
    /// Held, so that no other evaluation writes into it.
    _lock: File,
}

impl Folder {
    /// Makes a folder, or opens it where an evaluation of the same model goes on. `model` and `setting` are what every
    /// number in it depends on.
    ///
    /// # Errors
    /// [`EvalError::File`] if it cannot be written, or has results of something else, or of nobody knows what, or another
    /// evaluation writes into it.
    pub fn open(path: &Path, model: &Value, setting: &Value) -> Result<Self, EvalError> {
        fs::create_dir_all(path).map_err(EvalError::unwritable(path))?;
        let lock = lock(path)?;
        let file = path.join(IDENTITY);
        let wanted = json!({ "model": model, "setting": setting });
        let known = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).map_err(|error| {
                EvalError::file(&file, format!("is no JSON: {error}"), "name another folder with --out")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(EvalError::unreadable(&file)(error)),
        };
        if known.is_null() && has_samples(path)? {
            let message = format!("has samples, and no {IDENTITY} that says of which model they are");
            return Err(EvalError::file(path, message, "name another folder with --out, or remove this one"));
        }
        // Where no task has begun there is nothing that could be mixed.
        let tasks = known["tasks"].as_object().cloned().unwrap_or_default();
        for part in ["model", "setting"] {
            let Some(other) = difference(&known[part], &wanted[part]).filter(|_| !tasks.is_empty()) else {
                continue;
            };
            let message = format!("has results of another {part}: {other}");
            return Err(EvalError::file(path, message, "name another folder with --out, or remove this one"));
        }
        let identity = json!({ "model": model, "setting": setting, "tasks": tasks });
        Ok(Folder { path: path.to_path_buf(), identity, _lock: lock })
    }

    /// Notes what a task's samples are, or refuses where its results are of others.
    fn claim(&mut self, task: &Task, samples: &Value) -> Result<(), EvalError> {
        let known = &self.identity["tasks"][task.name];
        if let Some(other) = difference(known, samples).filter(|_| !known.is_null()) {
            let message = format!("its results of {} are of other samples: {other}", task.name);
            let help = "name another folder with --out, or remove this one";
            return Err(EvalError::file(&self.path, message, help));
        }
        self.identity["tasks"][task.name] = samples.clone();
        self.write(IDENTITY, &format!("{:#}\n", self.identity))
    }

    /// Writes `results.json`: `about`, an object, and beside it the results of tasks; those of other tasks, which were
    /// evaluated before, stay.
    ///
    /// # Errors
    /// [`EvalError::File`] if it cannot be written.
    pub fn save(&self, about: Value, results: &[TaskResult]) -> Result<(), EvalError> {
        let known = fs::read(self.path.join(RESULTS)).ok();
        let known = known.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let mut tasks = known.and_then(|known| known["tasks"].as_object().cloned()).unwrap_or_default();
        tasks.extend(results.iter().map(|one| (one.task.name.to_owned(), one.json())));
        let mut all = about;
        all["tasks"] = Value::Object(tasks);
        self.write(RESULTS, &format!("{all:#}\n"))
    }

    /// Writes a file as a whole.
    fn write(&self, name: &str, text: &str) -> Result<(), EvalError> {
        let (path, partial) = (self.path.join(name), self.path.join(format!(".{name}.partial")));
        fs::write(&partial, text).map_err(EvalError::unwritable(&partial))?;
        fs::rename(&partial, &path).map_err(EvalError::unwritable(&path))
    }
}

/// Keeps other processes from writing into a folder. A file system without locks has one user, as far as can be told.
fn lock(folder: &Path) -> Result<File, EvalError> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(EvalError::unwritable(&path))?;
    // A process that is being started for something else has the files of its parent for a moment.
    for _ in 0..PATIENCE {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
    let help = "wait for its end, or name another folder with --out";
    Err(EvalError::file(folder, "another evaluation is writing into it", help))
}

/// Whether samples of some task are kept in a folder.
fn has_samples(folder: &Path) -> Result<bool, EvalError> {
    let entries = fs::read_dir(folder).map_err(EvalError::unreadable(folder))?;
    let is_one = |name: &str| name.starts_with("samples_") && name.ends_with(".jsonl");
    Ok(entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_one)))
}

/// The first key of which two objects say different things, and what.
fn difference(known: &Value, wanted: &Value) -> Option<String> {
    let (Some(a), Some(b)) = (known.as_object(), wanted.as_object()) else {
        return (known != wanted).then(|| "it does not say of which".to_owned());
    };
    let keys = b.keys().chain(a.keys());
    let key = keys.into_iter().find(|key| a.get(*key) != b.get(*key))?;
    let value = |object: &serde_json::Map<String, Value>| {
        object.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string)
    };
    Some(format!("its {key} is {}, and now {}", value(a), value(b)))
}

/// A task with its samples, about to be asked.
pub struct Prepared<'t> {
    task: &'t Task,
    samples: Vec<Sample>,
    left_out: usize,
    prompt_hash: String,
}

/// Makes the samples of a task. What the files of a task lack, and what has no room in the context, is found here, before a
/// model is asked anything.
///
/// # Errors
/// A file of the task, or what the setting asks of it that it does not have.
pub fn prepare<'t>(
    task: &'t Task,
    setting: &Setting<'_>,
    observer: &mut dyn Observer,
) -> Result<Prepared<'t>, EvalError> {
    if let (None, Some(shots @ 1..)) = (task.shots, setting.shots) {
        let message = format!("the task {} has no examples, --shots asks for {shots}", task.name);
        return Err(EvalError::request(message, "leave --shots out, or ask for this task by itself"));
    }
    observer.preparing(task.name);
    let Made { samples, left_out } = (task.make)(task, setting)?;
    if samples.is_empty() {
        let message = format!("the task {} has no samples", task.name);
        return Err(EvalError::request(message, "its texts are empty, or --limit is 0"));
    }
    Ok(Prepared { task, prompt_hash: prompt_hash(&samples), samples, left_out })
}

/// Evaluates one task; nothing if it was asked to stop before the end, what was answered is kept then.
///
/// # Errors
/// A file of results, or the scorer's.
pub fn evaluate(
    scorer: &mut dyn Scorer,
    prepared: &Prepared<'_>,
    setting: &Setting<'_>,
    folder: &mut Folder,
    observer: &mut dyn Observer,
) -> Result<Option<TaskResult>, EvalError> {
    let begun = Instant::now();
    let Prepared { task, samples, left_out, prompt_hash } = prepared;
    let what = json!({ "version": task.version, "prompt_hash": prompt_hash, "samples": samples.len() });
    folder.claim(task, &what)?;
    let mut log = Log::open(&folder.path, task.name)?;
    if setting.sandbox.is_some() && !run_earlier(setting, task, samples, &mut log, observer)? {
        return Ok(None);
    }
    let todo: Vec<&Sample> = samples.iter().filter(|s| !log.records.contains_key(&s.id)).collect();
    let (total, before) = (samples.len(), samples.len() - todo.len());
    let lengths: Vec<usize> = todo.iter().flat_map(|sample| sample.sequences()).map(<[u32]>::len).collect();
    if !lengths.is_empty() {
        scorer.prepare(&lengths)?;
    }
    let mut rest = &todo[..];
    let mut done = before;
    observer.progress(task.name, done, total, before);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(together(rest));
        let of_task = |error| match error {
            EvalError::Request { message, help } => {
                EvalError::request(format!("the task {}: {message}", task.name), help)
            }
            other => other,
        };
        let Some(answers) = answered(scorer, now).map_err(of_task)? else { return Ok(None) };
        let mut records = vec![];
        for (sample, answer) in now.iter().zip(answers) {
            let (metrics, answer) = sample.graded(&answer);
            let mut record = Record::new(sample, metrics, answer);
            let is_whole = run_programs(setting, sample, &mut record)?;
            records.push(record);
            if !is_whole {
                log.add(records)?;
                return Ok(None);
            }
        }
        log.add(records)?;
        rest = later;
        done += now.len();
        observer.progress(task.name, done, total, before);
    }
    if samples.iter().any(|sample| matches!(sample.grade, Grade::Program { .. })) {
        let name = format!("{}_completions.jsonl", task.name);
        folder.write(&name, &humaneval::official(&log.records, samples))?;
    }
    let records = samples.iter().filter_map(|sample| log.records.get(&sample.id));
    let shots = setting.shots.or(task.shots).unwrap_or(0);
    let mut result =
        TaskResult::new(task, shots, setting.seed, setting.vocab, records, prompt_hash.clone(), *left_out);
    result.cut = samples.iter().filter(|sample| sample.is_cut()).count();
    Ok(Some(result.timed(begun.elapsed().as_secs_f64(), total - before)))
}

/// Runs the programs of answers that an evaluation before kept and did not run. False if it was asked to stop before the end.
fn run_earlier(
    setting: &Setting<'_>,
    task: &Task,
    samples: &[Sample],
    log: &mut Log,
    observer: &mut dyn Observer,
) -> Result<bool, EvalError> {
    let waits = |sample: &&Sample| log.records.get(&sample.id).and_then(humaneval::not_run).is_some();
    let waiting: Vec<&Sample> = samples.iter().filter(waits).collect();
    let mut is_whole = true;
    for (done, sample) in waiting.iter().enumerate() {
        observer.progress(task.name, done, waiting.len(), 0);
        let Some(mut record) = log.records.get(&sample.id).cloned() else { continue };
        is_whole = run_programs(setting, sample, &mut record)?;
        if !is_whole {
            break;
        }
        log.add(vec![record])?;
    }
    if !waiting.is_empty() {
        log.rewrite(samples)?;
    }
    Ok(is_whole)
}

/// How many samples are answered together: one text, or so many that batches fill up.
pub(crate) fn together(samples: &[&Sample]) -> usize {
    let mut sequences = 0;
    let fit = samples.iter().take_while(|sample| {
        let first = sequences == 0;
        sequences += match &sample.ask {
            // A text takes many steps, and so do those that are written beside it.
            Ask::Write { draws, .. } => AT_ONCE / 8 * draws.len(),
            Ask::Likelihoods(_) | Ask::Places { .. } => sample.sequences().len(),
        };
        first || sequences <= AT_ONCE
    });
    fit.count().max(1)
}

/// What is answered to samples that fit together; nothing if it was asked to stop before the end.
pub(crate) fn answered(
    scorer: &mut dyn Scorer,
    samples: &[&Sample],
) -> Result<Option<Vec<Answer>>, EvalError> {
    let sequences: Vec<&[u32]> = samples.iter().flat_map(|sample| sample.sequences()).collect();
    let mut scores = vec![None; sequences.len()];
    if !sequences.is_empty() && !scorer.score(&sequences, &mut |index, found| scores[index] = Some(found))? {
        return Ok(None);
    }
    let prompts: Vec<Writing<'_>> = samples.iter().flat_map(|sample| writing(sample)).collect();
    let mut texts = vec![None; prompts.len()];
    if !prompts.is_empty() && !scorer.write(&prompts, &mut |index, text| texts[index] = Some(text))? {
        return Ok(None);
    }
    let (mut scores, mut texts) = (scores.into_iter().flatten(), texts.into_iter().flatten());
    let answer = |sample: &&Sample| match &sample.ask {
        Ask::Write { draws, .. } => {
            let found: Vec<String> = texts.by_ref().take(draws.len()).collect();
            (found.len() == draws.len()).then_some(Answer::Texts(found))
        }
        Ask::Likelihoods(_) | Ask::Places { .. } => {
            let count = sample.sequences().len();
            let found: Vec<Scores> = scores.by_ref().take(count).collect();
            (found.len() == count).then_some(Answer::Scores(found))
        }
    };
    Ok(samples.iter().map(answer).collect())
}

/// What a sample has a model write.
fn writing(sample: &Sample) -> Vec<Writing<'_>> {
    match &sample.ask {
        Ask::Write { prompt, tokens, stop, draws } => {
            let one = |sampling: &Sampling| Writing { prompt, tokens: *tokens, stop, sampling: *sampling };
            draws.iter().map(one).collect()
        }
        Ask::Likelihoods(_) | Ask::Places { .. } => vec![],
    }
}

/// Runs the programs that answers are parts of, where they are to be run: a record of one that was not run before, with what
/// became of it. False if it was asked to stop before the end.
fn run_programs(setting: &Setting<'_>, sample: &Sample, record: &mut Record) -> Result<bool, EvalError> {
    let (Some(sandbox), Grade::Program { before, after }) = (setting.sandbox, &sample.grade) else {
        return Ok(true);
    };
    let Some(completions) = humaneval::not_run(record) else { return Ok(true) };
    let programs: Vec<String> = completions.iter().map(|text| format!("{before}{text}{after}")).collect();
    let Some(verdicts) = run_all(sandbox, &programs, setting.stop)? else { return Ok(false) };
    let answer = humaneval::recorded(&completions, Some(&verdicts));
    *record = Record::new(sample, humaneval::graded(&verdicts), answer);
    Ok(true)
}

/// Identifies what is asked, to the letter.
fn prompt_hash(samples: &[Sample]) -> String {
    let mut hash = Sha256::new();
    for sample in samples {
        let text = format!("{}\n{}\n", sample.id, sample.doc);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
