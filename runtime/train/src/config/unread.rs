//! Settings that are accepted from TorchTitan's configs before linc does what they ask for.

use linc_checkpoint::AsyncMode;
use linc_config::Settings;
use linc_driver::RecomputeMode;

use super::{ActivationCheckpoint, JobConfig, Validation};

impl JobConfig {
    /// Settings that another one keeps from being read, where somebody set them: who sets them believes that they do something.
    pub(super) fn warn_of_idle(&self, settings: &mut Settings<'_>) {
        let (validation, recompute) = (Validation::default(), ActivationCheckpoint::default());
        // Who switches it off knows.
        let idles = !self.validation.enable && !settings.was_given("validation.enable");
        let is_budget = self.activation_checkpoint.mode == RecomputeMode::MemoryBudget;
        let budget = self.activation_checkpoint.memory_budget != recompute.memory_budget;
        // What a run wrote of its settings has their defaults as well.
        let idle = [
            (!is_budget && budget, "activation_checkpoint.memory_budget", "mode is not \"memory_budget\""),
            (idles, "validation.dataset_path", "validation.enable is not set"),
            (
                idles && self.validation.freq != validation.freq,
                "validation.freq",
                "validation.enable is not set",
            ),
            (
                idles && self.validation.steps != validation.steps,
                "validation.steps",
                "validation.enable is not set",
            ),
        ];
        for (is_idle, name, reason) in idle {
            if is_idle && settings.was_given(name) {
                settings.warn(&[name], &format!("`{name}` has no effect: {reason}"));
            }
        }
    }

    /// Settings that are TorchTitan's and do nothing yet say so where they ask for something.
    pub(super) fn warn_of_unread(&self, settings: &mut Settings<'_>) {
        let unread = [(
            self.checkpoint.async_mode == AsyncMode::AsyncPinned,
            "checkpoint.async_mode",
            "there is no pinned memory to copy through; it is taken for \"async\"",
        )];
        for (asked, name, what_happens) in unread {
            if asked {
                settings.warn(&[name], &format!("`{name}` has no effect: {what_happens}"));
            }
        }
    }
}
