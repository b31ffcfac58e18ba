//! The learning rate over a run: linear warmup, a stable stretch, then decay; TorchTitan's formulas since June 2025.
//!
//! The last step of the warmup has the peak. The decay aims at the step behind the last, so that no step of the run is
//! lost at a rate of 0: its first step is one part of `decay` below the peak, its last one part above the floor.

use crate::config::{DecayType, JobConfig};

/// Learning rate of each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSchedule {
    peak: f64,
    /// Steps up to the peak.
    warmup: f64,
    /// Steps at the peak behind the warmup.
    stable: f64,
    /// Steps from the peak to the floor, of which the last is behind the run.
    decay: f64,
    shape: DecayType,
    floor: f64,
}

/// Steps of warmup and of decay, after both were cut to what the run has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretches {
    /// Steps of the warmup, at most all.
    pub warmup: usize,
    /// Steps of the decay, at most all behind the warmup.
    pub decay: usize,
    /// What the config asks for, where the decay is shorter.
    pub wanted_decay: Option<usize>,
}

impl Stretches {
    /// Those of a config. Without `decay_ratio` the decay takes all steps behind the warmup; with it, that share of all
    /// steps, rounded, but never a step of the warmup.
    pub fn new(config: &JobConfig) -> Self {
        let steps = config.training.steps;
        let warmup = config.lr_scheduler.warmup_steps.min(steps);
        let rest = steps - warmup;
        let wanted =
            config.lr_scheduler.decay_ratio.map(|ratio| (steps as f64 * ratio).round_ties_even() as usize);
        let decay = wanted.map_or(rest, |wanted| wanted.min(rest));
        Stretches { warmup, decay, wanted_decay: wanted.filter(|wanted| *wanted > decay) }
    }
}

impl LrSchedule {
    /// The schedule of a config.
    pub fn new(config: &JobConfig) -> Self {
        let Stretches { warmup, decay, .. } = Stretches::new(config);
        Self {
            peak: config.optimizer.lr,
            warmup: warmup as f64,
            stable: (config.training.steps - warmup - decay) as f64 + 1.0,
            decay: decay as f64,
            shape: config.lr_scheduler.decay_type,
            floor: config.lr_scheduler.lr_min,
        }
    }

    /// Share of the peak for the `step`-th update, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        let step = step as f64;
        if step < self.warmup {
            return (step + 1.0) / self.warmup;
        }
        if step < self.warmup + self.stable || self.decay == 0.0 {
            return 1.0;
        }
        let progress = ((step + 1.0 - self.warmup - self.stable) / self.decay).min(1.0);
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

    /// Compares a whole run.
    fn assert_factors(schedule: LrSchedule, expected: &[f64]) {
        for (step, expected) in expected.iter().enumerate() {
            let found = schedule.factor(step);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found} instead of {expected}");
        }
    }

    #[test]
    fn decay_follows_warmup_by_default() {
        // Two halves up, then a line in thirds whose end is the step behind the run.
        let schedule = schedule(5, 2, None, DecayType::Linear, 0.0);
        assert_factors(schedule, &[0.5, 1.0, 1.0, 2.0 / 3.0, 1.0 / 3.0]);
        assert_eq!((schedule.lr(0), schedule.lr(1)), (1.0, 2.0));
    }

    #[test]
    fn decay_ratio_leaves_a_stable_stretch() {
        let factors = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0 / 3.0, 1.0 / 3.0];
        assert_factors(schedule(10, 1, Some(0.3), DecayType::Linear, 0.0), &factors);
        let factors = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25];
        assert_factors(schedule(10, 4, Some(0.4), DecayType::Linear, 0.0), &factors);
        // 2.5 steps are rounded to the even number.
        let factors = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5];
        assert_factors(schedule(10, 2, Some(0.25), DecayType::Linear, 0.0), &factors);
        let factors = [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125];
        assert_factors(schedule(10, 2, Some(0.8), DecayType::Linear, 0.0), &factors);
        // The decay never eats into the warmup.
        assert_factors(schedule(4, 2, Some(1.0), DecayType::Linear, 0.0), &[0.5, 1.0, 1.0, 0.5]);
        assert_factors(schedule(4, 1, Some(0.0), DecayType::Linear, 0.0), &[1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn shapes_and_floor() {
        let (third, two_thirds) = ((1.0f64 / 3.0).sqrt(), (2.0f64 / 3.0).sqrt());
        assert_factors(schedule(3, 0, None, DecayType::Sqrt, 0.0), &[1.0, 1.0 - third, 1.0 - two_thirds]);
        // cos(pi/3) and cos(2 pi/3) are halves.
        assert_factors(schedule(3, 0, None, DecayType::Cosine, 0.0), &[1.0, 0.75, 0.25]);
        assert_factors(schedule(4, 0, None, DecayType::Linear, 0.2), &[1.0, 0.8, 0.6, 0.4]);
        assert_factors(schedule(4, 1, Some(0.5), DecayType::Cosine, 0.1), &[1.0, 1.0, 1.0, 0.55]);
        assert_factors(
            schedule(4, 1, Some(0.5), DecayType::Sqrt, 0.1),
            &[1.0, 1.0, 1.0, 0.1 + 0.9 * (1.0 - 0.5f64.sqrt())],
        );
    }

    #[test]
    fn a_run_shorter_than_its_warmup_reaches_the_peak_at_its_end() {
        assert_factors(schedule(3, 9, None, DecayType::Linear, 0.0), &[1.0 / 3.0, 2.0 / 3.0, 1.0]);
        assert_factors(schedule(2, 9, Some(0.5), DecayType::Linear, 0.0), &[0.5, 1.0]);
    }

    #[test]
    fn no_step_of_a_run_is_at_zero() {
        for shape in [DecayType::Linear, DecayType::Sqrt, DecayType::Cosine] {
            for (steps, warmup) in [(1, 0), (1, 1), (7, 0), (7, 3), (7, 7)] {
                for ratio in [None, Some(0.0), Some(0.3), Some(1.0)] {
                    let schedule = schedule(steps, warmup, ratio, shape, 0.0);
                    let factors: Vec<f64> = (0..steps).map(|step| schedule.factor(step)).collect();
                    assert!(factors.iter().all(|f| *f > 0.0 && *f <= 1.0), "{schedule:?}: {factors:?}");
                    assert_eq!(factors[warmup.max(1) - 1], 1.0, "{schedule:?}: {factors:?}");
                }
            }
        }
    }

    #[test]
    fn steps_beyond_the_end_stay_at_the_floor() {
        let schedule = schedule(5, 2, None, DecayType::Cosine, 0.1);
        assert!((schedule.factor(5) - 0.1).abs() < 1e-12 && (schedule.factor(1000) - 0.1).abs() < 1e-12);
    }
}
