//! Initial values of many tensors on many threads, each of which computes runs of blocks where they belong: in the memory
//! of the device, or in a part of the host's that is copied there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use linc_device::available_memory::zeroed;
use linc_device::{DeviceError, threads};

use crate::init::Values;

/// Receives bytes for a place in a tensor: its number, the offset in bytes, the bytes.
type Sink<'a> = dyn FnMut(usize, u64, &[u8]) -> Result<(), DeviceError> + 'a;

/// Is told how many bytes of how many are there.
type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Blocks that a thread takes at once: of f32, as many bytes as a large page has, so that few threads meet in one when the
/// system maps it.
const RUN: usize = 8;

/// Bytes that are computed before they are copied to a device with a memory of its own.
pub(crate) const STAGED: usize = 64 << 20;

/// Blocks of a tensor from `first` on, and the memory for them.
pub(crate) struct Part<'a, 'm> {
    pub(crate) values: &'a Values<'a>,
    pub(crate) first: usize,
    pub(crate) bytes: &'m mut [u8],
}

/// The memory of each tensor, which begins at its place; they are in the order of places.
///
/// # Errors
/// [`DeviceError::OutOfBounds`] for a tensor outside of the memory, or that overlaps the one before it.
pub(crate) fn parts<'a, 'm>(
    values: &'a [Values<'a>],
    places: &[u64],
    memory: &'m mut [u8],
) -> Result<Vec<Part<'a, 'm>>, DeviceError> {
    let (len, mut rest, mut parts) = (memory.len() as u64, memory, vec![]);
    for (values, from) in values.iter().zip(places) {
        let to = from.saturating_add(values.bytes());
        // Before the place of the tensor nothing is needed, behind it the others are.
        let apart = (len - rest.len() as u64)..=len;
        if !apart.contains(from) || !apart.contains(&to) {
            return Err(DeviceError::OutOfBounds { what: "tensor at bytes", from: *from, to, len });
        }
        let skipped = (from - apart.start()) as usize;
        let (bytes, behind) = rest[skipped..].split_at_mut(values.bytes() as usize);
        parts.push(Part { values, first: 0, bytes });
        rest = behind;
    }
    Ok(parts)
}

/// Computes parts on up to `count` threads, in no order; false if `stop` was set before the end. `progress` hears on the
/// calling thread how many bytes are there.
pub(crate) fn draw(
    parts: Vec<Part<'_, '_>>,
    count: usize,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> bool {
    let total: u64 = parts.iter().map(|part| part.bytes.len() as u64).sum();
    let jobs: usize =
        parts.iter().map(|part| part.bytes.len().div_ceil(part.values.block_bytes() * RUN)).sum();
    let runs = parts.into_iter().flat_map(|Part { values, first, bytes }| {
        let runs = bytes.chunks_mut(values.block_bytes() * RUN).enumerate();
        runs.map(move |(run, bytes)| (values, first + run * RUN, bytes))
    });
    let (runs, done) = (Mutex::new(runs), AtomicU64::new(0));
    let one = || {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let next = runs.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some((values, first, bytes)) = next else { return false };
        for (block, bytes) in bytes.chunks_mut(values.block_bytes()).enumerate() {
            values.compute(first + block, bytes);
        }
        done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        true
    };
    let one = &one;
    std::thread::scope(|scope| {
        for number in 1..count.min(jobs) {
            // With fewer threads it takes longer, and that is all.
            if threads::spawn(scope, &format!("linc-init-{number}"), move || while one() {}).is_none() {
                break;
            }
        }
        while one() {
            progress(done.load(Ordering::Relaxed));
        }
    });
    progress(done.load(Ordering::Relaxed));
    done.into_inner() == total
}

/// Computes whole tensors in up to about `room` bytes at a time, and writes them in order; false if `stop` was set before
/// the end.
///
/// # Errors
/// The first of the sink's, after which nothing more is written, or that the memory is not there.
pub(crate) fn draw_staged(
    tensors: &[Values<'_>],
    room: usize,
    count: usize,
    stop: &AtomicBool,
    write: &mut Sink<'_>,
    progress: &mut Progress<'_>,
) -> Result<bool, DeviceError> {
    let total: u64 = tensors.iter().map(Values::bytes).sum();
    // A block is the least that can be computed.
    let block = tensors.iter().map(Values::block_bytes).max().unwrap_or(0);
    let mut memory: Vec<u8> = zeroed(room.max(block).min(usize::try_from(total).unwrap_or(usize::MAX)))?;
    let (mut tensor, mut from, mut written) = (0, 0, 0);
    while tensor < tensors.len() {
        // Places of what fits: tensor, first block, bytes.
        let (mut parts, mut places, mut rest) = (vec![], vec![], &mut memory[..]);
        while let Some(values) = tensors.get(tensor) {
            let left = (values.bytes() - values.offset(from)) as usize;
            let whole = rest.len() / values.block_bytes() * values.block_bytes();
            let len = if left <= rest.len() { left } else { whole };
            let (bytes, behind) = std::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            places.push((tensor, from, len));
            parts.push(Part { values, first: from, bytes });
            if len < left {
                from += len / values.block_bytes();
                break;
            }
            (tensor, from) = (tensor + 1, 0);
        }
        if !draw(parts, count, stop, &mut |done| progress(written + done, total)) {
            return Ok(false);
        }
        let mut at = 0;
        for (tensor, first, len) in places {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if len > 0 {
                write(tensor, tensors[tensor].offset(first), &memory[at..at + len])?;
            }
            at += len;
        }
        written += at as u64;
    }
    Ok(true)
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
            shard: None,
        };
        vec![
            binding("a", DType::F32, Init::Normal { std: 1.0 }, vec![3, BLOCK]),
            binding("empty", DType::F32, Init::Ones, vec![0, 7]),
            binding("b", DType::Bf16, Init::TruncNormal { std: 1.0, bound: 1.5 }, vec![2 * BLOCK + 11]),
            binding("c", DType::F32, Init::Ones, vec![5]),
            binding("d", DType::F32, Init::Rope { freqs: vec![1.0, 0.5] }, vec![BLOCK, 2, 2]),
            binding("e", DType::F16, Init::Normal { std: 0.1 }, vec![RUN * BLOCK + 1]),
        ]
    }

    fn ended(told: &[u64], total: u64) {
        assert!(told.is_sorted());
        assert_eq!(told.last(), Some(&total));
    }

    /// In place, as for a CPU.
    fn drawn(count: usize) -> Vec<Vec<u8>> {
        let bindings = bindings();
        let values: Vec<Values<'_>> = bindings.iter().map(|b| Values::new(b, 9)).collect();
        let mut all: Vec<Vec<u8>> = bindings.iter().map(|b| vec![0xff; b.bytes() as usize]).collect();
        let mut told = vec![];
        let parts =
            values.iter().zip(&mut all).map(|(values, bytes)| Part { values, first: 0, bytes }).collect();
        assert!(draw(parts, count, &AtomicBool::new(false), &mut |done| told.push(done)));
        ended(&told, bindings.iter().map(Binding::bytes).sum());
        all
    }

    /// By way of a smaller memory, as for a GPU.
    fn drawn_staged(count: usize, room: usize) -> Vec<Vec<u8>> {
        let bindings = bindings();
        let values: Vec<Values<'_>> = bindings.iter().map(|b| Values::new(b, 9)).collect();
        let mut all: Vec<Vec<u8>> = bindings.iter().map(|b| vec![0xff; b.bytes() as usize]).collect();
        let mut told = vec![];
        let mut write = |tensor: usize, at: u64, bytes: &[u8]| {
            all[tensor][at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        let total = bindings.iter().map(Binding::bytes).sum();
        let whole =
            draw_staged(&values, room, count, &AtomicBool::new(false), &mut write, &mut |done, of| {
                assert_eq!(of, total);
                told.push(done);
            });
        assert_eq!(whole, Ok(true));
        ended(&told, total);
        all
    }

    #[test]
    fn any_number_of_threads_draws_the_same_bits_in_place_or_not() {
        let one = drawn(1);
        for count in [2, 3, 16] {
            assert!(drawn(count) == one, "{count} threads");
        }
        for (count, room) in [(1, 0), (2, 1_000_000), (3, usize::MAX)] {
            assert!(drawn_staged(count, room) == one, "{count} threads, {room} bytes at a time");
        }
    }

    #[test]
    fn parts_lie_at_their_places_and_apart() {
        let bindings = bindings();
        let values: Vec<Values<'_>> = [1, 3, 3].map(|i| Values::new(&bindings[i], 9)).into();
        let mut memory = vec![0xff; 100];
        let parts_at = |places: &[u64], memory: &mut [u8]| {
            let parts = parts(&values, places, memory)?;
            Ok(draw(parts, 2, &AtomicBool::new(false), &mut |_| {}))
        };
        assert_eq!(parts_at(&[12, 12, 40], &mut memory), Ok(true));
        for (at, number) in memory.chunks(4).enumerate() {
            let expected =
                if (3..8).contains(&at) || (10..15).contains(&at) { 1f32.to_ne_bytes() } else { [0xff; 4] };
            assert_eq!(number, expected, "{at}");
        }
        for places in [[0, 0, 16], [0, 0, 84], [0, 0, u64::MAX]] {
            let refused = parts_at(&places, &mut memory);
            assert!(matches!(refused, Err(DeviceError::OutOfBounds { .. })), "{places:?}: {refused:?}");
        }
    }

    /// These change where the values do, and so does every run with a seed: then it is a decision, not an accident.
    #[test]
    fn values_are_those_of_before() {
        let all = drawn(2);
        let first: Vec<f32> = all[0].as_chunks().0[..4].iter().map(|b| f32::from_ne_bytes(*b)).collect();
        assert_eq!(first, [0.783_358_04, -0.101_779_535, -2.655_331_9, 1.003_901_5]);
        // All that are random.
        assert_eq!(
            [0, 2, 5].map(|tensor: usize| sum(&all[tensor])),
            [487_894_798, 2_221_007_732, 2_978_635_796]
        );
    }

    /// FNV-1a of the bytes, as a little-endian machine has them.
    fn sum(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
    }

    #[test]
    fn drawing_stops_when_asked_and_when_a_write_fails() {
        let bindings = bindings();
        let values: Vec<Values<'_>> = bindings.iter().map(|b| Values::new(b, 9)).collect();
        for count in [1, 4] {
            let mut bytes = vec![0xff; bindings[0].bytes() as usize];
            let part = Part { values: &values[0], first: 0, bytes: &mut bytes };
            assert!(!draw(vec![part], count, &AtomicBool::new(true), &mut |done| assert_eq!(done, 0)));
            assert!(bytes.iter().all(|byte| *byte == 0xff));

            let (stop, mut writes) = (AtomicBool::new(false), 0);
            let mut write = |_: usize, _: u64, _: &[u8]| {
                writes += 1;
                stop.store(true, Ordering::Relaxed);
                Ok(())
            };
            assert_eq!(draw_staged(&values, 0, count, &stop, &mut write, &mut |_, _| {}), Ok(false));
            assert_eq!(writes, 1);
            let failure = DeviceError::Unsupported("full".into());
            let mut write = |_: usize, _: u64, _: &[u8]| Err(failure.clone());
            let failed =
                draw_staged(&values, STAGED, count, &AtomicBool::new(false), &mut write, &mut |_, _| {});
            assert_eq!(failed, Err(failure));
        }
    }
}
