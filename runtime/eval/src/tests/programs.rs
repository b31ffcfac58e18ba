//! Programs that a model wrote: what becomes of honest ones, and that others are contained.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fixtures::published;
use super::scorers::Oracle;
use super::{GO_ON, SHARED, Silent, ask, found, setting};
use crate::code::{Sandbox, Verdict};
use crate::task::{Setting, chosen};
use crate::{Folder, evaluate, prepare};

/// Where programs can run, if that is on this machine.
pub(super) fn sandbox() -> Option<Sandbox> {
    Sandbox::open().map_err(|error| eprintln!("skipped: {error}")).ok()
}

fn run(sandbox: &Sandbox, program: &str) -> Verdict {
    sandbox.run(program, &GO_ON).expect("it starts").expect("nobody asked to stop")
}

fn why(verdict: &Verdict) -> &str {
    assert_ne!(*verdict, Verdict::Passed);
    verdict.words()
}

/// Tries that must fail, each by an error of the system, and what follows them.
fn refused(sandbox: &Sandbox, imports: &str, tries: &[&str]) {
    for one in tries {
        let program = format!(
            "{imports}\ntry:\n    {one}\nexcept (OSError, RuntimeError, ValueError):\n    pass\nelse:\n    raise AssertionError('it could')"
        );
        assert_eq!(run(sandbox, &program), Verdict::Passed, "{one}");
    }
}

#[test]
fn a_program_passes_that_comes_to_its_end() {
    let Some(sandbox) = sandbox() else { return };
    let passes = [
        "",
        "def f(x):\n    return x * 2\nassert f(21) == 42",
        "import math, hashlib, re, itertools, collections, random, datetime\nassert hashlib.md5(b'x').hexdigest().startswith('9dd4')",
        "print('words ' * 100000)",
        "assert 'größer' == 'gr\\u00f6\\u00dfer'",
    ];
    passes.iter().for_each(|program| assert_eq!(run(&sandbox, program), Verdict::Passed, "{program}"));
    let fails = [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("f()", "NameError: name 'f' is not defined"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("input()", "EOFError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("class E(Exception):\n    def __str__(self): raise self\nraise E()", "E"),
        // Not a word of its end.
        ("import os; os._exit(0)", "ended early: exit status: 0"),
        ("import os; os.write(1, b'\\npassed\\n'); os._exit(0)", "ended early"),
        ("import ctypes; ctypes.string_at(0)", "ended early: signal: 11"),
    ];
    for (program, expected) in fails {
        let verdict = run(&sandbox, program);
        assert!(why(&verdict).starts_with(expected), "{program}: {verdict:?}");
    }
}

#[test]
fn one_that_does_not_end_is_ended() {
    let Some(mut sandbox) = sandbox() else { return };
    sandbox.cage.cpu_seconds = 1;
    let verdict = run(&sandbox, "while True: pass");
    assert_eq!(why(&verdict), "TimeoutError: more than 1 s of a processor");
    // It may catch what it likes.
    let stubborn = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    try:\n        while True: print('words')\n    except BaseException: pass";
    assert!(why(&run(&sandbox, stubborn)).starts_with("TimeoutError"));
    sandbox.limit = Duration::from_millis(300);
    let verdict = run(&sandbox, "import time\ntime.sleep(1000)");
    assert_eq!(why(&verdict), "TimeoutError: longer than 0.3 s");
    let begun = Instant::now();
    let found = sandbox.run("import time\ntime.sleep(1000)", &AtomicBool::new(true)).expect("it starts");
    assert_eq!(found, None, "somebody asked to stop");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn no_other_process_begins_or_ends() {
    let Some(sandbox) = sandbox() else { return };
    refused(
        &sandbox,
        "import ctypes, os, resource, signal, subprocess, threading\nlibc = ctypes.CDLL(None, use_errno=True)\ndef call(*a):\n    if libc.syscall(*a) == -1: raise OSError(ctypes.get_errno())",
        &[
            "os.fork()",
            "os.system('true') == 0 or call(-1)",
            "subprocess.run(['true'], check=True)",
            "os.posix_spawn('/bin/true', ['true'], {})",
            "os.execv('/bin/true', ['true'])",
            "threading.Thread(target=print).start()",
            "call(56, 17, 0, 0, 0, 0)",
            "os.kill(os.getppid(), signal.SIGTERM)",
            "os.killpg(os.getpgid(os.getppid()), signal.SIGTERM)",
            "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
            "resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
            "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
            "os.sched_setaffinity(os.getppid(), {0})",
            "call(101, 16, os.getppid(), 0, 0)",
        ],
    );
    // Whoever waits for it is still there: this test.
    assert_eq!(run(&sandbox, "import os\nassert os.getppid() > 1"), Verdict::Passed);
}

#[test]
fn no_memory_is_taken_from_others() {
    let Some(sandbox) = sandbox() else { return };
    for program in
        ["a = bytearray(8 << 30)", "a = []\nwhile True: a.append(bytes(1 << 20))", "a = 'x' * 10**11"]
    {
        assert!(why(&run(&sandbox, program)).starts_with("MemoryError"), "{program}");
    }
}

#[test]
fn files_of_others_are_neither_read_nor_changed() {
    let Some(sandbox) = sandbox() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "of nobody's business").expect("written");
    let imports = format!(
        "import os, pathlib, tempfile\nsecret, folder = {:?}, {:?}",
        secret.display().to_string(),
        folder.path().display().to_string()
    );
    refused(
        &sandbox,
        &imports,
        &[
            "open(secret).read()",
            "os.open(secret, os.O_RDONLY)",
            "os.listdir(folder)",
            "open('/etc/passwd')",
            "open(f'/proc/{os.getppid()}/environ', 'rb')",
            "open(f'/proc/{os.getppid()}/mem', 'rb')",
            "open(secret, 'w')",
            "open(secret, 'a')",
            "os.truncate(secret, 0)",
            "os.remove(secret)",
            "os.rename(secret, secret + '2')",
            "os.link(secret, secret + '2')",
            "os.symlink(secret, secret + '2')",
            "os.chmod(secret, 0o777)",
            "os.chown(secret, 1, 1)",
            "os.utime(secret, (0, 0))",
            "os.mkdir(folder + '/new')",
            "os.rmdir(folder)",
            "open(folder + '/new', 'w')",
            "tempfile.TemporaryFile()",
            "open('/dev/shm/linc', 'w')",
            "os.chroot('/')",
        ],
    );
    assert_eq!(fs::read(&secret).expect("there"), b"of nobody's business");
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    // One that may be read is not emptied either, whatever it is opened for: by the filter, which no version of the system's rules
    // for files stands in for.
    let mut open = sandbox.clone();
    open.cage.readable.push(secret.clone());
    let program = format!(
        "{imports}\nimport ctypes, errno\nassert open(secret).read() == \"of nobody's business\"\nfor flags in [os.O_TRUNC, 3, 3 | os.O_TRUNC, os.O_CREAT, os.O_RDWR]:\n    try: os.open(secret, flags)\n    except OSError as error: assert error.errno == errno.EPERM, (flags, error)\n    else: raise AssertionError(flags)\n# openat2, with the same flags in memory.\nhow = (ctypes.c_uint64 * 3)(os.O_TRUNC, 0, 0)\nassert ctypes.CDLL(None).syscall(437, -100, secret.encode(), how, 24) == -1"
    );
    assert_eq!(run(&open, &program), Verdict::Passed);
    assert_eq!(fs::read(&secret).expect("there"), b"of nobody's business");
    // Nothing of this process' environment, nor of its open files.
    let own = fs::File::open(&secret).expect("there");
    let program = "import os\nassert set(os.environ) <= {'LC_CTYPE'}, set(os.environ)\nfor fd in range(3, 64):\n    try: os.fstat(fd)\n    except OSError: continue\n    raise AssertionError(fd)";
    assert_eq!(run(&sandbox, program), Verdict::Passed);
    drop(own);
}

#[test]
fn nobody_is_called() {
    let Some(sandbox) = sandbox() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a setting");
    let port = listener.local_addr().expect("an address").port();
    refused(
        &sandbox,
        "import ctypes, socket, urllib.request\nlibc = ctypes.CDLL(None, use_errno=True)\ndef call(*a):\n    if libc.syscall(*a) == -1: raise OSError(ctypes.get_errno())",
        &[
            &format!("socket.create_connection(('127.0.0.1', {port}))"),
            &format!("urllib.request.urlopen('http://127.0.0.1:{port}')"),
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
            "socket.socket(socket.AF_UNIX)",
            "socket.socketpair()",
            "socket.getaddrinfo('localhost', 80)",
            // By the numbers of x86-64: a socket, and a ring that opens one.
            "call(41, 2, 1, 0)",
            "call(425, 8, ctypes.create_string_buffer(120))",
        ],
    );
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn the_canonical_solutions_of_humaneval_all_pass() {
    let Some(sandbox) = sandbox() else { return };
    if !Path::new(SHARED).join("humaneval").is_dir() {
        eprintln!("skipped: there is no {SHARED}/humaneval");
        return;
    }
    let bytes = linc_data::Tokenizer::bytes();
    let setting = Setting { context: 8192, sandbox: Some(&sandbox), ..setting(Path::new(SHARED), &bytes) };
    let [task] = chosen(&["humaneval".into()]).expect("a task")[..] else { panic!("one task") };
    let samples = (task.make)(&task, &setting).expect("samples").samples;
    let result = found(&task, &setting, &mut Oracle::of(&samples, setting.context));
    let first = result.first().expect("run");
    assert_eq!((first.samples, first.value), (164, 1.0));
}

#[test]
fn completions_are_kept_and_can_be_run_later() {
    let Some(sandbox) = sandbox() else { return };
    let data = published();
    let bytes = linc_data::Tokenizer::bytes();
    let written = Setting { completions: 2, ..setting(data.path(), &bytes) };
    let [task] = chosen(&["humaneval".into()]).expect("a task")[..] else { panic!("one task") };
    let samples = (task.make)(&task, &written).expect("samples").samples;
    let out = tempfile::tempdir().expect("a folder");
    let mut oracle = Oracle::of(&samples, 512);
    let result = ask(&task, &written, &mut oracle, out.path()).expect("asked").expect("whole");
    assert!(result.metrics.is_empty() && result.samples == 4, "nothing is run that nobody asked to run");
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(out.path().join("humaneval_completions.jsonl")).expect("there");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    assert_eq!(lines().len(), 8);
    assert_eq!(lines()[2], json!({ "task_id": "Made/1", "completion": "    return x + 1\n" }));
    // Nothing is asked of a model again.
    let run = Setting { sandbox: Some(&sandbox), ..written };
    let mut folder = Folder::open(out.path(), &json!({ "name": "test" }), &json!({})).expect("there");
    let prepared = prepare(&task, &run, &mut Silent).expect("samples");
    let result =
        evaluate(&mut oracle, &prepared, &run, &mut folder, &mut Silent).expect("run").expect("whole");
    assert_eq!(result.answered, 0);
    assert_eq!((result.metrics["pass@1"].value, result.metrics["pass@2"].value), (1.0, 1.0));
    assert_eq!(lines()[7]["result"], "passed");
    let records = fs::read_to_string(out.path().join("samples_humaneval.jsonl")).expect("there");
    assert_eq!(records.lines().count(), 4);
}
