//! Settings that do nothing in a run: TorchTitan's that linc does not do yet, and those that another setting keeps from being
//! read. Where somebody set them to something, they say so.

use linc_checkpoint::AsyncMode;
use linc_config::{Section as _, Settings};
use linc_data::{DatasetKind, MqarConfig, RecallConfig, TrainingSource, ValidationSource};
use linc_driver::RecomputeMode;

use super::{ActivationCheckpoint, JobConfig, Questions, Validation};

impl JobConfig {
    /// Who sets what nobody reads believes that it does something.
    pub(super) fn warn_of_unread(&self, settings: &mut Settings<'_>) {
        const NO_TASKS: &str = "eval.tasks names no tasks";
        const NO_VALIDATION: &str = "validation.enable is not set";
        // Values count, not whether they were given: what a run wrote of its settings has their defaults as well.
        let (validation, recompute) = (Validation::default(), ActivationCheckpoint::default());
        let (questions, asks_nothing) = (Questions::default(), self.eval.tasks.is_empty());
        // Who switches it off knows.
        let idles = !self.validation.enable && !settings.was_given("validation.enable");
        let is_budget = self.activation_checkpoint.mode == RecomputeMode::MemoryBudget;
        let budget = self.activation_checkpoint.memory_budget != recompute.memory_budget;
        let data = &self.data;
        let reads_files =
            data.training.dataset == DatasetKind::Text || data.validation.dataset == Some(DatasetKind::Text);
        let text_field = data.training.text_field != TrainingSource::default().text_field;
        let fraction = data.validation.fraction != ValidationSource::default().fraction;
        let is_recall = data.training.dataset.is_recall();
        let unread = [
            (
                data.training.document_separator.is_some() && !reads_files,
                "training.document_separator",
                "it is for files of plain text, and built-in datasets have their documents",
            ),
            (
                text_field && !reads_files,
                "training.text_field",
                "it is for objects of JSON and columns of Parquet, and no files are read",
            ),
            (
                is_recall && self.model.tokenizer_path.is_some(),
                "model.tokenizer_path",
                "sequences of a recall task are tokens, and no text",
            ),
            (
                fraction && is_recall,
                "validation.fraction",
                "a recall task is validated on by sequences of their own number",
            ),
            (
                fraction && !is_recall && self.validation.enable && data.validation.dataset.is_some(),
                "validation.fraction",
                "validation has data of its own",
            ),
            (idles && fraction && !is_recall, "validation.fraction", NO_VALIDATION),
            (
                self.checkpoint.async_mode == AsyncMode::AsyncPinned,
                "checkpoint.async_mode",
                "there is no pinned memory to copy through; it is taken for \"async\"",
            ),
            (!is_budget && budget, "activation_checkpoint.memory_budget", "mode is not \"memory_budget\""),
            (
                idles && settings.was_given("validation.dataset_path"),
                "validation.dataset_path",
                NO_VALIDATION,
            ),
            (idles && self.validation.freq != validation.freq, "validation.freq", NO_VALIDATION),
            (asks_nothing && self.eval.freq != questions.freq, "eval.freq", NO_TASKS),
            (asks_nothing && self.eval.text.is_some(), "eval.text", NO_TASKS),
            (asks_nothing && !self.eval.lengths.is_empty(), "eval.lengths", NO_TASKS),
            (asks_nothing && self.eval.limit != questions.limit, "eval.limit", NO_TASKS),
            (asks_nothing && self.eval.data != questions.data, "eval.data", NO_TASKS),
            (idles && self.validation.steps != validation.steps, "validation.steps", NO_VALIDATION),
        ];
        self.warn_of_unread_tasks(settings);
        for (asked, name, what_happens) in unread {
            if asked {
                settings.warn(&[name], &format!("`{name}` has no effect: {what_happens}"));
            }
        }
    }

    /// Of the settings of recall tasks, where something else is trained on.
    fn warn_of_unread_tasks(&self, settings: &mut Settings<'_>) {
        let dataset = self.data.training.dataset;
        let mqar = (dataset == DatasetKind::Mqar, self.data.mqar.entries(), MqarConfig::default().entries());
        let recall =
            (dataset.task().is_some(), self.data.recall.entries(), RecallConfig::default().entries());
        for (_, now, default) in [mqar, recall].iter().filter(|(is_read, ..)| !is_read) {
            for entry in now.iter().filter(|entry| !default.contains(entry)) {
                let name = entry.name();
                let message = format!("`{name}` has no effect: training.dataset is \"{}\"", dataset.word());
                settings.warn(&[&name], &message);
            }
        }
    }
}
