//! Requests to end this process: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed.
//!
//! The first request only sets a flag, which whatever takes long looks at between its pieces. The second ends the
//! process from within the handler, which waits for no thread and no lock: a process that hangs ends as well.
//!
//! The signal of a file that outgrows its limit (`ulimit -f`) is no request: [`survive_file_limit`] makes an error of it.

use std::sync::atomic::AtomicBool;

/// Set by the first request.
static STOP: AtomicBool = AtomicBool::new(false);

/// What is written to standard error, a whole line each, when a request comes.
#[derive(Clone, Copy, Debug)]
pub struct Notices {
    /// At the first, which sets the flag.
    pub first: &'static str,
    /// At the one that ends the process.
    pub second: &'static str,
}

/// From now on the first request sets the flag that is returned, and another
/// Ctrl-C or SIGTERM ends the process with [`exit_code`]; each is answered with its notice. What the process was started to ignore it ignores: it outlives its
/// terminal (`nohup`), and as a job that a script left in the background it is not ended by a Ctrl-C of the script. Where there are no signals nothing happens: a request ends the process as any other.
pub fn catch(notices: Notices) -> &'static AtomicBool {
    #[cfg(unix)]
    unix::catch(notices);
    #[cfg(not(unix))]
    let _ = notices;
    &STOP
}

/// The exit code of a process that ended because it was asked to: 128 and the number of the signal, as shells have it.
/// `None` if nobody asked.
pub fn exit_code() -> Option<u8> {
    #[cfg(unix)]
    return unix::signal().map(|signal| 128 + signal);
    #[cfg(not(unix))]
    None
}

/// From now on a write beyond the largest file that this process may have (`ulimit -f`) fails with an error of its own, which
/// has the file's name, where the system would else end the process without a word.
pub fn survive_file_limit() {
    #[cfg(unix)]
    unix::survive_file_limit();
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::mem;
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::{Notices, STOP};

    /// The first signal that came, or 0.
    static FIRST: AtomicI32 = AtomicI32::new(0);
    static NOTICES: OnceLock<Notices> = OnceLock::new();

    pub(super) fn catch(notices: Notices) {
        // Set before a handler can read it.
        NOTICES.get_or_init(|| notices);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: `action` and `before` are valid for the calls, zeros are a valid `sigaction` without flags, and
            // the handler does only what a signal handler may do.
            unsafe {
                let mut before: libc::sigaction = mem::zeroed();
                let asked = libc::sigaction(signal, ptr::null(), &mut before) == 0;
                if asked && before.sa_sigaction == libc::SIG_IGN {
                    continue;
                }
                let mut action: libc::sigaction = mem::zeroed();
                action.sa_sigaction = handle as *const () as libc::sighandler_t;
                // Reads and writes that a signal comes upon go on by themselves.
                action.sa_flags = libc::SA_RESTART;
                libc::sigemptyset(&mut action.sa_mask);
                // It can only fail for a signal that does not exist.
                let _ = libc::sigaction(signal, &action, ptr::null_mut());
            }
        }
    }

    pub(super) fn survive_file_limit() {
        extern "C" fn nothing(_: libc::c_int) {}
        // A handler and not "ignore", which commands that linc starts would inherit.
        // SAFETY: `action` is valid for the call, zeros are a valid `sigaction` without flags, and the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = nothing as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&mut action.sa_mask);
            let _ = libc::sigaction(libc::SIGXFSZ, &action, ptr::null_mut());
        }
    }

    pub(super) fn signal() -> Option<u8> {
        u8::try_from(FIRST.load(Ordering::SeqCst)).ok().filter(|signal| *signal > 0)
    }

    /// Runs in the middle of whatever the process does: atomics, `write` and `_exit` are all it may use.
    extern "C" fn handle(signal: libc::c_int) {
        if FIRST.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            // A terminal that is closed may say so twice, by the system and by its shell: that is one request.
            if signal == libc::SIGHUP {
                return;
            }
            say(NOTICES.get().map_or("", |notices| notices.second));
            // SAFETY: `_exit` may be called from a handler.
            unsafe { libc::_exit(128 + signal) };
        }
        STOP.store(true, Ordering::SeqCst);
        // What the interrupted code was about to do with the error of its last call stays true.
        let error = io::Error::last_os_error().raw_os_error();
        say(NOTICES.get().map_or("", |notices| notices.first));
        set_error(error.unwrap_or(0));
    }

    /// Writes a notice where that does not wait: a reader that hangs must not keep the process from its end.
    fn say(notice: &'static str) {
        let mut error_output = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
        // SAFETY: the structure lives for the call; `poll` may be called from a handler.
        let is_ready = unsafe { libc::poll(&mut error_output, 1, 0) } == 1;
        if !is_ready || error_output.revents & libc::POLLOUT == 0 {
            return;
        }
        // SAFETY: the bytes live as long as the process; `write` may be called from a handler. If it fails there is
        // nobody left to tell.
        unsafe {
            let _ = libc::write(libc::STDERR_FILENO, notice.as_ptr().cast(), notice.len());
        }
    }

    fn set_error(error: i32) {
        // SAFETY: the location of this thread's `errno` is always valid.
        #[cfg(target_os = "linux")]
        unsafe {
            *libc::__errno_location() = error;
        }
        #[cfg(target_os = "macos")]
        unsafe {
            *libc::__error() = error;
        }
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        let _ = error;
    }
}
