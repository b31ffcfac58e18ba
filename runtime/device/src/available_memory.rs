//! How much memory there is to be had, and who says so: a limit is called by its name, since only that says what to do.

use std::fmt;

use crate::DeviceError;
use crate::allocator::refusable;
use crate::cpu::available;
use crate::words::bytes;

/// What this process can have of the machine's memory, if the system says so.
pub fn of_machine() -> Option<Available> {
    available()
}

/// Bytes that can be allocated now, and what sets the bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Available {
    /// Bytes that are free below the bound.
    pub bytes: u64,
    /// What they are a part of.
    pub source: MemorySource,
}

/// What memory is taken from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemorySource {
    /// The machine's memory.
    Machine,
    /// The memory of a GPU.
    Gpu,
    /// What a limit of the system allows.
    Limit(Limit),
    /// What so many ranks share, each of which may take as much as the others.
    Share(usize, Box<Available>),
}

/// A limit on the memory of this process, or of what it is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Bytes that it allows.
    pub bytes: u64,
    /// Who set it.
    pub kind: LimitKind,
}

/// Who limits memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LimitKind {
    /// A shell's `ulimit` with this letter: `v` for the address space, `d` for data.
    Process(char),
    /// A control group, with its path: of a container, a service or a batch system.
    Group(String),
    /// The Slurm job.
    Slurm,
}

impl Available {
    /// What to do where more is needed; nothing where only a smaller need helps.
    pub fn help(&self) -> Option<String> {
        match &self.source {
            MemorySource::Machine | MemorySource::Gpu => None,
            MemorySource::Share(_, whole) => whole.help(),
            MemorySource::Limit(limit) => Some(match limit.kind {
                LimitKind::Process(letter) => {
                    format!("raise the limit of the shell that starts linc: ulimit -{letter} unlimited")
                }
                LimitKind::Group(_) => "give the container or service that linc runs in more memory".into(),
                LimitKind::Slurm => "ask Slurm for more memory: --mem".into(),
            }),
        }
    }

    /// What each of so many ranks on a machine may take. A limit of the process is each rank's own.
    pub(crate) fn share(self, ranks: usize) -> Available {
        let is_own = matches!(self.source, MemorySource::Limit(Limit { kind: LimitKind::Process(_), .. }));
        if ranks <= 1 || is_own {
            return self;
        }
        let bytes = self.bytes / ranks as u64;
        Available { bytes, source: MemorySource::Share(ranks, Box::new(self)) }
    }

    /// The smaller of two.
    pub(crate) fn min(self, other: Option<Available>) -> Available {
        match other {
            Some(other) if other.bytes < self.bytes => other,
            Some(_) | None => self,
        }
    }
}

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = bytes(self.bytes);
        match &self.source {
            MemorySource::Machine => write!(f, "{left} of the machine's memory are free"),
            MemorySource::Gpu => write!(f, "{left} of the GPU's memory are free"),
            MemorySource::Share(ranks, whole) => {
                write!(f, "{left} are the share of each of {ranks} ranks on this machine: {whole}")
            }
            MemorySource::Limit(Limit { bytes: limit, kind }) => {
                write!(f, "{left} are left of the {} that ", bytes(*limit))?;
                match kind {
                    LimitKind::Process(letter) => {
                        write!(f, "a limit of this process allows (ulimit -{letter})")
                    }
                    LimitKind::Group(path) => write!(f, "the control group {path} allows (memory limit)"),
                    LimitKind::Slurm => f.write_str("the Slurm job may use"),
                }
            }
        }
    }
}

/// What is said where memory does not suffice: whose it is, and what to do about that. It may be that the system refuses
/// less than it says to have, such as a block that no gap of the address space holds.
pub fn shortage(needed: u64, available: Option<&Available>) -> String {
    let mut text = format!("{} of memory are needed, ", bytes(needed));
    let Some(available) = available else {
        text.push_str("and the system refuses them");
        return text;
    };
    match available.bytes < needed {
        true => text.push_str(&format!("and {available}")),
        false => text.push_str(&format!("and the system refuses them, though {available}")),
    }
    if let Some(help) = available.help() {
        text.push_str(&format!("\n  help: {help}"));
    }
    text
}

/// As [`shortage`], where nobody else says what needs less.
pub fn out_of_memory(needed: u64, available: Option<&Available>) -> String {
    let mut text = shortage(needed, available);
    if available.and_then(Available::help).is_none() {
        text.push_str(
            "\n  help: end other programs, or ask for less: a smaller model, batch, sequence or context",
        );
    }
    text
}

/// A vector of `len` elements, or why there is no memory for it.
///
/// # Errors
/// [`DeviceError::OutOfMemory`].
pub fn zeroed<T: Clone + Default>(len: usize) -> Result<Vec<T>, DeviceError> {
    let mut values = vec![];
    let needed = len.saturating_mul(size_of::<T>()) as u64;
    refusable(|| values.try_reserve_exact(len))
        .map_err(|_| DeviceError::OutOfMemory { needed, available: available() })?;
    values.resize(len, T::default());
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_shortage_names_the_limit_and_the_way_out() {
        let limit =
            |kind| Available { bytes: GIB, source: MemorySource::Limit(Limit { bytes: 3 * GIB, kind }) };
        let text = shortage(2 * GIB, Some(&limit(LimitKind::Process('v'))));
        assert_eq!(
            text,
            "2.00 GiB of memory are needed, and 1.00 GiB are left of the 3.00 GiB that a limit of this process allows \
             (ulimit -v)\n  help: raise the limit of the shell that starts linc: ulimit -v unlimited"
        );
        let text = shortage(2 * GIB, Some(&limit(LimitKind::Group("/box".into()))));
        assert!(text.contains("control group /box") && text.contains("container"), "{text}");
        let text = shortage(2 * GIB, Some(&limit(LimitKind::Slurm)));
        assert!(text.contains("Slurm") && text.contains("--mem"), "{text}");
        let free = Available { bytes: 5 << 20, source: MemorySource::Machine };
        assert_eq!(
            shortage(6 << 20, Some(&free)),
            "6.00 MiB of memory are needed, and 5.00 MiB of the machine's memory are free"
        );
    }

    #[test]
    fn a_refusal_does_not_contradict_itself() {
        let enough = Available { bytes: 3 * GIB, source: MemorySource::Machine };
        let text = shortage(2 * GIB, Some(&enough));
        assert!(text.contains("refuses them, though 3.00 GiB"), "{text}");
        assert_eq!(shortage(GIB, None), "1.00 GiB of memory are needed, and the system refuses them");
    }

    #[test]
    fn every_shortage_says_what_to_do() {
        let free = Available { bytes: 5, source: MemorySource::Machine };
        for available in [None, Some(&free)] {
            assert!(out_of_memory(6, available).contains("\n  help: end other programs"));
        }
        let limit = Limit { bytes: 9, kind: LimitKind::Process('v') };
        let text = out_of_memory(6, Some(&Available { bytes: 5, source: MemorySource::Limit(limit) }));
        assert!(text.starts_with("6 B of memory are needed, and 5 B are left of the 9 B that"), "{text}");
        assert_eq!(text.matches("help: ").count(), 1, "{text}");
    }

    #[test]
    fn vectors_are_refused_without_a_panic() {
        assert_eq!(zeroed::<u64>(3).map(|v| v.len()), Ok(3));
        for len in [usize::MAX, usize::MAX / 16] {
            assert!(zeroed::<u64>(len).is_err());
        }
    }

    #[test]
    fn ranks_share_a_machine_but_not_the_limits_of_a_process() {
        let of = |source| Available { bytes: 12 << 30, source };
        let machine = of(MemorySource::Machine).share(3);
        assert_eq!(machine.bytes, 4 << 30);
        assert_eq!(
            machine.to_string(),
            "4.00 GiB are the share of each of 3 ranks on this machine: 12.00 GiB of the machine's memory are free"
        );
        let limit = |kind| of(MemorySource::Limit(Limit { bytes: 16 << 30, kind }));
        assert_eq!(limit(LimitKind::Process('v')).share(3).bytes, 12 << 30);
        let group = limit(LimitKind::Slurm).share(2);
        assert_eq!((group.bytes, group.help()), (6 << 30, limit(LimitKind::Slurm).help()));
        assert_eq!(of(MemorySource::Machine).share(1), of(MemorySource::Machine));
    }
}
