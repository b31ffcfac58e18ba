//! Placements of a small model with random weights, whose layers all matter.

use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use linc_checkpoint::{Contents, ModelRecord, State, Tensor, load_weights, model_of};
use linc_data::DataState;
use linc_device::Device;
use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::{Entry, Model, Options, names};
use linc_eval::Subject;
use linc_eval::sample::{Ask, Grade, Sample};
use linc_exec::Halfway;
use linc_session::{Session, SessionError};
use serde_json::Value;

use super::*;

const BATCH: usize = 4;
const SEQ: usize = 24;
const LAYERS: usize = 4;
static GO_ON: AtomicBool = AtomicBool::new(false);

struct Silent;

impl Watcher for Silent {
    fn message(&mut self, _: &str) {}
    fn progress(&mut self, _: &str, _: u64, _: u64) {}
}

fn cpu() -> Box<dyn Device> {
    Box::new(Cpu::new(CpuOptions { threads: Some(2), level: None }).expect("a CPU"))
}

fn record(layers: &[&str]) -> ModelRecord {
    let toml = include_str!("../../../../models/recall_small.toml");
    ModelRecord {
        name: "recall".into(),
        flavor: "small".into(),
        linear_attn_ratio: "0.0".into(),
        linear_attn_placement: "uniform".into(),
        layers: layers.iter().map(|kind| (*kind).to_owned()).collect(),
        params: 0,
        model_path: "recall_small.toml".into(),
        model_toml: toml.into(),
        architecture_path: "recall.linc".into(),
        architecture: include_str!("../../../../models/recall.linc").into(),
        overrides: vec![
            ("dim".into(), 32.0),
            ("n_layers".into(), layers.len() as f64),
            ("vocab_size".into(), 40.0),
            ("linear_attention.chunk".into(), 8.0),
        ],
        seq_len: SEQ,
        batch_size: BATCH,
    }
}

fn session(model: &Model) -> Session {
    let entries = [(Entry::Forward, Options::new(BATCH, SEQ))];
    Session::new(model, &entries, cpu(), &mut || Ok::<_, SessionError>(())).expect("a session")
}

/// A checkpoint with initial values.
fn checkpoint(folder: &FilePath) -> PathBuf {
    let record = record(&["softmax"; LAYERS]);
    let mut session = session(&model_of(&record).expect("a model"));
    session.executor.initialize(3).expect("initial values");
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let bytes = session.executor.read_tensor(&name).expect("a tensor");
        Tensor { name, shape, read: Box::new(move || Ok(bytes.clone())) }
    };
    let contents = Contents {
        params: session.params().into_iter().map(tensor).collect(),
        optimizer: vec![],
        shard_bytes: u64::MAX,
        tokenizer: &[],
        state: State::new(7, 0, 0, DataState { kind: "mqar".into(), ..DataState::default() }, record),
    };
    linc_checkpoint::save(folder, &contents).expect("a checkpoint")
}

fn subject(checkpoint: &FilePath) -> Subject {
    let llama = linc_driver::Source { path: String::new(), text: String::new() };
    Subject::open(checkpoint, checkpoint, &llama, &mut |_, _| true).expect("a model")
}

fn sequences() -> Sequences {
    let sample = |number: u32| {
        let ids: Vec<u32> =
            (0..SEQ as u32).map(|at| (at * at * (number + 3) + 5 * number + at) % 40).collect();
        let answers = vec![(SEQ - 6, 3), (SEQ - 2, number % 40)];
        let ask = Ask::Places { ids, answers };
        Sample { id: String::new(), group: String::new(), doc: Value::Null, ask, grade: Grade::Places }
    };
    let samples: Vec<Sample> = (0..32).map(sample).collect();
    Sequences::draw(&samples, SEQ, 16, BATCH, 1).expect("sequences")
}

fn settings() -> PlaceSettings {
    PlaceSettings {
        ratio: "0.5".parse().expect("a ratio"),
        batch: BATCH,
        align_steps: 6,
        align_rate: 1e-3,
        points: 10,
        gate_steps: 5,
        random: 3,
        swaps: 4,
        seed: 5,
    }
}

fn placing(checkpoint: &FilePath, stop: &'static AtomicBool) -> Result<Placing, StudyError> {
    let subject = subject(checkpoint);
    Placing::new(&subject.model, &subject.checkpoint, sequences(), settings(), cpu(), stop)
}

#[test]
fn scores_add_up_placements_are_compared_and_the_seed_decides() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = checkpoint(folder.path());
    let run = || {
        let mut placing = placing(&checkpoint, &GO_ON).expect("a placement");
        placing.run(&mut Silent).expect("a placement");
        placing
    };
    let (mut placing, again) = (run(), run());
    let placed = &placing.placed;
    let path = placed.path.as_ref().expect("scores");
    // All linear is something else than all softmax, and all of it is attributed.
    let (sum, whole) = (path.sum, path.divergence.mean);
    assert!(whole > 0.01, "{whole}");
    assert!((sum - whole).abs() < 1e-3 * whole, "{sum}, not {whole}");
    assert!(path.scores.layers.iter().all(|mean| mean.half_width.is_some() && mean.count == 16));

    assert!(placed.complete && placed.linear.len() == LAYERS / 2 && placed.softmax == LAYERS / 2);
    let row = |name: &str| placed.compared.iter().find(|row| row.name == name).expect("a placement");
    assert_eq!(row("all softmax").divergence.value, 0.0);
    assert_eq!(row("search").difference.value, 0.0);
    assert_eq!(row("search").linear, placed.linear);
    for name in ["path", "slice", "removal", "addition", "halo", "trained gates", "uniform", "random 3"] {
        let row = row(name);
        assert_eq!(row.linear.len(), LAYERS / 2, "{name}");
        assert!(row.divergence.value > 0.0 && row.divergence.ci95.is_some(), "{name}");
    }
    let without_times = |placed: &Placed| {
        let placed = Placed { seconds: vec![], ..placed.clone() };
        serde_json::to_string(&placed).expect("JSON")
    };
    assert_eq!(without_times(placed), without_times(&again.placed));

    // What is written is what was compared.
    let file = folder.path().join("made/place.json");
    let table = placed.write(&file).expect("files");
    let csv = std::fs::read_to_string(table).expect("a table");
    assert_eq!(csv.lines().count(), 1 + LAYERS);
    assert!(csv.lines().all(|line| line.split(',').count() == 11), "{csv}");
    let json: Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    assert_eq!(json["linear"].as_array().map(Vec::len), Some(2));

    // The hybrid has the bits of the mixed model at its gates.
    let made = placing.write_hybrid(&subject(&checkpoint), &folder.path().join("hybrid")).expect("a hybrid");
    assert!(made.ends_with("step-7"));
    let state = linc_checkpoint::open(&made).expect("a checkpoint");
    let model = model_of(&state.model).expect("a model");
    let mut hybrid = session(&model);
    hybrid.executor.initialize_constants().expect("tables");
    load_weights::<StudyError>(&mut hybrid.executor, &made, &mut |_, _| Ok(())).expect("weights");
    let shown = &sequences().test[..BATCH];
    let tokens: Vec<i32> = shown.iter().flat_map(|sequence| &sequence.tokens).copied().collect();
    hybrid.executor.write_input(0, names::TOKENS, bytemuck::cast_slice(&tokens)).expect("tokens");
    hybrid.executor.run(0).expect("a run");
    let expected = hybrid.executor.output(0, names::LOGITS).expect("logits");
    let Placing { mut gated, placed, .. } = placing;
    let gates = gates(&placed.linear, LAYERS);
    assert_eq!(gated.logits(shown, &gates).expect("logits"), expected);
    assert_ne!(gated.logits(shown, &[1.0; LAYERS]).expect("logits"), expected);
}

#[test]
fn a_swap_that_goes_on_from_the_middle_sees_what_a_whole_run_sees() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut gated = placing(&checkpoint(folder.path()), &GO_ON).expect("a placement").gated;
    let sequences = sequences();
    let shown = &sequences.search[..BATCH];
    gated.show(shown).expect("a teacher");
    let base = [1.0, 0.0, 1.0, 0.0];
    let whole = gated.look(shown, &base).expect("a look");
    let (with_trail, trail) = gated.look_with_trail(shown, &base, &[0, 1, 2, 3]).expect("a look");
    assert_eq!(with_trail, whole);
    // Each place keeps what its layers made; the teacher's logits, which all of them need, are kept once.
    let kept = trail.from.iter().map(|(_, halfway)| halfway);
    let alone: usize = kept.clone().map(|halfway| Halfway::kept_bytes([halfway])).sum();
    let teacher = BATCH * SEQ * 40 * size_of::<f32>();
    let together = Halfway::kept_bytes(kept);
    assert!(together + (LAYERS - 1) * teacher <= alone, "{together} of {alone} bytes");
    let mut least = 1.0f64;
    // In no order, and each from the same trail.
    for swap in [[3, 2], [0, 1], [2, 1], [0, 3]] {
        let mut gates = base;
        for layer in swap {
            gates[layer] = 1.0 - gates[layer];
        }
        let first = swap[0].min(swap[1]);
        let found = gated.look_from(&trail, first, shown, &gates).expect("a look");
        assert_eq!(found, gated.look(shown, &gates).expect("a look"), "{swap:?}");
        assert_ne!(found, whole, "{swap:?}");
        let (part, all) = gated.steps_from(&trail, first);
        least = least.min(part as f64 / all as f64);
    }
    assert!(least < 0.7, "{least} of the steps are run at least");
}

#[test]
fn aligning_brings_linear_branches_nearer() {
    let folder = tempfile::tempdir().expect("a folder");
    let subject = subject(&checkpoint(folder.path()));
    let settings = PlaceSettings { align_steps: 60, align_rate: 3e-3, ..settings() };
    let mut placing = Placing::new(&subject.model, &subject.checkpoint, sequences(), settings, cpu(), &GO_ON)
        .expect("a placement");
    placing.align(&mut Silent).expect("aligned");
    let alignment = placing.placed.alignment.expect("errors");
    assert_eq!((alignment.steps, alignment.before.len()), (60, LAYERS));
    let sum = |errors: &[f64]| errors.iter().sum::<f64>();
    assert!(sum(&alignment.after) < 0.8 * sum(&alignment.before), "{alignment:?}");
}

#[test]
fn what_was_found_before_a_request_to_end_is_kept() {
    static STOP: AtomicBool = AtomicBool::new(false);
    struct Ending;
    impl Watcher for Ending {
        fn message(&mut self, _: &str) {}
        fn progress(&mut self, what: &str, _: u64, _: u64) {
            STOP.store(what == "one layer at a time", Ordering::Relaxed);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut placing = placing(&checkpoint(folder.path()), &STOP).expect("a placement");
    let ended = placing.run(&mut Ending);
    assert!(matches!(ended, Err(StudyError::Interrupted)), "{ended:?}");
    let placed = &placing.placed;
    assert!(!placed.complete && placed.path.is_some() && placed.one_layer.is_none());
    assert_eq!(placed.linear.len(), LAYERS / 2);
    placed.write(&folder.path().join("place.json")).expect("files");
}

#[test]
fn what_cannot_be_placed_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = checkpoint(folder.path());
    let refusal = |model: &Model, ratio: &str| {
        let settings = PlaceSettings { ratio: ratio.parse().expect("a ratio"), ..settings() };
        let placing = Placing::new(model, &path, sequences(), settings, cpu(), &GO_ON);
        placing.err().expect("a refusal").to_string()
    };
    let softmax = model_of(&record(&["softmax"; LAYERS])).expect("a model");
    for ratio in ["0", "1"] {
        assert!(refusal(&softmax, ratio).contains("nothing to choose"));
    }
    let hybrid = model_of(&record(&["softmax", "linear", "softmax", "softmax"])).expect("a model");
    assert!(refusal(&hybrid, "0.5").contains("SLSS"));
    assert_eq!(highest(&[0.5, 0.1, 0.5, 0.4], 1), [1, 2, 3]);
    assert_eq!(random(6, 2, 1, 0), random(6, 2, 1, 0));
    assert!((0..20).any(|number| random(6, 2, 1, number) != random(6, 2, 1, 0)));
}
