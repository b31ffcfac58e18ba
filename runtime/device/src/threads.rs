//! Threads that may be refused: by a limit of the process, or of what it is in. What runs on many must run on fewer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// The most threads that a CPU is opened with: more than any machine runs at once.
pub const MOST: usize = 4096;

/// Threads that the machine runs at once, as far as this process may use it: its affinity and the quota of its control
/// group count. 1 where the system does not say.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Starts a thread; nothing if the system has none to give.
pub fn spawn<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.into()).spawn_scoped(scope, work).ok()
}

/// Results for all items, in order, computed by up to `count` threads; `progress` hears on the calling one how many of how
/// many are done.
///
/// # Errors
/// That of the first item that has one, whatever the threads: after it no other is begun.
pub(crate) fn try_map<T: Sync, R: Send, E: Send>(
    count: usize,
    items: &[T],
    work: &(dyn Fn(&T) -> Result<R, E> + Sync),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<R>, E> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<Option<Result<R, E>>>> = Mutex::new(items.iter().map(|_| None).collect());
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
        for number in 1..count.min(items.len()) {
            if spawn(scope, &format!("linc-compile-{number}"), move || while one() {}).is_none() {
                break;
            }
        }
        while one() {
            progress(done.load(Ordering::Relaxed), items.len());
        }
    });
    progress(done.into_inner(), items.len());
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
            let double = |i: &usize| Ok::<_, String>(2 * i);
            let results = try_map(count, &items, &double, &mut |done, total| told.push((done, total)));
            assert_eq!(results, Ok((0..200).step_by(2).collect()));
            assert_eq!(told.last(), Some(&(100, 100)));
            assert!(told.is_sorted());
        }
        assert_eq!(try_map(4, &[] as &[usize], &|_| Ok::<(), ()>(()), &mut |_, _| {}), Ok(vec![]));
    }

    #[test]
    fn the_first_error_is_given() {
        let items: Vec<usize> = (0..100).collect();
        for count in [1, 4] {
            let begun = AtomicUsize::new(0);
            let work = |i: &usize| {
                begun.fetch_add(1, Ordering::Relaxed);
                if *i >= 10 { Err(*i) } else { Ok(*i) }
            };
            assert_eq!(try_map(count, &items, &work, &mut |_, _| {}), Err(10));
            assert!(begun.into_inner() < 11 + count);
        }
    }
}
