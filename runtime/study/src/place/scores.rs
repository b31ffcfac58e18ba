//! What says how much a layer wants to stay a softmax layer: the integral of derivatives over the way from all softmax to all
//! linear, and what others use.
//!
//! With D the divergence from the teacher and all gates α moving together from 1 to 0, layer l scores −∫ ∂D/∂α_l dα. By the
//! fundamental theorem of calculus the scores of all layers add up to D at the end (attributions of Aumann and Shapley, 1974).
//! Each point of the way takes one forward and one backward for all layers.

use serde::Serialize;

use super::gated::{Gated, Seen};
use super::quadrature::gauss_legendre;
use super::sequences::Sequence;
use super::{Watcher, gates, highest};
use crate::error::StudyError;
use crate::statistics::Mean;

/// HALO's score is cut off here, since its denominator may be nearly nothing.
const MOST_HALO: f64 = 50.0;
/// And this is added to that.
const LEAST_LOSS: f64 = 1e-6;

/// A number for each layer.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    /// Means over sequences, with their intervals where they are means.
    pub layers: Vec<Mean>,
}

/// Scores by path integration.
#[derive(Clone, Debug, Serialize)]
pub struct Path {
    /// Gates and weights of the points, from all softmax on.
    pub points: Vec<(f64, f64)>,
    /// −∂D/∂α of each layer at each of them: `[point][layer]`.
    pub curve: Vec<Vec<f64>>,
    /// The integral of each layer's curve.
    pub scores: Scores,
    /// Their sum.
    pub sum: f64,
    /// The divergence at the end of the way, all linear, which the sum would be with enough points.
    pub divergence: Mean,
}

/// One-layer changes of the two ends of the way.
#[derive(Clone, Debug, Serialize)]
pub struct OneLayer {
    /// Divergence with that layer linear and all others softmax.
    pub removal: Scores,
    /// What the divergence of all linear layers falls by if that layer is softmax.
    pub addition: Scores,
    /// HALO's (arXiv 2601.22156): what one linear layer costs in right answers at places that ask for something, over what it
    /// costs elsewhere.
    pub halo: Vec<f64>,
}

/// What runs over all sequences, batch by batch.
pub(super) struct Work<'a> {
    pub(super) gated: &'a mut Gated,
    pub(super) sequences: &'a [Sequence],
    pub(super) batch: usize,
    pub(super) watcher: &'a mut dyn Watcher,
}

impl Work<'_> {
    /// What placements make of all sequences: `[placement][sequence]`.
    pub(super) fn look(&mut self, what: &str, all: &[Vec<f64>]) -> Result<Vec<Vec<Seen>>, StudyError> {
        let total = (self.sequences.len() / self.batch * all.len()) as u64;
        let mut seen = vec![vec![]; all.len()];
        let mut done = 0;
        for shown in self.sequences.chunks(self.batch) {
            self.gated.show(shown)?;
            for (gates, seen) in all.iter().zip(&mut seen) {
                seen.extend(self.gated.look(shown, gates)?);
                done += 1;
                self.watcher.progress(what, done, total);
            }
        }
        Ok(seen)
    }

    /// Scores by path integration with so many points.
    pub(super) fn path(&mut self, points: usize) -> Result<Path, StudyError> {
        let rule = gauss_legendre(points);
        let (layers, count) = (self.gated.layers(), self.sequences.len());
        let total = (count / self.batch * points) as u64;
        let (mut curve, mut done) = (vec![vec![0.0; layers]; points], 0);
        let (mut scores, mut ends) = (vec![vec![0.0; count]; layers], vec![]);
        for (number, shown) in self.sequences.chunks(self.batch).enumerate() {
            self.gated.show(shown)?;
            for (point, (gate, weight)) in rule.iter().enumerate() {
                let found = self.gated.gradients(shown, &vec![*gate; layers])?;
                for (layer, row) in found.iter().enumerate() {
                    for (at, gradient) in row.iter().enumerate() {
                        curve[point][layer] -= gradient / count as f64;
                        scores[layer][number * self.batch + at] -= weight * gradient;
                    }
                }
                done += 1;
                self.watcher.progress("path", done, total);
            }
            ends.extend(self.gated.look(shown, &vec![0.0; layers])?.iter().map(|seen| seen.recall_kl));
        }
        let scores = Scores::of(&scores);
        let sum = scores.layers.iter().map(|mean| mean.mean).sum();
        Ok(Path { points: rule, curve, scores, sum, divergence: mean(&ends) })
    }

    /// One-layer removal, addition, and HALO's score of the removals.
    pub(super) fn one_layer(&mut self) -> Result<OneLayer, StudyError> {
        let layers = self.gated.layers();
        let with = |layer: usize, one: f64, others: f64| {
            (0..layers).map(|l| if l == layer { one } else { others }).collect::<Vec<f64>>()
        };
        let mut all = vec![vec![1.0; layers], vec![0.0; layers]];
        all.extend((0..layers).map(|layer| with(layer, 0.0, 1.0)));
        all.extend((0..layers).map(|layer| with(layer, 1.0, 0.0)));
        let seen = self.look("one layer at a time", &all)?;
        let kl = |seen: &[Seen]| seen.iter().map(|seen| seen.recall_kl).collect::<Vec<f64>>();
        let removed = &seen[2..2 + layers];
        let none = kl(&seen[1]);
        let gains = seen[2 + layers..].iter().map(|seen| {
            kl(seen).iter().zip(&none).map(|(with, without)| without - with).collect::<Vec<f64>>()
        });
        Ok(OneLayer {
            removal: Scores::of(&removed.iter().map(|seen| kl(seen)).collect::<Vec<_>>()),
            addition: Scores::of(&gains.collect::<Vec<_>>()),
            halo: halo(&seen[0], removed),
        })
    }

    /// Gates that were trained to keep the divergence low while they sum to `softmax`, as FlashMorph (arXiv 2606.30562) trains
    /// them, but by the divergence and under a budget in place of a penalty.
    pub(super) fn trained_gates(&mut self, softmax: usize, steps: usize) -> Result<Vec<f64>, StudyError> {
        let layers = self.gated.layers();
        let mut gates = vec![softmax as f64 / layers as f64; layers];
        let batches: Vec<&[Sequence]> = self.sequences.chunks(self.batch).collect();
        for step in 0..steps {
            let shown = batches[step % batches.len()];
            self.gated.show(shown)?;
            let found = self.gated.gradients(shown, &gates)?;
            let gradient: Vec<f64> =
                found.iter().map(|row| row.iter().sum::<f64>() / row.len() as f64).collect();
            let largest = gradient.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            // The largest change of a gate is a tenth at first and nothing at the end.
            let rate = 0.1 * (1.0 - step as f64 / steps as f64) / largest.max(f64::MIN_POSITIVE);
            let moved: Vec<f64> =
                gates.iter().zip(&gradient).map(|(gate, slope)| gate - rate * slope).collect();
            gates = within_budget(&moved, softmax as f64);
            self.watcher.progress("training gates", step as u64 + 1, steps as u64);
        }
        Ok(gates)
    }
}

impl Scores {
    fn of(layers: &[Vec<f64>]) -> Scores {
        Scores { layers: layers.iter().map(|values| mean(values)).collect() }
    }

    /// Without intervals.
    pub fn means(&self) -> Vec<f64> {
        self.layers.iter().map(|mean| mean.mean).collect()
    }
}

impl Path {
    /// −∂D/∂α of each layer where so large a share of the gates is open as a placement has softmax layers.
    pub fn slice(&self, share: f64) -> Vec<f64> {
        // Points are in falling order of their gates.
        let after = self.points.iter().position(|(gate, _)| *gate <= share).unwrap_or(self.points.len());
        match (after.checked_sub(1), self.points.get(after)) {
            (Some(before), Some((low, _))) => {
                let high = self.points[before].0;
                let part = (high - share) / (high - low);
                let both = self.curve[before].iter().zip(&self.curve[after]);
                both.map(|(a, b)| a + part * (b - a)).collect()
            }
            (None, _) => self.curve[0].clone(),
            (Some(before), None) => self.curve[before].clone(),
        }
    }

    /// The linear layers that the whole path chooses.
    pub(super) fn linear(&self, softmax: usize) -> Vec<usize> {
        highest(&self.scores.means(), softmax)
    }
}

fn mean(values: &[f64]) -> Mean {
    Mean::of(values).unwrap_or(Mean { count: 0, mean: f64::NAN, half_width: None })
}

/// (most R − R of a layer) / (most C − C of the layer), R being right answers where something is asked for and C elsewhere.
fn halo(whole: &[Seen], removed: &[Vec<Seen>]) -> Vec<f64> {
    let recall = |seen: &[Seen]| seen.iter().map(|seen| seen.recall_right).sum::<f64>() / seen.len() as f64;
    let other = |seen: &[Seen]| {
        let found: Vec<f64> = seen.iter().filter_map(|seen| seen.other_right).collect();
        if found.is_empty() { 0.0 } else { found.iter().sum::<f64>() / found.len() as f64 }
    };
    let most = |of: &dyn Fn(&[Seen]) -> f64| removed.iter().map(|seen| of(seen)).fold(of(whole), f64::max);
    let (most_recall, most_other) = (most(&recall), most(&other));
    let score = |seen: &Vec<Seen>| {
        ((most_recall - recall(seen)) / (most_other - other(seen) + LEAST_LOSS)).min(MOST_HALO)
    };
    removed.iter().map(score).collect()
}

/// The nearest gates in 0 to 1 with this sum.
fn within_budget(gates: &[f64], sum: f64) -> Vec<f64> {
    let shifted = |by: f64| gates.iter().map(|gate| (gate + by).clamp(0.0, 1.0)).collect::<Vec<f64>>();
    // The sum grows with the shift: halving finds it.
    let most = gates.iter().fold(0.0f64, |most, gate| most.max(gate.abs())) + 1.0;
    let (mut low, mut high) = (-most, most);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if shifted(middle).iter().sum::<f64>() < sum { low = middle } else { high = middle }
    }
    shifted(high)
}

/// A row for each of some placements, 0 where a layer is linear.
pub(super) fn all_gates(placements: &[Vec<usize>], layers: usize) -> Vec<Vec<f64>> {
    placements.iter().map(|linear| gates(linear, layers)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_stay_within_their_budget() {
        let found = within_budget(&[0.9, 0.5, 2.0, -0.3], 2.0);
        assert!((found.iter().sum::<f64>() - 2.0).abs() < 1e-9);
        assert_eq!((found[2], found[3]), (1.0, 0.0));
        assert!((found[0] - found[1] - 0.4).abs() < 1e-9, "they move together");
        assert_eq!(within_budget(&[0.2, 0.7], 0.0), [0.0, 0.0]);
    }

    #[test]
    fn a_slice_lies_between_its_points() {
        let points = gauss_legendre(2);
        let curve = vec![vec![1.0, 0.0], vec![3.0, 8.0]];
        let (scores, divergence) = (Scores::of(&[]), mean(&[]));
        let path = Path { points, curve, scores, sum: 0.0, divergence };
        assert_eq!(path.slice(1.0), [1.0, 0.0]);
        assert_eq!(path.slice(0.0), [3.0, 8.0]);
        let half = path.slice(0.5);
        assert!((half[0] - 2.0).abs() < 1e-12 && (half[1] - 4.0).abs() < 1e-12);
    }

    #[test]
    fn halo_is_recall_lost_for_each_other_answer_lost() {
        let seen = |recall_right: f64, other: f64| {
            vec![Seen { recall_right, other_right: Some(other), ..Seen::default() }]
        };
        let found = halo(&seen(0.9, 0.5), &[seen(0.5, 0.4), seen(0.9, 0.3), seen(0.2, 0.5)]);
        assert!((found[0] - 0.4 / (0.1 + LEAST_LOSS)).abs() < 1e-9);
        assert_eq!((found[1], found[2]), (0.0, MOST_HALO));
    }
}
