//! Which machine a user asks for.

use std::fmt;
use std::str::FromStr;

use crate::cpu::{Cpu, CpuOptions};
use crate::cuda::{Cuda, has_driver};
use crate::{Device, DeviceError};

/// A machine by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// `auto`: the first GPU if it can be used, else the CPU.
    #[default]
    Auto,
    /// `cpu`
    Cpu,
    /// `cuda` or `cuda:N`: a GPU by its number.
    Cuda(usize),
}

impl Choice {
    /// What can be written.
    pub const EXPECTED: &str = "auto, cpu, cuda, or cuda:N for the GPU number N";

    /// Opens the machine; with it, where `auto` comes to the CPU, one line that says why. `threads` are those of the
    /// CPU, nothing for all.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] if it is not there.
    pub fn open(self, threads: Option<usize>) -> Result<(Box<dyn Device>, Option<String>), DeviceError> {
        let cpu = || Cpu::new(CpuOptions { threads, ..CpuOptions::default() });
        Ok(match self {
            Choice::Cpu => (Box::new(cpu()?), None),
            Choice::Cuda(number) => (Box::new(Cuda::new(number)?), None),
            Choice::Auto => match Cuda::new(0) {
                Ok(cuda) => (Box::new(cuda), None),
                Err(error) => {
                    let error = error.to_string();
                    let mut note =
                        format!("Running on the CPU: {}", error.lines().next().unwrap_or_default());
                    // Who has a GPU wants to know what it lacks.
                    if has_driver()
                        && let Some((_, help)) = error.rsplit_once("\n  help: ")
                    {
                        note.push_str(&format!("; {help}"));
                    }
                    (Box::new(cpu()?), Some(note))
                }
            },
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Cpu => f.write_str("cpu"),
            Choice::Cuda(0) => f.write_str("cuda"),
            Choice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            // Not what else `parse` takes, such as a sign.
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        let choice = match text {
            "auto" => Some(Choice::Auto),
            "cpu" => Some(Choice::Cpu),
            "cuda" => Some(Choice::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(number).map(Choice::Cuda),
        };
        choice.ok_or_else(|| format!("no device is called \"{text}\"; expected {}", Choice::EXPECTED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, choice) in [
            ("auto", Choice::Auto),
            ("cpu", Choice::Cpu),
            ("cuda", Choice::Cuda(0)),
            ("cuda:3", Choice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda:0".parse(), Ok(Choice::Cuda(0)));
        for bad in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:99999999999999999999"] {
            let message = bad.parse::<Choice>().expect_err("no device");
            assert!(message.contains("cuda:N") && message.contains("auto"), "{message}");
        }
    }
}
