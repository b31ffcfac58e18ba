//! The requests that lm-evaluation-harness logged (`--log_samples`): the same prompts, token by token, in the same order.

use std::ops::Range;
use std::path::Path;

use linc_data::Tokenizer;
use serde_json::{Value, json};

use super::files::json_lines;
use crate::error::EvalError;
use crate::sample::{Ask, Continuation, GREEDY, Grade, Sample};
use crate::task::{Chance, Made, Setting, Task};
use crate::tokens::{pair, windows};

pub(crate) const TASKS: &[Task] = &[Task {
    name: "requests",
    version: 3,
    about: "log-likelihoods and texts of the requests that lm-evaluation-harness logged (--requests samples.jsonl), and how far they are from the logged ones",
    shots: None,
    options: &[],
    metric: "log_likelihood",
    chance: Chance::None,
    make,
}];

const HELP: &str = "it is to be a samples_TASK.jsonl of lm_eval --log_samples";

fn make(_: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    let Some(path) = &setting.requests else {
        let message = "the task requests needs a file";
        return Err(EvalError::request(message, "name the samples that lm_eval logged: --requests FILE"));
    };
    let lines = json_lines(path)?;
    let wanted = setting.up_to(lines.len());
    lines
        .into_iter()
        .enumerate()
        .take(wanted)
        .map(|(index, (line, object))| sample(setting, path, index, line, &object))
        .collect()
}

fn sample(
    setting: &Setting<'_>,
    path: &Path,
    index: usize,
    line: usize,
    object: &Value,
) -> Result<Sample, EvalError> {
    let refuse = |message: &str| EvalError::line(path, line, message, HELP);
    let arguments = arguments(&object["arguments"]);
    let Some(first) = arguments.first() else { return Err(refuse("has no `arguments`")) };
    let id = index.to_string();
    let doc = json!({ "arguments": arguments, "target": object["target"] });
    let group = String::new();
    if let [Value::String(prompt), Value::Object(options)] = &first[..] {
        let stop = match options.get("until") {
            Some(Value::String(stop)) => vec![stop.clone()],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => vec![],
        };
        let tokens = ["max_gen_toks", "max_new_tokens"].iter().find_map(|name| options.get(*name)?.as_u64());
        let tokens = tokens.map_or(256, |tokens| tokens as usize);
        let ask = Ask::Write { prompt: prompt.clone(), tokens, stop, draws: vec![GREEDY] };
        let known = one_answer(&object["resps"][0]).as_str().map(str::to_owned);
        return Ok(Sample { id, group, doc, ask, grade: Grade::Written(known) });
    }
    let tokenizer = setting.tokenizer()?;
    if let [Value::String(text)] = &first[..] {
        let parts = rolling(setting, tokenizer, text)?;
        let grade = Grade::Rolling(number(one_answer(&object["resps"][0])));
        return Ok(Sample { id, group, doc, ask: Ask::Likelihoods(parts), grade });
    }
    let mut parts = vec![];
    for one in &arguments {
        let [Value::String(context), Value::String(continuation)] = &one[..] else {
            return Err(refuse(
                "asks for something else than how likely a text is, by itself or after another, or what follows it",
            ));
        };
        parts.push(pair(tokenizer, setting.bos, setting.context, context, continuation)?);
    }
    let known = (0..parts.len()).map(|i| logged(&object["resps"][i])).collect();
    let gold = object["target"].as_u64().or_else(|| object["target"].as_str()?.parse().ok());
    let gold = gold.and_then(|gold| usize::try_from(gold).ok()).filter(|gold| *gold < parts.len());
    let characters = || {
        let texts = arguments.iter().filter_map(|one| one[1].as_str());
        texts.map(|text| text.trim_start().chars().count()).collect()
    };
    let choice = gold.filter(|_| parts.len() > 1).map(|gold| (gold, characters()));
    Ok(Sample { id, group, doc, ask: Ask::Likelihoods(parts), grade: Grade::Logged { known, choice } })
}

/// The windows of a whole text, each token in one of them.
fn rolling(setting: &Setting<'_>, tokenizer: &Tokenizer, text: &str) -> Result<Vec<Continuation>, EvalError> {
    let mut ids: Vec<u32> = setting.bos.token(tokenizer, true).into_iter().collect();
    ids.extend(tokenizer.encode_ids(text)?);
    let of_window =
        |(range, from): (Range<usize>, usize)| Continuation { ids: ids[range].to_vec(), from, cut: 0 };
    Ok(windows(ids.len(), setting.context, setting.context).into_iter().map(of_window).collect())
}

/// The arguments of each request of a sample: a list of lists, or objects `gen_args_0` with `arg_0`, ..
fn arguments(logged: &Value) -> Vec<Vec<Value>> {
    match logged {
        Value::Array(all) => all.iter().filter_map(|one| one.as_array().cloned()).collect(),
        Value::Object(all) => {
            let one = |i: usize| {
                let one = all.get(&format!("gen_args_{i}"))?;
                let argument = |j: usize| one.get(format!("arg_{j}")).cloned();
                Some((0..).map_while(argument).collect())
            };
            (0..).map_while(one).collect()
        }
        _ => vec![],
    }
}

/// The answer to a request, each of which has a list of them.
fn one_answer(response: &Value) -> &Value {
    response.as_array().and_then(|list| list.first()).unwrap_or(response)
}

/// Numbers are logged as such or as strings.
fn number(logged: &Value) -> Option<f64> {
    logged.as_f64().or_else(|| logged.as_str()?.parse().ok())
}

/// A log-likelihood and whether the text was the most likely one, which are logged as numbers or as strings.
fn logged(response: &Value) -> Option<(f64, bool)> {
    let pair = match response {
        Value::Array(list) if list.first().is_some_and(Value::is_array) => &list[0],
        other => other,
    };
    let number = number(&pair[0])?;
    let greedy = pair[1].as_bool().or_else(|| Some(pair[1].as_str()? == "True"))?;
    Some((number, greedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_logged_arguments_are_read() {
        let list = json!([["a", " b"], ["a", " c"]]);
        let objects = json!({
            "gen_args_0": { "arg_0": "a", "arg_1": " b" },
            "gen_args_1": { "arg_0": "a", "arg_1": " c" },
        });
        assert_eq!(arguments(&list), arguments(&objects));
        assert_eq!(arguments(&list).len(), 2);
        assert!(arguments(&Value::Null).is_empty());
        assert_eq!(logged(&json!([["-1.5", "True"]])), Some((-1.5, true)));
        assert_eq!(logged(&json!([-2.0, false])), Some((-2.0, false)));
        assert_eq!(logged(&Value::Null), None);
    }
}
