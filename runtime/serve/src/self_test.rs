//! The server beside the model that it serves: the same requests through HTTP and in this process must have the same answers,
//! to the bit. A server that takes `echo` and leaves prompts out, or loses a token of their scores, gives wrong results of
//! benchmarks without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use linc_data::Tokenizer;
use linc_infer::{Request, Sampling, Scores};
use serde_json::{Value, json};

use crate::client::{Answer, ask};
use crate::error::ServeError;
use crate::server::{Served, Settings, serve};

/// Prompts of a request.
const TOGETHER: usize = 8;
/// Longest prompts, so that the test of a model with a long context takes moments.
const LONGEST: usize = 256;

/// What a self-test compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Requests that were sent.
    pub requests: usize,
    /// Tokens of prompts whose log-probabilities are the same.
    pub scored: usize,
    /// Continuations that are the same, greedy ones and drawn ones.
    pub texts: usize,
}

/// A continuation and what asks for it.
struct Text {
    request: Request,
    expected: String,
}

/// What the model says in this process.
struct Expected {
    prompts: Vec<Vec<u32>>,
    scores: Vec<Scores>,
    texts: Vec<Text>,
    tokenizer: Arc<Tokenizer>,
}

/// Asks a server of this machine for scores of `count` prompts and for continuations, and compares.
///
/// # Errors
/// [`ServeError::SelfTest`] with what differs, and as [`serve`].
pub fn self_test(mut model: Served<'_>, settings: &Settings, count: usize) -> Result<Compared, ServeError> {
    let expected = expected(&mut model, count.max(1))?;
    let stop = AtomicBool::new(false);
    let (found, at) = mpsc::channel::<SocketAddr>();
    thread::scope(|scope| {
        let (expected, stop) = (&expected, &stop);
        let client = thread::Builder::new().spawn_scoped(scope, move || {
            let compared = match at.recv() {
                Ok(address) => Client { address, settings, compared: Compared::default() }.compare(expected),
                // The server did not start, which is said by itself.
                Err(_) => Ok(Compared::default()),
            };
            stop.store(true, Ordering::SeqCst);
            compared
        });
        let client = client.map_err(|error| different(format!("no thread for a client: {error}")))?;
        serve(model, settings, stop, &mut |address| {
            // The client waits for it.
            let _ = found.send(address);
        })?;
        client.join().map_err(|_| different("the client ended".into()))?
    })
}

fn different(message: String) -> ServeError {
    ServeError::SelfTest(message)
}

/// Token ids that look like nothing, the same in each run.
fn ids(length: usize, seed: usize, vocab: usize) -> Vec<u32> {
    let mut state = seed as u64 + 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize % vocab.max(1)) as u32
    };
    (0..length).map(|_| draw()).collect()
}

fn expected(model: &mut Served<'_>, count: usize) -> Result<Expected, ServeError> {
    let (context, vocab) = (model.engine.context(), model.vocab);
    // Of one token, of all lengths that are read in whole and in part, and of one more than the context, where that is short.
    let most = (context + 1).min(LONGEST);
    let length = |i: usize| if i == 0 { most } else { 1 + (i * 37) % most };
    let prompts: Vec<Vec<u32>> = (0..count).map(|i| ids(length(i), i, vocab)).collect();
    let mut scores = vec![Scores::default(); count];
    let sequences: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    model.scores.score(model.engine.session(), &sequences, &AtomicBool::new(false), &mut |at, found| {
        scores[at] = found;
    })?;
    let mut texts = vec![];
    for (seed, prompt) in
        prompts.iter().enumerate().filter(|(_, prompt)| prompt.len() < context).take(TOGETHER)
    {
        for temperature in [0.0, 0.8] {
            let sampling = Sampling { temperature, seed: seed as u64, ..Sampling::default() };
            let tokens = (context + 1 - prompt.len()).min(8);
            let request = Request { prompt: prompt.clone(), tokens, sampling, stop: [].into(), scores: None };
            let (mut expected, mut failed) = (String::new(), None);
            model.engine.run(
                vec![request.clone()],
                &AtomicBool::new(false),
                &mut |_, event| match event {
                    Ok(written) => expected.push_str(&written.text),
                    Err(error) => failed = Some(error),
                },
            )?;
            match failed {
                Some(error) => return Err(error.into()),
                None => texts.push(Text { request, expected }),
            }
        }
    }
    Ok(Expected { prompts, scores, texts, tokenizer: Arc::clone(&model.tokenizer) })
}

struct Client<'a> {
    address: SocketAddr,
    settings: &'a Settings,
    compared: Compared,
}

impl Client<'_> {
    fn compare(mut self, expected: &Expected) -> Result<Compared, ServeError> {
        self.found("/health", None)?;
        let models = self.found("/v1/models", None)?;
        if models["data"][0]["id"] != self.settings.name.as_str() {
            return Err(different(format!("/v1/models does not name the model: {models}")));
        }
        let parts = expected.prompts.chunks(TOGETHER).zip(expected.scores.chunks(TOGETHER));
        for (prompts, scores) in parts {
            let asked = json!({
                "model": self.settings.name, "prompt": prompts, "max_tokens": 1, "temperature": 0,
                "logprobs": 1, "echo": true, "seed": 1234,
            });
            let answer = self.found("/v1/completions", Some(&asked))?;
            for (index, (prompt, scores)) in prompts.iter().zip(scores).enumerate() {
                let choice = &answer["choices"][index];
                scored(choice, index, prompt, scores).map_err(different)?;
                self.compared.scored += prompt.len();
            }
        }
        for Text { request, expected } in &expected.texts {
            let asked = json!({
                "model": self.settings.name, "prompt": request.prompt, "max_tokens": request.tokens,
                "temperature": request.sampling.temperature, "seed": request.sampling.seed,
            });
            let answer = self.found("/v1/completions", Some(&asked))?;
            let text = &answer["choices"][0]["text"];
            if text != expected.as_str() {
                return Err(different(format!("a continuation is {text} and not {expected:?}: {asked}")));
            }
            self.compared.texts += 1;
        }
        self.tokens(&expected.tokenizer)?;
        Ok(self.compared)
    }

    /// Texts to tokens and back.
    fn tokens(&mut self, tokenizer: &Tokenizer) -> Result<(), ServeError> {
        for text in ["Once upon a time", " né 你好\n\ttab", ""] {
            let ids = tokenizer.encode_ids(text).map_err(linc_infer::InferError::from)?;
            let found =
                self.found("/tokenize", Some(&json!({"prompt": text, "add_special_tokens": false})))?;
            if found["tokens"] != json!(ids) {
                return Err(different(format!("{text:?} has the tokens {found} and not {ids:?}")));
            }
            let back = self.found("/detokenize", Some(&json!({"tokens": ids})))?;
            if back["prompt"] != tokenizer.decode(&ids).as_str() {
                return Err(different(format!("the text of {ids:?} is {back}")));
            }
        }
        Ok(())
    }

    /// The answer to a request, which must be granted.
    fn found(&mut self, path: &str, body: Option<&Value>) -> Result<Value, ServeError> {
        self.compared.requests += 1;
        let broken = |error: std::io::Error| different(format!("{path}: {error}"));
        let answer: Answer = ask(self.address, self.settings.token.as_deref(), path, body).map_err(broken)?;
        match answer.json() {
            Some(json) if answer.status == 200 => Ok(json),
            _ => Err(different(format!("{path} is answered with {}: {}", answer.status, answer.body))),
        }
    }
}

/// Compares what a choice says of a prompt with its scores.
fn scored(choice: &Value, index: usize, prompt: &[u32], scores: &Scores) -> Result<(), String> {
    let which = format!("prompt {index} of {} tokens", prompt.len());
    if choice["index"] != index {
        return Err(format!("{which}: the choice is {choice}"));
    }
    let list = |name: &str| choice["logprobs"][name].as_array().cloned().unwrap_or_default();
    let (log_probs, tops) = (list("token_logprobs"), list("top_logprobs"));
    // One for each token of the prompt, and one for the token that was written.
    if log_probs.len() != prompt.len() + 1 || tops.len() != log_probs.len() {
        return Err(format!("{which}: {} log-probabilities", log_probs.len()));
    }
    let number = |value: &Value| value.as_f64().map(|x| x as f32);
    for (at, expected) in scores.log_probs.iter().enumerate() {
        let found = number(&log_probs[at + 1]);
        let most = tops[at + 1].as_object().into_iter().flatten().filter_map(|(_, value)| number(value));
        let most = most.fold(f32::NEG_INFINITY, f32::max);
        if found != Some(*expected) || scores.best.get(at).is_none_or(|best| best.log_prob != most) {
            return Err(format!("{which}, token {}: {found:?} of {most}, and not {expected}", at + 1));
        }
    }
    let next = scores.best.get(prompt.len() - 1).map(|best| best.log_prob);
    if log_probs.last().and_then(number) != next {
        return Err(format!("{which}: the token after it has {:?}, and not {next:?}", log_probs.last()));
    }
    Ok(())
}
