//! Attention by itself: a model of one layer per kind of attention, with projections as thin as the language allows, of
//! whose training step only attention's launches are counted. Softmax and linear attention run in the same step.

use linc_device::words::count;
use linc_driver::{
    AttentionKind, BatchShape, Entry, HEAD_DIM_MULTIPLE, Model, Precision, RecomputePolicy, Source,
};
use linc_plan::{AttentionPass, Step};
use linc_session::Session;
use serde::Serialize;

use super::{Feed, Open, Tell, Times, Timing, Told, check_loss, compile_options, seconds_of, train_entry};
use crate::BenchError;

/// Features of a token: just enough to draw q, k and v from.
const DIM: usize = 128;
/// Tokens to draw from.
const VOCAB: usize = 512;

/// Attention as in `models/llama3.linc`, without the feed-forward: q, k and v are parts of one product, q and k are
/// rotated. Weights make q, k and v standard normal.
const ARCHITECTURE: &str = "\
model attention(tokens: [batch, seq] int) {
  let std = 1 / sqrt(dim)
  let rope = rope_table(head_dim, rope_theta)
  param table [vocab_size, dim] init normal(1.0)
  x = embedding(tokens, table)
  for layer in layers {
    param norm [dim] init ones
    block attention {
      param wq [n_heads * head_dim, dim] init trunc_normal(std)
      param wk [n_kv_heads * head_dim, dim] init trunc_normal(std)
      param wv [n_kv_heads * head_dim, dim] init trunc_normal(std)
      param wo [dim, n_heads * head_dim] init trunc_normal(std)
      h = rms_norm(x, norm, norm_eps)
      q = split_heads(h @ wq.T, n_heads)
      k = split_heads(h @ wk.T, n_kv_heads)
      v = split_heads(h @ wv.T, n_kv_heads)
      x = x + merge_heads(attention(q, k, v, rope = rope, causal = true)) @ wo.T
    }
  }
  logits = x @ table.T
}
";

/// A half of attention's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// Output and what is kept for the backward.
    Forward,
    /// Gradients of q, k and v.
    Backward,
}

impl Pass {
    /// As the plan has it.
    const fn of_step(self) -> AttentionPass {
        match self {
            Pass::Forward => AttentionPass::Forward,
            Pass::Backward => AttentionPass::Backward,
        }
    }

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        self.of_step().name()
    }
}

/// What to measure; every head size at every length.
#[derive(Clone, Debug)]
pub struct AttentionBench {
    /// Features of a head.
    pub head_dims: Vec<usize>,
    /// Tokens of a sequence.
    pub seqs: Vec<usize>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Sequences.
    pub batch: usize,
    /// Softmax, linear, or both.
    pub kinds: Vec<AttentionKind>,
    /// Forward, backward, or both.
    pub passes: Vec<Pass>,
    /// Of q, k, v and results.
    pub precision: Precision,
    /// How many runs warm up, and how many are timed.
    pub timing: Timing,
}

/// One kind and pass at one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttentionRow {
    /// `softmax` or `linear`.
    pub kind: &'static str,
    /// Forward or backward.
    pub pass: Pass,
    /// Features of a head.
    pub head_dim: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Kernels that it takes.
    pub launches: usize,
    /// All of them together, as the device times them.
    pub ms: Times,
    /// Floating-point operations by the plan; the masked half is not counted.
    pub flops: u64,
    /// Bytes that must move at least once.
    pub bytes: u64,
    /// 10^12 operations per second.
    pub tflops: f64,
    /// 10^9 bytes per second.
    pub gbytes: f64,
}

/// Measures attention; the device in words, and a row for each kind, pass and size.
///
/// # Errors
/// [`BenchError`]: sizes that no kernel exists for, or what the device refuses.
pub fn attention(
    bench: &AttentionBench,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
) -> Result<(String, Vec<AttentionRow>), BenchError> {
    check(bench)?;
    let (mut device, mut rows) = (String::new(), vec![]);
    for head_dim in &bench.head_dims {
        for seq in &bench.seqs {
            tell(Told::Case(&format!(
                "attention: {}, {} x {}",
                count(*head_dim, "feature"),
                bench.batch,
                count(*seq, "token")
            )));
            let (name, measured) = one_size(bench, *head_dim, *seq, open, tell)?;
            device = name;
            rows.extend(measured);
        }
    }
    Ok((device, rows))
}

/// Refuses sizes in the user's words: the model that they end up in is none of the user's files.
fn check(bench: &AttentionBench) -> Result<(), BenchError> {
    let AttentionBench { head_dims, seqs, heads, kv_heads, batch, .. } = bench;
    let refuse = |message: String| Err(BenchError::Request(message));
    if [heads, kv_heads, batch].contains(&&0) || seqs.contains(&0) {
        return refuse(
            "heads, key/value heads, sequences and tokens must be at least 1\n  help: leave out what is 0"
                .into(),
        );
    }
    if heads % kv_heads != 0 {
        return refuse(format!(
            "{heads} query heads are no multiple of {kv_heads} key/value heads\n  help: each key/value head serves \
             the same number of query heads: give --heads {}, or --kv-heads 1",
            heads.next_multiple_of(*kv_heads)
        ));
    }
    match head_dims.iter().find(|d| **d == 0 || !d.is_multiple_of(HEAD_DIM_MULTIPLE)) {
        Some(d) => refuse(format!(
            "--head-dim is {d}; expected a multiple of {HEAD_DIM_MULTIPLE}\n  help: the next is {}",
            (*d).max(1).next_multiple_of(HEAD_DIM_MULTIPLE)
        )),
        None => Ok(()),
    }
}

fn one_size(
    bench: &AttentionBench,
    head_dim: usize,
    seq: usize,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
) -> Result<(String, Vec<AttentionRow>), BenchError> {
    let model = model(bench, head_dim, seq)?;
    let backward = bench.passes.contains(&Pass::Backward);
    let entry = if backward { train_entry() } else { Entry::Eval };
    // Nothing runs twice, so that a step has one forward.
    let options = compile_options(bench.batch, seq, bench.precision, RecomputePolicy::None);
    let mut executor =
        Session::new(&model, &[(entry, options)], open()?, &mut || Ok::<_, BenchError>(()))?.executor;
    executor.initialize(0)?;
    // Weights stay as they are drawn.
    let feed = Feed::new(bench.batch * seq, VOCAB, 0.0);
    let mut done = 0;
    let mut run = || {
        if backward {
            feed.step(&mut executor, 0, 1)?
        } else {
            feed.batch(&mut executor, 0)?
        }
        let times = executor.step_times(0)?;
        check_loss(&executor, 0)?;
        done += 1;
        bench.timing.tell(done, tell);
        Ok::<_, BenchError>(times)
    };
    for _ in 0..bench.timing.warmup {
        run()?;
    }
    // A layer of the model for each kind.
    let layers = bench.kinds.iter().enumerate();
    let cases: Vec<(usize, AttentionKind, Pass)> =
        layers.flat_map(|(layer, kind)| bench.passes.iter().map(move |pass| (layer, *kind, *pass))).collect();
    let rounds = (0..bench.timing.rounds).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
    let plan = executor.plan(0);
    let row = |(layer, kind, pass): &(usize, AttentionKind, Pass)| {
        let counts =
            |step: &Step| step.label.layer == Some(*layer) && step.label.attention() == Some(pass.of_step());
        let steps = || plan.steps.iter().filter(|step| counts(step));
        let (flops, bytes) = (steps().map(|s| s.flops).sum(), steps().map(|s| s.bytes).sum());
        let ms = Times::of(rounds.iter().map(|times| seconds_of(plan, times, counts)).collect());
        AttentionRow {
            kind: kind.label(),
            pass: *pass,
            head_dim,
            heads: bench.heads,
            kv_heads: bench.kv_heads,
            batch: bench.batch,
            seq,
            launches: steps().count(),
            ms,
            flops,
            bytes,
            tflops: ms.giga(flops) / 1e3,
            gbytes: ms.giga(bytes),
        }
    };
    Ok((executor.describe_device(), cases.iter().map(row).collect()))
}

fn model(bench: &AttentionBench, head_dim: usize, seq: usize) -> Result<Model, BenchError> {
    let AttentionBench { heads, kv_heads, kinds, batch, .. } = bench;
    let numbers = format!(
        "name = \"attention\"\nflavor = \"{head_dim}\"\narchitecture = \"attention.linc\"\n\
         dim = {DIM}\nn_layers = {}\nn_heads = {heads}\nn_kv_heads = {kv_heads}\nhead_dim = {head_dim}\n\
         vocab_size = {VOCAB}\n",
        kinds.len()
    );
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let (config, architecture) = (source("attention.toml", &numbers), source("attention.linc", ARCHITECTURE));
    let shape = BatchShape { batch: *batch, seq };
    Ok(Model::with_kinds(&config, &architecture, &[], kinds.clone(), shape)?)
}
