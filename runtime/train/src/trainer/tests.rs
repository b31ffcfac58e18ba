//! What a run writes to its device before its first step.

mod grad_norms;
mod health;
mod ranks;

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use linc_config::ModelFiles;
use linc_config::shipped::Shipped;
use linc_device::available_memory::Available;
use linc_device::comm::SharedRanks;
use linc_device::cpu::{Cpu, CpuLimits, CpuOptions};
use linc_device::{Arena, Device, DeviceError, Program, Progress};
use linc_driver::Arch;
use linc_plan::{Plan, Role};

use super::{Folder, Observer, Trainer};
use crate::config::JobConfig;
use crate::error::TrainError;
use crate::metrics::{Memory, Record};

/// A CPU whose memory only the device itself reaches, and which counts the bytes that are copied there.
struct Counting {
    cpu: Cpu,
    written: Rc<RefCell<u64>>,
}

impl Device for Counting {
    fn describe(&self) -> String {
        self.cpu.describe()
    }
    fn threads(&self) -> usize {
        self.cpu.threads()
    }
    fn arch(&self) -> Option<Arch> {
        self.cpu.arch()
    }
    fn available(&self) -> Option<Available> {
        self.cpu.available()
    }
    fn total_bytes(&self) -> Option<u64> {
        self.cpu.total_bytes()
    }
    fn allocate(&mut self, bytes: u64) -> Result<Arena, DeviceError> {
        self.cpu.allocate(bytes)
    }
    fn write(&mut self, arena: Arena, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        *self.written.borrow_mut() += bytes.len() as u64;
        self.cpu.write(arena, offset, bytes)
    }
    fn host_memory(&mut self, _arena: Arena) -> Result<Option<&mut [u8]>, DeviceError> {
        Ok(None)
    }
    fn read(&self, arena: Arena, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.cpu.read(arena, offset, bytes)
    }
    fn connect(&mut self, ranks: SharedRanks) -> Result<(), DeviceError> {
        self.cpu.connect(ranks)
    }
    fn load(&mut self, plan: &Plan, arena: Arena, scratch: u64) -> Result<Program, DeviceError> {
        self.cpu.load(plan, arena, scratch)
    }
    fn watch(&mut self, progress: Progress) {
        self.cpu.watch(progress);
    }
    fn loading(&self) -> Option<String> {
        self.cpu.loading()
    }
    fn launch(&mut self, program: Program, steps: Range<usize>) -> Result<(), DeviceError> {
        self.cpu.launch(program, steps)
    }
    fn launch_until(
        &mut self,
        program: Program,
        last: usize,
        stop: &AtomicBool,
    ) -> Result<bool, DeviceError> {
        self.cpu.launch_until(program, last, stop)
    }
    fn profile(&mut self, program: Program, times: &mut [Duration]) -> Result<(), DeviceError> {
        self.cpu.profile(program, times)
    }
    fn peak_flops(&mut self) -> f64 {
        self.cpu.peak_flops()
    }
    fn describe_peak(&mut self) -> String {
        self.cpu.describe_peak()
    }
    fn reached(&mut self, flops: f64) {
        self.cpu.reached(flops);
    }
    fn cpu_limits(&mut self) -> Option<CpuLimits> {
        self.cpu.cpu_limits()
    }
    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.cpu.synchronize()
    }
}

/// Nobody listens.
struct Silent;

impl Observer for Silent {
    fn message(&mut self, _: &str) {}

    fn warning(&mut self, _: &str) {}
    fn progress(&mut self, _: &str, _: u64, _: u64) {}
    fn tuning(&mut self, _: usize, _: usize) {}
    fn step(&mut self, _: usize, _: f32) {}
    fn validating(&mut self, _: usize, _: usize) {}
    fn record(&mut self, _: &Record, _: Memory) {}
    fn validation(&mut self, _: &Record, _: Memory) {}
    fn asking(&mut self, _: &str, _: usize, _: usize) {}
    fn evaluation(&mut self, _: &Record) {}
}

/// A run that is ready for its first step, and the bytes that were written to its device by then.
fn ready(folder: &Path, settings: &str) -> (Trainer, u64) {
    ready_with(folder, "steps = 1\n", &format!("[checkpoint]\nenable = true\n{settings}"))
}

/// [`ready`], with the rest of `[training]` and other sections.
fn ready_with(folder: &Path, training: &str, sections: &str) -> (Trainer, u64) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama3_nano.toml");
    let text = format!(
        "[job]\ndump_folder = {:?}\n[model]\npath = {model:?}\nlinear_attn_ratio = 0.5\n[model.overrides]\nn_layers = 2\n\
         [lr_scheduler]\nwarmup_steps = 0\n\
         [training]\ndataset = \"stories\"\nbatch_size = 1\nseq_len = 16\n{training}{sections}",
        folder.join("run")
    );
    let config = JobConfig::load(&text, "test.toml", &[]).unwrap_or_else(|e| panic!("{e}")).config;
    let files = ModelFiles::resolve(&config.model, &[], &Shipped::NONE).unwrap_or_else(|e| panic!("{e}"));
    let written = Rc::new(RefCell::new(0));
    let cpu = Cpu::new(CpuOptions { threads: Some(1), level: None }).unwrap_or_else(|e| panic!("{e}"));
    let device: Box<dyn Device> = Box::new(Counting { cpu, written: written.clone() });
    let stop = AtomicBool::new(false);
    let trainer = Trainer::new(config, &files, Folder::Named, None, device, &stop, &mut Silent);
    let trainer = trainer.unwrap_or_else(|e| panic!("{e}"));
    let written = *written.borrow();
    (trainer, written)
}

/// Weights, moments and tables. (What decoding keeps from token to token begins with every text.)
fn tensors(trainer: &Trainer) -> Vec<(String, Vec<u8>)> {
    let session = &trainer.session;
    let tables = session.executor.tensors(|role| *role == Role::Table).into_iter().map(|tensor| tensor.name);
    let names = session.params().into_keys().chain(session.optimizer_state()).chain(tables);
    let read = |name: String| {
        let bytes = session.executor.read_tensor(&name).unwrap_or_else(|e| panic!("{e}"));
        (name, bytes)
    };
    names.map(read).collect()
}

#[test]
fn weights_that_are_loaded_are_not_drawn_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut first, drawn) = ready(folder.path(), "");
    let params = 4 * first.model.sizes.params;
    assert!(drawn >= params, "{drawn} bytes of {params} are drawn");
    first.run(&AtomicBool::new(false), &mut Silent).unwrap_or_else(|e| panic!("{e}"));
    let trained = tensors(&first);
    drop(first);

    // Weights and two moments; what is constant at first, such as the gains of norms, may be written before.
    let (again, loaded) = ready(folder.path(), "");
    assert!(
        (3 * params..3 * params + params / 2).contains(&loaded),
        "{loaded} bytes for {params} of weights"
    );
    assert!(tensors(&again) == trained, "other bits");
    drop(again);

    let weights = folder.path().join("run/checkpoint/step-1");
    let other = folder.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    let (new, loaded) = ready(&other, &format!("initial_load_path = {weights:?}\n"));
    assert!((params..params + params / 2).contains(&loaded), "{loaded} bytes for {params} of weights");
    for ((name, new), (_, old)) in tensors(&new).iter().zip(&trained) {
        let is_zero = || new.iter().all(|byte| *byte == 0);
        assert!(new == old || (name.contains("exp_avg") && is_zero()), "{name}");
    }
}

#[test]
fn a_step_that_is_not_finite_is_not_applied_and_leaves_what_explains_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut trainer, _) =
        ready_with(folder.path(), "steps = 40\nreset_at_document = true\n", "[optimizer]\nlr = 1e30\n");
    let error = trainer.run(&AtomicBool::new(false), &mut Silent).expect_err("it cannot go on");
    let TrainError::NotFinite { step: 2, dump, checkpoint: None, .. } = &error else { panic!("{error}") };
    let folder_of_step = folder.path().join("run/non-finite-step-2");
    assert!(dump.ends_with(&folder_of_step.display().to_string()), "{dump}");
    for (name, bytes) in tensors(&trainer) {
        let finite = bytes.as_chunks().0.iter().all(|bytes| f32::from_le_bytes(*bytes).is_finite());
        assert!(finite, "{name} has the step in it");
    }
    let read = |name: &str| -> serde_json::Value {
        let text = std::fs::read_to_string(folder_of_step.join(name)).expect("a file");
        serde_json::from_str(&text).expect("JSON")
    };
    for part in ["tokens", "targets", "positions"] {
        assert_eq!(read("batch.json")["batches"][0][part].as_array().map(Vec::len), Some(16), "{part}");
    }
    let statistics = read("statistics.json");
    let tensors = statistics.as_array().expect("tensors");
    assert!(tensors.iter().all(|tensor| tensor["non_finite"] == 0));
    let largest =
        |tensor: &serde_json::Value| tensor["role"] == "weight" && tensor["max_abs"].as_f64() > Some(1e29);
    assert!(tensors.iter().any(largest), "{statistics}");
    let alerts = std::fs::read_to_string(folder.path().join("run/alerts.jsonl")).expect("alerts");
    assert!(alerts.contains("\"non_finite\"") && alerts.contains("\"error\""), "{alerts}");
}

#[test]
fn steps_that_are_not_finite_can_be_left_out_for_a_while() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = "[optimizer]\nlr = 1e30\n[alerts]\nnon_finite = \"skip\"\n";
    let (mut trainer, _) = ready_with(folder.path(), "steps = 40\n", settings);
    let error = trainer.run(&AtomicBool::new(false), &mut Silent).expect_err("it cannot go on");
    assert!(matches!(error, TrainError::NotFinite { step: 22, .. }), "{error}");
    assert_eq!(trainer.skipped, 20);
}

#[test]
fn a_step_that_is_not_finite_is_told_whatever_lies_in_the_way_of_its_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut trainer, _) = ready_with(folder.path(), "steps = 40\n", "[optimizer]\nlr = 1e30\n");
    std::fs::write(folder.path().join("run/non-finite-step-2"), "in the way").expect("written");
    let error = trainer.run(&AtomicBool::new(false), &mut Silent).expect_err("it cannot go on").to_string();
    assert!(error.contains("gradient norm is NaN") && error.contains("could not be kept"), "{error}");
}

#[test]
fn steps_that_are_left_out_take_the_place_of_no_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = "[optimizer]\nlr = 1e30\n[alerts]\nnon_finite = \"skip\"\n\
                    [checkpoint]\nenable = true\ninterval = 1\nkeep_latest_k = 2\n";
    let (mut trainer, _) = ready_with(folder.path(), "steps = 40\n", settings);
    trainer.run(&AtomicBool::new(false), &mut Silent).expect_err("it cannot go on");
    assert_eq!(linc_checkpoint::steps(&folder.path().join("run/checkpoint")), [1]);
}
