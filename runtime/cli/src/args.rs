//! The command line.

mod ask;
mod bench;
mod eval;
mod examples;
mod place;
mod ranks;
mod study;
mod tools;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use linc_checkpoint::hugging_face::Element;
use linc_config::FileSize;
use linc_driver::{MemoryLimit, PassSetting, Placement, Precision, RecomputeMode};

pub(crate) use ask::{GenerateArgs, ServeArgs};
pub(crate) use bench::{
    BenchAttentionArgs, BenchCommand, BenchCostArgs, BenchCpuArgs, BenchInferenceArgs, BenchMemoryArgs,
    BenchTrainArgs, Half, KindArg, MeasureArgs,
};
use eval::EVAL_EXAMPLES;
pub(crate) use eval::EvalArgs;
use examples::{
    COMPLETIONS_EXAMPLES, CONFIG_EXAMPLES, FIRST_STEPS, LAUNCH_EXAMPLES, PROFILE_EXAMPLES, REPORT_EXAMPLES,
    SERVE_EXAMPLES, SWEEP_EXAMPLES, TOKENIZE_EXAMPLES, TRAIN_EXAMPLES,
};
use place::PLACE_EXAMPLES;
pub(crate) use place::PlaceArgs;
pub(crate) use ranks::{BenchExchangeArgs, LaunchArgs, WorldArgs};
use study::{COMPARE_EXAMPLES, LOOK_EXAMPLES};
pub(crate) use study::{CompareArgs, LookArgs};
#[cfg(feature = "watch")]
pub(crate) use tools::WatchArgs;
pub(crate) use tools::{CompletionsArgs, InitArgs, ProfileArgs, ReportArgs};
use values::{element, held_out, memory, positive, shard_tokens};

use crate::log::Log;

fn placement_help() -> String {
    format!("Where they are: {}, or a list such as 0,2,5, which needs no ratio", Placement::words())
}

/// Compiles, trains and runs language models in which a chosen share of the layers uses linear attention.
#[derive(Debug, Parser)]
#[command(name = "linc", version, about, propagate_version = true, after_help = FIRST_STEPS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: Log,
}

impl Command {
    /// The settings behind a config, among which are the switches that stand there.
    pub(crate) fn settings(&mut self) -> Option<&mut Vec<String>> {
        match self {
            Command::Train(args) => Some(&mut args.overrides),
            Command::Sweep(args) => Some(&mut args.overrides),
            Command::Config(args) => Some(&mut args.overrides),
            Command::Profile(args) => Some(&mut args.overrides),
            _ => None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model; `--section.key value` overrides any setting of the config
    #[command(after_help = TRAIN_EXAMPLES, arg_required_else_help = true)]
    Train(TrainArgs),
    /// Train many runs that differ in a few settings, and compare them
    #[command(after_help = SWEEP_EXAMPLES, arg_required_else_help = true)]
    Sweep(SweepArgs),
    /// Choose the layers of a softmax model that become linear, by what each costs at tokens that ask for earlier ones
    #[command(after_help = PLACE_EXAMPLES, arg_required_else_help = true)]
    Place(PlaceArgs),
    /// Write a page with charts on the runs in some folders: of sweeps, or of single runs
    #[command(after_help = REPORT_EXAMPLES, arg_required_else_help = true)]
    Report(ReportArgs),
    /// Print a config with all settings and where each is from; or the JSON schema of configs, for editors
    #[command(after_help = CONFIG_EXAMPLES, arg_required_else_help = true)]
    Config(ConfigArgs),
    /// Run a few steps of a config: each kernel's share of its machine's limits, and where a step loses time
    #[command(after_help = PROFILE_EXAMPLES, arg_required_else_help = true)]
    Profile(ProfileArgs),
    /// Lower a model, plan its memory and generate its kernels; allocates no weights
    Compile(CompileArgs),
    /// Show a model's card: layers, kernels, parameters, FLOPs, memory; or a checkpoint's
    Inspect(InspectArgs),
    /// Continue a prompt with a trained model
    Generate(GenerateArgs),
    /// Answer requests for completions over HTTP, in OpenAI's format
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Ask a model: loss of texts, multiple choice, recall, with a record of each sample; ended, it goes on
    #[command(after_help = EVAL_EXAMPLES, arg_required_else_help = true)]
    Eval(EvalArgs),
    /// Show what each head of a model does with a text: maps, distances, ranks, what the loss is without it
    #[command(after_help = LOOK_EXAMPLES, arg_required_else_help = true)]
    Look(LookArgs),
    /// Put texts of several models side by side for people to judge blindly, and count what they say
    #[command(after_help = COMPARE_EXAMPLES, arg_required_else_help = true)]
    Compare(CompareArgs),
    /// Turn a Hugging Face folder (Llama, safetensors) into a checkpoint
    Import(ImportArgs),
    /// Write a checkpoint as a Hugging Face folder for transformers, hybrids with their own model class
    Export(ExportArgs),
    /// Tokenize a corpus into shards, which training reads from disk; goes on where it was ended
    #[command(after_help = TOKENIZE_EXAMPLES, arg_required_else_help = true)]
    Tokenize(TokenizeArgs),
    /// Run a command as several ranks on this machine, which exchange over MPI
    #[command(after_help = LAUNCH_EXAMPLES, arg_required_else_help = true)]
    Launch(LaunchArgs),
    /// Measure attention, training steps, the kernels that memory limits, or exchanges between ranks
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Draw curves, numbers and alerts of runs, while they go on or afterwards
    #[cfg(feature = "watch")]
    Watch(WatchArgs),
    /// Print a script that completes commands in a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// List the models and configs that are part of the program
    Models,
    /// Write a config and its model into a folder, to be edited
    Init(InitArgs),
}

/// `linc tokenize`
#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// A .txt, .jsonl, .json or .parquet file, packed as .gz or .zst or not, a folder of them, or a glob in quotes
    #[arg(value_name = "DATA")]
    pub(crate) path: String,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A Hugging Face tokenizer.json, a rank file of tiktoken or Llama 3, or a folder with one; bytes if not given
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer: Option<String>,
    /// Field of JSON objects, or column of Parquet files, that holds the text (or, of Parquet, lists of token ids)
    #[arg(long, default_value = "text", value_name = "NAME")]
    pub(crate) text_field: String,
    /// What stands between the documents of a plain text file, such as "<|endoftext|>"; without it a file is one document
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) document_separator: Option<String>,
    /// Share of the documents, chosen by their content, that is to validate on
    #[arg(long, default_value_t = 0.01, value_name = "SHARE", value_parser = held_out)]
    pub(crate) held_out: f64,
    /// Tokens of a shard, which ends with a document
    #[arg(long, default_value_t = 1 << 25, value_name = "COUNT", value_parser = shard_tokens)]
    pub(crate) shard_tokens: u64,
}

/// `linc import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A folder with config.json, model.safetensors (or its shards and their index) and tokenizer.json
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// The folder to write; outputs/<name of DIR> if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// `linc export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A step-N folder, or one that linc import wrote
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) checkpoint: PathBuf,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Number format of the weights: float32 (as linc keeps them), bfloat16 or float16
    #[arg(long, default_value = "float32", value_parser = element)]
    pub(crate) dtype: Element,
    /// Bytes of a file of weights at most, such as 500MB, 5GB or 2GiB; more files get an index
    #[arg(long, value_name = "SIZE", default_value = "50GB")]
    pub(crate) max_shard_size: FileSize,
}

/// `linc train`
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// The run, such as configs/quickstart.toml
    #[arg(required_unless_present = "list_settings", allow_hyphen_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print where the time goes, by kernel, at the end
    #[arg(long)]
    pub(crate) profile: bool,
    /// Print all settings with their defaults
    #[arg(long)]
    pub(crate) list_settings: bool,
    /// Settings: --section.key value
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "--SECTION.KEY VALUE")]
    pub(crate) overrides: Vec<String>,
}

/// `linc sweep`
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// The sweep, such as configs/sweep_ratio.toml
    #[arg(allow_hyphen_values = true)]
    pub(crate) sweep: PathBuf,
    /// List the runs, with their memory, and train none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do runs again that failed before
    #[arg(long)]
    pub(crate) retry_failed: bool,
    /// Settings of all runs: --section.key value; and of the sweep: --sweep.key value
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "--SECTION.KEY VALUE")]
    pub(crate) overrides: Vec<String>,
}

/// `linc config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The run, such as configs/quickstart.toml
    #[arg(required_unless_present = "schema", allow_hyphen_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print the JSON schema of configs
    #[arg(long, conflicts_with = "config")]
    pub(crate) schema: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Settings: --section.key value
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "--SECTION.KEY VALUE")]
    pub(crate) overrides: Vec<String>,
}

/// Which of a model's layers are linear.
#[derive(Debug, Args)]
pub(crate) struct LayerArgs {
    /// Share of the layers that use linear attention: a number from 0 to 1 or a fraction; 0 if not given
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) ratio: Option<String>,
    #[arg(long, help = placement_help(), default_value_t = Placement::default().to_string())]
    pub(crate) placement: String,
    /// Replace a number or flag of the model file: key=value, repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Sequences of a batch
    #[arg(long, default_value_t = 1, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 2048, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) seq_len: usize,
    #[arg(long, help = Precision::help(), default_value = Precision::default().name())]
    pub(crate) precision: String,
}

/// What the backward recomputes.
#[derive(Debug, Args)]
pub(crate) struct RecomputeArgs {
    #[arg(long, help = RecomputeMode::help(), default_value = RecomputeMode::default().name())]
    pub(crate) recompute: String,
    /// Every how many layers --recompute selective computes all of one again; cheap operations of all layers, if not given
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) selective_layers: Option<usize>,
    /// Limit of --recompute memory_budget: from 0, the least memory, to 1, that of none; or an amount such as 24GiB
    #[arg(long, value_name = "LIMIT", default_value_t = MemoryLimit::default(), allow_negative_numbers = true)]
    pub(crate) memory_budget: MemoryLimit,
}

/// How results are printed, or what is said beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// JSON: one object, or one a line
    Json,
}

/// `linc compile`
#[derive(Debug, Args)]
pub(crate) struct CompileArgs {
    /// The model, such as models/llama3_1b.toml
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) layers: LayerArgs,
    /// Program to compile: train, eval, forward, score, look, prefill (a block of a prompt), decode, or one whose layers mix
    /// kinds: mixed, divergence, gate_gradients or align
    #[arg(long, default_value = "train")]
    pub(crate) entry: String,
    #[command(flatten)]
    pub(crate) recompute: RecomputeArgs,
    /// Compare the modes of --recompute: what each saves and costs
    #[arg(long, conflicts_with_all = ["fit", "out", "dump"])]
    pub(crate) modes: bool,
    /// Find the batch size and the recomputation that fit in so much memory, such as 24GiB
    #[arg(long, value_name = "MEMORY", value_parser = memory, conflicts_with_all = ["out", "dump"], allow_negative_numbers = true)]
    pub(crate) fit: Option<MemoryLimit>,
    #[command(flatten)]
    pub(crate) world: WorldArgs,
    /// Switch an optional pass off, repeatable
    #[arg(long, value_name = "PASS")]
    pub(crate) disable_pass: Vec<String>,
    /// Print the graph after this pass
    #[arg(long, value_name = "PASS")]
    pub(crate) dump: Option<String>,
    /// Machine that kernels are generated for: cpu or cuda
    #[arg(long, default_value = "cpu")]
    pub(crate) target: String,
    /// GPU of --target cuda: sm_80 (A100), sm_89 (L40S, RTX 40), sm_90a (H100, H200) or sm_90 (those without wgmma);
    /// sm_90a if not given
    #[arg(long)]
    pub(crate) arch: Option<String>,
    /// Write graphs, plan and kernels to this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

/// `linc inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A model file, or a checkpoint folder
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) layers: LayerArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}
