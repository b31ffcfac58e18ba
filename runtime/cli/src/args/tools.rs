//! Arguments of the commands around training: profiling and watching it, completing commands, files to begin with.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::Format;
use super::values::{count, positive};

/// `linc watch`
#[cfg(feature = "watch")]
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Folders of runs, such as outputs/quickstart, or folders with such in them
    #[arg(value_name = "DIR", required = true)]
    pub(crate) folders: Vec<PathBuf>,
    /// Print how they are as text, once; as where the output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
}

/// `linc profile`
#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    /// The run, such as configs/quickstart.toml
    #[arg(allow_hyphen_values = true)]
    pub(crate) config: PathBuf,
    /// Steps that are profiled, and averaged
    #[arg(long, default_value_t = 5, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) steps: usize,
    /// Steps before them
    #[arg(long, default_value_t = 2, value_parser = count, allow_negative_numbers = true)]
    pub(crate) warmup: usize,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Settings: --section.key value
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "--SECTION.KEY VALUE")]
    pub(crate) overrides: Vec<String>,
}

/// `linc completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that the script is for, not the one that runs now
    pub(crate) shell: Shell,
}

/// `linc init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// A config or a model of `linc models`, such as quickstart
    pub(crate) name: String,
    /// Where configs/ and models/ are made
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
}

/// `linc report`
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folders of sweeps or of runs, or folders with runs in them
    #[arg(required = true)]
    pub(crate) folders: Vec<PathBuf>,
    /// The page; its tables get the same name as CSV and Markdown. report.html in the first folder if not given
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}
