//! Runs a plan as a GPU would, on the host: generated CUDA kernels on the emulator, matmuls and copies by plain loops.

use std::collections::BTreeMap;

use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel, compile};
use linc_device::cpu::{Cpu, CpuOptions};
use linc_emulator::{Built, Emulator, LaunchOptions};
use linc_exec::Executor;
use linc_ir::interp::Bindings;
use linc_plan::{Action, Binding, DType, Gemm, Plan, Ref, Role, Space};
use linc_tile::interp::Buffer;
use linc_tile::{Kernel, Mode};

use crate::compiled::{buffer, bytes, elem};

/// Outputs, and parameters and states after one run, by name; nothing where there is no C++ compiler.
///
/// # Panics
/// If a kernel does not compile, or the emulator finds a fault: the tests that ask for it cannot go on.
pub fn run(plan: &Plan, bindings: &Bindings<f64>) -> Option<BTreeMap<String, Vec<f64>>> {
    let emulator = Emulator::find()?;
    let mut machine = Machine::load(plan, &emulator);
    machine.initialize(bindings);
    for step in &plan.steps {
        match &step.action {
            Action::Launch { kernel, args } => machine.launch(*kernel, args),
            Action::Gemm(gemm) => machine.gemm(gemm),
            Action::Copy { from, to, bytes } => {
                let (from, to) = (machine.at(*from), machine.at(*to));
                machine.arena.copy_within(from..from + *bytes as usize, to);
            }
            Action::Start { .. } | Action::Wait { .. } => panic!("{}: one rank is emulated", step.label),
        }
    }
    let result = |b: &Binding| matches!(b.role, Role::Output | Role::Param | Role::State(_));
    Some(plan.bindings.iter().filter(|b| result(b)).map(|b| (b.name.clone(), machine.floats(b))).collect())
}

struct Machine<'p> {
    plan: &'p Plan,
    arena: Vec<u8>,
    tiles: Vec<Kernel>,
    kernels: Vec<CudaKernel>,
    alignment: Vec<Vec<u32>>,
    built: Built,
}

impl<'p> Machine<'p> {
    fn load(plan: &'p Plan, emulator: &Emulator) -> Machine<'p> {
        let parse = |k: &linc_plan::Kernel| linc_tile::parse(&k.text).unwrap_or_else(|e| panic!("{e}"));
        let tiles: Vec<Kernel> = plan.kernels.iter().map(parse).collect();
        let alignment: Vec<Vec<u32>> = (0..tiles.len()).map(|k| plan.argument_alignment(k)).collect();
        let generate = |(tile, alignment): (&Kernel, &Vec<u32>)| {
            let options = CudaCodegenOptions { arch: Arch::Sm90a, alignment: alignment.clone() };
            compile(tile, &options).unwrap_or_else(|e| panic!("{e}"))
        };
        let kernels: Vec<CudaKernel> = tiles.iter().zip(&alignment).map(generate).collect();
        let built = emulator.build(&kernels).unwrap_or_else(|e| panic!("{e}"));
        // What nothing wrote is NaN, as the memory of a GPU might be.
        let arena = vec![0xff; plan.arena_bytes() as usize];
        Machine { plan, arena, tiles, kernels, alignment, built }
    }

    /// Byte offset in the arena: persistent part, then scratch.
    fn at(&self, place: Ref) -> usize {
        let buffer = &self.plan.buffers[place.buffer];
        let base = if buffer.space == Space::Persistent { 0 } else { self.plan.persistent_bytes };
        (base + buffer.offset + place.offset) as usize
    }

    /// Persistent tensors as the CPU's executor initializes them, then those that are given.
    fn initialize(&mut self, bindings: &Bindings<f64>) {
        let cpu = Cpu::new(CpuOptions { threads: Some(1), level: None }).unwrap_or_else(|e| panic!("{e}"));
        let mut executor =
            Executor::new(Box::new(cpu), vec![self.plan.clone()]).unwrap_or_else(|e| panic!("{e}"));
        executor.initialize(0).unwrap_or_else(|e| panic!("{e}"));
        for binding in &self.plan.bindings {
            let bytes = match (&binding.role, bindings.get(&binding.name)) {
                (Role::Output, _) => continue,
                (Role::Input, Some(tensor)) => bytes(tensor),
                (Role::Input, None) => panic!("input {} is not given", binding.name),
                (Role::Param | Role::State(_) | Role::Table, given) => {
                    let given = given.map_or(Ok(()), |t| executor.write_tensor(&binding.name, &bytes(t)));
                    given.unwrap_or_else(|e| panic!("{e}"));
                    executor.read_tensor(&binding.name).unwrap_or_else(|e| panic!("{e}"))
                }
            };
            let at = self.at(binding.at);
            self.arena[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Each argument gets what is left of its buffer; afterwards what the kernel may write goes back.
    fn launch(&mut self, kernel: usize, args: &[Ref]) {
        let params = &self.tiles[kernel].params;
        let range = |machine: &Self, place: &Ref| {
            let at = machine.at(*place);
            let left = machine.plan.buffers[place.buffer].bytes - place.offset;
            at..at + left as usize
        };
        let ranges: Vec<_> = args.iter().map(|place| range(self, place)).collect();
        let mut buffers: Vec<Buffer> =
            params.iter().zip(&ranges).map(|(p, r)| buffer(p.elem, &self.arena[r.clone()])).collect();
        let before = self.arena.clone();
        let launch = LaunchOptions { alignment: self.alignment[kernel].clone(), ..LaunchOptions::default() };
        self.built
            .run(kernel, params, &mut buffers, &launch)
            .unwrap_or_else(|e| panic!("{e}\n{}", self.kernels[kernel].text));
        for ((param, buffer), range) in params.iter().zip(&buffers).zip(ranges) {
            if param.mode != Mode::Read {
                // Only what has changed: another argument may lie in the same buffer.
                let (new, old) = (raw(buffer), before[range.clone()].to_vec());
                for (at, (new, old)) in new.iter().zip(&old).enumerate() {
                    if new != old {
                        self.arena[range.start + at] = *new;
                    }
                }
            }
        }
    }

    fn load_float(&self, dtype: DType, at: usize) -> f32 {
        let bits = u16::from_le_bytes([self.arena[at], self.arena[at + 1]]);
        match dtype {
            DType::Bf16 => half::bf16::from_bits(bits).to_f32(),
            DType::F16 => half::f16::from_bits(bits).to_f32(),
            DType::F32 | DType::I32 => f32::from_le_bytes([0, 1, 2, 3].map(|i| self.arena[at + i])),
        }
    }

    fn gemm(&mut self, g: &Gemm) {
        let (a, b, c) = (self.at(g.a), self.at(g.b), self.at(g.c));
        let (width, c_width) = (g.dtype.bytes() as usize, g.c_dtype.bytes() as usize);
        for i in 0..g.m {
            for j in 0..g.n {
                let to = c + (i * g.c_strides.0 + j * g.c_strides.1) * c_width;
                let mut sum = if g.accumulate { self.load_float(g.c_dtype, to) } else { 0.0 };
                for p in 0..g.k {
                    let x = self.load_float(g.dtype, a + (i * g.a_strides.0 + p * g.a_strides.1) * width);
                    let y = self.load_float(g.dtype, b + (p * g.b_strides.0 + j * g.b_strides.1) * width);
                    sum += x * y;
                }
                let rounded = Buffer::from_f64(elem(g.c_dtype), &[f64::from(sum)]).map(|b| raw(&b));
                self.arena[to..to + c_width].copy_from_slice(&rounded.unwrap_or_default());
            }
        }
    }

    fn floats(&self, binding: &Binding) -> Vec<f64> {
        let at = self.at(binding.at);
        buffer(elem(binding.dtype), &self.arena[at..at + binding.bytes() as usize]).to_f64()
    }
}

fn raw(buffer: &Buffer) -> Vec<u8> {
    match buffer {
        Buffer::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Bf16(x) | Buffer::F16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::I32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F64(_) => panic!("no memory holds f64"),
    }
}
