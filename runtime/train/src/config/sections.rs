//! The sections of a job config, in TorchTitan's names, with defaults and limits.

use linc_checkpoint::inside_dump_folder;
use linc_config::check::{self, Check, non_negative, one_of, positive, share};
use linc_config::{Setting as _, choice, section, table};
use linc_device::Choice;
use linc_driver::{
    AdamWSpec, MemoryLimit, MuonSpec, OptimizerOptions, Precision, RecomputeMode, RecomputePolicy,
};
use serde_json::json;

section! {
    /// What the run is called and where it writes.
    Job "job" {
        /// Folder of everything the run writes.
        dump_folder: String = "./outputs".to_owned(), check check::not_empty();
        /// What the run is for, printed at its start.
        description: String = "default job".to_owned();
        /// Print the resolved config at the start.
        print_config: bool = false, aka ["print_args"];
    }
}

section! {
    /// Kernel timings.
    Profiling "profiling" {
        /// Time every kernel, print tables at the end, and write traces of some steps, which Perfetto opens.
        enable_profiling: bool = false;
        /// Where the files for Perfetto go, below the dump folder.
        save_traces_folder: String = "profile_traces".to_owned(), check inside_dump_folder();
        /// Steps between two traces.
        profile_freq: usize = 10, check positive();
    }
}

choice! {
    /// Parts of a model whose gradients have norms of their own in metrics. Each kind costs another pass over the gradients.
    GradNorms {
        /// None of them.
        None = "none",
        /// Each layer; what is outside of layers parameter by parameter.
        Layers = "layers",
        /// Each block of a layer; what is outside of blocks parameter by parameter.
        Blocks = "blocks",
        /// Every parameter, whatever it is in.
        Parameters = "parameters",
    }
}

section! {
    /// What is reported while training.
    Metrics "metrics" {
        /// Steps between two lines on the console and in metrics.jsonl.
        log_freq: usize = 10, check positive();
        /// Norms of the gradients of parts of the model in these records, beside that of all, before clipping.
        grad_norms: GradNorms = GradNorms::None;
        /// Steps between two looks at linear layers, which their records then tell of: over how many positions and features their queries are
        /// spread, and how many chunks take the fast path; 0 for never.
        linear_health_freq: usize = 0;
        /// Write events for TensorBoard as well; metrics.jsonl has the same values.
        enable_tensorboard: bool = false;
        /// Folder of those events, below the dump folder.
        save_tb_folder: String = "tb".to_owned(), check inside_dump_folder();
        /// Print without colours.
        disable_color_printing: bool = false;
    }
}

choice! {
    /// Algorithms of updates.
    OptimizerName {
        /// Adam with decoupled weight decay.
        AdamW = "AdamW",
        /// Adam, whose weight decay is a part of the gradient.
        Adam = "Adam",
        /// Orthogonal momentum for the matrices inside the model, AdamW for all else.
        Muon = "Muon",
    }
}

choice! {
    /// How Muon's learning rate depends on the shape of a matrix of r rows (outputs) and c columns; PyTorch's names.
    AdjustLrFn {
        /// Times the root of max(1, r/c).
        Original = "original",
        /// Times 0.2 and the root of max(r, c): updates of the size of AdamW's, so that both take one learning rate.
        MatchRmsAdamW = "match_rms_adamw",
    }
}

choice! {
    /// What parameters are in the model, by what reads them; one may be several of these.
    GroupRole {
        /// Tables whose rows are looked up.
        Embedding = "embedding",
        /// The matrix behind the logits; with tied embeddings the table.
        Output = "output",
        /// Gains of norms.
        Norm = "norm",
        /// Vectors: gains and biases.
        Vector = "vector",
        /// Matrices of products inside the model.
        Matrix = "matrix",
        /// Projections, and what else is between them and the attention, of softmax layers.
        SoftmaxAttention = "softmax_attention",
        /// The same of linear layers.
        LinearAttention = "linear_attention",
    }
}

table! {
    /// Parameters with numbers of their own; one that several groups match belongs to the first of them.
    Group {
        /// Patterns of names: * stands for any text.
        params: Vec<String> = Vec::new();
        /// What they are in the model. Of params and role both must fit, if both are given.
        role: Vec<GroupRole> = Vec::new();
        /// The algorithm.
        name: Option<OptimizerName> = None;
        /// Peak learning rate.
        lr: Option<f64> = None, check non_negative().if_set();
        /// Peak learning rate as a factor of the optimizer's.
        lr_factor: Option<f64> = None, check non_negative().if_set();
        /// Weight decay, in place of the optimizer's.
        weight_decay: Option<f64> = None, check non_negative().if_set();
        /// Decay of the first moment.
        beta1: Option<f64> = None, check check::below_one().if_set();
        /// Decay of the second moment.
        beta2: Option<f64> = None, check check::below_one().if_set();
        /// Decay of Muon's momentum.
        momentum: Option<f64> = None, check check::below_one().if_set();
    }
}

choice! {
    /// What follows a step whose loss or gradients are not finite. Nothing of it is applied in any case.
    NonFinite {
        /// The run ends, and nothing of the step is saved.
        Stop = "stop",
        /// The step is left out and counted; twenty in a row end the run.
        Skip = "skip",
    }
}

choice! {
    /// How bad an alert is.
    AlertLevel {
        /// Good to know.
        Info = "info",
        /// Somebody should look at it.
        Warn = "warn",
        /// The run cannot go on as it is.
        Error = "error",
    }
}

section! {
    /// What a run tells of itself where nobody watches: on the console, in alerts.jsonl, and to a command.
    Alerts "alerts" {
        /// Look for what is out of the ordinary.
        enable: bool = true;
        /// What follows a step whose loss or gradients are not finite: "stop" ends the run, "skip" leaves the step out.
        /// Nothing of such a step is applied or saved.
        non_finite: NonFinite = NonFinite::Stop;
        /// Nats by which a loss must be above the running median, and clearly more than its usual distance; 0 for never.
        loss_spike: f64 = 0.5, check non_negative();
        /// Losses and records that running medians are of.
        window: usize = 100, check positive();
        /// Share of a step's time that waits for data above which it is said; 0 for never.
        stalled_data: f64 = 0.5, check share();
        /// Share of the usual tokens per second below which it is said; 0 for never.
        slow: f64 = 0.5, check share();
        /// Share of the device's memory in use above which it is said; 0 for never.
        memory: f64 = 0.97, check share();
        /// Seconds in which an alert of one kind is not said again.
        cooldown_seconds: f64 = 300.0, check non_negative();
        /// Run by /bin/sh for an alert, with LINC_ALERT_LEVEL, _KIND, _STEP, _MESSAGE and LINC_RUN in its environment; training
        /// does not wait for it.
        command: String = String::new();
        /// Least level of an alert for which the command is run.
        command_level: AlertLevel = AlertLevel::Warn;
        /// Seconds after which a command is ended.
        command_timeout_seconds: f64 = 30.0, check check::above_zero();
    }
}

section! {
    /// How gradients become updates of parameters.
    Optimizer "optimizer" {
        /// The algorithm. Muon is for the matrices inside the model; the embedding, the output and vectors take AdamW with it.
        name: OptimizerName = OptimizerName::AdamW;
        /// Peak learning rate.
        lr: f64 = 8e-4, check non_negative();
        /// Added to the denominator of the update.
        eps: f64 = AdamWSpec::default().eps, check non_negative();
        /// Decay of the first moment.
        beta1: f64 = AdamWSpec::default().beta1, check check::below_one();
        /// Decay of the second moment.
        beta2: f64 = AdamWSpec::default().beta2, check check::below_one();
        /// Weight decay, of all parameters that no group has; decoupled, but a part of the gradient for Adam.
        weight_decay: f64 = AdamWSpec::default().weight_decay, check non_negative();
        /// Decay of Muon's momentum.
        momentum: f64 = MuonSpec::default().momentum, check check::below_one();
        /// Muon's direction looks one step ahead.
        nesterov: bool = MuonSpec::default().nesterov;
        /// Newton-Schulz iterations of Muon.
        ns_steps: usize = MuonSpec::default().steps, check newton_schulz_steps();
        /// How Muon's learning rate depends on the shape of a matrix.
        adjust_lr_fn: AdjustLrFn = AdjustLrFn::MatchRmsAdamW;
        /// Groups of parameters with numbers of their own, [[optimizer.groups]].
        groups: Vec<Group> = Vec::new();
    }
}

choice! {
    /// Shape of the learning rate's decay, and of a segment.
    DecayType {
        /// Straight line.
        Linear = "linear",
        /// By the square root of the progress: fast first, then slower.
        Sqrt = "sqrt",
        /// Half a cosine.
        Cosine = "cosine",
        /// No change.
        Constant = "constant",
    }
}

table! {
    /// A stretch of the learning rate's schedule that goes from where the one before ends, the first from 0.
    Segment {
        /// Steps it takes, of which the last has the share `to`; in the last segment all that are left, if not given.
        steps: Option<usize> = None, check positive().if_set();
        /// Share of the peak learning rate at its end; for the shape constant that of all its steps, by default the one before.
        to: Option<f64> = None, check non_negative().if_set();
        /// How it gets there.
        shape: DecayType = DecayType::Linear;
    }
}

section! {
    /// How the learning rate changes over the run.
    LrScheduler "lr_scheduler" {
        /// Steps of linear warmup; the last of them has the peak learning rate.
        warmup_steps: usize = 200, aka ["training.warmup_steps"];
        /// Share of all steps spent decaying; everything after the warmup if unset.
        decay_ratio: Option<f64> = None, check share().if_set();
        /// Shape of the decay.
        decay_type: DecayType = DecayType::Linear;
        /// Share of the peak learning rate at which the decay ends.
        lr_min: f64 = 0.0, aka ["min_lr_factor"], check share();
        /// The whole schedule as stretches, [[lr_scheduler.segments]], in place of warmup and decay.
        segments: Vec<Segment> = Vec::new();
    }
}

section! {
    /// Batches, steps and data.
    Training "training" {
        /// Sequences per forward and backward pass, of each rank.
        batch_size: usize = 8, aka ["local_batch_size"], check positive();
        /// Sequences per optimizer step over all ranks, a multiple of batch_size times the ranks; -1 for one batch on each rank.
        global_batch_size: i64 = -1, check check::minus_one_or_positive();
        /// Tokens per sequence.
        seq_len: usize = 2048, check positive();
        /// Global gradient norm above which gradients are scaled down.
        max_norm: f64 = OptimizerOptions::default().max_norm, check check::above_zero();
        /// Optimizer steps.
        steps: usize = 10_000, check positive();
        /// Ends this start after that step, with a validation and a checkpoint; the schedule is that of all steps, and the
        /// same command without it goes on.
        stop_at_step: Option<usize> = None, check positive().if_set();
        /// Seed of initial weights, data order and generated data.
        seed: u64 = 0, check check::fits_toml();
        /// Accepted for TorchTitan's configs; runs are always deterministic.
        deterministic: bool = true;
        /// Number format of activations and matmul operands; weights, their gradients, sums and statistics are float32
        /// in any case, and by default everything is (TorchTitan's default is "bfloat16"). "float16" scales the loss as
        /// torch.amp.GradScaler does.
        mixed_precision_param: Precision = Precision::Float32;
        /// Number format in which gradients of weights are added up.
        mixed_precision_reduce: String = "float32".to_owned(),
            check one_of(&["float32"]);
        /// Where to train; auto is the first NVIDIA GPU that can be used, else the CPU.
        device: Choice = Choice::Auto;
        /// Threads of the CPU; 0 for all, or for a fair share of them where several ranks use them. Results do not depend on it.
        threads: usize = 0;
    }
}

section! {
    /// Loss on data that is not trained on.
    Validation "validation" {
        /// Measure it while training.
        enable: bool = false, aka ["enabled", "enable_validation"];
        /// Steps between two measurements.
        freq: usize = 100, check positive();
        /// Batches per measurement; -1 for the whole validation part.
        steps: i64 = -1, check check::minus_one_or_positive();
    }
}

section! {
    /// What the model is asked while it trains, as linc eval asks a checkpoint. Nothing of it changes what is trained.
    Questions "eval" {
        /// Tasks, by the names that linc eval --list-tasks has.
        tasks: Vec<String> = Vec::new();
        /// Steps between two evaluations; there is one after the last step.
        freq: usize = 1000, check positive();
        /// Samples of each task, or of each of its parts, at most; of a text, documents.
        limit: usize = 100, check positive();
        /// Tokens of a sample, of tasks with a length of their choice; training.seq_len, if empty.
        lengths: Vec<usize> = Vec::new();
        /// Folder with the files of tasks, in their published layout.
        data: String = "data".to_owned(), check check::not_empty();
        /// A file, a folder or a pattern, for the task text.
        text: Option<String> = None, check check::not_empty().if_set();
    }
}

section! {
    /// Trading time for memory.
    ActivationCheckpoint "activation_checkpoint" {
        /// What the backward pass computes again instead of keeping: nothing, cheap operations, whole layers, or what costs the
        /// least time within memory_budget. Results do not depend on it.
        mode: RecomputeMode = RecomputeMode::default();
        /// What "selective" goes by: "op" for cheap operations of all layers, a number n for all of every n-th layer.
        selective_ac_option: String = "op".to_owned(), check selective_option();
        /// Limit of "memory_budget": from 0, the least memory, to 1, that of "none"; or an amount such as "24GiB".
        memory_budget: MemoryLimit = MemoryLimit::default();
    }
}

impl ActivationCheckpoint {
    /// What the compiler is asked for.
    pub(crate) fn policy(&self) -> RecomputePolicy {
        RecomputePolicy::of(self.mode, self.selective_ac_option.parse().ok(), self.memory_budget)
    }
}

section! {
    /// The compiler; it always runs.
    Compile "compile" {
        /// Accepted for TorchTitan's configs; linc has no uncompiled mode.
        enable: bool = true, aka ["training.compile"];
        /// Passes to leave out, by name.
        disable_passes: Vec<String> = Vec::new(), check optional_passes();
        /// Write the graph after each pass, the plan and every kernel to the dump folder.
        dump: bool = false;
        /// Seconds to spend at most on measuring tile sizes of softmax attention before a run starts; 0 for linc's own.
        /// Other sizes give other last bits; a run that goes on from a checkpoint keeps those that it was started with.
        autotune_seconds: f64 = 0.0, check check::non_negative();
    }
}

fn optional_passes() -> Check<Vec<String>> {
    let known = linc_driver::OPTIONAL_PASSES;
    Check::of_parts(
        format!("names of passes that can be left out, which are {}", known.join(", ")),
        move |names: &Vec<String>| names.iter().find(|name| !known.contains(&name.as_str()))?.to_toml(),
    )
    .in_schema(json!({ "anyOf": [{ "type": "array", "items": { "enum": known } }, { "enum": known }] }))
}

fn newton_schulz_steps() -> Check<usize> {
    Check::new("an integer from 1 to 20", |steps| (1..=20).contains(steps))
        .in_schema(json!({ "minimum": 1, "maximum": 20 }))
}

fn selective_option() -> Check<String> {
    Check::new("\"op\" or an integer of at least 1 in quotes", |value: &String| {
        value.parse::<usize>().is_ok_and(|every| every > 0) || value == "op"
    })
    .in_schema(json!({ "pattern": "^(op|[0-9]+)$" }))
}
