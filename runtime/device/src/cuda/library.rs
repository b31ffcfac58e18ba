//! Finds and opens NVIDIA's libraries: in a place that the user names, where the system looks, in a CUDA toolkit, or in
//! the pip package of an active Python environment.
//!
//! Nothing is started and nothing is downloaded. A library that stays open by its full path also answers to its bare
//! name later, which is how crates that look for bare names find what is found here.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use libloading::Library;

/// A library of NVIDIA's, and where its files are found.
pub(super) struct LibrarySpec {
    /// Name without prefix and suffix, `nvrtc`.
    pub(super) name: &'static str,
    /// Environment variable that names its file or folder.
    pub(super) variable: &'static str,
    /// Major versions that are used, newest first.
    pub(super) majors: &'static [u32],
    /// Folders below `site-packages/nvidia` that pip packages put it in, newest first.
    pub(super) pip_folders: &'static [&'static str],
    /// What to install to get it.
    pub(super) remedy: &'static str,
    /// Libraries that it opens by bare name from its own folder: the beginnings of their file names.
    pub(super) companions: &'static [&'static str],
}

/// Major versions of CUDA, by which its own libraries are named.
pub(super) const CUDA_MAJORS: &[u32] = &[13, 12];

/// Where to look, as the environment says.
#[derive(Debug, Default, Clone)]
pub(super) struct SearchPaths {
    /// The user's file or folder; nothing else is tried then.
    pub(super) explicit: Option<PathBuf>,
    /// Roots of CUDA toolkits.
    pub(super) toolkits: Vec<PathBuf>,
    /// Roots of Python environments.
    pub(super) environments: Vec<PathBuf>,
}

impl SearchPaths {
    /// As the environment of this process says.
    pub(super) fn of_environment(spec: &LibrarySpec) -> SearchPaths {
        let path = |name: &str| -> Option<PathBuf> {
            std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
        };
        let mut toolkits: Vec<PathBuf> = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|n| path(n)).collect();
        toolkits.push("/usr/local/cuda".into());
        SearchPaths {
            explicit: path(spec.variable),
            toolkits,
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|n| path(n)).collect(),
        }
    }

    /// Files to try, in order. A bare name means that the system looks for it.
    pub(super) fn candidates(&self, spec: &LibrarySpec) -> Vec<PathBuf> {
        let names = file_names(spec.name, spec.majors);
        let inside = |folder: &Path| names.iter().map(|name| folder.join(name)).collect::<Vec<_>>();
        if let Some(explicit) = &self.explicit {
            return if explicit.is_dir() { inside(explicit) } else { vec![explicit.clone()] };
        }
        let mut found: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        found.extend(self.toolkits.iter().flat_map(|root| inside(&root.join("lib64"))));
        for root in &self.environments {
            found.extend(inside(&root.join("lib")));
            for packages in site_packages(root) {
                let nvidia = packages.join("nvidia");
                found.extend(spec.pip_folders.iter().flat_map(|f| inside(&nvidia.join(f).join("lib"))));
            }
        }
        found
    }
}

/// `libnvrtc.so.13`, `libnvrtc.so.12`, `libnvrtc.so`: a name with a version first, since the bare one may be anything.
fn file_names(name: &str, majors: &[u32]) -> Vec<String> {
    let bare = libloading::library_filename(name).to_string_lossy().into_owned();
    majors.iter().map(|major| format!("{bare}.{major}")).chain([bare.clone()]).collect()
}

/// The `lib/python3.N/site-packages` folders of a Python environment, in the order of their names.
fn site_packages(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join("lib")) else { return vec![] };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python")))
        .map(|path| path.join("site-packages"))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

/// An open library with the place it was found in.
pub(super) struct OpenLibrary {
    pub(super) library: Library,
    pub(super) path: PathBuf,
    /// What it opens by bare name: kept open so that it is found.
    _companions: Vec<Library>,
}

/// Opens the first candidate that is there.
///
/// # Errors
/// A text for people: where it was looked for, why what was there did not open, and what to install.
pub(super) fn open(spec: &LibrarySpec, paths: &SearchPaths) -> Result<OpenLibrary, String> {
    let mut looked = String::new();
    for path in paths.candidates(spec) {
        let by_path = path.components().count() > 1;
        if by_path && !path.is_file() {
            let _ = write!(looked, "\n    {}: no such file", path.display());
            continue;
        }
        // Opened first: the library asks for them by bare name, and where it lies is no place the system looks in.
        let companions =
            if by_path { companions(path.parent().unwrap_or(&path), spec.companions) } else { vec![] };
        match load(&path) {
            Ok(library) => return Ok(OpenLibrary { library, path, _companions: companions }),
            Err(_) if !by_path => {
                let _ = write!(looked, "\n    {}: not where the system looks", path.display());
            }
            Err(error) => {
                let _ = write!(looked, "\n    {}: {error}", path.display());
            }
        }
    }
    let LibrarySpec { name, variable, remedy, .. } = spec;
    let file = libloading::library_filename(name).to_string_lossy().into_owned();
    Err(format!(
        "{file} was not found\n  looked for{looked}\n  help: {remedy}, activate that Python environment, or set {variable} to the library or its folder"
    ))
}

/// The files of a folder whose names begin in one of these ways, opened.
fn companions(folder: &Path, beginnings: &[&str]) -> Vec<Library> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.retain(|path| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        beginnings.iter().any(|beginning| name.starts_with(beginning))
    });
    paths.iter().filter_map(|path| load(path).ok()).collect()
}

fn load(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: the initialisers of NVIDIA's libraries have no requirements; that the file of this name is such a library
    // is the promise of whoever installed it.
    unsafe { Library::new(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: LibrarySpec = LibrarySpec {
        name: "nvrtc",
        variable: "LINC_NVRTC",
        majors: CUDA_MAJORS,
        pip_folders: &["cu13", "cuda_nvrtc"],
        remedy: "pip install nvidia-cuda-nvrtc",
        companions: &[],
    };

    #[test]
    fn places_are_tried_in_order() {
        let root = tempfile::tempdir().expect("a folder");
        let packages = root.path().join("lib/python3.11/site-packages");
        std::fs::create_dir_all(&packages).expect("a folder");
        let paths = SearchPaths {
            explicit: None,
            toolkits: vec!["/cuda".into()],
            environments: vec![root.path().to_path_buf()],
        };
        let all = paths.candidates(&LIBRARY);
        let at = |path: PathBuf| all.iter().position(|p| *p == path).expect("a candidate");
        let name = file_names("nvrtc", CUDA_MAJORS)[0].clone();
        let order = [
            PathBuf::from(&name),
            Path::new("/cuda/lib64").join(&name),
            packages.join("nvidia/cu13/lib").join(&name),
            packages.join("nvidia/cuda_nvrtc/lib").join(&name),
        ]
        .map(at);
        assert!(order.is_sorted(), "{order:?} of {all:?}");
    }

    #[test]
    fn the_users_word_is_final() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths =
            |explicit: &Path| SearchPaths { explicit: Some(explicit.into()), ..SearchPaths::default() };
        assert_eq!(paths(folder.path()).candidates(&LIBRARY).len(), 3);
        let file = folder.path().join("mine.so");
        assert_eq!(paths(&file).candidates(&LIBRARY), std::slice::from_ref(&file));
        let Err(message) = open(&LIBRARY, &paths(&file)) else { panic!("nothing is there") };
        for expected in ["mine.so: no such file", "pip install nvidia-cuda-nvrtc", "LINC_NVRTC"] {
            assert!(message.contains(expected), "{message}");
        }
        std::fs::write(&file, "no library").expect("written");
        let Err(message) = open(&LIBRARY, &paths(&file)) else { panic!("it is no library") };
        assert!(message.contains("mine.so: "), "{message}");
    }
}
