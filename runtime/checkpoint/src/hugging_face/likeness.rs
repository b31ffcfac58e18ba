//! Whether the architecture of a checkpoint computes what a Llama model computes, however it is written: the graphs of both
//! are compared from their inputs on, without regard to the order of statements and to initial values.

use std::collections::BTreeMap;

use linc_config::{ConfigError, Problem};
use linc_driver::{BatchShape, Entry, Model, Options, PersistentLayout, Source};

use super::import::SHORT;
use crate::{CheckpointError, ModelRecord};

/// The attention pass, after which each attention is of the kind of its layer.
const ATTENTION: &str = "attention";

/// Refuses a model that is no Llama model but for the kinds of its layers.
///
/// # Errors
/// [`CheckpointError::HuggingFace`] with the first difference.
pub(super) fn check(model: &Model, record: &ModelRecord, llama: &Source) -> Result<(), CheckpointError> {
    let toml = Source { path: record.model_path.clone(), text: record.model_toml.clone() };
    let shape = BatchShape { batch: 1, seq: record.seq_len };
    let refuse = |reason: String| -> CheckpointError {
        let message =
            format!("{}: it is not the architecture of a Llama model: {reason}", record.architecture_path);
        let help = Some(
            "Hugging Face's format has Llama models and hybrids of them; an edited architecture needs a model class of its own there".to_owned(),
        );
        ConfigError::from(Problem { message, place: None, help }).into()
    };
    let expected = match Model::with_kinds(&toml, llama, &record.overrides, model.kinds.clone(), shape) {
        Ok(expected) => expected,
        Err(error) => {
            let error = error.to_string();
            let first = error.lines().next().unwrap_or_default();
            return Err(refuse(format!("of the same numbers there is no such model ({first})")));
        }
    };
    let (found, expected) = (operations(model)?, operations(&expected)?);
    if let Some(other) = found.iter().find(|operation| !expected.iter().any(|e| e.key == operation.key)) {
        return Err(refuse(format!("it has {}", other.words)));
    }
    match expected.iter().find(|operation| !found.iter().any(|f| f.key == operation.key)) {
        Some(lacking) => Err(refuse(format!("it lacks {}", lacking.words))),
        None => Ok(()),
    }
}

/// An operation of a graph.
struct Operation {
    /// The operation and all that it is computed from, as one number.
    key: u64,
    /// For people.
    words: String,
}

/// The operations of a model's forward pass.
fn operations(model: &Model) -> Result<Vec<Operation>, CheckpointError> {
    let options = Options { dumps: true, ..Options::new(1, SHORT.min(model.shape.seq)) };
    let compiled = linc_driver::compile(model, &Entry::Forward, &options, &mut PersistentLayout::default())?;
    Ok(read(compiled.graph_after(ATTENTION).unwrap_or_default()))
}

/// The operations in the text of a graph, `%2: f32[4] = add(%0, %1) {..} @scope`.
fn read(text: &str) -> Vec<Operation> {
    let mut keys: BTreeMap<&str, u64> = BTreeMap::new();
    let mut operations = vec![];
    for line in text.lines().skip(1).map(str::trim) {
        let (computed, scope) = line.rsplit_once(" @").unwrap_or((line, ""));
        let (id, right) = match computed.split_once(": ") {
            Some((id, right)) if id.starts_with('%') => (id, right),
            Some(_) | None => ("", computed),
        };
        // Where values start is no part of what is computed with them.
        let right = right.split(", init = ").next().unwrap_or(right);
        let key = hash(&with_keys(right, &keys));
        keys.insert(id, key);
        let operation = right.split_once(" = ").map_or(right, |(_, operation)| operation);
        let place = if scope.is_empty() { String::new() } else { format!(" in {scope}") };
        operations.push(Operation { key, words: format!("`{}`{place}", without_ids(operation)) });
    }
    operations
}

/// A text with the keys of operands in place of their numbers.
fn with_keys(text: &str, keys: &BTreeMap<&str, u64>) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let id = format!("%{}", &part[..end]);
        out.push_str(&format!("<{:016x}>{}", keys.get(id.as_str()).copied().unwrap_or(0), &part[end..]));
    }
    out
}

/// `add(%0, %1) {..}` as `add {..}`: numbers of values mean nothing to people.
fn without_ids(operation: &str) -> String {
    match (operation.find('('), operation.find(')')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", &operation[..open], &operation[close + 1..])
        }
        _ => operation.to_owned(),
    }
}

/// FNV-1a: the same in every build.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
