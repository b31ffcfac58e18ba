//! The eleven synthetic tasks of RULER (Hsieh et al., 2404.06654), with generators and words of linc's own: the same questions,
//! so that results show the same, but not the same numbers.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::haystack::Haystack;
use super::needle::too_short;
use crate::error::EvalError;
use crate::sample::{Ask, GREEDY, Grade, Sample};
use crate::task::{Chance, Made, Setting, Task};

const fn task(name: &'static str, about: &'static str, make: crate::task::Make) -> Task {
    Task {
        name,
        version: 1,
        about,
        shots: None,
        options: &["lengths"],
        metric: "score",
        chance: Chance::None,
        make,
    }
}

pub(crate) const TASKS: &[Task] = &[
    task("ruler_niah_single_1", "a word's number in a sentence that repeats (RULER)", |t, s| {
        niah(t, s, Niah { hay: Hay::Noise, ..ONE })
    }),
    task("ruler_niah_single_2", "a word's number in books (RULER): books/**/*.txt", |t, s| niah(t, s, ONE)),
    task("ruler_niah_single_3", "a word's identifier in books (RULER)", |t, s| {
        niah(t, s, Niah { value: What::Identifier, ..ONE })
    }),
    task("ruler_niah_multikey_1", "one of four words' numbers in books (RULER)", |t, s| {
        niah(t, s, Niah { keys: 4, ..ONE })
    }),
    task("ruler_niah_multikey_2", "a word's number among those of other words (RULER)", |t, s| {
        niah(t, s, Niah { hay: Hay::Needles, ..ONE })
    }),
    task("ruler_niah_multikey_3", "an identifier's identifier among others (RULER)", |t, s| {
        niah(t, s, Niah { hay: Hay::Needles, key: What::Identifier, value: What::Identifier, ..ONE })
    }),
    task("ruler_niah_multivalue", "the four numbers of a word in books (RULER)", |t, s| {
        niah(t, s, Niah { values: 4, ..ONE })
    }),
    task("ruler_niah_multiquery", "the numbers of four words in books (RULER)", |t, s| {
        niah(t, s, Niah { keys: 4, asked: 4, ..ONE })
    }),
    task(
        "ruler_vt",
        "all variables that have a value, over four assignments (RULER: variable tracking)",
        tracking,
    ),
    task("ruler_cwe", "the ten words that are most common in a list (RULER)", common),
    task("ruler_fwe", "the three most frequent of made-up words, by a zeta distribution (RULER)", frequent),
];

/// Samples of each length.
const SAMPLES: usize = 50;

#[derive(Clone, Copy, PartialEq)]
enum Hay {
    Noise,
    Books,
    Needles,
}

#[derive(Clone, Copy)]
enum What {
    Word,
    Number,
    Identifier,
}

/// Needles in a haystack: what hides in what, and how many are asked for.
#[derive(Clone, Copy)]
struct Niah {
    hay: Hay,
    key: What,
    value: What,
    keys: usize,
    values: usize,
    asked: usize,
}

const ONE: Niah =
    Niah { hay: Hay::Books, key: What::Word, value: What::Number, keys: 1, values: 1, asked: 1 };

const NOISE: [&str; 5] =
    ["The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again."];

const FIRST: [&str; 16] = [
    "quiet", "amber", "hollow", "brisk", "velvet", "crooked", "distant", "eager", "frozen", "golden",
    "humble", "ivory", "jagged", "lively", "mellow", "narrow",
];
const SECOND: [&str; 16] = [
    "harbor", "lantern", "meadow", "orchard", "pebble", "quarry", "ribbon", "saddle", "timber", "valley",
    "willow", "anchor", "basket", "candle", "dagger", "feather",
];

impl What {
    fn draw(self, rng: &mut ChaCha8Rng) -> String {
        match self {
            What::Word => {
                let (a, b) = (rng.random_range(0..FIRST.len()), rng.random_range(0..SECOND.len()));
                format!("{}-{}", FIRST[a], SECOND[b])
            }
            What::Number => rng.random_range(1_000_000..10_000_000).to_string(),
            What::Identifier => {
                let (a, b) = (rng.random::<u64>(), rng.random::<u64>());
                let (time, version) = (a >> 32, a & 0xfff);
                format!(
                    "{time:08x}-{:04x}-4{version:03x}-{:04x}-{:012x}",
                    (a >> 16) & 0xffff,
                    (b >> 48) & 0x3fff | 0x8000,
                    b & 0xffff_ffff_ffff
                )
            }
        }
    }

    /// So many different ones.
    fn several(self, rng: &mut ChaCha8Rng, count: usize) -> Vec<String> {
        let mut found: Vec<String> = vec![];
        while found.len() < count {
            let one = self.draw(rng);
            if !found.contains(&one) {
                found.push(one);
            }
        }
        found
    }

    fn name(self) -> &'static str {
        match self {
            What::Word => "word",
            What::Number => "number",
            What::Identifier => "identifier",
        }
    }
}

/// Draws a prompt for some room, and what is expected of the answer; nothing where it does not fit.
type Draw<'a> = dyn Fn(&mut ChaCha8Rng, usize) -> Result<Option<(String, Vec<String>)>, EvalError> + 'a;

/// Samples of each length by a function of random numbers and room for the prompt.
fn made(task: &Task, setting: &Setting<'_>, tokens: usize, one: &Draw<'_>) -> Result<Made, EvalError> {
    let mut samples = vec![];
    for length in setting.lengths()? {
        // What is written, and the token before the text.
        let Some(room) = length.checked_sub(tokens + 1) else { return Err(too_short(task, length)) };
        for number in 0..setting.up_to(SAMPLES) {
            let mut rng = ChaCha8Rng::seed_from_u64(setting.seed);
            rng.set_stream(((length as u64) << 32) | number as u64);
            let Some((prompt, expected)) = one(&mut rng, room)? else { return Err(too_short(task, length)) };
            samples.push(Sample {
                id: format!("{length}/{number}"),
                group: format!("{length} tokens"),
                doc: json!({ "prompt": prompt, "expected": expected }),
                ask: Ask::Write { prompt, tokens, stop: vec![], draws: vec![GREEDY] },
                grade: Grade::Strings { expected, any: false },
            });
        }
    }
    Ok(samples.into())
}

fn niah(task: &Task, setting: &Setting<'_>, spec: Niah) -> Result<Made, EvalError> {
    const TOKENS: usize = 128;
    let tokenizer = setting.tokenizer()?;
    let longest = setting.lengths()?.into_iter().max().unwrap_or(0);
    let Niah { key, value, .. } = spec;
    let needle = |key: &str, value: &str| format!("The {} of {key} is {value}.", spec.value.name());
    let hay = match spec.hay {
        Hay::Noise => Some(Haystack::of(tokenizer, &NOISE)?),
        Hay::Books => Some(Haystack::books(setting, longest)?),
        // Made of other keys, anew for each sample.
        Hay::Needles => None,
    };
    made(task, setting, TOKENS.min(setting.context / 4), &|rng, room| {
        let keys = key.several(rng, spec.keys);
        let values: Vec<Vec<String>> = keys.iter().map(|_| value.several(rng, spec.values)).collect();
        let hidden: Vec<(f64, String)> = keys
            .iter()
            .zip(&values)
            .flat_map(|(key, values)| values.iter().map(|value| needle(key, value)).collect::<Vec<_>>())
            .map(|text| (f64::from(rng.random_range(0..40)) / 39.0, text))
            .collect();
        let asked = keys[..spec.asked].join(", ");
        let question = match spec.asked * spec.values {
            1 => format!("What is the {} of {asked}? The {} of {asked} is", value.name(), value.name()),
            _ => {
                format!("What are all the {}s of {asked}? The {}s of {asked} are", value.name(), value.name())
            }
        };
        let around = |body: &str| {
            format!("Remember what is said of {}s in this text.\n{body}\n{question}", value.name())
        };
        let other;
        let hay = match &hay {
            Some(hay) => hay,
            None => {
                let others: Vec<String> = (0..room.div_ceil(16).clamp(4, 1024))
                    .map(|_| (key.draw(rng), value.draw(rng)))
                    .filter(|(other, _)| !keys.contains(other))
                    .map(|(key, value)| needle(&key, &value))
                    .collect();
                if others.is_empty() {
                    return Ok(None);
                }
                other = Haystack::of(tokenizer, &others.iter().map(String::as_str).collect::<Vec<_>>())?;
                &other
            }
        };
        let start = rng.random_range(0..hay.len());
        let text = hay.fill(room, start, &hidden, &around)?;
        Ok(text.map(|text| (text, values[..spec.asked].concat())))
    })
}

fn tracking(task: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    const HOPS: usize = 4;
    let hay = Haystack::of(setting.tokenizer()?, &NOISE)?;
    made(task, setting, 30, &|rng, room| {
        let letters = |rng: &mut ChaCha8Rng| {
            (0..5).map(|_| char::from(b'A' + rng.random_range(0..26))).collect::<String>()
        };
        let mut names: Vec<String> = vec![];
        while names.len() <= HOPS {
            let name = letters(rng);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let value = rng.random_range(10_000..100_000);
        let mut depths: Vec<f64> = names.iter().map(|_| rng.random()).collect();
        // Each variable is named before another gets its value.
        depths.sort_by(f64::total_cmp);
        let text = |at: usize| match at {
            0 => format!("VAR {} = {value}.", names[0]),
            at => format!("VAR {} = VAR {}.", names[at], names[at - 1]),
        };
        let hidden: Vec<(f64, String)> =
            depths.into_iter().enumerate().map(|(at, depth)| (depth, text(at))).collect();
        let around = |body: &str| {
            format!(
                "Follow the variables that are assigned in this text.\n{body}\nFind all variables that have the value {value}. The variables that have the value {value} are:"
            )
        };
        let start = rng.random_range(0..hay.len());
        Ok(hay.fill(room, start, &hidden, &around)?.map(|text| (text, names)))
    })
}

/// A made-up word of three to five syllables.
fn coined(rng: &mut ChaCha8Rng) -> String {
    const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
    const VOWELS: &[u8] = b"aeiou";
    let mut word = String::new();
    for _ in 0..rng.random_range(2..4) {
        word.push(char::from(CONSONANTS[rng.random_range(0..CONSONANTS.len())]));
        word.push(char::from(VOWELS[rng.random_range(0..VOWELS.len())]));
    }
    word.push(char::from(CONSONANTS[rng.random_range(0..CONSONANTS.len())]));
    word
}

fn coined_words(rng: &mut ChaCha8Rng, count: usize) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    while found.len() < count {
        let word = coined(rng);
        // No word is a part of another, so that what is found is what was meant.
        if !found.iter().any(|known| known.contains(&word) || word.contains(known.as_str())) {
            found.push(word);
        }
    }
    found
}

/// The largest number for which a prompt fits; nothing if none does.
fn largest(
    setting: &Setting<'_>,
    room: usize,
    most: usize,
    prompt: &dyn Fn(usize) -> String,
) -> Result<Option<usize>, EvalError> {
    let tokenizer = setting.tokenizer()?;
    let (mut fits, mut too_large) = (0, most + 1);
    while too_large - fits > 1 {
        let middle = (fits + too_large) / 2;
        match tokenizer.encode_ids(&prompt(middle))?.len() <= room {
            true => fits = middle,
            false => too_large = middle,
        }
    }
    Ok((fits > 0).then_some(fits))
}

fn common(task: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    const COMMON: usize = 10;
    made(task, setting, 120.min(setting.context / 4), &|rng, room| {
        let words = coined_words(rng, COMMON + (room / 12).clamp(4, 400));
        let (common, others) = words.split_at(COMMON);
        let order: u64 = rng.random();
        let prompt = |others_used: usize| {
            // Ten times as often as the others, as thirty times and three are.
            let mut list: Vec<&str> = common.iter().flat_map(|word| [word.as_str(); 10]).collect();
            list.extend(others[..others_used].iter().map(String::as_str));
            list.shuffle(&mut ChaCha8Rng::seed_from_u64(order));
            let list: Vec<String> =
                list.iter().enumerate().map(|(at, word)| format!("{}. {word}", at + 1)).collect();
            format!(
                "Here is a list of words, some of which come more often than others.\n{}\nWhat are the 10 most common words in the list? The 10 most common words are:",
                list.join(" ")
            )
        };
        let used = largest(setting, room, others.len(), &prompt)?;
        Ok(used.map(|used| (prompt(used), common.to_vec())))
    })
}

fn frequent(task: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    const ALPHA: f64 = 2.0;
    made(task, setting, 50, &|rng, room| {
        let words = coined_words(rng, 50);
        // The word of rank r comes r^-α times as often as the first.
        let all: f64 = (1..=words.len()).map(|rank| (rank as f64).powf(-ALPHA)).sum();
        let order: u64 = rng.random();
        let prompt = |length: usize| {
            let mut list: Vec<&str> = vec![];
            for (rank, word) in (1..).zip(&words) {
                let times = length as f64 * f64::from(rank).powf(-ALPHA) / all;
                list.extend(std::iter::repeat_n(word.as_str(), times.round() as usize));
            }
            let mut rng = ChaCha8Rng::seed_from_u64(order);
            list.shuffle(&mut rng);
            format!(
                "Read this coded text and count its words.\n{}\nWhat are the three words that come most often in the coded text? The three words that come most often are:",
                list.join(" ")
            )
        };
        // Fewer than twenty words may leave ranks equal.
        let used = largest(setting, room, room, &prompt)?.filter(|length| *length >= 20);
        Ok(used.map(|length| (prompt(length), words[..3].to_vec())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_differs() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let words = coined_words(&mut rng, 200);
        assert!(
            words.iter().all(|word| words.iter().filter(|other| other.contains(word.as_str())).count() == 1)
        );
        let identifier = What::Identifier.draw(&mut rng);
        assert_eq!(identifier.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{identifier}");
        assert_eq!(What::Word.several(&mut rng, 20).len(), 20);
    }
}
