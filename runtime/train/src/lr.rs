//! The learning rate over a run: linear warmup, a stable stretch, then decay; TorchTitan's formulas.

use crate::config::{DecayType, JobConfig};

/// Learning rate of each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSchedule {
    peak: f64,
    warmup: f64,
    stable: f64,
    decay: f64,
    shape: DecayType,
    floor: f64,
}

impl LrSchedule {
    /// The schedule of a config. Without `decay_ratio` the decay takes all steps after the warmup; with it,
    /// that share of all steps (rounded), but never a step of the warmup.
    pub fn new(config: &JobConfig) -> Self {
        let steps = config.training.steps as f64;
        let warmup = config.lr_scheduler.warmup_steps as f64;
        let after_warmup = (steps - warmup).max(0.0);
        let decay = match config.lr_scheduler.decay_ratio {
            Some(ratio) => (steps * ratio).round_ties_even().min(after_warmup),
            None => after_warmup,
        };
        Self {
            peak: config.optimizer.lr,
            warmup,
            stable: after_warmup - decay,
            decay,
            shape: config.lr_scheduler.decay_type,
            floor: config.lr_scheduler.lr_min,
        }
    }

    /// Share of the peak for the `step`-th update, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        let next = step as f64 + 1.0;
        if next <= self.warmup {
            return next / (self.warmup + 1.0);
        }
        if next <= self.warmup + self.stable {
            return 1.0;
        }
        let progress = ((next - self.warmup - self.stable) / (self.decay + 1.0)).min(1.0);
        let remaining = match self.shape {
            DecayType::Linear => 1.0 - progress,
            DecayType::Sqrt => 1.0 - progress.sqrt(),
            DecayType::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.floor + (1.0 - self.floor) * remaining
    }

    /// Learning rate of the `step`-th update, counted from 0.
    pub fn lr(&self, step: usize) -> f64 {
        self.peak * self.factor(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(steps: usize, warmup: usize, ratio: Option<f64>, shape: DecayType, floor: f64) -> LrSchedule {
        let mut config = JobConfig::default();
        config.training.steps = steps;
        config.optimizer.lr = 2.0;
        config.lr_scheduler.warmup_steps = warmup;
        config.lr_scheduler.decay_ratio = ratio;
        config.lr_scheduler.decay_type = shape;
        config.lr_scheduler.lr_min = floor;
        LrSchedule::new(&config)
    }

    fn assert_factors(schedule: LrSchedule, expected: &[f64]) {
        for (step, expected) in expected.iter().enumerate() {
            let found = schedule.factor(step);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found} instead of {expected}");
        }
    }

    #[test]
    fn decay_follows_warmup_by_default() {
        // 2 warmup steps in thirds, then 3 steps down a line with 4 parts.
        let schedule = schedule(5, 2, None, DecayType::Linear, 0.0);
        assert_factors(schedule, &[1.0 / 3.0, 2.0 / 3.0, 0.75, 0.5, 0.25]);
        assert_eq!(schedule.lr(3), 1.0);
    }

    #[test]
    fn decay_ratio_leaves_a_stable_stretch() {
        let factors = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25];
        assert_factors(schedule(10, 1, Some(0.3), DecayType::Linear, 0.0), &factors);
        // The decay never eats into the warmup.
        assert_factors(
            schedule(4, 2, Some(1.0), DecayType::Linear, 0.0),
            &[1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0],
        );
        assert_factors(schedule(4, 1, Some(0.0), DecayType::Linear, 0.0), &[0.5, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn shapes_and_floor() {
        assert_factors(
            schedule(3, 0, None, DecayType::Sqrt, 0.0),
            &[0.5, 1.0 - 0.5f64.sqrt(), 1.0 - 0.75f64.sqrt()],
        );
        let half_root = 0.5f64.sqrt();
        assert_factors(
            schedule(3, 0, None, DecayType::Cosine, 0.0),
            &[0.5 * (1.0 + half_root), 0.5, 0.5 * (1.0 - half_root)],
        );
        assert_factors(schedule(3, 0, None, DecayType::Linear, 0.1), &[0.775, 0.55, 0.325]);
    }

    #[test]
    fn a_run_shorter_than_its_warmup_only_warms_up() {
        assert_factors(schedule(3, 9, None, DecayType::Linear, 0.0), &[0.1, 0.2, 0.3]);
    }

    #[test]
    fn steps_beyond_the_end_stay_at_the_floor() {
        let schedule = schedule(5, 2, None, DecayType::Cosine, 0.1);
        assert!((schedule.factor(5) - 0.1).abs() < 1e-12 && (schedule.factor(1000) - 0.1).abs() < 1e-12);
    }
}
