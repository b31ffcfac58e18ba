//! One head: what it attends to, from its weights, a few rows at a time.

use linc_driver::{HeadWeights, effective_count};

use super::rank::effective_rank;

/// Rows that are computed together.
const BLOCK: usize = 64;
/// Rows that stand for all where a number takes the square of their count.
const SAMPLED: usize = 128;

/// How a head is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lens {
    /// Tokens that there are: rows and columns beyond them are padding.
    pub(super) tokens: usize,
    /// A key farther away than this is far.
    pub(super) beyond: usize,
    /// Cells of a side of the map; nothing to make none.
    pub(super) cells: Option<usize>,
}

/// Values and results of a head, `[n, d]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Through<'a> {
    pub(super) values: &'a [f32],
    pub(super) output: &'a [f32],
    pub(super) head_dim: usize,
}

/// Means over the queries of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    /// `-Σ a ln a`, nats.
    pub(super) entropy: f64,
    /// `Σ a |t - s|`, tokens.
    pub(super) distance: f64,
    /// Weight of keys farther away than asked for.
    pub(super) beyond: f64,
    /// Weight of the first token.
    pub(super) first: f64,
    /// Weight of the token before, over the queries that have one.
    pub(super) previous: f64,
    /// `1 / Σ a²`.
    pub(super) positions: f64,
    /// `1 / Σ p²` over the features of a query, of kinds that weigh features.
    pub(super) features: Option<f64>,
    /// Exponential of the entropy of the singular values' shares, of at most 128 rows.
    pub(super) rank: f64,
    /// Largest difference between `A v` and what the program gave, as a share of the largest number that it gave.
    pub(super) error: f64,
    /// Largest difference between the sum of a row and 1.
    pub(super) sum_error: f64,
}

/// The weights of a head in cells, each the mean over its queries of the weight of its keys: rows sum to 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cells {
    /// Cells of a side.
    pub(super) side: usize,
    /// `[side, side]`
    pub(super) weights: Vec<f64>,
}

/// Where in a map a token is, from 0.
pub(super) fn cell_of(token: usize, tokens: usize, side: usize) -> usize {
    (token * side / tokens.max(1)).min(side.saturating_sub(1))
}

/// What a head does with a sequence.
pub(super) fn numbers(head: &dyn HeadWeights, through: Through<'_>, lens: Lens) -> (Numbers, Option<Cells>) {
    let n = through.values.len() / through.head_dim;
    let tokens = lens.tokens.min(n);
    let side = lens.cells.unwrap_or(0).min(tokens);
    let mut sums = Numbers::default();
    let mut features = 0.0;
    let mut has_features = false;
    let mut cells = vec![0.0; side * side];
    let mut sampled: Vec<f64> = vec![];
    let samples = SAMPLED.min(tokens);
    let largest = through.output.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs()))).max(1e-30);
    let mut block = vec![];
    for start in (0..tokens).step_by(BLOCK) {
        let rows = start..tokens.min(start + BLOCK);
        block.clear();
        block.resize(rows.len() * n, 0.0);
        head.rows(rows.clone(), &mut block);
        for (t, row) in rows.zip(block.chunks_exact(n)) {
            let row = &row[..tokens];
            let mut total = 0.0;
            for (s, weight) in row.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                let distance = t.abs_diff(s);
                total += weight;
                sums.entropy -= weight * weight.ln();
                sums.distance += weight * distance as f64;
                if distance > lens.beyond {
                    sums.beyond += weight;
                }
            }
            sums.sum_error = sums.sum_error.max((total - 1.0).abs());
            sums.positions += effective_count(row);
            sums.first += row[0];
            sums.previous += t.checked_sub(1).map_or(0.0, |before| row[before]);
            if let Some(shares) = head.features(t) {
                has_features = true;
                features += effective_count(shares);
            }
            if side > 0 {
                let cells = &mut cells[cell_of(t, tokens, side) * side..][..side];
                row.iter().enumerate().for_each(|(s, weight)| cells[cell_of(s, tokens, side)] += weight);
            }
            // Every so many rows, the last one among them.
            if (t + 1) * samples / tokens > t * samples / tokens {
                sampled.extend_from_slice(row);
                sums.error = sums.error.max(through.difference(row, t) / largest);
            }
        }
    }
    let count = tokens.max(1) as f64;
    let mut per_row = vec![0.0; side];
    (0..if side > 0 { tokens } else { 0 }).for_each(|t| per_row[cell_of(t, tokens, side)] += 1.0);
    for (row, count) in cells.chunks_exact_mut(side.max(1)).zip(&per_row) {
        row.iter_mut().for_each(|cell| *cell /= f64::max(*count, 1.0));
    }
    let numbers = Numbers {
        entropy: sums.entropy / count,
        distance: sums.distance / count,
        beyond: sums.beyond / count,
        first: sums.first / count,
        previous: sums.previous / (count - 1.0).max(1.0),
        positions: sums.positions / count,
        features: has_features.then_some(features / count),
        rank: effective_rank(&sampled, tokens.max(1)),
        ..sums
    };
    (numbers, (side > 0).then_some(Cells { side, weights: cells }))
}

impl Through<'_> {
    /// How far `Σ a_s v_s` is from what the program gave the query `t`.
    fn difference(&self, row: &[f64], t: usize) -> f64 {
        let d = self.head_dim;
        let mut sum = vec![0.0; d];
        for (weight, value) in
            row.iter().zip(self.values.chunks_exact(d)).filter(|(weight, _)| **weight > 0.0)
        {
            sum.iter_mut().zip(value).for_each(|(sum, v)| *sum += weight * f64::from(*v));
        }
        let given = &self.output[t * d..][..d];
        sum.iter().zip(given).fold(0.0, |most: f64, (sum, given)| most.max((sum - f64::from(*given)).abs()))
    }
}

/// Of a sequence whose second half repeats the first of `period` tokens: the mean weight that a query of the second half gives
/// to the token behind its own first occurrence, and to that occurrence.
pub(super) fn repeated(head: &dyn HeadWeights, n: usize, period: usize) -> [f64; 2] {
    let mut scores = [0.0; 2];
    let queries = period..(2 * period).saturating_sub(1);
    let count = queries.len().max(1) as f64;
    let mut block = vec![];
    for start in queries.clone().step_by(BLOCK) {
        let rows = start..queries.end.min(start + BLOCK);
        block.clear();
        block.resize(rows.len() * n, 0.0);
        head.rows(rows.clone(), &mut block);
        for (t, row) in rows.zip(block.chunks_exact(n)) {
            scores[0] += row[t - period + 1] / count;
            scores[1] += row[t - period] / count;
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// Each query takes half of itself and half of the token `back` before it, or all of itself.
    struct Back {
        n: usize,
        back: usize,
    }

    impl HeadWeights for Back {
        fn rows(&self, rows: Range<usize>, out: &mut [f64]) {
            out.fill(0.0);
            for (t, row) in rows.zip(out.chunks_exact_mut(self.n)) {
                row[t] += 0.5;
                row[t.checked_sub(self.back).unwrap_or(t)] += 0.5;
            }
        }

        fn features(&self, _: usize) -> Option<&[f64]> {
            Some(&[0.5, 0.5, 0.0, 0.0])
        }

        fn chunks_within(&self, _: f64, _: f64) -> Option<[usize; 2]> {
            None
        }
    }

    #[test]
    fn numbers_of_weights_that_are_known() {
        let (n, back) = (100, 10);
        let head = Back { n, back };
        let values: Vec<f32> = (0..n).map(|t| t as f32).collect();
        let output: Vec<f32> = (0..n).map(|t| if t < back { t as f32 } else { t as f32 - 5.0 }).collect();
        let through = Through { values: &values, output: &output, head_dim: 1 };
        let lens = Lens { tokens: n, beyond: 9, cells: Some(10) };
        let (found, cells) = numbers(&head, through, lens);
        let close = |x: f64, y: f64| assert!((x - y).abs() < 1e-9, "{x} {y}");
        close(found.entropy, 0.9 * 2_f64.ln());
        close(found.distance, 0.9 * 5.0);
        close(found.beyond, 0.9 * 0.5);
        close(found.positions, 0.9 * 2.0 + 0.1);
        close(found.features.expect("features"), 2.0);
        close(found.previous, 0.0);
        // The first ten rows are ones of the unit matrix, and of the others the first takes half of token 0.
        close(found.first, (1.0 + 0.5) / 100.0);
        close(found.error, 0.0);
        close(found.sum_error, 0.0);
        assert!(found.rank > 80.0 && found.rank <= 100.0, "{}", found.rank);
        let cells = cells.expect("a map");
        for (i, row) in cells.weights.chunks_exact(cells.side).enumerate() {
            close(row.iter().sum(), 1.0);
            close(row[i], if i == 0 { 1.0 } else { 0.5 });
        }
        // Ten tokens repeated: what is ten back is the occurrence before, nothing is behind it.
        assert_eq!(repeated(&head, n, 10).map(|score| (1e9 * score).round() / 1e9), [0.0, 0.5]);
        assert_eq!(
            repeated(&Back { n, back: 9 }, n, 10).map(|score| (1e9 * score).round() / 1e9),
            [0.5, 0.0]
        );
    }

    #[test]
    fn what_the_program_did_otherwise_is_seen() {
        let head = Back { n: 4, back: 1 };
        let through = Through { values: &[1.0, 2.0, 3.0, 4.0], output: &[1.0, 1.5, 2.5, 3.0], head_dim: 1 };
        let (found, _) = numbers(&head, through, Lens { tokens: 4, beyond: 1, cells: None });
        assert!((found.error - 0.5 / 3.0).abs() < 1e-9, "{}", found.error);
    }
}
