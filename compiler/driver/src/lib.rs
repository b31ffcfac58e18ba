//! The compiler as one call: a model and options in, a plan, a report and dumps out.
//!
//! Invariants: no file, clock or device is touched; texts come in and dumps go out as strings; a clock, where times
//! are wanted, is the caller's.

mod assemble;
mod decode_support;
mod error;
mod fit;
mod likeness;
mod locate;
mod look;
mod mixed;
mod model;
mod ranks;
mod report;
mod trial;
mod work_kind;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use linc_lang::BuildShape;
use linc_passes::attention::decode;
use linc_passes::{pack_heads, pipeline};

pub use decode_support::{DecodeSupport, decode_support};
pub use error::CompileError;
pub use fit::{Candidate, Fit, fit, modes};
pub use likeness::check_same;
pub use linc_codegen_cuda::Arch;
pub use linc_ir::{AdamSpec, AdamWSpec, AttentionFamily, AttentionKind, ParamRole, UpdateOp};
pub use linc_kernels::{HEAD_DIM_MULTIPLE, tiles};
pub use linc_lang::{Diagnostic, Diagnostics, ModelConfig, Source};
pub use linc_passes::PassError;
pub use linc_passes::attention::decode::Room;
pub use linc_passes::exchanges::Reduce;
pub use linc_passes::loss_scale::LossScale;
pub use linc_passes::memory::PersistentLayout;
pub use linc_passes::mesh::{Mesh, MeshAxis};
pub use linc_passes::mix::CopiedParam;
pub use linc_passes::optimizer::{AdjustLr, MuonSpec, OptimizerOptions, ParamGroup, Rule as UpdateRule};
pub use linc_passes::pipeline::{Entry, Mixed, OPTIONAL as OPTIONAL_PASSES};
pub use linc_passes::placement::{Placement, Ratio, layer_kinds, layer_map};
pub use linc_passes::precision::Precision;
pub use linc_passes::recompute::{Limit as MemoryLimit, Mode as RecomputeMode, Policy as RecomputePolicy};
pub use linc_passes::setting::PassSetting;
pub use look::{HeadWeights, LookedAt, effective_count, looked_at};
pub use mixed::copies;
pub use model::{Attention, BatchShape, Model, Parameter, Sizes};
pub use ranks::{GroupRow, RankReport, check_other_ranks};
pub use report::{KernelRow, PassTime, Report, by_name};
pub use trial::{Trial, trial};

/// Names of the tensors that a caller feeds and reads.
pub mod names {
    pub use linc_passes::accumulate::{KEEP, SHARE};
    pub use linc_passes::attention::decode::{SLOT, TOKEN_MASK};
    pub use linc_passes::attention::exposed::{Exposed, Part};
    pub use linc_passes::loss::{BEST, BEST_LOG_PROBS, LOG_PROBS, LOGITS, LOSS, TARGETS};
    pub use linc_passes::loss_scale::{
        LOSS_SCALE, SCALE_STATE as LOSS_SCALE_STATE, SKIPPED_STEPS, STATES as LOSS_SCALE_STATES,
    };
    pub use linc_passes::mix::{ALIGNMENT, DIVERGENCE, GATE_GRADIENTS, TEACHER, WEIGHTS, gate};
    pub use linc_passes::optimizer::{GRAD_NORM, GRAD_NORMS, LEARNING_RATE, STEP};
    pub use linc_passes::positions::{POSITION, POSITIONS};

    /// Token ids, i32 `[batch, seq]`.
    pub const TOKENS: &str = "tokens";
}

/// The machine that a program is for. It runs on any, but fast only there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    /// Few processors with large caches.
    #[default]
    Cpu,
    /// A GPU of that family.
    Cuda(Arch),
}

impl From<Target> for linc_kernels::Target {
    fn from(target: Target) -> Self {
        match target {
            Target::Cpu => linc_kernels::Target::Cpu,
            Target::Cuda(arch) if arch.has_warpgroups() => linc_kernels::Target::Hopper,
            Target::Cuda(_) => linc_kernels::Target::Cuda,
        }
    }
}

/// How a prompt is taken in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// Tokens of a block.
    pub tokens: usize,
    /// Length of the caches: the last block has room for all of its tokens.
    pub context: usize,
}

/// The blocks of [`Entry::Prefill`] for prompts of up to `context` tokens, at least 1; nothing if the model takes prompts
/// token by token, or has no attention that would keep anything of them.
pub fn prompt_blocks(model: &Model, target: Target, context: usize) -> Option<Blocks> {
    let tokens = linc_kernels::prefill_tokens(target.into()).min(context.max(1));
    let in_blocks =
        !model.attentions.is_empty() && decode::takes_blocks(&model.kinds, &model.attention_options(target));
    in_blocks.then(|| Blocks { tokens, context: context.next_multiple_of(tokens) })
}

/// Options of one compilation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sequences at once.
    pub batch: usize,
    /// Tokens of a sequence. [`Entry::Prefill`] has its own number, and [`Entry::Decode`] takes one.
    pub seq: usize,
    /// Number format of activations and matmul operands; masters of the weights are f32.
    pub precision: Precision,
    /// Weights that only products read are stored in that format: of programs that do not train.
    pub narrow_weights: bool,
    /// The documents of a sequence see nothing of each other: programs that train and [`Entry::Eval`] have the input
    /// [`names::POSITIONS`], i32 `[batch, seq]`, the position of each token in its document.
    pub documents: bool,
    /// How the scale of the loss changes; only f16 has one.
    pub loss_scale: LossScale,
    /// The machine that kernels are shaped for, and that dumps have the code of.
    pub target: Target,
    /// What the backward recomputes.
    pub recompute: RecomputePolicy,
    /// The ranks of the run, and this one among them. All programs of an arena have the same. With several, [`Entry::Train`] has the
    /// input [`names::SHARE`], the share of the step's targets that this rank's batch has, and its loss is that batch's; it, and
    /// [`Entry::Update`], exchange gradients. States that are shared out are bindings with a shard.
    pub mesh: Mesh,
    /// Who adds up what they exchange. Of all devices only GPUs have a library that does.
    pub reduce: Reduce,
    /// Tile sizes of attention that replace linc's own.
    pub tiles: tiles::Tiles,
    /// Optional passes that are switched off.
    pub disabled: BTreeSet<String>,
    /// Keep the texts of all stages.
    pub dumps: bool,
    /// Seconds on any clock; without one, passes take no time.
    pub clock: Option<fn() -> f64>,
}

impl Options {
    /// Defaults for a batch shape.
    pub fn new(batch: usize, seq: usize) -> Self {
        Options {
            batch,
            seq,
            precision: Precision::default(),
            narrow_weights: false,
            documents: false,
            loss_scale: LossScale::default(),
            target: Target::default(),
            recompute: RecomputePolicy::default(),
            mesh: Mesh::default(),
            reduce: Reduce::default(),
            tiles: tiles::Tiles::new(),
            disabled: BTreeSet::new(),
            dumps: false,
            clock: None,
        }
    }
}

/// A text of one stage, with the file name it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Relative path, `graph/03-attention.ir`.
    pub path: String,
    /// Contents.
    pub text: String,
}

/// The result of a compilation.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Buffers, kernels and steps: all that the runtime needs.
    pub plan: linc_plan::Plan,
    /// FLOPs, memory, kernels and times of passes, for people.
    pub report: Report,
    /// Kernels whose tile sizes can be chosen.
    pub sites: BTreeSet<tiles::Site>,
    /// Texts of all stages, if asked for.
    pub dumps: Vec<Dump>,
}

impl Compiled {
    /// The text of the graph after a pass; nothing if there is no such pass, or texts were not kept.
    pub fn graph_after(&self, pass: &str) -> Option<&str> {
        let position = self.report.passes.iter().position(|time| time.pass == pass)?;
        let path = graph_path(position + 1, pass);
        self.dumps.iter().find(|dump| dump.path == path).map(|dump| dump.text.as_str())
    }
}

/// Where the graph after a pass goes, the `number`th of all.
fn graph_path(number: usize, pass: &str) -> String {
    format!("graph/{number:02}-{pass}.ir")
}

/// A layout for programs of one arena, which has what one rule of their optimizer updates side by side, whichever program is
/// compiled first.
pub fn layout_for<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> PersistentLayout {
    let groups = entries.into_iter().find_map(Entry::optimizer).into_iter().flat_map(|o| &o.groups);
    PersistentLayout::grouped(groups.map(|group| &group.params))
}

/// Compiles one program of a model. `layout` keeps persistent tensors in place across the programs of one arena.
///
/// # Errors
/// [`CompileError`]: the model's, a setting's, or an internal one that names its pass.
pub fn compile(
    model: &Model,
    entry: &Entry,
    options: &Options,
    layout: &mut PersistentLayout,
) -> Result<Compiled, CompileError> {
    let RecomputePolicy::Budget(MemoryLimit::Bytes(limit)) = options.recompute else {
        return compile_once(model, entry, options, layout);
    };
    // What was decided by a plan of nodes may take a little more in steps. Then a little less is allowed.
    let mut allowed = limit;
    loop {
        let recompute = RecomputePolicy::Budget(MemoryLimit::Bytes(allowed));
        let mut compiled = compile_once(model, entry, &Options { recompute, ..options.clone() }, layout)?;
        compiled.report.recompute = options.recompute.to_string();
        let bytes = compiled.report.peak_bytes;
        if bytes <= limit || !matches!(entry, Entry::Train(_) | Entry::Accumulate) {
            return Ok(compiled);
        }
        let (batch, seq) = (options.batch, options.seq);
        let next = fit::less(limit, allowed, bytes);
        allowed = next.ok_or(CompileError::Budget { batch, seq, least: bytes, limit })?;
    }
}

fn compile_once(
    model: &Model,
    entry: &Entry,
    options: &Options,
    layout: &mut PersistentLayout,
) -> Result<Compiled, CompileError> {
    let now = || options.clock.map_or(0.0, |clock| clock());
    let (batch, seq) = (options.batch, options.seq);
    let mut last = now();
    let built = |batch, seq| {
        model.build(BuildShape { batch, seq, rope_len: seq }).map(|built| (built.graph, built.origins))
    };
    let as_built = || match entry {
        Entry::Train(_) => ("train", built(batch, seq), seq),
        Entry::Accumulate => ("accumulate", built(batch, seq), seq),
        // It has the parameters only; `options` has the tokens of all batches of a step.
        Entry::Update(_) => ("update", built(model.shape.batch, model.shape.seq), seq),
        Entry::Eval => ("eval", built(batch, seq), seq),
        Entry::Forward => ("forward", built(batch, seq), seq),
        Entry::Score { context } => ("score", decode_support::scored(model, batch, seq, *context), seq),
        Entry::Look { context } => ("look", decode_support::scored(model, batch, seq, *context), seq),
        // Sequences as in training, of which a pass makes what there is of them.
        Entry::Decode(room) => ("decode", decode_support::whole_sequences(model, batch, room.context), 1),
        Entry::Mixed(mixed) => (mixed.name(), mixed::built(model, batch, seq), seq),
        Entry::Prefill { room, tokens } => {
            ("prefill", decode_support::whole_sequences(model, batch, room.context), *tokens)
        }
    };
    let (name, built, tokens) = as_built();
    let (mut graph, origins) = built?;
    locate::check_heads(model, &graph, &origins)?;
    graph.name = format!("{} {name}", graph.name);

    let mut dumps = vec![];
    let mut times: Vec<PassTime> = vec![];
    let mut malformed = None;
    let mut recomputed = report::Recomputed::default();
    let settings = pipeline::PipelineOptions {
        kinds: model.kinds.clone(),
        attention: model.attention_options(options.target),
        precision: options.precision,
        narrow_weights: options.narrow_weights,
        documents: options.documents,
        loss_scale: options.loss_scale,
        min_loss_rows: linc_kernels::min_loss_rows(
            options.target.into(),
            options.precision.narrow().is_some(),
            matches!(entry, Entry::Train(_) | Entry::Accumulate),
        ),
        sort_tokens: matches!(options.target, Target::Cuda(_)),
        pack_heads: matches!(options.target, Target::Cpu).then_some(pack_heads::TOKENS),
        recompute: options.recompute,
        machine: fit::machine(options.target, options.precision),
        mesh: options.mesh.clone(),
        reduce: options.reduce,
        disabled: options.disabled.clone(),
    };
    let assignment = pipeline::run(&mut graph, entry, &settings, layout, &mut |pass, graph| {
        let at = now();
        times.push(PassTime { pass: pass.to_string(), seconds: at - last, nodes: graph.len() });
        if malformed.is_none()
            && (cfg!(debug_assertions) || options.dumps)
            && let Err(error) = linc_ir::verify(graph)
        {
            malformed = Some(CompileError::Malformed { pass: pass.to_string(), error });
        }
        if pass == "recompute" {
            recomputed = report::Recomputed::of(graph);
        }
        if options.dumps {
            let path = graph_path(times.len(), pass);
            dumps.push(Dump { path, text: linc_ir::print(graph) });
        }
        last = now();
    })
    .map_err(|error| match as_built().1 {
        Ok((graph, _)) => locate::pass_error(error, &graph, &origins),
        Err(error) => error,
    })?;
    if let Some(error) = malformed {
        return Err(error);
    }
    let (target, tiles) = (options.target.into(), &options.tiles);
    let assembled =
        assemble::assemble(&graph, &assignment, target, tiles, layout, &options.mesh).map_err(|error| {
            match as_built().1 {
                Ok((graph, _)) => locate::kernel_error(error, &graph, &origins),
                Err(error) => error,
            }
        })?;
    linc_plan::validate::validate(&assembled.plan)?;
    times.push(PassTime { pass: "kernels".into(), seconds: now() - last, nodes: graph.len() });
    if options.dumps {
        dumps.push(Dump { path: "graph/final.dot".into(), text: linc_ir::dot(&graph) });
        dumps.extend(plan_dumps(&assembled, options.target)?);
    }
    let reported = &Options { seq: tokens, ..options.clone() };
    let report = Report::new(model, name, reported, &assembled.plan, recomputed, times);
    let sites = assignment
        .order
        .iter()
        .flat_map(|id| tiles::Site::of_node(&graph, *id, options.target.into()))
        .collect();
    Ok(Compiled { plan: assembled.plan, report, sites, dumps })
}

/// The plan, its memory map, and every kernel as tile program and as CPU IR or CUDA C++.
fn plan_dumps(assembled: &assemble::Assembled, target: Target) -> Result<Vec<Dump>, CompileError> {
    let plan = &assembled.plan;
    let mut dumps = vec![
        Dump { path: "plan.json".into(), text: serde_json::to_string_pretty(plan).unwrap_or_default() },
        Dump { path: "memory.txt".into(), text: memory_map(plan) },
    ];
    for (index, (kernel, entry)) in assembled.kernels.iter().zip(&plan.kernels).enumerate() {
        dumps.push(Dump { path: format!("kernels/{}.tile", entry.name), text: entry.text.clone() });
        let (kind, text) = match target {
            Target::Cpu => {
                let options = linc_codegen_cpu::CpuCodegenOptions { fma: true };
                ("clif", linc_codegen_cpu::compile(kernel, options)?.text())
            }
            Target::Cuda(arch) => {
                let alignment = plan.argument_alignment(index);
                let options = linc_codegen_cuda::CudaCodegenOptions { arch, alignment };
                ("cu", linc_codegen_cuda::compile(kernel, &options)?.source(1))
            }
        };
        dumps.push(Dump { path: format!("kernels/{}.{kind}", entry.name), text });
    }
    Ok(dumps)
}

/// Every buffer with its place and lifetime.
fn memory_map(plan: &linc_plan::Plan) -> String {
    let mut text =
        format!("persistent {} bytes, scratch {} bytes\n", plan.persistent_bytes, plan.scratch_bytes);
    for b in &plan.buffers {
        let space = match b.space {
            linc_plan::Space::Persistent => "persistent",
            linc_plan::Space::Scratch => "scratch",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{space:10} {:>14} +{:<14} {:16} steps {:>5}..={:<5} {}",
            b.offset,
            b.bytes,
            b.category.name(),
            b.live.0,
            b.live.1,
            b.name
        );
    }
    text
}
