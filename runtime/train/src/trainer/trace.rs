//! Traces of single steps that Perfetto and `chrome://tracing` open: what ran when, with layer and block, operations and bytes.
//!
//! A trace is a JSON object with complete events (`ph: "X"`), times in microseconds since the run began (Trace Event Format,
//! "JSON Object Format").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linc_plan::{AttentionPass, Plan, WorkKind};
use serde_json::{Value, json};

/// Rows of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Row {
    /// Kernels and library calls, one after the other by the device's own clock.
    Kernels = 1,
    /// The next batches are made.
    Data = 2,
    /// Tensors are copied for a checkpoint, or written.
    Checkpoint = 3,
}

const ROWS: [(Row, &str); 3] =
    [(Row::Kernels, "kernels"), (Row::Data, "data"), (Row::Checkpoint, "checkpoint")];

/// Writes a trace of some steps of a run.
#[derive(Debug)]
pub(super) struct Tracer {
    folder: PathBuf,
    /// A trace of each so many steps.
    every: usize,
    begun: Instant,
    events: Vec<Value>,
    /// Traces written.
    pub(super) written: usize,
}

impl Tracer {
    /// Of a run whose traces go to `folder`, of every so many steps.
    pub(super) fn new(folder: PathBuf, every: usize) -> Self {
        Tracer { folder, every: every.max(1), begun: Instant::now(), events: vec![], written: 0 }
    }

    fn micros(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.begun).as_secs_f64() * 1e6
    }

    fn push(&mut self, row: Row, name: &str, from: f64, time: Duration, arguments: Value) {
        self.events.push(json!({
            "name": name,
            "ph": "X",
            "pid": 1,
            "tid": row as u8,
            "ts": from,
            "dur": time.as_secs_f64() * 1e6,
            "args": arguments,
        }));
    }

    /// Adds a program that began at `begun`, with the time of each of its steps.
    pub(super) fn program(&mut self, begun: Instant, plan: &Plan, times: &[Duration], kinds: &[&str]) {
        let mut from = self.micros(begun);
        let works: Vec<WorkKind> = plan.steps.iter().map(|step| step.label.work).collect();
        for ((step, time), pass) in plan.steps.iter().zip(times).zip(passes(&works)) {
            let label = &step.label;
            let kind = label.layer.and_then(|layer| kinds.get(layer).copied());
            let arguments = json!({
                "layer": label.layer,
                "kind": kind,
                "block": label.scope,
                "operation": label.op,
                "work": label.work.name(),
                "pass": pass,
                "flops": step.flops,
                "bytes": step.bytes,
            });
            self.push(Row::Kernels, &plan.work_name(step), from, *time, arguments);
            from += time.as_secs_f64() * 1e6;
        }
    }

    /// Adds the making of batches.
    pub(super) fn data(&mut self, begun: Instant) {
        let from = self.micros(begun);
        self.push(Row::Data, "batches", from, begun.elapsed(), json!({}));
    }

    /// Adds work on a checkpoint.
    pub(super) fn checkpoint(&mut self, what: &str, begun: Instant) {
        let from = self.micros(begun);
        self.push(Row::Checkpoint, what, from, begun.elapsed(), json!({}));
    }

    /// A step is done: writes what was added since the last, if it is its turn.
    pub(super) fn step(&mut self, step: usize) -> io::Result<()> {
        let events = std::mem::take(&mut self.events);
        if !step.is_multiple_of(self.every) {
            return Ok(());
        }
        let folder = self.folder.join(format!("iteration_{step}"));
        fs::create_dir_all(&folder)?;
        let name = |(row, name): &(Row, &str)| json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": *row as u8, "args": { "name": name } });
        let events: Vec<Value> = ROWS.iter().map(name).chain(events).collect();
        let trace = json!({ "traceEvents": events, "displayTimeUnit": "ms", "step": step });
        fs::write(folder.join("rank0_trace.json"), trace.to_string())?;
        self.written += 1;
        Ok(())
    }

    /// Where traces go.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Which pass each step of a program belongs to. The loss ends the forward, with its gradient, which is computed beside it; what
/// is computed again behind it is for the backward. A program without a backward is all forward.
fn passes(works: &[WorkKind]) -> Vec<&'static str> {
    let trains = works
        .iter()
        .any(|work| matches!(work, WorkKind::Optimizer | WorkKind::Attention(AttentionPass::Backward)));
    let loss = works.iter().rposition(|work| *work == WorkKind::Loss);
    let is_forward = |at: usize| !trains || loss.is_some_and(|loss| at <= loss);
    let pass = |(at, work): (usize, &WorkKind)| match work {
        WorkKind::Optimizer => "optimizer",
        _ if is_forward(at) => "forward",
        _ => "backward",
    };
    works.iter().enumerate().map(pass).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_ends_the_forward() {
        use WorkKind::{Attention, Loss, Optimizer, Product};
        let [forward, backward] = [Attention(AttentionPass::Forward), Attention(AttentionPass::Backward)];
        // Attention that is computed again is a part of the backward.
        let works = [Product, forward, Product, Loss, Product, Loss, forward, backward, Product, Optimizer];
        let expected = [
            "forward",
            "forward",
            "forward",
            "forward",
            "forward",
            "forward",
            "backward",
            "backward",
            "backward",
            "optimizer",
        ];
        assert_eq!(passes(&works), expected);
        assert_eq!(passes(&[Product, forward, Loss, Product]), ["forward"; 4], "it validates");
        assert_eq!(passes(&[Optimizer, Product]), ["optimizer", "backward"], "an update by itself");
    }

    #[test]
    fn a_trace_has_what_was_added_since_the_step_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut tracer = Tracer::new(folder.path().join("traces"), 2);
        tracer.data(Instant::now());
        tracer.step(1).expect("nothing to write");
        assert!(!folder.path().join("traces").exists());
        tracer.checkpoint("copy", Instant::now());
        tracer.step(2).expect("written");
        let text =
            fs::read_to_string(folder.path().join("traces/iteration_2/rank0_trace.json")).expect("a trace");
        let trace: Value = serde_json::from_str(&text).expect("JSON");
        let events = trace["traceEvents"].as_array().expect("events");
        assert_eq!(events.len(), ROWS.len() + 1, "names of rows and the copy");
    }
}
