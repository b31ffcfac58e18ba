//! The allocator of a program that ends with a message where the system refuses memory, not with an abort.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::available_memory::out_of_memory;
use crate::cpu::available;

/// The system's allocator. What it refuses ends the process with exit code 2 and a message that names the limit, unless
/// who asked for it can cope: vectors and texts, which grow everywhere, have no way to say so.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

thread_local! {
    static REFUSABLE: Cell<bool> = const { Cell::new(false) };
}

/// Runs what copes with a refusal, such as `try_reserve`.
pub(crate) fn refusable<T>(run: impl FnOnce() -> T) -> T {
    let before = REFUSABLE.replace(true);
    let result = run();
    REFUSABLE.set(before);
    result
}

// SAFETY: all is forwarded to the system's allocator; the process ends instead of returning null.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as promised by the caller.
        checked(unsafe { System.realloc(at, layout, size) }, size)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[inline]
fn checked(at: *mut u8, bytes: usize) -> *mut u8 {
    // A thread that ends has no flag any more; nothing that it drops asks for memory and copes without.
    if at.is_null() && !REFUSABLE.try_with(Cell::get).unwrap_or(false) {
        exit_out_of_memory(bytes);
    }
    at
}

/// The thread that writes the message, by the address of what is its own; 0 if there is none yet.
static ENDING: AtomicUsize = AtomicUsize::new(0);

/// What a thread does that was refused memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// It is the first, and writes the message.
    First,
    /// It was refused memory for the message.
    Again,
    /// Another thread writes the message.
    Other,
}

fn claim_ending(ending: &AtomicUsize, thread: usize) -> Turn {
    match ending.compare_exchange(0, thread, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => Turn::First,
        Err(first) if first == thread => Turn::Again,
        Err(_) => Turn::Other,
    }
}

#[cold]
fn exit_out_of_memory(bytes: usize) -> ! {
    let thread = REFUSABLE.try_with(|own| std::ptr::from_ref(own).addr()).unwrap_or(usize::MAX);
    let turn = claim_ending(&ENDING, thread);
    if turn == Turn::Other {
        // The first ends the process, and this thread with it. It holds no lock that this one could wait for, but a thread
        // that waits for ever would be a program that hangs.
        sleep(Duration::from_secs(10));
    }
    if turn == Turn::First {
        write_to_stderr(format!("error: {}\n", out_of_memory(bytes as u64, available().as_ref())).as_bytes());
    } else {
        // The message takes a little memory, and there is not even that.
        write_to_stderr(
            b"error: the system refuses memory: a limit of this process (ulimit -v), or all is in use\n",
        );
    }
    // SAFETY: ends the process; nothing of it runs any more, so that no lock that another thread holds matters.
    unsafe { libc::_exit(2) }
}

/// Writes to standard error; nobody is left to tell if that fails.
fn write_to_stderr(text: &[u8]) {
    // SAFETY: the text is as long as it says.
    let _ = unsafe { libc::write(2, text.as_ptr().cast(), text.len() as _) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_thread_that_is_refused_writes() {
        let ending = AtomicUsize::new(0);
        assert_eq!(claim_ending(&ending, 8), Turn::First);
        assert_eq!(claim_ending(&ending, 16), Turn::Other, "it waits for the message");
        assert_eq!(claim_ending(&ending, 8), Turn::Again, "the message itself was refused");
    }

    #[test]
    fn a_refusal_that_was_asked_for_is_null() {
        let huge = Layout::from_size_align(isize::MAX as usize - 4096, 16).expect("a layout");
        // The compiler leaves an allocation out that nobody looks at.
        // SAFETY: the size is not 0, and nothing is done with the result.
        let at = refusable(|| std::hint::black_box(unsafe { Allocator.alloc(std::hint::black_box(huge)) }));
        assert!(at.is_null());
        assert!(!REFUSABLE.get());
        let small = Layout::new::<u64>();
        // SAFETY: the size is not 0; what is allocated is freed with the same layout.
        unsafe {
            let at = Allocator.alloc_zeroed(small);
            assert_eq!(at.cast::<u64>().read(), 0);
            let at = Allocator.realloc(at, small, 32);
            Allocator.dealloc(at, Layout::from_size_align(32, 8).expect("a layout"));
        }
    }
}
