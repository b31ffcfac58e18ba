//! Accuracy of recall: overall, by number of pairs and by distance.

use std::collections::BTreeMap;

use super::Batch;

/// Right answers out of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Queries answered with the right value.
    pub right: u64,
    /// Queries.
    pub total: u64,
}

impl Score {
    /// Share of right answers, 0 to 1; 0 without queries.
    pub fn accuracy(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.right as f64 / self.total as f64 }
    }

    fn add(&mut self, right: bool) {
        self.right += u64::from(right);
        self.total += 1;
    }
}

/// Collects answers over batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecallAccuracy {
    /// All queries.
    pub overall: Score,
    /// By the number of pairs in the sequence.
    pub by_pairs: BTreeMap<usize, Score>,
    /// By the distance between a pair and its query; the key is the distance rounded up to a power of two.
    pub by_distance: BTreeMap<usize, Score>,
}

impl RecallAccuracy {
    /// Adds a batch; `predicted` gives the most likely token at a position of the flattened `[B * N]` batch.
    pub fn add(&mut self, batch: &Batch, predicted: impl Fn(usize) -> i32) {
        for query in &batch.queries {
            let right = batch.targets.get(query.position) == Some(&predicted(query.position));
            self.overall.add(right);
            self.by_pairs.entry(query.pairs).or_default().add(right);
            self.by_distance.entry(query.distance.next_power_of_two()).or_default().add(right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Query;

    #[test]
    fn answers_are_counted_by_kind() {
        let mut batch = Batch::ignored(1, 8);
        batch.targets[4] = 7;
        batch.targets[6] = 9;
        batch.queries =
            vec![Query { position: 4, pairs: 2, distance: 4 }, Query { position: 6, pairs: 2, distance: 5 }];
        let mut accuracy = RecallAccuracy::default();
        accuracy.add(&batch, |position| if position == 4 { 7 } else { 0 });
        assert_eq!(accuracy.overall, Score { right: 1, total: 2 });
        assert_eq!(accuracy.by_distance[&4].accuracy(), 1.0);
        assert_eq!(accuracy.by_distance[&8].accuracy(), 0.0);
        assert_eq!(accuracy.by_pairs[&2].accuracy(), 0.5);
        assert_eq!(Score::default().accuracy(), 0.0);
    }
}
