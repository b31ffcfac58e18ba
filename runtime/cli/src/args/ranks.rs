//! Arguments of commands that run as several ranks.

use std::ffi::OsString;

use clap::Args;
use linc_bench::Pattern;
use linc_config::FileSize;

use super::Format;
use super::values::{count, exchange, positive, ranks, seconds, world};

/// `linc launch`
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// How many ranks
    #[arg(short = 'n', long = "ranks", value_name = "COUNT", value_parser = ranks, allow_negative_numbers = true)]
    pub(crate) ranks: usize,
    /// A command of linc, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// As one of how many ranks `linc compile` compiles a program.
#[derive(Debug, Args)]
pub(crate) struct WorldArgs {
    /// Compile for the first of so many ranks that share the batches of a step: its memory, and what it exchanges with others
    #[arg(long, value_name = "RANKS", value_parser = world, allow_negative_numbers = true)]
    pub(crate) world: Option<usize>,
    /// Of these, how many share the optimizer's states out among themselves; -1 for all. Each of the others has a copy
    #[arg(
        long,
        value_name = "RANKS",
        default_value_t = 1,
        allow_negative_numbers = true,
        requires = "world"
    )]
    pub(crate) data_parallel_shard_degree: i64,
}

/// `linc bench exchange`
#[derive(Debug, Args)]
pub(crate) struct BenchExchangeArgs {
    /// Which, separated by commas: all-to-all, all-gather, reduce-scatter, all-reduce, broadcast, send-receive; all if not given
    #[arg(long, value_delimiter = ',', value_parser = exchange)]
    pub(crate) exchange: Vec<Pattern>,
    /// Bytes of a rank's whole operand, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "4KiB,16KiB,64KiB,256KiB,1MiB,4MiB,16MiB,64MiB")]
    pub(crate) size: Vec<FileSize>,
    /// Over how many of the ranks, separated by commas; powers of two and all if not given
    #[arg(long, value_delimiter = ',', value_parser = positive, allow_negative_numbers = true)]
    pub(crate) ranks: Vec<usize>,
    /// Runs that are timed; medians, fastest and slowest are printed
    #[arg(long, default_value_t = 10, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) rounds: usize,
    /// Runs before them
    #[arg(long, default_value_t = 3, value_parser = count, allow_negative_numbers = true)]
    pub(crate) warmup: usize,
    /// Seconds that an exchange may take, and the start of all ranks, before it says who is missing and ends all
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) timeout: u64,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}
