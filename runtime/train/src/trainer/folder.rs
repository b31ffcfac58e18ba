//! The folder of a run. One that the command line names is taken as it is. The one of a config is where its first run
//! goes; a later run goes on there if it is the same run and has steps to do, and else gets a folder of its own beside
//! it, `NAME-2`, `NAME-3` and so on. Where several of these hold a run that can go on, the config's own comes first, then
//! the lowest number. Damage in the config's own folder is an error, as in one that is named: who starts its run again
//! wants that run. A folder beside it is passed over, which is said. Nothing that an earlier run wrote is overwritten.

mod found;

use std::fs;
use std::path::{Path, PathBuf};

use linc_checkpoint::ModelRecord;
use linc_data::TrainingData;
use linc_device::words::count;
use linc_device::write_entry;

use found::{Found, cannot_go_on};

use super::lock::{Holder, Lock, holder};
use super::programs::output;
use super::resume::checkpoint_folder;
use crate::config::{Change, JobConfig};
use crate::error::TrainError;
use crate::metrics;

/// How many times, at most, a folder is chosen that another run then is faster to take.
const TRIES: usize = 100;

/// How `job.dump_folder` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// The command line names this folder.
    Named,
    /// It is where runs of the config go.
    OfConfig,
}

/// Whether a run is going on in a folder, in whatever process.
pub fn is_going_on(folder: &Path) -> bool {
    holder(folder).is_some()
}

/// Refuses a run that is going on already: in a folder that is named, any.
///
/// # Errors
/// [`TrainError::InUse`].
pub(super) fn check_free(config: &JobConfig, meaning: Folder) -> Result<(), TrainError> {
    for folder in candidates(Path::new(&config.job.dump_folder), meaning) {
        if let Some(holder) = holder(&folder) {
            check_other(&folder, &holder, config, meaning)?;
        }
    }
    Ok(())
}

/// Whoever holds a folder may go on beside this run if it trains something else.
fn check_other(
    folder: &Path,
    holder: &Holder,
    config: &JobConfig,
    meaning: Folder,
) -> Result<(), TrainError> {
    let is_other = |theirs: &JobConfig| config.changes_since(theirs).iter().any(Change::shapes);
    if meaning == Folder::OfConfig && holder.config.as_deref().is_some_and(is_other) {
        return Ok(());
    }
    Err(TrainError::InUse { folder: folder.to_path_buf(), pid: holder.pid })
}

/// The folders in which runs of a config may be: the one it names, and those numbered after it, ascending.
fn candidates(base: &Path, meaning: Folder) -> Vec<PathBuf> {
    let mut numbers = vec![];
    if let (Folder::OfConfig, Some(name)) = (meaning, base.file_name().and_then(|n| n.to_str())) {
        let parent = base.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let Ok(found) = entry.file_name().into_string() else { continue };
            let number = found.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')?.parse().ok());
            numbers.extend(number.filter(|n: &usize| *n > 1 && found == format!("{name}-{n}")));
        }
    }
    numbers.sort_unstable();
    let mut folders = vec![base.to_path_buf()];
    folders.extend(numbers.into_iter().map(|n| numbered(base, n)));
    folders
}

/// The folder of the `n`-th run of a config.
fn numbered(base: &Path, n: usize) -> PathBuf {
    match base.file_name() {
        Some(name) if n > 1 => base.with_file_name(format!("{}-{n}", name.to_string_lossy())),
        Some(_) | None => base.to_path_buf(),
    }
}

/// The folder of a run.
pub(super) struct Chosen {
    /// Nobody else writes to it.
    pub(super) lock: Lock,
    /// What is worth saying of it.
    pub(super) message: String,
    /// The checkpoint in it that was found to be whole, if the run goes on from one.
    pub(super) whole: Option<PathBuf>,
}

/// Takes the folder of a run that the command line names; nothing if the config's is meant, of which only data and model tell
/// whether a run in it goes on.
///
/// # Errors
/// [`TrainError::InUse`], or a folder that cannot be written.
pub(super) fn take_named(config: &JobConfig, meaning: Folder) -> Result<Option<Chosen>, TrainError> {
    let base = PathBuf::from(&config.job.dump_folder);
    // A folder without a name, such as `.`, has none beside it.
    if meaning != Folder::Named && base.file_name().is_some() {
        return Ok(None);
    }
    let lock = take(&base, config, Folder::Named)?;
    let lock = lock.ok_or_else(|| TrainError::InUse { folder: base.clone(), pid: None })?;
    let message = format!("Writing to {}{}", base.display(), unread_checkpoint(config, &base));
    Ok(Some(Chosen { lock, message, whole: None }))
}

/// Takes the folder of a run of the config, and writes it into the config.
///
/// # Errors
/// [`TrainError::InUse`], a checkpoint in the config's own folder that cannot be read, or a folder that cannot be written.
pub(super) fn choose(
    config: &mut JobConfig,
    record: &ModelRecord,
    data: &TrainingData,
    proceed: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<Chosen, TrainError> {
    let base = PathBuf::from(&config.job.dump_folder);
    // Each time round, another run was faster in taking a folder.
    for _ in 0..TRIES {
        proceed()?;
        check_free(config, Folder::OfConfig)?;
        let Picked { folder, message, whole } = pick(config, &base, record, data, proceed)?;
        config.job.dump_folder = folder.display().to_string();
        if let Some(lock) = take(&folder, config, Folder::OfConfig)? {
            return Ok(Chosen { lock, message, whole });
        }
        config.job.dump_folder = base.display().to_string();
    }
    Err(TrainError::InUse { folder: base, pid: None })
}

/// What to say of a checkpoint that lies in a run's own folder while nothing asks for it to be read.
fn unread_checkpoint(config: &JobConfig, folder: &Path) -> String {
    let c = &config.checkpoint;
    let newest = linc_checkpoint::steps(&folder.join(&c.folder)).last().copied();
    match newest.filter(|_| !c.enable && c.load_step < 0) {
        Some(step) => format!(
            ", where a checkpoint of step {step} lies that is not read (checkpoint.enable is false); to go on from it, add \
             --checkpoint.load_step {step}"
        ),
        None => String::new(),
    }
}

/// A folder that nobody holds, as in [`Chosen`].
struct Picked {
    folder: PathBuf,
    message: String,
    whole: Option<PathBuf>,
}

/// The folder that a run goes to.
fn pick(
    config: &JobConfig,
    base: &Path,
    record: &ModelRecord,
    data: &TrainingData,
    proceed: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<Picked, TrainError> {
    let (c, steps) = (&config.checkpoint, config.training.steps);
    let picked = |folder: &Path, message: String| Picked { folder: folder.into(), message, whole: None };
    let free = |folder: &PathBuf| holder(folder).is_none();
    let found: Vec<Found> = candidates(base, Folder::OfConfig)
        .into_iter()
        .filter(free)
        .map(|folder| Found::look(folder, config))
        .collect();
    // Why those that seemed to be this run are not, or cannot go on.
    let mut passed: Vec<String> = vec![];
    for there in found.iter().filter(|f| f.has_same_settings(config)) {
        let folder = there.folder.display();
        if let Ok(step) = usize::try_from(c.load_step) {
            if linc_checkpoint::steps(&there.folder.join(&c.folder)).contains(&step) {
                let message = format!("Going on with the run in {folder}, from step {step}");
                return Ok(picked(&there.folder, message));
            }
            continue;
        }
        let owes = |newest: usize| newest == steps && there.owes_a_measurement(config, newest);
        let goes_on = |newest: &usize| c.enable && (*newest < steps || owes(*newest));
        let Some(newest) = there.newest.filter(goes_on) else { continue };
        let path = there.checkpoint(config, newest);
        match there.is_run_of(&path, record, data, proceed) {
            Ok(Ok(())) => {
                let left = if newest == steps { " and its last validation to do" } else { "" };
                let going_on = format!(
                    "Going on with the run in {folder}, which has {newest} of {} done{left} \
                     (to start anew instead, add --job.dump_folder FOLDER)",
                    count(steps, "step")
                );
                let message = [vec![going_on], passed].concat().join("; ");
                return Ok(Picked { whole: Some(path), ..picked(&there.folder, message) });
            }
            Ok(Err(differs)) => passed.push(cannot_go_on(&there.folder, &differs)),
            Err(TrainError::Checkpoint(error)) if there.folder != base => {
                passed.push(there.damage(config, newest, &error));
            }
            Err(error) => return Err(error),
        }
    }
    if c.load_step >= 0 {
        // No folder has that step of this run, and the one of the config may be another run's, which writes to it.
        if let Some(holder) = holder(base) {
            return Err(TrainError::InUse { folder: base.to_path_buf(), pid: holder.pid });
        }
        return Ok(picked(base, format!("Going on with the run in {}", base.display())));
    }
    let is_taken =
        |folder: &Path| holder(folder).is_some() || Found::look(folder.to_path_buf(), config).is_used;
    let mut number = 1;
    while is_taken(&numbered(base, number)) {
        number += 1;
    }
    let folder = numbered(base, number);
    let writing = format!("Writing to {}", folder.display());
    if number == 1 {
        return Ok(picked(&folder, writing));
    }
    if passed.is_empty() {
        // The run that more steps would go on with, if there is one.
        let used = || found.iter().filter(|f| f.is_used);
        let mut same = used().filter(|f| f.has_same_settings(config));
        let told =
            same.clone().find(|f| f.newest.is_some()).or_else(|| same.next()).or_else(|| used().next());
        let beside = || format!("a run goes on in {}", base.display());
        passed.push(told.map_or_else(beside, |there| there.why_not(config)));
    }
    Ok(picked(&folder, format!("{writing}: {}", passed.join("; "))))
}

/// Takes a folder; nothing if a run of something else has just taken it.
fn take(folder: &Path, config: &JobConfig, meaning: Folder) -> Result<Option<Lock>, TrainError> {
    match Lock::take(folder, config).map_err(output("write to", folder))? {
        Ok(lock) => {
            linc_checkpoint::clean(&checkpoint_folder(config));
            Ok(Some(lock))
        }
        Err(holder) => check_other(folder, &holder, config, meaning).map(|()| None),
    }
}

/// Writes the resolved config. What the start changes is said, and what it would overwrite is kept under another name:
/// the config of the start before, and records that the run from `step` on does not write again with the same numbers.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn write_config(config: &JobConfig, step: usize) -> Result<Vec<String>, TrainError> {
    let folder = Path::new(&config.job.dump_folder);
    let (path, text) = (folder.join("config.toml"), config.to_toml());
    let mut said = vec![];
    let mut shaped = false;
    if let Ok(before) = fs::read(&path)
        && before != text.as_bytes()
    {
        let earlier = std::str::from_utf8(&before).ok().and_then(JobConfig::of_run);
        let changes = earlier.as_ref().map(|earlier| config.changes_since(earlier)).unwrap_or_default();
        let is_ours = earlier.is_some_and(|earlier| earlier.to_toml().as_bytes() == before);
        shaped = !is_ours || changes.iter().any(Change::shapes);
        if !is_ours || !changes.is_empty() {
            let kept = keep(&path, &format!("config-step-{step}"), "toml")?;
            let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
            let what = match changes.is_empty() {
                true => String::new(),
                false => format!("Settings differ from those of the last start: {}. ", changes.join(", ")),
            };
            said.push(format!("{what}The config.toml before is kept as {kept}"));
        }
    }
    let records = folder.join("metrics.jsonl");
    let last = metrics::last_step(&records).map_err(output("read", &records))?;
    if last.is_some_and(|last| last > step && (step == 0 || shaped)) {
        let kept = keep(&records, "metrics", "jsonl")?;
        said.push(format!(
            "The records of an earlier run, up to step {}, are kept as {kept}",
            last.unwrap_or(0)
        ));
    }
    write_entry(&path, &[text.as_bytes()]).map_err(output("write", &path))?;
    Ok(said)
}

/// Copies a file to a name beside it that nothing has yet; that name.
fn keep(path: &Path, stem: &str, extension: &str) -> Result<String, TrainError> {
    let names = (1..).map(|n: usize| match n {
        1 => format!("{stem}.{extension}"),
        n => format!("{stem}-{n}.{extension}"),
    });
    let is_free = |name: &String| !path.with_file_name(name).exists();
    let name = names.into_iter().find(is_free).unwrap_or_default();
    let kept = path.with_file_name(&name);
    fs::copy(path, &kept).map_err(|error| {
        let _ = fs::remove_file(&kept);
        output("write", &kept)(error)
    })?;
    Ok(name)
}
