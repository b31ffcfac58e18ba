//! Values of settings: how each type is read from TOML or the command line, and written back.

use serde_json::{Value, json};
use toml::de::DeValue;

use crate::table::{Fault, fault_of_list};

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What a person should write, for example `an integer`.
    fn expected() -> String;

    /// The same as a JSON schema.
    fn schema() -> Value;

    /// Reads a TOML value.
    ///
    /// # Errors
    /// A sentence with what was found and what was expected.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;

    /// What is wrong with a part of a value that [`Setting::from_toml`] refuses, where that can be told apart.
    fn fault(_: &DeValue<'_>) -> Option<Fault> {
        None
    }

    /// Reads a command line argument; by default the same spelling as in TOML.
    ///
    /// # Errors
    /// As [`Setting::from_toml`].
    fn from_text(text: &str) -> Result<Self, String> {
        match DeValue::parse(text.trim()) {
            Ok(value) => Self::from_toml(value.get_ref()),
            Err(_) => Self::from_toml(&DeValue::String(text.into())),
        }
    }

    /// The TOML spelling, or `None` for a setting that is not set.
    fn to_toml(&self) -> Option<String>;
}

/// What a message says before the nearest of a setting's words, where it says that itself.
pub(crate) const NEAREST: &str = "; the nearest is ";

/// `expected X, found Y`.
pub fn mismatch<T: Setting>(value: &DeValue<'_>) -> String {
    format!("expected {}, found {}", T::expected(), describe(value))
}

/// What is wrong with a part of the value, or with all of it.
fn refused<T: Setting>(value: &DeValue<'_>) -> String {
    T::fault(value).map_or_else(|| mismatch::<T>(value), |fault| fault.message)
}

/// A TOML value in words, shortened.
pub(crate) fn describe(value: &DeValue<'_>) -> String {
    let text = shortened(&spelled(value));
    match value {
        DeValue::String(_) => format!("the string {text}"),
        DeValue::Integer(number) => {
            let wide = i128::from_str_radix(number.as_str(), number.radix());
            let fits = wide.is_ok_and(|wide| u64::try_from(wide.abs()).is_ok());
            format!("the integer {text}{}", if fits { "" } else { ", which 64 bits do not hold" })
        }
        DeValue::Float(_) => format!("the number {text}"),
        DeValue::Boolean(_) => text,
        DeValue::Datetime(_) => format!("the date {text}"),
        DeValue::Array(_) => format!("the list {text}"),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn spelled(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| spelled(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(_) => "{ .. }".to_owned(),
    }
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push_str("..");
    }
    shown
}

/// A command line argument in words, as the TOML value that it is read as.
pub(super) fn describe_text(text: &str) -> String {
    match DeValue::parse(text.trim()) {
        Ok(value) => describe(value.get_ref()),
        Err(_) => describe(&DeValue::String(text.into())),
    }
}

impl Setting for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| mismatch::<Self>(value))
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! integer_setting {
    ($($ty:ty => $words:literal, $schema:tt),+) => {$(
        impl Setting for $ty {
            fn expected() -> String {
                $words.to_owned()
            }

            fn schema() -> Value {
                json!($schema)
            }

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let DeValue::Integer(number) = value else { return Err(mismatch::<Self>(value)) };
                let wide = i128::from_str_radix(number.as_str(), number.radix());
                wide.ok().and_then(|wide| Self::try_from(wide).ok()).ok_or_else(|| mismatch::<Self>(value))
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

integer_setting!(
    usize => "an integer of at least 0", { "type": "integer", "minimum": 0 },
    u64 => "an integer of at least 0", { "type": "integer", "minimum": 0 },
    i64 => "an integer", { "type": "integer" }
);

impl Setting for f64 {
    fn expected() -> String {
        "a number".to_owned()
    }

    fn schema() -> Value {
        json!({ "type": "number" })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let parsed = match value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(_) => i64::from_toml(value).ok().map(|number| number as f64),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        parsed.ok_or_else(|| mismatch::<Self>(value))
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Setting for String {
    fn expected() -> String {
        "a string".to_owned()
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| mismatch::<Self>(value))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quote(self))
    }
}

/// A string as a TOML basic string.
pub fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl<T: Setting> Setting for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn schema() -> Value {
        T::schema()
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        T::from_toml(value).map(Some)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        T::from_text(text).map(Some)
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(Setting::to_toml)
    }
}

/// A list may be a single value too, and comma-separated on the command line.
impl<T: Setting> Setting for Vec<T> {
    fn expected() -> String {
        format!("a list, each {}", T::expected())
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "array", "items": T::schema() }, T::schema()] })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Array(items) => {
                let items: Result<Self, String> = items.iter().map(|i| T::from_toml(i.get_ref())).collect();
                items.map_err(|_| refused::<Self>(value))
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => {
                T::from_toml(value).map(|item| vec![item]).map_err(|_| refused::<Self>(value))
            }
        }
    }

    fn fault(value: &DeValue<'_>) -> Option<Fault> {
        fault_of_list::<T>(value)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with('[') {
            let list = DeValue::parse(text).map_err(|error| format!("not a list: {}", error.message()))?;
            return Self::from_toml(list.get_ref());
        }
        if let Ok(table) = DeValue::parse(text)
            && matches!(table.get_ref(), DeValue::Table(_))
        {
            return Self::from_toml(table.get_ref());
        }
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items: Result<Self, String> = items.map(T::from_text).collect();
        items.map_err(|_| format!("expected {}, found {}", Self::expected(), describe_text(text)))
    }

    fn to_toml(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(Setting::to_toml).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// Declares a setting that is one of a few words.
#[macro_export]
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant),+ }

        impl $name {
            /// The word that selects this variant in a config.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl $crate::Setting for $name {
            fn expected() -> String {
                let words: &[&str] = &[$($word),+];
                format!("one of \"{}\"", words.join("\", \""))
            }

            fn schema() -> $crate::schema::Json {
                $crate::schema::of_words(&[$(($word, [$($variant_doc),+].map(str::trim).join(" "))),+])
            }

            fn from_toml(value: &$crate::DeValue<'_>) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)+
                    _ => Err($crate::mismatch::<Self>(value)),
                }
            }

            fn from_text(text: &str) -> Result<Self, String> {
                Self::from_toml(&$crate::DeValue::String(text.into()))
            }

            fn to_toml(&self) -> Option<String> {
                Some(format!("\"{}\"", self.word()))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use linc_driver::{Placement, Ratio};

    fn toml<T: Setting>(text: &str) -> Result<T, String> {
        T::from_toml(DeValue::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).get_ref())
    }

    #[test]
    fn integers() {
        assert_eq!(toml::<usize>("0x10"), Ok(16));
        assert_eq!(toml::<usize>("1_000"), Ok(1000));
        assert_eq!(toml::<i64>("-1"), Ok(-1));
        assert!(toml::<usize>("-1").is_err_and(|e| e.contains("at least 0") && e.contains("-1")));
        assert!(toml::<usize>("1.0").is_err_and(|e| e.contains("the number 1.0")));
        assert!(toml::<u64>("99999999999999999999999").is_err());
        assert!(toml::<usize>("\"5\"").is_err_and(|e| e.contains("the string \"5\"")));
    }

    #[test]
    fn numbers_and_lists() {
        assert_eq!(toml::<f64>("3e-4"), Ok(3e-4));
        assert_eq!(toml::<f64>("1"), Ok(1.0));
        assert_eq!(toml::<Vec<usize>>("[1, 2]"), Ok(vec![1, 2]));
        assert_eq!(toml::<Vec<usize>>("8"), Ok(vec![8]));
        assert_eq!(Vec::<usize>::from_text("8, 16"), Ok(vec![8, 16]));
        assert_eq!(Vec::<String>::from_text("cse,fusion"), Ok(vec!["cse".to_owned(), "fusion".to_owned()]));
        assert_eq!(Vec::<String>::from_text("[\"cse\"]"), Ok(vec!["cse".to_owned()]));
        assert!(Vec::<usize>::from_text("[1,").is_err());
        assert!(toml::<Vec<usize>>("[1, -2]").is_err());
    }

    #[test]
    fn ratios_keep_their_decimal_text() {
        let ratio = |text: &str| text.parse::<Ratio>().map_err(|_| text.to_owned());
        assert_eq!(toml::<Ratio>("0.7"), ratio("7/10"));
        assert_eq!(toml::<Ratio>("\"3/4\""), ratio("0.75"));
        assert_eq!(toml::<Ratio>("1"), ratio("1/1"));
        for same in ["7.5e-1", "0.75e0", "75E-2", "0.0075e2", ".75"] {
            assert_eq!(Ratio::from_text(same), ratio("3/4"), "{same}");
        }
        assert_eq!(toml::<Ratio>("1e-9"), ratio("1/1000000000"));
        assert!(
            toml::<Ratio>("-1e-1").is_err()
                && toml::<Ratio>("2e0").is_err()
                && toml::<Ratio>("1e99").is_err()
        );
        assert_eq!(toml::<Ratio>("0"), Ok(Ratio::ZERO));
        for bad in ["nan", "-0.1", "1.5", "\"x\"", "true", "[0.5]", "inf", "0x10", "\"1/0\"", "\"\""] {
            let error = toml::<Ratio>(bad).expect_err(bad);
            assert!(error.contains("from 0 to 1") && error.contains("found"), "{bad}: {error}");
        }
    }

    #[test]
    fn placements() {
        assert_eq!(toml::<Placement>("\"back\""), Ok(Placement::Back));
        assert_eq!(toml::<Placement>("[0, 2]"), Ok(Placement::Layers(vec![0, 2])));
        assert_eq!(Placement::from_text("0,2"), Ok(Placement::Layers(vec![0, 2])));
        assert_eq!(Placement::from_text("[3]"), Ok(Placement::Layers(vec![3])));
        assert!(Placement::from_text("sideways").is_err_and(|e| e.contains("uniform")));
    }

    #[test]
    fn written_values_read_back() {
        for text in ["a\"b\\c\nd", "", "é"] {
            let written = text.to_owned().to_toml().expect("a string is always set");
            assert_eq!(toml::<String>(&written), Ok(text.to_owned()));
        }
        for number in [1e-8, 3e-4, 1.0, 0.1, 1e300] {
            let written = number.to_toml().expect("a number is always set");
            assert_eq!(toml::<f64>(&written), Ok(number));
        }
        for text in ["1/3", "0.7", "0", "1", "1/1000000007", "0.0000001"] {
            let ratio: Ratio = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(toml::<Ratio>(&ratio.to_toml().expect("set")), Ok(ratio));
        }
    }
}
