//! What a request for completions asks for. What it says and linc cannot do is refused: a parameter that is ignored makes
//! results that nobody asked for.

use std::sync::Arc;

use linc_config::nearest;
use linc_data::Tokenizer;
use linc_infer::{LONGEST_STOP, Request, Sampling};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Tokens that are written where nobody says how many, as OpenAI has it.
const USUAL_TOKENS: usize = 16;
/// Most sequences of a request.
const MOST_SEQUENCES: usize = 256;
/// Most texts that end a continuation.
const MOST_STOPS: usize = 64;
/// Most of the most likely tokens.
const MOST_LOGPROBS: usize = 20;
/// Most log-probabilities of an answer, which lie in memory until its client has read them.
const MOST_SCORES: usize = 1 << 20;

/// Parameters that are taken.
const TAKEN: [&str; 19] = [
    "model",
    "prompt",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "seed",
    "n",
    "best_of",
    "stop",
    "stream",
    "stream_options",
    "echo",
    "logprobs",
    "presence_penalty",
    "frequency_penalty",
    "user",
];

/// What a model can do.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// What the model is called.
    pub(crate) model: String,
    /// Tokens that prompt and continuation may have together.
    pub(crate) context: usize,
    /// Number of tokens that there are.
    pub(crate) vocab: usize,
}

/// What is to be continued or scored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    /// Its text, where it came as one.
    pub(crate) text: Option<String>,
}

/// A request for completions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Completion {
    pub(crate) prompts: Vec<Prompt>,
    /// Continuations of each prompt.
    pub(crate) n: usize,
    pub(crate) max_tokens: usize,
    pub(crate) sampling: Sampling,
    /// Whether the request says its seed.
    pub(crate) is_seeded: bool,
    pub(crate) stop: Arc<[String]>,
    pub(crate) echo: bool,
    pub(crate) logprobs: Option<usize>,
    pub(crate) stream: bool,
    /// The last event of a stream says how many tokens there were.
    pub(crate) with_usage: bool,
}

/// The fields of a request that were not looked at yet.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Of the body of a request.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let refuse = |message: String| ApiError::new(axum::http::StatusCode::BAD_REQUEST, message);
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(other) => Err(refuse(format!("the body is {}; expected a JSON object", kind(&other)))),
            Err(error) => Err(refuse(format!("the body is no JSON: {error}"))),
        }
    }

    /// A field that is there and not null.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn taken<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let wrong = || ApiError::parameter(name, format!("{name} is {}; expected {expected}", shown(&value)));
        read(&value).map(Some).ok_or_else(wrong)
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.taken(name, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn truth(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.taken(name, "true or false", Value::as_bool)
    }

    fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        self.taken(name, "a number", Value::as_f64)
    }

    fn count(&mut self, name: &str, from: usize, to: usize) -> Result<Option<usize>, ApiError> {
        let within = |value: &Value| {
            let count = usize::try_from(value.as_u64()?).ok()?;
            (from..=to).contains(&count).then_some(count)
        };
        let expected = match to {
            usize::MAX => format!("a whole number of at least {from}"),
            to => format!("a whole number from {from} to {to}"),
        };
        self.taken(name, &expected, within)
    }

    /// Token ids.
    pub(crate) fn ids(&mut self, name: &str) -> Result<Option<Vec<u32>>, ApiError> {
        self.taken(name, "a list of token ids", |value| value.as_array()?.iter().map(id).collect())
    }

    /// Refuses what is left.
    pub(crate) fn end(self, known: &[&str]) -> Result<(), ApiError> {
        let Some(name) = self.0.into_iter().find(|(_, value)| !value.is_null()).map(|(name, _)| name) else {
            return Ok(());
        };
        let help = match nearest(&name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", known.join(", ")),
        };
        Err(ApiError::parameter(&name, format!("there is no parameter {name}; {help}")))
    }
}

fn id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// What a value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as it was written, if it is short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 40 { text } else { kind(value).to_owned() }
}

/// The ids of a text as training had it: with the token that documents begin with.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str, with_bos: bool) -> Result<Vec<u32>, ApiError> {
    let bos = if with_bos { tokenizer.bos() } else { None };
    let mut ids: Vec<u32> = bos.into_iter().collect();
    let encoded = tokenizer.encode_ids(text).map_err(linc_infer::InferError::from)?;
    ids.extend(encoded);
    Ok(ids)
}

impl Completion {
    /// Reads a request; `chance` is its seed where it has none.
    pub(crate) fn parse(
        body: &[u8],
        limits: &Limits,
        tokenizer: &Tokenizer,
        chance: u64,
    ) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        if let Some(model) = fields.text("model")?.filter(|model| *model != limits.model) {
            let message = format!("there is no model {model:?}; this server has {:?}", limits.model);
            return Err(ApiError::parameter("model", message).with(axum::http::StatusCode::NOT_FOUND));
        }
        let prompts = prompts(fields.take("prompt"), tokenizer)?;
        let echo = fields.truth("echo")?.unwrap_or(false);
        let n = fields.count("n", 1, MOST_SEQUENCES)?.unwrap_or(1);
        if fields.count("best_of", 1, MOST_SEQUENCES)?.is_some_and(|best| best != n) {
            let message =
                "best_of differs from n, and linc does not choose among continuations; leave it out";
            return Err(ApiError::parameter("best_of", message));
        }
        if prompts.len() * n > MOST_SEQUENCES {
            let message =
                format!("{} prompts with n = {n}: a request may have {MOST_SEQUENCES}", prompts.len());
            return Err(ApiError::parameter("prompt", message));
        }
        for name in ["presence_penalty", "frequency_penalty"] {
            if fields.number(name)?.is_some_and(|penalty| penalty != 0.0) {
                let message = format!("linc has no {name}; there is repetition_penalty");
                return Err(ApiError::parameter(name, message));
            }
        }
        // Says who asks, which changes no answer.
        fields.text("user")?;
        let plain = Sampling::default();
        let seed = fields.taken("seed", "a whole number", |value| {
            value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned))
        })?;
        let sampling = Sampling {
            temperature: fields.number("temperature")?.unwrap_or(plain.temperature),
            top_k: fields.count("top_k", 0, usize::MAX)?.unwrap_or(plain.top_k),
            top_p: fields.number("top_p")?.unwrap_or(plain.top_p),
            min_p: fields.number("min_p")?.unwrap_or(plain.min_p),
            repetition_penalty: fields.number("repetition_penalty")?.unwrap_or(plain.repetition_penalty),
            seed: seed.unwrap_or(chance),
        };
        if let Some(wrong) = sampling.out_of_range() {
            let message = format!("{} is {}; expected {}", wrong.name, wrong.value, wrong.expected);
            return Err(ApiError::parameter(wrong.name, message));
        }
        let max_tokens = fields.count("max_tokens", 0, usize::MAX)?.unwrap_or(USUAL_TOKENS);
        let logprobs = fields.count("logprobs", 0, MOST_LOGPROBS)?;
        let stream = fields.truth("stream")?.unwrap_or(false);
        let with_usage = match fields.take("stream_options") {
            None => false,
            Some(Value::Object(options)) if stream => {
                let mut options = Fields(options);
                let with_usage = options.truth("include_usage")?.unwrap_or(false);
                options.end(&["include_usage"])?;
                with_usage
            }
            Some(_) => {
                let message = "stream_options is an object, and only for a request with stream = true";
                return Err(ApiError::parameter("stream_options", message));
            }
        };
        let stop = stops(fields.take("stop"))?.into();
        fields.end(&TAKEN)?;
        if max_tokens == 0 && !echo {
            let message = "max_tokens is 0, so nothing is to be written; expected at least 1, or echo = true";
            return Err(ApiError::parameter("max_tokens", message));
        }
        if echo && logprobs.is_some_and(|count| count > 1) {
            let message = "with echo = true, logprobs can be 0 or 1: of a prompt only the most likely token at each place is known";
            return Err(ApiError::parameter("logprobs", message));
        }
        let asked = Completion {
            prompts,
            n,
            max_tokens,
            sampling,
            is_seeded: seed.is_some(),
            stop,
            echo,
            logprobs,
            stream,
            with_usage,
        };
        asked.check(limits)?;
        Ok(asked)
    }

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        if let Some(count) = self.logprobs {
            let of_prompt = |prompt: &Prompt| if self.echo { prompt.ids.len() } else { 0 };
            let read: usize = self.prompts.iter().map(of_prompt).sum();
            let written = self.prompts.len().saturating_mul(self.max_tokens.min(limits.context));
            let scores = (read + written).saturating_mul(self.n).saturating_mul(count + 1);
            if scores > MOST_SCORES {
                let message =
                    format!("{scores} log-probabilities are asked for; an answer may have {MOST_SCORES}");
                return Err(ApiError::parameter("logprobs", message));
            }
        }
        for (at, prompt) in self.prompts.iter().enumerate() {
            let which = if self.prompts.len() == 1 { "the prompt".into() } else { format!("prompt {at}") };
            let refuse = |message: String| Err(ApiError::parameter("prompt", format!("{which} {message}")));
            let length = prompt.ids.len();
            if length == 0 {
                return refuse("has no token".into());
            }
            if let Some(id) = prompt.ids.iter().find(|id| **id as usize >= limits.vocab) {
                return refuse(format!("has token {id}; the model has 0 to {}", limits.vocab - 1));
            }
            // What is only scored may be one token longer, which nothing follows.
            let scored = self.max_tokens == 0 || self.is_told_by_scores();
            let fits = match scored {
                true => length <= limits.context + 1,
                false => length.saturating_add(self.max_tokens) <= limits.context + 1,
            };
            if !fits {
                return refuse(format!(
                    "has {length} tokens; with max_tokens = {} that exceeds the context of {}",
                    self.max_tokens, limits.context
                ));
            }
        }
        Ok(())
    }

    /// Whether the one token that is wanted is the most likely one, which scoring a prompt tells.
    pub(crate) fn is_told_by_scores(&self) -> bool {
        self.scores_prompts()
            && self.max_tokens <= 1
            && self.sampling.temperature == 0.0
            && self.stop.is_empty()
            && self.sampling.repetition_penalty == 1.0
    }

    /// Whether it is asked how likely prompts are.
    pub(crate) fn scores_prompts(&self) -> bool {
        self.echo && self.logprobs.is_some()
    }

    /// What each continuation asks of the model, `n` for each prompt.
    pub(crate) fn requests(&self) -> Vec<Request> {
        if self.max_tokens == 0 || self.is_told_by_scores() {
            return vec![];
        }
        // With a seed, what each prompt gets is what it gets alone; without one, no two choices are the same draw.
        let first = |prompt: usize| if self.is_seeded { 0 } else { prompt * self.n };
        let request = |prompt: &Prompt, number: usize| Request {
            prompt: prompt.ids.clone(),
            tokens: self.max_tokens,
            sampling: Sampling { seed: self.sampling.seed.wrapping_add(number as u64), ..self.sampling },
            stop: Arc::clone(&self.stop),
            scores: self.logprobs,
        };
        let of_prompt = |(at, prompt)| (0..self.n).map(move |i| request(prompt, first(at) + i));
        self.prompts.iter().enumerate().flat_map(of_prompt).collect()
    }
}

/// A text, texts, token ids, or lists of them.
fn prompts(value: Option<Value>, tokenizer: &Tokenizer) -> Result<Vec<Prompt>, ApiError> {
    let refuse = |message: &str| Err(ApiError::parameter("prompt", message));
    const EXPECTED: &str = "expected a text, a list of texts, a list of token ids, or a list of such lists";
    let text = |text: String| -> Result<Prompt, ApiError> {
        Ok(Prompt { ids: encode(tokenizer, &text, true)?, text: Some(text) })
    };
    let ids = |ids: Option<Vec<u32>>| match ids {
        Some(ids) => Ok(Prompt { ids, text: None }),
        None => Err(ApiError::parameter("prompt", format!("prompt has a list of other things; {EXPECTED}"))),
    };
    match value {
        None => refuse("there is no prompt"),
        Some(Value::String(one)) => Ok(vec![text(one)?]),
        Some(Value::Array(list)) if list.is_empty() => refuse("the list of prompts is empty"),
        Some(Value::Array(list)) if list.iter().all(Value::is_u64) => {
            Ok(vec![ids(list.iter().map(id).collect())?])
        }
        Some(Value::Array(list)) => {
            let one = |value: Value| match value {
                Value::String(one) => text(one),
                Value::Array(list) => ids(list.iter().map(id).collect()),
                other => ids(id(&other).filter(|_| false).map(|id| vec![id])),
            };
            if list.len() > MOST_SEQUENCES {
                return refuse(&format!("{} prompts: a request may have {MOST_SEQUENCES}", list.len()));
            }
            list.into_iter().map(one).collect()
        }
        Some(other) => refuse(&format!("prompt is {}; {EXPECTED}", kind(&other))),
    }
}

fn stops(value: Option<Value>) -> Result<Vec<String>, ApiError> {
    let wrong = || {
        let message =
            format!("stop is a text or a list of up to {MOST_STOPS}, of 1 to {LONGEST_STOP} bytes each");
        ApiError::parameter("stop", message)
    };
    let stops: Vec<String> = match value {
        None => return Ok(vec![]),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => {
            let texts: Option<Vec<String>> =
                list.into_iter().map(|one| one.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    let is_right =
        stops.len() <= MOST_STOPS && stops.iter().all(|stop| (1..=LONGEST_STOP).contains(&stop.len()));
    if is_right { Ok(stops) } else { Err(wrong()) }
}
