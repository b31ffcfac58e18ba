//! `linc generate`: text from a checkpoint.

use std::process::ExitCode;

use anyhow::{Result, bail};
use linc_train::checkpoint::{self, TOKENIZER_FILE};
use linc_train::data::Tokenizer;
use linc_train::generate::{Generator, Programs, Sampling};
use linc_train::trainer::{load_weights, model_of};

use crate::args::GenerateArgs;
use crate::compile::precision;
use crate::out;

pub(crate) fn run(args: &GenerateArgs) -> Result<ExitCode> {
    let temperature = if args.greedy { 0.0 } else { args.temperature };
    let sampling = Sampling { temperature, top_k: args.top_k, top_p: args.top_p, seed: args.seed };
    sampling.check()?;
    let state = checkpoint::open(&args.checkpoint)?;
    if state.data.kind != "text" {
        bail!(
            "{}: the model was trained on {} sequences, which are no text",
            args.checkpoint.display(),
            state.data.kind
        );
    }
    let model = model_of(&state.model)?;
    let tokenizer = if state.files.contains_key(TOKENIZER_FILE) {
        Tokenizer::open(&args.checkpoint.join(TOKENIZER_FILE))?
    } else {
        Tokenizer::bytes()
    };
    let context = args.context.unwrap_or(state.model.seq_len);
    let precision = precision(&args.precision)?;
    let (device, note) = args.device.open((args.threads > 0).then_some(args.threads))?;
    if let Some(note) = note {
        out::complain(note);
    }
    let (mut session, programs) = Programs::load(&model, context, precision, device)?;
    session.executor.initialize(state.seed)?;
    load_weights(&mut session, &args.checkpoint)?;

    let mut generator = Generator::new(&mut session, programs, model.sizes.vocab_size, tokenizer);
    let prompt = generator.prompt(&args.prompt, args.tokens)?;
    out::piece(&args.prompt)?;
    let mut written = Ok(());
    generator.generate(&prompt, &sampling, &mut |piece| {
        written = out::piece(piece);
        written.is_ok()
    })?;
    written?;
    out::line("")?;
    Ok(ExitCode::SUCCESS)
}
