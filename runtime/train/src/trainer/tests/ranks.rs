//! Runs of several ranks, which are threads here: the bits of one process, whatever the number of ranks, and every way to end.

mod alike;
mod norms;
mod parts;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linc_config::ModelFiles;
use linc_config::shipped::Shipped;
use linc_device::comm::{Local, Ranks};
use linc_device::cpu::{Cpu, CpuOptions};

use super::super::Machine;
use super::*;
use crate::team::{Team, Timeouts};

const SOON: Duration = Duration::from_secs(120);

/// What a rank came to.
#[derive(Clone, PartialEq, Debug)]
struct Ran {
    losses: Vec<u32>,
    validation: Option<f64>,
    interrupted: bool,
    step: usize,
    /// Batches of a validation that a rank knows of at most.
    validated: usize,
    tensors: Vec<(String, Vec<u8>)>,
    /// Bytes that the rank had sent after each step.
    sent: Vec<u64>,
}

/// Keeps the losses, and asks its rank to stop after a step.
struct Watching<'a> {
    losses: Vec<u32>,
    stop: &'a AtomicBool,
    stop_after: Option<usize>,
    /// Asks to stop when so many batches of a validation are done.
    stop_validating: Option<usize>,
    /// The most batches that a validation came to.
    validated: usize,
    team: &'a Team,
    sent: Vec<u64>,
}

impl Observer for Watching<'_> {
    fn message(&mut self, _: &str) {}

    fn warning(&mut self, _: &str) {}
    fn progress(&mut self, _: &str, _: u64, _: u64) {}
    fn tuning(&mut self, _: usize, _: usize) {}
    fn step(&mut self, step: usize, loss: f32) {
        self.losses.push(loss.to_bits());
        self.sent.push(self.team.ranks().borrow().bytes_sent());
        if self.stop_after == Some(step) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn validating(&mut self, done: usize, _: usize) {
        self.validated = self.validated.max(done);
        if self.stop_validating.is_some_and(|most| done >= most) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn record(&mut self, _: &Record, _: Memory) {}
    fn validation(&mut self, _: &Record, _: Memory) {}
    fn asking(&mut self, _: &str, _: usize, _: usize) {}
    fn evaluation(&mut self, _: &Record) {}
}

/// A run in a folder: `settings` are those of `[training]` and, behind them, of other sections.
struct Run<'a> {
    folder: &'a Path,
    ranks: usize,
    /// How many of them share the optimizer out.
    shards: usize,
    ratio: &'a str,
    /// `parallelism.accumulate`
    accumulate: &'a str,
    settings: &'a (dyn Fn(usize) -> String + Sync),
    /// The rank that is asked to stop, and after which step; 0 for before the first.
    stops: Option<(usize, usize)>,
    /// A bit of the last weight of this rank is another one when the run begins.
    flips: Option<usize>,
    /// Of its last moment instead.
    flips_state: bool,
    /// The rank that is asked to stop in a validation, and after how many batches.
    stops_validating: Option<(usize, usize)>,
}

impl<'a> Run<'a> {
    fn new(folder: &'a Path, ranks: usize, settings: &'a (dyn Fn(usize) -> String + Sync)) -> Self {
        Run {
            folder,
            ranks,
            shards: 1,
            ratio: "0.5",
            accumulate: "tree",
            settings,
            stops: None,
            flips: None,
            flips_state: false,
            stops_validating: None,
        }
    }

    fn of_rank(&self, team: &Team) -> Result<Ran, TrainError> {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama3_nano.toml");
        let settings = (self.settings)(team.rank());
        let dataset = if settings.contains("dataset") { "" } else { "dataset = \"stories\"\n" };
        let text = format!(
            "[job]\ndump_folder = {:?}\n[model]\npath = {model:?}\nlinear_attn_ratio = {}\n[model.overrides]\nn_layers = 2\ndim = 32\n\
             [lr_scheduler]\nwarmup_steps = 0\n[parallelism]\naccumulate = {:?}\n\
             data_parallel_replicate_degree = {}\n\
             [training]\n{dataset}batch_size = 1\nseq_len = 16\n{settings}",
            self.folder.join("run"),
            self.ratio,
            self.accumulate,
            self.ranks / self.shards,
        );
        let config = JobConfig::load(&text, "test.toml", &[]).unwrap_or_else(|e| panic!("{e}")).config;
        let files = ModelFiles::resolve(&config.model, &[], &Shipped::NONE).unwrap_or_else(|e| panic!("{e}"));
        let cpu = Cpu::new(CpuOptions { threads: Some(1), level: None }).unwrap_or_else(|e| panic!("{e}"));
        let mine = self.stops.filter(|(rank, _)| *rank == team.rank());
        let stop = AtomicBool::new(mine.is_some_and(|(_, step)| step == 0));
        let mut watching = Watching {
            losses: vec![],
            stop: &stop,
            stop_after: mine.map(|(_, step)| step).filter(|step| *step > 0),
            stop_validating: self
                .stops_validating
                .filter(|(rank, _)| *rank == team.rank())
                .map(|(_, most)| most),
            validated: 0,
            team,
            sent: vec![],
        };
        let machine = Machine { device: Box::new(cpu), team: team.clone() };
        let mut trainer = Trainer::new(config, &files, Folder::Named, None, machine, &stop, &mut watching)?;
        if self.flips == Some(team.rank()) {
            let name = match self.flips_state {
                false => trainer.session.params().into_keys().next_back().expect("parameters"),
                true => trainer.session.optimizer_state().pop().expect("moments"),
            };
            let mut bytes = trainer.session.executor.read_tensor(&name).unwrap_or_else(|e| panic!("{e}"));
            // Of a moment that is zero yet, so much that no gradient makes up for it.
            if self.flips_state {
                bytes[3] ^= 0x3f;
            }
            bytes[0] ^= 1;
            trainer.session.executor.write_tensor(&name, &bytes).unwrap_or_else(|e| panic!("{e}"));
        }
        let summary = trainer.run(&stop, &mut watching)?;
        Ok(Ran {
            losses: watching.losses,
            validation: summary.validation.and_then(|record| record.validation_loss),
            interrupted: summary.interrupted,
            step: summary.step,
            validated: watching.validated,
            tensors: whole_tensors(&trainer),
            sent: watching.sent,
        })
    }

    /// What all ranks come to, in order.
    fn run(&self) -> Vec<Result<Ran, TrainError>> {
        let timeouts = Timeouts { init: SOON, train: SOON };
        std::thread::scope(|scope| {
            let start = |comm: Local| {
                scope.spawn(move || {
                    let team = Team::new(Ranks::new(Box::new(comm), SOON, |_| {}), timeouts);
                    let result = self.of_rank(&team);
                    match &result {
                        Err(error) if !team.share(error) => team.abort(2, &error.to_string()),
                        _ => team.finish().unwrap_or_else(|e| panic!("{e}")),
                    }
                    result
                })
            };
            let threads: Vec<_> = Local::world(self.ranks).into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }

    /// What the ranks come to, all the same.
    fn same(&self) -> Ran {
        let mut all: Vec<Ran> =
            self.run().into_iter().map(|ran| ran.unwrap_or_else(|e| panic!("{e}"))).collect();
        // That depends on who has what.
        all.iter_mut().for_each(|ran| ran.sent.clear());
        let first = all.remove(0);
        for (rank, other) in all.iter().enumerate() {
            assert!(*other == first, "rank {} of {} came to something else", rank + 1, self.ranks);
        }
        first
    }

    /// Their errors.
    fn errors(&self) -> Vec<String> {
        self.run().into_iter().map(|ran| ran.err().map_or_else(String::new, |e| e.to_string())).collect()
    }
}

/// All tensors that training keeps. Of those that ranks have parts of, the whole, which the first tells the others.
fn whole_tensors(trainer: &Trainer) -> Vec<(String, Vec<u8>)> {
    let (kept, team) = (&trainer.kept, &trainer.team);
    let mut all = tensors(trainer);
    if trainer.shares.shards > 1 {
        let moments = kept.shapes();
        all.retain(|(name, _)| !moments.contains_key(name));
        let read = |name: &String| {
            let bytes = kept.read(name, &trainer.session.executor, team).unwrap_or_else(|e| panic!("{e}"));
            (name.clone(), bytes)
        };
        let whole: Vec<(String, Vec<u8>)> = moments.keys().map(read).collect();
        all.extend(super::super::ranks::of_first(team, "moments", &whole).unwrap_or_else(|e| panic!("{e}")));
    }
    all.sort();
    all
}

fn run(folder: &Path, ranks: usize, settings: &str) -> Ran {
    Run::new(folder, ranks, &|_| settings.to_owned()).same()
}

/// In a folder of its own.
fn fresh(ranks: usize, ratio: &str, settings: &str) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    Run { ratio, ..Run::new(folder.path(), ranks, &|_| settings.to_owned()) }.same()
}

const VALIDATION: &str = "[validation]\nenable = true\nfreq = 2\nsteps = 5\n";

#[test]
fn any_number_of_ranks_trains_what_one_process_trains() {
    for ratio in ["0.0", "0.5", "1.0"] {
        let settings = format!("steps = 3\nglobal_batch_size = 4\n{VALIDATION}");
        let one = fresh(1, ratio, &settings);
        assert_eq!((one.losses.len(), one.step), (3, 3));
        assert!(one.validation.is_some());
        for ranks in [2, 4] {
            assert!(fresh(ranks, ratio, &settings) == one, "ratio {ratio}: {ranks} ranks");
        }
    }
}

#[test]
fn whatever_a_step_is_made_of_ranks_share_it() {
    let cases = [
        "mixed_precision_param = \"bfloat16\"\n[[optimizer.groups]]\nrole = \"norm\"\nlr_factor = 2.0\n\
         [profiling]\nenable_profiling = true\n",
        // Too large a scale at first: steps are left out on all ranks.
        "mixed_precision_param = \"float16\"\nreset_at_document = true\nmax_norm = 0.01\n\
         [activation_checkpoint]\nmode = \"full\"\n",
        "[optimizer]\nname = \"Muon\"\n",
    ];
    for case in cases {
        let settings = format!("steps = 2\nglobal_batch_size = 4\n{case}");
        assert!(fresh(2, "0.5", &settings) == fresh(1, "0.5", &settings), "{case}");
    }
}

#[test]
fn batches_of_one_rank_are_added_up_in_the_order_of_ranks() {
    let settings = "steps = 2\nglobal_batch_size = 8\n";
    let eight = fresh(1, "0.5", settings);
    assert!(fresh(4, "0.5", settings) == eight);
    // One after the other they come to other bits: else this would say nothing.
    let folder = tempfile::tempdir().expect("a folder");
    let in_sequence =
        Run { accumulate: "sequence", ..Run::new(folder.path(), 1, &|_| settings.to_owned()) }.same();
    assert!(in_sequence != eight);
    // Three pairs are added up alike by three ranks and by one; of two triples the neighbours are others.
    let settings = "steps = 1\nglobal_batch_size = 6\n";
    let six = fresh(1, "0.5", settings);
    assert!(fresh(3, "0.5", settings) == six);
    assert!(fresh(2, "0.5", settings).tensors != six.tensors);
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let settings = |until: usize| {
        format!(
            "steps = 4\nstop_at_step = {until}\nglobal_batch_size = 4\n{VALIDATION}\
             [checkpoint]\nenable = true\ninterval = 1\nlast_save_model_only = false\nasync_mode = \"async\"\n"
        )
    };
    let whole = fresh(1, "0.5", &settings(4));
    let folder = tempfile::tempdir().expect("a folder");
    let mut losses = vec![];
    for (ranks, until) in [(4, 1), (2, 2), (1, 3), (4, 4)] {
        let ran = run(folder.path(), ranks, &settings(until));
        losses.extend(ran.losses.clone());
        assert_eq!(ran.step, until);
        if until == 4 {
            assert!(ran.tensors == whole.tensors, "other bits after four starts");
            assert_eq!(ran.validation, whole.validation);
        }
    }
    assert_eq!(losses, whole.losses);
    // Records are those of one run, each once.
    let records = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).expect("records");
    assert_eq!(records.matches("\"loss\"").count(), 4, "{records}");
}

#[test]
fn a_request_to_one_rank_stops_all_after_the_same_step() {
    let checkpoints = "[checkpoint]\nenable = true\ninterval = 100\n";
    for (ranks, rank) in [(2, 0), (4, 2)] {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = format!("steps = 50\n{VALIDATION}{checkpoints}");
        let settings = |_| settings.clone();
        let stopped = Run { stops: Some((rank, 3)), ..Run::new(folder.path(), ranks, &settings) };
        let ran = stopped.same();
        assert!(ran.interrupted && ran.step == 3, "{ran:?}");
        assert_eq!(linc_checkpoint::steps(&folder.path().join("run/checkpoint")), [3]);
    }
    // Before the first step nothing is written.
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |_| "steps = 2\n".to_owned();
    let stopped = Run { stops: Some((1, 0)), ..Run::new(folder.path(), 2, &settings) };
    assert!(stopped.run().into_iter().all(|ran| matches!(ran, Err(TrainError::Interrupted))));
    assert!(!folder.path().join("run/config.toml").exists());
}

/// Settings of a rank, and words of the error that all ranks have.
type Refused<'a> = (usize, &'a (dyn Fn(usize) -> String + Sync), &'a [&'a str]);

#[test]
fn what_cannot_be_is_refused_by_all_before_anything_is_written() {
    let texts = tempfile::tempdir().expect("a folder");
    let text = |rank: usize| texts.path().join(format!("{rank}.txt"));
    (0..2)
        .for_each(|rank| std::fs::write(text(rank), format!("{rank} is it. ").repeat(30)).expect("written"));
    let refused: [Refused<'_>; 8] = [
        (
            2,
            &|_| "steps = 1\nglobal_batch_size = 3\n".into(),
            &["global_batch_size 3 is not a multiple of 2", "each of 2 ranks"],
        ),
        (2, &|_| "steps = 1\n[eval]\ntasks = [\"mqar\"]\n".into(), &["eval.tasks", "linc eval"]),
        (
            2,
            &|_| "steps = 1\ndata_parallel_shard_degree = 2\n".into(),
            &["2 times data_parallel_shard_degree 2 is 4", "there are 2 ranks"],
        ),
        (
            2,
            &|rank| format!("steps = 1\nseed = {rank}\n"),
            &["training.seed is 0 on rank 0, but 1 on rank 1"],
        ),
        (
            4,
            &|rank| format!("steps = 1\n[optimizer]\nlr = 0.{}\n", 1 + rank / 2),
            &["optimizer.lr is 0.1 on ranks 0 and 1, but 0.2 on ranks 2 and 3"],
        ),
        (
            2,
            &|rank| format!("steps = 1\ndataset = \"text\"\ndataset_path = {:?}\n", text(rank)),
            &["the training data is", "on rank 1"],
        ),
        // The first one to fail is named, by those that do not fail as well.
        (
            2,
            &|rank| format!("steps = 1\ndataset = \"text\"\ndataset_path = {:?}\n", text(2 * rank)),
            &["2.txt"],
        ),
        (2, &|_| "steps = 1\n[checkpoint]\ninitial_load_path = \"no/such\"\n".into(), &["no/such"]),
    ];
    for (ranks, settings, words) in refused {
        let folder = tempfile::tempdir().expect("a folder");
        let errors = Run::new(folder.path(), ranks, settings).errors();
        for error in &errors {
            assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {errors:?}");
        }
        assert!(!folder.path().join("run/config.toml").exists(), "{words:?}");
    }
}

#[test]
fn a_step_that_is_not_finite_ends_all_and_leaves_the_batches_of_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |_: usize| "steps = 40\nglobal_batch_size = 4\n[optimizer]\nlr = 1e30\n".to_owned();
    let errors = Run::new(folder.path(), 2, &settings).errors();
    assert!(errors.iter().all(|error| error.contains("step 2: loss is")), "{errors:?}");
    let text = std::fs::read_to_string(folder.path().join("run/non-finite-step-2/batch.json"));
    let batch: serde_json::Value = serde_json::from_str(&text.expect("a file")).expect("JSON");
    assert_eq!(batch["batches"].as_array().map(Vec::len), Some(4));
    let alerts = std::fs::read_to_string(folder.path().join("run/alerts.jsonl")).expect("alerts");
    assert_eq!(alerts.lines().count(), 1, "{alerts}");
}

#[test]
fn what_one_rank_meets_in_the_middle_ends_all_and_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    // The rank that writes finds a file where its checkpoints should be.
    std::fs::create_dir_all(folder.path().join("run")).expect("a folder");
    std::fs::write(folder.path().join("run/checkpoint"), "in the way").expect("written");
    let settings = |_: usize| "steps = 4\n[checkpoint]\nenable = true\ninterval = 2\n".to_owned();
    let errors = Run::new(folder.path(), 4, &settings).errors();
    for (rank, error) in errors.iter().enumerate() {
        let told = rank == 0 || error.contains("rank 0 has ended all ranks") || error.contains("rank 0");
        assert!(told && error.contains("checkpoint"), "rank {rank}: {errors:?}");
    }
}
