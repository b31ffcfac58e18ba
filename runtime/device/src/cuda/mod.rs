//! NVIDIA GPUs: generated CUDA C++ that NVRTC compiles for kernels, cuBLASLt for matmuls, NCCL for exchanges with other ranks
//! beside one stream of all else, and a graph of all steps from the second run on.
//!
//! linc is built without any of NVIDIA's software. The driver, NVRTC and cuBLASLt are looked for when a GPU is asked
//! for, NCCL when there are other ranks; what is missing is said with what to install.

mod cache;
mod event;
mod exchanges;
mod gpu;
pub mod gpus;
mod kernels;
mod library;
mod matmul;
mod memory;
mod nccl;
mod nvrtc;
mod profile;
mod program;
mod report;
mod resources;
mod tensor_map;
#[cfg(test)]
mod tests;

use crate::words::{self, count};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use linc_plan::{Action, DType, Plan};

use crate::available_memory::{Available, MemorySource};
use crate::comm::{SharedRanks, groups_of};
use crate::cpu::CpuLimits;
use crate::device::{Progress, check_arena, missing};
use crate::{Arena, Device, DeviceError, Program, threads};
pub use cache::Cache;
use exchanges::Exchanges;
use gpu::Gpu;
pub use gpu::has_driver;
pub use linc_codegen_cuda::Arch;
use linc_codegen_cuda::CudaKernel;
use matmul::Matmuls;
use memory::{Memory, Staging};
pub use nccl::{Nccl, UniqueId};
pub use nvrtc::{Cubin, Nvrtc};
use profile::Events;
use program::{Helpers, LoadedProgram, Modules};
pub use report::{Inspection, KernelReport, Limits, MatmulReport, inspect};
pub use resources::Resources;

/// A GPU as a device.
///
/// Fields that use the GPU stand before it, and what uses memory before the memory: they are freed in this order.
pub struct Cuda {
    /// First, since what follows waits for the GPU, and that for other ranks.
    exchanges: Option<Exchanges>,
    programs: Vec<(Arena, LoadedProgram)>,
    modules: Modules,
    matmuls: Matmuls,
    events: Events,
    staging: Staging,
    arenas: Vec<Memory>,
    gpu: Arc<Gpu>,
    number: usize,
    nvrtc: Nvrtc,
    cache: Cache,
    /// A loaded plan multiplies matrices of 16-bit numbers.
    narrow: bool,
    loaded: LoadTotals,
    progress: Progress,
}

/// What loading plans took.
#[derive(Default)]
struct LoadTotals {
    kernels: usize,
    cached: usize,
    time: Duration,
}

impl Cuda {
    /// Opens a GPU by its number, and the libraries.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] that says what is missing or too old, and what to do.
    pub fn new(number: usize) -> Result<Cuda, DeviceError> {
        let gpu = Arc::new(Gpu::open(number)?);
        let nvrtc = Nvrtc::open()?;
        gpu.accepts(nvrtc.version(), "NVRTC")?;
        Ok(Cuda {
            exchanges: None,
            programs: vec![],
            modules: Modules::new(&gpu),
            matmuls: Matmuls::new(&gpu)?,
            events: Events::new(&gpu),
            staging: Staging::new(&gpu)?,
            arenas: vec![],
            number,
            nvrtc,
            cache: Cache::of_environment(),
            narrow: false,
            loaded: LoadTotals::default(),
            progress: Box::new(|_, _| true),
            gpu,
        })
    }

    /// The number of the GPU of a rank that has `place` others before it on this machine, which each have one.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] where there are fewer GPUs than such ranks, and the environment does not let them share.
    pub fn number_of_rank(place: usize) -> Result<usize, DeviceError> {
        let count = if has_driver() { Gpu::count()? } else { 0 };
        // Where there is none, opening it says why.
        if place < count || count == 0 {
            return Ok(place);
        }
        if exchanges::ranks_may_share() {
            return Ok(place % count);
        }
        let (name, value) = nccl::SHARE_VARIABLE;
        let (have, ranks) = (words::count(count, "GPU"), words::count(place + 1, "rank"));
        Err(DeviceError::Unsupported(format!(
            "there are at least {ranks} on this machine, and the driver sees {have}\n  help: start as many ranks as there are GPUs; with {name}={value} in their environment they share them (NCCL 2.30 or later)"
        )))
    }

    /// Comes back when the GPU has done all that was queued, where it may wait for other ranks meanwhile.
    fn settle(&self) -> Result<(), DeviceError> {
        self.exchanges.as_ref().map_or(Ok(()), Exchanges::settle)
    }

    fn memory(&self, arena: Arena) -> Result<&Memory, DeviceError> {
        self.arenas.get(arena.0).ok_or_else(|| missing("arena", arena.0, self.arenas.len()))
    }
}

impl Cuda {
    /// Loads a validated plan with the kernels that its own were translated to.
    fn load_kernels(
        &mut self,
        plan: &Plan,
        kernels: &[CudaKernel],
        arena: Arena,
        scratch: u64,
    ) -> Result<Program, DeviceError> {
        let start = self.memory(arena)?.start();
        // Code that is loaded may wait for the GPU.
        self.settle()?;
        let groups = groups_of(plan, self.exchanges.as_ref().map(Exchanges::ranks))?;
        if let Some(exchanges) = &mut self.exchanges {
            exchanges.prepare(&groups)?;
        }
        let new: Vec<CudaKernel> = kernels.iter().filter(|k| !self.modules.has(k)).cloned().collect();
        let Cuda { nvrtc, cache, gpu, progress, .. } = self;
        let (codes, cached) =
            kernels::compile(&new, nvrtc, cache, &gpu.target, threads::available(), progress)?;
        for (kernel, code) in new.iter().zip(&codes) {
            self.modules.load(kernel, &code.cubin)?;
        }
        let helpers =
            Helpers { matmuls: &mut self.matmuls, exchanges: self.exchanges.as_mut(), groups: &groups };
        let loaded = LoadedProgram::new(plan, kernels, &self.modules, helpers, start, scratch)?;
        self.narrow |=
            plan.steps.iter().any(|s| matches!(&s.action, Action::Gemm(g) if g.dtype != DType::F32));
        self.loaded.kernels += new.len();
        self.loaded.cached += cached;
        self.programs.push((arena, loaded));
        Ok(Program(self.programs.len() - 1))
    }
}

impl Device for Cuda {
    fn describe(&self) -> String {
        let Gpu { name, capability, driver, target, multiprocessors, .. } = &*self.gpu;
        let ((a, b), (c, d), (e, f)) = (*capability, *driver, self.nvrtc.version());
        let mut text = format!(
            "cuda:{}, {name}, compute capability {a}.{b}, {multiprocessors} multiprocessors, driver of CUDA {c}.{d}, NVRTC {e}.{f}",
            self.number
        );
        if target.real != target.arch.name() {
            text.push_str(&format!(", kernels of {} compiled for {}", target.arch.name(), target.real));
        }
        if let Some(exchanges) = &self.exchanges {
            text.push_str(&format!(", {}", exchanges.describe()));
        }
        text
    }

    fn threads(&self) -> usize {
        threads::available()
    }

    fn arch(&self) -> Option<Arch> {
        Some(self.gpu.target.arch)
    }

    fn connect(&mut self, ranks: SharedRanks) -> Result<(), DeviceError> {
        self.exchanges = Some(Exchanges::connect(&self.gpu, self.number, ranks, &mut self.staging)?);
        Ok(())
    }

    fn allotted(&self) -> Option<Available> {
        self.exchanges.as_ref().and_then(Exchanges::share).or_else(|| self.available())
    }

    fn available(&self) -> Option<Available> {
        self.gpu.memory().map(|(free, _)| Available { bytes: free, source: MemorySource::Gpu })
    }

    fn total_bytes(&self) -> Option<u64> {
        self.gpu.memory().map(|(_, total)| total)
    }

    fn allocate(&mut self, bytes: u64) -> Result<Arena, DeviceError> {
        self.arenas.push(Memory::new(&self.gpu, bytes)?);
        Ok(Arena(self.arenas.len() - 1))
    }

    fn write(&mut self, arena: Arena, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        if self.staging.waits_for(bytes.len()) {
            self.settle()?;
        }
        let len = self.arenas.len();
        let memory = self.arenas.get(arena.0).ok_or_else(|| missing("arena", arena.0, len))?;
        memory.write(offset, bytes, &mut self.staging)
    }

    fn host_memory(&mut self, arena: Arena) -> Result<Option<&mut [u8]>, DeviceError> {
        self.memory(arena).map(|_| None)
    }

    fn read(&self, arena: Arena, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.settle()?;
        self.memory(arena)?.read(offset, bytes)
    }

    fn load(&mut self, plan: &Plan, arena: Arena, scratch: u64) -> Result<Program, DeviceError> {
        check_arena(plan, scratch, self.memory(arena)?.len())?;
        let begun = Instant::now();
        let arch = self.gpu.target.arch;
        let kernels = (0..plan.kernels.len()).map(|i| kernels::translate(plan, i, arch));
        let kernels = kernels.collect::<Result<Vec<_>, _>>()?;
        let program = self.load_kernels(plan, &kernels, arena, scratch)?;
        self.loaded.time += begun.elapsed();
        Ok(program)
    }

    fn watch(&mut self, progress: Progress) {
        self.progress = progress;
    }

    fn loading(&self) -> Option<String> {
        let LoadTotals { kernels, cached, time } = &self.loaded;
        let (arch, seconds) = (&self.gpu.target.real, time.as_secs_f64());
        Some(format!(
            "{} for {arch} in {seconds:.1} s, {cached} of them from the cache",
            count(*kernels, "kernel")
        ))
    }

    fn launch(&mut self, program: Program, steps: Range<usize>) -> Result<(), DeviceError> {
        let len = self.programs.len();
        let (_, loaded) =
            self.programs.get_mut(program.0).ok_or_else(|| missing("program", program.0, len))?;
        if steps.start > steps.end || steps.end > loaded.len() {
            let (from, to, len) = (steps.start as u64, steps.end as u64, loaded.len() as u64);
            return Err(DeviceError::OutOfBounds { what: "steps", from, to, len });
        }
        // SAFETY: arenas are freed after programs, and the plan was validated for its arena.
        unsafe { loaded.run(steps, &self.gpu, &self.matmuls, self.exchanges.as_ref()) }
    }

    fn launch_until(
        &mut self,
        program: Program,
        _last: usize,
        _stop: &AtomicBool,
    ) -> Result<bool, DeviceError> {
        // A launch only queues work; in pieces it would lose the replay of its graph.
        let len = self.programs.get(program.0).map_or(0, |(_, loaded)| loaded.len());
        self.launch(program, 0..len)?;
        Ok(true)
    }

    fn profile(&mut self, program: Program, times: &mut [Duration]) -> Result<(), DeviceError> {
        let len = self.programs.len();
        let (_, loaded) = self.programs.get(program.0).ok_or_else(|| missing("program", program.0, len))?;
        if times.len() != loaded.len() {
            return Err(missing("times", times.len(), loaded.len()));
        }
        let (gpu, matmuls, others) = (&self.gpu, &self.matmuls, self.exchanges.as_ref());
        // SAFETY: as in `launch`, and the events bind the context.
        let mut queue = |step: usize| unsafe { loaded.queue(step, gpu, matmuls, others) };
        let wait = || others.map_or(Ok(()), Exchanges::settle).and_then(|()| gpu.synchronize());
        self.events.time(times, &mut queue, &wait)
    }

    fn peak_flops(&mut self) -> f64 {
        let Gpu { name, capability, multiprocessors, clock, .. } = &*self.gpu;
        let (bf16, f32) = gpus::peak_flops(name, *capability, *multiprocessors, *clock);
        // Tensor cores multiply f16 as fast as bf16.
        if self.narrow { bf16 } else { f32 }
    }

    fn describe_peak(&mut self) -> String {
        let what = if self.narrow { "16-bit matmuls" } else { "float32" };
        format!("{what}, by the GPU's datasheet, or its multiprocessors and clock where it is not listed")
    }

    fn reached(&mut self, _flops: f64) {
        // What a datasheet says is not exceeded.
    }

    fn cpu_limits(&mut self) -> Option<CpuLimits> {
        None
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.settle()?;
        self.gpu.synchronize()
    }
}
