//! One fact in a long text, over depth and length; LongEval's lines and the keys of "Lost in the Middle", from disk.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::files::{find, json_lines, string};
use super::haystack::Haystack;
use crate::error::EvalError;
use crate::sample::{Ask, GREEDY, Grade, Sample};
use crate::task::{Chance, Made, Setting, Task};
use crate::tokens::pair;

pub(crate) const TASKS: &[Task] = &[
    Task {
        name: "needle",
        version: 1,
        about: "a number hidden in real books, over eleven depths and all --lengths: books/**/*.txt",
        shots: None,
        options: &["lengths"],
        metric: "acc",
        chance: Chance::None,
        make: needle,
    },
    Task {
        name: "longeval_lines",
        version: 1,
        about: "the number of one of 200 to 600 lines: longcontext/longeval_lines/{200,400,600}_lines.jsonl",
        shots: None,
        options: &[],
        metric: "score",
        chance: Chance::None,
        make: longeval,
    },
    Task {
        name: "lost_in_the_middle",
        version: 1,
        about: "the value of a key in a JSON object of 75 or 140: longcontext/lost_in_the_middle/kv-retrieval-{75,140}_keys.jsonl.gz",
        shots: None,
        options: &[],
        metric: "score",
        chance: Chance::None,
        make: lost,
    },
];

const PLACES: [&str; 12] = [
    "Lisbon", "Oslo", "Cairo", "Lima", "Kyoto", "Quebec", "Nairobi", "Prague", "Havana", "Dublin", "Manila",
    "Sydney",
];
/// Samples of each depth and length.
const SAMPLES: usize = 10;
const DEPTHS: usize = 10;

fn needle(task: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    let tokenizer = setting.tokenizer()?;
    let lengths = setting.lengths()?;
    let hay = Haystack::books(setting, lengths.iter().copied().max().unwrap_or(0))?;
    let mut samples = vec![];
    for length in lengths {
        for depth in 0..=DEPTHS {
            for number in 0..setting.up_to(SAMPLES) {
                let mut rng = ChaCha8Rng::seed_from_u64(setting.seed);
                rng.set_stream(((length as u64) << 32) | (depth * SAMPLES + number) as u64);
                let place = PLACES[rng.random_range(0..PLACES.len())];
                let secret = rng.random_range(1_000_000..10_000_000);
                let hidden = format!("The secret number of {place} is {secret}.");
                let question =
                    format!("What is the secret number of {place}? The secret number of {place} is");
                let start = rng.random_range(0..hay.len());
                // Room for the answer, and what stands before the text.
                let answer = format!(" {secret}");
                let room = length.saturating_sub(tokenizer.encode_ids(&answer)?.len() + 1);
                let share = depth as f64 / DEPTHS as f64;
                let around = |body: &str| format!("{body}\n\n{question}");
                let text = hay.fill(room, start, &[(share, hidden)], &around)?;
                let Some(context) = text else { return Err(too_short(task, length)) };
                let part = pair(tokenizer, setting.bos, setting.context, &context, &answer)?;
                samples.push(Sample {
                    id: format!("{length}/{depth}/{number}"),
                    group: format!("{length} tokens, depth {:>3} %", depth * 100 / DEPTHS),
                    doc: json!({ "context": context, "answer": answer }),
                    ask: Ask::Likelihoods(vec![part]),
                    grade: Grade::Greedy,
                });
            }
        }
    }
    Ok(samples.into())
}

/// The error of a length without room for a question.
pub(crate) fn too_short(task: &Task, length: usize) -> EvalError {
    let message = format!("{length} tokens have no room for a text and a question of the task {}", task.name);
    EvalError::request(message, "ask for longer --lengths")
}

fn longeval(_: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    setting.tokenizer()?;
    let folder = find(setting, &["longcontext/longeval_lines", "longeval_lines"])?;
    let mut samples = vec![];
    for lines in [200, 400, 600] {
        let path = folder.join(format!("{lines}_lines.jsonl"));
        let objects = json_lines(&path)?;
        let wanted = setting.up_to(objects.len());
        for (index, (line, object)) in objects.into_iter().enumerate().take(wanted) {
            let prompt = string(&path, line, &object, "/prompt")?;
            let Some(number) = object["expected_number"].as_u64() else {
                return Err(EvalError::line(
                    &path,
                    line,
                    "has no number `expected_number`",
                    "get the file again",
                ));
            };
            samples.push(written(
                setting,
                format!("{lines}/{index}"),
                format!("{lines} lines"),
                prompt,
                20,
                number.to_string(),
            )?);
        }
    }
    fitting(samples, setting, "longeval_lines")
}

fn lost(_: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    setting.tokenizer()?;
    let folder = find(setting, &["longcontext/lost_in_the_middle", "lost_in_the_middle"])?;
    let mut samples = vec![];
    for keys in [75, 140] {
        let names = ["jsonl.gz", "jsonl"].map(|end| folder.join(format!("kv-retrieval-{keys}_keys.{end}")));
        let path = names.iter().find(|path| path.exists()).unwrap_or(&names[0]);
        let objects = json_lines(path)?;
        let wanted = setting.up_to(objects.len());
        for (index, (line, object)) in objects.into_iter().enumerate().take(wanted) {
            let (key, value) = (string(path, line, &object, "/key")?, string(path, line, &object, "/value")?);
            let records = object["ordered_kv_records"].as_array().map(Vec::as_slice).unwrap_or_default();
            let pairs: Vec<String> = records
                .iter()
                .filter_map(|pair| Some(format!("{}: {}", pair.get(0)?, pair.get(1)?)))
                .collect();
            if pairs.is_empty() {
                let message = "has no list `ordered_kv_records`";
                return Err(EvalError::line(path, line, message, "get the file again"));
            }
            // Where the key is among the others, a tenth each.
            let at = records.iter().position(|pair| pair[0].as_str() == Some(key)).unwrap_or(0);
            let prompt = format!(
                "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n{{{}}}\n\nKey: \"{key}\"\nCorresponding value:",
                pairs.join(",\n ")
            );
            let group = format!("{keys} keys, depth {:>3} %", at * 10 / pairs.len() * 10);
            samples.push(written(setting, format!("{keys}/{index}"), group, &prompt, 64, value.to_owned())?);
        }
    }
    fitting(samples, setting, "lost_in_the_middle")
}

/// A question whose answer is to have a text in it; nothing if there is no room for it.
pub(crate) fn written(
    setting: &Setting<'_>,
    id: String,
    group: String,
    prompt: &str,
    tokens: usize,
    expected: String,
) -> Result<Option<Sample>, EvalError> {
    let length = setting.tokenizer()?.encode_ids(prompt)?.len() + 1;
    let fits = length + tokens <= setting.context;
    Ok(fits.then(|| Sample {
        id,
        group,
        doc: json!({ "prompt": prompt, "expected": expected }),
        ask: Ask::Write { prompt: prompt.to_owned(), tokens, stop: vec!["\n\n".into()], draws: vec![GREEDY] },
        grade: Grade::Strings { expected: vec![expected], any: false },
    }))
}

/// The samples that there is room for.
///
/// # Errors
/// [`EvalError::Request`] if there is none.
fn fitting(samples: Vec<Option<Sample>>, setting: &Setting<'_>, task: &str) -> Result<Made, EvalError> {
    let all = samples.len();
    let found: Vec<Sample> = samples.into_iter().flatten().collect();
    match found.is_empty() {
        false => Ok(Made { left_out: all - found.len(), samples: found }),
        true => {
            let message = format!("a context of {} has no room for any sample of {task}", setting.context);
            Err(EvalError::request(message, "give a larger --context"))
        }
    }
}
