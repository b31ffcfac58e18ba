//! Sequences of tokens that ask for what was there before, or for a state: they need no tokenizer, and ask for the most
//! likely token at some places. They are made where those to train on are.
//!
//! Lengths are tokens. A model answers them at the lengths and with the vocabulary that it was trained for; others show how
//! far it goes beyond.

use linc_data::{MqarConfig, RECALL_TASKS, RecallValidation};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::error::EvalError;
use crate::sample::{Ask, Grade, Sample};
use crate::task::{Chance, Made, Make, Setting, Task};

/// MQAR, and the tasks whose sequences are drawn.
pub(crate) fn tasks() -> Vec<Task> {
    let task = |name, about, make: Make| Task {
        name,
        version: 1,
        about,
        shots: None,
        options: &["lengths"],
        metric: "acc",
        chance: Chance::Vocab,
        make,
    };
    let of_pairs = "multi-query associative recall, as linc trains it: pairs, then keys in any order";
    let drawn = RECALL_TASKS.iter().map(|known| task(known.name, known.about, drawn));
    std::iter::once(task("mqar", of_pairs, mqar)).chain(drawn).collect()
}

/// Sequences of each length.
const SAMPLES: usize = 100;

/// Samples of each length, of the task of this name.
fn drawn(task: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    let known = RECALL_TASKS.iter().filter(|known| known.name == task.name);
    let vocab = u32::try_from(setting.vocab).unwrap_or(u32::MAX);
    let mut samples = vec![];
    for length in setting.lengths()? {
        for number in 0..setting.up_to(SAMPLES) {
            let mut rng = ChaCha8Rng::seed_from_u64(setting.seed);
            rng.set_stream(((length as u64) << 32) | number as u64);
            let found = known.clone().find_map(|known| known.draw(&mut rng, length, vocab));
            let Some((ids, answers)) = found else {
                let message =
                    format!("{} has no sequences of {length} tokens of a vocabulary of {vocab}", task.name);
                return Err(EvalError::request(message, "ask for other --lengths, or another --vocab"));
            };
            samples.push(sample(format!("{length}/{number}"), length.to_string(), ids, answers));
        }
    }
    Ok(samples.into())
}

fn sample(id: String, group: String, ids: Vec<u32>, answers: Vec<(usize, u32)>) -> Sample {
    let doc = json!({ "tokens": ids, "answers": answers });
    Sample { id, group, doc, ask: Ask::Places { ids, answers }, grade: Grade::Places }
}

/// As linc trains it, for numbers of pairs up to what a length has room for: parts of the task by both.
fn mqar(_: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    let mut samples = vec![];
    for length in setting.lengths()? {
        // Each pair and each query takes two tokens, and keys and values half of the vocabulary each.
        let most = (length / 4).min((setting.vocab / 2).saturating_sub(1)).min(256);
        let pairs: Vec<usize> = (2..).map(|power| 1 << power).take_while(|pairs| *pairs <= most).collect();
        if pairs.is_empty() {
            let message =
                format!("mqar has no sequences of {length} tokens of a vocabulary of {}", setting.vocab);
            return Err(EvalError::request(message, "ask for longer --lengths: four pairs take 16 tokens"));
        }
        for pairs in pairs {
            let config = MqarConfig {
                num_kv_pairs: vec![pairs],
                vocab_size: setting.vocab,
                num_validation_examples: SAMPLES,
                ..MqarConfig::default()
            };
            let data = RecallValidation::mqar(&config, 1, length);
            for number in 0..setting.up_to(SAMPLES) {
                let batch = data.batch(number);
                let ids = batch.tokens.iter().map(|id| *id as u32).collect();
                let answer = |at: usize| Some((at, u32::try_from(batch.targets[at]).ok()?));
                let answers = (0..batch.targets.len()).filter_map(answer).collect();
                let group = format!("{length} tokens, {pairs} pairs");
                samples.push(sample(format!("{length}/{pairs}/{number}"), group, ids, answers));
            }
        }
    }
    Ok(samples.into())
}
