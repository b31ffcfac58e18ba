//! `linc inspect`: the card of a model or of a checkpoint.

use std::process::ExitCode;

use anyhow::Result;
use linc_driver::Layout;
use linc_train::checkpoint;
use linc_train::trainer::model_of;

use crate::args::{Format, InspectArgs};
use crate::compile::{entry, open, options, print_card};

pub(crate) fn run(args: &InspectArgs) -> Result<ExitCode> {
    let mut options = options(&args.layers)?;
    let model = if args.path.is_dir() {
        let state = checkpoint::open(&args.path)?;
        options.seq = state.model.seq_len;
        if args.format == Format::Text {
            println!("Checkpoint  {} (step {}, {} tokens)", args.path.display(), state.step, state.tokens);
        }
        model_of(&state.model)?
    } else {
        open(&args.path, &args.layers)?
    };
    let entry = entry("train", &args.layers)?;
    let compiled = linc_driver::compile(&model, &entry, &options, &mut Layout::default())?;
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&compiled.report)?),
        Format::Text => print_card(&compiled.report),
    }
    Ok(ExitCode::SUCCESS)
}
