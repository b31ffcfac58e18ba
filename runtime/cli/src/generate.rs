//! `linc generate`: text from a checkpoint, of one prompt as it is written or of many as JSON lines.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use linc_checkpoint::load_weights;
use linc_infer::prompt::{self, Given};
use linc_infer::{Generator, InferError, Programs, Request, Sampling, Wanted, visible};

use crate::args::GenerateArgs;
use crate::compile::pass_setting;
use crate::device::device;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::text_model::{TextModel, reading};

mod many;

pub(crate) fn run(args: &GenerateArgs) -> Result<ExitCode> {
    let temperature = if args.greedy { 0.0 } else { args.temperature };
    let sampling = Sampling {
        temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        seed: args.seed,
    };
    sampling.check()?;
    let Some(checkpoint) = args.checkpoint.as_ref().or(args.folder.as_ref()) else {
        bail!("no checkpoint is named\n  help: linc generate outputs/NAME/checkpoint/step-N");
    };
    if args.stop.iter().any(String::is_empty) {
        bail!("--stop is an empty text, which every text has at its start\n  help: leave it out");
    }
    // A text that is shown as it comes, or records of texts.
    let prompts = match &args.prompts {
        Some(path) => many::prompts(path)?,
        None => vec![Given::text(prompt_text(args)?.into_owned())],
    };
    let is_json = args.prompts.is_some() || args.logprobs.is_some();
    let bar = Progress::new();
    let text = TextModel::open(checkpoint, &bar)?;
    let context = args.running.context.unwrap_or(text.record.seq_len);
    let precision = pass_setting(&args.running.precision)?;
    let sequences = args.batch.min(prompts.len()).max(1);
    let device = device(&args.running.device, args.running.threads, &bar)?;
    let wanted = Wanted { sequences, ..Wanted::one(context) };
    let (mut session, programs) = Programs::load(&text.model, wanted, precision, device)?;
    session.executor.initialize_constants()?;
    load_weights(&mut session.executor, checkpoint, &mut reading(&bar, "loading weights"))?;
    let work = many::Asked { args, sampling, context, checkpoint };
    if is_json {
        return work.run(&mut session, programs, &text, &prompts);
    }

    let vocab = text.model.sizes.vocab_size;
    let memory = programs.bytes_per_sequence(&session);
    let mut generator = Generator::new(&mut session, programs, vocab, &text.tokenizer);
    let given = &prompts[0].text;
    let prompt = generator.prompt(given, args.tokens)?;
    if args.logits.is_some() {
        generator.keep_logits();
    }
    let write = |piece: &str| match io::stdout().is_terminal() {
        true => out::piece(&visible(piece)),
        false => out::piece(piece),
    };
    // A model that cannot go on says so instead of the prompt.
    let mut begun = false;
    let mut begin = || if std::mem::replace(&mut begun, true) { Ok(()) } else { write(given) };
    let mut written = Ok(());
    let request = Request {
        prompt: prompt.ids,
        tokens: prompt.count,
        sampling,
        stop: args.stop.clone().into(),
        scores: None,
    };
    let generated = generator.generate(request, &mut |piece| {
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
            return Err(work.of_checkpoint(error));
        }
    }
    out::line("")?;
    if io::stderr().is_terminal() {
        work.complain(&generator.work(), memory, &text)?;
    }
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
            log::say("reading the prompt from standard input; --prompt '' for none");
        }
    };
    // Where no thread can be had, nothing is said.
    let _ = thread::Builder::new().spawn(remark);
    let text = prompt::from_pipe(&io::stdin());
    drop(finished);
    Ok(text?)
}

impl many::Asked<'_> {
    /// The error, with the checkpoint that it is about.
    fn of_checkpoint(&self, error: InferError) -> anyhow::Error {
        match error {
            InferError::LogitsNotFinite { .. } => anyhow::anyhow!("{}: {error}", self.checkpoint.display()),
            error => error.into(),
        }
    }
}
