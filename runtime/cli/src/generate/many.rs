//! Many prompts at once, as JSON lines, and what it took.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use linc_data::Tokenizer;
use linc_device::words::{bytes, count, thousands};
use linc_driver::{Entry, Options, PersistentLayout, Room};
use linc_infer::prompt::{self, Given};
use linc_infer::{
    End, Engine, Programs, Prompt, Request, Sampling, TokenScore, Work, Written, bytes_per_sequence,
};
use linc_session::Session;
use serde_json::{Map, Value, json};

use crate::args::GenerateArgs;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::text_model::TextModel;

/// What the command line asks for.
pub(super) struct Asked<'a> {
    pub(super) args: &'a GenerateArgs,
    pub(super) sampling: Sampling,
    pub(super) context: usize,
    pub(super) checkpoint: &'a Path,
}

/// The prompts of a file, or of standard input for `-`.
pub(super) fn prompts(path: &Path) -> Result<Vec<Given>> {
    match path == Path::new("-") {
        true => Ok(prompt::many_from_pipe(&io::stdin())?),
        false => Ok(prompt::many_from_file(path)?),
    }
}

/// What was written of one prompt.
#[derive(Default)]
struct Text {
    text: String,
    tokens: usize,
    scores: Vec<Value>,
    /// How it ended.
    end: Option<Value>,
}

impl Asked<'_> {
    /// Continues all prompts; a line for each, in their order, or a line for each piece where that is asked for.
    pub(super) fn run(
        &self,
        session: &mut Session,
        programs: Programs,
        text: &TextModel,
        prompts: &[Given],
    ) -> Result<ExitCode> {
        let TextModel { model, tokenizer, .. } = text;
        let requests: Vec<Request> = (0..)
            .zip(prompts)
            .map(|(at, given)| self.request(tokenizer, at, given))
            .collect::<Result<_>>()?;
        let memory = programs.bytes_per_sequence(session);
        let mut engine = Engine::new(session, programs, model.sizes.vocab_size, tokenizer);
        let mut texts: BTreeMap<u64, Text> = BTreeMap::new();
        let (mut next, mut failed) = (0, false);
        let mut written: io::Result<()> = Ok(());
        let gone = AtomicBool::new(false);
        let bar = Progress::new();
        let mut ended = 0;
        engine.run(requests, &gone, &mut |number, event| {
            let text = texts.entry(number).or_default();
            let given = &prompts[number as usize];
            let ends = event.as_ref().map_or(true, |one| one.end.is_some());
            match event {
                Ok(one) => {
                    if self.args.stream && written.is_ok() {
                        written = bar.suspend(|| out::line(piece(tokenizer, number, &one)));
                    }
                    text.tokens += 1;
                    text.text.push_str(&one.text);
                    text.scores.extend(one.score.map(|score| scored(tokenizer, one.token, &score)));
                    text.end = one.end.map(|end| json!(word(end)));
                }
                Err(error) => {
                    failed = true;
                    text.end = Some(json!("error"));
                    let line = given.line.map_or_else(String::new, |line| format!("prompt of line {line}: "));
                    bar.suspend(|| log::error(format_args!("{line}{}", self.of_checkpoint(error))));
                    if self.args.stream && written.is_ok() {
                        let end = json!({"index": number, "text": "", "finish_reason": "error"});
                        written = bar.suspend(|| out::line(end));
                    }
                }
            }
            ended += usize::from(ends);
            bar.count("texts", ended, prompts.len());
            if self.args.stream {
                gone.store(written.is_err(), Ordering::Relaxed);
                return;
            }
            // In the order of the prompts, whichever end first.
            while let Some(done) = texts.get(&next).filter(|text| text.end.is_some()) {
                let line = record(&prompts[next as usize], next, done, self.args.logprobs.is_some());
                if written.is_ok() {
                    written = bar.suspend(|| out::line(line));
                }
                texts.remove(&next);
                next += 1;
            }
            if written.is_err() {
                gone.store(true, Ordering::Relaxed);
            }
        })?;
        bar.clear();
        written?;
        let work = engine.work();
        self.complain(&work, memory, text)?;
        Ok(if failed { ExitCode::from(2) } else { ExitCode::SUCCESS })
    }

    fn request(&self, tokenizer: &Tokenizer, number: u64, given: &Given) -> Result<Request> {
        let prompt =
            Prompt::new(tokenizer, &given.text, self.args.tokens, self.context).map_err(|error| {
                match (given.line, &self.args.prompts) {
                    (Some(line), Some(path)) if path != Path::new("-") => {
                        anyhow::anyhow!("{}:{line}: {error}", path.display())
                    }
                    (Some(line), _) => anyhow::anyhow!("line {line}: {error}"),
                    (None, _) => error.into(),
                }
            })?;
        if prompt.count == 0 {
            anyhow::bail!("--tokens is 0, so nothing is to be written\n  help: give at least 1");
        }
        Ok(Request {
            prompt: prompt.ids,
            tokens: prompt.count,
            // The same prompt twice is two draws.
            sampling: Sampling { seed: self.sampling.seed.wrapping_add(number), ..self.sampling },
            stop: self.args.stop.clone().into(),
            scores: self.args.logprobs,
        })
    }

    /// Says what it took: speeds, and the memory of a sequence beside that of a model without linear layers.
    pub(super) fn complain(&self, work: &Work, memory: [u64; 2], text: &TextModel) -> Result<()> {
        let speed = |tokens: usize, seconds: f64| thousands((tokens as f64 / seconds.max(1e-9)) as u64);
        let Work { read, written, reading, writing, steps, .. } = *work;
        let of_blocks = match work.in_blocks {
            0 => String::new(),
            n => format!(" ({} in blocks, at {} tokens/s)", thousands(n as u64), speed(n, reading)),
        };
        log::say(format_args!(
            "read {}{of_blocks}, wrote {} at {} tokens/s, {:.1} at a time; first token after {:.3} s, {:.3} s at most",
            count(read, "token"),
            thousands(written as u64),
            speed(written, writing),
            (written as f64) / (steps.max(1) as f64),
            work.first_token / (work.begun.max(1) as f64),
            work.first_token_at_most,
        ));
        let [cache, state] = memory;
        let kept = match (cache, state) {
            (cache, 0) => format!("a KV cache of {}", bytes(cache)),
            (0, state) => format!("states of {}", bytes(state)),
            (cache, state) => {
                format!(
                    "{}: a KV cache of {}, states of {}",
                    bytes(cache + state),
                    bytes(cache),
                    bytes(state)
                )
            }
        };
        let beside = if state == 0 { String::new() } else { self.beside(text)? };
        log::say(format_args!("memory of a sequence of {}: {kept}{beside}", count(self.context, "token")));
        Ok(())
    }

    /// What a sequence has in a model of softmax layers alone, from its plan.
    fn beside(&self, text: &TextModel) -> Result<String> {
        let options = Options {
            precision: crate::compile::pass_setting(&self.args.running.precision)?,
            narrow_weights: true,
            ..Options::new(1, 1)
        };
        let entry = Entry::Decode(Room::of_one(self.context));
        let model = text.all_softmax()?;
        let compiled = linc_driver::compile(&model, &entry, &options, &mut PersistentLayout::default())?;
        let softmax: u64 = bytes_per_sequence(&compiled.plan).iter().sum();
        Ok(format!("; with softmax attention in all layers {}", bytes(softmax)))
    }
}

fn word(end: End) -> &'static str {
    match end {
        End::Stop => "stop",
        End::Length => "length",
    }
}

/// A token with how likely it was and what was likely in its place.
fn scored(tokenizer: &Tokenizer, token: u32, score: &TokenScore) -> Value {
    let top: Vec<Value> = score
        .top
        .iter()
        .map(|(id, log_prob)| json!({"id": id, "token": tokenizer.token(*id), "logprob": log_prob}))
        .collect();
    json!({"id": token, "token": tokenizer.token(token), "logprob": score.log_prob, "top": top})
}

/// A line of what came at once.
fn piece(tokenizer: &Tokenizer, number: u64, one: &Written) -> Value {
    let mut line = Map::new();
    line.insert("index".into(), json!(number));
    line.insert("text".into(), json!(one.text));
    if let Some(score) = &one.score {
        line.insert("logprobs".into(), scored(tokenizer, one.token, score));
    }
    line.insert("finish_reason".into(), json!(one.end.map(word)));
    Value::Object(line)
}

/// Fields of a line of a whole text.
const FIELDS: [&str; 7] = ["given", "index", "prompt", "text", "tokens", "finish_reason", "logprobs"];

/// A line of a whole text: what its prompt's line said, and the continuation. What the line said under one of the names of the
/// continuation's fields is in `given`, and is not lost.
fn record(given: &Given, number: u64, text: &Text, with_scores: bool) -> Value {
    let fields = given.fields.clone().into_iter();
    let (under, mut line): (Map<_, _>, Map<_, _>) =
        fields.partition(|(name, _)| FIELDS.contains(&name.as_str()));
    if !under.is_empty() {
        line.insert("given".into(), Value::Object(under));
    }
    line.insert("index".into(), json!(number));
    line.insert("prompt".into(), json!(given.text));
    line.insert("text".into(), json!(text.text));
    line.insert("tokens".into(), json!(text.tokens));
    line.insert("finish_reason".into(), json!(text.end));
    if with_scores {
        line.insert("logprobs".into(), json!(text.scores));
    }
    Value::Object(line)
}
