//! `linc serve`: a checkpoint behind HTTP.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use linc_checkpoint::load_weights;
use linc_device::signals;
use linc_device::words::{bytes, count, help_to_read, reason};
use linc_infer::{Engine, Programs, ScorePrograms, Wanted};
use linc_serve::{Served, Settings, self_test, serve};
use linc_session::target;

use crate::args::ServeArgs;
use crate::compile::pass_setting;
use crate::device::device;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::text_model::{TextModel, reading};

/// What requests to end are answered with.
const NOTICES: signals::Notices = signals::Notices {
    first: "\nEnding: what runs is finished, and no other request is taken (press Ctrl-C again to quit at once)\n",
    second: "\nEnded at once\n",
};

pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode> {
    let host: IpAddr = match args.host.as_str() {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        host => match host.parse() {
            Ok(host) => host,
            Err(_) => bail!(
                "--host is {host:?}; expected an address of this machine, such as 127.0.0.1\n  help: 0.0.0.0 is all of them, which others in the network can reach"
            ),
        },
    };
    let token = args.api_key_file.as_deref().map(read_token).transpose()?;
    let bar = Progress::new();
    let text = TextModel::open(&args.checkpoint, &bar)?;
    let context = args.running.context.unwrap_or(text.record.seq_len);
    let precision = pass_setting(&args.running.precision)?;
    let device = device(&args.running.device, args.running.threads, &bar)?;
    let options = linc_infer::options(precision, target(&*device));
    let wanted = Wanted { sequences: args.slots, ..Wanted::one(context) };
    let (programs, mut entries) = Programs::plan(&text.model, wanted, &options, 0)?;
    let (scores, more) = ScorePrograms::plan(&text.model, context, &[], &options, entries.len())?;
    entries.extend(more);
    let mut session = linc_infer::session(&text.model, &entries, device)?;
    session.executor.initialize_constants()?;
    load_weights(&mut session.executor, &args.checkpoint, &mut reading(&bar, "loading weights"))?;
    let memory: u64 = programs.bytes_per_sequence(&session).iter().sum();
    let arena = session.executor.arena_bytes();
    if args.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
        bail!(
            "--name is empty, and requests name the model by it\n  help: give it a name, or leave --name out"
        );
    }
    let name = args.name.clone().unwrap_or_else(|| args.checkpoint.display().to_string());
    let vocab = text.model.sizes.vocab_size;
    let tokenizer = Arc::new(text.tokenizer);
    let settings = Settings {
        address: SocketAddr::new(host, if args.self_test.is_some() { 0 } else { args.port }),
        name,
        queue: args.queue,
        connections: args.connections,
        body: usize::try_from(args.max_body.0).unwrap_or(usize::MAX),
        time: Duration::from_secs(args.timeout),
        token,
    };
    let for_engine = Arc::clone(&tokenizer);
    let engine = Engine::new(&mut session, programs, vocab, &for_engine);
    let served = Served { engine, scores, tokenizer, vocab };
    if let Some(prompts) = args.self_test {
        let compared = self_test(served, &settings, prompts)?;
        out::line(format_args!(
            "{} through HTTP: log-probabilities of {} and {} are those of this process, to the bit",
            count(compared.requests, "request"),
            count(compared.scored, "token"),
            count(compared.texts, "continuation")
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !host.is_loopback() && settings.token.is_none() {
        log::warn(
            "everybody who reaches this address may ask\n  help: give --api-key-file, or leave --host out",
        );
    }
    let stop = log::catch(NOTICES);
    let mut said = Ok(());
    serve(served, &settings, stop, &mut |address| {
        said = out::line(format_args!(
            "Serving {} on http://{address}/v1/completions: {} of up to {}, {} of memory, {} of them for each sequence's caches and states",
            settings.name,
            count(args.slots, "sequence"),
            count(context, "token"),
            bytes(arena),
            bytes(memory),
        ));
    })?;
    said?;
    out::line("Ended.")?;
    Ok(ExitCode::SUCCESS)
}

/// The token in a file, which nobody sees in the list of processes.
fn read_token(path: &Path) -> Result<String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            bail!("{}: cannot be read: {}\n  help: {}", path.display(), reason(&error), help_to_read(&error))
        }
    };
    let token = text.trim();
    if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
        bail!(
            "{}: expected one line with a token, without blanks\n  help: openssl rand -hex 32 > FILE",
            path.display()
        );
    }
    Ok(token.to_owned())
}
