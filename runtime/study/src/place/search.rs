//! Real placements, compared exactly: from the best of some of them, one softmax layer changes places with one linear layer
//! as long as that brings the model nearer to its teacher.
//!
//! All placements see the same sequences and have no noise of their own, so that what counts is the mean of paired differences.
//! After each batch the swaps are dropped that are worse by more than the interval of that mean. A swap goes on from where
//! the run of the placement that it is a swap of had come to at the first of both layers.

use serde::Serialize;

use super::gates;
use super::scores::Work;
use crate::error::StudyError;
use crate::statistics::Mean;

/// A swap that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Swap {
    /// The layer that becomes linear.
    pub to_linear: usize,
    /// The layer that becomes softmax.
    pub to_softmax: usize,
    /// What that changes of the divergence.
    pub difference: Mean,
}

/// How placements were searched.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Search {
    /// Which method the placement is of that it began with.
    pub from: String,
    /// Swaps that were made, in order.
    pub swaps: Vec<Swap>,
    /// Swaps that were tried.
    pub tried: usize,
    /// Batches that they were compared on, all together; without dropping any it were tried times batches.
    pub runs: usize,
    /// Steps of the program that these runs did, of those that whole runs have.
    pub steps_done: f64,
    /// No swap is better any more, by more than the interval of its difference.
    pub is_local_best: bool,
}

/// A swap that is being compared.
struct Candidate {
    to_linear: usize,
    to_softmax: usize,
    gates: Vec<f64>,
    differences: Vec<f64>,
}

impl Candidate {
    fn first(&self) -> usize {
        self.to_linear.min(self.to_softmax)
    }

    fn difference(&self) -> Option<Mean> {
        Mean::of(&self.differences)
    }
}

/// Sequences that must be compared before a swap may be dropped.
const LEAST: usize = 8;

/// Improves a placement, at most `rounds` times; `made` hears of each swap with the placement behind it.
pub(super) fn search(
    work: &mut Work<'_>,
    linear: &mut Vec<usize>,
    rounds: usize,
    search: &mut Search,
    made: &mut dyn FnMut(&Search, &[usize]),
) -> Result<(), StudyError> {
    let mut done = (0usize, 0usize);
    for round in 0..rounds {
        let mut candidates = candidates(linear, work.gated.layers());
        search.tried += candidates.len();
        compare(work, linear, &mut candidates, round, search, &mut done)?;
        search.steps_done = if done.1 == 0 { 1.0 } else { done.0 as f64 / done.1 as f64 };
        let best = candidates
            .into_iter()
            .filter_map(|candidate| candidate.difference().map(|mean| (candidate, mean)))
            .min_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
        let Some((candidate, difference)) = best else { break };
        if difference.mean + difference.half_width.unwrap_or(f64::INFINITY) >= 0.0 {
            search.is_local_best = true;
            break;
        }
        linear.retain(|layer| *layer != candidate.to_softmax);
        linear.push(candidate.to_linear);
        linear.sort_unstable();
        let Candidate { to_linear, to_softmax, .. } = candidate;
        search.swaps.push(Swap { to_linear, to_softmax, difference });
        made(search, linear);
    }
    Ok(())
}

/// All swaps of a placement.
fn candidates(linear: &[usize], layers: usize) -> Vec<Candidate> {
    let softmax: Vec<usize> = (0..layers).filter(|layer| !linear.contains(layer)).collect();
    let swap = |to_linear: usize, to_softmax: usize| {
        let swapped: Vec<usize> =
            linear.iter().copied().filter(|layer| *layer != to_softmax).chain([to_linear]).collect();
        Candidate { to_linear, to_softmax, gates: gates(&swapped, layers), differences: vec![] }
    };
    softmax.iter().flat_map(|out| linear.iter().map(move |inn| swap(*out, *inn))).collect()
}

/// Compares swaps with the placement that they are of, batch by batch; leaves those that may be better.
fn compare(
    work: &mut Work<'_>,
    linear: &[usize],
    candidates: &mut Vec<Candidate>,
    round: usize,
    search: &mut Search,
    done: &mut (usize, usize),
) -> Result<(), StudyError> {
    let base = gates(linear, work.gated.layers());
    let batches = work.sequences.len() / work.batch;
    for (number, shown) in work.sequences.chunks(work.batch).enumerate() {
        if candidates.is_empty() {
            break;
        }
        work.gated.show(shown)?;
        let mut layers: Vec<usize> = candidates.iter().map(Candidate::first).collect();
        layers.sort_unstable();
        layers.dedup();
        let (expected, trail) = work.gated.look_with_trail(shown, &base, &layers)?;
        for candidate in candidates.iter_mut() {
            let found = work.gated.look_from(&trail, candidate.first(), shown, &candidate.gates)?;
            let pairs = found.iter().zip(&expected);
            candidate.differences.extend(pairs.map(|(found, base)| found.recall_kl - base.recall_kl));
            search.runs += 1;
            let (part, whole) = work.gated.steps_from(&trail, candidate.first());
            *done = (done.0 + part, done.1 + whole);
        }
        candidates.retain(|candidate| {
            let Some(Mean { count, mean, half_width }) = candidate.difference() else { return true };
            count < LEAST || half_width.is_none_or(|half| mean - half <= 0.0)
        });
        let what = format!("swaps, round {}", round + 1);
        work.watcher.progress(&what, number as u64 + 1, batches as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swaps_are_all_pairs_and_keep_the_number_of_linear_layers() {
        let found = candidates(&[0, 2], 5);
        let pairs: Vec<(usize, usize)> = found.iter().map(|c| (c.to_linear, c.to_softmax)).collect();
        assert_eq!(pairs, [(1, 0), (1, 2), (3, 0), (3, 2), (4, 0), (4, 2)]);
        assert!(found.iter().all(|candidate| candidate.gates.iter().sum::<f64>() == 3.0));
        assert_eq!(found[3].gates, [0.0, 1.0, 1.0, 0.0, 1.0]);
        assert_eq!(found[3].first(), 2);
        assert!(candidates(&[], 3).is_empty() && candidates(&[0, 1], 2).is_empty());
    }
}
