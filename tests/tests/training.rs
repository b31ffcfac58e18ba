//! Training runs on the CPU in every precision, from the same weights on the same batches: losses of bf16 and f16 against
//! those of f32, and the scale of the loss in f16.

use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::{LossScale, Model, Options, PassSetting, Precision, RecomputePolicy, names};
use linc_exec::Executor;
use linc_tests::models::{compiled, sized, training};

const BATCH: usize = 2;
const SEQ: usize = 24;

/// A hybrid with several chunks and grouped heads.
fn hybrid() -> Model {
    let numbers = [
        ("dim", 32.0),
        ("n_layers", 2.0),
        ("n_heads", 4.0),
        ("n_kv_heads", 2.0),
        ("vocab_size", 32.0),
        ("ffn_dim_multiplier", 0.5),
        ("multiple_of", 8.0),
        ("linear_attention.chunk", 8.0),
    ];
    sized("nano", &numbers, "0.5")
}

/// A step, as its outputs say.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Step {
    loss: f32,
    grad_norm: f32,
    /// The scale of the loss, and the steps skipped so far; 1 and 0 where there is no scale.
    scale: f32,
    skipped: f32,
}

/// A run of one program.
struct Run {
    executor: Executor,
    scales: bool,
    /// Batches so far.
    batches: u16,
    /// The input `step`.
    step: u16,
    /// Of a batch.
    tokens: usize,
}

impl Run {
    fn new(precision: Precision, loss_scale: LossScale) -> Run {
        Run::of(&Options { precision, loss_scale, ..Options::new(BATCH, SEQ) })
    }

    fn of(options: &Options) -> Run {
        let plan = compiled(&hybrid(), &training(), options).plan;
        let cpu = Cpu::new(CpuOptions { threads: Some(2), level: None }).unwrap_or_else(|e| panic!("{e}"));
        let mut executor = Executor::new(Box::new(cpu), vec![plan]).unwrap_or_else(|e| panic!("{e}"));
        executor.initialize(1).unwrap_or_else(|e| panic!("{e}"));
        let (scales, tokens) = (options.precision.scales_loss(), options.batch * options.seq);
        Run { executor, scales, batches: 0, step: 0, tokens }
    }

    /// Trains on the next batch.
    fn next(&mut self) -> Step {
        let ids = |at: usize| -> Vec<u8> {
            // Text of a short period, which can be learnt.
            let id = |i: usize| ((i * i + 3 * i) % 7 + i % 3) as i32;
            (at..at + self.tokens).flat_map(|i| id(i).to_le_bytes()).collect()
        };
        let at = usize::from(self.batches) * 5;
        self.batches += 1;
        self.step += 1;
        let inputs = [
            (names::TOKENS, ids(at)),
            (names::TARGETS, ids(at + 1)),
            (names::LEARNING_RATE, 3e-3f32.to_le_bytes().to_vec()),
            (names::STEP, f32::from(self.step).to_le_bytes().to_vec()),
        ];
        for (name, bytes) in inputs {
            self.executor.write_input(0, name, &bytes).unwrap_or_else(|e| panic!("{e}"));
        }
        self.executor.run(0).unwrap_or_else(|e| panic!("{e}"));
        let scalar = |name| self.executor.output(0, name).unwrap_or_else(|e| panic!("{e}"))[0];
        let (scale, skipped) =
            if self.scales { (scalar(names::LOSS_SCALE), scalar(names::SKIPPED_STEPS)) } else { (1.0, 0.0) };
        Step { loss: scalar(names::LOSS), grad_norm: scalar(names::GRAD_NORM), scale, skipped }
    }

    fn steps(&mut self, count: usize) -> Vec<Step> {
        (0..count).map(|_| self.next()).collect()
    }

    /// All parameters and states that are not the scale's.
    fn tensors(&self) -> Vec<(String, Vec<u8>)> {
        use linc_plan::{Role, StateRole};
        let wanted = |role: &Role| match role {
            Role::Param => true,
            Role::State(state) => *state != StateRole::LossScale,
            Role::Input | Role::Table | Role::Output => false,
        };
        let names = self.executor.tensors(wanted).into_iter().map(|t| t.name);
        names.map(|n| (n.clone(), self.executor.read_tensor(&n).unwrap_or_else(|e| panic!("{e}")))).collect()
    }
}

fn run(precision: Precision) -> Vec<Step> {
    Run::new(precision, LossScale::default()).steps(50)
}

#[test]
fn fifty_steps_have_the_losses_of_f32() {
    let exact = run(Precision::Float32);
    assert!(exact[49].loss < 0.7 * exact[0].loss, "nothing was learnt: {exact:?}");
    for (precision, tolerance) in [(Precision::Bfloat16, 0.01), (Precision::Float16, 0.002)] {
        let rounded = run(precision);
        for (step, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
            for (what, exact, rounded, tolerance) in [
                ("loss", exact.loss, rounded.loss, tolerance),
                ("norm", exact.grad_norm, rounded.grad_norm, 20.0 * tolerance),
            ] {
                assert!(
                    (exact - rounded).abs() < tolerance * exact,
                    "step {step}: {what} {exact} in f32, {rounded} in {}",
                    precision.name()
                );
            }
        }
        assert_eq!(run(precision), rounded, "a run repeats");
    }
    let last = run(Precision::Float16)[49];
    assert_eq!((last.scale, last.skipped), (65536.0, 0.0));
}

/// A scale at which nothing fits is halved until the gradients fit. Until then nothing changes, and what comes after is a
/// run that begins with that scale, to the last bit, step number of AdamW included.
#[test]
fn an_overflow_is_skipped_and_the_scale_backs_off() {
    let huge = LossScale { initial: 2f64.powi(40), ..LossScale::default() };
    let mut run = Run::new(Precision::Float16, huge);
    let start = run.tensors();
    let mut skipped = 0;
    let first = loop {
        let step = run.next();
        assert!(step.loss.is_finite());
        assert_eq!(f64::from(step.scale), 2f64.powi(40 - skipped));
        if step.grad_norm.is_finite() {
            break step;
        }
        skipped += 1;
        assert_eq!(step.skipped, skipped as f32);
        assert!(run.tensors() == start, "a skipped step changed something");
        assert!(skipped < 40, "no scale fits");
    };
    assert!((10..30).contains(&skipped), "{skipped} steps were skipped");
    assert!(run.tensors() != start);
    let rest = run.steps(40);
    assert!(rest.iter().all(|step| step.loss.is_finite()) && rest[39].loss < 0.8 * first.loss, "{rest:?}");

    let fits = LossScale { initial: f64::from(first.scale), ..LossScale::default() };
    let mut other = Run::new(Precision::Float16, fits);
    other.batches = skipped as u16;
    let again: Vec<f32> = other.steps(41).iter().map(|step| step.loss).collect();
    let losses: Vec<f32> = [vec![first], rest].concat().iter().map(|step| step.loss).collect();
    assert_eq!(losses, again);
}

#[test]
fn the_scale_grows_after_good_steps_in_a_row() {
    let eager = LossScale { initial: 4.0, interval: 3, ..LossScale::default() };
    let steps = Run::new(Precision::Float16, eager).steps(100);
    let scales: Vec<f32> = steps[..10].iter().map(|step| step.scale).collect();
    assert_eq!(scales, [4.0, 4.0, 4.0, 8.0, 8.0, 8.0, 16.0, 16.0, 16.0, 32.0]);
    // Where it overflows, it is halved, and the good steps are counted from there.
    let over = steps.iter().position(|step| !step.grad_norm.is_finite()).expect("an overflow in the end");
    let scales: Vec<f32> = steps[over..over + 5].iter().map(|step| step.scale / steps[over].scale).collect();
    assert_eq!(scales, [1.0, 0.5, 0.5, 0.5, 1.0]);
    assert!(steps.iter().all(|step| step.loss.is_finite()));
}

/// A pass that only moves things: rotary positions, gradients and copies write head by head, and all bits stay.
#[test]
fn what_long_softmax_attention_reads_lies_by_heads_and_has_the_same_bits() {
    for (recompute, precision) in [
        (RecomputePolicy::None, Precision::Float32),
        (RecomputePolicy::Full, Precision::Float32),
        (RecomputePolicy::None, Precision::Bfloat16),
    ] {
        let options = |packed: bool| Options {
            recompute,
            precision,
            disabled: (!packed).then(|| "pack_heads".to_string()).into_iter().collect(),
            ..Options::new(1, 512)
        };
        let copies = |packed: bool| {
            let plan = compiled(&hybrid(), &training(), &options(packed)).plan;
            plan.kernels.iter().filter(|kernel| kernel.name.starts_with("copy_1x")).count()
        };
        assert!(copies(true) > copies(false), "nothing is packed");
        let [mut packed, mut apart] = [true, false].map(|packed| Run::of(&options(packed)));
        assert_eq!(packed.steps(2), apart.steps(2), "{recompute:?}");
        assert!(packed.tensors() == apart.tensors(), "weights or moments differ: {recompute:?}");
    }
}
