//! Scorers without a model.

use std::collections::BTreeMap;

use linc_infer::{Best, Scores};

use crate::sample::{Ask, Grade, Sample};
use crate::{EvalError, Scorer, Writing};

/// Knows the right answers of some samples, and nothing else.
pub(super) struct Oracle {
    scores: BTreeMap<Vec<u32>, Scores>,
    texts: BTreeMap<String, String>,
    context: usize,
}

impl Oracle {
    pub(super) fn of(samples: &[Sample], context: usize) -> Self {
        let mut oracle = Oracle { scores: BTreeMap::new(), texts: BTreeMap::new(), context };
        for sample in samples {
            match &sample.ask {
                Ask::Likelihoods(parts) => {
                    let gold = match &sample.grade {
                        Grade::Choice { gold, .. } => Some(*gold),
                        _ => None,
                    };
                    for (at, part) in parts.iter().enumerate() {
                        let right = gold.is_none_or(|gold| gold == at);
                        let scores = sure(&part.ids, right);
                        // One text may be the right one of one question and a wrong one of another.
                        if right || !oracle.scores.contains_key(&part.ids) {
                            oracle.scores.insert(part.ids.clone(), scores);
                        }
                    }
                }
                Ask::Places { ids, answers } => {
                    let mut scores = sure(ids, false);
                    scores.best.push(Best { token: 0, log_prob: 0.0 });
                    answers.iter().for_each(|(at, token)| scores.best[*at].token = *token);
                    oracle.scores.insert(ids.clone(), scores);
                }
                Ask::Write { prompt, .. } => {
                    let text = match &sample.grade {
                        Grade::Strings { expected, .. } => expected.join(", "),
                        Grade::Number(answer) => answer.clone(),
                        Grade::Program { .. } => {
                            sample.doc["canonical_solution"].as_str().expect("a solution").to_owned()
                        }
                        _ => String::new(),
                    };
                    oracle.texts.insert(prompt.clone(), text);
                }
            }
        }
        oracle
    }
}

/// Scores of one that is sure of every token, or of others.
fn sure(ids: &[u32], right: bool) -> Scores {
    let best = |id: &u32| Best { token: if right { *id } else { id + 1 }, log_prob: 0.0 };
    let log_prob = if right { 0.0 } else { -10.0 };
    Scores { log_probs: vec![log_prob; ids.len() - 1], best: ids[1..].iter().map(best).collect() }
}

impl Scorer for Oracle {
    fn vocab(&self) -> usize {
        256
    }

    fn context(&self) -> usize {
        self.context
    }

    fn prepare(&mut self, lengths: &[usize]) -> Result<(), EvalError> {
        assert!(lengths.iter().all(|length| *length <= self.context + 1));
        Ok(())
    }

    fn score(
        &mut self,
        sequences: &[&[u32]],
        each: &mut dyn FnMut(usize, Scores),
    ) -> Result<bool, EvalError> {
        for (index, ids) in sequences.iter().enumerate() {
            each(index, self.scores[*ids].clone());
        }
        Ok(true)
    }

    fn write(
        &mut self,
        prompts: &[Writing<'_>],
        each: &mut dyn FnMut(usize, String),
    ) -> Result<bool, EvalError> {
        prompts.iter().enumerate().for_each(|(index, asked)| each(index, self.texts[asked.prompt].clone()));
        Ok(true)
    }
}

/// Finds all tokens equally likely, but for a hair, which decides between equals by chance.
pub(super) struct Uniform {
    vocab: usize,
    context: usize,
}

impl Uniform {
    pub(super) fn new(vocab: usize, context: usize) -> Self {
        Uniform { vocab, context }
    }
}

impl Scorer for Uniform {
    fn vocab(&self) -> usize {
        self.vocab
    }

    fn context(&self) -> usize {
        self.context
    }

    fn prepare(&mut self, lengths: &[usize]) -> Result<(), EvalError> {
        assert!(lengths.iter().all(|length| *length <= self.context + 1));
        Ok(())
    }

    fn score(
        &mut self,
        sequences: &[&[u32]],
        each: &mut dyn FnMut(usize, Scores),
    ) -> Result<bool, EvalError> {
        for (index, ids) in sequences.iter().enumerate() {
            let mut scores = Scores::default();
            // FNV-1a, with its bits mixed once more, since it ends in a product.
            let mut state = 0xcbf2_9ce4_8422_2325_u64;
            for (at, id) in ids.iter().enumerate() {
                state = (state ^ u64::from(*id)).wrapping_mul(0x100_0000_01b3);
                let mut mixed = state ^ (state >> 32);
                mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed ^= mixed >> 29;
                let hair = (mixed >> 40) as f32 / (1 << 24) as f32 * 1e-3;
                let log_prob = -(self.vocab as f32).ln() + hair;
                if at > 0 {
                    scores.log_probs.push(log_prob);
                }
                let token = (mixed % self.vocab as u64) as u32;
                scores.best.push(Best { token, log_prob });
            }
            each(index, scores);
        }
        Ok(true)
    }

    fn write(
        &mut self,
        prompts: &[Writing<'_>],
        each: &mut dyn FnMut(usize, String),
    ) -> Result<bool, EvalError> {
        (0..prompts.len()).for_each(|index| each(index, String::new()));
        Ok(true)
    }
}

/// Another scorer, whom somebody asks to end after so many sequences.
pub(super) struct Ended {
    left: usize,
    inner: Uniform,
}

impl Ended {
    pub(super) fn after(sequences: usize, inner: Uniform) -> Self {
        Ended { left: sequences, inner }
    }
}

impl Scorer for Ended {
    fn vocab(&self) -> usize {
        self.inner.vocab()
    }

    fn context(&self) -> usize {
        self.inner.context()
    }

    fn prepare(&mut self, lengths: &[usize]) -> Result<(), EvalError> {
        self.inner.prepare(lengths)
    }

    fn score(
        &mut self,
        sequences: &[&[u32]],
        each: &mut dyn FnMut(usize, Scores),
    ) -> Result<bool, EvalError> {
        let now = sequences.len().min(self.left);
        self.left -= now;
        self.inner.score(&sequences[..now], each)?;
        Ok(now == sequences.len())
    }

    fn write(
        &mut self,
        prompts: &[Writing<'_>],
        each: &mut dyn FnMut(usize, String),
    ) -> Result<bool, EvalError> {
        self.inner.write(prompts, each)
    }
}

/// Another scorer, who gives some tokens no probability at all.
pub(super) struct Never {
    pub(super) tokens: Vec<u32>,
    pub(super) inner: Uniform,
}

impl Scorer for Never {
    fn vocab(&self) -> usize {
        self.inner.vocab()
    }

    fn context(&self) -> usize {
        self.inner.context()
    }

    fn prepare(&mut self, lengths: &[usize]) -> Result<(), EvalError> {
        self.inner.prepare(lengths)
    }

    fn score(
        &mut self,
        sequences: &[&[u32]],
        each: &mut dyn FnMut(usize, Scores),
    ) -> Result<bool, EvalError> {
        self.inner.score(sequences, &mut |index, mut scores| {
            for (log_prob, id) in scores.log_probs.iter_mut().zip(&sequences[index][1..]) {
                if self.tokens.contains(id) {
                    *log_prob = f32::NEG_INFINITY;
                }
            }
            each(index, scores);
        })
    }

    fn write(
        &mut self,
        prompts: &[Writing<'_>],
        each: &mut dyn FnMut(usize, String),
    ) -> Result<bool, EvalError> {
        self.inner.write(prompts, each)
    }
}
