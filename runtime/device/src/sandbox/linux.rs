//! The cage on Linux: limits, then Landlock, then seccomp, set between the start of a child and its program.

mod landlock;
mod seccomp;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::Cage;

/// Files that may be open at once.
const OPEN_FILES: libc::rlim_t = 64;

pub(super) fn check() -> Result<(), String> {
    let version = landlock::version().map_err(|error| {
        format!("this system has no Landlock ({error}), which keeps a program from files; Linux 5.13 or newer has it, where it is not switched off")
    })?;
    let filter = Path::new("/proc/sys/kernel/seccomp/actions_avail");
    if version >= 1 && filter.exists() {
        return Ok(());
    }
    Err("this system has no seccomp filters, which keep a program from the network and from other processes"
        .to_owned())
}

pub(super) fn hold(cage: &Cage, command: &mut Command) -> io::Result<()> {
    let rules = landlock::rules(&cage.readable, &cage.executable)?;
    let filter = seccomp::filter();
    let limits = [
        (libc::RLIMIT_CPU, cage.cpu_seconds, cage.cpu_seconds + 1),
        (libc::RLIMIT_AS, cage.memory, cage.memory),
        (libc::RLIMIT_FSIZE, 0, 0),
        (libc::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        (libc::RLIMIT_CORE, 0, 0),
    ];
    let parent = std::process::id();
    // A group of its own, so that whoever ends it ends nothing else.
    command.process_group(0);
    let begin = move || {
        for (resource, soft, hard) in limits {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            // SAFETY: the structure lives for the call.
            check_call(i64::from(unsafe { libc::setrlimit(resource, &limit) }))?;
        }
        enter(&rules, &filter, parent)
    };
    // SAFETY: this runs in the child of a process that may have threads, where nothing may be locked or allocated: it only
    // makes system calls, with what was made before.
    unsafe { command.pre_exec(begin) };
    Ok(())
}

/// Makes this process a caged one. Only system calls.
fn enter(rules: &File, filter: &[libc::sock_filter], parent: u32) -> io::Result<()> {
    // SAFETY: `prctl` with these numbers, `close_range` and `getppid` touch no memory. Files are closed when the program begins, so
    // that until then its start can still be told to have failed.
    unsafe {
        check_call(i64::from(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0)))?;
        if u32::try_from(libc::getppid()) != Ok(parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        check_call(libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC))?;
        check_call(i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))?;
        check_call(libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0))?;
    }
    let program =
        libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the filter lives for the call, which copies it and does not write to it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program, 0, 0) };
    check_call(i64::from(done))
}

/// The error of a system call that says -1.
fn check_call(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
