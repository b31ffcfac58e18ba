//! Numbers in JSON, which has no infinity: a token that a model gives no probability at all has an infinite loss, and that is
//! what a text costs that has it. What JSON lacks is written as a word, `"inf"`, `"-inf"` or `"nan"`.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// A number, or the word for it.
pub(crate) fn value(number: f64) -> Value {
    match number {
        _ if number.is_finite() => json!(number),
        _ if number.is_nan() => json!("nan"),
        _ if number > 0.0 => json!("inf"),
        _ => json!("-inf"),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(word) => ["nan", "inf", "-inf"].contains(&word.as_str()).then(|| word.parse().ok())?,
        value => value.as_f64(),
    }
}

/// For `serialize_with`.
pub(crate) fn one<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value(*number).serialize(serializer)
}

/// For `serialize_with`.
pub(crate) fn perhaps_one<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    number.map(value).serialize(serializer)
}

/// For `serialize_with`.
pub(crate) fn perhaps_two<S: Serializer>(
    numbers: &Option<[f64; 2]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    numbers.map(|two| two.map(value)).serialize(serializer)
}

/// Sums and weights by name, for `with`.
pub(crate) mod parts {
    use super::{BTreeMap, Deserialize, Deserializer, Error, Serialize, Serializer, Value, number, value};

    type Parts = BTreeMap<String, (f64, f64)>;

    pub(crate) fn serialize<S: Serializer>(parts: &Parts, serializer: S) -> Result<S::Ok, S::Error> {
        let written: BTreeMap<&String, [Value; 2]> =
            parts.iter().map(|(name, (sum, weight))| (name, [value(*sum), value(*weight)])).collect();
        written.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parts, D::Error> {
        let written = BTreeMap::<String, (Value, Value)>::deserialize(deserializer)?;
        let read = |(name, (sum, weight)): (String, (Value, Value))| {
            let read = |value: &Value| {
                number(value).ok_or_else(|| D::Error::custom(format!("`{name}` has {value} for a number")))
            };
            let pair = (read(&sum)?, read(&weight)?);
            Ok((name, pair))
        };
        written.into_iter().map(read).collect()
    }
}
