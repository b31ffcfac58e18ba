//! `linc completions`: what a shell needs to complete commands.

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::out;

pub(crate) fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    // Into memory first: the generator panics where a pipe is closed.
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "linc", &mut script);
    out::piece(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
