//! Of commands that ask a model.

use std::path::PathBuf;

use clap::Args;
use linc_config::FileSize;
use linc_device::Choice;
use linc_driver::{PassSetting, Precision};

use super::values::{count, number, places, positive, seconds, seed};

/// `linc generate`
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// A step-N folder, or one that linc import wrote
    #[arg(value_name = "CHECKPOINT", required_unless_present = "checkpoint")]
    pub(crate) folder: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "DIR", conflicts_with = "folder")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The text to continue; what is piped in, if not given, and the start of a document, if nothing is
    #[arg(long, conflicts_with = "prompt_file")]
    pub(crate) prompt: Option<String>,
    /// A file with a prompt in each line, or with JSON lines that have a `prompt` each; - for standard input. Writes JSON lines
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "prompt_file", "logits"])]
    pub(crate) prompts: Option<PathBuf>,
    /// Prompts of --prompts that are continued at once
    #[arg(long, default_value_t = 16, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Write JSON lines for each piece as it comes, not for each text
    #[arg(long, requires = "prompts")]
    pub(crate) stream: bool,
    /// End a text here, without this; repeatable
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Tell how likely each token was, and so many of the most likely ones in its place; writes JSON lines
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true, conflicts_with = "logits")]
    pub(crate) logprobs: Option<usize>,
    /// A file with the text to continue, - for standard input; the line break that ends it is left out
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Tokens to write at most; 200, or as many as the context has room for, if not given
    #[arg(long, value_parser = count, allow_negative_numbers = true)]
    pub(crate) tokens: Option<usize>,
    /// Take the most likely token each time
    #[arg(long)]
    pub(crate) greedy: bool,
    /// Divides the logits before sampling
    #[arg(long, default_value_t = 0.8, value_parser = number, allow_negative_numbers = true)]
    pub(crate) temperature: f64,
    /// Sample from this many most likely tokens; 0 for all
    #[arg(long, default_value_t = 40, value_parser = count, allow_negative_numbers = true)]
    pub(crate) top_k: usize,
    /// Sample from the most likely tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_parser = number, allow_negative_numbers = true)]
    pub(crate) top_p: f64,
    /// Sample from tokens with at least this share of the most likely one's probability
    #[arg(long, default_value_t = 0.0, value_parser = number, allow_negative_numbers = true)]
    pub(crate) min_p: f64,
    /// Make tokens that the text has already less likely: 1 is none, 1.1 to 1.3 is usual
    #[arg(long, default_value_t = 1.0, value_parser = number, allow_negative_numbers = true)]
    pub(crate) repetition_penalty: f64,
    /// Seed of the sampling; of --prompts, the one at index i has this + i
    #[arg(long, default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Write the logits after each token of prompt and continuation to this file (safetensors: tokens, logits)
    #[arg(long, value_name = "FILE")]
    pub(crate) logits: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) running: RunningArgs,
}

/// How the programs of a model that is asked run.
#[derive(Debug, Args)]
pub(crate) struct RunningArgs {
    /// Longest prompt and continuation together; the training length if not given
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) context: Option<usize>,
    #[arg(long, help = Precision::help() + "; of the KV cache as well", default_value = Precision::default().name())]
    pub(crate) precision: String,
    /// Where to run: auto (the first NVIDIA GPU that can be used, else the CPU), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: Choice,
    /// Threads of the CPU; 0 for all
    #[arg(long, default_value_t = 0, value_parser = count, allow_negative_numbers = true)]
    pub(crate) threads: usize,
}

/// `linc serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// A step-N folder, or one that linc import wrote
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) checkpoint: PathBuf,
    /// Address to listen on; only this machine reaches the default
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port; 0 for one that is free
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// What requests call the model; the checkpoint's path if not given
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Sequences that are continued at once
    #[arg(long, default_value_t = 8, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) slots: usize,
    /// Requests that may wait; more are answered with 429
    #[arg(long, default_value_t = 64, value_parser = places, allow_negative_numbers = true)]
    pub(crate) queue: usize,
    /// Connections at once
    #[arg(long, default_value_t = 256, value_parser = places, allow_negative_numbers = true)]
    pub(crate) connections: usize,
    /// Size of a request at most, such as 500KB or 8MiB
    #[arg(long, value_name = "SIZE", default_value = "8MiB")]
    pub(crate) max_body: FileSize,
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) timeout: u64,
    /// A file with the token that requests must have in `Authorization: Bearer`
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) running: RunningArgs,
    /// Serve, ask for scores of so many prompts and for continuations, compare with this process, and end
    #[arg(long, value_name = "PROMPTS", num_args = 0..=1, default_missing_value = "50", value_parser = places)]
    pub(crate) self_test: Option<usize>,
}
