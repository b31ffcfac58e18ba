//! Arguments of measurements.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use linc_device::Choice;
use linc_driver::{PassSetting, Placement, Precision};

use super::examples::EXCHANGE_EXAMPLES;
use super::values::{count, places, positive, seconds};
use super::{BenchExchangeArgs, Format, RecomputeArgs, placement_help};

/// `linc bench`
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time softmax and linear attention by themselves, forward and backward
    Attention(BenchAttentionArgs),
    /// Time whole training steps of a model on random tokens
    Train(BenchTrainArgs),
    /// Time reading prompts and writing tokens behind them, with the memory that a sequence has
    Inference(BenchInferenceArgs),
    /// Time training, prompts and tokens over length and share of linear layers: how they grow, and where linear layers win
    #[command(after_help = COST_EXAMPLES)]
    Cost(BenchCostArgs),
    /// Time the kernels of a model's training step that memory limits, as shares of the speed of a copy
    Memory(BenchMemoryArgs),
    /// Measure the processor's limits, and how near each kernel of a training step comes to them
    #[command(after_help = CPU_EXAMPLES, mut_arg("device", |arg| arg.help("Where to run: cpu, which auto is too").default_value("cpu")))]
    Cpu(BenchCpuArgs),
    /// Time exchanges between ranks, and check their bits: started by linc launch, mpirun or srun
    #[command(after_help = EXCHANGE_EXAMPLES)]
    Exchange(BenchExchangeArgs),
}

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    #[arg(long, help = Precision::help(), default_value = Precision::default().name())]
    pub(crate) precision: String,
    /// Runs that are timed; medians, fastest and slowest are printed
    #[arg(long, default_value_t = 10, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) rounds: usize,
    /// Runs before them
    #[arg(long, default_value_t = 3, value_parser = count, allow_negative_numbers = true)]
    pub(crate) warmup: usize,
    /// Where to run: auto (the first NVIDIA GPU that can be used, else the CPU), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: Choice,
    /// Threads of the CPU; 0 for all
    #[arg(long, default_value_t = 0, value_parser = count, allow_negative_numbers = true)]
    pub(crate) threads: usize,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

/// Kinds of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// Softmax over keys
    Softmax,
    /// Causal efficient attention
    Linear,
}

/// Halves of attention's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Half {
    /// Output
    Forward,
    /// Gradients
    Backward,
}

/// `linc bench attention`
#[derive(Debug, Args)]
pub(crate) struct BenchAttentionArgs {
    /// Features of a head, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "64,128", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) head_dim: Vec<usize>,
    /// Tokens of a sequence, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1024", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) seq: Vec<usize>,
    /// Query heads
    #[arg(long, default_value_t = 32, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) heads: usize,
    /// Key and value heads
    #[arg(long, default_value_t = 8, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) kv_heads: usize,
    /// Sequences of a batch
    #[arg(long, default_value_t = 1, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,
    /// Which attention
    #[arg(long, value_enum, value_delimiter = ',', default_value = "softmax,linear")]
    pub(crate) kind: Vec<KindArg>,
    /// Which half of its work
    #[arg(long, value_enum, value_delimiter = ',', default_value = "forward,backward")]
    pub(crate) pass: Vec<Half>,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}

/// `linc bench train`
#[derive(Debug, Args)]
pub(crate) struct BenchTrainArgs {
    /// The model, such as models/llama3_1b.toml
    pub(crate) model: PathBuf,
    /// Shares of linear layers, separated by commas; 0 if not given
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) ratio: Vec<String>,
    #[arg(long, help = placement_help(), default_value_t = Placement::default().to_string())]
    pub(crate) placement: String,
    /// Replace a number or flag of the model file: key=value, repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Tokens of a sequence, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "2048", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) seq: Vec<usize>,
    /// Sequences of a batch
    #[arg(long, default_value_t = 1, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,
    #[command(flatten)]
    pub(crate) recompute: RecomputeArgs,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}

/// `linc bench inference`
#[derive(Debug, Args)]
pub(crate) struct BenchInferenceArgs {
    /// The model, such as models/llama3_1b.toml
    pub(crate) model: PathBuf,
    /// Shares of linear layers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "0,0.5,1", allow_negative_numbers = true)]
    pub(crate) ratio: Vec<String>,
    #[arg(long, help = placement_help(), default_value_t = Placement::default().to_string())]
    pub(crate) placement: String,
    /// Replace a number or flag of the model file: key=value, repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Tokens of a prompt, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "128,1024,8192", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) seq: Vec<usize>,
    /// Sequences that are continued at once, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch_size: Vec<usize>,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}

const COST_EXAMPLES: &str = "\
Examples:
  linc bench cost models/llama3_nano.toml --out outputs/cost
  linc bench cost models/llama3_1b.toml --ratio 0,1 --seconds 120 --precision bfloat16 --out outputs/cost
  linc report outputs/cost               A page of it

What was measured is in OUT/cost.part.json and OUT/cost.part.csv after each point, so that what is ended early is not lost, and in
OUT/cost.json and OUT/cost.csv when all is; those of an earlier measurement stay until then.";

/// `linc bench cost`
#[derive(Debug, Args)]
pub(crate) struct BenchCostArgs {
    /// The model, such as models/llama3_1b.toml
    pub(crate) model: PathBuf,
    /// Shares of linear layers, separated by commas; the least is what others are compared with
    #[arg(long, value_delimiter = ',', default_value = "0,0.25,0.5,0.75,1", allow_negative_numbers = true)]
    pub(crate) ratio: Vec<String>,
    #[arg(long, help = placement_help(), default_value_t = Placement::default().to_string())]
    pub(crate) placement: String,
    /// Replace a number or flag of the model file: key=value, repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Tokens of a sequence, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "512,1024,2048,4096,8192,16384,32768", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) seq: Vec<usize>,
    /// Sequences of a batch, and sequences that are continued at once
    #[arg(long, default_value_t = 1, value_parser = places, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,
    /// Seconds that a point may take; what would take longer is left out
    #[arg(long, default_value_t = 20, value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) seconds: u64,
    /// The folder for cost.json and cost.csv
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) recompute: RecomputeArgs,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}

/// `linc bench memory`
#[derive(Debug, Args)]
pub(crate) struct BenchMemoryArgs {
    /// The model whose sizes count, such as models/llama3_1b.toml; one layer of it is run
    pub(crate) model: PathBuf,
    /// Replace a number or flag of the model file: key=value, repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 2048, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) seq: usize,
    /// Sequences of a batch
    #[arg(long, default_value_t = 1, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}

const CPU_EXAMPLES: &str = "\
Examples:
  linc bench cpu
  linc bench cpu --ratio 1 --seq 2048 --batch-size 1 --threads 1
  linc bench cpu llama3_1b --set n_layers=2 --set vocab_size=4096 --seq 512 --batch-size 1

A kernel's share of the peak counts its multiply-adds, that of a copy the bytes that it must move, beside the fastest copy of as many:
what is small may be in a cache. Other work on the machine makes all numbers worse: run it alone.";

/// `linc bench cpu`
#[derive(Debug, Args)]
pub(crate) struct BenchCpuArgs {
    /// The model, such as models/llama3_1b.toml
    #[arg(default_value = "llama3_nano")]
    pub(crate) model: PathBuf,
    /// Share of linear layers; 0 if not given
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) ratio: Option<String>,
    #[arg(long, help = placement_help(), default_value_t = Placement::default().to_string())]
    pub(crate) placement: String,
    /// Replace a number or flag of the model file: key=value, repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 512, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) seq: usize,
    /// Sequences of a batch
    #[arg(long, default_value_t = 4, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,
    #[command(flatten)]
    pub(crate) recompute: RecomputeArgs,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}
