//! What goes wrong among ranks, with the ranks at fault.

use std::time::Duration;

use super::place::Launcher;

/// Why ranks cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommError {
    /// The deadline of an exchange has passed.
    #[error(
        "rank {rank} waits for {} in {label} of {group}, since {} seconds\n  help: look at what {} did last; where an exchange may take longer, raise {option}",
        ranks(missing), timeout.as_secs_f64(), if missing.len() == 1 { "it" } else { "they" }
    )]
    Missing {
        /// Who waits.
        rank: usize,
        /// What it is part of, such as the step.
        label: String,
        /// Its members.
        group: String,
        /// Those whose messages have not come.
        missing: Vec<usize>,
        /// What it may take.
        timeout: Duration,
        /// What sets that.
        option: &'static str,
    },
    /// The deadline of an exchange has passed, although all ranks wait in it.
    #[error(
        "rank {rank} waits in {label} of {group}, since {} seconds, and so do all others\n  help: what connects them does not carry it (NCCL_DEBUG=INFO has NCCL say what it does); where an exchange may take longer, raise {option}",
        timeout.as_secs_f64()
    )]
    Stuck {
        /// Who waits.
        rank: usize,
        /// What it is part of, such as the step.
        label: String,
        /// Its members.
        group: String,
        /// What it may take.
        timeout: Duration,
        /// What sets that.
        option: &'static str,
    },
    /// A call of the library has not come back.
    #[error(
        "rank {rank} of {world}: {action} has not come back within {} seconds\n  help: see whether all {world} ranks have started and run the same command",
        timeout.as_secs_f64()
    )]
    Blocked {
        /// Who waits.
        rank: usize,
        /// How many there should be.
        world: usize,
        /// The name of the call.
        action: &'static str,
        /// What it may take.
        timeout: Duration,
    },
    /// Another rank has failed, and told the reason.
    #[error("rank {by} has ended all ranks: {message}")]
    Aborted {
        /// The one that failed.
        by: usize,
        /// Its error.
        message: String,
    },
    /// Another rank has ended while it was waited for.
    #[error("rank {rank} waits for rank {gone} in {label}, which has ended")]
    Gone {
        /// Who waits.
        rank: usize,
        /// Who ended.
        gone: usize,
        /// What it is part of.
        label: String,
    },
    /// Ranks that do not run the same exchange.
    #[error(
        "rank {rank} got {found} from rank {from} in {label}, expected {expected}: they do not run the same exchange"
    )]
    Length {
        /// Who received.
        rank: usize,
        /// Who sent.
        from: usize,
        /// What it is part of.
        label: String,
        /// Bytes that should come, in words.
        expected: String,
        /// What came, in words.
        found: String,
    },
    /// What the library says of a call.
    #[error("rank {rank}: {action}: {message}")]
    Call {
        /// Whose call.
        rank: usize,
        /// The name of the function, or what it was for.
        action: String,
        /// The library's words.
        message: String,
    },
    /// Ranks that were started with different things.
    #[error(
        "the ranks do not do the same: {0}\n  help: start all ranks with one program, one command, one config and the same files"
    )]
    Differ(String),
    /// A group that cannot be.
    #[error("{0}")]
    Group(String),
    /// No library was found.
    #[error(
        "{launcher} has started this rank, but no MPI library that fits it opens:{looked}\n  help: name its file or folder with LINC_MPI, or start with linc launch, which finds both"
    )]
    NoLibrary {
        /// In words.
        launcher: &'static str,
        /// Lines of the places, and what is wrong there.
        looked: String,
    },
    /// The library is another MPI's than the launcher.
    #[error(
        "{} is of {library}, but this rank was started by {launcher}: each would run alone\n  help: start with the mpiexec of the same MPI, or name a library of the launcher's with LINC_MPI; linc launch finds both",
        path
    )]
    OtherLibrary {
        /// Its file.
        path: String,
        /// The family of MPIs that it is of.
        library: &'static str,
        /// In words.
        launcher: &'static str,
    },
    /// The library knows of other ranks than the environment.
    #[error(
        "{path} says rank {rank} of {size}, but {launcher} says rank {expected_rank} of {expected}\n  help: start with the mpiexec of the same MPI, or name a library of the launcher's with LINC_MPI; linc launch finds both"
    )]
    OtherWorld {
        /// The library's file.
        path: String,
        /// The library's rank.
        rank: usize,
        /// The library's number of ranks.
        size: usize,
        /// In words.
        launcher: &'static str,
        /// The launcher's rank.
        expected_rank: usize,
        /// The launcher's number of ranks.
        expected: usize,
    },
    /// SLURM without what MPI needs of it.
    #[error(
        "srun has started {world} ranks without PMIx, so that each MPI process would run alone\n  help: srun --mpi=pmix .., or mpirun inside of salloc or sbatch (srun --mpi=list says what there is)"
    )]
    NoPmix {
        /// How many there should be.
        world: usize,
    },
    /// Ranks that are to meet at an address, and do not.
    #[error(
        "{0}\n  help: torchrun sets MASTER_ADDR and MASTER_PORT; all ranks must reach that address, at its port or one of the 15 behind it"
    )]
    Meeting(String),
}

impl CommError {
    /// Of an exchange of this name: backends do not know it.
    pub(super) fn in_exchange(mut self, name: &str) -> CommError {
        match &mut self {
            CommError::Gone { label, .. } | CommError::Length { label, .. } => name.clone_into(label),
            CommError::Call { action, .. } => *action = format!("{name}: {action}"),
            _ => {}
        }
        self
    }
}

impl Launcher {
    /// The launcher, as the subject of a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Launcher::OpenMpi => "Open MPI's mpirun",
            Launcher::Mpich => "an mpiexec of MPICH's kind",
            Launcher::Torchrun => "torchrun",
            Launcher::Slurm => "srun",
        }
    }
}

/// `rank 3`, `ranks 0, 2 and 5`, or the first of many.
pub(super) fn ranks(ranks: &[usize]) -> String {
    const MOST: usize = 8;
    let shown: Vec<String> = ranks.iter().take(MOST).map(usize::to_string).collect();
    match (shown.as_slice(), ranks.len().saturating_sub(MOST)) {
        ([], _) => "no rank".into(),
        ([one], _) => format!("rank {one}"),
        ([first @ .., last], 0) => format!("ranks {} and {last}", first.join(", ")),
        (shown, more) => format!("ranks {} and {more} more", shown.join(", ")),
    }
}
