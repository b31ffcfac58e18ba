//! `linc inspect`: the card of a model or of a checkpoint.

use std::process::ExitCode;

use anyhow::Result;
use linc_checkpoint::model_of;
use linc_device::words::count;
use linc_driver::PersistentLayout;

use crate::args::{Format, InspectArgs};
use crate::compile::{card, entry, open, options};
use crate::out;

pub(crate) fn run(args: &InspectArgs) -> Result<ExitCode> {
    let mut options = options(&args.layers)?;
    let model = if args.path.is_dir() || linc_checkpoint::is_named_so(&args.path) {
        let state = linc_checkpoint::open(&args.path)?;
        options.seq = state.model.seq_len;
        if args.format == Format::Text {
            let tokens = count(state.tokens as usize, "token");
            let path = args.path.display();
            let borders =
                state.data.borders.map_or_else(String::new, |borders| format!(", documents with {borders}"));
            out::line(format_args!("Checkpoint  {path} (step {}, {tokens}{borders})", state.step))?;
        }
        model_of(&state.model)?
    } else {
        open(&args.path, &args.layers)?
    };
    let entry = entry("train", &args.layers, &model, options.target)?;
    let compiled = linc_driver::compile(&model, &entry, &options, &mut PersistentLayout::default())?;
    match args.format {
        Format::Json => out::line(serde_json::to_string_pretty(&compiled.report)?)?,
        Format::Text => out::line(card(&model, &compiled.report, None))?,
    }
    Ok(ExitCode::SUCCESS)
}
