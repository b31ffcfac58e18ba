//! Reads fields of a `config.json`: each has a type, and whatever nobody asked for is an error.

use std::collections::BTreeSet;

use linc_config::{Problem, nearest};
use serde_json::Value;

use super::json::Document;

/// Keys that say nothing about the weights or what is computed with them.
const IGNORED: [&str; 32] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "attn_implementation",
    "bos_token_id",
    "chunk_size_feed_forward",
    "eos_token_id",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "tokenizer_class",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// The fields of a document, with what is wrong in them.
pub(super) struct Reader<'a> {
    pub(super) document: &'a Document,
    pub(super) problems: Vec<Problem>,
    /// Outermost keys that were asked for.
    known: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Reader { document, problems: document.doubles(), known: IGNORED.into_iter().collect() }
    }

    /// A value that is not null.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.insert(key);
        self.at(&[key])
    }

    /// A value inside of others that is not null.
    pub(super) fn at(&self, path: &[&str]) -> Option<&'a Value> {
        self.document.get(path).filter(|value| !value.is_null())
    }

    pub(super) fn problem(&mut self, path: &[&str], message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(self.document.problem(path, message, help));
    }

    /// What an outermost key has, as `read` takes it; a problem where it is something else.
    pub(super) fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key);
        self.typed_at(&[key], expected, read)
    }

    /// As [`Reader::typed`], inside of other values.
    pub(super) fn typed_at<T>(
        &mut self,
        path: &[&str],
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.at(path)?;
        let found = read(value);
        if found.is_none() {
            let name = path.last().copied().unwrap_or_default();
            self.problem(path, format!("`{name}` is {}", shown(value)), format!("expected {expected}"));
        }
        found
    }

    /// A size of the model.
    pub(super) fn size(&mut self, key: &'static str) -> Option<usize> {
        self.typed(key, SIZE, size)
    }

    /// A size without which there is no model.
    pub(super) fn required(&mut self, key: &'static str) -> usize {
        if self.value(key).is_none() {
            let message = format!("`{key}` is missing");
            self.problem(&[key], message, "a model's config.json has it: get the file again");
        }
        self.size(key).unwrap_or(1)
    }

    /// A number above 0.
    pub(super) fn positive(&mut self, key: &'static str) -> Option<f64> {
        self.typed(key, POSITIVE, positive)
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// Refuses any other value of a key than one that changes nothing.
    pub(super) fn only(&mut self, key: &'static str, allowed: &[Value], why: &str) {
        let Some(value) = self.value(key) else { return };
        let same = |a: &Value| a == value || (a.is_number() && a.as_f64() == value.as_f64());
        if !allowed.iter().any(same) {
            let words: Vec<String> = allowed.iter().map(shown).collect();
            self.problem(
                &[key],
                format!("`{key}` is {}: {why}", shown(value)),
                match words.is_empty() {
                    true => format!("linc can import a model without `{key}`"),
                    false => format!("linc can import a model with {}", words.join(" or ")),
                },
            );
        }
    }

    /// Refuses keys of an inner object but those of a list.
    pub(super) fn only_keys(&mut self, path: &[&str], known: &[&str]) {
        let unknown: Vec<&str> =
            self.document.keys(path).into_iter().filter(|key| !known.contains(key)).collect();
        for key in unknown {
            let place: Vec<&str> = path.iter().copied().chain([key]).collect();
            let help = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            let within = path.join(".");
            self.problem(&place, format!("`{key}` is no key that linc knows in `{within}`"), help);
        }
    }

    /// Reports the outermost keys that nobody asked for.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        let unknown: BTreeSet<&str> =
            self.document.keys(&[]).into_iter().filter(|key| !self.known.contains(key)).collect();
        for key in unknown {
            let help = match nearest(key, self.known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => "a key that changes what the model computes cannot be left out; if this one does not, remove its line".to_owned(),
            };
            self.problem(&[key], format!("`{key}` is no key of a Llama model that linc knows"), help);
        }
        self.problems
    }
}

/// What [`positive`] takes.
pub(super) const POSITIVE: &str = "a number above 0";

pub(super) fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite() && *number > 0.0)
}

/// What [`size`] takes.
pub(super) const SIZE: &str = "a whole number from 1 to 2147483647";

pub(super) fn size(value: &Value) -> Option<usize> {
    value.as_u64().filter(|number| (1..=i32::MAX as u64).contains(number)).map(|number| number as usize)
}

/// A value in messages; long ones are cut.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text,
    }
}
