//! Programs that a model wrote, run in a cage: one after another in a Python of its own, which reads the program from a pipe,
//! can read Python's library and no other file, and says at its end whether it came through.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linc_device::process::kill_group;
use linc_device::sandbox::Cage;
use linc_device::threads::available;
use serde_json::Value;

use crate::error::EvalError;

/// Seconds of a processor that a program may take.
const CPU_SECONDS: u64 = 5;
/// Time after which a program is ended, whatever it does: more than that, since a machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of addresses that a program may have.
const MEMORY: u64 = 1 << 30;
/// So much of the end of what a program prints is looked at.
const KEPT: usize = 4096;
/// How often the end of a program is looked for.
const PAUSE: Duration = Duration::from_millis(2);

/// Asks Python for its files, as JSON: of its library, and those that start it.
const FILES: &str = "\
import json, os, sys
maps = [line.split()[-1] for line in open('/proc/self/maps') if '/' in line]
starts = [sys.executable] + [path for path in maps if os.path.basename(path).startswith('ld')]
print(json.dumps({
    'library': [path for path in sys.path if os.path.exists(path)] + maps,
    'starts': sorted({os.path.realpath(path) for path in starts}),
    'python': os.path.realpath(sys.executable),
}))";

/// Runs the program on standard input behind a line, and says that line again with what became of it.
const RUN: &str = "\
import os
read = []
while piece := os.read(0, 65536): read.append(piece)
line, _, program = b''.join(read).partition(b'\\n')
try:
    exec(compile(program, 'program', 'exec'), {})
    said = 'passed'
except BaseException as error:
    said = type(error).__name__
    try: said += ': ' + str(error)[:300]
    except BaseException: pass
os.write(1, b'\\n' + line + said.encode('utf-8', 'replace') + b'\\n')
os._exit(0)";

/// Comes through where a cage holds: each of these is refused.
const TRIES: &str = "\
import errno, os, socket
def refused(what):
    try: what()
    except OSError: return True
    return False
assert refused(socket.socket) and refused(os.fork)
assert refused(lambda: open('/proc/self/environ')) and refused(lambda: os.kill(os.getppid(), 0))
assert refused(lambda: open(os.devnull, 'w')) and refused(lambda: os.listdir('/'))
def filtered(flags):
    try: os.open(os.devnull, flags)
    except OSError as error: return error.errno == errno.EPERM
    return False
assert filtered(os.O_RDONLY | os.O_TRUNC) and filtered(3) and filtered(3 | os.O_TRUNC)";

/// Folders of shared libraries.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"];

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It came to its end.
    Passed,
    /// It did not, and why.
    Failed(String),
}

impl Verdict {
    /// As it is recorded: `passed`, or why not.
    pub fn words(&self) -> &str {
        match self {
            Verdict::Passed => PASSED,
            Verdict::Failed(why) => why,
        }
    }
}

/// As a program that came through says it.
pub(crate) const PASSED: &str = "passed";

/// Where programs run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    python: PathBuf,
    pub(crate) cage: Cage,
    /// Time after which a program is ended, whatever it does.
    pub(crate) limit: Duration,
}

impl Sandbox {
    /// A cage around the Python that is installed, tried before it is used.
    ///
    /// # Errors
    /// [`EvalError::Request`] if there is no Python, or this machine cannot contain a program.
    pub fn open() -> Result<Self, EvalError> {
        let refuse = |why: String| {
            let help = "leave --run-code out: completions are kept, and can be run elsewhere";
            EvalError::request(format!("generated programs cannot be contained here: {why}"), help)
        };
        Cage::check().map_err(refuse)?;
        let Some(about) = ["python3", "python"].iter().find_map(|name| files_of(name)) else {
            let message = "there is no Python 3 to run generated programs with";
            return Err(EvalError::request(message, "install python3, or leave --run-code out"));
        };
        let paths = |key: &str| -> Vec<PathBuf> {
            let list = about[key].as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(PathBuf::from).collect()
        };
        let mut readable = paths("library");
        readable.extend(LIBRARIES.map(PathBuf::from));
        let cage = Cage { readable, executable: paths("starts"), cpu_seconds: CPU_SECONDS, memory: MEMORY };
        let python = about["python"].as_str().unwrap_or_default().into();
        let sandbox = Sandbox { python, cage, limit: LIMIT };
        match sandbox.run(TRIES, &AtomicBool::new(false))? {
            Some(Verdict::Passed) => Ok(sandbox),
            Some(Verdict::Failed(why)) => Err(refuse(format!("a first program failed: {why}"))),
            None => Err(refuse("a first program did not end".to_owned())),
        }
    }

    /// Runs a program to its end, or to the end of what it may take; nothing if `stop` is set before.
    ///
    /// # Errors
    /// [`EvalError::Request`] if it cannot be started.
    pub fn run(&self, program: &str, stop: &AtomicBool) -> Result<Option<Verdict>, EvalError> {
        let failed = |error: std::io::Error| {
            let message = format!("{} cannot be started in a sandbox: {error}", self.python.display());
            EvalError::request(
                message,
                "leave --run-code out: completions are kept, and can be run elsewhere",
            )
        };
        let mut command = Command::new(&self.python);
        // Without the user's settings and packages, and without files of compiled code.
        command.args(["-I", "-S", "-B", "-c", RUN]).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        self.cage.hold(&mut command).map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        // Nothing that a program prints by chance.
        let line = format!("{:016x}{:016x} ", random(), random());
        if let Some(mut input) = child.stdin.take() {
            // One that ends before it has read all of it says so itself.
            let _ = input.write_all(format!("{line}\n{program}").as_bytes());
        }
        let output = child.stdout.take();
        let (ended, said) = thread::scope(|threads| {
            let reader = threads.spawn(|| output.map(last_bytes).unwrap_or_default());
            let ended = wait(&mut child, self.limit, stop);
            if matches!(ended, Ended::Late | Ended::Stopped) {
                kill_group(child.id());
                let _ = child.wait();
            }
            (ended, reader.join().unwrap_or_default())
        });
        let text = String::from_utf8_lossy(&said);
        let found = text.rsplit_once(&format!("\n{line}")).map(|(_, found)| found.trim_end());
        Ok(match (ended, found) {
            (Ended::Stopped, _) => None,
            (_, Some(PASSED)) => Some(Verdict::Passed),
            (_, Some(why)) => Some(Verdict::Failed(why.to_owned())),
            (Ended::Late, None) => {
                Some(Verdict::Failed(format!("TimeoutError: longer than {} s", self.limit.as_secs_f64())))
            }
            (Ended::By(status), None) => Some(Verdict::Failed(of_status(status, self.cage.cpu_seconds))),
        })
    }
}

/// Why a program has ended.
enum Ended {
    By(ExitStatus),
    Late,
    Stopped,
}

fn wait(child: &mut Child, limit: Duration, stop: &AtomicBool) -> Ended {
    let begun = Instant::now();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Ended::By(status);
        }
        if stop.load(Ordering::Relaxed) {
            return Ended::Stopped;
        }
        if begun.elapsed() > limit {
            return Ended::Late;
        }
        thread::sleep(PAUSE);
    }
}

/// The end of a program that said nothing.
fn of_status(status: ExitStatus, cpu_seconds: u64) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        /// The signal of one that took all the time that it may have.
        const XCPU: i32 = 24;
        const KILL: i32 = 9;
        if let Some(XCPU | KILL) = status.signal() {
            return format!("TimeoutError: more than {cpu_seconds} s of a processor");
        }
    }
    format!("ended early: {status}")
}

/// The last bytes of a stream, however much comes.
fn last_bytes(mut stream: impl Read) -> Vec<u8> {
    let (mut kept, mut piece) = (vec![], [0; 16 << 10]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        kept.extend_from_slice(&piece[..count]);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
    kept
}

/// The files of a Python of this name, if it is one.
fn files_of(name: &str) -> Option<Value> {
    let mut command = Command::new(name);
    command.args(["-I", "-S", "-B", "-c", FILES]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    serde_json::from_slice(&output.stdout).ok()
}

/// A number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What `sandbox` says of many programs, in their order, as many at once as there are processors; nothing if `stop` is set before
/// the end.
///
/// # Errors
/// As [`Sandbox::run`].
pub(crate) fn run_all(
    sandbox: &Sandbox,
    programs: &[String],
    stop: &AtomicBool,
) -> Result<Option<Vec<Verdict>>, EvalError> {
    let at_once = available().min(programs.len().max(1));
    let of = |programs: &[String]| -> Result<Option<Vec<Verdict>>, EvalError> {
        programs.iter().map(|program| sandbox.run(program, stop)).collect()
    };
    let parts: Vec<_> = thread::scope(|threads| {
        let size = programs.len().div_ceil(at_once).max(1);
        let running: Vec<_> = programs.chunks(size).map(|part| threads.spawn(move || of(part))).collect();
        running.into_iter().map(|one| one.join().unwrap_or(Ok(None))).collect()
    });
    let parts: Option<Vec<Vec<Verdict>>> = parts.into_iter().collect::<Result<_, _>>()?;
    Ok(parts.map(|parts| parts.concat()))
}
