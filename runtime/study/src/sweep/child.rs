//! A run in a process of its own: `linc train` on the run's config.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use linc_device::process;
use linc_train::metrics::Record;

use super::Sweep;
use crate::error::{StudyError, file};

/// Bytes at the end of a file in which its last lines are looked for.
const TAIL: u64 = 16 << 10;

/// Where a run is carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Threads of the CPU.
    pub(super) threads: usize,
    /// The number of a GPU.
    pub(super) gpu: Option<usize>,
}

/// A run that is going on.
pub(super) struct Going {
    /// The number of the run in its sweep.
    pub(super) run: usize,
    /// Number of the slot that it has.
    pub(super) slot: usize,
    /// Bytes of memory that its plan asks for.
    pub(super) memory: u64,
    /// The step after which it ends.
    pub(super) until: usize,
    child: Child,
    began: Instant,
    /// Where in its log this start begins.
    log_from: u64,
}

/// How a process ended.
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) seconds: f64,
    /// What it said at last, if it failed.
    pub(super) message: Option<String>,
}

impl Going {
    /// Starts a run, which goes on from its last checkpoint, until a step.
    ///
    /// # Errors
    /// The program or the log cannot be opened.
    pub(super) fn start(
        program: &Path,
        sweep: &Sweep,
        number: usize,
        (index, slot): (usize, Slot),
        memory: u64,
        until: usize,
    ) -> Result<Going, StudyError> {
        let run = &sweep.runs[number];
        let path = sweep.log_of(run);
        let mut log = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&path))
            .map_err(file("write", &path))?;
        let log_from = log.seek(SeekFrom::End(0)).map_err(file("write", &path))?;
        let errors = log.try_clone().map_err(file("write", &path))?;
        let mut command = Command::new(program);
        command.arg("train").arg(sweep.config_of(run)).arg("--job.dump_folder").arg(sweep.folder_of(run));
        command.arg("--training.threads").arg(slot.threads.to_string());
        if let Some(gpu) = slot.gpu {
            command.arg("--training.device").arg(format!("cuda:{gpu}"));
        }
        if until < run.config.training.steps {
            command.arg("--training.stop_at_step").arg(until.to_string());
        }
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        // Ctrl-C is for the sweep, which asks its runs to end.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(file("start", program))?;
        Ok(Going { run: number, slot: index, memory, until, child, began: Instant::now(), log_from })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self, sweep: &Sweep) -> Option<Ended> {
        let status = self.child.try_wait().ok()??;
        let message =
            (!status.success()).then(|| self.last_words(&sweep.log_of(&sweep.runs[self.run]), status));
        Some(Ended { success: status.success(), seconds: self.began.elapsed().as_secs_f64(), message })
    }

    /// Asks it to save what it did and end.
    pub(super) fn ask_to_end(&self) {
        process::ask_to_end(self.child.id());
    }

    /// The error that its log ends with, or what ended the process.
    fn last_words(&self, log: &Path, status: ExitStatus) -> String {
        let text = tail(log, self.log_from).unwrap_or_default();
        match text.rfind("error: ") {
            Some(at) => {
                // Another process may have gone on with the log.
                let said = text[at..].trim_start_matches("error: ");
                said.split("\n[linc]").next().unwrap_or(said).trim_end().to_owned()
            }
            None => format!("the process ended by itself: {status}"),
        }
    }
}

/// The last step of which a run has a record.
pub(super) fn last_step(folder: &Path) -> usize {
    let Some(text) = tail(&folder.join("metrics.jsonl"), 0) else { return 0 };
    let last = text.lines().rev().find_map(|line| serde_json::from_str::<Record>(line).ok());
    last.map_or(0, |record| record.step)
}

/// The end of a file, behind a place in it.
fn tail(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL)))).ok()?;
    let mut bytes = vec![];
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
