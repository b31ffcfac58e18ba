//! Which layers of a hybrid have linear attention: a list of `layer_types` as in transformers, or `attn` as in
//! flash-linear-attention, where the layers that it lists are those that keep softmax attention.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::config::Dimensions;
use super::reader::{POSITIVE, Reader, SIZE, positive, shown, size};

/// Options of linear attention, in the object `linc` of a `config.json` that linc writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LinearOptions {
    /// q and k are rotated by position.
    pub(super) rope: bool,
    /// Multiplies q and k before their softmaxes.
    pub(super) temperature: f64,
    /// Tokens at once, which changes the last bits.
    pub(super) chunk: Option<usize>,
}

/// Whether each layer is linear, and the options of those that are.
pub(super) fn read(r: &mut Reader<'_>, sizes: &Dimensions, theta: f64) -> (Vec<bool>, Option<LinearOptions>) {
    let types = layer_types(r, sizes.layers);
    let attn = attn(r, sizes, theta);
    if let (Some(types), Some(attn)) = (&types, &attn)
        && types != attn
    {
        r.problem(
            &["attn"],
            "`attn` and `layer_types` give other layers softmax attention",
            "keep one of them",
        );
    }
    let linear = types.or(attn).unwrap_or_else(|| vec![false; sizes.layers]);
    (linear, options(r))
}

fn layer_types(r: &mut Reader<'_>, layers: usize) -> Option<Vec<bool>> {
    const KEY: &str = "layer_types";
    let list = r.typed(KEY, "a list of full_attention and linear_attention", Value::as_array)?;
    if list.len() != layers {
        let message = format!("`{KEY}` has {} layers, num_hidden_layers is {layers}", list.len());
        r.problem(&[KEY], message, "it has one for each layer");
        return None;
    }
    let mut linear = vec![];
    for (index, kind) in list.iter().enumerate() {
        match kind.as_str() {
            Some("full_attention") => linear.push(false),
            Some("linear_attention") => linear.push(true),
            Some(_) | None => {
                let message = format!("layer {index} is {}", shown(kind));
                r.problem(
                    &[KEY, &index.to_string()],
                    message,
                    "linc has full_attention and linear_attention",
                );
            }
        }
    }
    (linear.len() == layers).then_some(linear)
}

fn attn(r: &mut Reader<'_>, sizes: &Dimensions, theta: f64) -> Option<Vec<bool>> {
    let value = r.value("attn")?;
    let blocks: Vec<Vec<String>> = match value {
        Value::Object(_) => vec![vec![]],
        Value::Array(list) if !list.is_empty() => {
            (0..list.len()).map(|index| vec![index.to_string()]).collect()
        }
        other => {
            let message = format!("`attn` is {}", shown(other));
            r.problem(&["attn"], message, "expected {\"layers\": [..]}, or a list of such");
            return None;
        }
    };
    let mut softmax = BTreeSet::new();
    let mut whole = true;
    for block in &blocks {
        let path: Vec<&str> = ["attn"].into_iter().chain(block.iter().map(String::as_str)).collect();
        whole &= block_layers(r, &path, sizes, theta, &mut softmax).is_some();
    }
    whole.then(|| (0..sizes.layers).map(|layer| !softmax.contains(&layer)).collect())
}

/// Adds the layers of one block to those with softmax attention; nothing if there is a problem.
fn block_layers(
    r: &mut Reader<'_>,
    path: &[&str],
    sizes: &Dimensions,
    theta: f64,
    softmax: &mut BTreeSet<usize>,
) -> Option<()> {
    let before = r.problems.len();
    if r.at(path).is_none_or(|value| !value.is_object()) {
        r.problem(path, "a block of `attn` is no object", "expected {\"layers\": [..]}");
        return None;
    }
    let inner = |key| -> Vec<&str> { path.iter().copied().chain([key]).collect() };
    let same = [
        ("num_heads", json!(sizes.heads)),
        ("num_kv_heads", json!(sizes.kv_heads)),
        ("rope_theta", json!(theta)),
        ("qkv_bias", json!(false)),
        ("qk_norm", json!(false)),
    ];
    let known: Vec<&str> = ["layers", "window_size"].into_iter().chain(same.iter().map(|s| s.0)).collect();
    r.only_keys(path, &known);
    for (key, expected) in same {
        let Some(value) = r.at(&inner(key)) else { continue };
        if *value != expected && (value.as_f64().is_none() || value.as_f64() != expected.as_f64()) {
            let message = format!("`{key}` is {}", shown(value));
            r.problem(
                &inner(key),
                message,
                format!("the model has {expected}, and linc has one number for all layers"),
            );
        }
    }
    if r.at(&inner("window_size")).is_some() {
        r.problem(
            &inner("window_size"),
            "`window_size` is set",
            "linc's attention sees all tokens before it",
        );
    }
    let Some(list) = r.typed_at(&inner("layers"), "a list of layers, counted from 0", Value::as_array) else {
        if r.at(&inner("layers")).is_none() {
            r.problem(path, "a block of `attn` has no `layers`", "expected {\"layers\": [..]}");
        }
        return None;
    };
    for (index, layer) in list.iter().enumerate() {
        let number = layer.as_u64().map(|layer| layer as usize).filter(|layer| *layer < sizes.layers);
        let help = format!("layers are 0 to {}, each once", sizes.layers - 1);
        let mut place = inner("layers");
        let index = index.to_string();
        place.push(&index);
        match number {
            Some(layer) if softmax.insert(layer) => {}
            Some(_) => r.problem(&place, format!("layer {} is listed twice", shown(layer)), help),
            None => r.problem(&place, format!("there is no layer {}", shown(layer)), help),
        }
    }
    (r.problems.len() == before).then_some(())
}

fn options(r: &mut Reader<'_>) -> Option<LinearOptions> {
    const PATH: [&str; 2] = ["linc", "linear_attention"];
    r.typed(PATH[0], "an object", Value::as_object)?;
    r.only_keys(&PATH[..1], &PATH[1..]);
    r.typed_at(&PATH, "an object", Value::as_object)?;
    r.only_keys(&PATH, &["chunk", "rope", "temperature"]);
    let missing = |r: &mut Reader<'_>, key: &str| {
        if r.at(&[PATH[0], PATH[1], key]).is_none() {
            r.problem(&PATH, format!("`{key}` is missing"), "linc writes it: export the model again");
        }
    };
    missing(r, "rope");
    missing(r, "temperature");
    let rope = r.typed_at(&[PATH[0], PATH[1], "rope"], "true or false", Value::as_bool);
    let temperature = r.typed_at(&[PATH[0], PATH[1], "temperature"], POSITIVE, positive);
    let chunk = r.typed_at(&[PATH[0], PATH[1], "chunk"], SIZE, size);
    Some(LinearOptions { rope: rope?, temperature: temperature?, chunk })
}
