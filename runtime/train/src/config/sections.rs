//! The sections of a job config, in TorchTitan's names, with defaults and limits.

use super::check::{at_least, non_negative, one_of, only_one_rank, positive, share};
use super::section::section;
use super::value::choice;
use linc_driver::{Placement, Precision, Ratio, RecomputePolicy};
use linc_exec::device::Choice;

section! {
    /// What the run is called and where it writes.
    Job "job" {
        /// Folder of everything the run writes.
        dump_folder: String = "./outputs".to_owned(), check super::check::not_empty();
        /// What the run is for, printed at its start.
        description: String = "default job".to_owned();
        /// Print the resolved config at the start.
        print_config: bool = false, aka ["print_args"];
    }
}

section! {
    /// Kernel timings.
    Profiling "profiling" {
        /// Time every kernel and print a table at the end.
        enable_profiling: bool = false;
        /// Folder, inside the dump folder, of the traces.
        save_traces_folder: String = "profile_traces".to_owned(), check super::check::not_empty();
        /// Steps between two profiled steps.
        profile_freq: usize = 10, check positive();
    }
}

section! {
    /// What is reported while training.
    Metrics "metrics" {
        /// Steps between two lines on the console and in metrics.jsonl.
        log_freq: usize = 10, check positive();
        /// Accepted for TorchTitan's configs; linc writes metrics.jsonl instead.
        enable_tensorboard: bool = false;
        /// Accepted for TorchTitan's configs; unused.
        save_tb_folder: String = "tb".to_owned();
        /// Print without colours.
        disable_color_printing: bool = false;
    }
}

section! {
    /// Which model, and which of its layers use linear attention.
    Model "model" {
        /// Architecture family: models/<name>_<flavor>.toml is the model file.
        name: String = "llama3".to_owned(), check super::check::not_empty();
        /// Size within the family.
        flavor: String = "debugmodel".to_owned(), check super::check::not_empty();
        /// Model file; replaces name and flavor.
        path: Option<String> = None;
        /// A Hugging Face tokenizer.json, or a folder with one; bytes if unset.
        tokenizer_path: Option<String> = None, aka ["hf_assets_path"];
        /// Share of the layers that use linear attention, to the nearest whole number of layers; 0 if unset. Below 1 it
        /// leaves at least one layer to softmax attention, above 0 it has at least one linear one.
        linear_attn_ratio: Option<Ratio> = None;
        /// Which layers those are; a list needs no ratio.
        linear_attn_placement: Placement = Placement::Uniform;
    }
}

section! {
    /// The optimizer.
    Optimizer "optimizer" {
        /// The algorithm; AdamW is the one there is.
        name: String = "AdamW".to_owned(), check one_of(&["AdamW"]);
        /// Peak learning rate.
        lr: f64 = 8e-4, check non_negative();
        /// Added to the denominator of the update.
        eps: f64 = 1e-8, check non_negative();
        /// Decay of the first moment.
        beta1: f64 = 0.9, check super::check::below_one();
        /// Decay of the second moment.
        beta2: f64 = 0.95, check super::check::below_one();
        /// Decoupled weight decay, of all parameters.
        weight_decay: f64 = 0.1, check non_negative();
    }
}

choice! {
    /// Shape of the learning rate's decay.
    DecayType {
        /// Straight line.
        Linear = "linear",
        /// One minus the square root of the progress.
        Sqrt = "sqrt",
        /// Half a cosine.
        Cosine = "cosine",
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
    }
}

choice! {
    /// Where the training text comes from.
    DatasetKind {
        /// Short tales of a small grammar, built into the program.
        Stories = "stories",
        /// Multi-query associative recall, generated.
        Mqar = "mqar",
        /// Text files named by `dataset_path`.
        Text = "text",
    }
}

section! {
    /// Batches, steps and data.
    Training "training" {
        /// Sequences per forward and backward pass.
        batch_size: usize = 8, aka ["local_batch_size"], check positive();
        /// Sequences per optimizer step, a multiple of batch_size; -1 for one batch.
        global_batch_size: i64 = -1, check super::check::minus_one_or_positive();
        /// Tokens per sequence.
        seq_len: usize = 2048, check positive();
        /// Global gradient norm above which gradients are scaled down.
        max_norm: f64 = 1.0, check super::check::above_zero();
        /// Optimizer steps.
        steps: usize = 10_000, check positive();
        /// Seed of initial weights, data order and generated data.
        seed: u64 = 0, check super::check::fits_toml();
        /// Accepted for TorchTitan's configs; runs are always deterministic.
        deterministic: bool = true;
        /// Data: built in, or "text" for the files of dataset_path.
        dataset: DatasetKind = DatasetKind::Stories;
        /// A .txt, .text, .raw, .jsonl, .ndjson or .json file, packed as .gz or not, a folder of them, or a glob.
        dataset_path: Option<String> = None;
        /// Field of a JSON object that holds the text.
        text_field: String = "text".to_owned(), check super::check::not_empty();
        /// Visit the data in an order drawn from the seed; in file order if false.
        shuffle: bool = true;
        /// Number format of activations and matmul operands; weights, their gradients, sums and statistics are float32
        /// in any case, and by default everything is (TorchTitan's default is "bfloat16"). "float16" scales the loss as
        /// torch.amp.GradScaler does.
        mixed_precision_param: Precision = Precision::Float32;
        /// Number format in which gradients of weights are added up.
        mixed_precision_reduce: String = "float32".to_owned(),
            check one_of(&["float32"]);
        /// Where to train; auto is the first NVIDIA GPU that can be used, else the CPU.
        device: Choice = Choice::Auto;
        /// Threads of the CPU; 0 for all. Results do not depend on it.
        threads: usize = 0;
    }
}

section! {
    /// The generated recall task of dataset "mqar".
    MqarConfig "training.mqar" {
        /// Tokens: keys are drawn from the lower half, values from the upper.
        vocab_size: usize = 512, check at_least(4);
        /// Key-value pairs of a sequence; sequences take the numbers of a list in turn.
        num_kv_pairs: Vec<usize> = vec![8], check super::check::positive_list();
        /// Exponent of the distance between a pair and its query; 1 is uniform, near 0 mostly short.
        power_a: f64 = 0.01, check super::check::above_zero();
        /// How often the pairs are shown before the queries.
        num_passes: usize = 1, check positive();
        /// Fill the other positions with random tokens instead of 0.
        random_non_queries: bool = true;
        /// Different training sequences before they repeat; 0 to never repeat.
        num_examples: usize = 100_000, check super::check::fits_u32();
        /// Validation sequences.
        num_validation_examples: usize = 1_000, check positive();
    }
}

section! {
    /// Loss on data that is not trained on.
    Validation "validation" {
        /// Measure it while training.
        enable: bool = false, aka ["enable_validation"];
        /// Steps between two measurements.
        freq: usize = 100, check positive();
        /// Batches per measurement; -1 for the whole validation part.
        steps: i64 = -1, check super::check::minus_one_or_positive();
        /// Data to validate on, if not the held-out part of the training data.
        dataset: Option<DatasetKind> = None;
        /// Files of that data.
        dataset_path: Option<String> = None;
        /// Share of the training text that is held out, if this is enabled and has no other data.
        fraction: f64 = 0.05, check super::check::held_out_share();
    }
}

choice! {
    /// Whether training waits for a checkpoint to reach the disk.
    AsyncMode {
        /// It waits.
        Disabled = "disabled",
        /// It goes on.
        Async = "async",
        /// It goes on, copying through pinned memory where the device has any.
        AsyncPinned = "async_with_pinned_mem",
    }
}

section! {
    /// Saving and loading.
    Checkpoint "checkpoint" {
        /// Save checkpoints, and resume from them.
        enable: bool = false, aka ["enable_checkpoint"];
        /// Folder, inside the dump folder, of the step-N folders.
        folder: String = "checkpoint".to_owned(), check super::check::inside_dump_folder();
        /// Steps between two checkpoints; the last step is always saved.
        interval: usize = 500, check positive();
        /// How many of the newest checkpoints stay; 0 for all.
        keep_latest_k: usize = 10;
        /// Step to resume from; -1 for the newest there is.
        load_step: i64 = -1, check super::check::at_least_minus_one();
        /// A step-N folder whose weights start a new run.
        initial_load_path: Option<String> = None;
        /// Take only the weights from initial_load_path, not optimizer and data position.
        initial_load_model_only: bool = true;
        /// Save only the weights at the last step.
        last_save_model_only: bool = false, aka ["model_weights_only", "last_save_model_weights_only"];
        /// Number format of saved weights.
        export_dtype: String = "float32".to_owned(), check one_of(&["float32"]);
        /// Whether training goes on while a checkpoint is written.
        async_mode: AsyncMode = AsyncMode::Disabled;
    }
}

section! {
    /// Trading time for memory.
    ActivationCheckpoint "activation_checkpoint" {
        /// What the backward pass computes again instead of keeping: nothing, cheap operations, or whole layers.
        mode: RecomputePolicy = RecomputePolicy::default();
        /// Accepted for TorchTitan's configs; "selective" always goes by operation.
        selective_ac_option: String = "op".to_owned(), check super::check::selective_option();
    }
}

section! {
    /// Degrees of parallelism; linc runs on one device, so each is 1 (or -1, which comes to 1).
    Parallelism "parallelism" {
        /// Replicas.
        data_parallel_replicate_degree: i64 = 1,
            aka ["training.data_parallel_replicate_degree", "experimental.data_parallel_replicate_degree"],
            check only_one_rank();
        /// Shards of the parameters.
        data_parallel_shard_degree: i64 = -1,
            aka ["training.data_parallel_shard_degree", "experimental.data_parallel_shard_degree"],
            check only_one_rank();
        /// Parts of each matmul.
        tensor_parallel_degree: i64 = 1,
            aka ["training.tensor_parallel_degree", "experimental.tensor_parallel_degree"],
            check only_one_rank();
        /// Groups of layers.
        pipeline_parallel_degree: i64 = 1,
            aka ["training.pipeline_parallel_degree", "experimental.pipeline_parallel_degree"],
            check only_one_rank();
        /// Parts of the sequence.
        context_parallel_degree: i64 = 1,
            aka ["training.context_parallel_degree", "experimental.context_parallel_degree"],
            check only_one_rank();
        /// Groups of experts.
        expert_parallel_degree: i64 = 1, check only_one_rank();
    }
}

section! {
    /// The compiler; it always runs.
    Compile "compile" {
        /// Accepted for TorchTitan's configs; linc has no uncompiled mode.
        enable: bool = true, aka ["training.compile"];
        /// Passes to leave out, by name.
        disable_passes: Vec<String> = Vec::new(), check super::check::optional_passes();
        /// Write the graph after each pass, the plan and every kernel to the dump folder.
        dump: bool = false;
        /// Seconds to spend at most on measuring tile sizes of softmax attention before a run starts; 0 for linc's own.
        /// Other sizes give other last bits; a run that goes on from a checkpoint keeps those that it was started with.
        autotune_seconds: f64 = 0.0, check super::check::non_negative();
    }
}
