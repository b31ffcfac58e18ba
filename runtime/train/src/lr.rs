//! The learning rate over a run: linear warmup, a stable stretch, then decay, by TorchTitan's formulas since June 2025; or
//! stretches that the config lists.
//!
//! The last step of the warmup has the peak. The decay aims at the step behind the last, so that no step of the run is
//! lost at a rate of 0: its first step is one part of `decay` below the peak, its last one part above the floor. A listed
//! stretch ends with the share that it names, at its last step.

use crate::config::{DecayType, JobConfig, Segment};

/// Learning rate of each step.
#[derive(Clone, Debug, PartialEq)]
pub struct LrSchedule {
    peak: f64,
    shares: Shares,
}

/// Share of the peak at each step.
#[derive(Clone, Debug, PartialEq)]
enum Shares {
    WarmupStableDecay {
        /// Steps up to the peak.
        warmup: f64,
        /// Steps at the peak behind the warmup.
        stable: f64,
        /// Steps from the peak to the floor, of which the last is behind the run.
        decay: f64,
        shape: DecayType,
        floor: f64,
    },
    Segments(Vec<Stretch>),
}

/// One listed stretch.
#[derive(Clone, Debug, PartialEq)]
struct Stretch {
    /// Steps before it.
    start: usize,
    steps: usize,
    from: f64,
    to: f64,
    shape: DecayType,
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
        let wanted = match config.lr_scheduler.decay_type {
            DecayType::Constant => Some(0),
            DecayType::Linear | DecayType::Sqrt | DecayType::Cosine => {
                let ratio = config.lr_scheduler.decay_ratio;
                ratio.map(|ratio| (steps as f64 * ratio).round_ties_even() as usize)
            }
        };
        let decay = wanted.map_or(rest, |wanted| wanted.min(rest));
        Stretches { warmup, decay, wanted_decay: wanted.filter(|wanted| *wanted > decay) }
    }
}

impl LrSchedule {
    /// The schedule of a config.
    pub fn new(config: &JobConfig) -> Self {
        let (steps, settings) = (config.training.steps, &config.lr_scheduler);
        let Stretches { warmup, decay, .. } = Stretches::new(config);
        let shares = if settings.segments.is_empty() {
            Shares::WarmupStableDecay {
                warmup: warmup as f64,
                stable: (steps - warmup - decay) as f64 + 1.0,
                decay: decay as f64,
                shape: settings.decay_type,
                floor: settings.lr_min,
            }
        } else {
            Shares::Segments(stretches(&settings.segments, steps))
        };
        Self { peak: config.optimizer.lr, shares }
    }

    /// In words, for the start of a run: `warmup 200`, or the listed stretches.
    pub fn describe(&self) -> String {
        match &self.shares {
            Shares::WarmupStableDecay { warmup, .. } => format!("warmup {warmup}"),
            Shares::Segments(all) => {
                let one = |s: &Stretch| format!("{} to {} in {}", s.shape.word(), s.to, s.steps);
                format!("learning rate {}", all.iter().map(one).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Share of the peak for the `step`-th update, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        match &self.shares {
            Shares::WarmupStableDecay { warmup, stable, decay, shape, floor } => {
                let step = step as f64;
                if step < *warmup {
                    return (step + 1.0) / warmup;
                }
                if step < warmup + stable || *decay == 0.0 {
                    return 1.0;
                }
                let progress = ((step + 1.0 - warmup - stable) / decay).min(1.0);
                floor + (1.0 - floor) * remaining(*shape, progress)
            }
            Shares::Segments(all) => {
                let Some(at) = all.iter().rfind(|stretch| stretch.start <= step) else { return 1.0 };
                let progress = ((step - at.start + 1) as f64 / at.steps as f64).min(1.0);
                at.to + (at.from - at.to) * remaining(at.shape, progress)
            }
        }
    }

    /// Learning rate of the `step`-th update, counted from 0.
    pub fn lr(&self, step: usize) -> f64 {
        self.peak * self.factor(step)
    }
}

/// What is left of a change from 1 to 0.
fn remaining(shape: DecayType, progress: f64) -> f64 {
    match shape {
        DecayType::Linear => 1.0 - progress,
        DecayType::Sqrt => 1.0 - progress.sqrt(),
        DecayType::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        DecayType::Constant => 0.0,
    }
}

/// Each begins with the share that the one before ends with, the first with 0. The last one holds what it ends with.
fn stretches(segments: &[Segment], steps: usize) -> Vec<Stretch> {
    let (mut start, mut from) = (0usize, 0.0);
    let mut all = vec![];
    for segment in segments {
        let to = segment.to.unwrap_or(from);
        let steps = segment.steps.unwrap_or_else(|| steps.saturating_sub(start)).max(1);
        all.push(Stretch { start, steps, from, to, shape: segment.shape });
        (start, from) = (start.saturating_add(steps), to);
    }
    all
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
        assert_eq!((schedule.lr(0), schedule.lr(1)), (1.0, 2.0));
        assert_factors(schedule, &[0.5, 1.0, 1.0, 2.0 / 3.0, 1.0 / 3.0]);
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

    /// The definition: every step in the words of TorchTitan's function, whose decay aims at a step that is added to the run.
    fn by_definition(
        step: usize,
        run: usize,
        warmup: usize,
        ratio: Option<f64>,
        kind: &str,
        min: f64,
    ) -> f64 {
        let warmup = warmup.min(run);
        let mut decay = run - warmup;
        if let Some(ratio) = ratio {
            decay = decay.min((run as f64 * ratio).round_ties_even() as usize);
        }
        let warmup_stable = run + 1 - decay;
        let current = (step + 1) as f64;
        if step < warmup {
            return current / warmup as f64;
        }
        if step < warmup_stable {
            return 1.0;
        }
        let progress = (current - warmup_stable as f64) / decay as f64;
        let factor = match kind {
            "linear" => 1.0 - progress,
            "sqrt" => 1.0 - progress.powf(0.5),
            "cosine" => (std::f64::consts::FRAC_PI_2 * progress).cos().powi(2),
            other => panic!("{other}"),
        };
        min + (1.0 - min) * factor
    }

    #[test]
    fn every_step_of_whole_runs_is_that_of_the_formula() {
        let shapes =
            [(DecayType::Linear, "linear"), (DecayType::Sqrt, "sqrt"), (DecayType::Cosine, "cosine")];
        for (shape, word) in shapes {
            for (steps, warmup) in [(1000, 200), (300, 0), (77, 13), (50, 80)] {
                for ratio in [None, Some(0.0), Some(0.1), Some(0.35), Some(1.0)] {
                    for floor in [0.0, 0.1] {
                        let schedule = schedule(steps, warmup, ratio, shape, floor);
                        for step in 0..steps {
                            let expected = by_definition(step, steps, warmup, ratio, word, floor);
                            let found = schedule.factor(step);
                            assert!(
                                (found - expected).abs() < 1e-12,
                                "{word} {steps} {warmup} {ratio:?} {floor}, step {step}: {found}, not {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_constant_rate_stays_behind_its_warmup() {
        for ratio in [None, Some(0.5)] {
            assert_factors(schedule(5, 2, ratio, DecayType::Constant, 0.0), &[0.5, 1.0, 1.0, 1.0, 1.0]);
        }
    }

    #[test]
    fn segments_go_from_end_to_end() {
        let segment = |steps, to, shape| Segment { steps, to, shape };
        let mut config = JobConfig::default();
        config.training.steps = 12;
        config.lr_scheduler.segments = vec![
            segment(Some(2), Some(1.0), DecayType::Linear),
            segment(Some(2), None, DecayType::Constant),
            segment(Some(4), Some(0.2), DecayType::Cosine),
            segment(Some(1), Some(0.6), DecayType::Constant),
            segment(None, Some(0.0), DecayType::Sqrt),
        ];
        let half = 0.8 * 0.5f64.sqrt() / 2.0;
        let down = |part: f64| 0.6 * (1.0 - part.sqrt());
        let expected = [
            [0.5, 1.0, 1.0, 1.0],
            [0.6 + half, 0.6, 0.6 - half, 0.2],
            [0.6, down(1.0 / 3.0), down(2.0 / 3.0), 0.0],
        ];
        let schedule = LrSchedule::new(&config);
        assert_factors(schedule.clone(), &expected.concat());
        assert_eq!(schedule.factor(500), 0.0, "the last share is held");
    }
}
