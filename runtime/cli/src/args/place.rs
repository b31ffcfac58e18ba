//! `linc place`

use std::path::PathBuf;

use clap::Args;
use linc_device::Choice;

use super::Format;
use super::values::{count, number, placements, places, points, positive, seed};

pub(super) const PLACE_EXAMPLES: &str = "\
Examples:
  linc place outputs/softmax --ratio 0.75 --text book.txt --out outputs/place.json
  linc place outputs/recall --ratio 0.5 --tasks mqar --out outputs/place.json --finetune 200
  linc place my_hugging_face_folder --ratio 0.75 --text 'books/*.txt' --out outputs/place.json
  linc train configs/mine.toml --model.linear_attn_placement 0,2,3 --checkpoint.initial_load_path outputs/place/step-300

FILE gets all numbers as JSON, a table of scores beside it as .csv, and in the folder of its name the hybrid as a checkpoint.
Settings of --finetune stand at the end, behind --, as linc train takes them.";

/// `linc place`
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// A softmax model: a step-N folder, the folder of a run (its newest checkpoint), or a Hugging Face folder
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) checkpoint: PathBuf,
    /// Share of the layers that become linear: a number from 0 to 1 or a fraction
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) ratio: String,
    /// The file for all numbers, such as outputs/place.json
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Texts, whose tokens count that follow from a pair that was there before: a file, a folder or a pattern
    #[arg(long, value_name = "PATH")]
    pub(crate) text: Option<String>,
    /// The field of JSON objects that has their text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) text_field: String,
    /// Tasks whose answers count, separated by commas, as linc eval has them; mqar without --text
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) tasks: Vec<String>,
    /// The folder with the files of tasks, in their published layout
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
    /// Sequences to score and search on, and as many others to compare placements on, at most
    #[arg(long, default_value_t = 64, value_parser = places, allow_negative_numbers = true)]
    pub(crate) sequences: usize,
    /// Tokens of a sequence; those of training up to 512, if not given
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) context: Option<usize>,
    /// Sequences at once; about 2048 tokens, if not given
    #[arg(long, value_parser = places, allow_negative_numbers = true)]
    pub(crate) batch_size: Option<usize>,
    /// Steps of training linear branches to do what softmax branches do, before layers are scored
    #[arg(long, default_value_t = 200, value_parser = count, allow_negative_numbers = true)]
    pub(crate) align_steps: usize,
    /// Their learning rate, which falls to nothing
    #[arg(long, default_value_t = 1e-3, value_parser = number, allow_negative_numbers = true)]
    pub(crate) align_lr: f64,
    /// Points of the way from all softmax to all linear at which all layers are scored at once
    #[arg(long, default_value_t = 8, value_parser = points, allow_negative_numbers = true)]
    pub(crate) points: usize,
    /// Steps of training gates, to compare with
    #[arg(long, default_value_t = 40, value_parser = count, allow_negative_numbers = true)]
    pub(crate) gate_steps: usize,
    /// Random placements, to compare with
    #[arg(long, default_value_t = 10, value_parser = placements, allow_negative_numbers = true)]
    pub(crate) random: usize,
    /// Swaps of a softmax layer with a linear one at most, by which the best placement is improved
    #[arg(long, default_value_t = 20, value_parser = count, allow_negative_numbers = true)]
    pub(crate) swaps: usize,
    /// Seed of all that is drawn, and of --finetune; 0 and that of its config, if not given
    #[arg(long, value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// Train the hybrid for so many steps, in the folder finetuned beside it
    #[arg(long, value_name = "STEPS", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) finetune: Option<usize>,
    /// The config of --finetune; that of the run which the checkpoint is of, if not given
    #[arg(long, value_name = "CONFIG", requires = "finetune")]
    pub(crate) config: Option<PathBuf>,
    /// Where to run: auto (the first NVIDIA GPU that can be used, else the CPU), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: Choice,
    /// Threads of the CPU; 0 for all
    #[arg(long, default_value_t = 0, value_parser = count, allow_negative_numbers = true)]
    pub(crate) threads: usize,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Settings of --finetune: --section.key value
    #[arg(last = true, value_name = "--SECTION.KEY VALUE", requires = "finetune")]
    pub(crate) overrides: Vec<String>,
}
