//! From kernels to a program that runs them: the host's C++ compiler, and what it makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use linc_codegen_cuda::{COMMON_PRELUDE, CudaKernel};

use crate::cache::{Cache, digest, system};
use crate::error::Error;

/// The sources in `host/`, as they were when this crate was compiled.
const HOST: [(&str, &str); 12] = [
    ("interface.h", include_str!("../host/interface.h")),
    ("emulator.h", include_str!("../host/emulator.h")),
    ("fault.h", include_str!("../host/fault.h")),
    ("fibers.h", include_str!("../host/fibers.h")),
    ("schedule.h", include_str!("../host/schedule.h")),
    ("traffic.h", include_str!("../host/traffic.h")),
    ("memory.h", include_str!("../host/memory.h")),
    ("clocks.h", include_str!("../host/clocks.h")),
    ("mbarrier.h", include_str!("../host/mbarrier.h")),
    ("warpgroup.h", include_str!("../host/warpgroup.h")),
    ("device.h", include_str!("../host/device.h")),
    ("runtime.cpp", include_str!("../host/runtime.cpp")),
];

/// Of kernels and runtime. No contraction to fused multiply-adds: a kernel that wants one says `fmaf`. No tail calls:
/// they hide the place that a call comes from.
const FLAGS: [&str; 8] = [
    "-std=c++17",
    "-fno-exceptions",
    "-fno-rtti",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-optimize-sibling-calls",
    "-w",
    "-c",
];
/// Of kernels: most run for less time than a compiler needs to make them fast.
const KERNEL_OPTIMISATION: &str = "-O0";
const RUNTIME_OPTIMISATION: &str = "-O3";

/// Bytes of kernels' texts in one translation unit. A compiler that is started for each of hundreds of kernels costs as
/// much as what it does; a large unit keeps one job waiting for the other.
const UNIT_BYTES: usize = 300 << 10;

/// Compilers that run at once, over all threads of the process.
const JOBS: usize = 2;

/// A C++ compiler of this machine, and what it has made before.
#[derive(Clone, Debug)]
pub struct Emulator {
    /// Program and arguments.
    compiler: Vec<String>,
    /// What the compiler says of itself.
    version: String,
    cache: Cache,
}

/// A program with kernels in it.
#[derive(Clone, Debug)]
pub struct Built {
    pub(crate) program: PathBuf,
    /// With the key by which the program knows each.
    pub(crate) kernels: Vec<(String, CudaKernel)>,
}

/// The text of a kernel as it is compiled.
struct Source<'k> {
    key: String,
    name: &'k str,
    text: String,
}

impl Emulator {
    /// The emulator, with the compiler `$CXX`, c++, g++ or clang++, the first there is. Where there is none, or no
    /// Unix, it says so on standard error and returns nothing: a test then skips.
    ///
    /// # Panics
    /// If there is none and `CI` is set: there, tests must not skip.
    pub fn find() -> Option<Emulator> {
        if cfg!(not(unix)) {
            eprintln!("skipped: the emulator of CUDA kernels needs a Unix system");
            return None;
        }
        let chosen = std::env::var("CXX").unwrap_or_default();
        let candidates = [chosen.as_str(), "c++", "g++", "clang++"];
        let found = candidates.iter().find_map(|candidate| {
            let compiler: Vec<String> = candidate.split_whitespace().map(str::to_string).collect();
            let version = version(&compiler)?;
            Some((compiler, version))
        });
        let Some((compiler, version)) = found else {
            assert!(std::env::var_os("CI").is_none(), "there is no C++ compiler, which CI has to have");
            eprintln!(
                "skipped: no C++ compiler found ($CXX, c++, g++, clang++) to emulate CUDA kernels with"
            );
            return None;
        };
        match Cache::open() {
            Ok(cache) => Some(Emulator { compiler, version, cache }),
            Err(error) => {
                eprintln!("skipped: no folder for what the emulator of CUDA kernels compiles: {error}");
                None
            }
        }
    }

    /// Compiles kernels into one program. They may have equal names. What was compiled before is taken from the cache,
    /// also for a kernel that differs in its name and comments only.
    ///
    /// # Errors
    /// [`Error::Compile`] for a kernel that the compiler refuses, [`Error::System`]
    pub fn build(&self, kernels: &[CudaKernel]) -> Result<Built, Error> {
        let host = self.host_folder()?;
        let (mut sources, mut keyed) = (BTreeMap::new(), vec![]);
        for kernel in kernels {
            let source = self.source(kernel);
            keyed.push((source.key.clone(), kernel.clone()));
            sources.entry(source.key.clone()).or_insert(source);
        }
        let (mut objects, mut missing) = (BTreeSet::new(), vec![]);
        for source in sources.into_values() {
            match self.cache.note(&source.key) {
                Some(object) => drop(objects.insert(object)),
                None => missing.push(source),
            }
        }
        let units = units(missing);
        let results: Mutex<Vec<Result<PathBuf, Error>>> = Mutex::default();
        let next = AtomicUsize::new(0);
        // Job 0 is the runtime, the longest.
        let work = || {
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                if job > units.len() {
                    break;
                }
                let result = match job {
                    0 => self.runtime(&host),
                    _ => self.unit(&host, &units[job - 1]),
                };
                results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
            }
        };
        thread::scope(|scope| {
            for _ in 1..JOBS {
                scope.spawn(work);
            }
            work();
        });
        for object in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
            objects.insert(object?);
        }
        let objects: Vec<PathBuf> = objects.into_iter().collect();
        Ok(Built { program: self.link(&objects)?, kernels: keyed })
    }

    /// The folder with the sources of [`HOST`].
    fn host_folder(&self) -> Result<PathBuf, Error> {
        let texts = HOST.map(|(_, text)| text);
        let name = format!("host-{}", digest(&texts));
        self.cache.get(&name, |folder| {
            fs::create_dir_all(folder).map_err(|e| system(folder, &e))?;
            for (name, text) in HOST {
                let path = folder.join(name);
                fs::write(&path, text).map_err(|e| system(&path, &e))?;
            }
            Ok(())
        })
    }

    /// A kernel by a name that says nothing and without comments, which differ between machines and sizes whose code is
    /// the same. Its function is named after its key and the rest of its text kept local, so that a program may have many.
    fn source<'k>(&self, kernel: &'k CudaKernel) -> Source<'k> {
        let CudaKernel { name, text, .. } = kernel;
        let text = renamed(text, name, "linc_kernel");
        // Lines keep their numbers, for what the compiler says of them.
        let bare = |line| if str::trim_start(line).starts_with("//") { "" } else { line };
        let text: Vec<&str> = text.lines().map(bare).collect();
        let text = text.join("\n");
        let key = digest(&[&self.describe(KERNEL_OPTIMISATION), COMMON_PRELUDE, &text]);
        let text = format!(
            "#define linc_kernel linc_kernel_{key}\nnamespace linc_{key} {{\nnamespace {{\n#line 1 \"{name}\"\n{text}\n}}\n\
             LINC_ENTRY(\"{key}\", linc_kernel)\n}}\n#undef linc_kernel\n"
        );
        Source { key, name, text }
    }

    /// All that an object depends on beside its own text.
    fn describe(&self, optimisation: &str) -> String {
        let host = HOST.map(|(_, text)| text);
        digest(&[&self.compiler.join(" "), &self.version, &FLAGS.join(" "), optimisation, &digest(&host)])
    }

    fn runtime(&self, host: &Path) -> Result<PathBuf, Error> {
        let name = format!("runtime-{}.o", self.describe(RUNTIME_OPTIMISATION));
        self.cache.get(&name, |object| {
            let source = host.join("runtime.cpp");
            self.compile("the emulator's runtime", host, &source, RUNTIME_OPTIMISATION, object)
        })
    }

    /// Compiles kernels together, and notes of each where it is.
    fn unit(&self, host: &Path, kernels: &[Source]) -> Result<PathBuf, Error> {
        let keys: Vec<&str> = kernels.iter().map(|kernel| kernel.key.as_str()).collect();
        let name = format!("kernels-{}", digest(&keys));
        let object = self.cache.get(&format!("{name}.o"), |object| {
            // Stays there, for whoever wants to see what was compiled.
            let source = self.cache.get(&format!("{name}.cpp"), |path| {
                let texts: String = kernels.iter().map(|kernel| kernel.text.as_str()).collect();
                let text = format!("#include \"emulator.h\"\n{COMMON_PRELUDE}\n{texts}");
                fs::write(path, text).map_err(|e| system(path, &e))
            })?;
            let what = match kernels {
                [kernel] => format!("kernel {}", kernel.name),
                _ => format!("{} kernels", kernels.len()),
            };
            self.compile(&what, host, &source, KERNEL_OPTIMISATION, object)
        })?;
        keys.into_iter().try_for_each(|key| self.cache.keep_note(key, &object))?;
        Ok(object)
    }

    fn compile(
        &self,
        what: &str,
        host: &Path,
        source: &Path,
        optimisation: &str,
        object: &Path,
    ) -> Result<(), Error> {
        let mut command = self.command();
        command.args(FLAGS).arg(optimisation).arg("-I").arg(host).arg(source).arg("-o").arg(object);
        finish(what, command)
    }

    fn link(&self, objects: &[PathBuf]) -> Result<PathBuf, Error> {
        let names: Vec<String> = objects.iter().map(|object| object.display().to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.cache.get(&format!("program-{}", digest(&names)), |program| {
            let mut command = self.command();
            command.args(objects).arg("-o").arg(program).arg("-lm");
            finish("a program of kernels", command)
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.compiler[0]);
        command.args(&self.compiler[1..]);
        command
    }
}

/// The text with one identifier in place of another.
fn renamed(text: &str, from: &str, to: &str) -> String {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let (mut new, mut done) = (String::with_capacity(text.len()), 0);
    for (at, _) in text.match_indices(from) {
        let end = at + from.len();
        if !inside(text[..at].chars().next_back()) && !inside(text[end..].chars().next()) {
            new.push_str(&text[done..at]);
            new.push_str(to);
            done = end;
        }
    }
    new + &text[done..]
}

/// Kernels in groups of about [`UNIT_BYTES`], and at least as many as there are jobs.
fn units(kernels: Vec<Source>) -> Vec<Vec<Source>> {
    let bytes: usize = kernels.iter().map(|kernel| kernel.text.len()).sum();
    let count = bytes.div_ceil(UNIT_BYTES).max(JOBS).min(kernels.len());
    let mut units: Vec<Vec<Source>> = vec![];
    let mut before = 0;
    for kernel in kernels {
        // The unit in which its middle lies.
        let unit = (before + kernel.text.len() / 2) * count / bytes;
        before += kernel.text.len();
        if units.is_empty() || unit >= units.len() {
            units.push(vec![]);
        }
        units.last_mut().expect("a unit").push(kernel);
    }
    units
}

/// What a compiler says of itself, if it is there.
fn version(compiler: &[String]) -> Option<String> {
    let (program, arguments) = compiler.split_first()?;
    let output = Command::new(program).args(arguments).arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a compiler, when one of [`JOBS`] places is free.
fn finish(what: &str, mut command: Command) -> Result<(), Error> {
    static RUNNING: Mutex<usize> = Mutex::new(0);
    static FREED: Condvar = Condvar::new();
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    *FREED.wait_while(running, |running| *running >= JOBS).unwrap_or_else(PoisonError::into_inner) += 1;
    let output = command.output();
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    FREED.notify_one();
    let output =
        output.map_err(|error| Error::System(format!("{}: {error}", command.get_program().display())))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Compile { what: what.to_string(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_identifiers_are_renamed() {
        assert_eq!(renamed("void sum(); sum_all(sum, resum)", "sum", "k"), "void k(); sum_all(k, resum)");
    }

    #[test]
    fn units_are_of_about_one_size_and_keep_everything() {
        let source = |i: usize| Source { key: i.to_string(), name: "k", text: " ".repeat(1000 + i * 37) };
        for (count, expected) in [(0, 0), (1, 1), (2, 2), (9, 2), (400, 11)] {
            let units = units((0..count).map(source).collect());
            assert_eq!(units.len(), expected, "{count} kernels");
            let keys: Vec<String> = units.iter().flatten().map(|kernel| kernel.key.clone()).collect();
            assert_eq!(keys, (0..count).map(|i| i.to_string()).collect::<Vec<_>>());
            let bytes = units.iter().map(|unit| unit.iter().map(|kernel| kernel.text.len()).sum::<usize>());
            assert!(bytes.max().unwrap_or_default() < UNIT_BYTES + 20_000);
        }
    }
}
