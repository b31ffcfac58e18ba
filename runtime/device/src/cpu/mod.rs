//! The CPU: generated code for kernels, packed matmuls, threads over the pieces of a step.

mod arena;
mod gemm;
mod jit;
mod pool;
mod primitives;
mod program;
mod scratch;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use linc_codegen_cuda::Arch;
use linc_plan::Plan;

use crate::device::missing;
use crate::{Arena, Device, DeviceError, Program};
use arena::Memory;
use jit::Jit;
use pool::Pool;
pub use primitives::Level;
use program::Loaded;
use scratch::Scratch;

/// How to run on the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuOptions {
    /// Threads; nothing for as many as the machine runs at once.
    pub threads: Option<usize>,
    /// Instruction set; nothing for the best.
    pub level: Option<Level>,
}

/// The CPU as a device.
pub struct Cpu {
    level: Level,
    jit: Jit,
    pool: Pool,
    scratch: Scratch,
    arenas: Vec<Memory>,
    programs: Vec<(Arena, Loaded)>,
}

impl Cpu {
    /// Starts the threads and the code generator.
    ///
    /// Errors: [`DeviceError::Unsupported`] for a level that the machine does not have, 0 threads, or threads that the
    /// system refuses.
    pub fn new(options: CpuOptions) -> Result<Cpu, DeviceError> {
        let level = options.level.unwrap_or_else(Level::detect);
        if !Level::available().contains(&level) {
            let names: Vec<&str> = Level::available().iter().map(|l| l.name()).collect();
            let (level, names) = (level.name(), names.join(", "));
            return Err(DeviceError::Unsupported(format!("this machine has no {level}; it has {names}")));
        }
        let threads = match options.threads {
            Some(0) => return Err(DeviceError::Unsupported("0 threads; use at least 1".into())),
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let pool = Pool::new(threads)
            .map_err(|e| DeviceError::Unsupported(format!("starting {threads} threads: {e}")))?;
        let scratch = Scratch::new(threads);
        Ok(Cpu { level, jit: Jit::new(level)?, pool, scratch, arenas: vec![], programs: vec![] })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Instruction set in use.
    pub fn level(&self) -> Level {
        self.level
    }

    fn memory(&self, arena: Arena) -> Result<&Memory, DeviceError> {
        self.arenas.get(arena.0).ok_or_else(|| missing("arena", arena.0, self.arenas.len()))
    }
}

impl Device for Cpu {
    fn describe(&self) -> String {
        let threads = self.threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("cpu, {}, {threads} thread{plural}", self.level.name())
    }

    fn arch(&self) -> Option<Arch> {
        None
    }

    fn available_bytes(&self) -> Option<u64> {
        arena::available_bytes()
    }

    fn total_bytes(&self) -> Option<u64> {
        arena::total_bytes()
    }

    fn allocate(&mut self, bytes: u64) -> Result<Arena, DeviceError> {
        self.arenas.push(Memory::new(bytes)?);
        Ok(Arena(self.arenas.len() - 1))
    }

    fn write(&mut self, arena: Arena, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let len = self.arenas.len();
        let memory = self.arenas.get_mut(arena.0).ok_or_else(|| missing("arena", arena.0, len))?;
        memory.write(offset, bytes)
    }

    fn read(&self, arena: Arena, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.memory(arena)?.read(offset, bytes)
    }

    fn load(&mut self, plan: &Plan, arena: Arena, scratch: u64) -> Result<Program, DeviceError> {
        let len = self.memory(arena)?.len() as u64;
        let loaded = Loaded::new(plan, scratch, len, &mut self.jit, self.level, self.pool.threads())?;
        self.scratch.reserve(loaded.needs())?;
        self.programs.push((arena, loaded));
        Ok(Program(self.programs.len() - 1))
    }

    fn loading(&self) -> Option<String> {
        None
    }

    fn launch(&mut self, program: Program, steps: Range<usize>) -> Result<(), DeviceError> {
        let len = self.programs.len();
        let (arena, loaded) =
            self.programs.get(program.0).ok_or_else(|| missing("program", program.0, len))?;
        if steps.start > steps.end || steps.end > loaded.len() {
            let (from, to, len) = (steps.start as u64, steps.end as u64, loaded.len() as u64);
            return Err(DeviceError::OutOfBounds { what: "steps", from, to, len });
        }
        let memory = &self.arenas[arena.0];
        for step in steps {
            // SAFETY: the program was validated for this arena, and the scratch area holds what it needs.
            unsafe { loaded.run(step, memory.start(), &mut self.pool, &self.scratch) };
        }
        Ok(())
    }

    fn profile(&mut self, program: Program, times: &mut [Duration]) -> Result<(), DeviceError> {
        let len = self.programs.get(program.0).map_or(0, |(_, loaded)| loaded.len());
        if times.len() != len {
            return Err(missing("times", times.len(), len));
        }
        for (step, time) in times.iter_mut().enumerate() {
            let start = Instant::now();
            self.launch(program, step..step + 1)?;
            *time += start.elapsed();
        }
        Ok(())
    }

    fn peak_flops(&mut self) -> f64 {
        const ROUNDS: usize = 100_000;
        let pieces = 4 * self.pool.threads();
        // The best of some tries: other work on the machine can only make it look slower.
        let tries = (0..5).map(|_| {
            let done = AtomicU64::new(0);
            let start = Instant::now();
            let level = self.level;
            self.pool.run(pieces, 1, &|_, range| {
                for _ in range {
                    let (flops, value) = primitives::peak::multiply_adds(level, ROUNDS);
                    std::hint::black_box(value);
                    done.fetch_add(flops, Ordering::Relaxed);
                }
            });
            done.into_inner() as f64 / start.elapsed().as_secs_f64()
        });
        tries.fold(0.0, f64::max)
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}
