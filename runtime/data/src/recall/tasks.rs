//! Sequences of tokens that ask for what was there before, or for a state: what `linc eval` asks, and what can be trained on.
//!
//! Each is drawn by itself, so that training and evaluation differ in their draws alone. To add one: a function that draws a
//! sequence, a row of [`RECALL_TASKS`], and a word of [`crate::DatasetKind`].

use std::sync::LazyLock;

use rand::seq::{SliceRandom, index};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A sequence, and the right tokens after some of its places.
pub type Sequence = (Vec<u32>, Vec<(usize, u32)>);

/// Draws a sequence of at most so many tokens from a vocabulary; nothing where it does not fit.
type Draw = fn(&mut ChaCha8Rng, usize, u32) -> Option<Sequence>;

/// A task whose sequences are drawn.
#[derive(Clone, Copy, Debug)]
pub struct RecallTask {
    /// As it is asked for, and as data to train on.
    pub name: &'static str,
    /// What it asks.
    pub about: &'static str,
    draw: Draw,
}

impl RecallTask {
    /// Draws a sequence of at most `length` tokens below `vocab`; nothing where there is none.
    pub fn draw(&self, rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
        (self.draw)(rng, length, vocab)
    }
}

const fn task(name: &'static str, about: &'static str, draw: Draw) -> RecallTask {
    RecallTask { name, about, draw }
}

/// Every task whose sequences are drawn, but for MQAR, which has settings of its own.
pub const RECALL_TASKS: &[RecallTask] = &[
    task(
        "mqar_forgetting",
        "pairs of which each key comes twice, with another value: the later one counts",
        forgetting,
    ),
    task("copy", "tokens, a separator, and the same tokens again", copy),
    task(
        "selective_copy",
        "tokens among blanks, a separator, and the tokens without the blanks",
        |rng, length, vocab| selective(rng, length, vocab, 2),
    ),
    task("induction", "a token that is there once, with one behind it, and once more at the end", induction),
    task(
        "mad_in_context_recall",
        "pairs of keys and values; whenever a key comes again its value follows (MAD)",
        |rng, length, vocab| in_context(rng, length, vocab, 0.0),
    ),
    task("mad_noisy_recall", "the same with tokens of no meaning in between (MAD)", |rng, length, vocab| {
        in_context(rng, length, vocab, 0.2)
    }),
    task("mad_fuzzy_recall", "keys and values of one to three tokens (MAD)", fuzzy),
    task(
        "mad_selective_copying",
        "sixteen tokens among noise, and the same in their order (MAD)",
        |rng, length, vocab| selective(rng, length, vocab, (length / 16).max(2)),
    ),
    task(
        "mad_compression",
        "tokens, a separator, and numbers of places in any order: after each the token that was there (after MAD, whose decoder sees one state only)",
        compression,
    ),
    task(
        "mad_memorization",
        "keys, behind each a blank that stands for its value: no sequence shows a value, training does (MAD)",
        memorization,
    ),
    task(
        "parity",
        "after each bit whether so far the number of ones is odd: no linear attention learns it for all lengths",
        parity,
    ),
    task(
        "s5",
        "after each permutation of five things the product of all so far, by their numbers 0 to 119",
        permutations,
    ),
];

/// Different tokens from a range.
fn distinct(rng: &mut ChaCha8Rng, from: u32, to: u32, count: usize) -> Option<Vec<u32>> {
    let there = to.checked_sub(from)? as usize;
    (count <= there).then(|| index::sample(rng, there, count).iter().map(|i| from + i as u32).collect())
}

fn forgetting(rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
    let half = vocab / 2;
    // Two pairs and a query for each key.
    let keys = (length / 6).min(half.saturating_sub(1) as usize).min(64);
    if keys == 0 {
        return None;
    }
    let keys = distinct(rng, 1, half, keys)?;
    let mut shown: Vec<u32> = keys.iter().chain(&keys).copied().collect();
    shown.shuffle(rng);
    let mut ids = vec![];
    let mut last = std::collections::BTreeMap::new();
    for key in shown {
        let mut value = rng.random_range(half..vocab);
        while vocab - half > 1 && last.get(&key) == Some(&value) {
            value = rng.random_range(half..vocab);
        }
        last.insert(key, value);
        ids.extend([key, value]);
    }
    let mut asked = keys;
    asked.shuffle(rng);
    let mut answers = vec![];
    for key in asked {
        answers.push((ids.len(), last[&key]));
        ids.extend([key, last[&key]]);
    }
    Some((ids, answers))
}

fn copy(rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
    let count = length.checked_sub(1)? / 2;
    if vocab < 2 || count == 0 {
        return None;
    }
    let tokens: Vec<u32> = (0..count).map(|_| rng.random_range(1..vocab)).collect();
    Some(repeated(tokens.clone(), tokens))
}

/// Some tokens, the separator 0, and others, which are asked for.
fn repeated(shown: Vec<u32>, again: Vec<u32>) -> Sequence {
    let mut ids = shown;
    let answers = again.iter().enumerate().map(|(i, token)| (ids.len() + i, *token)).collect();
    ids.push(0);
    ids.extend(&again);
    (ids, answers)
}

/// One token among so many, of the others a blank, 1.
fn selective(rng: &mut ChaCha8Rng, length: usize, vocab: u32, among: usize) -> Option<Sequence> {
    // `among` tokens for each that counts, which comes again.
    let count = length.checked_sub(1)? / (among + 1);
    if vocab < 4 || count == 0 {
        return None;
    }
    let room = count * among;
    let mut places = index::sample(rng, room, count).into_vec();
    places.sort_unstable();
    let tokens: Vec<u32> = (0..count).map(|_| rng.random_range(2..vocab)).collect();
    let mut shown = vec![1; room];
    places.iter().zip(&tokens).for_each(|(place, token)| shown[*place] = *token);
    Some(repeated(shown, tokens))
}

fn induction(rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
    if length < 3 || vocab < 3 {
        return None;
    }
    let mut ids: Vec<u32> = (0..length).map(|_| rng.random_range(1..vocab)).collect();
    let at = rng.random_range(0..length - 2);
    (ids[at], ids[length - 1]) = (0, 0);
    let answer = ids[at + 1];
    Some((ids, vec![(length - 1, answer)]))
}

/// Keys from the first half of the vocabulary and their values from the other, drawn again and again; a share of the pairs
/// is noise instead, of tokens that are neither.
fn in_context(rng: &mut ChaCha8Rng, length: usize, vocab: u32, noise: f64) -> Option<Sequence> {
    let noisy = if noise > 0.0 { (vocab / 8).max(1) } else { 0 };
    let known = vocab.checked_sub(noisy)?;
    let half = known / 2;
    if half == 0 || length < 4 {
        return None;
    }
    // Few enough keys that most come again.
    let keys = distinct(rng, 0, half, (length / 4).clamp(1, half as usize))?;
    let values: Vec<u32> = keys.iter().map(|_| rng.random_range(half..known)).collect();
    let (mut ids, mut answers, mut seen) = (vec![], vec![], std::collections::BTreeSet::new());
    while ids.len() + 2 <= length {
        if noise > 0.0 && rng.random::<f64>() < noise {
            ids.push(rng.random_range(known..vocab));
            continue;
        }
        // The last pair asks for one that was there.
        let last = ids.len() + 4 > length && !seen.is_empty();
        let among = if last { seen.len() } else { keys.len() };
        let drawn = rng.random_range(0..among);
        let key = if last { *seen.iter().nth(drawn)? } else { drawn };
        if !seen.insert(key) {
            answers.push((ids.len(), values[key]));
        }
        ids.extend([keys[key], values[key]]);
    }
    (!answers.is_empty()).then_some((ids, answers))
}

fn fuzzy(rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
    let half = vocab / 2;
    if half < 4 || length < 12 {
        return None;
    }
    let count = (length / 12).clamp(1, 64);
    // Keys of different first tokens, so that a value follows from what was read of its key.
    let firsts = distinct(rng, 0, half, count.min(half as usize))?;
    let word = |rng: &mut ChaCha8Rng, from: u32, to: u32, first: Option<u32>| -> Vec<u32> {
        let more = rng.random_range(0..3) + usize::from(first.is_none());
        first.into_iter().chain((0..more).map(|_| rng.random_range(from..to))).take(3).collect()
    };
    let pairs: Vec<[Vec<u32>; 2]> =
        firsts.iter().map(|first| [word(rng, 0, half, Some(*first)), word(rng, half, vocab, None)]).collect();
    let (mut ids, mut answers) = (vec![], vec![]);
    pairs.iter().flatten().for_each(|word| ids.extend(word));
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.shuffle(rng);
    for pair in order {
        let [key, value] = &pairs[pair];
        if ids.len() + key.len() + value.len() > length {
            break;
        }
        ids.extend(key);
        answers.extend(value.iter().enumerate().map(|(i, token)| (ids.len() - 1 + i, *token)));
        ids.extend(value);
    }
    (!answers.is_empty()).then_some((ids, answers))
}

fn parity(rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
    let ids: Vec<u32> = (0..length).map(|_| rng.random_range(0..2)).collect();
    let mut odd = 0;
    let answers = ids.iter().enumerate().map(|(at, bit)| {
        odd ^= bit;
        (at, odd)
    });
    let answers = answers.collect();
    (vocab >= 2).then_some((ids, answers))
}

fn permutations(rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
    static ALL: LazyLock<Vec<[usize; 5]>> = LazyLock::new(all_permutations);
    let all = &*ALL;
    if vocab < all.len() as u32 {
        return None;
    }
    let ids: Vec<u32> = (0..length).map(|_| rng.random_range(0..all.len() as u32)).collect();
    let mut product = [0, 1, 2, 3, 4];
    let mut answers = vec![];
    for (at, id) in ids.iter().enumerate() {
        let next = all[*id as usize];
        product = product.map(|i: usize| next[i]);
        let number = all.binary_search(&product).ok()?;
        answers.push((at, number as u32));
    }
    Some((ids, answers))
}

/// The permutations of five things, in alphabetical order.
fn all_permutations() -> Vec<[usize; 5]> {
    let mut all = vec![];
    for number in 0..120 {
        let (mut left, mut rest): (Vec<usize>, usize) = ((0..5).collect(), number);
        let mut one = [0; 5];
        for (place, slot) in one.iter_mut().enumerate() {
            let block: usize = (1..5 - place).product();
            *slot = left.remove(rest / block);
            rest %= block;
        }
        all.push(one);
    }
    all
}

/// Tokens that MAD's compression has: few, so that it is their places that are to be kept.
const COMPRESSED: u32 = 16;

/// Tokens from 1 on, the separator 0, and numbers of places behind those tokens.
fn compression(rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
    let kinds = COMPRESSED.min(vocab.saturating_sub(1) / 2);
    let places = vocab.checked_sub(kinds + 1)? as usize;
    let count = (length.checked_sub(1)? / 2).min(places);
    if kinds == 0 || count == 0 {
        return None;
    }
    let shown: Vec<u32> = (0..count).map(|_| rng.random_range(1..=kinds)).collect();
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(rng);
    let answers = order.iter().enumerate().map(|(i, place)| (count + 1 + i, shown[*place])).collect();
    let asked = order.iter().map(|place| kinds + 1 + *place as u32);
    Some((shown.iter().copied().chain([0]).chain(asked).collect(), answers))
}

/// The dictionary of [`memorization`] is the same for training and evaluation, whatever their seeds.
const DICTIONARY: u64 = 0x6d61_6420_6b76;

/// Keys from 1 to the middle of the vocabulary, each with the blank 0 behind it.
fn memorization(rng: &mut ChaCha8Rng, length: usize, vocab: u32) -> Option<Sequence> {
    let half = vocab / 2;
    if half < 2 || length < 2 {
        return None;
    }
    let mut known = ChaCha8Rng::seed_from_u64(DICTIONARY);
    let values: Vec<u32> = (1..half).map(|_| known.random_range(half..vocab)).collect();
    let keys: Vec<u32> = (0..length / 2).map(|_| rng.random_range(1..half)).collect();
    let answers = keys.iter().enumerate().map(|(i, key)| (2 * i + 1, values[*key as usize - 1])).collect();
    Some((keys.iter().flat_map(|key| [*key, 0]).collect(), answers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_a_group_in_order() {
        let all = all_permutations();
        assert_eq!((all[0], all[1], all[119]), ([0, 1, 2, 3, 4], [0, 1, 2, 4, 3], [4, 3, 2, 1, 0]));
        assert!(all.is_sorted() && all.len() == 120);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (ids, answers) = permutations(&mut rng, 9, 200).expect("a sequence");
        assert_eq!(answers[0].1, ids[0], "the first product is the first permutation");
        // Swapping the last two twice is no change.
        let twice = |i: usize| all[1][all[1][i]];
        assert!((0..5).all(|i| twice(i) == i));
    }

    #[test]
    fn answers_were_there_before() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..20 {
            let (ids, answers) = forgetting(&mut rng, 60, 50).expect("a sequence");
            assert!(ids.len() <= 60 && answers.len() == 10);
            for (at, token) in answers {
                let shown = ids[..at].chunks(2).rev().find(|pair| pair[0] == ids[at]).expect("shown");
                assert_eq!(shown[1], token, "the later value counts");
            }
            for noise in [0.0, 0.3] {
                let (ids, answers) = in_context(&mut rng, 40, 32, noise).expect("a sequence");
                assert!(ids.len() <= 40);
                for (at, token) in answers {
                    let before = ids[..at].iter().position(|id| *id == ids[at]).expect("shown");
                    assert_eq!(ids[before + 1], token);
                }
            }
            let (ids, answers) = fuzzy(&mut rng, 64, 64).expect("a sequence");
            assert!(answers.iter().all(|(at, token)| ids[at + 1] == *token) && ids.len() <= 64);
            let (ids, answers) = selective(&mut rng, 33, 20, 3).expect("a sequence");
            let shown: Vec<u32> = ids[..24].iter().copied().filter(|id| *id > 1).collect();
            assert_eq!(answers.iter().map(|(_, token)| *token).collect::<Vec<_>>(), shown);
            let (ids, answers) = induction(&mut rng, 30, 20).expect("a sequence");
            let at = ids.iter().position(|id| *id == 0).expect("there");
            assert_eq!(answers, [(29, ids[at + 1])]);
            let (ids, answers) = compression(&mut rng, 33, 64).expect("a sequence");
            assert!(ids.len() == 33 && answers.len() == 16 && ids.iter().all(|id| *id < 64));
            for (at, token) in answers {
                assert_eq!(ids[ids[at] as usize - 17], token, "the number of a place, from 17 on");
            }
            let (ids, answers) = memorization(&mut rng, 21, 20).expect("a sequence");
            let mut other = ChaCha8Rng::seed_from_u64(3);
            let (keys, again) = memorization(&mut other, 200, 20).expect("a sequence");
            let known = |key: u32| {
                keys.iter()
                    .zip(&again.iter().flat_map(|(_, v)| [*v, *v]).collect::<Vec<_>>())
                    .find(|(k, _)| **k == key)
                    .map(|(_, v)| *v)
            };
            assert!(answers.iter().all(|(at, token)| ids[*at] == 0 && known(ids[at - 1]) == Some(*token)));
            let (ids, answers) = copy(&mut rng, 11, 20).expect("a sequence");
            assert!(answers.iter().all(|(at, token)| ids[at - 5] == *token) && answers.len() == 5);
        }
    }
}
