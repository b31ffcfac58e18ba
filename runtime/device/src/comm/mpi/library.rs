//! Finds the MPI library that belongs to what has started this process.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use libloading::Library;

use crate::comm::Launcher;

/// Names a library's file, or its folder.
pub(crate) const VARIABLE: &str = "LINC_MPI";

/// Names of files that fit a launcher, the surest first. Names with a version: those without are links, or texts in the
/// place of links, for compilers.
pub(crate) fn file_names(launcher: Launcher) -> Vec<&'static str> {
    const OPEN_MPI: &str = "libmpi.so.40";
    const MPICH: [&str; 2] = ["libmpi.so.12", "libmpi_abi.so.1"];
    match launcher {
        Launcher::OpenMpi => vec![OPEN_MPI],
        Launcher::Mpich => MPICH.to_vec(),
        Launcher::Slurm | Launcher::Torchrun => vec![OPEN_MPI, MPICH[0], MPICH[1]],
    }
}

/// Where to look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// The user's file or folder; nothing else is tried then.
    pub(crate) explicit: Option<PathBuf>,
    /// Folders of programs, whose libraries are in `../lib`: of what has started this process, of Python environments, of
    /// the search path.
    pub(crate) programs: Vec<PathBuf>,
}

impl Search {
    /// As this process was started.
    pub(crate) fn of_process() -> Search {
        let programs = launcher_folder().into_iter().chain(program_folders()).collect();
        Search { explicit: variable(VARIABLE), programs }
    }

    /// Files to try, in order. A bare name means that the system looks for it.
    pub(crate) fn candidates(&self, names: &[&str]) -> Vec<PathBuf> {
        let inside = |folder: &Path| names.iter().map(|name| folder.join(name)).collect::<Vec<_>>();
        if let Some(explicit) = &self.explicit {
            return if explicit.is_dir() { inside(explicit) } else { vec![explicit.clone()] };
        }
        let mut found: Vec<PathBuf> = vec![];
        for folder in &self.programs {
            let Some(root) = folder.parent() else { continue };
            for candidate in ["lib", "lib64"].iter().flat_map(|lib| inside(&root.join(lib))) {
                if !found.contains(&candidate) {
                    found.push(candidate);
                }
            }
        }
        found.extend(names.iter().map(PathBuf::from));
        found
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Folders that may have a launcher: of active Python environments, and those of the search path that have one.
pub(crate) fn program_folders() -> Vec<PathBuf> {
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| variable(name));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    environments
        .map(|root| root.join("bin"))
        .chain(std::env::split_paths(&on_path))
        .filter(|folder| folder.join("mpiexec").exists())
        .collect()
}

/// The folder of the program that has started this one: a launcher's library lies beside it.
fn launcher_folder() -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        let parent = std::os::unix::process::parent_id();
        let program = std::fs::read_link(format!("/proc/{parent}/exe")).ok()?;
        program.parent().map(Path::to_path_buf)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Opens the first candidate that is there.
///
/// # Errors
/// A line for each place: that nothing is there, or why what is there does not open.
pub(crate) fn open(search: &Search, names: &[&str]) -> Result<(Library, PathBuf), String> {
    let mut looked = String::new();
    for candidate in search.candidates(names) {
        let is_bare = candidate.parent().is_none_or(|folder| folder.as_os_str().is_empty());
        if !is_bare && !candidate.exists() {
            // The lists of folders are long; of a file that was named it matters.
            if search.explicit.is_some() {
                let _ = write!(looked, "\n  {}: no such file", candidate.display());
            }
            continue;
        }
        // SAFETY: an MPI library runs the initialisers of it and its dependencies, which do not start it.
        match unsafe { Library::new(&candidate) } {
            Ok(library) => return Ok((library, candidate)),
            Err(error) => {
                let _ = write!(looked, "\n  {}: {error}", candidate.display());
            }
        }
    }
    Err(looked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launchers_own_library_comes_first_and_the_systems_last() {
        let search =
            Search { explicit: None, programs: vec!["a/bin".into(), "b/bin".into(), "a/bin".into()] };
        let found = search.candidates(&["x.so.1", "y.so"]);
        let expected = [
            "a/lib/x.so.1",
            "a/lib/y.so",
            "a/lib64/x.so.1",
            "a/lib64/y.so",
            "b/lib/x.so.1",
            "b/lib/y.so",
            "b/lib64/x.so.1",
            "b/lib64/y.so",
            "x.so.1",
            "y.so",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn the_users_word_is_final() {
        let folder = tempfile::tempdir().expect("a folder");
        let search =
            |explicit: &Path| Search { explicit: Some(explicit.into()), programs: vec!["a/bin".into()] };
        assert_eq!(search(folder.path()).candidates(&["x.so", "y.so"]).len(), 2);
        let file = folder.path().join("libmine.so");
        let Err(error) = open(&search(&file), &["x.so"]) else { panic!("nothing is there") };
        assert!(error.contains("libmine.so: no such file"), "{error}");
        std::fs::write(&file, "no library").expect("written");
        let Err(error) = open(&search(&file), &["x.so"]) else { panic!("it is no library") };
        assert!(error.contains("libmine.so: ") && !error.contains("no such file"), "{error}");
    }

    #[test]
    fn a_launcher_gets_no_library_of_another_mpi() {
        assert!(!file_names(Launcher::OpenMpi).contains(&"libmpi.so.12"));
        assert!(!file_names(Launcher::Mpich).contains(&"libmpi.so.40"));
    }
}
