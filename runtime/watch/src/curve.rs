//! What is drawn of a run's records over its steps.

use linc_train::metrics::Record;

/// A quantity of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    /// Loss of training steps.
    Loss,
    /// Loss on the validation part.
    Validation,
    /// What the schedule gave the step.
    LearningRate,
    /// Tokens per second.
    Speed,
    /// Bytes of a step at its peak, GiB.
    Memory,
    /// Global norm of the gradients before clipping.
    GradientNorm,
}

impl Curve {
    /// Those that the second chart shows, one after the other.
    pub(crate) const SECOND: [Curve; 4] =
        [Curve::LearningRate, Curve::Speed, Curve::Memory, Curve::GradientNorm];

    /// What it is called, with its unit.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Curve::Loss => "loss, nats per token",
            Curve::Validation => "validation loss",
            Curve::LearningRate => "learning rate",
            Curve::Speed => "tokens per second",
            Curve::Memory => "memory of a step, GiB",
            Curve::GradientNorm => "gradient norm",
        }
    }

    /// The value of a record, if it has one that can be drawn.
    pub(crate) fn of(self, record: &Record) -> Option<f64> {
        let value = match self {
            Curve::Loss => record.loss,
            Curve::Validation => record.validation_loss,
            Curve::LearningRate => record.lr,
            Curve::Speed => record.tps,
            Curve::Memory => memory(record).map(|bytes| bytes as f64 / (1u64 << 30) as f64),
            Curve::GradientNorm => record.grad_norm,
        };
        value.filter(|value| value.is_finite())
    }

    /// Its points over the steps, at most `most`: of more, each stands for as many and is their mean.
    pub(crate) fn points(self, records: &[Record], most: usize) -> Vec<(f64, f64)> {
        let all: Vec<(f64, f64)> =
            records.iter().filter_map(|record| Some((record.step as f64, self.of(record)?))).collect();
        let each = all.len().div_ceil(most.max(1)).max(1);
        let mean = |part: &[(f64, f64)]| {
            let sum = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
            (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
        };
        all.chunks(each).map(mean).collect()
    }
}

/// Bytes of a step at its peak, where a record says.
pub(crate) fn memory(record: &Record) -> Option<u64> {
    (!record.memory.is_empty()).then(|| record.memory.values().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_points_are_drawn_as_their_means() {
        let record = |step: usize| Record { loss: Some(step as f64), ..Record::new(step, 0) };
        let mut records: Vec<Record> = (1..=10).map(record).collect();
        records.push(Record { validation_loss: Some(1.0), ..Record::new(10, 0) });
        records.push(Record { loss: Some(f64::NAN), ..Record::new(11, 0) });
        assert_eq!(Curve::Loss.points(&records, 100).len(), 10);
        assert_eq!(Curve::Loss.points(&records, 2), [(3.0, 3.0), (8.0, 8.0)]);
        assert_eq!(Curve::Validation.points(&records, 2), [(10.0, 1.0)]);
        assert!(Curve::Memory.points(&records, 0).is_empty());
    }
}
