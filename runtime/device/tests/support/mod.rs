//! Runs tile kernels through plans on the CPU and on the tile interpreter.
#![allow(dead_code, reason = "each test file uses its own part")]

use linc_cases::Case;
use linc_codegen_cpu::tile::interp::Buffer;
use linc_codegen_cpu::tile::{Kernel, Mode};
use linc_device::Device;
use linc_device::cpu::{Cpu, CpuOptions, Level};
use linc_device::plan::{self, Action, Category, Plan, Ref, Space, Step};

pub(crate) fn bytes(buffer: &Buffer) -> Vec<u8> {
    match buffer {
        Buffer::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Bf16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::I32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F64(_) => panic!("no machine buffer holds f64"),
    }
}

fn from_bytes(like: &Buffer, bytes: &[u8]) -> Buffer {
    let words = || bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    match like {
        Buffer::F32(_) => Buffer::F32(words().map(f32::from_le_bytes).collect()),
        Buffer::I32(_) => Buffer::I32(words().map(i32::from_le_bytes).collect()),
        Buffer::Bf16(_) => {
            Buffer::Bf16(bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect())
        }
        Buffer::F64(_) => panic!("no machine buffer holds f64"),
    }
}

/// One launch of a kernel on persistent buffers.
pub(crate) fn single(kernel: &Kernel, buffers: &[Buffer]) -> (Plan, Vec<u64>) {
    let mut offsets = vec![];
    let mut end = 0;
    let mut planned = vec![];
    for (i, buffer) in buffers.iter().enumerate() {
        let len = bytes(buffer).len() as u64;
        offsets.push(end);
        planned.push(plan::Buffer {
            name: format!("b{i}"),
            space: Space::Persistent,
            offset: end,
            bytes: len,
            category: Category::Inputs,
            live: (0, 0),
        });
        end += len.next_multiple_of(plan::ALIGN);
    }
    let args = (0..buffers.len()).map(|buffer| Ref { buffer, offset: 0 }).collect();
    let step = Step {
        action: Action::Launch { kernel: 0, args },
        label: kernel.name.clone(),
        flops: 1 << 40,
        bytes: 0,
    };
    let plan = Plan {
        name: kernel.name.clone(),
        persistent_bytes: end,
        scratch_bytes: 0,
        buffers: planned,
        kernels: vec![plan::Kernel {
            name: kernel.name.clone(),
            text: kernel.to_string(),
            grid: kernel.grid,
        }],
        steps: vec![step],
        bindings: vec![],
    };
    (plan, offsets)
}

/// Runs a kernel on the machine.
pub(crate) fn run_on(cpu: &mut Cpu, kernel: &Kernel, buffers: &[Buffer]) -> Vec<Buffer> {
    let (plan, offsets) = single(kernel, buffers);
    let arena = cpu.allocate(plan.persistent_bytes).expect("memory");
    let program = cpu.load(&plan, arena, plan.persistent_bytes).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    for (buffer, at) in buffers.iter().zip(&offsets) {
        cpu.write(arena, *at, &bytes(buffer)).expect("inside");
    }
    cpu.launch(program, 0..1).expect("one step");
    cpu.synchronize().expect("nothing fails");
    let mut out = vec![];
    for (buffer, at) in buffers.iter().zip(&offsets) {
        let mut raw = bytes(buffer);
        cpu.read(arena, *at, &mut raw).expect("inside");
        out.push(from_bytes(buffer, &raw));
    }
    out
}

/// All devices that a kernel should give the same results on.
pub(crate) fn devices() -> Vec<Cpu> {
    let mut devices = vec![];
    for level in Level::available() {
        for threads in [1, 2] {
            let options = CpuOptions { threads: Some(threads), level: Some(level) };
            devices.push(Cpu::new(options).expect("an available level"));
        }
    }
    devices
}

/// Compares a kernel on all devices with the interpreter: equal bits for any number of threads, and close to the
/// reference by an absolute tolerance plus a share of each value.
pub(crate) fn check(devices: &mut [Cpu], case: &Case) {
    let Case { kernel, buffers, .. } = case;
    let expected = case.expected();
    let mut previous: Option<(Level, Vec<Buffer>)> = None;
    for cpu in devices {
        let actual = run_on(cpu, kernel, buffers);
        if let Some((level, bits)) = &previous
            && *level == cpu.level()
        {
            for (a, b) in bits.iter().zip(&actual) {
                assert!(bytes(a) == bytes(b), "{}: the number of threads changes bits", kernel.name);
            }
        }
        for (k, (a, e)) in actual.iter().zip(&expected).enumerate() {
            if kernel.params[k].mode == Mode::Read {
                assert!(bytes(a) == bytes(e), "{}: an input has changed", kernel.name);
            }
        }
        if let Some(difference) = case.difference(&actual, &expected) {
            panic!("{difference} on {}\n{kernel}", cpu.describe());
        }
        previous = Some((cpu.level(), actual));
    }
}
