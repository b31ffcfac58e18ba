//! A plan with addresses on the GPU: what each step launches, and the CUDA graph that all of them together become.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::CudaGraph;
use cudarc::driver::result as driver;
use cudarc::driver::sys::{
    CUdeviceptr, CUfunction, CUfunction_attribute as FunctionAttribute, CUgraphInstantiate_flags, CUmodule,
    CUstreamCaptureMode, CUtensorMap,
};
use linc_codegen_cuda::{CudaKernel, TensorMap};
use linc_plan::{Action, Plan, Ref, Step};

use super::exchanges::{BoundExchange, Exchanges};
use super::gpu::{Gpu, failed};
use super::matmul::Matmuls;
use super::nvrtc::Cubin;
use super::tensor_map::encode;
use crate::DeviceError;
use crate::comm::Group;
use crate::device::address;

/// A kernel may use this much shared memory without being allowed to.
const USUAL_SHARED: u32 = 48 << 10;
/// Blocks along y and z at most.
const GRID_LIMIT: u32 = 65_535;

/// Loaded machine code by its source text; equal texts are loaded once.
pub(super) struct Modules {
    gpu: Arc<Gpu>,
    loaded: BTreeMap<String, (CUmodule, CUfunction)>,
}

impl Modules {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Modules {
        Modules { gpu: Arc::clone(gpu), loaded: BTreeMap::new() }
    }

    /// Whether a kernel of this text is there.
    pub(super) fn has(&self, kernel: &CudaKernel) -> bool {
        self.loaded.contains_key(&kernel.text)
    }

    /// Hands a kernel's code to the driver.
    ///
    /// # Errors
    /// [`DeviceError::Kernel`]: more shared memory or blocks than the GPU has, or what the driver says.
    pub(super) fn load(&mut self, kernel: &CudaKernel, cubin: &Cubin) -> Result<(), DeviceError> {
        let refused = |message: String| DeviceError::Kernel { kernel: kernel.name.clone(), message };
        let said = |e| refused(failed("loading the machine code")(e).to_string());
        let shared = kernel.shared_bytes + cubin.resources.static_shared;
        if shared > self.gpu.shared_bytes {
            let (have, name) = (self.gpu.shared_bytes, &self.gpu.name);
            return Err(refused(format!(
                "needs {shared} bytes of shared memory; a block of {name} has {have}"
            )));
        }
        if kernel.grid[1..].iter().any(|axis| *axis > GRID_LIMIT) {
            let grid = kernel.grid;
            return Err(refused(format!("has a grid of {grid:?}; the last two axes may have {GRID_LIMIT}")));
        }
        let name = CString::new(kernel.name.as_str()).map_err(|e| refused(e.to_string()))?;
        self.gpu.bind()?;
        // SAFETY: the bytes are a whole object file, as NVRTC made it or the checksum of the cache says.
        let module = unsafe { driver::module::load_data(cubin.bytes.as_ptr().cast()) }.map_err(said)?;
        // SAFETY: the module was just loaded.
        let function = unsafe { driver::module::get_function(module, name) }.map_err(said);
        let function = function.and_then(|function| {
            if shared > USUAL_SHARED {
                let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                let bytes = kernel.shared_bytes as i32;
                // SAFETY: the function is of the module that was just loaded.
                unsafe { driver::function::set_function_attribute(function, attribute, bytes) }
                    .map_err(said)?;
            }
            if kernel.shared_bytes > 0 {
                // As many blocks at once as were compiled for need all of it; what is left is cache.
                let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
                // SAFETY: the function is of the module that was just loaded.
                unsafe { driver::function::set_function_attribute(function, attribute, 100) }
                    .map_err(said)?;
            }
            Ok(function)
        });
        let function = function.inspect_err(|_| {
            // SAFETY: loaded above, and not kept.
            let _ = unsafe { driver::module::unload(module) };
        })?;
        self.loaded.insert(kernel.text.clone(), (module, function));
        Ok(())
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() && self.gpu.synchronize().is_ok() {
            for (module, _) in self.loaded.values() {
                // SAFETY: loaded by this value, and nothing that runs uses it any more.
                let _ = unsafe { driver::module::unload(*module) };
            }
        }
    }
}

/// A kernel with its arguments: pointers, then tensor maps.
struct Launch {
    function: CUfunction,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    args: Vec<CUdeviceptr>,
    maps: Vec<CUtensorMap>,
}

enum BoundStep {
    Launch(Launch),
    Matmul {
        index: usize,
        at: [CUdeviceptr; 3],
    },
    Copy {
        from: CUdeviceptr,
        to: CUdeviceptr,
        bytes: usize,
    },
    Start(BoundExchange),
    /// For the exchange that another step started.
    Wait {
        start: usize,
    },
}

/// What the steps of plans need beside a GPU and kernels.
pub(super) struct Helpers<'a> {
    pub(super) matmuls: &'a mut Matmuls,
    /// The other ranks, where there are any, and the groups of the plan among them.
    pub(super) exchanges: Option<&'a mut Exchanges>,
    pub(super) groups: &'a [Group],
}

/// How all steps together are run.
enum Capture {
    /// Never run: the first run is plain, since the driver and cuBLASLt load code on first use.
    New,
    /// Run once.
    Warm,
    /// The driver's graph of all steps, launched as one.
    Graph(CudaGraph),
    /// The driver does not capture it: it runs step by step.
    Plain,
}

/// A plan that is ready to run.
pub(super) struct LoadedProgram {
    steps: Vec<BoundStep>,
    capture: Capture,
    /// It exchanges with other ranks.
    exchanges: bool,
}

impl LoadedProgram {
    /// Puts addresses into a validated plan whose kernels are loaded. `arena` is the arena's first byte.
    pub(super) fn new(
        plan: &Plan,
        kernels: &[CudaKernel],
        modules: &Modules,
        helpers: Helpers<'_>,
        arena: CUdeviceptr,
        scratch: u64,
    ) -> Result<LoadedProgram, DeviceError> {
        let Helpers { matmuls, mut exchanges, groups } = helpers;
        let invalid = |step: &Step, message: String| DeviceError::Plan {
            plan: plan.name.clone(),
            message: format!("{}: {message}", step.label),
        };
        let at = |r: &Ref| arena + address(plan, r, scratch);
        let mut steps = vec![];
        let mut started = BTreeMap::new();
        for step in &plan.steps {
            steps.push(match &step.action {
                Action::Launch { kernel, args } => {
                    let CudaKernel { text, grid, threads, shared_bytes, maps, .. } = &kernels[*kernel];
                    let (_, function) = modules.loaded[text];
                    let map = |map: &TensorMap| {
                        let arg = &args[map.param];
                        encode(map, at(arg), plan.buffers[arg.buffer].bytes - arg.offset)
                    };
                    BoundStep::Launch(Launch {
                        function,
                        grid: *grid,
                        threads: *threads,
                        shared: *shared_bytes,
                        maps: maps.iter().map(map).collect::<Result<_, _>>()?,
                        args: args.iter().map(at).collect(),
                    })
                }
                Action::Gemm(g) => {
                    let at = [at(&g.a), at(&g.b), at(&g.c)];
                    let index = matmuls.prepare(g, at).map_err(|message| invalid(step, message))?;
                    BoundStep::Matmul { index, at }
                }
                Action::Copy { from, to, bytes } => {
                    BoundStep::Copy { from: at(from), to: at(to), bytes: *bytes as usize }
                }
                Action::Start { exchange, id } => {
                    let (Some(others), Some(group)) = (exchanges.as_deref_mut(), groups.get(exchange.group))
                    else {
                        return Err(invalid(step, "this device has no other ranks to exchange with".into()));
                    };
                    started.insert(*id, steps.len());
                    let places = (at(&exchange.from), at(&exchange.to));
                    let name = step.label.to_string();
                    BoundStep::Start(others.bind(exchange, group, &name, places)?)
                }
                Action::Wait { id } => match started.get(id) {
                    Some(start) => BoundStep::Wait { start: *start },
                    None => return Err(invalid(step, format!("exchange {id} is not begun before"))),
                },
            });
        }
        Ok(LoadedProgram { steps, capture: Capture::New, exchanges: !started.is_empty() })
    }

    /// Number of steps.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Queues steps; all of them as one graph, from the second time on.
    ///
    /// # Safety
    /// The arena that the plan was loaded for is live, and what it was loaded with is `matmuls`.
    pub(super) unsafe fn run(
        &mut self,
        steps: Range<usize>,
        gpu: &Gpu,
        matmuls: &Matmuls,
        others: Option<&Exchanges>,
    ) -> Result<(), DeviceError> {
        gpu.bind()?;
        let all = steps == (0..self.len());
        if all && matches!(self.capture, Capture::Warm) {
            // SAFETY: as the caller promises.
            self.capture = match unsafe { self.capture(gpu, matmuls, others) } {
                Ok(graph) => Capture::Graph(graph),
                // All ranks must run a graph, or none.
                Err(error) if self.exchanges => return Err(error),
                Err(_) => Capture::Plain,
            };
        }
        if all && let Capture::Graph(graph) = &self.capture {
            if let Some(others) = others.filter(|_| self.exchanges) {
                others.launched();
            }
            return graph.launch().map_err(failed("launching a graph"));
        }
        for step in steps {
            // SAFETY: as the caller promises.
            unsafe { self.queue(step, gpu, matmuls, others) }?;
        }
        if all && matches!(self.capture, Capture::New) {
            self.capture = Capture::Warm;
        }
        Ok(())
    }

    /// All steps as one graph. Errors: what the driver says of a step that cannot be a part of one.
    unsafe fn capture(
        &self,
        gpu: &Gpu,
        matmuls: &Matmuls,
        others: Option<&Exchanges>,
    ) -> Result<CudaGraph, DeviceError> {
        let refused = || failed("capturing a graph");
        // What other threads do with the driver is not watched.
        gpu.stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(refused())?;
        // SAFETY: as the caller promises.
        let queued = (0..self.len()).try_for_each(|step| unsafe { self.queue(step, gpu, matmuls, others) });
        // The capture ends in any case.
        let graph = gpu.stream.end_capture(CUgraphInstantiate_flags(0)).map_err(refused());
        queued?;
        graph?.ok_or(DeviceError::Driver { action: "capturing a graph", message: "it is empty".into() })
    }

    /// Queues one step.
    ///
    /// # Safety
    /// As [`LoadedProgram::run`], with the GPU's context bound.
    pub(super) unsafe fn queue(
        &self,
        step: usize,
        gpu: &Gpu,
        matmuls: &Matmuls,
        others: Option<&Exchanges>,
    ) -> Result<(), DeviceError> {
        let stream = gpu.stream.cu_stream();
        match &self.steps[step] {
            BoundStep::Launch(Launch { function, grid, threads, shared, args, maps }) => {
                let maps = maps.iter().map(|map| (&raw const *map).cast_mut().cast());
                let args = args.iter().map(|arg| (&raw const *arg).cast_mut().cast());
                let mut pointers: Vec<*mut c_void> = args.chain(maps).collect();
                let [x, y, z] = *grid;
                // SAFETY: the function takes as many pointers and maps; each is of a live buffer of the arena; the driver
                // copies the arguments before it returns.
                unsafe {
                    driver::launch_kernel(
                        *function,
                        (x, y, z),
                        (*threads, 1, 1),
                        *shared,
                        stream,
                        &mut pointers,
                    )
                }
                .map_err(failed("launching a kernel"))
            }
            // SAFETY: the operands are those it was prepared for, in the arena.
            BoundStep::Matmul { index, at } => unsafe { matmuls.run(*index, *at) },
            // SAFETY: both places are in the arena, and the plan's steps leave them alone until the wait.
            BoundStep::Start(bound) => unsafe { others.map_or(Ok(()), |others| others.start(bound)) },
            BoundStep::Wait { start } => match &self.steps[*start] {
                // SAFETY: the exchange is one of this GPU.
                BoundStep::Start(bound) => unsafe { bound.hold(gpu) },
                _ => Ok(()),
            },
            BoundStep::Copy { bytes: 0, .. } => Ok(()),
            BoundStep::Copy { from, to, bytes } => {
                // SAFETY: the validated ranges are disjoint and within the arena.
                unsafe { driver::memcpy_dtod_async(*to, *from, *bytes, stream) }
                    .map_err(failed("copying on the GPU"))
            }
        }
    }
}
