//! `linc eval`

use std::path::PathBuf;

use clap::Args;
use linc_device::Choice;
use linc_driver::{PassSetting, Precision};

use super::values::{completions, count, number, positive, seed};

pub(super) const EVAL_EXAMPLES: &str = "\
Examples:
  linc eval outputs/quickstart --tasks text --text book.txt --out outputs/eval
  linc eval outputs/quickstart --tasks mmlu,hellaswag --data data --limit 100 --out outputs/eval
  linc eval my_hugging_face_folder --requests samples_arc_easy.jsonl --out outputs/replayed
  linc eval my_model --tasks humaneval --data data --run-code --completions 10 --out outputs/code
  linc eval --list-tasks

An evaluation that was stopped goes on with the same command. OUT gets results.json and, for each task, samples_TASK.jsonl.";

/// `linc eval`
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// A step-N folder, the folder of a run (its newest checkpoint), or a Hugging Face folder
    #[arg(value_name = "MODEL", required_unless_present = "list_tasks")]
    pub(crate) model: Option<PathBuf>,
    /// Tasks, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) tasks: Vec<String>,
    /// The folder for results and records of samples
    #[arg(long, value_name = "DIR", required_unless_present = "list_tasks")]
    pub(crate) out: Option<PathBuf>,
    /// Say which tasks there are, and of which files
    #[arg(long)]
    pub(crate) list_tasks: bool,
    /// The folder with the files of tasks, in their published layout
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
    /// A file, a folder or a pattern, for the task text
    #[arg(long, value_name = "PATH")]
    pub(crate) text: Option<String>,
    /// The field of JSON objects that has their text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) text_field: String,
    /// Samples that lm_eval --log_samples wrote, for the task requests
    #[arg(long, value_name = "FILE")]
    pub(crate) requests: Option<PathBuf>,
    /// Samples of each task, or of each of its subjects or lengths, at most; of texts, documents
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) limit: Option<usize>,
    /// Examples before each question; the task's own number, if not given
    #[arg(long, value_parser = count, allow_negative_numbers = true)]
    pub(crate) shots: Option<usize>,
    /// Token before a context: auto (the tokenizer's that starts a document, if it has one) or never
    #[arg(long, default_value = "auto")]
    pub(crate) bos: String,
    /// Tokens that count in each window of a text but the first; the context's length, if not given
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) stride: Option<usize>,
    /// Tokens of a sample, of tasks with a length of their choice, separated by commas; the context's, if not given
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', value_parser = positive, allow_negative_numbers = true)]
    pub(crate) lengths: Vec<usize>,
    /// Tokens that tasks on tokens are drawn from, such as training.mqar.vocab_size of the run; all of the model's, if not given
    #[arg(long, value_name = "TOKENS", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) vocab: Option<usize>,
    /// Tokens that the model reads at most; the training length, if not given
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) context: Option<usize>,
    /// Run the programs that humaneval has a model write, in a sandbox that needs Linux and Python 3, for pass@k
    #[arg(long)]
    pub(crate) run_code: bool,
    /// Programs for each problem of humaneval, up to 1000, for pass@k of k up to as many
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = completions, allow_negative_numbers = true)]
    pub(crate) completions: usize,
    /// Temperature of --completions; 0 for one, and 0.2 for several, if not given
    #[arg(long, value_parser = number, allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Seed of what is drawn: samples of tasks that make their own, completions, and resamples of intervals
    #[arg(long, default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    #[arg(long, help = Precision::help(), default_value = Precision::default().name())]
    pub(crate) precision: String,
    /// Where to run: auto (the first NVIDIA GPU that can be used, else the CPU), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: Choice,
    /// Threads of the CPU; 0 for all
    #[arg(long, default_value_t = 0, value_parser = count, allow_negative_numbers = true)]
    pub(crate) threads: usize,
}
