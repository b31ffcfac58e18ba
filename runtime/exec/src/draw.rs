//! Initial values of many tensors on many threads. Each thread computes blocks of its own; the calling one also writes
//! them all, since a device has one owner.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use linc_device::{DeviceError, threads};

use crate::init::{Values, Workspace};

/// Receives bytes for a place in a tensor: its number, the offset in bytes, the bytes.
type Sink<'a> = dyn FnMut(usize, u64, &[u8]) -> Result<(), DeviceError> + 'a;

/// Is told how many bytes of how many are written.
type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Blocks that may wait to be written, for each thread.
const WAITING: usize = 2;

struct Block {
    tensor: usize,
    block: usize,
    bytes: Vec<u8>,
}

/// What the threads share.
struct Work<'a> {
    tensors: &'a [Values<'a>],
    /// Number of the first block of each tensor, and of all blocks.
    first: Vec<usize>,
    next: AtomicUsize,
    ends: AtomicBool,
    stop: &'a AtomicBool,
    /// Memory of blocks that are written.
    free: Mutex<Vec<Vec<u8>>>,
}

impl Work<'_> {
    /// Computes the next block that nobody has; nothing if there is none or all is to end.
    fn take(&self, space: &mut Workspace) -> Option<Block> {
        if self.ends.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // The last tensor that begins at or before the block; one without blocks begins where the next one does.
        let tensor = self.first.partition_point(|first| *first <= number).checked_sub(1)?;
        let values = self.tensors.get(tensor)?;
        let block = number - self.first[tensor];
        let mut bytes = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        values.compute(block, space, &mut bytes);
        Some(Block { tensor, block, bytes })
    }

    /// What a helping thread does.
    fn help(&self, full: &SyncSender<Block>) {
        let mut space = Workspace::default();
        while let Some(block) = self.take(&mut space) {
            // Nobody receives any more: the writer has failed.
            if full.send(block).is_err() {
                return;
            }
        }
    }
}

/// Computes the tensors on up to `count` threads and writes them, in no order; false if `stop` was set before the end.
///
/// # Errors
/// The first of the sink's, after which nothing more is written.
pub(crate) fn draw(
    tensors: &[Values<'_>],
    count: usize,
    stop: &AtomicBool,
    write: &mut Sink<'_>,
    progress: &mut Progress<'_>,
) -> Result<bool, DeviceError> {
    let mut first = vec![0];
    for tensor in tensors {
        first.push(first.last().copied().unwrap_or(0) + tensor.blocks());
    }
    let blocks = first.last().copied().unwrap_or(0);
    let total = tensors.iter().map(Values::bytes).sum();
    let work = Work {
        tensors,
        first,
        next: AtomicUsize::new(0),
        ends: AtomicBool::new(false),
        stop,
        free: Mutex::new(vec![]),
    };
    let helpers = count.min(blocks).saturating_sub(1);
    let (full, blocks_to_write) = sync_channel::<Block>(WAITING * (helpers + 1));
    let mut done = 0;
    let mut put = |Block { tensor, block, bytes }: Block| {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let values = &tensors[tensor];
        write(tensor, values.offset(block), &bytes)?;
        done += bytes.len() as u64;
        progress(done, total);
        work.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        Ok(())
    };
    let result = std::thread::scope(|scope| {
        for number in 0..helpers {
            let (work, full) = (&work, full.clone());
            // With fewer threads it takes longer, and that is all.
            if threads::spawn(scope, &format!("linc-init-{number}"), move || work.help(&full)).is_none() {
                break;
            }
        }
        drop(full);
        let mut space = Workspace::default();
        let mut run = || -> Result<(), DeviceError> {
            while let Some(block) = work.take(&mut space) {
                put(block)?;
                blocks_to_write.try_iter().try_for_each(&mut put)?;
            }
            blocks_to_write.iter().try_for_each(&mut put)
        };
        let result = run();
        // A helper that waits for room is told by the receiver's end, one that computes by the flag.
        work.ends.store(true, Ordering::Relaxed);
        drop(blocks_to_write);
        result
    });
    result?;
    Ok(done == total)
}

#[cfg(test)]
mod tests {
    use linc_plan::{Binding, DType, Init, Ref, Role};

    use super::*;
    use crate::init::BLOCK;

    fn bindings() -> Vec<Binding> {
        let binding = |name: &str, dtype, init, shape| Binding {
            name: name.into(),
            role: Role::Param,
            dtype,
            shape,
            at: Ref { buffer: 0, offset: 0 },
            init,
        };
        vec![
            binding("a", DType::F32, Init::Normal { std: 1.0 }, vec![3, BLOCK]),
            binding("empty", DType::F32, Init::Ones, vec![0, 7]),
            binding("b", DType::Bf16, Init::TruncNormal { std: 1.0, bound: 1.5 }, vec![2 * BLOCK + 11]),
            binding("c", DType::F32, Init::Ones, vec![5]),
            binding("d", DType::F32, Init::Rope { freqs: vec![1.0, 0.5] }, vec![BLOCK, 2, 2]),
        ]
    }

    fn drawn(count: usize) -> Vec<Vec<u8>> {
        let bindings = bindings();
        let values: Vec<Values<'_>> = bindings.iter().map(|b| Values::new(b, 9)).collect();
        let mut all: Vec<Vec<u8>> = bindings.iter().map(|b| vec![0xff; b.bytes() as usize]).collect();
        let mut told = vec![];
        let mut write = |tensor: usize, at: u64, bytes: &[u8]| {
            all[tensor][at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        let whole = draw(&values, count, &AtomicBool::new(false), &mut write, &mut |done, total| {
            told.push((done, total));
        });
        assert_eq!(whole, Ok(true));
        assert!(told.is_sorted());
        assert_eq!(told.last().map(|(done, total)| total - done), Some(0));
        all
    }

    #[test]
    fn any_number_of_threads_draws_the_same_bits() {
        let one = drawn(1);
        for count in [2, 3, 16] {
            assert!(drawn(count) == one, "{count} threads");
        }
    }

    #[test]
    fn drawing_stops_when_asked_and_when_a_write_fails() {
        let bindings = bindings();
        let values: Vec<Values<'_>> = bindings.iter().map(|b| Values::new(b, 9)).collect();
        for count in [1, 4] {
            let (stop, mut writes) = (AtomicBool::new(false), 0);
            let mut write = |_: usize, _: u64, _: &[u8]| {
                writes += 1;
                stop.store(true, Ordering::Relaxed);
                Ok(())
            };
            assert_eq!(draw(&values, count, &stop, &mut write, &mut |_, _| {}), Ok(false));
            assert_eq!(writes, 1);
            let failure = DeviceError::Unsupported("full".into());
            let mut write = |_: usize, _: u64, _: &[u8]| Err(failure.clone());
            let failed = draw(&values, count, &AtomicBool::new(false), &mut write, &mut |_, _| {});
            assert_eq!(failed, Err(failure));
        }
    }
}
