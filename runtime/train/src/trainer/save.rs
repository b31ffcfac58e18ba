//! Checkpoints of a run, written while it waits or beside it.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use linc_checkpoint::{AsyncMode, Outline, Saving, State, purge, save_outline, steps};
use linc_device::available_memory;

use super::programs::output;
use super::{Observer, Trainer, ranks, resume};
use crate::error::TrainError;

/// Between two looks at whether a checkpoint is written.
const PAUSE: Duration = Duration::from_millis(5);

/// Bytes that may wait to be written where the system does not say what is free.
const STAGED: u64 = 1 << 30;

impl Trainer {
    /// Saves the step that was done last. The one before is waited for; the last of a run as well.
    pub(super) fn save(&mut self, last: bool, observer: &mut dyn Observer) -> Result<(), TrainError> {
        // Before anything is written: a checkpoint of weights that came apart would be gone on from.
        self.compare_weights()?;
        // What is left out the first rank decides: it knows what it has still to measure.
        let model_only = ranks::of_first(&self.team, "the checkpoint", &self.saves_model_only(last))?;
        self.team.be_patient();
        if self.team.is_first() {
            self.save_first(last, model_only, observer)?;
        } else {
            // The first rank writes what all have, and what the others have of the optimizer.
            for name in self.kept.spread().filter(|_| !model_only) {
                self.kept.read(name, &self.session.executor, &self.team)?;
            }
            self.saved_step = Some(self.step);
        }
        self.team.wait("the checkpoint")
    }

    fn save_first(
        &mut self,
        last: bool,
        model_only: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        self.wait_with_signs(observer)?;
        match self.config.checkpoint.async_mode {
            AsyncMode::Disabled => self.save_now(model_only, observer),
            AsyncMode::Async | AsyncMode::AsyncPinned => {
                self.begin_to_save(model_only)?;
                if last { self.wait_with_signs(observer) } else { Ok(()) }
            }
        }
    }

    fn save_now(&mut self, model_only: bool, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let begun = Instant::now();
        let read = |name: &str| {
            self.team.give_sign();
            self.kept.read(name, &self.session.executor, &self.team).map_err(|error| error.to_string())
        };
        let path = save_outline(&self.outline(model_only), &read)?;
        self.trace_checkpoint("write", begun);
        self.saved(self.step, path, observer);
        Ok(())
    }

    /// Copies the tensors for a writer beside the training.
    fn begin_to_save(&mut self, model_only: bool) -> Result<(), TrainError> {
        let begun = Instant::now();
        let outline = self.outline(model_only);
        let folder = outline.folder.clone();
        let limit = available_memory::of_machine().map_or(STAGED, |available| available.bytes / 2);
        let (saving, order) = Saving::start(outline, limit).map_err(output("write", &folder))?;
        let mut wanted = true;
        for name in order {
            self.team.give_sign();
            // What other ranks hand over is taken, whether the writer has given up or not: they do not know.
            if wanted || self.kept.is_spread(&name) {
                let bytes = self.kept.read(&name, &self.session.executor, &self.team)?;
                wanted = wanted && saving.stage(name, bytes);
            }
        }
        self.saving = Some((self.step, begun, saving));
        self.trace_checkpoint("copy", begun);
        Ok(())
    }

    fn trace_checkpoint(&mut self, what: &str, begun: Instant) {
        if let Some(tracer) = &mut self.tracer {
            tracer.checkpoint(what, begun);
        }
    }

    /// Looks whether the checkpoint that is being written has come to its end.
    pub(super) fn look_after_checkpoint(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        match &self.saving {
            Some((.., saving)) if saving.has_ended() => self.wait_for_checkpoint(observer),
            Some(_) | None => Ok(()),
        }
    }

    /// Waits for the checkpoint that is being written, if there is one.
    pub(super) fn wait_for_checkpoint(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if let Some((step, begun, saving)) = self.saving.take() {
            let path = saving.finish()?;
            self.trace_checkpoint("copy and write", begun);
            self.saved(step, path, observer);
        }
        Ok(())
    }

    /// The same within a save, where the other ranks attend to this one and hear signs of it. Elsewhere they wait for something else,
    /// and would take a sign for that.
    fn wait_with_signs(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        while self.saving.as_ref().is_some_and(|(.., saving)| !saving.has_ended()) {
            self.team.give_sign();
            thread::sleep(PAUSE);
        }
        self.wait_for_checkpoint(observer)
    }

    /// Removes the checkpoints that a start before this one had no time to: killed after its last was written, it left one too many,
    /// and where no step is left to train none is saved that would take it along.
    pub(super) fn remove_left_over(&self) -> Result<(), TrainError> {
        let c = &self.config.checkpoint;
        // A step that is named may be of the middle of a run, whose newest it is no word about.
        let saves_none = c.enable && c.load_step < 0 && self.step == self.start_step;
        if saves_none && self.saved_step.is_some() && self.team.is_first() {
            let folder = resume::checkpoint_folder(&self.config);
            // More are of a run that was to keep more, and are not taken from it where it trains no further.
            if steps(&folder).len() == c.keep_latest_k + 1 {
                purge(&folder, c.keep_latest_k, self.step, self.step)?;
            }
        }
        Ok(())
    }

    fn saved(&mut self, step: usize, path: PathBuf, observer: &mut dyn Observer) {
        observer.message(&format!("Saved checkpoint {}", path.display()));
        self.last_checkpoint = Some(path);
        self.saved_step = Some(step);
    }

    /// Whether a checkpoint, of the last step or another, leaves out what only a run that goes on needs.
    fn saves_model_only(&self, last: bool) -> bool {
        // To make up for a validation, the run has to go on from here.
        let owes = self.owes_validation() || self.owes_questions();
        last && self.config.checkpoint.last_save_model_only && !owes
    }

    /// What goes into a checkpoint of this step.
    fn outline(&self, model_only: bool) -> Outline {
        let kept = if model_only { Default::default() } else { self.kept.shapes() };
        let state = State::new(
            self.step,
            self.tokens,
            self.config.training.seed,
            self.data.training.state(),
            self.record.clone(),
        );
        Outline {
            folder: resume::checkpoint_folder(&self.config),
            params: self.session.params().into_iter().collect(),
            optimizer: kept.into_iter().collect(),
            tokenizer: self.data.tokenizer.as_ref().map_or(vec![], |tokenizer| tokenizer.files().to_vec()),
            state: State {
                tiles: self.tiles.clone(),
                skipped: self.skipped,
                skipped_in_a_row: self.skipped_in_a_row,
                ..state
            },
            shard_bytes: self.config.checkpoint.max_shard_size.0,
            keep: self.config.checkpoint.keep_latest_k,
            since: self.saved_step.unwrap_or(self.start_step),
        }
    }
}
