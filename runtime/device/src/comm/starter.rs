//! Starts ranks on this machine: finds the program that does, and the library that fits it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::mpi::{Family, Search, VARIABLE, file_names, fits, program_folders};
use super::{LAUNCHER_VARIABLE, Launcher};
use crate::threads;

/// Why no ranks can be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// There is none, or none with its library.
    #[error(
        "no MPI was found that starts ranks{0}\n  help: pip install mpich in an active Python environment, or apt-get install openmpi-bin"
    )]
    Nothing(String),
    /// What was found does not start.
    #[error("cannot start {program}: {message}")]
    Program {
        /// The starter's file.
        program: String,
        /// What the system says.
        message: String,
    },
}

/// A program that starts ranks, with a library of the same MPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starter {
    /// `mpiexec`
    pub program: PathBuf,
    /// Whose it is.
    pub launcher: Launcher,
    /// The library's file, or its bare name where the system finds it.
    pub library: PathBuf,
}

impl Starter {
    /// The first one of active Python environments and of the search path whose library opens.
    ///
    /// # Errors
    /// [`StartError::Nothing`] with what was found, and why it does not do.
    pub fn find() -> Result<Starter, StartError> {
        let explicit = Search::of_process().explicit;
        let mut found = String::new();
        let mut seen: Vec<PathBuf> = vec![];
        for folder in program_folders() {
            let program = folder.join("mpiexec");
            if seen.contains(&program) {
                continue;
            }
            seen.push(program.clone());
            let shown = program.display();
            let Some(launcher) = kind(&program) else {
                found.push_str(&format!("\n  {shown}: neither Open MPI's nor of MPICH's kind"));
                continue;
            };
            // Its own library first, wherever else there is one.
            let own = program.canonicalize().ok().and_then(|real| Some(real.parent()?.to_path_buf()));
            let mut programs: Vec<PathBuf> = program.parent().map(Path::to_path_buf).into_iter().collect();
            programs.extend(own);
            let search = Search { explicit: explicit.clone(), programs };
            let candidates = search.candidates(&file_names(launcher));
            let families: &[Family] = match launcher {
                Launcher::OpenMpi => &[Family::OpenMpi],
                _ => &[Family::Mpich, Family::Standard],
            };
            let fit = candidates.into_iter().find(|path| families.iter().any(|family| fits(path, *family)));
            match fit {
                Some(library) => return Ok(Starter { program, launcher, library }),
                None => {
                    let names = file_names(launcher).join(" or ");
                    found.push_str(&format!(
                        "\n  {shown}: no {names} that opens beside it or where the system looks"
                    ));
                }
            }
        }
        Err(StartError::Nothing(found))
    }

    /// The command that runs `program` with `arguments` as so many ranks.
    ///
    /// Ranks may be more than cores, and run on any of them: an MPI that binds each to a core would leave the others idle.
    pub fn command(&self, ranks: usize, program: &Path, arguments: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        match self.launcher {
            Launcher::OpenMpi => {
                command.args(["--bind-to", "none"]);
                // Versions 4 and 5 read one each.
                command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
                command.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
                if is_root() {
                    // Who runs linc as root, as in containers, wants its ranks so.
                    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
                }
            }
            Launcher::Mpich | Launcher::Torchrun | Launcher::Slurm => {}
        }
        command.arg("-n").arg(ranks.to_string()).arg(program).args(arguments);
        command.env(VARIABLE, &self.library);
        // Where it says none, that was of the process that starts them: each of them would be alone.
        command.env_remove(LAUNCHER_VARIABLE);
        command
    }

    /// A line for people, where so many ranks are more than the machine runs at once.
    pub fn warning(ranks: usize) -> Option<String> {
        let cores = threads::available();
        (ranks > cores).then(|| {
            format!("{ranks} ranks share {}, and wait for each other", crate::words::count(cores, "core"))
        })
    }
}

/// Whose `mpiexec` it is, by what it says of itself.
fn kind(program: &Path) -> Option<Launcher> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    kind_of(&said)
}

fn kind_of(said: &str) -> Option<Launcher> {
    let has = |word: &str| said.contains(word);
    if has("Open MPI") || has("OpenRTE") || has("PRRTE") {
        return Some(Launcher::OpenMpi);
    }
    (has("HYDRA") || has("Intel(R) MPI") || has("MPICH")).then_some(Launcher::Mpich)
}

#[cfg(unix)]
fn is_root() -> bool {
    // SAFETY: it asks for a number.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Becomes a command, so that signals and exit codes are its own; where a process cannot, waits for it. The exit code, if there is one to give.
///
/// # Errors
/// [`StartError::Program`] with what the system says.
pub fn become_command(mut command: Command) -> Result<u8, StartError> {
    #[cfg(unix)]
    let result: Result<u8, std::io::Error> = Err(std::os::unix::process::CommandExt::exec(&mut command));
    #[cfg(not(unix))]
    let result =
        command.status().map(|status| status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
    result.map_err(|error| StartError::Program {
        program: command.get_program().to_string_lossy().into_owned(),
        message: crate::words::reason(&error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starters_are_known_by_their_versions() {
        for (said, expected) in [
            ("HYDRA build details:\n    Version: 5.0.2\n", Some(Launcher::Mpich)),
            ("Intel(R) MPI Library for Linux* OS, Version 2021.11", Some(Launcher::Mpich)),
            ("mpiexec (Open MPI) 5.0.11\n\nReport bugs to ..", Some(Launcher::OpenMpi)),
            ("mpiexec (OpenRTE) 4.1.4\n", Some(Launcher::OpenMpi)),
            ("usage: mpiexec", None),
        ] {
            assert_eq!(kind_of(said), expected, "{said}");
        }
    }

    #[test]
    fn a_starter_is_told_ranks_command_and_library() {
        let starter = |launcher| Starter {
            program: "x/bin/mpiexec".into(),
            launcher,
            library: "x/lib/libmpi.so.12".into(),
        };
        let words = |command: &Command| {
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let arguments = ["bench", "exchange"].map(OsString::from);
        let command = starter(Launcher::Mpich).command(3, Path::new("linc"), &arguments);
        assert_eq!(words(&command), "-n 3 linc bench exchange");
        let library = command.get_envs().find(|(name, _)| *name == VARIABLE).and_then(|(_, value)| value);
        assert_eq!(library, Some("x/lib/libmpi.so.12".as_ref()));
        let removed = command.get_envs().any(|(name, value)| name == LAUNCHER_VARIABLE && value.is_none());
        assert!(removed, "each rank would be told that it is alone");
        let command = starter(Launcher::OpenMpi).command(3, Path::new("linc"), &arguments);
        assert_eq!(words(&command), "--bind-to none -n 3 linc bench exchange");
    }
}
