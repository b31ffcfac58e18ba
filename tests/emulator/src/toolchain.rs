//! From kernels to a program that runs them: the host's C++ compiler, and what it makes.

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
const KERNEL_OPTIMISATION: &str = "-O1";
const RUNTIME_OPTIMISATION: &str = "-O3";

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

    /// Compiles kernels into one program. They may have equal names. What was compiled before is taken from the cache.
    ///
    /// # Errors
    /// [`Error::Compile`] for a kernel that the compiler refuses, [`Error::System`]
    pub fn build(&self, kernels: &[CudaKernel]) -> Result<Built, Error> {
        let host = self.host_folder()?;
        let mut sources = vec![];
        let mut keyed = vec![];
        for kernel in kernels {
            let (key, text) = self.kernel_source(kernel);
            if !sources.iter().any(|(known, _, _)| *known == key) {
                sources.push((key.clone(), kernel.name.as_str(), text));
            }
            keyed.push((key, kernel.clone()));
        }
        let results: Mutex<Vec<Result<PathBuf, Error>>> = Mutex::default();
        let next = AtomicUsize::new(0);
        // Job 0 is the runtime, the longest.
        let work = || {
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                if job > sources.len() {
                    break;
                }
                let result = match job {
                    0 => self.runtime(&host),
                    _ => self.kernel(&host, &sources[job - 1]),
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
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut objects = results.into_iter().collect::<Result<Vec<PathBuf>, Error>>()?;
        objects.sort();
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

    /// The key and the translation unit of a kernel. Its function is renamed and the rest of its text kept local, so
    /// that a program may have several kernels with the same names in them.
    fn kernel_source(&self, kernel: &CudaKernel) -> (String, String) {
        let CudaKernel { name, text, .. } = kernel;
        let key = digest(&[&self.describe(KERNEL_OPTIMISATION), COMMON_PRELUDE, name, text]);
        let source = format!(
            "#include \"emulator.h\"\n{COMMON_PRELUDE}\n#define {name} {name}_{key}\nnamespace {{\n\
             #line 1 \"{name}\"\n{text}\n}}\nLINC_ENTRY(\"{key}\", {name})\n"
        );
        (key, source)
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

    fn kernel(&self, host: &Path, source: &(String, &str, String)) -> Result<PathBuf, Error> {
        let (key, name, text) = source;
        self.cache.get(&format!("kernel-{key}.o"), |object| {
            // Stays there, for whoever wants to see what was compiled.
            let source = self.cache.get(&format!("kernel-{key}.cpp"), |path| {
                fs::write(path, text).map_err(|e| system(path, &e))
            })?;
            self.compile(&format!("kernel {name}"), host, &source, KERNEL_OPTIMISATION, object)
        })
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
