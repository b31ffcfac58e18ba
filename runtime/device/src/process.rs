//! What the operating system says of this process: time and memory.

use std::fs;
use std::sync::OnceLock;
use std::time::Instant;

/// Seconds since the first call.
pub fn seconds() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// The name of this machine, by which processes know who shares it; empty where the system does not say.
pub fn machine() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// What tells this machine from others of its name, until it is started again; empty where the system does not say.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The cores that this process may run on, as the system lists them; empty where it does not say.
pub fn allowed_cores() -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().to_owned()
}

/// Ends a process that leads a group, and all in its group that are left, at once. Nothing happens if there are none, or where
/// there are no groups.
pub fn kill_group(leader: u32) {
    #[cfg(unix)]
    if let Ok(group) = libc::pid_t::try_from(leader)
        && group > 1
    {
        // SAFETY: `killpg` touches no memory of this process; 0 and 1 would be other groups than a child's.
        unsafe { libc::killpg(group, libc::SIGKILL) };
    }
    #[cfg(not(unix))]
    let _ = leader;
}

/// Asks a child to end: by SIGHUP, which beside a request that it got already is no second one; by SIGTERM, if what is
/// started here ignores the other. Nothing happens if it has ended, or where there are no signals.
pub fn ask_to_end(child: u32) {
    #[cfg(unix)]
    if let Ok(child) = libc::pid_t::try_from(child)
        && child > 1
    {
        // SAFETY: the structure is valid for the call, and zeros are a valid one; `kill` touches no memory of this process, and
        // 0 and 1 would not be a child's number.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let asked = libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut action) == 0;
            let ignored = asked && action.sa_sigaction == libc::SIG_IGN;
            libc::kill(child, if ignored { libc::SIGTERM } else { libc::SIGHUP });
        }
    }
    #[cfg(not(unix))]
    let _ = child;
}

/// Largest resident memory of this process so far, in bytes; 0 where the system does not say.
pub fn peak_memory() -> u64 {
    let Ok(text) = fs::read_to_string("/proc/self/status") else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
