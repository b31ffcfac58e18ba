//! The executor: sister plans in one arena.

mod halfway;
mod sums;
mod tensors;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linc_device::available_memory::zeroed;
use linc_device::cpu::CpuLimits;
use linc_device::{Arena, Device, Program};
use linc_plan::{Binding, DType, Init, Plan, Ref, Role, Space};

use crate::ExecError;
use crate::draw::{STAGED, draw, draw_staged, parts};
use crate::init::Values;
use crate::profile::Profile;

pub use halfway::Halfway;
pub use tensors::TensorInfo;

struct LoadedPlan {
    plan: Plan,
    program: Program,
    /// The first step that may change what a checkpoint keeps.
    first_change: usize,
}

/// Sister plans, ready to run.
pub struct Executor {
    device: Box<dyn Device>,
    arena: Arena,
    plans: Vec<LoadedPlan>,
    /// Where scratch begins.
    persistent_bytes: u64,
    scratch_bytes: u64,
    /// Persistent tensors by name, with their byte offset in the arena.
    persistent: BTreeMap<String, (Binding, u64)>,
    /// Something was written or run: persistent tensors need not be zero any more.
    used: bool,
}

impl Executor {
    /// Allocates one arena for all plans and loads them; programs are named by their position in `plans`.
    ///
    /// # Errors
    /// [`ExecError::DoesNotFit`] before anything is allocated, or what the device refuses.
    pub fn new(mut device: Box<dyn Device>, plans: Vec<Plan>) -> Result<Self, ExecError> {
        let persistent_bytes = plans.iter().map(|p| p.persistent_bytes).max().unwrap_or(0);
        let scratch_bytes = plans.iter().map(|p| p.scratch_bytes).max().unwrap_or(0);
        let needed = persistent_bytes.saturating_add(scratch_bytes);
        if let Some(available) = device.allotted().filter(|a| a.bytes < needed) {
            return Err(ExecError::DoesNotFit { needed, available });
        }
        let arena = device.allocate(needed)?;
        let mut persistent = BTreeMap::new();
        let mut loaded = vec![];
        for plan in plans {
            for binding in &plan.bindings {
                if binding.role.is_persistent() {
                    let at = address(&plan, binding.at, persistent_bytes);
                    let (first, known) =
                        persistent.entry(binding.name.clone()).or_insert_with(|| (binding.clone(), at));
                    agree(first, binding)?;
                    debug_assert_eq!(*known, at, "{} has one place", binding.name);
                }
            }
            let program = device.load(&plan, arena, persistent_bytes)?;
            let first_change = plan.first_write(|role| *role == Role::Param || role.is_optimizer_state());
            loaded.push(LoadedPlan { plan, program, first_change });
        }
        Ok(Executor {
            device,
            arena,
            plans: loaded,
            persistent_bytes,
            scratch_bytes,
            persistent,
            used: false,
        })
    }

    /// One line about the device.
    pub fn describe_device(&self) -> String {
        self.device.describe()
    }

    /// Bytes of memory of the device; 0 if it does not say.
    pub fn device_bytes(&self) -> u64 {
        self.device.total_bytes().unwrap_or(0)
    }

    /// One line about what loading took, if it can take long.
    pub fn loading(&self) -> Option<String> {
        self.device.loading()
    }

    /// Floating-point operations per second that the device could do at most.
    pub fn peak_flops(&mut self) -> f64 {
        self.device.peak_flops()
    }

    /// Where [`Executor::peak_flops`] comes from, in a few words.
    pub fn describe_peak(&mut self) -> String {
        self.device.describe_peak()
    }

    /// Measures what the processor does at most; nothing for a machine that is none.
    pub fn cpu_limits(&mut self) -> Option<CpuLimits> {
        self.device.cpu_limits()
    }

    /// The share of the peak that so many operations per second are; at most 1, since what was reached raises a peak that
    /// was measured too low.
    pub fn share_of_peak(&mut self, flops: f64) -> f64 {
        self.device.reached(flops);
        flops / self.device.peak_flops().max(1.0)
    }

    /// All memory of the loaded plans: what persists and the largest scratch.
    pub fn arena_bytes(&self) -> u64 {
        self.persistent_bytes + self.scratch_bytes
    }

    /// A loaded plan.
    pub fn plan(&self, program: usize) -> &Plan {
        &self.plans[program].plan
    }

    /// Fills all persistent tensors with their initial values.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn initialize(&mut self, seed: u64) -> Result<(), ExecError> {
        self.initialize_until(seed, &AtomicBool::new(false), &mut |_, _| {}).map(|_| ())
    }

    /// As [`Executor::initialize`], for many values: `progress` hears how many bytes of how many are written, and where `stop`
    /// is set before the end, nothing more is written. False if it was: tensors hold anything then.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn initialize_until(
        &mut self,
        seed: u64,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<bool, ExecError> {
        self.fill(seed, &|_, _| true, stop, progress)
    }

    /// Fills persistent tensors whose initial values are not random: tables and states. For those who load all others.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn initialize_constants(&mut self) -> Result<(), ExecError> {
        let constant = |_: &str, init: &Init| match init {
            Init::Normal { .. } | Init::TruncNormal { .. } => false,
            Init::Zeros | Init::Ones | Init::Rope { .. } => true,
        };
        self.fill(0, &constant, &AtomicBool::new(false), &mut |_, _| {}).map(|_| ())
    }

    /// Fills some persistent tensors with the initial values that [`Executor::initialize`] gives them.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn initialize_named(&mut self, seed: u64, names: &[String]) -> Result<(), ExecError> {
        let named = |name: &str, _: &Init| names.iter().any(|known| known == name);
        self.fill(seed, &named, &AtomicBool::new(false), &mut |_, _| {}).map(|_| ())
    }

    fn fill(
        &mut self,
        seed: u64,
        wanted: &dyn Fn(&str, &Init) -> bool,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<bool, ExecError> {
        // An arena is zero at first: the moments of an optimizer, twice as many bytes as the parameters, need no write.
        let is_there = |init: &Init| *init == Init::Zeros && !self.used;
        let mut tensors: Vec<(u64, Values<'_>)> = self
            .persistent
            .values()
            .filter(|(binding, _)| wanted(&binding.name, &binding.init) && !is_there(&binding.init))
            .map(|(binding, at)| (*at, Values::new(binding, seed)))
            .collect();
        tensors.sort_by_key(|(at, _)| *at);
        let (places, values): (Vec<u64>, Vec<Values<'_>>) = tensors.into_iter().unzip();
        self.used = true;
        let (device, arena) = (&mut self.device, self.arena);
        let threads = device.threads();
        if let Some(memory) = device.host_memory(arena)? {
            let total = values.iter().map(Values::bytes).sum();
            let parts = parts(&values, &places, memory)?;
            return Ok(draw(parts, threads, stop, &mut |done| progress(done, total)));
        }
        let mut write =
            |tensor: usize, offset: u64, bytes: &[u8]| device.write(arena, places[tensor] + offset, bytes);
        Ok(draw_staged(&values, STAGED, threads, stop, &mut write, progress)?)
    }

    /// Share of the device's memory that is free, if it says so.
    pub fn free_share(&self) -> Option<f64> {
        let (free, total) = self.device.available().zip(self.device.total_bytes())?;
        Some(free.bytes as f64 / total.max(1) as f64)
    }

    /// Feeds an input of a program.
    ///
    /// # Errors
    /// [`ExecError::Tensor`] if the program has no such input, or one of another size.
    pub fn write_input(&mut self, program: usize, name: &str, bytes: &[u8]) -> Result<(), ExecError> {
        let plan = &self.plans[program].plan;
        let binding = plan.binding(Role::Input, name).ok_or_else(|| missing(name))?;
        check_size(binding, bytes.len())?;
        let at = address(plan, binding.at, self.persistent_bytes);
        Ok(self.device.write(self.arena, at, bytes)?)
    }

    /// Runs a program once.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn run(&mut self, program: usize) -> Result<(), ExecError> {
        self.used = true;
        let LoadedPlan { plan, program, .. } = &self.plans[program];
        self.device.launch(*program, 0..plan.steps.len())?;
        Ok(self.device.synchronize()?)
    }

    /// Runs a program once, or only a part of it if `stop` is set before it begins to change what a checkpoint keeps,
    /// parameters and the optimizer's state: those are as they were then, all other tensors hold anything, and the answer
    /// is false.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn run_until(&mut self, program: usize, stop: &AtomicBool) -> Result<bool, ExecError> {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.used = true;
        let LoadedPlan { program, first_change, .. } = &self.plans[program];
        let whole = self.device.launch_until(*program, *first_change, stop)?;
        self.device.synchronize()?;
        Ok(whole)
    }

    /// Runs a program once and returns the time of each step, by the device's own clock.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn step_times(&mut self, program: usize) -> Result<Vec<Duration>, ExecError> {
        self.used = true;
        let LoadedPlan { plan, program, .. } = &self.plans[program];
        let mut times = vec![Duration::ZERO; plan.steps.len()];
        self.device.profile(*program, &mut times)?;
        Ok(times)
    }

    /// Runs a program once, adds the time of each step to a profile, and returns these times.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn run_profiled(
        &mut self,
        program: usize,
        profile: &mut Profile,
    ) -> Result<Vec<Duration>, ExecError> {
        let times = self.step_times(program)?;
        profile.add(&self.plans[program].plan, &times);
        Ok(times)
    }

    /// An f32 output of the last run of a program, valid until the next run.
    ///
    /// # Errors
    /// [`ExecError::Tensor`] if the program has no such output.
    pub fn output(&self, program: usize, name: &str) -> Result<Vec<f32>, ExecError> {
        self.output_of(program, name, DType::F32)
    }

    /// An i32 output, as [`Executor::output`].
    ///
    /// # Errors
    /// [`ExecError::Tensor`] if the program has no such output.
    pub fn output_ids(&self, program: usize, name: &str) -> Result<Vec<i32>, ExecError> {
        self.output_of(program, name, DType::I32)
    }

    fn output_of<T: bytemuck::Pod + Default>(
        &self,
        program: usize,
        name: &str,
        dtype: DType,
    ) -> Result<Vec<T>, ExecError> {
        let plan = &self.plans[program].plan;
        let binding = plan.binding(Role::Output, name).ok_or_else(|| missing(name))?;
        if binding.dtype != dtype {
            return Err(ExecError::Tensor {
                name: name.into(),
                message: format!("is {:?}, not {dtype:?}", binding.dtype),
            });
        }
        let mut values: Vec<T> = zeroed(binding.shape.iter().product())?;
        let at = address(plan, binding.at, self.persistent_bytes);
        self.device.read(self.arena, at, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}

fn address(plan: &Plan, at: Ref, persistent_bytes: u64) -> u64 {
    let buffer = &plan.buffers[at.buffer];
    let base = match buffer.space {
        Space::Persistent => 0,
        Space::Scratch => persistent_bytes,
    };
    base + buffer.offset + at.offset
}

/// Sister plans share a tensor: it must be the same in both.
fn agree(a: &Binding, b: &Binding) -> Result<(), ExecError> {
    if a.shape == b.shape && a.dtype == b.dtype && a.shard == b.shard {
        return Ok(());
    }
    let message = format!(
        "is {:?} of {:?}{} in one program of the model and {:?} of {:?}{} in another; its shape may not depend on batch or seq",
        a.dtype,
        a.shape,
        part(a),
        b.dtype,
        b.shape,
        part(b)
    );
    Err(ExecError::Tensor { name: a.name.clone(), message })
}

/// What of a tensor is here, for errors; nothing where that is all of it.
fn part(binding: &Binding) -> String {
    binding
        .shard
        .map_or_else(String::new, |shard| format!(" from element {}, {} of them,", shard.start, shard.len))
}

fn missing(name: &str) -> ExecError {
    ExecError::Tensor { name: name.into(), message: "does not exist".into() }
}

fn check_size(binding: &Binding, bytes: usize) -> Result<(), ExecError> {
    if binding.bytes() == bytes as u64 {
        return Ok(());
    }
    let message = format!("has {} bytes, {bytes} were given", binding.bytes());
    Err(ExecError::Tensor { name: binding.name.clone(), message })
}
