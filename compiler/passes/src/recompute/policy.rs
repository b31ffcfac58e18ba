//! What can be asked for: the modes of configs, with what belongs to them.

use std::fmt;
use std::str::FromStr;

use crate::setting::PassSetting;

/// The word that chooses, as in TorchTitan's `activation_checkpoint.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// [`Policy::None`]
    None,
    /// [`Policy::Selective`], or [`Policy::Layers`] with a number.
    #[default]
    Selective,
    /// [`Policy::Full`]
    Full,
    /// [`Policy::Budget`]
    MemoryBudget,
}

impl PassSetting for Mode {
    const NAME: &'static str = "recompute";
    const HELP: &'static str = "What the backward recomputes";
    const ALL: &'static [Self] = &[Mode::None, Mode::Selective, Mode::Full, Mode::MemoryBudget];

    fn name(self) -> &'static str {
        match self {
            Mode::None => "none",
            Mode::Selective => "selective",
            Mode::Full => "full",
            Mode::MemoryBudget => "memory_budget",
        }
    }
}

/// What the backward recomputes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Policy {
    /// Nothing: every value it needs is kept.
    None,
    /// Cheap operations (norms, pointwise) whose operands are kept anyway.
    #[default]
    Selective,
    /// Everything inside every n-th layer; n is at least 1.
    Layers(usize),
    /// Everything inside a layer: only values that cross layers are kept.
    Full,
    /// What takes the least time, as far as a limit asks for it.
    Budget(Limit),
}

/// Memory that a training step may take.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    /// From 0, the least that recomputation can reach, to 1, what the step takes without any.
    Share(f64),
    /// Bytes of the whole arena, persistent tensors included.
    Bytes(u64),
}

impl Policy {
    /// Of a mode, with the number of layers that `selective` may have and the limit of `memory_budget`.
    pub fn of(mode: Mode, every: Option<usize>, limit: Limit) -> Policy {
        match (mode, every) {
            (Mode::None, _) => Policy::None,
            (Mode::Selective, None) => Policy::Selective,
            (Mode::Selective, Some(every)) => Policy::Layers(every.max(1)),
            (Mode::Full, _) => Policy::Full,
            (Mode::MemoryBudget, _) => Policy::Budget(limit),
        }
    }
}

impl Limit {
    /// What texts of limits look like.
    pub const EXPECTED: &'static str = "a share from 0 to 1, or an amount of memory such as 24GiB";

    /// Units of [`Limit::Bytes`] in texts, in the order in which they are looked for: all end like the last.
    const UNITS: [(&'static str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
}

impl Default for Limit {
    fn default() -> Self {
        Limit::Share(0.5)
    }
}

/// Half-way, as TorchTitan has it, and sizes as people write them.
impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected {}, found {text:?}", Limit::EXPECTED);
        let lower = text.trim().to_lowercase();
        for (unit, size) in Limit::UNITS {
            if let Some(number) = lower.strip_suffix(&unit.to_lowercase()) {
                let number: f64 = number.trim().parse().map_err(|_| wrong())?;
                let bytes = number * size as f64;
                return if (1.0..1e18).contains(&bytes) {
                    Ok(Limit::Bytes(bytes as u64))
                } else {
                    Err(wrong())
                };
            }
        }
        match lower.parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Limit::Share(share)),
            Ok(_) | Err(_) => Err(wrong()),
        }
    }
}

/// As it is read again: `0.5`, or a whole number of the largest unit that gives one.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Share(share) => write!(f, "{share}"),
            Limit::Bytes(bytes) => {
                let whole = Limit::UNITS[..4].iter().rev().find(|(_, size)| bytes.is_multiple_of(*size));
                match whole {
                    Some((unit, size)) => write!(f, "{}{unit}", bytes / size),
                    None => write!(f, "{bytes}B"),
                }
            }
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::None => f.write_str(Mode::None.name()),
            Policy::Selective => f.write_str(Mode::Selective.name()),
            Policy::Layers(every) => write!(f, "{} {every}", Mode::Selective.name()),
            Policy::Full => f.write_str(Mode::Full.name()),
            Policy::Budget(limit) => write!(f, "{} {limit}", Mode::MemoryBudget.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_are_written() {
        let read = |text: &str| text.parse::<Limit>();
        for (text, limit, written) in [
            ("0.25", Limit::Share(0.25), "0.25"),
            ("24GiB", Limit::Bytes(24 << 30), "24GiB"),
            ("2 TiB", Limit::Bytes(2 << 40), "2TiB"),
            ("1.5 gib", Limit::Bytes(3 << 29), "1536MiB"),
            ("3KB", Limit::Bytes(3000), "3000B"),
            ("5000001B", Limit::Bytes(5_000_001), "5000001B"),
        ] {
            assert_eq!(read(text), Ok(limit), "{text}");
            assert_eq!(limit.to_string(), written);
            assert_eq!(read(written), Ok(limit), "{written}");
        }
        for text in ["", "1.5", "-1", "GiB", "0B", "2PB", "1e30GB"] {
            assert!(read(text).is_err_and(|error| error.contains("24GiB")), "{text}");
        }
    }
}
