//! `linc generate`: text from a checkpoint.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use linc_driver::{Entry, Options};
use linc_train::checkpoint::{self, TOKENIZER_FILE};
use linc_train::data::Tokenizer;
use linc_train::generate::{Generator, Sampling};
use linc_train::session::Session;
use linc_train::trainer::{load_weights, model_of};

use crate::args::GenerateArgs;
use crate::train::cpu;

pub(crate) fn run(args: &GenerateArgs) -> Result<ExitCode> {
    let state = checkpoint::open(&args.checkpoint)?;
    let model = model_of(&state.model)?;
    let tokenizer = if state.files.contains_key(TOKENIZER_FILE) {
        Tokenizer::open(&args.checkpoint.join(TOKENIZER_FILE))?
    } else {
        Tokenizer::bytes()
    };
    let context = args.context.unwrap_or(state.model.seq_len);
    let entries = [(Entry::Decode { context }, Options::new(1, 1))];
    let mut session = Session::new(&model, &entries, cpu(args.threads)?)?;
    session.executor.initialize(state.seed)?;
    load_weights(&mut session, &args.checkpoint)?;

    let temperature = if args.greedy { 0.0 } else { args.temperature };
    let sampling = Sampling { temperature, top_k: args.top_k, top_p: args.top_p, seed: args.seed };
    let mut generator = Generator::new(&mut session, 0, context, model.sizes.vocab_size, tokenizer);
    let mut out = std::io::stdout().lock();
    write!(out, "{}", args.prompt)?;
    let mut failed = None;
    generator.generate(&args.prompt, args.tokens, &sampling, &mut |piece| {
        if let Err(error) = write!(out, "{piece}").and_then(|()| out.flush()) {
            failed = Some(error);
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}
