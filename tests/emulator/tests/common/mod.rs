//! What the tests share: kernels, their parameters and buffers.

use linc_codegen_cuda::{CudaKernel, TensorMap};
use linc_emulator::{Emulator, Error, Fault, FaultKind, LaunchOptions, Order, Report};
use linc_tile::interp::Buffer;
use linc_tile::ir::{Elem, Mode, Param};

/// A kernel with the launch that it is tested with.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) kernel: CudaKernel,
    pub(crate) params: Vec<Param>,
    pub(crate) buffers: Vec<Buffer>,
}

impl Case {
    /// `grid` blocks of `threads` threads.
    pub(crate) fn new(name: &str, text: &str, threads: u32, shared_bytes: u32, grid: u32) -> Case {
        let kernel = CudaKernel {
            name: name.into(),
            instructions: String::new(),
            text: text.into(),
            threads,
            shared_bytes,
            registers: 0,
            grid: [grid, 1, 1],
            maps: vec![],
        };
        Case { kernel, params: vec![], buffers: vec![] }
    }

    pub(crate) fn param(mut self, name: &str, mode: Mode, buffer: Buffer) -> Case {
        let elem = match &buffer {
            Buffer::F32(_) | Buffer::F64(_) => Elem::F32,
            Buffer::Bf16(_) => Elem::Bf16,
            Buffer::F16(_) => Elem::F16,
            Buffer::I32(_) => Elem::I32,
        };
        self.params.push(Param { name: name.into(), elem, mode });
        self.buffers.push(buffer);
        self
    }

    /// The case with a part of the kernel's text replaced.
    pub(crate) fn with(mut self, part: &str, by: &str) -> Case {
        assert!(self.kernel.text.contains(part), "{}: no {part:?} in the text", self.kernel.name);
        self.kernel.text = self.kernel.text.replace(part, by);
        self
    }

    /// Runs it; buffers change.
    pub(crate) fn run(&mut self, emulator: &Emulator, options: &LaunchOptions) -> Result<Report, Error> {
        emulator.run(&self.kernel, &self.params, &mut self.buffers, options)
    }

    pub(crate) fn f32(&self, i: usize) -> &[f32] {
        match &self.buffers[i] {
            Buffer::F32(data) => data,
            other => panic!("parameter {i} is {other:?}"),
        }
    }

    pub(crate) fn bf16(&self, i: usize) -> Vec<f32> {
        match &self.buffers[i] {
            Buffer::Bf16(data) => data.iter().map(|x| widen(*x)).collect(),
            other => panic!("parameter {i} is {other:?}"),
        }
    }
}

/// The value of bf16 bits.
pub(crate) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// bf16 bits of a value, nearest even.
pub(crate) fn narrow(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Numbers between -1 and 1 that look random.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

pub(crate) fn bf16_noise(count: usize, seed: u32) -> Buffer {
    Buffer::Bf16(noise(count, seed).into_iter().map(narrow).collect())
}

pub(crate) fn nans(count: usize) -> Buffer {
    Buffer::F32(vec![f32::NAN; count])
}

pub(crate) fn scale() -> Case {
    Case::new("scale", include_str!("../kernels/scale.cu"), 64, 0, 4)
        .param("x", Mode::Read, Buffer::F32(noise(1000, 1)))
        .param("y", Mode::Write, nans(1000))
}

pub(crate) fn block_sum() -> Case {
    Case::new("block_sum", include_str!("../kernels/block_sum.cu"), 256, 1024, 4)
        .param("x", Mode::Read, Buffer::F32(noise(1024, 2)))
        .param("y", Mode::Write, nans(8))
}

pub(crate) fn warp_sum() -> Case {
    Case::new("warp_sum", include_str!("../kernels/warp_sum.cu"), 128, 0, 1)
        .param("x", Mode::Read, bf16_noise(128, 3))
        .param("y", Mode::Write, nans(4))
        .param("z", Mode::Write, nans(128))
}

pub(crate) fn matmul() -> Case {
    Case::new("matmul", include_str!("../kernels/matmul.cu"), 128, 2 * 64 * 64 * 2, 1)
        .param("a", Mode::Read, bf16_noise(64 * 64, 4))
        .param("b", Mode::Read, bf16_noise(64 * 64, 5))
        .param("c", Mode::Write, nans(64 * 64))
}

pub(crate) fn warpgroup() -> Case {
    Case::new("warpgroup", include_str!("../kernels/warpgroup.cu"), 128, 2 * 64 * 64 * 2, 1)
        .param("a", Mode::Read, bf16_noise(64 * 64, 4))
        .param("b", Mode::Read, bf16_noise(64 * 64, 5))
        .param("c", Mode::Write, nans(64 * 64))
}

pub(crate) fn through_shared() -> Case {
    Case::new("through_shared", include_str!("../kernels/through_shared.cu"), 128, 128 * 64, 1)
        .param("x", Mode::Read, bf16_noise(128 * 32, 6))
        .param("y", Mode::Write, Buffer::Bf16(vec![0x7fff; 128 * 32]))
}

/// One head of `blocks` times 64 positions.
pub(crate) fn attention(blocks: u32) -> Case {
    let count = blocks as usize * 64 * 64;
    Case::new("attention", include_str!("../kernels/attention.cu"), 128, 5 * 64 * 64 * 2, blocks)
        .param("q", Mode::Read, bf16_noise(count, 7))
        .param("k", Mode::Read, bf16_noise(count, 8))
        .param("v", Mode::Read, bf16_noise(count, 9))
        .param("o", Mode::Write, Buffer::Bf16(vec![0x7fff; count]))
}

/// Five blocks of 64 rows of the middle third of the columns.
pub(crate) fn pipeline() -> Case {
    let mut case =
        Case::new("pipeline", include_str!("../kernels/pipeline.cu"), 128, 2 * 64 * 64 * 2 + 32, 1)
            .param("x", Mode::Read, bf16_noise(5 * 64 * 192, 10))
            .param("y", Mode::Write, nans(64 * 64));
    case.kernel.maps = vec![TensorMap { param: 0, elem: Elem::Bf16, stride: 192, rows: 64, columns: 64 }];
    case
}

/// Runs a wrong kernel in all orders; the fault must be of that kind and say `what` each time. Returns the first.
#[track_caller]
pub(crate) fn found(case: Case, kind: FaultKind, what: &str) -> Option<Fault> {
    found_any(case, &[kind], what)
}

/// The same where the order decides which of several faults comes first.
#[track_caller]
pub(crate) fn found_any(case: Case, kinds: &[FaultKind], what: &str) -> Option<Fault> {
    let emulator = Emulator::find()?;
    let built = emulator.build(std::slice::from_ref(&case.kernel)).unwrap();
    let faults = Order::ALL.map(|order| {
        let mut buffers = case.buffers.clone();
        let error =
            built.run(0, &case.params, &mut buffers, &LaunchOptions::ordered(order)).expect_err("a fault");
        let fault = error.fault().unwrap_or_else(|| panic!("{error}")).clone();
        println!("{order:?}: {fault}");
        assert!(kinds.contains(&fault.kind), "{order:?}: {fault}");
        assert!(fault.what.contains(what), "{order:?}: {fault}");
        assert_eq!(fault.kernel, case.kernel.name);
        // As text, since NaN is not equal to itself.
        assert!(format!("{buffers:?}") == format!("{:?}", case.buffers), "{order:?}: buffers changed");
        fault
    });
    let [first, ..] = faults;
    Some(first)
}
