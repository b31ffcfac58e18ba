//! What a compilation says about the model: sizes, layers, FLOPs, memory, kernels.

use std::collections::BTreeMap;

use linc_ir::{Class, Graph, NodeId};
use linc_kernels::Cost;
use linc_passes::setting::PassSetting;
use linc_passes::{loss, recompute};
use linc_plan::memory::{Peak, peak};
use linc_plan::{Category, Plan};
use serde::Serialize;

use crate::Options;
use crate::model::Model;
use crate::ranks::RankReport;

/// One kernel or library call with its use in the plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelRow {
    /// [`Plan::work_name`] of its steps.
    pub name: String,
    /// Launches in one run.
    pub launches: u64,
    /// Floating-point operations of all launches.
    pub flops: u64,
    /// Bytes of all launches.
    pub bytes: u64,
}

/// Time of one pass, by the caller's clock.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PassTime {
    /// As `--dump` and `--disable-pass` take it; `kernels` for the lowering to tile programs.
    pub pass: String,
    /// Elapsed since the pass before ended.
    pub seconds: f64,
    /// Nodes of the graph when the pass had ended.
    pub nodes: usize,
}

/// What the backward computes again, and what it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Recomputed {
    /// Floating-point operations that are done again.
    pub recomputed_flops: u64,
    /// Bytes that operations which are done again move; fusion may save some of them.
    pub recomputed_bytes: u64,
    /// Bytes of forward values that wait for the backward.
    pub kept_bytes: u64,
}

impl Recomputed {
    /// Of a graph after the pass.
    pub(crate) fn of(graph: &Graph) -> Recomputed {
        let again = graph.nodes().filter(|id| graph.node(*id).recompute);
        let views = |id: &NodeId| graph.op(*id).facts().class == Class::View;
        let cost = again.filter(|id| !views(id)).map(|id| linc_kernels::cost::cost(graph, id));
        let Cost { flops, bytes } = cost.fold(Cost::default(), |sum, cost| sum + cost);
        // What a malformed graph keeps is said elsewhere, by its error.
        let kept_bytes = recompute::kept_bytes(graph, loss::LOSS).unwrap_or(0);
        Recomputed { recomputed_flops: flops, recomputed_bytes: bytes, kept_bytes }
    }
}

/// The report of one compilation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// `llama3 1B`
    pub model: String,
    /// Program: train, eval, decode ...
    pub entry: String,
    /// Trainable numbers.
    pub params: u64,
    /// `softmax` or `linear` per layer.
    pub layers: Vec<&'static str>,
    /// `LLLS LLLS ..`
    pub layer_map: String,
    /// Share of linear layers.
    pub linear_share: f64,
    /// The share that was asked for, if it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_share_asked: Option<f64>,
    /// Sequences of a batch.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Number format of activations and matmul operands.
    pub precision: &'static str,
    /// Floating-point operations per token, counted from the plan.
    pub flops_per_token: u64,
    /// The same in TorchTitan's convention (training only).
    pub titan_flops_per_token: u64,
    /// What the backward was asked to compute again (training only).
    pub recompute: String,
    /// What it does compute again.
    #[serde(flatten)]
    pub recomputed: Recomputed,
    /// Size of the arena.
    pub peak_bytes: u64,
    /// Bytes in use at the fullest step: [`Peak::floor`], below which no placing of the buffers goes.
    pub floor_bytes: u64,
    /// Bytes by category at the peak.
    pub memory: BTreeMap<&'static str, u64>,
    /// Bytes of what is kept for the backward, by category, at the peak of that alone.
    pub kept_memory: BTreeMap<&'static str, u64>,
    /// The rank that it is for, if that is one of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RankReport>,
    /// All kernels, most FLOPs first.
    pub kernels: Vec<KernelRow>,
    /// Time per pass.
    pub passes: Vec<PassTime>,
}

impl Report {
    pub(crate) fn new(
        model: &Model,
        entry: &str,
        options: &Options,
        plan: &Plan,
        recomputed: Recomputed,
        passes: Vec<PassTime>,
    ) -> Self {
        let Options { batch, seq, precision, .. } = *options;
        let peak = peak(&[plan]);
        let floor_bytes = peak.floor();
        let Peak { bytes: peak_bytes, categories, kept } = peak;
        Report {
            model: model.title(),
            entry: entry.to_string(),
            params: model.sizes.params,
            layers: model.kinds.iter().map(|k| k.label()).collect(),
            layer_map: model.layer_map(),
            linear_share: model.share().as_f64(),
            linear_share_asked: model
                .asked
                .filter(|asked| *asked != model.share())
                .map(|asked| asked.as_f64()),
            batch,
            seq,
            precision: precision.name(),
            flops_per_token: plan.flops() / (batch * seq).max(1) as u64,
            titan_flops_per_token: model.titan_flops_per_token(seq),
            recompute: options.recompute.to_string(),
            recomputed,
            peak_bytes,
            floor_bytes,
            memory: by_name(&categories),
            kept_memory: by_name(&kept),
            ranks: RankReport::of(plan, &options.mesh),
            kernels: kernel_rows(plan),
            passes,
        }
    }
}

/// Bytes by the category's name.
pub fn by_name(categories: &[(Category, u64)]) -> BTreeMap<&'static str, u64> {
    categories.iter().map(|(category, bytes)| (category.name(), *bytes)).collect()
}

fn kernel_rows(plan: &Plan) -> Vec<KernelRow> {
    let mut rows: BTreeMap<String, KernelRow> = BTreeMap::new();
    for step in &plan.steps {
        let name = plan.work_name(step);
        let row = rows.entry(name.clone()).or_insert(KernelRow { name, launches: 0, flops: 0, bytes: 0 });
        row.launches += 1;
        row.flops += step.flops;
        row.bytes += step.bytes;
    }
    let mut rows: Vec<KernelRow> = rows.into_values().collect();
    rows.sort_by(|a, b| b.flops.cmp(&a.flops).then_with(|| a.name.cmp(&b.name)));
    rows
}
