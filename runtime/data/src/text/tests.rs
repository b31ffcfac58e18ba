//! What batches hold, and that a restored run has the same.

use super::*;
use crate::corpus::Corpus;
use crate::loading::quiet;
use crate::tokenizer::Tokenizer;

fn corpus(documents: &[&str]) -> Corpus {
    let documents: Vec<String> = documents.iter().map(|text| (*text).to_owned()).collect();
    quiet(|loading| Corpus::new(documents, &Tokenizer::bytes(), true, loading)).expect("bytes")
}

fn batches(documents: &[&str], shape: (usize, usize), seed: u64, shuffle: bool) -> TextBatches {
    TextBatches::new(vec![source("test", documents, 1.0)], packing(shape, seed, shuffle))
        .expect("long enough")
}

fn source(name: &str, documents: &[&str], weight: f64) -> TextSource {
    TextSource { name: name.to_owned(), tokens: Tokens::Memory(corpus(documents)), weight }
}

fn packing((batch_size, seq_len): (usize, usize), seed: u64, shuffle: bool) -> Packing {
    let borders = Tokenizer::bytes().borders();
    Packing { batch_size, seq_len, seed, shuffle, held_out: 0.0, borders, apart: false }
}

fn text(tokens: &[i32]) -> String {
    tokens.iter().map(|id| if *id == 0 { '|' } else { *id as u8 as char }).collect()
}

#[test]
fn packing_is_titans() {
    let mut data = batches(&["abcd", "ef"], (1, 2), 0, false);
    // The stream is |abcd|ef|abcd|ef..., cut into threes.
    let rows: Vec<(String, String)> = (0..4)
        .map(|_| {
            let batch = data.next_batch().expect("in memory");
            (text(&batch.tokens), text(&batch.targets))
        })
        .collect();
    let expected = [("|a", "ab"), ("cd", "d|"), ("ef", "f|"), ("ab", "bc")];
    assert_eq!(rows, expected.map(|(x, y)| (x.to_owned(), y.to_owned())));
}

#[test]
fn documents_of_a_sample_begin_at_position_0() {
    let documents = ["abcd", "e", "fg"];
    let of = |borders, shuffle| {
        let packing = Packing { apart: true, borders, ..packing((1, 6), 3, shuffle) };
        TextBatches::new(vec![source("test", &documents, 1.0)], packing).expect("long enough")
    };
    // The stream is |abcd|e|fg|abcd|e.., cut into sevens; what follows a document is what says that it has ended.
    let mut data = of(Tokenizer::bytes().borders(), false);
    let rows =
        [("|abcd|", [0, 1, 2, 3, 4, 0]), ("|fg|ab", [0, 1, 2, 0, 1, 2]), ("d|e|fg", [0, 0, 1, 0, 1, 2])];
    for (expected, positions) in rows {
        let batch = data.next_batch().expect("in memory");
        assert_eq!((text(&batch.tokens).as_str(), batch.positions), (expected, Some(positions.to_vec())));
        assert_eq!(batch.targets.iter().filter(|target| **target < 0).count(), 0);
    }
    // Documents that end by themselves do not foretell the next one.
    let mut data = of(Borders { bos: None, eos: Some(0) }, false);
    assert_eq!(data.next_batch().expect("in memory").targets[4], -1);

    let (mut data, mut again) =
        (of(Tokenizer::bytes().borders(), true), of(Tokenizer::bytes().borders(), true));
    for _ in 0..50 {
        let state = data.state();
        let batch = data.next_batch().expect("in memory");
        again.restore(&state).expect("the same data");
        assert_eq!(again.next_batch().expect("in memory"), batch);
        let positions = batch.positions.expect("they are asked for");
        for (at, token) in batch.tokens.iter().enumerate() {
            let begins = at == 0 || *token == 0;
            assert_eq!(positions[at], if begins { 0 } else { positions[at - 1] + 1 });
        }
    }
}

#[test]
fn documents_of_a_validation_part_are_kept_apart() {
    let borders = Borders { bos: None, eos: Some(0) };
    let tokens = || vec![Tokens::Memory(corpus(&["abcdefgh", "ij"]))];
    let data = TextValidation::new(tokens(), 2, 3, Some(Apart::new(borders))).expect("not empty");
    // |abc defg h|ij
    let last = data.batch(1).expect("in memory");
    assert_eq!(last.positions, Some(vec![0, 0, 1, 0, 0, 0]));
    assert_eq!(last.targets[..3], [-1, i32::from(b'i'), i32::from(b'j')]);
    assert_eq!(last.target_bytes, Some(2));
    // Targets that are left out do not count as text.
    let none =
        TextValidation::new(vec![Tokens::Memory(corpus(&["ab", "c"]))], 1, 4, Some(Apart::new(borders)));
    let batch = none.expect("not empty").batch(0).expect("in memory");
    assert_eq!((batch.targets[2], batch.target_bytes), (-1, Some(3)));
}

#[test]
fn batches_are_rows_of_consecutive_samples() {
    let mut wide = batches(&["abcdefghijkl"], (2, 3), 0, false);
    let mut narrow = batches(&["abcdefghijkl"], (1, 3), 0, false);
    let rows =
        [narrow.next_batch().expect("in memory").tokens, narrow.next_batch().expect("in memory").tokens]
            .concat();
    assert_eq!(wide.next_batch().expect("in memory").tokens, rows);
}

#[test]
fn an_epoch_visits_every_sample_once() {
    let text: String = (0..200).map(|i| char::from(33 + (i % 90) as u8)).collect();
    let documents = [&text[..70], &text[70..75], &text[75..]];
    let mut data = batches(&documents, (1, 4), 7, true);
    for epoch in 0..3 {
        let mut seen = 0;
        let mut counts = [0i32; 256];
        while data.state().epoch == epoch {
            let batch = data.next_batch().expect("in memory");
            counts[batch.tokens[0] as usize] += 1;
            batch.targets.iter().for_each(|token| counts[*token as usize] += 1);
            seen += 5;
        }
        let all: i32 = counts.iter().sum();
        assert_eq!(all, seen);
        assert!((195..=200).contains(&seen), "{seen}");
        // 203 tokens: each character occurs two or three times, less those skipped at the ends.
        let missing: i32 = (33..123)
            .map(|c| text.bytes().filter(|b| i32::from(*b) == c).count() as i32 - counts[c as usize])
            .inspect(|missing| assert!(*missing >= 0))
            .sum();
        assert!(missing <= 8, "{missing}");
    }
}

#[test]
fn shuffling_follows_the_seed() {
    let text = "abcdefghijklmnopqrstuvwxyz".repeat(20);
    let first =
        |seed| batches(&[&text, "0123456789"], (4, 8), seed, true).next_batch().expect("in memory").tokens;
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
}

#[test]
fn a_restored_run_goes_on_with_the_same_bits() {
    let text = "the quick brown fox jumps over the lazy dog ".repeat(9);
    for shuffle in [false, true] {
        let fresh = || batches(&[&text, "and another"], (3, 7), 5, shuffle);
        let mut whole = fresh();
        let mut states = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..60 {
            states.push(whole.state());
            expected.push(whole.next_batch().expect("in memory"));
        }
        assert!(!shuffle || states.iter().any(|state| state.epoch > 2));
        for (at, state) in states.iter().enumerate() {
            let mut resumed = fresh();
            let json = serde_json::to_string(state).expect("serialises");
            resumed.restore(&serde_json::from_str(&json).expect("reads back")).expect("same data");
            assert_eq!(resumed.next_batch().expect("in memory"), expected[at]);
            assert_eq!(resumed.state(), states.get(at + 1).cloned().unwrap_or(whole.state()));
        }
    }
}

#[test]
fn a_state_of_other_data_is_refused() {
    let state = batches(&["abcdefgh"], (1, 2), 1, true).state();
    let refuse = |mut data: TextBatches| data.restore(&state).expect_err("refused").to_string();
    assert!(refuse(batches(&["abcdefgX"], (1, 2), 1, true)).contains("data"));
    assert!(refuse(batches(&["abcdefgh"], (1, 3), 1, true)).contains("seq_len"));
    assert!(refuse(batches(&["abcdefgh"], (1, 2), 2, true)).contains("seed"));
    assert!(refuse(batches(&["abcdefgh"], (1, 2), 1, false)).contains("shuffle"));
    let other = DataState { borders: Some(Borders { bos: Some(0), eos: Some(3) }), ..state.clone() };
    let error = batches(&["abcdefgh"], (1, 2), 1, true).restore(&other).expect_err("refused").to_string();
    assert!(error.contains("was BOS token 0, EOS token 3 and is now BOS token 0, EOS none"), "{error}");
    let beyond = DataState { index: 1000, ..state.clone() };
    assert!(batches(&["abcdefgh"], (1, 2), 1, true).restore(&beyond).is_err());
}

#[test]
fn too_little_text_is_refused() {
    let packing = Packing { held_out: 0.05, ..packing((1, 4), 0, true) };
    let error = TextBatches::new(vec![source("x.txt", &["abc"], 1.0)], packing).expect_err("refused");
    let error = error.to_string();
    assert!(
        error.contains("4 tokens, fewer than one sequence of 5") && error.contains("validation.fraction")
    );
    // Exactly one sample is enough.
    let mut data = batches(&["abc"], (2, 3), 0, true);
    assert_eq!(text(&data.next_batch().expect("in memory").tokens), "|ab|ab");
}

#[test]
fn validation_covers_everything_once() {
    let data = TextValidation::new(vec![Tokens::Memory(corpus(&["abcdefgh", "ij"]))], 2, 3, None)
        .expect("not empty");
    // |abc defg... : 12 tokens with the two boundaries, in fours, two rows a batch.
    assert_eq!(data.batches(), 2);
    let first = data.batch(0).expect("in memory");
    assert_eq!((text(&first.tokens), text(&first.targets)), ("|abdef".to_owned(), "abcefg".to_owned()));
    assert_eq!(first.target_bytes, Some(6));
    let last = data.batch(1).expect("in memory");
    assert_eq!(text(&last.tokens[..3]), "h|i");
    assert_eq!(last.targets[3..], [-1, -1, -1]);
    // Of the targets "|ij" one stands for no byte.
    assert_eq!(last.target_bytes, Some(2));
    assert!(TextValidation::new(vec![Tokens::Memory(corpus(&[]))], 2, 3, None).is_none());
    let odd = TextValidation::new(vec![Tokens::Memory(corpus(&["abcd"]))], 1, 3, None).expect("not empty");
    assert_eq!(odd.batches(), 1);
}

/// A mixture of letters, digits and signs.
fn mixture(weights: [f64; 3], seed: u64, shuffle: bool) -> TextBatches {
    let documents = ["abcdefgh".repeat(9), "0123456789".repeat(3), "+-*/".repeat(50)];
    let sources = documents.iter().zip(weights).enumerate();
    let sources = sources.map(|(i, (text, weight))| source(&format!("{i}.txt"), &[text], weight)).collect();
    TextBatches::new(sources, packing((2, 7), seed, shuffle)).expect("long enough")
}

/// How many rows are of each source.
fn rows(batch: &Batch) -> [usize; 3] {
    let is: [fn(&str) -> bool; 3] = [
        |text| text.contains(|c: char| c.is_ascii_lowercase()),
        |text| text.contains(|c: char| c.is_ascii_digit()),
        |text| text.contains(['+', '-', '*', '/']),
    ];
    is.map(|is| batch.tokens.chunks(7).filter(|row| is(&text(row))).count())
}

#[test]
fn a_mixture_keeps_its_weights_at_any_time() {
    let weights = [5.0, 2.0, 0.5];
    for shuffle in [false, true] {
        let mut data = mixture(weights, 3, shuffle);
        let mut taken = [0; 3];
        for batch in 1..=150 {
            let rows = rows(&data.next_batch().expect("in memory"));
            (0..3).for_each(|source| taken[source] += rows[source]);
            for (taken, weight) in taken.iter().zip(weights) {
                let expected = 2.0 * batch as f64 * weight / 7.5;
                assert!((*taken as f64 - expected).abs() < 1.0, "{taken} of {expected}");
            }
        }
        // Passes are of each source by itself: the small one was read far more often.
        let epochs: Vec<u64> = data.state().sources.iter().map(|source| source.epoch).collect();
        assert!(!shuffle || epochs[1] > 15 && epochs[2] == 0, "{epochs:?}");
    }
}

#[test]
fn a_restored_mixture_goes_on_with_the_same_bits() {
    for shuffle in [false, true] {
        let mut whole = mixture([1.0, 3.0, 2.5], 5, shuffle);
        let expected: Vec<(DataState, Batch)> =
            (0..60).map(|_| (whole.state(), whole.next_batch().expect("in memory"))).collect();
        for (state, batch) in &expected {
            let json = serde_json::to_string(state).expect("serialises");
            let mut resumed = mixture([1.0, 3.0, 2.5], 5, shuffle);
            resumed.restore(&serde_json::from_str(&json).expect("reads back")).expect("the same data");
            assert_eq!((&resumed.state(), &resumed.next_batch().expect("in memory")), (state, batch));
        }
        let state = &expected[9].0;
        let error = mixture([1.0, 3.0, 2.0], 5, shuffle).restore(state).expect_err("refused").to_string();
        assert!(
            error.contains("2.txt (weight 2.5) and is now") && error.contains("2.txt (weight 2)"),
            "{error}"
        );
        let error =
            batches(&["abcdefgh"], (2, 7), 5, shuffle).restore(state).expect_err("refused").to_string();
        assert!(error.contains("is now a single one"), "{error}");
    }
}

#[test]
fn a_state_waits_for_nobody_who_reads() {
    for mut data in [batches(&["abcdefgh"], (2, 7), 5, true), mixture([1.0, 3.0, 2.5], 5, true)] {
        data.next_batch().expect("in memory");
        let expected = data.state();
        // As a thread holds it that waits for a disk.
        let mix = Arc::clone(&data.mix);
        let _reading = locked(&mix);
        let (sender, state) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(data.state()).is_ok());
        assert_eq!(state.recv_timeout(std::time::Duration::from_secs(20)), Ok(expected));
    }
}

#[test]
fn weights_may_be_as_large_as_numbers_are() {
    let mut large = mixture([f64::MAX, f64::MAX / 2.0, f64::MAX / 4.0], 5, false);
    let mut small = mixture([4.0, 2.0, 1.0], 5, false);
    for _ in 0..20 {
        assert_eq!(large.next_batch(), small.next_batch());
    }
}

#[test]
fn batches_of_several_validation_parts_are_spread() {
    let parts = ["abcdefghijklmnopqrstuvw", "0123456", "+"];
    let parts = parts.map(|text| Tokens::Memory(corpus(&[text])));
    let data = TextValidation::new(parts.into(), 1, 3, None).expect("not empty");
    let first: String = (0..data.batches())
        .map(|batch| text(&data.batch(batch).expect("in memory").tokens)[..2].to_owned())
        .collect();
    assert_eq!(first, "|ade|0hi||lmpq34tu");
}
