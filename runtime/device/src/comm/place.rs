//! Where this process stands among those that a launcher started, as the environment says.

use std::fmt;

/// Says that what a launcher left in the environment does not count: `none`.
pub const LAUNCHER_VARIABLE: &str = "LINC_LAUNCHER";

/// A variable of the environment, if it is set and not empty.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What starts ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Open MPI's `mpirun`.
    OpenMpi,
    /// `mpiexec` of MPICH and what is derived of it: Intel MPI, MVAPICH, Cray; and `srun --mpi=pmi2`.
    Mpich,
    /// `torchrun`, and what sets its variables.
    Torchrun,
    /// `srun` of SLURM.
    Slurm,
}

/// One process among those that were started together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub rank: usize,
    /// Number of ranks; 1 without a launcher.
    pub world: usize,
    /// What has started it; nothing if it was started by itself.
    pub launcher: Option<Launcher>,
    /// Whether SLURM offers PMIx, by which MPI processes find each other.
    pub has_pmix: bool,
}

/// Variables that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlaceError(String);

/// Names of the variables of a launcher.
struct Variables {
    launcher: Launcher,
    rank: &'static str,
    world: &'static str,
    /// Without it the others are something else.
    sign: &'static str,
}

/// SLURM leaves `SLURM_PROCID` and `SLURM_NTASKS` in batch scripts, which are one process: only a step, which srun starts,
/// has a number of tasks of its own. `RANK` and `WORLD_SIZE` are names that others use as well.
const LAUNCHERS: [Variables; 4] = [
    Variables {
        launcher: Launcher::OpenMpi,
        rank: "OMPI_COMM_WORLD_RANK",
        world: "OMPI_COMM_WORLD_SIZE",
        sign: "",
    },
    Variables { launcher: Launcher::Mpich, rank: "PMI_RANK", world: "PMI_SIZE", sign: "" },
    Variables { launcher: Launcher::Torchrun, rank: "RANK", world: "WORLD_SIZE", sign: "MASTER_ADDR" },
    Variables {
        launcher: Launcher::Slurm,
        rank: "SLURM_PROCID",
        world: "SLURM_STEP_NUM_TASKS",
        sign: "SLURM_STEP_NUM_TASKS",
    },
];

impl Place {
    /// A process that nobody started together with others.
    pub const ALONE: Place = Place { rank: 0, world: 1, launcher: None, has_pmix: false };

    /// As the environment of this process says.
    ///
    /// # Errors
    /// As [`Place::of`].
    pub fn of_process() -> Result<Place, PlaceError> {
        Place::of(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As an environment says. Where MPI's launcher runs inside of a step of SLURM, MPI's counts.
    ///
    /// # Errors
    /// [`PlaceError`]: variables of a launcher that are missing, no numbers, or contradict each other or those of another.
    pub fn of(environment: &Environment<'_>) -> Result<Place, PlaceError> {
        match environment(LAUNCHER_VARIABLE).as_deref() {
            None => {}
            Some("none") => return Ok(Place::ALONE),
            Some(other) => {
                return Err(PlaceError(format!(
                    "{LAUNCHER_VARIABLE} is {other}; expected none, or nothing\n  help: none makes a run of its own of each process that a launcher starts"
                )));
            }
        }
        let mut found: Vec<(&Variables, Place)> = vec![];
        for variables in &LAUNCHERS {
            // A step of SLURM may have started the launcher of others, once a machine.
            if variables.launcher == Launcher::Slurm && !found.is_empty() {
                continue;
            }
            found.extend(variables.place(environment)?.map(|place| (variables, place)));
        }
        let Some((first, place)) = found.first() else { return Ok(Place::ALONE) };
        for (variables, other) in &found[1..] {
            if (other.rank, other.world) != (place.rank, place.world) {
                let says = |variables: &Variables, place: &Place| {
                    format!("{} = {}, {} = {}", variables.rank, place.rank, variables.world, place.world)
                };
                return Err(PlaceError(format!(
                    "two launchers contradict each other: {}, but {}\n  help: start linc with one of them; or leave out the variables of the other, as with env -u {} -u {} linc ..",
                    says(first, place),
                    says(variables, other),
                    variables.rank,
                    variables.world
                )));
            }
        }
        Ok(place.clone())
    }
}

impl Variables {
    /// What they say, if they are there.
    fn place(&self, environment: &Environment<'_>) -> Result<Option<Place>, PlaceError> {
        if !self.sign.is_empty() && environment(self.sign).is_none() {
            return Ok(None);
        }
        let number = |name: &str| match environment(name) {
            None => Ok(None),
            Some(text) => text.trim().parse::<usize>().map(Some).map_err(|_| {
                PlaceError(format!(
                    "{name} is {text}; expected a number\n  help: {} sets it; leave it out to start without",
                    self.launcher.name()
                ))
            }),
        };
        let (rank, world) = match (number(self.rank)?, number(self.world)?) {
            (None, None) => return Ok(None),
            (Some(rank), Some(world)) => (rank, world),
            (rank, _) => {
                let (set, unset) =
                    if rank.is_some() { (self.rank, self.world) } else { (self.world, self.rank) };
                return Err(PlaceError(format!(
                    "{set} is set, but {unset} is not\n  help: {} sets both; leave out both to start without it",
                    self.launcher.name()
                )));
            }
        };
        if rank >= world {
            return Err(PlaceError(format!(
                "{} is {rank}, but {} is {world}; expected a rank from 0 to {}\n  help: {} sets both; leave out both to start without it",
                self.rank,
                self.world,
                world.saturating_sub(1),
                self.launcher.name()
            )));
        }
        let launcher = Some(self.launcher);
        let has_pmix = environment("PMIX_RANK").is_some();
        Ok(Some(Place { rank, world, launcher, has_pmix }))
    }
}

impl fmt::Display for Place {
    /// `rank 1 of 4, started by srun`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.world)?;
        self.launcher.map_or(Ok(()), |launcher| write!(f, ", started by {}", launcher.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(environment: &str) -> Result<Place, PlaceError> {
        let variables: Vec<(&str, &str)> =
            environment.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        Place::of(&|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn each_launcher_says_it_in_its_own_words() {
        use Launcher::{Mpich, OpenMpi, Slurm, Torchrun};
        let open = "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4";
        let mpich = "PMI_RANK=0 PMI_SIZE=2";
        let torch = "RANK=5 WORLD_SIZE=8 MASTER_ADDR=10.0.0.1";
        let slurm = "SLURM_PROCID=2 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4";
        let batch = "SLURM_PROCID=0 SLURM_NTASKS=4";
        // Kubernetes names services in this form; nothing here uses a port, a machine or a place on it.
        let pod = "RANK=0 WORLD_SIZE=1 MASTER_ADDR=10.0.0.1 MASTER_PORT=tcp://10.0.0.1:29500 LOCAL_RANK=auto";
        let cases = [
            (String::new(), None, (0, 1)),
            (open.to_owned(), Some(OpenMpi), (3, 4)),
            (mpich.to_owned(), Some(Mpich), (0, 2)),
            ("PMI_RANK=1 PMI_SIZE=2".to_owned(), Some(Mpich), (1, 2)),
            (torch.to_owned(), Some(Torchrun), (5, 8)),
            (slurm.to_owned(), Some(Slurm), (2, 4)),
            (pod.to_owned(), Some(Torchrun), (0, 1)),
            // A script of sbatch is one process, whatever its step will have.
            (batch.to_owned(), None, (0, 1)),
            // A launcher that SLURM has started once a machine.
            (format!("{open} {}", slurm.replace("TASKS=4", "TASKS=2")), Some(OpenMpi), (3, 4)),
            (format!("{torch} SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1"), Some(Torchrun), (5, 8)),
            // Scripts that hand MPI's numbers on in torchrun's words.
            (format!("{open} RANK=3 WORLD_SIZE=4 MASTER_ADDR=a"), Some(OpenMpi), (3, 4)),
            // Not torchrun's: the names of somebody else.
            ("RANK=7 WORLD_SIZE=2".to_owned(), None, (0, 1)),
            ("WORLD_SIZE=many".to_owned(), None, (0, 1)),
            (format!("{open} LINC_LAUNCHER=none"), None, (0, 1)),
        ];
        for (environment, launcher, (rank, world)) in cases {
            let place = of(&environment).unwrap_or_else(|error| panic!("{environment}: {error}"));
            assert_eq!((place.launcher, place.rank, place.world), (launcher, rank, world), "{environment}");
        }
        assert!(!of(slurm).expect("a place").has_pmix);
        assert!(of(&format!("{slurm} PMIX_RANK=2")).expect("a place").has_pmix);
        assert_eq!(of(open).expect("a place").to_string(), "rank 3 of 4, started by Open MPI's mpirun");
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let cases: [(&str, &[&str]); 8] = [
            ("PMI_RANK=1", &["PMI_RANK is set, but PMI_SIZE is not", "help: "]),
            ("PMI_SIZE=2", &["PMI_SIZE is set, but PMI_RANK is not"]),
            ("PMI_RANK=2 PMI_SIZE=2", &["PMI_RANK is 2", "PMI_SIZE is 2", "from 0 to 1"]),
            ("PMI_RANK=0 PMI_SIZE=0", &["PMI_SIZE is 0"]),
            ("OMPI_COMM_WORLD_RANK=-1 OMPI_COMM_WORLD_SIZE=2", &["OMPI_COMM_WORLD_RANK is -1", "a number"]),
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 PMI_RANK=0 PMI_SIZE=1",
                &["OMPI_COMM_WORLD_RANK = 1", "PMI_SIZE = 1", "env -u PMI_RANK -u PMI_SIZE"],
            ),
            ("RANK=1 MASTER_ADDR=a", &["RANK is set, but WORLD_SIZE is not", "torchrun"]),
            ("LINC_LAUNCHER=mpich", &["LINC_LAUNCHER is mpich", "expected none"]),
        ];
        for (environment, expected) in cases {
            let error = of(environment).expect_err(environment).to_string();
            assert!(expected.iter().all(|word| error.contains(word)), "{environment}: {error}");
        }
    }
}
