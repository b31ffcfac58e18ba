//! Threads that may be refused: by a limit of the process, or of what it is in. What runs on many must run on fewer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::DeviceError;

/// The most threads that a CPU is opened with: more than any machine runs at once.
pub const MOST: usize = 4096;

/// The stack of a thread that generates code, which goes deep and wide. All of it is asked for at the start, and may be refused
/// then: the stack of the calling thread grows as it is used, and where a limit (ulimit -v) does not let it, the system kills.
const STACK: usize = 4 << 20;
/// How often the calling thread looks whether to go on.
const LOOK: Duration = Duration::from_millis(50);

/// Threads that the machine runs at once, as far as this process may use it: its affinity and the quota of its control
/// group count. 1 where the system does not say.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of stack that nothing on the calling thread goes beyond, but for what recurses.
const FIRST_STACK: usize = 1 << 20;

/// Has the system grow the stack of the calling thread now to what it will need. That of a process's first thread grows where it is
/// used, and where a limit on address space has been reached by then the process ends by a signal, without a word.
pub fn reserve_stack() {
    // Under a limit as small as this nothing can be kept ready.
    if stack_limit().is_some_and(|limit| limit < (2 * FIRST_STACK) as u64) {
        return;
    }
    touch_stack();
}

/// The bytes that the stack of the first thread may have; nothing where there is no limit, or the system does not say.
fn stack_limit() -> Option<u64> {
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?, "Max stack size")
}

/// A limit of the text of /proc/self/limits, whose lines are `NAME  SOFT  HARD  UNIT`: the soft one, which counts; nothing where
/// there is none.
pub(crate) fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[inline(never)]
fn touch_stack() {
    // Written, so that it is not a constant elsewhere.
    let mut room = [0u8; FIRST_STACK];
    std::hint::black_box(&mut room);
}

/// Starts a thread; nothing if the system has none to give.
pub fn spawn<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.into()).spawn_scoped(scope, work).ok()
}

/// Results for all items, in order, computed by up to `count` threads, or by the calling one where there are no others;
/// `progress` hears on the calling one how many of how many are done, and says whether to go on.
///
/// # Errors
/// That of the first item that has one, whatever the threads: after it no other is begun. Where `progress` does not want
/// to go on, [`DeviceError::Interrupted`].
pub(crate) fn try_map<T: Sync, R: Send>(
    count: usize,
    items: &[T],
    work: &(dyn Fn(&T) -> Result<R, DeviceError> + Sync),
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Vec<R>, DeviceError> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<Option<Result<R, DeviceError>>>> =
        Mutex::new(items.iter().map(|_| None).collect());
    let mut goes_on = true;
    // In order, so that all before an error are begun.
    let one = || {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(item) = items.get(index) else { return false };
        let result = work(item);
        if result.is_err() {
            next.fetch_max(items.len(), Ordering::Relaxed);
        }
        results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
        done.fetch_add(1, Ordering::Relaxed);
        true
    };
    let one = &one;
    std::thread::scope(|scope| {
        let (tells, heard) = mpsc::channel();
        let mut threads = 0;
        for number in 1..=count.max(1).min(items.len()) {
            let tells = tells.clone();
            let work = move || {
                while one() {
                    // The calling thread listens until it wants no more.
                    let _ = tells.send(());
                }
            };
            let name = format!("linc-compile-{number}");
            if Builder::new().name(name).stack_size(STACK).spawn_scoped(scope, work).is_err() {
                break;
            }
            threads += 1;
        }
        drop(tells);
        while goes_on && threads == 0 && one() {
            goes_on = progress(done.load(Ordering::Relaxed), items.len());
        }
        while goes_on && heard.recv_timeout(LOOK) != Err(RecvTimeoutError::Disconnected) {
            goes_on = progress(done.load(Ordering::Relaxed), items.len());
        }
        if !goes_on {
            next.fetch_max(items.len(), Ordering::Relaxed);
        }
    });
    if !goes_on || !progress(done.into_inner(), items.len()) {
        return Err(DeviceError::Interrupted);
    }
    // What an error kept from being begun stands behind it.
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_all_are_told() {
        let items: Vec<usize> = (0..100).collect();
        for count in [0, 1, 3, 200] {
            let mut told = vec![];
            let double = |i: &usize| Ok(2 * i);
            let mut tell = |done, total| {
                told.push((done, total));
                true
            };
            let results = try_map(count, &items, &double, &mut tell);
            assert_eq!(results, Ok((0..200).step_by(2).collect()));
            assert_eq!(told.last(), Some(&(100, 100)));
            assert!(told.is_sorted());
        }
        assert_eq!(try_map(4, &[] as &[usize], &|_| Ok(()), &mut |_, _| true), Ok(vec![]));
    }

    #[test]
    fn the_first_error_is_given() {
        let items: Vec<usize> = (0..100).collect();
        for count in [1, 4] {
            let begun = AtomicUsize::new(0);
            let work = |i: &usize| {
                begun.fetch_add(1, Ordering::Relaxed);
                if *i >= 10 { Err(DeviceError::Unsupported(i.to_string())) } else { Ok(*i) }
            };
            let first = Err(DeviceError::Unsupported("10".into()));
            assert_eq!(try_map(count, &items, &work, &mut |_, _| true), first);
            assert!(begun.into_inner() < 11 + count);
        }
    }

    #[test]
    fn who_does_not_want_to_go_on_ends_it() {
        let items: Vec<usize> = (0..100).collect();
        let begun = AtomicUsize::new(0);
        let work = |_: &usize| Ok(begun.fetch_add(1, Ordering::Relaxed));
        let slow = |i: &usize| {
            std::thread::sleep(Duration::from_millis(5));
            work(i)
        };
        assert_eq!(try_map(1, &items, &slow, &mut |done, _| done < 3), Err(DeviceError::Interrupted));
        assert!((3..100).contains(&begun.into_inner()));
        assert_eq!(try_map(1, &[0], &|_| Ok(()), &mut |_, _| false), Err(DeviceError::Interrupted));
    }
}
