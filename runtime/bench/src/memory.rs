//! Kernels that memory limits, as shares of the device's copy bandwidth: of a training step of the model, all kernels
//! that are neither matrix product nor attention. Of each kind the launch that moves most bytes stands for it.

use std::collections::BTreeMap;

use linc_device::words::count;
use linc_driver::{Model, Options, PersistentLayout, Precision, RecomputePolicy};
use linc_exec::{ExecError, Executor};
use linc_plan::{ALIGN, Action, Buffer, Category, Kernel, Plan, Ref, Space, Step};
use linc_session::{SessionError, memory_table, target};
use serde::Serialize;

use super::{Feed, Open, Tell, Times, Timing, Told, check_loss, compile_options, train_entry};
use crate::BenchError;

/// The copy moves as many bytes as the largest kernel, within these: more than caches hold, and little of a device.
const COPY_BYTES: [u64; 2] = [1 << 20, 1 << 30];

/// A kernel that moves less than the largest by this factor has no row: of a few bytes, the time of a launch is all there
/// is to see.
const SMALL: u64 = 5000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct MemoryBench {
    /// The model; a layer of it is enough.
    pub model: Model,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Sequences of a batch.
    pub batch: usize,
    /// Number format of activations.
    pub precision: Precision,
    /// How many runs warm up, and how many are timed.
    pub timing: Timing,
}

/// One kind of kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryRow {
    /// Where in the model: `feed_forward rms_norm`.
    pub step: String,
    /// Its name, which tells shapes and types.
    pub kernel: String,
    /// Launches of it in a step, over which times are averaged.
    pub launches: usize,
    /// One launch.
    pub ms: Times,
    /// Bytes that a launch must move.
    pub bytes: u64,
    /// 10^9 bytes per second.
    pub gbytes: f64,
    /// Of the copy's bytes per second.
    pub share: f64,
    /// Of those of a copy that moves as many bytes: one of few megabytes is over before all of memory is busy. Nothing for
    /// a kernel that moves more than the yardstick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_size: Option<f64>,
}

/// The yardstick: a copy on the device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CopySpeed {
    /// Read and written.
    pub bytes: u64,
    /// One copy.
    pub ms: Times,
    /// 10^9 bytes per second.
    pub gbytes: f64,
}

/// Launches that move too little for a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SmallLaunches {
    /// Each moves less.
    pub below_bytes: u64,
    /// In a step.
    pub launches: usize,
    /// All of a step.
    pub ms: Times,
}

/// All rows, most bytes first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryReport {
    /// The device in words.
    pub device: String,
    /// A plain copy on the same device, which the rows are compared with.
    pub copy: CopySpeed,
    /// One per kind of kernel.
    pub rows: Vec<MemoryRow>,
    /// What has no row.
    pub small: SmallLaunches,
}

/// Measures kernels that memory limits, and a copy in the same rounds.
///
/// # Errors
/// [`BenchError`]: a model that does not compile or fit, or what the device refuses.
pub fn memory(
    bench: &MemoryBench,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
) -> Result<MemoryReport, BenchError> {
    let MemoryBench { model, seq, batch, timing, .. } = bench;
    if *batch == 0 || *seq == 0 {
        return Err(BenchError::Request("sequences and tokens must be at least 1".into()));
    }
    tell(Told::Case(&format!("memory: {}, {batch} x {}", model.title(), count(*seq, "token"))));
    let device = open()?;
    let target = target(&*device);
    let options = Options { target, ..compile_options(*batch, *seq, bench.precision, RecomputePolicy::None) };
    let compiled = linc_driver::compile(model, &train_entry(), &options, &mut PersistentLayout::default())?;
    let (kinds, small) = kinds(&compiled.plan);
    let largest = kinds.iter().map(|kind| kind.bytes).max().unwrap_or(0);
    let copied = (largest / 2).clamp(COPY_BYTES[0], COPY_BYTES[1]).min(compiled.plan.persistent_bytes);
    // A copy that is not counted, the yardstick, then a copy of each kind's size.
    let aligned = |bytes: u64| (bytes.min(copied) / ALIGN).max(1) * ALIGN;
    let sizes: Vec<u64> =
        [copied; 2].into_iter().chain(kinds.iter().map(|k| k.bytes / 2)).map(aligned).collect();
    let plans = vec![compiled.plan, copy_plan(&sizes)];
    let table = memory_table(&[&plans[0]]);
    let mut executor = Executor::new(device, plans).map_err(|error| match error {
        ExecError::DoesNotFit { .. } => {
            SessionError::DoesNotFit { error, table, help: "give a smaller --seq or --batch-size" }
        }
        other => SessionError::Exec(other),
    })?;
    executor.initialize(0)?;
    let feed = Feed::new(batch * seq, model.sizes.vocab_size, 1e-5);
    let (mut seconds, mut copies) = (vec![vec![]; kinds.len()], vec![vec![]; sizes.len()]);
    let mut small_seconds = vec![];
    for round in 0..timing.warmup + timing.rounds {
        feed.step(&mut executor, 0, round + 1)?;
        let times = executor.step_times(0)?;
        check_loss(&executor, 0)?;
        let copy = executor.step_times(1)?;
        timing.tell(round + 1, tell);
        if round < timing.warmup {
            continue;
        }
        for (copies, time) in copies.iter_mut().zip(&copy) {
            copies.push(time.as_secs_f64());
        }
        let total = |steps: &[usize]| steps.iter().map(|step| times[*step].as_secs_f64()).sum::<f64>();
        for (seconds, kind) in seconds.iter_mut().zip(&kinds) {
            seconds.push(total(&kind.steps) / kind.steps.len() as f64);
        }
        small_seconds.push(total(&small));
    }
    let mut copies = copies.into_iter().zip(&sizes).map(|(seconds, bytes)| {
        let ms = Times::of(seconds);
        CopySpeed { bytes: 2 * bytes, ms, gbytes: ms.giga(2 * bytes) }
    });
    let copy = copies.nth(1).expect("the yardstick comes second");
    let row = |((kind, seconds), same): ((KernelKind, Vec<f64>), CopySpeed)| {
        let ms = Times::of(seconds);
        let gbytes = ms.giga(kind.bytes);
        MemoryRow {
            step: kind.step,
            kernel: kind.kernel,
            launches: kind.steps.len(),
            ms,
            bytes: kind.bytes,
            gbytes,
            share: gbytes / copy.gbytes,
            share_of_size: (kind.bytes <= copy.bytes).then(|| gbytes / same.gbytes),
        }
    };
    let rows = kinds.into_iter().zip(seconds).zip(copies).map(row).collect();
    let ms = Times::of(small_seconds);
    let small = SmallLaunches { below_bytes: largest.div_ceil(SMALL), launches: small.len(), ms };
    Ok(MemoryReport { device: executor.describe_device(), copy, rows, small })
}

/// Launches of one kernel that stand for their kind.
struct KernelKind {
    step: String,
    kernel: String,
    bytes: u64,
    /// Positions in the plan.
    steps: Vec<usize>,
}

/// The kinds of a plan, most bytes first, and the positions of launches that are too small for one.
fn kinds(plan: &Plan) -> (Vec<KernelKind>, Vec<usize>) {
    let mut considered = vec![];
    let mut kinds: BTreeMap<(String, String), KernelKind> = BTreeMap::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let Action::Launch { kernel, .. } = step.action else { continue };
        let (Kernel { name: kernel, family, .. }, operation) =
            (&plan.kernels[kernel], step.label.op.as_str());
        if step.bytes == 0 || step.label.attention().is_some() {
            continue;
        }
        considered.push(index);
        // Fused regions differ in what they compute; other kernels of a name differ in their sizes only.
        let family = if operation == "fused" { kernel } else { family };
        let kind = kinds.entry((operation.to_string(), family.clone())).or_insert_with(|| KernelKind {
            step: String::new(),
            kernel: String::new(),
            bytes: 0,
            steps: vec![],
        });
        if step.bytes > kind.bytes {
            *kind = KernelKind {
                step: step.label.of_any_layer().to_string(),
                kernel: kernel.clone(),
                bytes: step.bytes,
                steps: vec![index],
            };
        } else if *kernel == kind.kernel {
            kind.steps.push(index);
        }
    }
    let largest = kinds.values().map(|kind| kind.bytes).max().unwrap_or(0);
    let mut kinds: Vec<KernelKind> =
        kinds.into_values().filter(|kind| kind.bytes * SMALL > largest).collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.bytes));
    considered.retain(|index| plan.steps[*index].bytes * SMALL <= largest);
    (kinds, considered)
}

/// Copies bytes of the persistent part, which are parameters, into the scratch part, so many in each step; none copies more
/// than the first. Each begins where the one before it ended, so that small ones find nothing in a cache.
pub(super) fn copy_plan(sizes: &[u64]) -> Plan {
    let bytes = sizes[0];
    let buffer = |name: &str, space| Buffer {
        name: name.into(),
        space,
        offset: 0,
        bytes,
        category: Category::Workspace,
        live: (0, sizes.len() - 1),
    };
    let mut end = 0;
    let mut step = |copied: u64| {
        let offset = if end + copied <= bytes { end } else { 0 };
        end = offset + copied;
        let at = |buffer| Ref { buffer, offset };
        let action = Action::Copy { from: at(0), to: at(1), bytes: copied };
        Step { action, label: "copy".into(), flops: 0, bytes: 2 * copied }
    };
    Plan {
        name: "copy".into(),
        persistent_bytes: bytes,
        scratch_bytes: bytes,
        buffers: vec![buffer("from", Space::Persistent), buffer("to", Space::Scratch)],
        kernels: vec![],
        steps: sizes.iter().map(|bytes| step(*bytes)).collect(),
        bindings: vec![],
        world: linc_plan::World::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_a_valid_plan() {
        linc_plan::validate::validate(&copy_plan(&[4096, 64, 1024])).expect("valid");
    }
}
