//! How sure a number is: standard errors, and intervals by resampling.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::numbers;

/// Resamples of an interval.
const RESAMPLES: usize = 1000;

/// A measured number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The number over all samples.
    #[serde(serialize_with = "numbers::one")]
    pub value: f64,
    /// Its standard error; nothing for fewer than two samples.
    #[serde(serialize_with = "numbers::perhaps_one")]
    pub stderr: Option<f64>,
    /// Where 95 % of resampled values lie; nothing for fewer than two samples.
    #[serde(serialize_with = "numbers::perhaps_two")]
    pub ci95: Option<[f64; 2]>,
    /// How many parts it is over.
    pub samples: usize,
}

/// What becomes of the mean of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Itself.
    Mean,
    /// e to its power: a perplexity, of a mean in nats.
    Exp,
    /// In bits instead of nats.
    Bits,
}

impl Unit {
    /// The unit of a measure.
    pub fn of(name: &str) -> Self {
        match name {
            "perplexity" | "word_perplexity" | "byte_perplexity" => Unit::Exp,
            "bits_per_byte" => Unit::Bits,
            _ => Unit::Mean,
        }
    }

    fn apply(self, mean: f64) -> f64 {
        match self {
            Unit::Mean => mean,
            Unit::Exp => mean.exp(),
            Unit::Bits => mean / std::f64::consts::LN_2,
        }
    }
}

impl Estimate {
    /// The estimate of a measure from its parts, `(sum, weight)` of each sample; samples are resampled as wholes.
    pub fn of(parts: &[(f64, f64)], unit: Unit, seed: u64) -> Self {
        let value = unit.apply(mean(parts.iter().copied()));
        let samples = parts.len();
        if samples < 2 {
            return Estimate { value, stderr: None, ci95: None, samples };
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut resample = || {
            let draws = (0..samples).map(|_| parts[rng.random_range(0..samples)]);
            unit.apply(mean(draws))
        };
        let mut values: Vec<f64> = (0..RESAMPLES).map(|_| resample()).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((RESAMPLES - 1) as f64 * share).round() as usize];
        let plain = unit == Unit::Mean && parts.iter().all(|(_, weight)| *weight == 1.0);
        let stderr = match plain {
            true => {
                deviation(&parts.iter().map(|(sum, _)| *sum).collect::<Vec<_>>()) / (samples as f64).sqrt()
            }
            false => deviation(&values),
        };
        Estimate { value, stderr: Some(stderr), ci95: Some([at(0.025), at(0.975)]), samples }
    }
}

fn mean(parts: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (sum, weight) = parts.fold((0.0, 0.0), |all, part| (all.0 + part.0, all.1 + part.1));
    if weight == 0.0 { f64::NAN } else { sum / weight }
}

/// The standard deviation of a population that these are drawn from.
fn deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (squares / (count - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_shares_are_those_of_the_normal_distribution() {
        let parts: Vec<(f64, f64)> = (0..400).map(|i| (f64::from(u8::from(i % 4 == 0)), 1.0)).collect();
        let found = Estimate::of(&parts, Unit::Mean, 1);
        let stderr = (0.25f64 * 0.75 / 399.0).sqrt();
        assert_eq!(found.value, 0.25);
        assert!((found.stderr.expect("samples") - stderr).abs() < 1e-12);
        let [low, high] = found.ci95.expect("samples");
        assert!((low - (0.25 - 1.96 * stderr)).abs() < 0.01 && (high - (0.25 + 1.96 * stderr)).abs() < 0.01);
        assert_eq!(found, Estimate::of(&parts, Unit::Mean, 1), "the seed decides");
    }

    #[test]
    fn units_are_of_the_mean_over_weights() {
        let parts = [(2.0, 1.0), (6.0, 3.0), (1.0, 0.5)];
        let value = |unit| Estimate::of(&parts, unit, 0).value;
        assert_eq!(value(Unit::Mean), 2.0);
        assert_eq!(value(Unit::Exp), 2f64.exp());
        assert_eq!(value(Unit::Bits), 2.0 / 2f64.ln());
        let same = Estimate::of(&parts, Unit::Exp, 0);
        assert!(same.stderr.expect("samples") < 1e-12, "all say the same");
        assert_eq!(Estimate::of(&parts[..1], Unit::Mean, 0).ci95, None);
    }
}
