//! The binary `linc`: arguments, progress and tables; no logic.
//!
//! Invariants: everything is printed through [`out`], which cannot panic; whatever goes wrong ends in a message and one
//! of these exit codes: 0 done, 2 the user's input or machine is at fault (message on standard error), 130 interrupted by
//! Ctrl-C (143 by SIGTERM, 129 by SIGHUP), 3 another rank failed, hangs or is gone, 141 the reader of standard output went away (as the shell reports it for other
//! programs).

mod args;
mod bench;
mod compare;
mod compile;
mod completions;
mod config;
mod console;
mod cuda;
mod device;
mod eval;
mod fit;
mod generate;
mod hugging_face;
mod inspect;
mod log;
mod look;
mod models;
mod out;
mod place;
mod profile;
mod progress;
mod ranks;
mod report;
mod roofline;
mod serve;
mod shipped;
mod sweep;
mod table;
mod text_model;
mod tokenize;
mod train;
#[cfg(feature = "watch")]
mod watch;
mod wrap;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use linc_config::ConfigError;
use linc_device::words::{help_to_write, reason};
use linc_device::{Allocator, signals};
use linc_driver::CompileError;
use linc_train::TrainError;

use crate::args::{Cli, Command};
use crate::log::Log;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    linc_device::threads::reserve_stack();
    signals::survive_file_limit();
    let Cli { mut command, log } = Cli::parse();
    if let Err(error) = log.begin(command.settings()) {
        return failed(&error);
    }
    if let Err(error) = ranks::check(&command) {
        return failed(&error);
    }
    if matches!(
        command,
        Command::Train(_)
            | Command::Profile(_)
            | Command::Generate(_)
            | Command::Eval(_)
            | Command::Place(_)
            | Command::Look(_)
            | Command::Compare(_)
            | Command::Serve(_)
            | Command::Tokenize(_)
    ) && let Err(error) = linc_data::threads::start()
    {
        return failed(&anyhow::Error::msg(error));
    }
    let result = match command {
        Command::Train(args) => train::run(&args, Log::of_process()),
        Command::Compile(args) => compile::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Look(args) => look::run(&args),
        Command::Import(args) => hugging_face::import(&args),
        Command::Export(args) => hugging_face::export(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Launch(args) => ranks::launch(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Place(args) => place::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Profile(args) => profile::run(&args),
        #[cfg(feature = "watch")]
        Command::Watch(args) => watch::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Models => models::list(),
        Command::Init(args) => models::init(&args),
    };
    result.unwrap_or_else(|error| failed(&error))
}

/// Says what went wrong; the exit code for it.
fn failed(error: &anyhow::Error) -> ExitCode {
    // Errors of files come with their path, in types of their own: a bare one is standard output's.
    if let Some(error) = error.downcast_ref::<io::Error>() {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return ExitCode::from(141);
        }
        log::error(format_args!(
            "cannot write to standard output: {}\n  help: {}",
            reason(error),
            help_to_write(error)
        ));
        return ExitCode::from(2);
    }
    if let Some(error) = error.downcast_ref::<TrainError>()
        && error.is_interrupt()
    {
        log::ended(error);
        return ExitCode::from(signals::exit_code().unwrap_or(130));
    }
    let says_error = error.chain().any(|error| {
        error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(CompileError::Model(_)))
    });
    let message = error.to_string();
    let message = message.trim_end();
    // Errors in a file begin with their place, for editors to jump to, and say `error:` themselves.
    match says_error {
        true => log::error_at(message),
        false => log::error(message),
    }
    ExitCode::from(2)
}
