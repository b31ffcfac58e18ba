//! Of commands that look into models and compare them.

use std::path::PathBuf;

use clap::Args;
use linc_device::Choice;

use super::ask::RunningArgs;
use super::values::{cells, count, number, positive, seed};

pub(super) const LOOK_EXAMPLES: &str = "\
Examples:
  linc look outputs/quickstart --text book.txt
  linc look outputs/quickstart/checkpoint/step-300 --text book.txt --without heads --beyond 16
  linc look my_hugging_face_folder --text book.txt --context 512 --out outputs/look
  linc look outputs/recall --ids tokens.txt               A model that was trained on token ids

OUT gets look.html, which needs no network, look.json, look.heads.csv (a row for each head) and look.maps.json.";

/// `linc look`
#[derive(Debug, Args)]
pub(crate) struct LookArgs {
    /// A step-N folder, the folder of a run (its newest checkpoint), or a Hugging Face folder
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// The text to look at
    #[arg(long, value_name = "FILE", required_unless_present = "ids")]
    pub(crate) text: Option<PathBuf>,
    /// Token ids to look at, separated by blanks or commas
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) ids: Option<PathBuf>,
    /// The folder for page and numbers; look beside the checkpoint's run if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Tokens of a sequence; the training length, if not given
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) context: Option<usize>,
    /// Sequences of the text at most, over which means are taken; maps are of the first
    #[arg(long, default_value_t = 4, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) sequences: usize,
    /// Keys farther away than this many tokens are far
    #[arg(long, value_name = "TOKENS", default_value_t = 32, value_parser = count, allow_negative_numbers = true)]
    pub(crate) beyond: usize,
    /// Cells of a side of a map, 2 to 512
    #[arg(long, default_value_t = 64, value_parser = cells, allow_negative_numbers = true)]
    pub(crate) cells: usize,
    /// Measure the loss without each of these: nothing, attentions or heads (each attention, and each head of it)
    #[arg(long, default_value = "attentions")]
    pub(crate) without: String,
    /// Seed of the repeated random tokens
    #[arg(long, default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Where to run: auto (the first NVIDIA GPU that can be used, else the CPU), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: Choice,
    /// Threads of the CPU; 0 for all
    #[arg(long, default_value_t = 0, value_parser = count, allow_negative_numbers = true)]
    pub(crate) threads: usize,
}

pub(super) const COMPARE_EXAMPLES: &str = "\
Examples:
  linc compare outputs/softmax outputs/hybrid outputs/linear --out outputs/compare
  linc compare outputs/softmax outputs/hybrid --prompts question.jsonl     Prompts of a file, MT-bench's among them
  linc compare --tally outputs/compare                                     What people's marks come to

Give compare.html to those who judge: it says nothing of the models. What they save, ratings-NAME.json, goes beside it.";

/// `linc compare`
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Models: step-N folders, folders of runs (their newest checkpoints), or Hugging Face folders; with --tally the folder of a
    /// comparison, and files of marks if not all of that folder
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Count the marks on a comparison
    #[arg(long, conflicts_with_all = [
        "prompts", "out", "tokens", "temperature", "top_k", "top_p", "seed", "context", "precision", "device", "threads",
    ])]
    pub(crate) tally: bool,
    /// A prompt in each line, or JSON lines with a `prompt` or `turns` each; twenty that are built in, if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// The folder for the page and its key
    #[arg(long, value_name = "DIR", default_value = "outputs/compare")]
    pub(crate) out: PathBuf,
    /// Tokens to write of each prompt at most
    #[arg(long, default_value_t = 100, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) tokens: usize,
    /// Divides the logits before sampling; 0 takes the most likely token
    #[arg(long, default_value_t = 0.8, value_parser = number, allow_negative_numbers = true)]
    pub(crate) temperature: f64,
    /// Sample from this many most likely tokens; 0 for all
    #[arg(long, default_value_t = 40, value_parser = count, allow_negative_numbers = true)]
    pub(crate) top_k: usize,
    /// Sample from the most likely tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_parser = number, allow_negative_numbers = true)]
    pub(crate) top_p: f64,
    /// Seed of the sampling, the same for all models, and of the order of texts; the prompt at index i has this + i
    #[arg(long, default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) running: RunningArgs,
}
