//! The order of the passes, and nothing else.

mod mixed;
mod update;

use std::collections::BTreeSet;

use linc_ir::{AttentionKind, DType, Graph, NORM_BLOCK};

use crate::attention::decode::{self, Room};
use crate::error::PassError;
use crate::exchanges::Reduce;
use crate::loss_scale::{LossScale, Scaling};
use crate::memory::{PersistentLayout, StorageAssignment};
use crate::mesh::{Mesh, MeshAxis};
use crate::optimizer::OptimizerOptions;
use crate::precision::Precision;
use crate::recompute::budget::{Extent, Machine, Ranking};
use crate::recompute::{Limit, Policy};
use crate::{
    accumulate, attention, autodiff, canonicalize, cse, dce, exchanges, fusion, loss, memory, merge_matmuls,
    pack_heads, positions, precision, recompute, residual, sort_tokens,
};

pub use mixed::Mixed;
use update::{ranges_as_placed, update};

/// Which program is made of the model.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry {
    /// Forward, loss, backward, clip, update.
    Train(OptimizerOptions),
    /// Forward, loss, backward; gradients of the mean loss over all targets of a step's batches are added up in states.
    Accumulate,
    /// Clip and update with the gradients that [`Entry::Accumulate`] left in the states.
    Update(OptimizerOptions),
    /// Forward and loss.
    Eval,
    /// Forward with all logits as output.
    Forward,
    /// Forward, and for each position the log-probability of its target and the most likely token.
    Score {
        /// Longest sequence of the programs that share its tables.
        context: usize,
    },
    /// As [`Entry::Score`], with what each attention reads and gives as results, and a factor for what it gives as an input
    /// ([`attention::exposed`]).
    Look {
        /// Longest sequence of the programs that share its tables.
        context: usize,
    },
    /// One token of each sequence of a batch, with caches and states, of a graph for whole sequences.
    Decode(Room),
    /// A block of a prompt's tokens into the caches and states of [`Entry::Decode`]; no logits.
    Prefill {
        /// What the caches and states have room for.
        room: Room,
        /// Tokens of the block.
        tokens: usize,
    },
    /// The model with both kinds of attention in each layer, which gates mix.
    Mixed(Mixed),
}

/// Settings of the pipeline.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Attention kind of every layer.
    pub kinds: Vec<AttentionKind>,
    /// Options of each kind.
    pub attention: attention::AttentionOptions,
    /// Number format of activations and matmul operands.
    pub precision: Precision,
    /// Weights that only products read are stored in that format: of programs that do not train.
    pub narrow_weights: bool,
    /// How the scale of the loss changes, where the precision needs one.
    pub loss_scale: LossScale,
    /// The documents of a sequence see nothing of each other, in programs that train and in [`Entry::Eval`].
    pub documents: bool,
    /// Rows of logits that exist at once, at least.
    pub min_loss_rows: usize,
    /// The gradient of an embedding sorts its tokens first.
    pub sort_tokens: bool,
    /// Tokens of a sequence from which on softmax attention reads what is laid out head by head.
    pub pack_heads: Option<usize>,
    /// What the backward recomputes.
    pub recompute: Policy,
    /// How long operations take, to compare what could be computed again.
    pub machine: Machine,
    /// The ranks that batches and the optimizer are shared out to, and this one among them.
    pub mesh: Mesh,
    /// Who adds up what they exchange.
    pub reduce: Reduce,
    /// Optional passes that are switched off.
    pub disabled: BTreeSet<String>,
}

impl Entry {
    /// The optimizer of a program that updates.
    pub fn optimizer(&self) -> Option<&OptimizerOptions> {
        match self {
            Entry::Train(optimizer) | Entry::Update(optimizer) | Entry::Mixed(Mixed::Align(optimizer)) => {
                Some(optimizer)
            }
            Entry::Mixed(Mixed::Logits | Mixed::Divergence | Mixed::Gradients)
            | Entry::Accumulate
            | Entry::Eval
            | Entry::Forward
            | Entry::Score { .. }
            | Entry::Look { .. }
            | Entry::Decode(_)
            | Entry::Prefill { .. } => None,
        }
    }
}

impl PipelineOptions {
    fn is_on(&self, pass: &str) -> bool {
        // Otherwise the pass could not be switched off, and nobody would notice.
        assert!(OPTIONAL.contains(&pass), "{pass} asks whether it is on and is not in OPTIONAL");
        !self.disabled.contains(pass)
    }
}

/// Passes that can be switched off by name.
pub const OPTIONAL: [&str; 11] = [
    "chunk_loss",
    "canonicalize",
    "cse",
    "merge_matmuls",
    "recompute",
    "fusion",
    "residual",
    "share_loss",
    "sort_tokens",
    "pack_heads",
    "overlap",
];

/// Lowers a built model graph to an executable one with the storage of its values. `observe` sees the graph after each pass.
///
/// # Errors
/// [`PassError::Setting`] for an unknown or mandatory name in `disabled`, otherwise what the passes refuse.
pub fn run(
    graph: &mut Graph,
    entry: &Entry,
    options: &PipelineOptions,
    persistent: &mut PersistentLayout,
    observe: &mut dyn FnMut(&'static str, &Graph),
) -> Result<StorageAssignment, PassError> {
    if let Some(name) = options.disabled.iter().find(|name| !OPTIONAL.contains(&name.as_str())) {
        return Err(PassError::Setting(format!(
            "no optional pass is named {name}; there are {}",
            OPTIONAL.join(", ")
        )));
    }
    lower(graph, entry, options, persistent, observe)?;
    let differentiated = matches!(entry, Entry::Train(_) | Entry::Accumulate);
    if differentiated && options.is_on("recompute") {
        match options.recompute {
            Policy::Budget(limit) => within_budget(graph, limit, options, persistent)?,
            plain => recompute::run(graph, plain, loss::LOSS)?,
        }
        dce::run(graph);
        observe("recompute", graph);
    }
    place(graph, options, persistent, observe)
}

/// Computes again what takes the least time within a limit of memory, by plans of the memory on trial: of the ranking by
/// what pays, and of the plain policies, which may happen to be better.
fn within_budget(
    graph: &mut Graph,
    limit: Limit,
    options: &PipelineOptions,
    persistent: &PersistentLayout,
) -> Result<(), PassError> {
    let Some(ranking) = Ranking::new(graph, loss::LOSS, &options.machine)? else { return Ok(()) };
    let apply = |graph: &mut Graph, choice: Choice| match choice {
        Choice::Policy(policy) => recompute::run(graph, policy, loss::LOSS),
        Choice::Extent(extent) => {
            ranking.apply(graph, extent);
            Ok(())
        }
    };
    let mut trials: Vec<(Choice, u64, f64)> = vec![];
    let mut trial = |choice: Choice| -> Result<u64, PassError> {
        let (mut graph, mut persistent) = (graph.clone(), persistent.clone());
        apply(&mut graph, choice)?;
        dce::run(&mut graph);
        let assignment = place(&mut graph, options, &mut persistent, &mut |_, _| {})?;
        let time = assignment.computing(&graph).map(|id| options.machine.time_of(&graph, id)).sum();
        let bytes = assignment.arena_bytes(&graph, &persistent);
        trials.push((choice, bytes, time));
        Ok(bytes)
    };
    for policy in [Policy::None, Policy::Selective, Policy::Layers(2), Policy::Full] {
        trial(Choice::Policy(policy))?;
    }
    let limit = ranking.search(limit, |extent| trial(Choice::Extent(extent)))?;
    // Where nothing fits, the least memory.
    let rank = |(_, bytes, time): &(Choice, u64, f64)| {
        if *bytes <= limit { (0, *time) } else { (*bytes - limit, 0.0) }
    };
    let best = trials.iter().min_by(|a, b| {
        let (a, b) = (rank(a), rank(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    best.map_or(Ok(()), |(choice, ..)| apply(graph, *choice))
}

/// A way to recompute that is on trial.
#[derive(Clone, Copy)]
enum Choice {
    Policy(Policy),
    Extent(Extent),
}

/// From the model as it was built to a graph of the operations that kernels compute.
fn lower(
    graph: &mut Graph,
    entry: &Entry,
    options: &PipelineOptions,
    persistent: &mut PersistentLayout,
    observe: &mut dyn FnMut(&'static str, &Graph),
) -> Result<(), PassError> {
    let on = |name: &str| options.is_on(name);
    observe("build", graph);
    let part = match entry {
        Entry::Decode(room) => Some((1, room.context)),
        Entry::Prefill { room, tokens } => Some((*tokens, room.context)),
        Entry::Train(_)
        | Entry::Accumulate
        | Entry::Update(_)
        | Entry::Eval
        | Entry::Forward
        | Entry::Score { .. }
        | Entry::Look { .. }
        | Entry::Mixed(_) => None,
    };
    if let Some((tokens, context)) = part {
        *graph = positions::run(graph, tokens, context)?.graph;
        observe("positions", graph);
    }
    // Before parameters are placed, of which it makes copies.
    let mut leaves = vec![];
    if let Entry::Mixed(mixed) = entry {
        leaves = mixed::leaves(graph, mixed)?;
        observe("mix", graph);
    }
    // What is behind the last attention has no part in aligning.
    let is_part = part.is_some() || matches!(entry, Entry::Mixed(Mixed::Align(_)));
    // A parameter that only unneeded operations read would be removed with them, although memory was laid out for its gradient.
    if !is_part && let Some(name) = dce::idle_parameter(graph) {
        return Err(PassError::UnusedParameter { name });
    }
    if options.documents && matches!(entry, Entry::Train(_) | Entry::Accumulate | Entry::Eval) {
        positions::keep_apart(graph)?;
        observe("documents", graph);
    }
    let narrow = options.precision.narrow();
    let stored_narrow = match narrow {
        Some(_) if options.narrow_weights => precision::read_narrow(graph)?,
        _ => BTreeSet::new(),
    };
    if !stored_narrow.is_empty() && matches!(entry, Entry::Train(_) | Entry::Accumulate | Entry::Update(_)) {
        return Err(PassError::Setting("weights of a program that trains are float32".into()));
    }
    let mesh = &options.mesh;
    if mesh.data_ranks() > 1 && matches!(entry, Entry::Mixed(Mixed::Align(_))) {
        return Err(PassError::Setting("branches are aligned by one rank alone".into()));
    }
    let shards = mesh.degree(MeshAxis::DataShard);
    persistent.pad_params(if shards > 1 { shards * NORM_BLOCK } else { 0 })?;
    place_params(graph, &stored_narrow, narrow, persistent)?;
    // Differentiation sees the abstract model, so that each attention has one derivative.
    let scores = matches!(entry, Entry::Score { .. } | Entry::Look { .. });
    let compares = scores || matches!(entry, Entry::Train(_) | Entry::Accumulate | Entry::Eval);
    if compares {
        if scores {
            loss::score(graph)?;
        } else {
            loss::attach(graph)?;
        }
        observe("loss", graph);
        if on("chunk_loss") {
            loss::chunk(graph, options.min_loss_rows)?;
            dce::run(graph);
            observe("chunk_loss", graph);
        }
    }
    let scaling = |graph: &mut Graph| {
        let wanted = options.precision.scales_loss();
        wanted.then(|| Scaling::new(graph, options.loss_scale)).transpose()
    };
    match entry {
        Entry::Train(optimizer) => {
            let scaling = scaling(graph)?;
            // Of several ranks each has a part of the step's targets.
            let share = (mesh.data_ranks() > 1).then(|| accumulate::share(graph)).transpose()?;
            let seed = scaling.as_ref().map(|scaling| scaling.seed(graph, share)).transpose()?.or(share);
            let gradients = autodiff::run_from(graph, loss::LOSS, seed)?;
            observe("autodiff", graph);
            update(graph, gradients, optimizer, scaling.as_ref(), mesh, persistent, observe)?;
        }
        Entry::Accumulate => {
            let scaling = scaling(graph)?;
            let share = accumulate::share(graph)?;
            let seed = scaling.map_or(Ok(share), |scaling| scaling.seed(graph, Some(share)))?;
            let gradients = autodiff::run_from(graph, loss::LOSS, Some(seed))?;
            observe("autodiff", graph);
            accumulate::add(graph, &gradients)?;
            observe("accumulate", graph);
        }
        Entry::Update(optimizer) => {
            let gradients = accumulate::read(graph)?;
            observe("accumulate", graph);
            let scaling = scaling(graph)?;
            update(graph, gradients, optimizer, scaling.as_ref(), mesh, persistent, observe)?;
        }
        Entry::Mixed(mixed) => mixed::compare(graph, mixed, &leaves, persistent, observe)?,
        Entry::Eval
        | Entry::Forward
        | Entry::Score { .. }
        | Entry::Look { .. }
        | Entry::Decode(_)
        | Entry::Prefill { .. } => {}
    }
    let differentiated = matches!(entry, Entry::Train(_) | Entry::Accumulate);
    if differentiated && on("share_loss") {
        loss::share(graph);
        observe("share_loss", graph);
    }
    if differentiated && options.sort_tokens && on("sort_tokens") {
        sort_tokens::run(graph)?;
        observe("sort_tokens", graph);
    }
    match entry {
        Entry::Train(_)
        | Entry::Accumulate
        | Entry::Eval
        | Entry::Forward
        | Entry::Score { .. }
        | Entry::Mixed(_) => attention::run(graph, &options.kinds, &options.attention)?,
        Entry::Look { .. } => attention::exposed::run(graph, &options.kinds, &options.attention)?,
        Entry::Decode(room) => decode::run(graph, &options.kinds, &options.attention, *room)?,
        Entry::Prefill { room, tokens } => {
            decode::prefill(graph, &options.kinds, &options.attention, *room, *tokens)?
        }
        Entry::Update(_) => {}
    }
    observe("attention", graph);
    if on("canonicalize") {
        canonicalize::run(graph)?;
        dce::run(graph);
        observe("canonicalize", graph);
    }
    if on("cse") {
        cse::run(graph)?;
        observe("cse", graph);
    }
    dce::run(graph);
    observe("dce", graph);
    if on("merge_matmuls") {
        merge_matmuls::run(graph)?;
        cse::run(graph)?;
        dce::run(graph);
        observe("merge_matmuls", graph);
    }
    // Before what chooses where values are kept, so that neither recomputation nor fusion changes a number.
    if let Some(narrow) = narrow {
        precision::run(graph, loss::LOSS, narrow, &stored_narrow)?;
        dce::run(graph);
        observe("precision", graph);
    }
    if mesh.world() > 1 {
        exchanges::run(graph, options.reduce)?;
        observe("exchanges", graph);
    }
    Ok(())
}

/// Fuses what is left, and decides where every value is kept.
fn place(
    graph: &mut Graph,
    options: &PipelineOptions,
    persistent: &mut PersistentLayout,
    observe: &mut dyn FnMut(&'static str, &Graph),
) -> Result<StorageAssignment, PassError> {
    if options.is_on("fusion") {
        fusion::run(graph)?;
        dce::run(graph);
        observe("fusion", graph);
    }
    if options.is_on("residual") {
        residual::run(graph)?;
        observe("residual", graph);
    }
    if let Some(tokens) = options.pack_heads
        && options.is_on("pack_heads")
    {
        pack_heads::run(graph, tokens)?;
        observe("pack_heads", graph);
    }
    persistent.extend(graph)?;
    let assignment = memory::run(graph, persistent, options.is_on("overlap"))?;
    observe("memory", graph);
    Ok(assignment)
}

/// Places parameters that a matmul will read together side by side. Looks at the model in its canonical form, so that
/// the order, and with it the order of the sum in the gradients' norm, does not depend on which passes are on.
fn place_params(
    graph: &Graph,
    stored_narrow: &BTreeSet<String>,
    narrow: Option<DType>,
    persistent: &mut PersistentLayout,
) -> Result<(), PassError> {
    let mut model = graph.clone();
    canonicalize::run(&mut model)?;
    cse::run(&mut model)?;
    let groups = merge_matmuls::joined_params(&model);
    match narrow {
        Some(narrow) if !stored_narrow.is_empty() => {
            let mut stored = graph.clone();
            precision::store_narrow(&mut stored, stored_narrow, narrow);
            persistent.place_params(&stored, &groups);
        }
        _ => persistent.place_params(graph, &groups),
    }
    Ok(())
}
