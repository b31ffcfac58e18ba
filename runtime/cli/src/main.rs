//! The binary `linc`: arguments, progress and tables; no logic.
//!
//! Exit codes: 0 done, 2 the user's input is at fault (message on standard error), 130 interrupted.

mod args;
mod compile;
mod generate;
mod inspect;
mod progress;
mod table;
mod train;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Train(args) => train::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Generate(args) => generate::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // A reader that went away, as in `linc ... | head`, is no error.
            let broken_pipe = error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
            if !broken_pipe {
                eprintln!("{}", prefixed(&error.to_string()));
            }
            ExitCode::from(2)
        }
    }
}

/// Messages with a source position say `error:` themselves.
fn prefixed(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    if first.contains("error") { message.to_string() } else { format!("error: {message}") }
}
