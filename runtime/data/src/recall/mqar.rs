//! Multi-query associative recall: remember pairs, answer with the value when a key comes again.
//!
//! A sequence shows `n` pairs `k v k v ...` (keys from the lower half of the vocabulary without 0, values
//! from the upper half), then asks for each key once, at distances that follow a power law, and fills the
//! rest with 0 or random tokens. The target at a query is the key's value; all other targets are ignored.
//! Row `i` of a seed is always the same sequence, made without making any other.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;

use crate::rng::{Use, below, distinct, open_unit, stream};
use crate::settings::MqarConfig;
use crate::{Batch, Query};

/// The generator of one part, training or validation.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    config: MqarConfig,
    seq_len: usize,
    seed: u64,
    purpose: Use,
    /// Relative probability of each distance, by number of pairs.
    weights: BTreeMap<usize, Vec<f64>>,
}

impl Generator {
    pub(super) fn new(config: &MqarConfig, seq_len: usize, seed: u64, purpose: Use) -> Self {
        let weights = config.num_kv_pairs.iter().map(|pairs| {
            let space = seq_len.saturating_sub(2 * pairs * config.num_passes) / 2;
            let weight = |i: usize| config.power_a * (i as f64).powf(config.power_a - 1.0);
            (*pairs, (1..=space).map(weight).collect())
        });
        Self { config: config.clone(), seq_len, seed, purpose, weights: weights.collect() }
    }

    /// Writes one sequence into row `row` of a batch.
    pub(super) fn write(&self, index: u64, row: usize, batch: &mut Batch) {
        let mut rng = stream(self.seed, self.purpose, index);
        let choices = &self.config.num_kv_pairs;
        let pairs = choices[(index % choices.len() as u64) as usize];
        let half = (self.config.vocab_size / 2) as u32;
        let values_bound = self.config.vocab_size as u32 - half;
        let keys = distinct(&mut rng, pairs, half - 1);
        let values = distinct(&mut rng, pairs, values_bound);
        let context = 2 * pairs * self.config.num_passes;
        let gaps = self.gaps(pairs, &mut rng);

        let at = row * self.seq_len;
        let tokens = &mut batch.tokens[at..at + self.seq_len];
        if self.config.random_non_queries {
            for token in &mut tokens[context..] {
                *token = below(&mut rng, self.config.vocab_size as u64) as i32;
            }
        }
        for (slot, pair) in tokens[..context].chunks_exact_mut(2).enumerate() {
            pair[0] = 1 + keys[slot % pairs] as i32;
            pair[1] = (half + values[slot % pairs]) as i32;
        }
        for (pair, gap) in gaps.into_iter().enumerate() {
            let position = context + 2 * gap;
            tokens[position] = 1 + keys[pair] as i32;
            batch.targets[at + position] = (half + values[pair]) as i32;
            let shown = context - 2 * (pairs - pair);
            batch.queries.push(Query { position: at + position, pairs, distance: position - shown });
        }
    }

    /// `pairs` different slots after the context, drawn one after the other with the weights' probabilities.
    ///
    /// The slots whose exponential waiting times (with the weights as rates) end first are such a draw.
    fn gaps(&self, pairs: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let weights = self.weights.get(&pairs).map_or(&[][..], Vec::as_slice);
        let mut waits: Vec<(f64, usize)> =
            weights.iter().enumerate().map(|(slot, weight)| (-open_unit(rng).ln() / weight, slot)).collect();
        waits.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        waits.into_iter().take(pairs).map(|(_, slot)| slot).collect()
    }

    pub(super) fn seq_len(&self) -> usize {
        self.seq_len
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn config(&self) -> &MqarConfig {
        &self.config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RecallBatches, RecallValidation};

    fn config(pairs: &[usize]) -> MqarConfig {
        MqarConfig { num_kv_pairs: pairs.to_vec(), vocab_size: 64, ..MqarConfig::default() }
    }

    #[test]
    fn each_query_asks_for_a_pair_that_was_shown() {
        for (passes, random) in [(1, true), (1, false), (2, true)] {
            let config = MqarConfig { num_passes: passes, random_non_queries: random, ..config(&[4, 8]) };
            let mut data = RecallBatches::mqar(&config, 6, 64, 3, true);
            let batch = data.next_batch();
            let labelled = batch.targets.iter().filter(|target| **target >= 0).count();
            assert_eq!(labelled, batch.queries.len());
            let mut counts = BTreeMap::new();
            for query in &batch.queries {
                *counts.entry((query.position / 64, query.pairs)).or_insert(0) += 1;
                let shown = query.position - query.distance;
                assert_eq!(query.position / 64, shown / 64);
                assert!(
                    shown % 64 < 2 * query.pairs * passes && query.position % 64 >= 2 * query.pairs * passes
                );
                assert_eq!(batch.tokens[query.position], batch.tokens[shown]);
                assert_eq!(batch.targets[query.position], batch.tokens[shown + 1]);
                assert!(
                    (1..32).contains(&batch.tokens[shown]) && (32..64).contains(&batch.tokens[shown + 1])
                );
            }
            assert!(counts.iter().all(|((_, pairs), count)| count == pairs), "{counts:?}");
            assert_eq!(counts.len(), 6);
            let row = &batch.tokens[..64];
            let context = 2 * batch.queries[0].pairs * passes;
            let filler = row[context..].iter().enumerate().filter(|(i, _)| batch.targets[context + i] < 0);
            assert_eq!(filler.clone().all(|(_, token)| *token == 0), !random);
            assert!(filler.clone().all(|(_, token)| (0..64).contains(token)));
        }
    }

    #[test]
    fn keys_are_distinct_even_when_all_are_used() {
        let config = MqarConfig { vocab_size: 10, ..config(&[4]) };
        let batch = RecallBatches::mqar(&config, 1, 16, 0, true).next_batch();
        let mut keys: Vec<i32> = batch.tokens[..8].iter().step_by(2).copied().collect();
        keys.sort_unstable();
        assert_eq!(keys, [1, 2, 3, 4]);
        // Four queries in four slots.
        assert_eq!(batch.queries.len(), 4);
        let mut positions: Vec<usize> = batch.queries.iter().map(|query| query.position).collect();
        positions.sort_unstable();
        assert_eq!(positions, [8, 10, 12, 14]);
    }

    #[test]
    fn distances_follow_the_power_law() {
        // With one pair the first slot has the probability of its weight.
        let slots = |power_a: f64| {
            let config = MqarConfig { power_a, ..config(&[1]) };
            let data =
                RecallValidation::mqar(&MqarConfig { num_validation_examples: 4000, ..config }, 4000, 34);
            let batch = data.batch(0);
            batch.queries.iter().filter(|query| query.distance == 2).count() as f64 / 4000.0
        };
        let harmonic: f64 = (1..=16).map(|i| (i as f64).powf(-0.99)).sum();
        assert!((slots(0.01) - 1.0 / harmonic).abs() < 0.03);
        assert!((slots(1.0) - 1.0 / 16.0).abs() < 0.02);
    }

    #[test]
    fn a_restored_run_goes_on_with_the_same_bits() {
        for (examples, shuffle) in [(7, true), (7, false), (0, true)] {
            let config = MqarConfig { num_examples: examples, ..config(&[2, 3]) };
            let fresh = || RecallBatches::mqar(&config, 3, 32, 1, shuffle);
            let mut whole = fresh();
            let states: Vec<_> = (0..8).map(|_| (whole.state(), whole.next_batch())).collect();
            for (state, expected) in &states {
                let mut resumed = fresh();
                resumed.restore(state).expect("same task");
                assert_eq!(&resumed.next_batch(), expected);
            }
            assert_eq!(states[7].0.epoch > 0, examples > 0);
        }
        let state = RecallBatches::mqar(&config(&[2]), 3, 32, 1, true).state();
        assert!(RecallBatches::mqar(&config(&[3]), 3, 32, 1, true).restore(&state).is_err());
    }

    #[test]
    fn training_repeats_after_its_examples_and_validation_is_different() {
        let config = MqarConfig { num_examples: 4, num_validation_examples: 5, ..config(&[4]) };
        let mut data = RecallBatches::mqar(&config, 4, 32, 1, false);
        let first = data.next_batch();
        assert_eq!(first, data.next_batch());
        let validation = RecallValidation::mqar(&config, 4, 32);
        assert_ne!(validation.batch(0).tokens, first.tokens);
        assert_eq!(validation.batches(), 2);
        let last = validation.batch(1);
        assert_eq!(last.queries.len(), 4);
        assert!(last.targets[32..].iter().all(|target| *target == -1));
    }
}
