//! Carries the runs of a sweep out, so many at once, and keeps how each ended.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use linc_device::words::count;
use linc_device::{Device, threads};
use linc_driver::MemoryLimit;
use linc_train::trainer::{is_going_on, planned_memory};

use super::child::{Going, Slot, last_step};
use super::halving;
use super::outcome::{Outcome, Status};
use super::{Run, Sweep};
use crate::error::{StudyError, file};

/// How often runs are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Who is told what a sweep does.
pub trait Watcher {
    /// A remark for people.
    fn message(&mut self, text: &str);
    /// So many of all steps are done, and so many runs going on.
    fn progress(&mut self, done: u64, total: u64, going: usize);
    /// A run has ended: the how many-th of how many.
    fn ended(&mut self, outcome: &Outcome, done: usize, total: usize);
}

/// How a sweep ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs that did what they were asked for, now or before.
    pub finished: usize,
    /// Runs that ended with an error.
    pub failed: usize,
    /// Ended by request before all runs were done.
    pub interrupted: bool,
}

/// Carries out what is left of a sweep, with `program` as the program `linc`. Runs that failed before are done again if
/// `retry` says so. `stop` asks the runs
/// to save and end.
///
/// # Errors
/// Anything that is wrong with the sweep before a run starts, or with its folder. A run that fails is no error.
pub fn carry_out(
    sweep: &Sweep,
    program: &Path,
    retry: bool,
    stop: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<Summary, StudyError> {
    let rounds = halving::rounds(sweep)?;
    let _lock = lock(&sweep.folder)?;
    sweep.write_configs()?;
    let machine = Machine::open(sweep)?;
    let memory = machine.memory_of_runs(sweep, stop)?;
    let mut alive: Vec<usize> = (0..sweep.runs.len()).collect();
    let mut summary = Summary::default();
    for (number, until) in rounds.iter().enumerate() {
        if rounds.len() > 1 {
            let what = format!("Round {} of {}: {}", number + 1, rounds.len(), count(alive.len(), "run"));
            watcher.message(&format!("{what} until step {until}"));
        }
        let mut round =
            Round { sweep, program, machine: &machine, memory: &memory, until: *until, going: vec![] };
        summary.interrupted = !round.carry_out(&alive, retry, stop, watcher)?;
        if summary.interrupted {
            break;
        }
        alive.retain(|run| round.is_finished(*run));
        if number + 1 < rounds.len() {
            alive = halving::best(sweep, &alive, *until)?;
        }
    }
    let outcomes = || sweep.runs.iter().filter_map(|run| Outcome::of(sweep, run));
    summary.failed = outcomes().filter(|outcome| outcome.status == Status::Failed).count();
    summary.finished = outcomes().filter(|outcome| outcome.status == Status::Finished).count();
    Ok(summary)
}

/// Holds the sweep's folder for this process.
fn lock(folder: &Path) -> Result<File, StudyError> {
    let path = folder.join(".lock");
    let lock =
        fs::create_dir_all(folder).and_then(|()| File::create(&path)).map_err(file("write to", folder))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StudyError::InUse { folder: folder.to_path_buf() }),
        // A file system without locks has one user, as far as can be told.
        Err(TryLockError::Error(_)) => Ok(lock),
    }
}

/// What runs are carried out on.
struct Machine {
    slots: Vec<Slot>,
    /// Bytes that runs at once may have together; nothing where each has a device of its own.
    limit: Option<u64>,
    /// The device, where plans are made for it to know what fits.
    device: Option<Box<dyn Device>>,
}

impl Machine {
    fn open(sweep: &Sweep) -> Result<Machine, StudyError> {
        let settings = &sweep.settings;
        if !settings.gpus.is_empty() {
            let slot = |gpu: &usize| Slot { threads: 0, gpu: Some(*gpu) };
            return Ok(Machine {
                slots: settings.gpus.iter().map(slot).collect(),
                limit: None,
                device: None,
            });
        }
        let at_once = settings.runs_at_once;
        let cores = match sweep.runs.iter().map(|run| run.config.training.threads).max() {
            Some(0) | None => threads::available(),
            Some(threads) => threads,
        };
        let slot = Slot { threads: if at_once == 1 { cores } else { (cores / at_once).max(1) }, gpu: None };
        let mut machine = Machine { slots: vec![slot; at_once], limit: None, device: None };
        if at_once > 1 {
            let device = sweep.runs[0].config.training.device.open(None)?.device;
            let available = device.available().map(|available| available.bytes);
            machine.limit = match settings.memory_limit {
                MemoryLimit::Bytes(bytes) => Some(bytes),
                MemoryLimit::Share(share) => available.map(|bytes| (bytes as f64 * share) as u64),
            };
            machine.device = Some(device);
        }
        Ok(machine)
    }

    /// Bytes that each run's plan asks for, where that decides what goes on at once.
    fn memory_of_runs(&self, sweep: &Sweep, stop: &AtomicBool) -> Result<Vec<u64>, StudyError> {
        let (Some(_), Some(device)) = (self.limit, &self.device) else {
            return Ok(vec![0; sweep.runs.len()]);
        };
        let mut known: Vec<(&Run, u64)> = vec![];
        let mut all = vec![];
        for run in &sweep.runs {
            if stop.load(Ordering::Relaxed) {
                return Ok(vec![0; sweep.runs.len()]);
            }
            // Seeds and learning rates change no shape.
            let same = known.iter().find(|(other, _)| is_same_plan(run, other)).map(|(_, bytes)| *bytes);
            let bytes = match same {
                Some(bytes) => bytes,
                None => planned_memory(&run.config, &run.files, &**device)
                    .map_err(|error| StudyError::Run { run: run.name.clone(), error: Box::new(error) })?,
            };
            if same.is_none() {
                known.push((run, bytes));
            }
            all.push(bytes);
        }
        Ok(all)
    }
}

/// Whether two runs differ in nothing that shapes a plan, as far as is known without compiling.
fn is_same_plan(run: &Run, other: &Run) -> bool {
    let shape = |run: &Run| {
        let mut config = run.config.clone();
        config.job.dump_folder.clear();
        config.training.seed = 0;
        config.optimizer.lr = 0.0;
        config
    };
    shape(run) == shape(other) && run.files == other.files
}

/// Runs that are all trained until one step.
struct Round<'a> {
    sweep: &'a Sweep,
    program: &'a Path,
    machine: &'a Machine,
    memory: &'a [u64],
    until: usize,
    going: Vec<Going>,
}

impl Round<'_> {
    /// The step at which a run ends in this round.
    fn end(&self, run: usize) -> usize {
        self.until.min(self.sweep.runs[run].config.training.steps)
    }

    fn outcome(&self, run: usize) -> Option<Outcome> {
        Outcome::of(self.sweep, &self.sweep.runs[run]).filter(|outcome| match outcome.status {
            Status::Finished => outcome.steps >= self.end(run),
            Status::Failed => true,
        })
    }

    /// Whether it has been through this round; it may have failed in a later one.
    fn is_finished(&self, run: usize) -> bool {
        self.outcome(run).is_some_and(|outcome| match outcome.status {
            Status::Finished => true,
            Status::Failed => outcome.steps > self.end(run),
        })
    }

    /// Carries out what is not done yet; whether all of it was.
    fn carry_out(
        &mut self,
        runs: &[usize],
        retry: bool,
        stop: &AtomicBool,
        watcher: &mut dyn Watcher,
    ) -> Result<bool, StudyError> {
        let is_left = |run: &usize| match self.outcome(*run) {
            Some(outcome) => outcome.status == Status::Failed && !self.is_finished(*run) && retry,
            None => true,
        };
        let mut waiting: VecDeque<usize> = runs.iter().copied().filter(is_left).collect();
        let done = self.all_of(runs, &mut waiting, stop, watcher);
        let is_done = waiting.is_empty() && self.going.is_empty();
        // Whatever ends the sweep, no run is left behind, and none loses what it trained.
        self.end_early(watcher);
        done.map(|()| is_done)
    }

    /// Carries out runs until all are done or `stop` is set.
    fn all_of(
        &mut self,
        runs: &[usize],
        waiting: &mut VecDeque<usize>,
        stop: &AtomicBool,
        watcher: &mut dyn Watcher,
    ) -> Result<(), StudyError> {
        let total: u64 = runs.iter().map(|run| self.end(*run) as u64).sum();
        let mut ended = runs.len() - waiting.len();
        let mut steps: u64 =
            runs.iter().filter(|run| !waiting.contains(run)).map(|run| self.end(*run) as u64).sum();
        let mut told_of_others = false;
        while !(stop.load(Ordering::Relaxed) || waiting.is_empty() && self.going.is_empty()) {
            let others = self.start_some(waiting)?;
            if others && !told_of_others {
                watcher.message("Waiting for a run that goes on from an earlier start of this sweep");
                told_of_others = true;
            }
            for (run, outcome) in self.collect()? {
                ended += 1;
                steps += self.end(run) as u64;
                watcher.ended(&outcome, ended, runs.len());
            }
            let part = |going: &Going| {
                last_step(&self.sweep.folder_of(&self.sweep.runs[going.run])).min(going.until) as u64
            };
            let parts: u64 = self.going.iter().map(part).sum();
            watcher.progress(steps + parts, total, self.going.len());
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Starts what there is room for; whether a run waits for an earlier start of it.
    fn start_some(&mut self, waiting: &mut VecDeque<usize>) -> Result<bool, StudyError> {
        let mut others = false;
        for _ in 0..waiting.len() {
            let free =
                (0..self.machine.slots.len()).find(|slot| self.going.iter().all(|going| going.slot != *slot));
            let Some(slot) = free else { break };
            let Some(run) = waiting.pop_front() else { break };
            let used: u64 = self.going.iter().map(|going| going.memory).sum();
            let fits = self.machine.limit.is_none_or(|limit| used.saturating_add(self.memory[run]) <= limit);
            let goes_on = is_going_on(&self.sweep.folder_of(&self.sweep.runs[run]));
            others |= goes_on;
            // Alone, a run says itself what does not fit.
            if goes_on || !(fits || self.going.is_empty()) {
                waiting.push_back(run);
                continue;
            }
            let place = (slot, self.machine.slots[slot]);
            self.going.push(Going::start(
                self.program,
                self.sweep,
                run,
                place,
                self.memory[run],
                self.end(run),
            )?);
        }
        Ok(others)
    }

    /// Keeps the outcomes of the runs that have ended.
    fn collect(&mut self) -> Result<Vec<(usize, Outcome)>, StudyError> {
        let mut done = vec![];
        let mut index = 0;
        while index < self.going.len() {
            let Some(ended) = self.going[index].ended(self.sweep) else {
                index += 1;
                continue;
            };
            let going = self.going.remove(index);
            let run = &self.sweep.runs[going.run];
            let earlier = Outcome::of(self.sweep, run).map_or(0.0, |outcome| outcome.seconds);
            let outcome = Outcome {
                run: run.name.clone(),
                status: if ended.success { Status::Finished } else { Status::Failed },
                steps: going.until,
                values: run.values.clone(),
                message: ended.message,
                seconds: earlier + ended.seconds,
            };
            outcome.write(self.sweep)?;
            done.push((going.run, outcome));
        }
        Ok(done)
    }

    /// Asks the runs that are going on to save and end, and waits for them.
    fn end_early(&mut self, watcher: &mut dyn Watcher) {
        if self.going.is_empty() {
            return;
        }
        watcher.message(&format!("Waiting for {} to save what was trained", count(self.going.len(), "run")));
        self.going.iter().for_each(Going::ask_to_end);
        while !self.going.is_empty() {
            self.going.retain_mut(|going| going.ended(self.sweep).is_none());
            thread::sleep(LOOK);
        }
    }
}
