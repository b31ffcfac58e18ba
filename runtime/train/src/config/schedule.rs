//! What settings of the learning rate's schedule say together.

use linc_config::Settings;
use linc_device::words::count;

use super::{DecayType, JobConfig, LrScheduler};
use crate::lr::Stretches;

impl JobConfig {
    /// Says which stretches of the learning rate's schedule are longer than the run.
    pub(super) fn cut_to_the_run(&self, settings: &mut Settings<'_>) {
        if !self.lr_scheduler.segments.is_empty() {
            return;
        }
        let (steps, wanted) = (self.training.steps, self.lr_scheduler.warmup_steps);
        let Stretches { warmup, decay, wanted_decay } = Stretches::new(self);
        if warmup < wanted {
            let whose = if settings.was_given("lr_scheduler.warmup_steps") { "" } else { " (the default)" };
            settings.warn(
                &["lr_scheduler.warmup_steps", "training.steps"],
                &format!(
                    "a warmup of {}{whose} is longer than the run of {}",
                    count(wanted, "step"),
                    count(steps, "step")
                ),
            );
        }
        let asks =
            self.lr_scheduler.decay_ratio.is_some_and(|ratio| ratio > 0.0) || self.lr_scheduler.lr_min > 0.0;
        if self.lr_scheduler.decay_type == DecayType::Constant && asks {
            let names = &["lr_scheduler.decay_ratio", "lr_scheduler.lr_min", "lr_scheduler.decay_type"];
            settings.warn(names, "with decay_type = \"constant\" there is no decay, however long or low");
        }
        if let Some(wanted) = wanted_decay {
            settings.warn(
                &["lr_scheduler.decay_ratio", "lr_scheduler.warmup_steps", "training.steps"],
                &format!(
                    "a warmup of {} leaves {decay} of {} to the decay, which would take {wanted}",
                    count(warmup, "step"),
                    count(steps, "step")
                ),
            );
        }
    }

    /// Of the two ways to say a schedule, the one that was said later counts: a config may have another than its base.
    pub(super) fn complete_schedule(&mut self, settings: &mut Settings<'_>) {
        let schedule = &mut self.lr_scheduler;
        if schedule.segments.is_empty() {
            return;
        }
        let segments = "lr_scheduler.segments";
        let of_segments = settings.layer(segments);
        let keys =
            ["warmup_steps", "decay_ratio", "decay_type", "lr_min"].map(|key| format!("lr_scheduler.{key}"));
        let layers = keys.each_ref().map(|key| settings.layer(key));
        let default = LrScheduler::default();
        if layers.iter().any(|layer| *layer > of_segments) {
            schedule.segments = vec![];
        } else if layers.iter().all(|layer| *layer < of_segments) {
            schedule.warmup_steps = default.warmup_steps;
            schedule.decay_ratio = default.decay_ratio;
            schedule.decay_type = default.decay_type;
            schedule.lr_min = default.lr_min;
            for key in &keys {
                if settings.was_given(key) {
                    settings.follow(key, segments);
                }
            }
        }
    }

    /// Segments are the whole schedule, and each says where it ends.
    pub(super) fn check_schedule(&self, settings: &mut Settings<'_>) {
        const SEGMENTS: &str = "lr_scheduler.segments";
        let segments = &self.lr_scheduler.segments;
        if segments.is_empty() {
            return;
        }
        let (own, default) = (&self.lr_scheduler, LrScheduler::default());
        // A written config spells out defaults.
        for (differs, key) in [
            (own.warmup_steps != default.warmup_steps, "warmup_steps"),
            (own.decay_ratio != default.decay_ratio, "decay_ratio"),
            (own.decay_type != default.decay_type, "decay_type"),
            (own.lr_min != default.lr_min, "lr_min"),
        ] {
            if differs {
                settings.conflict(
                    &[&format!("lr_scheduler.{key}"), SEGMENTS],
                    format!("`{key}` stands beside `segments`, which are the whole schedule"),
                    "keep one of the two; a warmup is a first segment with `to = 1.0`",
                );
            }
        }
        for (index, segment) in segments.iter().enumerate() {
            let number = index + 1;
            if segment.to.is_none() && segment.shape != DecayType::Constant {
                let shape = segment.shape.word();
                settings.conflict(
                    &[SEGMENTS],
                    format!("entry {number} of `segments` does not say where its {shape} change ends"),
                    "give it a `to`, the share of the peak learning rate at its last step",
                );
            }
            if segment.steps.is_none() && number < segments.len() {
                settings.conflict(
                    &[SEGMENTS],
                    format!("entry {number} of `segments` has no `steps`"),
                    "only the last may leave them out: it takes all that are left",
                );
            }
        }
        let known = segments.iter().map(|segment| segment.steps.unwrap_or(1));
        let all = known.fold(0usize, usize::saturating_add);
        if all > self.training.steps {
            settings.warn(
                &[SEGMENTS, "training.steps"],
                &format!(
                    "segments of {} are longer than the run of {}",
                    count(all, "step"),
                    count(self.training.steps, "step")
                ),
            );
        }
    }
}
