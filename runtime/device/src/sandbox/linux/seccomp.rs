//! Which system calls a process may make, as a program of the kernel's packet filter that sees each call.

use std::mem::offset_of;

use libc::{c_long, seccomp_data, sock_filter};

/// Calls that reach nothing but the process itself, the files that it may open, and the clock.
const ALLOWED: &[c_long] = &[
    // Files that are open. What may be opened is said elsewhere.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_lseek,
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // The process itself. It may become another program, of those that may be run, in the same cage.
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    // The machine and the time.
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
];

/// The older names that some processors have for some of them.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_arch_prctl,
    libc::SYS_time,
    libc::SYS_alarm,
    libc::SYS_getpgrp,
];
#[cfg(target_arch = "aarch64")]
const OLDER: &[c_long] = &[];

/// Calls of which an argument decides: what a file or a device may be asked. A file may not signal anybody (`F_SETOWN`).
const BY_ARGUMENT: &[(c_long, usize, &[u32])] = &[
    (
        libc::SYS_fcntl,
        1,
        &[
            libc::F_DUPFD as u32,
            libc::F_GETFD as u32,
            libc::F_SETFD as u32,
            libc::F_GETFL as u32,
            libc::F_SETFL as u32,
            libc::F_DUPFD_CLOEXEC as u32,
        ],
    ),
    (
        libc::SYS_ioctl,
        1,
        &[libc::TCGETS as u32, libc::TIOCGWINSZ as u32, libc::FIOCLEX as u32, libc::FIONCLEX as u32],
    ),
];

/// Calls that open a file, with the number of the argument that has the flags. `openat2` has them in memory, where a filter
/// cannot look, and is not allowed at all.
const OPENING: &[(c_long, usize)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
    (libc::SYS_openat, 2),
];

/// Flags of which none may be there, so that files are opened to be read and for nothing else. Landlock alone does not see to
/// that: before its version 3 a file can be emptied as it is opened by who may read it, or by anybody in access mode 3, neither
/// to read nor to write, at which no version looks.
const NOT_TO_READ: u32 = (libc::O_ACCMODE | libc::O_TRUNC | libc::O_CREAT) as u32;

/// `AUDIT_ARCH_..`: the kind of processor that a call is made on. Others number their calls differently.
#[cfg(target_arch = "x86_64")]
const PROCESSOR: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const PROCESSOR: u32 = 0xc000_00b7;

fn load(offset: usize) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset as u32 }
}

/// Goes on with the next instruction if what was loaded last is `value`, else skips so many.
fn unless(value: u32, skipped: usize) -> sock_filter {
    let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    sock_filter { code, jt: 0, jf: skipped as u8, k: value }
}

fn end(action: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

/// Keeps those bits of what was loaded last that are in `mask`.
fn keep(mask: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, jt: 0, jf: 0, k: mask }
}

/// Half of an argument: the lower, or the upper one.
fn argument(number: usize, upper: bool) -> sock_filter {
    // Both kinds of processors have the lower half first.
    load(offset_of!(seccomp_data, args) + 8 * number + if upper { 4 } else { 0 })
}

/// The filter: what is not allowed fails, as if the user lacked the right.
pub(super) fn filter() -> Vec<sock_filter> {
    let (allow, deny) = (end(libc::SECCOMP_RET_ALLOW), end(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let mut filter = vec![
        load(offset_of!(seccomp_data, arch)),
        // Goes on where the processor is the right one, behind what ends the process.
        sock_filter { jt: 1, ..unless(PROCESSOR, 0) },
        end(libc::SECCOMP_RET_KILL_PROCESS),
        load(offset_of!(seccomp_data, nr)),
    ];
    for call in ALLOWED.iter().chain(OLDER) {
        filter.extend([unless(*call as u32, 1), allow]);
    }
    for (call, number, values) in BY_ARGUMENT {
        let mut part = vec![argument(*number, false)];
        values.iter().for_each(|value| part.extend([unless(*value, 1), allow]));
        part.push(deny);
        filter.push(unless(*call as u32, part.len()));
        filter.extend(part);
    }
    for (call, flags) in OPENING {
        // The system takes the lower half of the flags only.
        let part = [argument(*flags, false), keep(NOT_TO_READ), unless(0, 1), allow, deny];
        filter.push(unless(*call as u32, part.len()));
        filter.extend(part);
    }
    // The limits of this process may be looked at: process 0, and no new limit.
    let looks = [
        argument(0, false),
        unless(0, 5),
        argument(2, false),
        unless(0, 3),
        argument(2, true),
        unless(0, 1),
        allow,
        deny,
    ];
    filter.push(unless(libc::SYS_prlimit64 as u32, looks.len()));
    filter.extend(looks);
    filter.push(deny);
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call, as the kernel would find it.
    fn verdict(arch: u32, nr: c_long, args: [u64; 6]) -> u32 {
        let filter = filter();
        let word = |offset: u32| match offset {
            0 => nr as u32,
            4 => arch,
            offset => {
                let argument = args[(offset as usize - 16) / 8];
                (argument >> if offset % 8 == 4 { 32 } else { 0 }) as u32
            }
        };
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = filter[at];
            at += 1;
            match u32::from(code) & 7 {
                libc::BPF_LD => loaded = word(k),
                libc::BPF_ALU => loaded &= k,
                libc::BPF_JMP => at += usize::from(if loaded == k { jt } else { jf }),
                _ => return k,
            }
        }
    }

    #[test]
    fn what_is_not_listed_is_denied() {
        const DENIED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let call = |nr, args| verdict(PROCESSOR, nr, args);
        assert_eq!(call(libc::SYS_read, [0; 6]), libc::SECCOMP_RET_ALLOW);
        for nr in ALLOWED.iter().chain(OLDER) {
            assert_eq!(call(*nr, [u64::MAX; 6]), libc::SECCOMP_RET_ALLOW);
            // Another processor's numbers, and another way to call (x32), mean other calls.
            assert_eq!(verdict(0x4000_0003, *nr, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
            assert_eq!(call(*nr | 0x4000_0000, [0; 6]), DENIED);
        }
        let denied = [
            libc::SYS_socket,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_kill,
            libc::SYS_tgkill,
            libc::SYS_ptrace,
            libc::SYS_io_uring_setup,
            libc::SYS_setrlimit,
            libc::SYS_mount,
            libc::SYS_fchmodat,
            libc::SYS_unlinkat,
            libc::SYS_process_vm_writev,
            libc::SYS_openat2,
            libc::SYS_truncate,
            libc::SYS_ftruncate,
        ];
        denied.iter().for_each(|nr| assert_eq!(call(*nr, [0; 6]), DENIED));
        assert_eq!(call(libc::SYS_fcntl, [0, libc::F_GETFL as u64, 0, 0, 0, 0]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(call(libc::SYS_fcntl, [0, libc::F_SETOWN as u64, 1, 0, 0, 0]), DENIED);
        assert_eq!(call(libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]), DENIED);
        assert_eq!(call(libc::SYS_prlimit64, [0, 7, 0, 1 << 40, 0, 0]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(call(libc::SYS_prlimit64, [1, 7, 0, 0, 0, 0]), DENIED, "of another process");
        assert_eq!(call(libc::SYS_prlimit64, [0, 7, 1 << 40, 0, 0, 0]), DENIED, "a new limit");
        assert_eq!(call(libc::SYS_prlimit64, [0, 7, 8, 0, 0, 0]), DENIED, "a new limit");
    }
    #[test]
    fn files_are_opened_to_be_read_only() {
        const DENIED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let not_to_read = [
            libc::O_WRONLY,
            libc::O_RDWR,
            libc::O_ACCMODE,
            libc::O_TRUNC,
            libc::O_ACCMODE | libc::O_TRUNC,
            libc::O_CREAT,
            libc::O_TMPFILE | libc::O_RDWR,
        ];
        for (call, at) in OPENING {
            let with = |flags: u64| {
                let mut args = [u64::MAX; 6];
                args[*at] = flags;
                verdict(PROCESSOR, *call, args)
            };
            for flags in [0, libc::O_CLOEXEC, libc::O_DIRECTORY | libc::O_NONBLOCK | libc::O_NOFOLLOW] {
                assert_eq!(with(flags as u64), libc::SECCOMP_RET_ALLOW, "{flags:o}");
                // What stands in the upper half is nothing to the system.
                assert_eq!(with(flags as u64 | 1 << 32), libc::SECCOMP_RET_ALLOW, "{flags:o}");
            }
            for flags in not_to_read {
                assert_eq!(with(flags as u64), DENIED, "{flags:o}");
                assert_eq!(with((flags | libc::O_CLOEXEC) as u64 | 1 << 32), DENIED, "{flags:o}");
            }
        }
    }
}
