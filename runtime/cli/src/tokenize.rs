//! `linc tokenize`: a corpus as shards, to be trained on without being in memory.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use linc_data::{Event, Loading, TOKENIZER_FILE, TokenCache, TokenizeSettings, tokenize};
use linc_device::signals;
use linc_device::words::{bytes, count};

use crate::args::TokenizeArgs;
use crate::hugging_face::as_word;
use crate::log;
use crate::out;
use crate::progress::Progress;

/// What requests to end are answered with.
const NOTICES: signals::Notices = signals::Notices {
    first: "\nInterrupted: shards that are whole are kept, and the same command goes on behind them\n",
    second: "\nEnded at once: shards that are whole are kept\n",
};

pub(crate) fn run(args: &TokenizeArgs) -> Result<ExitCode> {
    let stop = log::catch(NOTICES);
    let bar = Progress::new();
    let begun = Instant::now();
    let mut tell = |event: Event<'_>| match event {
        Event::Note(text) => bar.suspend(|| log::note(text)),
        Event::Warning(text) => bar.suspend(|| log::warn(text)),
        Event::Progress { what, done, total } => {
            let words = format!("{what} {} of {}", bytes(done), bytes(total));
            bar.show(what, &words, done, total);
        }
    };
    let mut loading = Loading { stop, tell: &mut tell, cache: TokenCache::default() };
    let settings = TokenizeSettings {
        path: &args.path,
        text_field: &args.text_field,
        document_separator: args.document_separator.as_deref(),
        tokenizer_path: args.tokenizer.as_deref(),
        out: &args.out,
        held_out: args.held_out,
        shard_tokens: args.shard_tokens,
    };
    let made = tokenize(settings, &mut loading);
    bar.clear();
    let made = match (made, signals::exit_code()) {
        (Err(error), Some(code)) if error.is_interrupt() => return Ok(ExitCode::from(code)),
        (made, _) => made?,
    };
    let folder = args.out.display();
    if made.was_complete {
        out::line(format_args!("{folder} has all of it already"))?;
    }
    out::line(format_args!(
        "{folder}: {}, {}, {:.2} bytes per token, {}; {} held out",
        count(made.documents as usize, "document"),
        count(made.tokens as usize, "token"),
        made.text_bytes as f64 / made.tokens.max(1) as f64,
        count(made.shards, "shard"),
        count(made.held_out as usize, "token")
    ))?;
    if !made.was_complete {
        let seconds = begun.elapsed().as_secs_f64();
        let speed = bytes((made.text_bytes as f64 / seconds.max(1e-3)) as u64);
        out::line(format_args!("{seconds:.1} s, {speed} of text a second"))?;
    }
    let folder = as_word(&args.out);
    let tokenizer = match args.out.join(TOKENIZER_FILE).is_file() {
        true => format!(" --model.tokenizer_path {folder}"),
        false => String::new(),
    };
    out::line(format_args!("linc train CONFIG.toml --training.dataset_path {folder}{tokenizer}"))?;
    Ok(ExitCode::SUCCESS)
}
