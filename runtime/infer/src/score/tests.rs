//! Scores against all logits, alone and among others; what is refused.

use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::{BatchShape, Placement, Source};

use super::*;

const CONTEXT: usize = 80;

fn model(architecture: &str, ratio: &str, seq: usize) -> Model {
    sized(architecture, ratio, seq, &[])
}

fn sized(architecture: &str, ratio: &str, seq: usize, numbers: &[(String, f64)]) -> Model {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let config = source("llama3_nano.toml", include_str!("../../../../models/llama3_nano.toml"));
    let ratio = ratio.parse().expect("a ratio");
    let shape = BatchShape { batch: 1, seq };
    Model::new(&config, &source("a.linc", architecture), numbers, Some(ratio), Placement::Uniform, shape)
        .unwrap_or_else(|e| panic!("{e}"))
}

const LLAMA: &str = include_str!("../../../../models/llama3.linc");

fn cpu() -> Box<dyn Device> {
    Box::new(Cpu::new(CpuOptions { threads: Some(2), level: None }).unwrap_or_else(|e| panic!("{e}")))
}

fn loaded(model: &Model, context: usize, lengths: &[usize]) -> (Session, ScorePrograms) {
    let loaded = ScorePrograms::load(model, context, lengths, Precision::Float32, cpu());
    let (mut session, programs) = loaded.unwrap_or_else(|e| panic!("{e}"));
    session.executor.initialize(3).unwrap_or_else(|e| panic!("{e}"));
    (session, programs)
}

fn text(length: usize, seed: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * i * 31 + 7 * i + seed) % 256) as u32).collect()
}

fn all(session: &mut Session, programs: &ScorePrograms, texts: &[Vec<u32>]) -> Vec<Scores> {
    let mut scores = vec![None; texts.len()];
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let whole = programs.score(session, &texts, &AtomicBool::new(false), &mut |index, found| {
        assert!(scores[index].replace(found).is_none(), "heard of once");
    });
    assert!(whole.unwrap_or_else(|e| panic!("{e}")));
    scores.into_iter().map(|scores| scores.expect("heard of each")).collect()
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_among_others() {
    for ratio in ["0", "0.5", "1"] {
        let model = model(LLAMA, ratio, 16);
        let (mut session, programs) = loaded(&model, CONTEXT, &[]);
        // More than a batch of each length of the programs, in an order of their own.
        let lengths = (0..60).map(|i| [1, 2, 31, 32, 33, 64, 79, 80, 81, 5, 40, 17][i % 12]);
        let texts: Vec<Vec<u32>> = lengths.enumerate().map(|(i, length)| text(length, i)).collect();
        let together = all(&mut session, &programs, &texts);
        for (text, together) in texts.iter().zip(&together) {
            let alone = all(&mut session, &programs, std::slice::from_ref(text));
            assert_eq!(alone[0], *together, "ratio {ratio}, {} tokens", text.len());
            assert_eq!(together.log_probs.len(), text.len() - 1);
            assert_eq!(together.best.len(), text.len().min(CONTEXT));
        }
    }
}

/// Of a large vocabulary logits are made for some rows after the others, and a sequence may lie on both sides of a cut.
#[test]
fn bits_do_not_depend_on_where_logits_are_cut() {
    let model = sized(LLAMA, "0.5", 16, &[("vocab_size".into(), 20_000.0)]);
    let (mut session, programs) = loaded(&model, CONTEXT, &[CONTEXT]);
    let texts: Vec<Vec<u32>> = (0..6).map(|_| text(CONTEXT, 7)).collect();
    let together = all(&mut session, &programs, &texts);
    let alone = all(&mut session, &programs, &texts[..1]);
    assert!(together.iter().all(|scores| *scores == alone[0]));
    let plan = session.executor.plan(0);
    let cuts = plan.kernels.iter().filter(|kernel| kernel.name.starts_with("log_probs_"));
    assert_eq!(cuts.count(), 2, "one for each size of a part");
}

#[test]
fn scores_are_those_of_all_logits() {
    for ratio in ["0", "0.5", "1"] {
        let model = model(LLAMA, ratio, 16);
        let (mut session, programs) = loaded(&model, CONTEXT, &[]);
        let texts = [text(81, 5), text(50, 6), text(2, 7)];
        let found = all(&mut session, &programs, &texts);
        let entries = [(Entry::Forward, Options::new(1, CONTEXT))];
        let mut whole = Session::new::<InferError>(&model, &entries, cpu(), &mut || Ok(()))
            .unwrap_or_else(|e| panic!("{e}"));
        whole.executor.initialize(3).unwrap_or_else(|e| panic!("{e}"));
        for (text, found) in texts.iter().zip(&found) {
            let mut tokens: Vec<i32> = text.iter().map(|id| *id as i32).collect();
            tokens.resize(CONTEXT, 9);
            let tokens = bytemuck::cast_slice(&tokens);
            whole.executor.write_input(0, names::TOKENS, tokens).unwrap_or_else(|e| panic!("{e}"));
            whole.executor.run(0).unwrap_or_else(|e| panic!("{e}"));
            let logits = whole.executor.output(0, names::LOGITS).unwrap_or_else(|e| panic!("{e}"));
            for (at, row) in logits.chunks(model.sizes.vocab_size).take(found.best.len()).enumerate() {
                let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
                let best = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let close = |found: f32, logit: f64| (f64::from(found) - (logit - log_sum)).abs() < 2e-5;
                assert!(close(found.best[at].log_prob, best), "ratio {ratio}, best of {at}");
                assert!(row[found.best[at].token as usize] > best - 2e-5);
                if let Some(next) = text.get(at + 1) {
                    assert!(close(found.log_probs[at], row[*next as usize]), "ratio {ratio}, token {at}");
                    assert_eq!(found.is_best(at + 1, *next), found.best[at].token == *next);
                }
            }
        }
    }
}

#[test]
fn programs_are_made_for_the_lengths_that_are_asked_for() {
    let model = model(LLAMA, "0.5", 16);
    let sizes = |lengths: &[usize]| {
        let plan = ScorePrograms::plan(&model, 200, lengths, &Options::new(1, 1), 3);
        let (programs, entries) = plan.unwrap_or_else(|e| panic!("{e}"));
        assert!(entries.iter().all(|(entry, _)| matches!(entry, Entry::Score { context: 256 })));
        programs.buckets.iter().map(|bucket| (bucket.program, bucket.seq)).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&[]), [(3, 32), (4, 64), (5, 128), (6, 200)]);
    assert_eq!(sizes(&[40, 64, 201, 33]), [(3, 64), (4, 200)]);
    let (programs, _) =
        ScorePrograms::plan(&model, 200, &[64], &Options::new(1, 1), 0).unwrap_or_else(|e| panic!("{e}"));
    assert!(programs.covers(&[33, 64]) && !programs.covers(&[32]) && !programs.covers(&[65]));
    // What a text is scored by does not depend on what else was asked for.
    let (mut one, few) = loaded(&model, 200, &[40]);
    let (mut other, more) = loaded(&model, 200, &[]);
    let texts = [text(40, 1)];
    assert_eq!(all(&mut one, &few, &texts), all(&mut other, &more, &texts));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let stop = AtomicBool::new(false);
    let model = model(LLAMA, "0.5", 16);
    let (mut session, programs) = loaded(&model, CONTEXT, &[]);
    let mut refused = |ids: &[u32]| {
        let mut heard = 0;
        let each = &mut |_, _| heard += 1;
        let error = programs.score(&mut session, &[&[1, 2], ids], &stop, each).expect_err("refused");
        assert_eq!(heard, 0, "before anything runs");
        error.to_string()
    };
    let long = refused(&text(82, 0));
    assert!(long.contains("has 82 tokens; with a context of 80 it can have 81"), "{long}");
    let foreign = refused(&[3, 5000]);
    assert!(foreign.contains("no token 5000") && foreign.contains("help: "), "{foreign}");
    let plan = |context| ScorePrograms::plan(&model, context, &[], &Options::new(1, 1), 0).expect_err("none");
    assert!(plan(0).to_string().contains("--context is 0"));

    // Who wants to stop gets nothing that is not whole.
    let stop = AtomicBool::new(true);
    let each = &mut |_, _| panic!("nothing was scored");
    assert!(!programs.score(&mut session, &[&[1, 2]], &stop, each).unwrap_or_else(|e| panic!("{e}")));
    // Nothing is said of nothing.
    assert_eq!(all(&mut session, &programs, &[vec![]]), [Scores::default()]);
}

/// The padding is to the right, so that it reaches nobody only where nobody looks ahead.
#[test]
fn a_model_that_looks_ahead_is_refused_with_its_place() {
    let text = LLAMA.replace("causal = true", "causal = false");
    let error = ScorePrograms::plan(&model(&text, "0.5", 16), CONTEXT, &[], &Options::new(1, 1), 0);
    let error = error.expect_err("not causal").to_string();
    assert!(error.contains("a.linc:") && error.contains("not causal"), "{error}");
}

/// A text may have parameters for each position: its programs are as long as those are.
#[test]
fn learned_positions_are_scored_at_their_own_length() {
    let text = LLAMA.replace(
        "block attention {",
        "block attention {\n  param places [seq, dim] init normal(0.02)\n  x = x + places",
    );
    let model = model(&text, "0.5", 40);
    let (mut session, programs) = loaded(&model, 40, &[]);
    assert_eq!(programs.buckets.iter().map(|bucket| bucket.seq).collect::<Vec<_>>(), [40]);
    let texts = [self::text(41, 1), self::text(9, 2)];
    let found = all(&mut session, &programs, &texts);
    assert_eq!(found.iter().map(|scores| scores.log_probs.len()).collect::<Vec<_>>(), [40, 8]);
    let error =
        ScorePrograms::plan(&model, 41, &[], &Options::new(1, 1), 0).expect_err("too long").to_string();
    assert!(error.contains("parameters for 40 positions"), "{error}");
}
