//! Values of the model file, whose keys the config does not know.

use serde_json::{Value, json};
use toml::de::DeValue;

use crate::value::{Setting, mismatch};

/// A value whose type the config does not know: an override of a number of the model file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// An integer.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl Scalar {
    /// As the compiler takes it; true is 1.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
            Self::Bool(value) => f64::from(u8::from(value)),
        }
    }
}

impl Setting for Scalar {
    fn expected() -> String {
        "a number, true or false".to_owned()
    }

    fn schema() -> Value {
        // A key of a table of the model file has tables around it.
        json!({ "type": ["number", "boolean", "object"] })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Integer(_) => i64::from_toml(value).map(Self::Int),
            DeValue::Float(_) => f64::from_toml(value).map(Self::Float),
            DeValue::Boolean(flag) => Ok(Self::Bool(*flag)),
            DeValue::String(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                Err(mismatch::<Self>(value))
            }
        }
    }

    fn to_toml(&self) -> Option<String> {
        match self {
            Self::Int(value) => value.to_toml(),
            Self::Float(value) => value.to_toml(),
            Self::Bool(value) => value.to_toml(),
        }
    }
}
