//! Settings whose types are the compiler's: ratio and placement of linear layers, recomputation, precision; and the
//! device.

use linc_device::Choice;
use linc_driver::{MemoryLimit, PassSetting, Placement, Precision, Ratio, RecomputeMode};
use serde_json::{Value, json};
use toml::de::DeValue;

use crate::near::distance;
use crate::value::{NEAREST, Setting, describe_text, mismatch, quote};

/// The exact fraction of the decimal text, so that 0.7 is 7/10 when layers are placed.
impl Setting for Ratio {
    fn expected() -> String {
        "a number from 0 to 1 such as 0.75, or a fraction such as \"3/4\"".to_owned()
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": "^\\s*\\+?[0-9.]+([eE][-+]?[0-9]+)?(\\s*/\\s*[0-9]+)?\\s*$" },
        ] })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = match value {
            DeValue::Float(number) => plain_decimal(number.as_str()),
            DeValue::Integer(number) => number.to_string(),
            DeValue::String(text) => plain_decimal(text),
            DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                return Err(mismatch::<Self>(value));
            }
        };
        text.parse().map_err(|_| mismatch::<Self>(value))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let expected = || format!("expected {}, found {}", Self::expected(), describe_text(text));
        plain_decimal(text).parse().map_err(|_| expected())
    }

    fn to_toml(&self) -> Option<String> {
        let text = self.to_string();
        Some(if text.contains('/') { quote(&text) } else { text })
    }
}

/// `7.5e-1` as `0.75`, which TOML calls the same number; anything else as it is.
fn plain_decimal(text: &str) -> String {
    let expanded = || {
        let (mantissa, exponent) = text.split_once(['e', 'E'])?;
        let exponent: i64 = exponent.parse().ok().filter(|exponent| (-15..=15).contains(exponent))?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{:0>16}{:0<15}", format!("{whole}{fraction}"), "");
        let point = digits.len() as i64 - 15 - fraction.len() as i64 + exponent;
        let (before, after) = digits.split_at_checked(usize::try_from(point).ok()?)?;
        Some(format!("{}.{after}", before.trim_start_matches('0')))
    };
    expanded().unwrap_or_else(|| text.to_owned())
}

impl Setting for Placement {
    fn expected() -> String {
        let words: Vec<String> = Placement::NAMED.iter().filter_map(Placement::name).map(quote).collect();
        format!("one of {}, or a list of layers counted from 0", words.join(", "))
    }

    fn schema() -> Value {
        let words: Vec<&str> = Placement::NAMED.iter().filter_map(Placement::name).collect();
        json!({ "anyOf": [{ "enum": words }, { "type": "array", "items": usize::schema() }] })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => text.parse().map_err(|_| mismatch::<Self>(value)),
            DeValue::Array(_) => {
                Vec::<usize>::from_toml(value).map(Self::Layers).map_err(|_| mismatch::<Self>(value))
            }
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => Err(mismatch::<Self>(value)),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim().starts_with('[') {
            true => Vec::<usize>::from_text(text)
                .map(Self::Layers)
                .map_err(|_| format!("expected {}, found {}", Self::expected(), describe_text(text))),
            false => Self::from_toml(&DeValue::String(text.into())),
        }
    }

    fn to_toml(&self) -> Option<String> {
        match self {
            Self::Layers(layers) => layers.to_toml(),
            Self::Uniform | Self::Front | Self::Middle | Self::Back => self.name().map(quote),
        }
    }
}

impl Setting for Choice {
    fn expected() -> String {
        "one of \"auto\", \"cpu\", \"cuda\", or \"cuda:N\" for the GPU number N".to_owned()
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "enum": ["auto", "cpu", "cuda"] }, { "type": "string", "pattern": "^cuda:[0-9]+$" }] })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| mismatch::<Self>(value))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_toml(&DeValue::String(text.into()))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

/// A pass setting in a config: its word as a string.
macro_rules! pass_setting {
    ($($name:ty),+) => {$(
        impl Setting for $name {
            fn expected() -> String {
                let words = <$name>::ALL.iter().map(|value| quote(value.name()));
                format!("one of {}", words.collect::<Vec<_>>().join(", "))
            }

            fn schema() -> Value {
                json!({ "enum": <$name>::ALL.iter().map(|value| value.name()).collect::<Vec<_>>() })
            }

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let Some(text) = value.as_str() else { return Err(mismatch::<Self>(value)) };
                let distance = |value: &&Self| distance(text, value.name());
                match (Self::from_name(text), Self::ALL.iter().min_by_key(distance)) {
                    (Some(value), _) => Ok(value),
                    // There are many names for what these say, so the nearest of them is named however far it is.
                    (None, Some(near)) => {
                        Err(format!("{}{NEAREST}{}", mismatch::<Self>(value), quote(near.name())))
                    }
                    (None, None) => Err(mismatch::<Self>(value)),
                }
            }

            fn from_text(text: &str) -> Result<Self, String> {
                Self::from_toml(&DeValue::String(text.into()))
            }

            fn to_toml(&self) -> Option<String> {
                Some(quote(self.name()))
            }
        }
    )+};
}

pass_setting!(RecomputeMode, Precision);

impl Setting for MemoryLimit {
    fn expected() -> String {
        MemoryLimit::EXPECTED.to_owned()
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "number", "minimum": 0, "maximum": 1 }, { "type": "string", "pattern": "[0-9]" }] })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) => number.as_str(),
            DeValue::String(text) => text,
            DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                return Err(mismatch::<Self>(value));
            }
        };
        text.parse().map_err(|_| mismatch::<Self>(value))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("expected {}, found {}", Self::expected(), describe_text(text)))
    }

    fn to_toml(&self) -> Option<String> {
        Some(match self {
            MemoryLimit::Share(_) => self.to_string(),
            MemoryLimit::Bytes(_) => quote(&self.to_string()),
        })
    }
}
