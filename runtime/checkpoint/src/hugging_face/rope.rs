//! Rotary positions: `rope_theta` with `rope_scaling`, or since transformers 5 `rope_parameters`.

use linc_driver::Model;
use serde_json::{Map, Value, json};

use super::reader::{POSITIVE, Reader, SIZE, positive, shown, size};

/// Rotary positions of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rope {
    pub(super) theta: f64,
    pub(super) scaling: Option<Scaling>,
}

/// How frequencies are changed for longer sequences than those of the original training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scaling {
    pub(super) factor: f64,
    pub(super) low_freq_factor: f64,
    pub(super) high_freq_factor: f64,
    pub(super) original_positions: usize,
}

impl Scaling {
    /// Every frequency divided by a factor. In the numbers of Llama 3.1: the fastest pair turns once in 2π tokens, so that
    /// all turn less often in the original length than `low_freq_factor` says, and such are divided.
    fn linear(factor: f64, original_positions: usize) -> Self {
        let low = original_positions as f64;
        Scaling { factor, low_freq_factor: low, high_freq_factor: 2.0 * low, original_positions }
    }

    /// Of a model that linc trains.
    pub(super) fn of(model: &Model) -> Option<Self> {
        let scaling = model.config().rope_scaling()?;
        Some(Scaling {
            factor: scaling.factor,
            low_freq_factor: scaling.low_freq_factor,
            high_freq_factor: scaling.high_freq_factor,
            original_positions: scaling.original_max_position,
        })
    }

    /// Whether all frequencies are divided by the factor.
    pub(super) fn is_linear(&self) -> bool {
        self.original_positions as f64 / std::f64::consts::TAU < self.low_freq_factor
    }
}

/// The field in which older files have the scaling.
const OLD: &str = "rope_scaling";
/// The field that has all of it.
const NEW: &str = "rope_parameters";

pub(super) fn read(r: &mut Reader<'_>) -> Rope {
    let top_theta = r.positive("rope_theta");
    r.only("partial_rotary_factor", &[json!(1)], "linc rotates all features of a head");
    let scalings = [NEW, OLD].map(|field| {
        let fields = r.typed(field, "an object, or null", Value::as_object)?;
        Some(scaling(r, field, fields))
    });
    if let [Some(new), Some(old)] = &scalings
        && new != old
    {
        r.problem(
            &[OLD],
            "`rope_scaling` and `rope_parameters` differ",
            "they are two names of one thing: keep one",
        );
    }
    let inner = [NEW, OLD].into_iter().find_map(|field| {
        let theta = r.typed_at(&[field, "rope_theta"], POSITIVE, positive)?;
        Some((field, theta))
    });
    if let (Some(top), Some((field, inner))) = (top_theta, inner)
        && top != inner
    {
        let message = format!("`rope_theta` is {inner} here and {top} at the top of the file");
        r.problem(&[field, "rope_theta"], message, "keep one of them");
    }
    let theta = inner.map(|(_, theta)| theta).or(top_theta).unwrap_or(10_000.0);
    let [new, old] = scalings;
    Rope { theta, scaling: new.or(old).flatten() }
}

fn scaling(r: &mut Reader<'_>, field: &'static str, fields: &Map<String, Value>) -> Option<Scaling> {
    let kind = r.typed_at(&[field, "rope_type"], "a string", Value::as_str);
    let old_kind = r.typed_at(&[field, "type"], "a string", Value::as_str);
    if let (Some(new), Some(old)) = (kind, old_kind)
        && new != old
    {
        r.problem(
            &[field, "type"],
            "`type` and `rope_type` differ",
            "they are two names of one thing: keep one",
        );
    }
    let name = if kind.is_some() { "rope_type" } else { "type" };
    let common = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
    let whole = r.typed_at(&[field, "partial_rotary_factor"], POSITIVE, positive).unwrap_or(1.0);
    if whole != 1.0 {
        let message = format!("`partial_rotary_factor` is {whole}");
        r.problem(&[field, "partial_rotary_factor"], message, "linc rotates all features of a head");
    }
    match kind.or(old_kind) {
        Some("default") => {
            r.only_keys(&[field], &common);
            None
        }
        // Before transformers 5 there was no scaling without a type.
        None if fields.keys().all(|key| common.contains(&key.as_str())) => None,
        Some("linear") => {
            r.only_keys(&[field], &[&common[..], &["factor"]].concat());
            let factor = number(r, field, "factor")?;
            // Any will do, and this one is that of the file.
            let positions = r.at(&["max_position_embeddings"]).and_then(size).unwrap_or(2048);
            Some(Scaling::linear(factor, positions))
        }
        Some("llama3") => {
            const KEYS: [&str; 3] = ["factor", "low_freq_factor", "high_freq_factor"];
            const ORIGINAL: &str = "original_max_position_embeddings";
            r.only_keys(&[field], &[&common[..], &KEYS, &[ORIGINAL]].concat());
            let [factor, low_freq_factor, high_freq_factor] = KEYS.map(|key| number(r, field, key));
            let original_positions = required(r, field, ORIGINAL, SIZE, size);
            let (low_freq_factor, high_freq_factor) = (low_freq_factor?, high_freq_factor?);
            if high_freq_factor <= low_freq_factor {
                let message = format!(
                    "high_freq_factor = {high_freq_factor} is not above low_freq_factor = {low_freq_factor}"
                );
                r.problem(&[field, "high_freq_factor"], message, "Llama 3 has 4 and 1");
                return None;
            }
            let (factor, original_positions) = (factor?, original_positions?);
            Some(Scaling { factor, low_freq_factor, high_freq_factor, original_positions })
        }
        Some(other) => {
            let message = format!("`{name}` is \"{other}\"");
            r.problem(&[field, name], message, "linc has default, linear and llama3");
            None
        }
        None => {
            r.problem(
                &[field],
                format!("`{field}` is {} and has no rope_type", shown(&json!(fields))),
                "linc has default, linear and llama3",
            );
            None
        }
    }
}

/// A number above 0 that the scaling does not work without.
fn number(r: &mut Reader<'_>, field: &'static str, key: &'static str) -> Option<f64> {
    required(r, field, key, POSITIVE, positive)
}

/// What the scaling does not work without, as `read` takes it; a problem where it is missing or something else.
fn required<T>(
    r: &mut Reader<'_>,
    field: &'static str,
    key: &'static str,
    expected: &str,
    read: fn(&Value) -> Option<T>,
) -> Option<T> {
    if r.at(&[field, key]).is_none() {
        r.problem(
            &[field],
            format!("`{key}` is missing in `{field}`"),
            "it belongs to that rope_type: get the file again",
        );
        return None;
    }
    r.typed_at(&[field, key], expected, read)
}
