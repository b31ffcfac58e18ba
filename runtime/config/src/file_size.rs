//! Sizes of files, as people write them.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde_json::{Value, json};
use toml::de::DeValue;

use crate::value::{Setting, mismatch, quote};

/// Bytes of a file: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileSize(pub u64);

/// Largest first, so that text is short; of powers of 1000 and, with an `i`, of 1024.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl FileSize {
    /// What people should write.
    pub const EXPECTED: &str = "a size such as 500MB, 5GB or 2GiB";
}

impl FromStr for FileSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
        let (digits, unit) = unit.unwrap_or((text, 1));
        let bytes = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        bytes.filter(|bytes| *bytes > 0).map(FileSize).ok_or_else(|| format!("expected {}", Self::EXPECTED))
    }
}

impl Display for FileSize {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, unit) =
            UNITS.into_iter().find(|(_, unit)| self.0.is_multiple_of(*unit)).unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl Setting for FileSize {
    fn expected() -> String {
        FileSize::EXPECTED.to_owned()
    }

    fn schema() -> Value {
        let pattern = r"^\s*[0-9]+\s*([GMK]i?B|B)?$";
        json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": pattern }] })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = match value {
            DeValue::Integer(number) => number.to_string(),
            DeValue::String(text) => text.to_string(),
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => return Err(mismatch::<Self>(value)),
        };
        text.parse().map_err(|_| mismatch::<Self>(value))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_in_the_unit_that_fits() {
        for (text, bytes) in
            [("5GB", 5_000_000_000), ("2 GiB", 2 << 30), ("1536", 1536), ("7B", 7), ("3KB", 3000)]
        {
            let size: FileSize = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
            assert_eq!(FileSize::from_text(text), Ok(size), "{text}");
        }
        assert_eq!(FileSize(5_000_000_000).to_string(), "5GB");
        assert_eq!(FileSize(1 << 20).to_string(), "1MiB");
        for wrong in ["0", "5 XB", "-1", "1.5GB", "", "99999999999GB", "GB"] {
            assert!(wrong.parse::<FileSize>().is_err(), "{wrong}");
        }
    }
}
