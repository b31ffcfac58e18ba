//! The next token from a row of logits: greedy or drawn, and how likely it was.

use std::collections::BTreeSet;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::error::InferError;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only this many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 for all.
    pub top_p: f64,
    /// Only tokens with at least this share of the most likely one's probability; 0 for all.
    pub min_p: f64,
    /// Divides positive logits, and multiplies negative ones, of tokens that the text has already (arXiv 1909.05858); 1 for
    /// none. From 0.01 to 100: logits are `f32`, whose range others leave.
    pub repetition_penalty: f64,
    /// Seed of the draw.
    pub seed: u64,
}

/// What the model says, unchanged.
impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// A number of [`Sampling`] that is out of range.
#[derive(Clone, Debug, PartialEq)]
pub struct OutOfRange {
    /// Its name, with underscores.
    pub name: &'static str,
    /// The number as it was given.
    pub value: f64,
    /// What it may be.
    pub expected: &'static str,
    /// What numbers mean.
    pub help: &'static str,
}

impl Sampling {
    /// The first number that is out of range.
    pub fn out_of_range(&self) -> Option<OutOfRange> {
        let Sampling { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        let rules = [
            (
                temperature.is_finite() && temperature >= 0.0,
                OutOfRange {
                    name: "temperature",
                    value: temperature,
                    expected: "a number of at least 0",
                    help: "0 takes the most likely token each time, 1 samples as the model says",
                },
            ),
            (
                top_p > 0.0 && top_p <= 1.0,
                OutOfRange {
                    name: "top_p",
                    value: top_p,
                    expected: "a share above 0, up to 1",
                    help: "1 samples from all tokens",
                },
            ),
            (
                (0.0..=1.0).contains(&min_p),
                OutOfRange {
                    name: "min_p",
                    value: min_p,
                    expected: "a share from 0 to 1",
                    help: "0 samples from all tokens, 1 from the most likely ones",
                },
            ),
            (
                (0.01..=100.0).contains(&repetition_penalty),
                OutOfRange {
                    name: "repetition_penalty",
                    value: repetition_penalty,
                    expected: "a number from 0.01 to 100",
                    help: "1 is none, 1.1 to 1.3 is usual",
                },
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InferError::Request`], with the names of the command line.
    pub fn check(&self) -> Result<(), InferError> {
        let Some(OutOfRange { name, value, expected, help }) = self.out_of_range() else { return Ok(()) };
        let option = name.replace('_', "-");
        Err(InferError::request(format!("--{option} is {value}; expected {expected}"), help))
    }

    /// Draws a token from a row of logits, behind a text of the tokens `so_far`.
    pub(crate) fn choose(&self, logits: &[f32], so_far: &[u32], rng: &mut ChaCha8Rng) -> u32 {
        if self.repetition_penalty == 1.0 {
            return self.draw(logits, rng);
        }
        let mut logits = logits.to_vec();
        for id in so_far.iter().collect::<BTreeSet<&u32>>() {
            let Some(logit) = logits.get_mut(*id as usize) else { continue };
            let penalty = self.repetition_penalty as f32;
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        self.draw(&logits, rng)
    }

    fn draw(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> u32 {
        if self.temperature <= 0.0 {
            return most_likely(logits, 1).first().copied().unwrap_or(0);
        }
        // Vocabularies are large and few tokens are drawn from: the others need no order.
        let count = if self.top_k > 0 { self.top_k } else { logits.len() };
        let order = most_likely(logits, count);
        let logit = |i: &u32| f64::from(logits[*i as usize]);
        let best = order.first().map_or(0.0, logit);
        let mut weights: Vec<f64> =
            order.iter().map(|i| ((logit(i) - best) / self.temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let within = weights.iter().position(|w| {
            kept += w / total;
            kept >= self.top_p
        });
        weights.truncate(within.map_or(weights.len(), |i| i + 1));
        // The most likely token weighs 1.
        weights.truncate(weights.partition_point(|w| *w >= self.min_p).max(1));
        let mut point = rng.random::<f64>() * weights.iter().sum::<f64>();
        for (id, weight) in order.iter().zip(&weights) {
            point -= weight;
            if point <= 0.0 {
                return *id;
            }
        }
        order.get(weights.len().saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// The `count` most likely tokens, in order; of equally likely ones the smallest ids.
fn most_likely(logits: &[f32], count: usize) -> Vec<u32> {
    let logit = |i: &u32| logits[*i as usize];
    let by_likelihood = |a: &u32, b: &u32| logit(b).total_cmp(&logit(a)).then(a.cmp(b));
    if count == 1 {
        return (0..logits.len() as u32).min_by(by_likelihood).into_iter().collect();
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    if count < order.len() {
        order.select_nth_unstable_by(count, by_likelihood);
        order.truncate(count);
    }
    order.sort_unstable_by(by_likelihood);
    order
}

/// How likely a model found a token, whatever way it was chosen in: natural logarithms of probabilities by the model's own
/// logits, before temperature and penalty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenScore {
    /// Of the token.
    pub log_prob: f32,
    /// The most likely tokens at its place, in order, and theirs.
    pub top: Vec<(u32, f32)>,
}

impl TokenScore {
    /// The score of a token in a row of logits, with the `count` most likely ones.
    pub(crate) fn of(logits: &[f32], token: u32, count: usize) -> Self {
        let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|x| (f64::from(*x) - top).exp()).sum();
        let log_prob = |id: u32| (f64::from(logits[id as usize]) - top - sum.ln()) as f32;
        let best = if count > 0 { most_likely(logits, count) } else { vec![] };
        TokenScore { log_prob: log_prob(token), top: best.into_iter().map(|id| (id, log_prob(id))).collect() }
    }
}

/// A row of logits to draw from, after so many tokens: none is NaN or too large, and one at least is a number.
pub(crate) fn check(logits: &[f32], tokens: usize) -> Result<(), InferError> {
    let is_bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    let all_masked = || logits.iter().all(|logit| *logit == f32::NEG_INFINITY);
    match logits.iter().find(|logit| is_bad(logit)) {
        Some(logit) => Err(InferError::LogitsNotFinite { tokens, logit: *logit }),
        None if all_masked() => Err(InferError::LogitsNotFinite { tokens, logit: f32::NEG_INFINITY }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, -5.0];

    fn draw(sampling: Sampling) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        (0..2000).map(|_| sampling.choose(&LOGITS, &[], &mut rng)).collect()
    }

    #[test]
    fn greedy_takes_the_best() {
        assert!(draw(Sampling { temperature: 0.0, ..Sampling::default() }).iter().all(|i| *i == 1));
    }

    #[test]
    fn sampling_follows_the_softmax() {
        let draws = draw(Sampling::default());
        let share = draws.iter().filter(|i| **i == 1).count() as f64 / draws.len() as f64;
        let expected = 2f64.exp() / (1.0 + 2f64.exp() + 1f64.exp() + (-5f64).exp());
        assert!((share - expected).abs() < 0.04, "{share} vs {expected}");
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let error = check(&[0.0, bad], 7).expect_err("refused").to_string();
            assert!(error.contains("after 7 tokens") && error.contains(&bad.to_string()), "{error}");
        }
        assert!(check(&[f32::NEG_INFINITY; 2], 1).is_err());
        assert!(check(&[f32::NEG_INFINITY, 0.0], 1).is_ok(), "a masked token is just never drawn");
    }

    #[test]
    fn top_k_top_p_and_min_p_cut_the_tail() {
        let all = Sampling::default();
        assert!(draw(Sampling { top_k: 2, ..all }).iter().all(|i| [1, 2].contains(i)));
        assert!(draw(Sampling { top_p: 0.5, ..all }).iter().all(|i| *i == 1));
        // The second token has e⁻¹ = 0.37 of the best one's probability, the third 0.14.
        assert!(draw(Sampling { min_p: 0.3, ..all }).iter().all(|i| [1, 2].contains(i)));
        assert!(draw(Sampling { min_p: 0.3, ..all }).contains(&2));
        assert!(draw(Sampling { min_p: 1.0, ..all }).iter().all(|i| *i == 1));
    }

    #[test]
    fn a_penalty_moves_what_was_said_towards_the_end() {
        let greedy = Sampling { temperature: 0.0, repetition_penalty: 2.5, ..Sampling::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(greedy.choose(&LOGITS, &[3], &mut rng), 1);
        // 2 / 2.5 is below 1, and saying it twice makes it no less.
        assert_eq!(greedy.choose(&LOGITS, &[1, 1], &mut rng), 2);
        assert_eq!(greedy.choose(&[-1.0, -2.0], &[0], &mut rng), 1);
    }

    #[test]
    fn scores_are_those_of_the_softmax() {
        let score = TokenScore::of(&LOGITS, 2, 2);
        let total: f64 = LOGITS.iter().map(|x| f64::from(*x).exp()).sum();
        assert!((f64::from(score.log_prob) - (1.0 - total.ln())).abs() < 1e-6);
        assert_eq!(score.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(score.top[1].1, score.log_prob);
    }

    #[test]
    fn ranges_are_checked() {
        let all = Sampling::default();
        assert_eq!(all.out_of_range(), None);
        for (wrong, name) in [
            (Sampling { temperature: f64::NAN, ..all }, "--temperature is NaN"),
            (Sampling { temperature: -1.0, ..all }, "--temperature is -1"),
            (Sampling { top_p: 0.0, ..all }, "--top-p is 0"),
            (Sampling { min_p: 1.5, ..all }, "--min-p is 1.5"),
            (Sampling { repetition_penalty: 0.0, ..all }, "--repetition-penalty is 0"),
            // Above 0, and 0 or infinite as an `f32`: the logits of what was said would be no numbers.
            (Sampling { repetition_penalty: 1e-300, ..all }, "--repetition-penalty is 0.000"),
            (Sampling { repetition_penalty: 1e300, ..all }, "--repetition-penalty is 1000"),
        ] {
            let error = wrong.check().expect_err("refused").to_string();
            assert!(error.contains(name) && error.contains("help: "), "{error}");
        }
    }
}
