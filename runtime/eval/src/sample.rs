//! One question of a task: what is asked of the model, and how the answer is graded.

use linc_infer::{Sampling, Scores};
use serde_json::{Value, json};

use crate::numbers;
use crate::tasks::humaneval;

/// A sequence of tokens, of which those from some place on count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Context and continuation.
    pub ids: Vec<u32>,
    /// Number of the first token that counts, at least 1.
    pub from: usize,
    /// Tokens at the beginning that there was no room for.
    pub cut: usize,
}

/// What is asked of the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// How likely each of these is.
    Likelihoods(Vec<Continuation>),
    /// Which token comes after those at some places of a sequence.
    Places {
        /// The sequence.
        ids: Vec<u32>,
        /// Places, and the right token after each.
        answers: Vec<(usize, u32)>,
    },
    /// What it writes.
    Write {
        /// The text to continue.
        prompt: String,
        /// Tokens at most.
        tokens: usize,
        /// Texts that end it.
        stop: Vec<String>,
        /// How tokens are chosen, once for each text that is wanted.
        draws: Vec<Sampling>,
    },
}

/// The most likely token each time.
pub(crate) const GREEDY: Sampling =
    Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };

/// How an answer is graded.
#[derive(Clone, Debug, PartialEq)]
pub enum Grade {
    /// The most likely of several is to be the right one; by characters as well.
    Choice {
        /// The right one.
        gold: usize,
        /// How many characters each has, without the blank before it.
        characters: Vec<usize>,
    },
    /// The one continuation is to be the most likely token by token.
    Greedy,
    /// A part of a text: its loss, in several units and by place.
    Text {
        /// Words of the document that these tokens stand for.
        words: f64,
        /// Bytes likewise.
        bytes: f64,
        /// Whether each token is the second of a pair that occurred before in the context.
        hits: Vec<bool>,
    },
    /// The right tokens are to be the most likely ones.
    Places,
    /// The text is to have these in it, whatever the case of their letters.
    Strings {
        /// Pieces of text, all of which count alike.
        expected: Vec<String>,
        /// One of them is enough.
        any: bool,
    },
    /// The text is to end in a number, as worked answers of GSM8K do.
    Number(String),
    /// Likelihoods are to be those that somebody else found, with whether each was the most likely.
    Logged {
        /// Natural logarithms, and greediness, where they are known.
        known: Vec<Option<(f64, bool)>>,
        /// The right one, where it is a choice.
        choice: Option<(usize, Vec<usize>)>,
    },
    /// The text is to be a part of a program in Python that runs to its end, if programs are run at all.
    Program {
        /// The program up to it.
        before: String,
        /// What checks it: tests, and the call that runs them.
        after: String,
    },
    /// The likelihood of a whole text, in windows, is to be the one that somebody else found, if that is known.
    Rolling(Option<f64>),
    /// What is written is the result, and is to be what somebody else had written, if that is known.
    Written(Option<String>),
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names it within its task.
    pub id: String,
    /// A part of the task, such as a subject or a length; empty if it has none.
    pub group: String,
    /// The texts or numbers that it is made of, for the record and its hash.
    pub doc: Value,
    /// Sequences to score, or a prompt to continue.
    pub ask: Ask,
    /// How the answer is graded.
    pub grade: Grade,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Scores of the sequences.
    Scores(Vec<Scores>),
    /// What the model wrote behind the prompt, without it, of each draw.
    Texts(Vec<String>),
}

/// A part of a measure: it is the sum of all `sum` over the sum of all `weight`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// By which parts of other samples add up with it, such as `acc`.
    pub name: String,
    /// What adds up.
    pub sum: f64,
    /// What it is shared by.
    pub weight: f64,
}

fn metric(name: impl Into<String>, sum: f64, weight: f64) -> Metric {
    Metric { name: name.into(), sum, weight }
}

fn share(name: &str, right: bool) -> Metric {
    metric(name, f64::from(u8::from(right)), 1.0)
}

/// How likely a continuation is.
struct Likelihood {
    log: f64,
    greedy: bool,
}

impl Likelihood {
    fn of(part: &Continuation, scores: &Scores) -> Self {
        // A text without tokens is certain.
        let counted = scores.log_probs.iter().skip(part.from - 1);
        let log = counted.map(|x| f64::from(*x)).sum();
        let greedy = (part.from..part.ids.len()).all(|at| scores.is_best(at, part.ids[at]));
        Self { log, greedy }
    }
}

impl Sample {
    /// The sequences that are to be scored.
    pub fn sequences(&self) -> Vec<&[u32]> {
        match &self.ask {
            Ask::Likelihoods(parts) => parts.iter().map(|part| part.ids.as_slice()).collect(),
            Ask::Places { ids, .. } => vec![ids],
            Ask::Write { .. } => vec![],
        }
    }

    /// Whether the context had no room for the beginning of what is asked.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(&self.ask, Ask::Likelihoods(parts) if parts.iter().any(|part| part.cut > 0))
    }

    /// Whether it has a text written.
    pub(crate) fn is_written(&self) -> bool {
        matches!(self.ask, Ask::Write { .. })
    }

    /// The measures of an answer, and the answer for the record.
    pub fn graded(&self, answer: &Answer) -> (Vec<Metric>, Value) {
        match (&self.ask, answer) {
            (Ask::Likelihoods(parts), Answer::Scores(scores)) => {
                let found: Vec<Likelihood> =
                    parts.iter().zip(scores).map(|(part, scores)| Likelihood::of(part, scores)).collect();
                let metrics = match &self.grade {
                    Grade::Text { words, bytes, hits } => text(&parts[0], &scores[0], *words, *bytes, hits),
                    _ => self.likelihoods(&found),
                };
                let logs: Vec<Value> = found.iter().map(|one| numbers::value(one.log)).collect();
                let greedy: Vec<bool> = found.iter().map(|one| one.greedy).collect();
                let cut: usize = parts.iter().map(|part| part.cut).sum();
                let mut record = json!({ "log_likelihoods": logs, "greedy": greedy });
                if cut > 0 {
                    record["tokens_cut"] = json!(cut);
                }
                (metrics, record)
            }
            (Ask::Places { answers, .. }, Answer::Scores(scores)) => {
                let best = |at: usize| scores[0].best.get(at).map(|best| best.token);
                let right = answers.iter().filter(|(at, token)| best(*at) == Some(*token)).count();
                let found: Vec<Option<u32>> = answers.iter().map(|(at, _)| best(*at)).collect();
                let metrics = vec![
                    metric("acc", right as f64, answers.len() as f64),
                    share("all_right", right == answers.len()),
                ];
                (metrics, json!({ "tokens": found }))
            }
            (Ask::Write { .. }, Answer::Texts(texts)) => match (&self.grade, &texts[..]) {
                (Grade::Program { .. }, _) => (vec![], humaneval::recorded(texts, None)),
                (_, [text]) => (self.text(text), json!({ "text": text })),
                _ => (vec![], json!({ "texts": texts })),
            },
            _ => (vec![], Value::Null),
        }
    }

    fn likelihoods(&self, found: &[Likelihood]) -> Vec<Metric> {
        let choice = |gold: usize, characters: &[usize]| {
            let by = |value: &dyn Fn(usize) -> f64| argmax(found.len(), value) == gold;
            vec![
                share("acc", by(&|i| found[i].log)),
                share("acc_norm", by(&|i| found[i].log / characters[i].max(1) as f64)),
            ]
        };
        match &self.grade {
            Grade::Choice { gold, characters } => choice(*gold, characters),
            Grade::Greedy => {
                vec![share("acc", found[0].greedy), metric("perplexity", -found[0].log, 1.0)]
            }
            Grade::Logged { known, choice: gold } => {
                let mut metrics: Vec<Metric> =
                    found.iter().map(|one| metric("log_likelihood", one.log, 1.0)).collect();
                for (one, (log, greedy)) in found.iter().zip(known).filter_map(|(a, b)| Some((a, (*b)?))) {
                    metrics.push(metric("difference", difference(one.log, log), 1.0));
                    metrics.push(share("same_greedy", one.greedy == greedy));
                }
                if let Some((gold, characters)) = gold {
                    metrics.extend(choice(*gold, characters));
                }
                merged(metrics)
            }
            Grade::Rolling(known) => {
                let log: f64 = found.iter().map(|one| one.log).sum();
                let mut metrics = vec![metric("log_likelihood", log, 1.0)];
                metrics.extend(known.map(|known| metric("difference", difference(log, known), 1.0)));
                metrics
            }
            Grade::Text { .. }
            | Grade::Places
            | Grade::Strings { .. }
            | Grade::Number(_)
            | Grade::Program { .. }
            | Grade::Written(_) => vec![],
        }
    }

    fn text(&self, text: &str) -> Vec<Metric> {
        match &self.grade {
            Grade::Strings { expected, any } => {
                let text = text.to_lowercase();
                let found = expected.iter().filter(|word| text.contains(&word.to_lowercase())).count();
                let score = match any {
                    true => f64::from(u8::from(found > 0)),
                    false => found as f64 / expected.len().max(1) as f64,
                };
                vec![metric("score", score, 1.0)]
            }
            Grade::Number(expected) => crate::tasks::gsm8k::graded(expected, text),
            Grade::Written(known) => {
                known.iter().map(|known| share("same_text", text.trim() == known.trim())).collect()
            }
            Grade::Choice { .. }
            | Grade::Greedy
            | Grade::Text { .. }
            | Grade::Places
            | Grade::Logged { .. }
            | Grade::Rolling(_)
            | Grade::Program { .. } => vec![],
        }
    }
}

/// How far two log-likelihoods are from one another. Two that find a text impossible agree.
fn difference(found: f64, known: f64) -> f64 {
    if found == known { 0.0 } else { (found - known).abs() }
}

/// Adds up what has one name.
fn merged(metrics: Vec<Metric>) -> Vec<Metric> {
    let mut all: Vec<Metric> = vec![];
    for metric in metrics {
        match all.iter_mut().find(|known| known.name == metric.name) {
            Some(known) => {
                known.sum += metric.sum;
                known.weight += metric.weight;
            }
            None => all.push(metric),
        }
    }
    all
}

/// The first of the largest.
fn argmax(count: usize, value: &dyn Fn(usize) -> f64) -> usize {
    (1..count).fold(0, |best, i| if value(i) > value(best) { i } else { best })
}

/// Loss of a part of a text: in units, by whether a token follows from a pair seen before, and by place.
fn text(part: &Continuation, scores: &Scores, words: f64, bytes: f64, hits: &[bool]) -> Vec<Metric> {
    let mut metrics = vec![];
    let (mut nats, mut by_hit) = (0.0, [(0.0, 0.0); 2]);
    let mut by_place: Vec<(usize, f64, f64)> = vec![];
    for (at, hit) in (part.from..part.ids.len()).zip(hits) {
        let nll = -f64::from(scores.log_probs[at - 1]);
        nats += nll;
        let (sum, count) = &mut by_hit[usize::from(*hit)];
        (*sum, *count) = (*sum + nll, *count + 1.0);
        let place = 1 << at.ilog2();
        match by_place.last_mut().filter(|(first, ..)| *first == place) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + nll, *count + 1.0),
            None => by_place.push((place, nll, 1.0)),
        }
    }
    let tokens = (part.ids.len() - part.from) as f64;
    for name in ["loss", "perplexity"] {
        metrics.push(metric(name, nats, tokens));
    }
    for name in ["bits_per_byte", "byte_perplexity"] {
        metrics.push(metric(name, nats, bytes));
    }
    metrics.push(metric("word_perplexity", nats, words));
    for (name, (sum, count)) in ["loss_of_other_tokens", "loss_of_ar_hits"].into_iter().zip(by_hit) {
        if count > 0.0 {
            metrics.push(metric(name, sum, count));
        }
    }
    // The share of hits tells how much of the text they are.
    metrics.push(metric("ar_hits", by_hit[1].1, tokens));
    for (first, sum, count) in by_place {
        metrics.push(metric(format!("loss_after_{first}_to_{}", 2 * first - 1), sum, count));
    }
    metrics
}
