//! How far people agree: Krippendorff's alpha.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use crate::draw::below;

/// Resamples for an interval.
const RESAMPLES: usize = 1000;

/// Agreement on what several people marked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Krippendorff's alpha for marks as numbers: 1 where all agree, 0 where they do as by chance; nothing where all marks are the
    /// same, of which nobody can tell.
    pub alpha: Option<f64>,
    /// Its 95 % interval, by resampling the texts.
    pub interval: Option<[f64; 2]>,
    /// Share of the pairs of marks on one text that are equal.
    pub equal: f64,
    /// Share of those that differ by one at most.
    pub near: f64,
    /// Texts that several people marked.
    pub texts: usize,
}

/// The agreement of marks, a list for each text; nothing if no text has two.
pub(super) fn agreement(marks: &[Vec<f64>]) -> Option<Agreement> {
    let units: Vec<&[f64]> = marks.iter().map(Vec::as_slice).filter(|unit| unit.len() > 1).collect();
    let differences = |unit: &&[f64]| -> Vec<f64> {
        let pairs = (0..unit.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        pairs.map(|(i, j)| (unit[i] - unit[j]).abs()).collect()
    };
    let all: Vec<f64> = units.iter().flat_map(differences).collect();
    if all.is_empty() {
        return None;
    }
    let share =
        |most: f64| all.iter().filter(|difference| **difference <= most).count() as f64 / all.len() as f64;
    Some(Agreement {
        alpha: alpha(&units),
        interval: interval(&units),
        equal: share(0.0),
        near: share(1.0),
        texts: units.len(),
    })
}

/// 1 - D_o / D_e with squared differences (Krippendorff 2011).
fn alpha(units: &[&[f64]]) -> Option<f64> {
    let squares = |values: &[f64]| {
        // Over ordered pairs of different places.
        let (n, sum) = (values.len() as f64, values.iter().sum::<f64>());
        2.0 * (n * values.iter().map(|value| value * value).sum::<f64>() - sum * sum)
    };
    let all: Vec<f64> = units.iter().flat_map(|unit| unit.iter().copied()).collect();
    let n = all.len() as f64;
    let observed: f64 = units.iter().map(|unit| squares(unit) / (unit.len() as f64 - 1.0)).sum::<f64>() / n;
    let expected = squares(&all) / (n * (n - 1.0));
    (expected > 1e-12).then(|| 1.0 - observed / expected)
}

/// The middle 95 % of the alphas of resampled texts; nothing of few texts.
fn interval(units: &[&[f64]]) -> Option<[f64; 2]> {
    const LEAST: usize = 5;
    if units.len() < LEAST {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut alphas: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let drawn: Vec<&[f64]> = units.iter().map(|_| units[below(&mut random, units.len())]).collect();
            alpha(&drawn)
        })
        .collect();
    alphas.sort_by(f64::total_cmp);
    let at = |share: f64| alphas.get(((alphas.len() as f64 - 1.0) * share).round() as usize).copied();
    Some([at(0.025)?, at(0.975)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_that_is_known() {
        // All agree.
        let same = agreement(&[vec![1.0, 1.0], vec![5.0, 5.0], vec![3.0, 3.0, 3.0]]).expect("pairs");
        assert_eq!((same.alpha, same.equal, same.texts), (Some(1.0), 1.0, 3));
        // Nobody could tell.
        assert_eq!(agreement(&[vec![2.0, 2.0], vec![2.0, 2.0]]).expect("pairs").alpha, None);
        assert_eq!(agreement(&[vec![2.0], vec![]]), None);
        // Krippendorff's example of four observers and twelve units (2011, section C), interval data: 0.849.
        let by_observer = [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ];
        let units: Vec<Vec<f64>> = (0..12)
            .map(|unit| {
                by_observer.iter().map(|marks| marks[unit]).filter(|mark| *mark > 0).map(f64::from).collect()
            })
            .collect();
        let found = agreement(&units).expect("pairs");
        assert!((found.alpha.expect("a number") - 0.849).abs() < 5e-4, "{found:?}");
        let [low, high] = found.interval.expect("eleven texts");
        assert!(low < 0.849 && 0.849 < high && high <= 1.0, "{found:?}");
    }
}
