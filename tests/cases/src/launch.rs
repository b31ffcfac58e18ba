//! How cases get onto a device: a plan that launches kernels, one a step, each on buffers of its own.

use std::collections::BTreeMap;

use linc_plan::{ALIGN, Action, Category, Plan, Ref, Space, Step};
use linc_tile::Kernel;
use linc_tile::interp::Buffer;

/// Bytes before and behind each buffer that no kernel may write: as many as keep buffers aligned.
const GUARD: u64 = ALIGN;
/// What is in them: a NaN of either type, so that a result that was computed from it shows.
const GUARD_BYTE: u8 = 0xff;

/// Where the buffers of one launch are: a part of the arena that begins and ends with guard bytes.
#[derive(Clone, Debug)]
pub struct Span {
    /// First byte in the arena.
    pub start: u64,
    /// Bytes, the last guard included.
    pub len: u64,
    /// First byte of each buffer, from the start of the span.
    offsets: Vec<u64>,
}

impl Span {
    fn new(start: u64, buffers: &[Buffer]) -> Span {
        let (mut end, mut offsets) = (GUARD, vec![]);
        for buffer in buffers {
            offsets.push(end);
            end = (end + bytes(buffer).len() as u64 + GUARD).next_multiple_of(ALIGN);
        }
        Span { start, len: end, offsets }
    }

    /// The span's bytes before a launch.
    pub fn image(&self, buffers: &[Buffer]) -> Vec<u8> {
        let mut image = vec![GUARD_BYTE; self.len as usize];
        for (buffer, at) in buffers.iter().zip(&self.offsets) {
            let bytes = bytes(buffer);
            image[*at as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        image
    }

    /// The buffers in the span's bytes after a launch; those before it say types and lengths.
    ///
    /// # Errors
    /// The number of the buffer that something was written before or behind.
    pub fn buffers(&self, image: &[u8], before: &[Buffer]) -> Result<Vec<Buffer>, usize> {
        let (mut after, mut end) = (vec![], 0);
        for (index, (buffer, at)) in before.iter().zip(&self.offsets).enumerate() {
            let (at, len) = (*at as usize, bytes(buffer).len());
            if image[end..at].iter().any(|b| *b != GUARD_BYTE) {
                return Err(index);
            }
            after.push(from_bytes(buffer, &image[at..at + len]));
            end = at + len;
        }
        match image[end..].iter().any(|b| *b != GUARD_BYTE) {
            true => Err(before.len().saturating_sub(1)),
            false => Ok(after),
        }
    }
}

/// A plan whose step i launches kernel i on its buffers, and where those are. Kernels of one name are one.
pub fn launches(cases: &[(&Kernel, &[Buffer])]) -> (Plan, Vec<Span>) {
    let mut plan = Plan {
        name: cases.first().map_or_else(String::new, |(kernel, _)| kernel.name.clone()),
        persistent_bytes: 0,
        scratch_bytes: 0,
        buffers: vec![],
        kernels: vec![],
        steps: vec![],
        bindings: vec![],
        world: linc_plan::World::default(),
    };
    let (mut known, mut spans) = (BTreeMap::new(), vec![]);
    for (kernel, buffers) in cases {
        let span = Span::new(plan.persistent_bytes, buffers);
        let first = plan.buffers.len();
        for (buffer, at) in buffers.iter().zip(&span.offsets) {
            plan.buffers.push(linc_plan::Buffer {
                name: format!("b{}", plan.buffers.len()),
                space: Space::Persistent,
                offset: span.start + at,
                bytes: bytes(buffer).len() as u64,
                category: Category::Inputs,
                live: (0, cases.len().saturating_sub(1)),
            });
        }
        let index = *known.entry(kernel.name.clone()).or_insert_with(|| {
            plan.kernels.push(linc_plan::Kernel {
                name: kernel.name.clone(),
                family: linc_tile::library::family(&kernel.name).to_string(),
                text: kernel.to_string(),
                grid: kernel.grid,
                written: kernel.written(),
            });
            plan.kernels.len() - 1
        });
        let args = (first..plan.buffers.len()).map(|buffer| Ref { buffer, offset: 0 }).collect();
        plan.steps.push(Step {
            action: Action::Launch { kernel: index, args },
            label: kernel.name.as_str().into(),
            // Enough that a device uses all of its threads.
            flops: 1 << 40,
            bytes: 0,
        });
        plan.persistent_bytes += span.len;
        spans.push(span);
    }
    (plan, spans)
}

/// A buffer as memory, little-endian.
pub fn bytes(buffer: &Buffer) -> Vec<u8> {
    match buffer {
        Buffer::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Bf16(x) | Buffer::F16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::I32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F64(_) => panic!("no machine buffer holds f64"),
    }
}

/// Memory as a buffer of the type of `like`.
pub fn from_bytes(like: &Buffer, bytes: &[u8]) -> Buffer {
    let words = || bytes.as_chunks::<4>().0.iter().copied();
    let halves = || bytes.as_chunks().0.iter().copied().map(u16::from_le_bytes);
    match like {
        Buffer::F32(_) => Buffer::F32(words().map(f32::from_le_bytes).collect()),
        Buffer::I32(_) => Buffer::I32(words().map(i32::from_le_bytes).collect()),
        Buffer::Bf16(_) => Buffer::Bf16(halves().collect()),
        Buffer::F16(_) => Buffer::F16(halves().collect()),
        Buffer::F64(_) => panic!("no machine buffer holds f64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_notice_writes_and_buffers_come_back() {
        let buffers =
            [Buffer::F32(vec![1.0, 2.0, 3.0]), Buffer::Bf16(vec![7; 33]), Buffer::I32(vec![-1; 16])];
        let span = Span::new(128, &buffers);
        let image = span.image(&buffers);
        assert!(image.len() as u64 == span.len && span.len.is_multiple_of(ALIGN));
        assert_eq!(span.buffers(&image, &buffers), Ok(buffers.to_vec()));
        for (index, at) in span.offsets.iter().enumerate() {
            let mut touched = image.clone();
            touched[*at as usize - 1] = 0;
            assert_eq!(span.buffers(&touched, &buffers), Err(index));
        }
        let mut touched = image;
        *touched.last_mut().expect("a guard") = 0;
        assert_eq!(span.buffers(&touched, &buffers), Err(2));
    }
}
