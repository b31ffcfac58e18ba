//! Which machine a user asks for.

use crate::words::count;
use std::fmt;
use std::str::FromStr;

use crate::cpu::{Cpu, CpuOptions};
use crate::cuda::{Cuda, has_driver};
use crate::{Device, DeviceError, threads};

/// A machine by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// `auto`: the first GPU if it can be used, else the CPU.
    #[default]
    Auto,
    /// `cpu`: this processor, with all threads that the process may use.
    Cpu,
    /// `cuda` or `cuda:N`: a GPU by its number.
    Cuda(usize),
}

impl Choice {
    /// What can be written.
    pub const EXPECTED: &str = "auto, cpu, cuda, or cuda:N for the GPU number N";

    /// Opens the machine. `wanted` are threads of the CPU, nothing for as many as the machine runs at once, which is also
    /// the most: waiting threads spin, so that more of them only take time from each other.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] if it is not there.
    pub fn open(self, wanted: Option<usize>) -> Result<Opened, DeviceError> {
        let note = match self {
            Choice::Cuda(number) => return Ok(Opened::alone(Box::new(Cuda::new(number)?))),
            Choice::Cpu => None,
            Choice::Auto => match Cuda::new(0) {
                Ok(cuda) => return Ok(Opened::alone(Box::new(cuda))),
                Err(error) => Some(why_cpu(&error.to_string())),
            },
        };
        open_cpu(wanted, note)
    }

    /// As [`Choice::open`], for a rank that has `place` others before it on this machine which take a GPU each.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] if it is not there, for one GPU of all ranks, and for more ranks than GPUs.
    pub fn open_of_rank(self, place: usize, wanted: Option<usize>) -> Result<Opened, DeviceError> {
        match self {
            Choice::Cpu => self.open(wanted),
            Choice::Cuda(0) => Ok(Opened::alone(Box::new(Cuda::new(Cuda::number_of_rank(place)?)?))),
            Choice::Cuda(_) => Err(DeviceError::Unsupported(format!(
                "{self} is one GPU, and each rank takes one of its own\n  help: say cuda; CUDA_VISIBLE_DEVICES says which there are"
            ))),
            Choice::Auto => match Cuda::new(Cuda::number_of_rank(place)?) {
                Ok(cuda) => Ok(Opened::alone(Box::new(cuda))),
                Err(error) => open_cpu(wanted, Some(why_cpu(&error.to_string()))),
            },
        }
    }
}

/// The CPU, with why it is that where it was not asked for.
fn open_cpu(wanted: Option<usize>, note: Option<String>) -> Result<Opened, DeviceError> {
    let most = threads::available();
    let count = wanted.map_or(most, |wanted| wanted.min(most));
    let cpu = Cpu::new(CpuOptions { threads: Some(count), ..CpuOptions::default() })?;
    let warning = fewer_threads(wanted.unwrap_or(most), most, cpu.threads());
    Ok(Opened { device: Box::new(cpu), note, warning })
}

/// A machine, and what a user should know of it.
pub struct Opened {
    /// Open and ready for plans.
    pub device: Box<dyn Device>,
    /// Why `auto` comes to the CPU, if it does, in one line.
    pub note: Option<String>,
    /// Why there are fewer threads than were asked for, if there are, in one line.
    pub warning: Option<String>,
}

impl Opened {
    fn alone(device: Box<dyn Device>) -> Opened {
        Opened { device, note: None, warning: None }
    }
}

/// What a user is told whose GPU cannot be used.
fn why_cpu(error: &str) -> String {
    let mut note = format!("Running on the CPU: {}", error.lines().next().unwrap_or_default());
    // Who has a GPU wants to know what it lacks.
    if has_driver()
        && let Some((_, help)) = error.rsplit_once("\n  help: ")
    {
        note.push_str(&format!("; {help}"));
    }
    note
}

/// What is said where there are fewer threads than were asked for.
fn fewer_threads(wanted: usize, most: usize, given: usize) -> Option<String> {
    if given < wanted.min(most) {
        let (given, wanted) = (count(given, "thread"), count(wanted.min(most), "thread"));
        return Some(format!(
            "Running on {given}: a limit of this process (ulimit -u or -v) refuses {wanted}"
        ));
    }
    (wanted > most).then(|| {
        format!(
            "running on {} instead of {wanted}: that is what this machine runs at once",
            count(given, "thread")
        )
    })
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

    #[test]
    fn no_more_threads_are_started_than_the_machine_runs() {
        let most = threads::available();
        for wanted in [most + 1, 8000, 1 << 32 | 1, 1_000_000_000_000_000_000, usize::MAX] {
            let opened = Choice::Cpu.open(Some(wanted)).expect("a CPU");
            assert_eq!(opened.device.threads(), most);
            let warning = opened.warning.expect("a warning");
            assert!(warning.contains(&format!("instead of {wanted}")), "{warning}");
        }
        for wanted in [Some(1), Some(most), None] {
            assert_eq!(Choice::Cpu.open(wanted).expect("a CPU").warning, None);
        }
        assert!(Choice::Cpu.open(Some(0)).is_err());
    }

    #[test]
    fn refused_threads_are_a_limit_of_the_process() {
        let note = fewer_threads(8, 4, 1).expect("fewer");
        assert!(note.contains("on 1 thread:") && note.contains("refuses 4 threads"), "{note}");
        assert_eq!(fewer_threads(2, 4, 2), None);
    }
}
