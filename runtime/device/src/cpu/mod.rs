//! The CPU: generated code for kernels, packed matmuls, threads over the pieces of a step.

mod arena;
mod exchanges;
mod gemm;
mod jit;
mod limits;
mod peak;
mod pool;
mod primitives;
mod program;
mod scratch;
mod speeds;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linc_codegen_cuda::Arch;
use linc_plan::{Action, DType, Plan, Step};

use crate::available_memory::Available;
use crate::comm::{SharedRanks, groups_of};
use crate::device::{Progress, missing};
use crate::{Arena, Device, DeviceError, Program, threads, words};
use arena::Memory;
use exchanges::Exchanges;
use jit::Jit;
pub use limits::available;
use peak::Peak;
use pool::Pool;
pub use primitives::Level;
pub(crate) use primitives::normal;
use program::{LoadedProgram, Maker};
use scratch::Scratch;
pub use speeds::{CpuLimits, LevelPeak};

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
    programs: Vec<(Arena, LoadedProgram)>,
    progress: Progress,
    exchanges: Exchanges,
    /// What this rank may allocate, where there are others.
    share: Option<Available>,
    /// Measured when somebody asks, of the number format that programs multiply in.
    peak: Option<Peak>,
    /// A program multiplies bfloat16.
    narrow: bool,
}

impl Drop for Cpu {
    fn drop(&mut self) {
        if self.exchanges.is_under_way() {
            // A step has ended between the start of an exchange and its end, by an error or a panic. The ranks live longer than this
            // device and tell the others of it, and their libraries may read and write those places meanwhile.
            std::mem::forget(std::mem::take(&mut self.arenas));
        }
    }
}

impl Cpu {
    /// Starts the threads and the code generator.
    ///
    /// Where the system refuses some of the threads, by a limit of this process, there are fewer.
    ///
    /// Errors: [`DeviceError::Unsupported`] for a level that the machine does not have, and 0 or more than
    /// [`threads::MOST`] threads.
    pub fn new(options: CpuOptions) -> Result<Cpu, DeviceError> {
        let level = options.level.unwrap_or_else(Level::detect);
        if !Level::available().contains(&level) {
            let names: Vec<&str> = Level::available().iter().map(|l| l.name()).collect();
            let (level, names) = (level.name(), names.join(", "));
            return Err(DeviceError::Unsupported(format!("this machine has no {level}; it has {names}")));
        }
        let threads = match options.threads {
            Some(0) => return Err(DeviceError::Unsupported("0 threads; use at least 1".into())),
            Some(count) if count > threads::MOST => {
                let most = threads::MOST;
                return Err(DeviceError::Unsupported(format!(
                    "{}; use at most {most}",
                    words::count(count, "thread")
                )));
            }
            Some(count) => count,
            None => threads::available().min(threads::MOST),
        };
        let pool = Pool::new(threads);
        let scratch = Scratch::new(pool.threads());
        Ok(Cpu {
            level,
            jit: Jit::new(level)?,
            pool,
            scratch,
            arenas: vec![],
            programs: vec![],
            progress: Box::new(|_, _| true),
            exchanges: Exchanges::default(),
            share: None,
            peak: None,
            narrow: false,
        })
    }

    /// Instruction set in use.
    pub fn level(&self) -> Level {
        self.level
    }

    fn peak(&mut self) -> &mut Peak {
        let threads = self.pool.threads();
        let level = if self.narrow { self.level } else { self.level.of_floats() };
        self.peak.get_or_insert_with(|| Peak::of(level, threads))
    }

    fn memory(&self, arena: Arena) -> Result<&Memory, DeviceError> {
        self.arenas.get(arena.0).ok_or_else(|| missing("arena", arena.0, self.arenas.len()))
    }
}

impl Device for Cpu {
    fn describe(&self) -> String {
        let threads = self.threads();
        format!("cpu, {}, {}", self.level.name(), words::count(threads, "thread"))
    }

    fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn arch(&self) -> Option<Arch> {
        None
    }

    fn available(&self) -> Option<Available> {
        limits::available()
    }

    fn allotted(&self) -> Option<Available> {
        self.share.clone().or_else(|| self.available())
    }

    fn total_bytes(&self) -> Option<u64> {
        limits::total_bytes()
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

    fn host_memory(&mut self, arena: Arena) -> Result<Option<&mut [u8]>, DeviceError> {
        let len = self.arenas.len();
        let memory = self.arenas.get_mut(arena.0).ok_or_else(|| missing("arena", arena.0, len))?;
        Ok(Some(memory.bytes()))
    }

    fn read(&self, arena: Arena, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.memory(arena)?.read(offset, bytes)
    }

    fn connect(&mut self, ranks: SharedRanks) -> Result<(), DeviceError> {
        let available = limits::available();
        let sharing = ranks.borrow_mut().ranks_of_machine();
        let sharing = sharing.map_err(|error| DeviceError::Ranks(Box::new(error)))?;
        self.share = available.map(|available| available.share(sharing));
        self.exchanges.connect(ranks);
        Ok(())
    }

    fn load(&mut self, plan: &Plan, arena: Arena, scratch: u64) -> Result<Program, DeviceError> {
        let len = self.memory(arena)?.len() as u64;
        let threads = self.pool.threads();
        let groups = groups_of(plan, self.exchanges.ranks())?;
        let (jit, level, progress) = (&mut self.jit, self.level, &mut self.progress);
        let loaded =
            LoadedProgram::new(plan, &groups, scratch, len, Maker { jit, level, threads, progress })?;
        self.scratch.reserve(loaded.needs())?;
        let is_narrow = |step: &Step| matches!(&step.action, Action::Gemm(g) if g.dtype == DType::Bf16);
        if !self.narrow && plan.steps.iter().any(is_narrow) {
            (self.narrow, self.peak) = (true, None);
        }
        self.programs.push((arena, loaded));
        Ok(Program(self.programs.len() - 1))
    }

    fn watch(&mut self, progress: Progress) {
        self.progress = progress;
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
            unsafe { loaded.run(step, memory.start(), &mut self.pool, &self.scratch, &mut self.exchanges) }?;
        }
        Ok(())
    }

    fn launch_until(
        &mut self,
        program: Program,
        last: usize,
        stop: &AtomicBool,
    ) -> Result<bool, DeviceError> {
        let len = self.programs.get(program.0).map_or(0, |(_, loaded)| loaded.len());
        let last = last.min(len);
        for step in 0..last {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.launch(program, step..step + 1)?;
        }
        self.launch(program, last..len)?;
        Ok(true)
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
        self.peak().flops()
    }

    fn describe_peak(&mut self) -> String {
        self.peak().describe()
    }

    fn reached(&mut self, flops: f64) {
        self.peak().reached(flops);
    }

    fn cpu_limits(&mut self) -> Option<CpuLimits> {
        let limits = CpuLimits::measure(&mut self.pool);
        // What others kept the first measure from.
        for peak in &limits.peaks {
            self.peak().reached(peak.all_threads);
        }
        Some(limits)
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}
