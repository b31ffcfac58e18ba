//! `linc generate`: text from a checkpoint.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use linc_checkpoint::hugging_face::NO_TOKENIZER;
use linc_checkpoint::{load_weights, model_of};
use linc_data::{TOKENIZER_FILE, Tokenizer};
use linc_infer::{Generator, Programs, Sampling, visible};
use linc_infer::{InferError, prompt};

use crate::args::GenerateArgs;
use crate::compile::pass_setting;
use crate::out;
use crate::progress::Progress;

pub(crate) fn run(args: &GenerateArgs) -> Result<ExitCode> {
    let temperature = if args.greedy { 0.0 } else { args.temperature };
    let sampling = Sampling { temperature, top_k: args.top_k, top_p: args.top_p, seed: args.seed };
    sampling.check()?;
    let text = prompt_text(args)?;
    let state = linc_checkpoint::open(&args.checkpoint)?;
    if state.data.kind == NO_TOKENIZER {
        bail!(
            "{}: it was imported without a tokenizer, so it reads no text\n  help: put the model's {TOKENIZER_FILE} beside its config.json, and import it again",
            args.checkpoint.display()
        );
    }
    if state.data.kind != "text" {
        bail!(
            "{}: the model was trained on {} sequences, which are no text\n  help: the run says how well it recalls: linc inspect shows the model",
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
    let precision = pass_setting(&args.precision)?;
    let opened = args.device.open((args.threads > 0).then_some(args.threads))?;
    for said in opened.note.into_iter().chain(opened.warning.map(|warning| format!("warning: {warning}"))) {
        out::complain(said);
    }
    let mut device = opened.device;
    device.watch(Progress::new().of_kernels());
    let (mut session, programs) = Programs::load(&model, context, precision, device)?;
    session.executor.initialize_constants()?;
    load_weights(&mut session.executor, &args.checkpoint, &mut || Ok::<_, anyhow::Error>(()))?;

    let mut generator = Generator::new(&mut session, programs, model.sizes.vocab_size, tokenizer);
    let prompt = generator.prompt(&text, args.tokens)?;
    if args.logits.is_some() {
        generator.keep_logits();
    }
    let write = |piece: &str| match io::stdout().is_terminal() {
        true => out::piece(&visible(piece)),
        false => out::piece(piece),
    };
    // A model that cannot go on says so instead of the prompt.
    let mut begun = false;
    let mut begin = || if std::mem::replace(&mut begun, true) { Ok(()) } else { write(&text) };
    let mut written = Ok(());
    let generated = generator.generate(&prompt, &sampling, &mut |piece| {
        written = begin().and_then(|()| write(piece));
        written.is_ok()
    });
    written?;
    match generated {
        Ok(_) => begin()?,
        Err(error) => {
            if begun {
                out::line("")?;
            }
            match error {
                InferError::LogitsNotFinite { .. } => bail!("{}: {error}", args.checkpoint.display()),
                error => return Err(error.into()),
            }
        }
    }
    out::line("")?;
    if let Some(path) = &args.logits {
        generator.take_logits().write(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The text to continue: of the command line, a file, or a pipe; else nothing, which starts a document.
fn prompt_text(args: &GenerateArgs) -> Result<Cow<'_, str>> {
    if let Some(prompt) = &args.prompt {
        return Ok(Cow::Borrowed(prompt));
    }
    Ok(Cow::Owned(match &args.prompt_file {
        Some(path) if path != Path::new("-") => prompt::from_file(path)?,
        None if io::stdin().is_terminal() => String::new(),
        Some(_) => prompt::from_pipe(&io::stdin())?,
        None => pipe_nobody_named()?,
    }))
}

/// The text of standard input, which may be a pipe that somebody left open by chance: who waits for long is told for what.
fn pipe_nobody_named() -> Result<String> {
    let (finished, is_finished) = mpsc::channel::<()>();
    let remark = move || {
        if is_finished.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            out::complain("reading the prompt from standard input; --prompt '' for none");
        }
    };
    // Where no thread can be had, nothing is said.
    let _ = thread::Builder::new().spawn(remark);
    let text = prompt::from_pipe(&io::stdin());
    drop(finished);
    Ok(text?)
}
