//! What an engine writes is what each prompt is continued by alone, whoever is beside it and however prompts are read.

use linc_device::Device;
use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::{BatchShape, Entry, Model, Options, Placement, Precision, Source, Target, names};

use super::*;
use crate::programs::{Wanted, options, session};

const CONTEXT: usize = 96;

fn model(ratio: &str, architecture: &str) -> Model {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let config = source("llama3_nano.toml", include_str!("../../../../models/llama3_nano.toml"));
    let ratio = Some(ratio.parse().expect("a ratio"));
    let shape = BatchShape { batch: 2, seq: CONTEXT };
    Model::new(&config, &source("a.linc", architecture), &[], ratio, Placement::Uniform, shape)
        .unwrap_or_else(|e| panic!("{e}"))
}

const LLAMA: &str = include_str!("../../../../models/llama3.linc");

fn cpu() -> Box<dyn Device> {
    Box::new(Cpu::new(CpuOptions { threads: Some(2), level: None }).unwrap_or_else(|e| panic!("{e}")))
}

fn loaded(model: &Model, sequences: usize, block: Option<usize>) -> (Session, Programs) {
    let wanted = Wanted { context: CONTEXT, sequences, block };
    let options = options(Precision::Float32, Target::Cpu);
    let (programs, entries) = Programs::plan(model, wanted, &options, 0).unwrap_or_else(|e| panic!("{e}"));
    (ready(model, &entries), programs)
}

fn ready(model: &Model, entries: &[(Entry, Options)]) -> Session {
    let mut session = session(model, entries, cpu()).unwrap_or_else(|e| panic!("{e}"));
    session.executor.initialize(3).unwrap_or_else(|e| panic!("{e}"));
    session
}

/// Prompts of many lengths: of one token, of whole blocks and of parts, up to where one token more has room.
fn requests() -> Vec<Request> {
    let lengths = [1, 2, 5, 8, 9, 15, 16, 17, 31, 33, 40, 63, 64, 65, 80, CONTEXT];
    let token = |seed: usize, i: usize| ((i * i * 31 + 7 * i + 13 * seed) % 255 + 1) as u32;
    let request = |(seed, length): (usize, usize)| Request {
        prompt: (0..length).map(|i| token(seed, i)).collect(),
        tokens: (CONTEXT + 1 - length).min(12 + seed),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: [].into(),
        scores: Some(2),
    };
    lengths.into_iter().enumerate().map(request).collect()
}

/// Tokens and scores of each request.
fn written(engine: &mut Engine<'_>, requests: &[Request]) -> Vec<Vec<Written>> {
    let mut all = vec![vec![]; requests.len()];
    let whole = engine.run(requests.to_vec(), &AtomicBool::new(false), &mut |number, event| {
        all[number as usize].push(event.unwrap_or_else(|e| panic!("{e}")));
    });
    assert!(whole.unwrap_or_else(|e| panic!("{e}")));
    assert_eq!(engine.running(), 0);
    all
}

fn tokens(written: &[Vec<Written>]) -> Vec<Vec<u32>> {
    written.iter().map(|written| written.iter().map(|one| one.token).collect()).collect()
}

/// What the program for whole sequences writes, without a cache.
fn uncached(model: &Model, requests: &[Request]) -> Vec<Vec<u32>> {
    let mut session = ready(model, &[(Entry::Forward, Options::new(1, CONTEXT))]);
    let mut write = |request: &Request| {
        let mut ids = request.prompt.clone();
        for _ in 0..request.tokens {
            let mut input: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
            input.resize(CONTEXT, 0);
            let x = &mut session.executor;
            x.write_input(0, names::TOKENS, bytemuck::cast_slice(&input)).unwrap_or_else(|e| panic!("{e}"));
            x.run(0).unwrap_or_else(|e| panic!("{e}"));
            let logits = x.output(0, names::LOGITS).unwrap_or_else(|e| panic!("{e}"));
            let row = logits.chunks(logits.len() / CONTEXT).nth(ids.len() - 1).expect("a row");
            let best = TokenScore::of(row, 0, 1).top[0].0;
            ids.push(best);
            if best == 0 {
                break;
            }
        }
        ids[request.prompt.len()..].to_vec()
    };
    requests.iter().map(&mut write).collect()
}

#[test]
fn greedy_texts_are_those_of_whole_sequences_in_any_batch_and_any_blocks() {
    let tokenizer = Tokenizer::bytes();
    let requests = requests();
    for ratio in ["0", "0.5", "1"] {
        let model = model(ratio, LLAMA);
        let expected = uncached(&model, &requests);
        let different: std::collections::BTreeSet<&Vec<u32>> = expected.iter().collect();
        assert!(different.len() > requests.len() / 2, "ratio {ratio}: {different:?} says nothing");
        let mut scores: Option<Vec<Vec<Written>>> = None;
        for (sequences, block) in
            [(1, None), (16, None), (16, Some(7)), (3, Some(1)), (5, Some(16)), (1, Some(96))]
        {
            let (mut session, programs) = loaded(&model, sequences, block);
            let mut engine = Engine::new(&mut session, programs, model.sizes.vocab_size, &tokenizer);
            // Slots that others had before are as good as new ones.
            for round in 0..2 {
                let found = written(&mut engine, &requests);
                let what = format!("ratio {ratio}, {sequences} at once, blocks of {block:?}, round {round}");
                assert_eq!(tokens(&found), expected, "{what}");
                let first = scores.get_or_insert_with(|| found.clone());
                for (a, b) in first.iter().flatten().zip(found.iter().flatten()) {
                    let [a, b] = [a, b].map(|written| written.score.clone().expect("asked for"));
                    assert!((a.log_prob - b.log_prob).abs() < 2e-5, "{what}: {a:?} and {b:?}");
                    assert_eq!(a.top[0].0, b.top[0].0);
                }
            }
            // Token by token.
            engine.keep_logits(Some(Logits::default()));
            assert_eq!(tokens(&written(&mut engine, &requests)), expected, "without blocks");
            let kept = engine.take_logits().expect("kept");
            assert_eq!(kept.rows.len(), kept.tokens.len() * model.sizes.vocab_size);
        }
    }
}

/// A model with a vector for each position, which a batch of sequences at different ones cannot look up at once.
#[test]
fn a_model_with_learned_positions_continues_many_texts() {
    let learned = LLAMA.replace(
        "x = embedding(tokens, tok_embeddings)",
        "param places [seq, dim] init normal(0.5)\n  x = embedding(tokens, tok_embeddings) + places",
    );
    assert_ne!(learned, LLAMA);
    let (model, tokenizer, requests) = (model("0.5", &learned), Tokenizer::bytes(), requests());
    let expected = uncached(&model, &requests);
    let (mut session, programs) = loaded(&model, 4, None);
    let mut engine = Engine::new(&mut session, programs, model.sizes.vocab_size, &tokenizer);
    assert_eq!(tokens(&written(&mut engine, &requests)), expected);
}

#[test]
fn sequences_come_and_go_while_others_are_written() {
    let (model, tokenizer) = (model("0.5", LLAMA), Tokenizer::bytes());
    let requests = requests();
    let drawn = |seed: u64| Request {
        sampling: Sampling { seed, top_k: 20, ..Sampling::default() },
        ..requests[seed as usize].clone()
    };
    let alone = |number: u64| {
        let (mut session, programs) = loaded(&model, 1, None);
        let mut engine = Engine::new(&mut session, programs, model.sizes.vocab_size, &tokenizer);
        tokens(&written(&mut engine, &[drawn(number)])).remove(0)
    };
    let (mut session, programs) = loaded(&model, 3, Some(8));
    let mut engine = Engine::new(&mut session, programs, model.sizes.vocab_size, &tokenizer);
    let mut found: std::collections::BTreeMap<u64, Vec<u32>> = std::collections::BTreeMap::new();
    let mut hear = |number: u64, event: Event| {
        found.entry(number).or_default().push(event.unwrap_or_else(|e| panic!("{e}")).token);
    };
    // The second leaves in the middle, and another takes its slot while a long prompt is being read.
    for number in [2, 3, 12] {
        engine.begin(number, drawn(number)).unwrap_or_else(|e| panic!("{e}"));
    }
    assert!(!engine.has_room() && engine.begin(5, drawn(5)).is_err());
    for _ in 0..4 {
        engine.step(&mut hear).unwrap_or_else(|e| panic!("{e}"));
    }
    engine.cancel(3);
    engine.begin(9, drawn(9)).unwrap_or_else(|e| panic!("{e}"));
    while engine.running() > 0 {
        engine.step(&mut hear).unwrap_or_else(|e| panic!("{e}"));
    }
    for number in [2, 9, 12] {
        assert_eq!(found[&number], alone(number), "sequence {number}");
    }
    assert!(found[&3].len() < alone(3).len());
}

#[test]
fn texts_end_at_a_stop_and_requests_that_cannot_be_are_refused() {
    let (model, tokenizer) = (model("0", LLAMA), Tokenizer::bytes());
    let (mut session, programs) = loaded(&model, 2, None);
    let mut engine = Engine::new(&mut session, programs, model.sizes.vocab_size, &tokenizer);
    let letters = Sampling { temperature: 3.0, seed: 5, ..Sampling::default() };
    let request = Request { sampling: letters, tokens: 40, ..requests()[1].clone() };
    let texts = |engine: &mut Engine<'_>, request: &Request| {
        let written = written(engine, std::slice::from_ref(request)).remove(0);
        let text: String = written.iter().map(|one| one.text.as_str()).collect();
        (text, written.last().and_then(|last| last.end))
    };
    let (whole, end) = texts(&mut engine, &request);
    assert!(end.is_some() && whole.chars().count() > 8, "{whole:?}");
    let middle: String = whole.chars().skip(4).take(2).collect();
    let stopped = Request { stop: [middle.clone(), "never".into()].into(), ..request.clone() };
    let (text, end) = texts(&mut engine, &stopped);
    assert_eq!((text.as_str(), end), (whole.split(middle.as_str()).next().expect("a part"), Some(End::Stop)));
    for (wrong, what) in [
        (Request { prompt: vec![], ..request.clone() }, "no token"),
        (Request { prompt: vec![256], ..request.clone() }, "token 256; the model has 0 to 255"),
        (Request { tokens: 0, ..request.clone() }, "do not fit"),
        (Request { tokens: usize::MAX, ..request.clone() }, "do not fit"),
        (Request { prompt: vec![1; CONTEXT], tokens: 2, ..request.clone() }, "do not fit the context of 96"),
    ] {
        let error = engine.check(&wrong).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    for sequences in [0, 1 << 20] {
        let wanted = Wanted { sequences, ..Wanted::one(CONTEXT) };
        let planned = Programs::plan(&model, wanted, &options(Precision::Float32, Target::Cpu), 0);
        assert!(planned.expect_err("refused").to_string().contains("sequences at once"));
    }
}

#[test]
fn a_sequence_has_caches_or_states_of_its_own() {
    let bytes = |ratio: &str| {
        let (session, programs) = loaded(&model(ratio, LLAMA), 4, None);
        programs.bytes_per_sequence(&session)
    };
    let ([cache, none], [no_cache, state]) = (bytes("0"), bytes("1"));
    assert_eq!((none, no_cache), (0, 0));
    let room = CONTEXT.next_multiple_of(64);
    let model = model("0", LLAMA);
    let layers = model.kinds.len() as u64;
    assert!(cache.is_multiple_of(layers * 2 * room as u64 * 4), "{cache}");
    assert!(state > 0 && bytes("0.5") == [cache / 2, state / 2]);
}
