//! What is out of the ordinary, judged by what was ordinary before: running medians of the run itself.

use std::collections::VecDeque;

use super::{Alert, AlertKind};
use crate::config::{AlertLevel, Alerts};
use crate::metrics::Record;

/// Values that a median needs before anything is compared with it.
const LEAST: usize = 20;

/// Records of speed that a median needs.
const LEAST_RECORDS: usize = 5;

/// A loss counts as a spike only above so many times the usual distance from the median, so that noisy runs are not told of
/// their noise.
const DEVIATIONS: f64 = 6.0;

/// Nats above the first loss of a run from which on it is diverging, before there is a median.
const ABOVE_FIRST: f64 = 2.0;

/// The last values of something.
#[derive(Debug)]
struct Running {
    values: VecDeque<f64>,
    window: usize,
}

impl Running {
    fn new(window: usize) -> Self {
        Running { values: VecDeque::new(), window }
    }

    fn push(&mut self, value: f64) {
        if self.values.len() >= self.window {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// The median, if there are at least so many values.
    fn median(&self, least: usize) -> Option<f64> {
        (self.values.len() >= least.min(self.window)).then(|| median(self.values.iter().copied()))
    }

    /// The mean distance from `centre`. (The median distance is 0 where two values alternate.)
    fn deviation(&self, centre: f64) -> f64 {
        self.values.iter().map(|value| (value - centre).abs()).sum::<f64>() / self.values.len().max(1) as f64
    }
}

/// Of at least one value.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}

/// What is known of a run so far.
#[derive(Debug)]
pub(super) struct Detectors {
    settings: Alerts,
    first: Option<f64>,
    losses: Running,
    speeds: Running,
}

impl Detectors {
    pub(super) fn new(settings: &Alerts) -> Self {
        let running = || Running::new(settings.window);
        Detectors { settings: settings.clone(), first: None, losses: running(), speeds: running() }
    }

    /// A loss that stands out above the median of those before it; while there are too few for that, above the first.
    pub(super) fn step(&mut self, step: usize, loss: f64) -> Vec<Alert> {
        if !loss.is_finite() {
            return vec![];
        }
        let limit = self.settings.loss_spike;
        let first = *self.first.get_or_insert(loss);
        let (usual, what, least) = match self.losses.median(LEAST) {
            Some(median) => {
                let least = limit.max(DEVIATIONS * self.losses.deviation(median));
                (median, "the median of the steps before", least)
            }
            None => (first, "that of the first step", limit.max(ABOVE_FIRST)),
        };
        self.losses.push(loss);
        let above = loss - usual;
        if limit <= 0.0 || above <= least {
            return vec![];
        }
        let message = format!("the loss of step {step} is {loss:.4}, {above:.4} above {what}");
        vec![Alert { level: AlertLevel::Warn, kind: AlertKind::LossSpike, step, message }]
    }

    /// Steps that wait for data, or are slower than they were, and memory that runs out.
    pub(super) fn record(&mut self, record: &Record, free: Option<f64>) -> Vec<Alert> {
        let settings = &self.settings;
        let (stalled_data, slow, memory) = (settings.stalled_data, settings.slow, settings.memory);
        let mut found = vec![];
        let mut say = |kind, message| {
            found.push(Alert { level: AlertLevel::Warn, kind, step: record.step, message });
        };
        let share = record.data_ms.zip(record.step_ms).map(|(data, step)| data / step.max(1e-9));
        if let Some(share) = share.filter(|share| stalled_data > 0.0 && *share > stalled_data) {
            let percent = 100.0 * share;
            say(AlertKind::StalledData, format!("{percent:.0} % of the time of steps is waiting for data"));
        }
        if let Some(tps) = record.tps {
            if let Some(median) = self.speeds.median(LEAST_RECORDS).filter(|median| tps < slow * median) {
                let message = format!("{tps:.0} tokens/s, where {median:.0} were usual");
                say(AlertKind::Slow, message);
            }
            self.speeds.push(tps);
        }
        if let Some(free) = free.filter(|free| memory > 0.0 && 1.0 - free > memory) {
            say(AlertKind::Memory, format!("only {:.1} % of the memory is free", 100.0 * free));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(alerts: &[Alert]) -> Vec<AlertKind> {
        alerts.iter().map(|alert| alert.kind).collect()
    }

    #[test]
    fn a_spike_stands_out_and_noise_and_progress_do_not() {
        let mut detectors = Detectors::new(&Alerts::default());
        let noise = |step: usize| 0.05 * ((step * 7919 % 13) as f64 / 6.0 - 1.0);
        for step in 1..200 {
            let loss = 3.0 + 5.0 / step as f64 + noise(step);
            assert!(detectors.step(step, loss).is_empty(), "step {step}");
        }
        assert_eq!(kinds(&detectors.step(200, 4.5)), [AlertKind::LossSpike]);
        assert!(detectors.step(201, f64::NAN).is_empty(), "that is another alert");
        // A run whose loss jumps about all the time.
        let mut detectors = Detectors::new(&Alerts::default());
        for step in 1..200 {
            let loss = 3.0 + if step % 2 == 0 { 1.0 } else { -1.0 };
            assert!(detectors.step(step, loss).is_empty(), "step {step}");
        }
    }

    #[test]
    fn too_few_steps_are_no_measure() {
        let mut detectors = Detectors::new(&Alerts::default());
        for step in 1..LEAST {
            assert!(detectors.step(step, 1.0).is_empty());
        }
        assert!(detectors.step(LEAST, 2.9).is_empty());
        assert_eq!(detectors.step(LEAST + 1, 2.9).len(), 1);
    }

    #[test]
    fn a_run_that_diverges_from_the_start_is_seen() {
        let mut detectors = Detectors::new(&Alerts::default());
        let losses = [6.05, 6.5, 7.9, 12.5];
        let found: Vec<Alert> =
            (1..).zip(losses).flat_map(|(step, loss)| detectors.step(step, loss)).collect();
        assert_eq!(kinds(&found), [AlertKind::LossSpike]);
        assert!(found[0].step == 4 && found[0].message.contains("that of the first step"), "{found:?}");
    }

    #[test]
    fn speed_data_and_memory() {
        let mut detectors = Detectors::new(&Alerts::default());
        let record = |tps: f64, data_ms: f64| Record {
            tps: Some(tps),
            step_ms: Some(100.0),
            data_ms: Some(data_ms),
            ..Record::new(10, 0)
        };
        for _ in 0..LEAST_RECORDS {
            assert!(detectors.record(&record(1000.0, 1.0), Some(0.5)).is_empty());
        }
        assert_eq!(kinds(&detectors.record(&record(400.0, 1.0), None)), [AlertKind::Slow]);
        assert_eq!(kinds(&detectors.record(&record(900.0, 60.0), None)), [AlertKind::StalledData]);
        assert_eq!(kinds(&detectors.record(&record(900.0, 1.0), Some(0.01))), [AlertKind::Memory]);
        let none = Alerts { slow: 0.0, stalled_data: 0.0, memory: 0.0, loss_spike: 0.0, ..Alerts::default() };
        let mut off = Detectors::new(&none);
        for step in 1..100 {
            assert!(off.step(step, step as f64).is_empty());
            assert!(off.record(&record(1000.0 / step as f64, 99.0), Some(0.0)).is_empty());
        }
    }
}
