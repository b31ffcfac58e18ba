//! What a machine must be able to do, and how it fails.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use linc_codegen_cuda::Arch;
use linc_plan::validate::validate;
use linc_plan::{ALIGN, Plan, Ref, Space};

use crate::available_memory::{Available, out_of_memory};
use crate::comm::{CommError, SharedRanks};
use crate::cpu::CpuLimits;

/// Names an arena of one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arena(pub(crate) usize);

/// Names a loaded plan of one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Program(pub(crate) usize);

/// Is told how much of how much is done, and says whether to go on.
pub type Progress = Box<dyn FnMut(usize, usize) -> bool>;

/// What plans run on: one arena of memory, and programs that are loaded from plans and run one after the other.
pub trait Device {
    /// One line for people: kind, instruction set, threads.
    fn describe(&self) -> String;

    /// Threads of the CPU that may help it with what is not in a program.
    fn threads(&self) -> usize;

    /// The family of GPUs that programs should be compiled for; nothing for a CPU.
    fn arch(&self) -> Option<Arch>;

    /// What can be allocated now without swapping, as far as the system says; nothing if it does not.
    fn available(&self) -> Option<Available>;

    /// What programs may allocate of that: where ranks are on one machine, the share of this one of what there was when they were
    /// [connected](Device::connect), since all allocate at about the same time.
    fn allotted(&self) -> Option<Available> {
        self.available()
    }

    /// Bytes of memory that the machine has; nothing if it does not say.
    fn total_bytes(&self) -> Option<u64>;

    /// Reserves zeroed memory, aligned to [`linc_plan::ALIGN`]. Errors: [`DeviceError::OutOfMemory`].
    fn allocate(&mut self, bytes: u64) -> Result<Arena, DeviceError>;

    /// Copies bytes into an arena. Errors: [`DeviceError::OutOfBounds`].
    fn write(&mut self, arena: Arena, offset: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// The bytes of an arena, where the CPU can reach them: many threads may then write their own parts. Nothing where
    /// they lie in a memory of the device's own. Errors: [`DeviceError::OutOfBounds`].
    fn host_memory(&mut self, arena: Arena) -> Result<Option<&mut [u8]>, DeviceError>;

    /// Copies bytes out of an arena, after all launches. Errors: [`DeviceError::OutOfBounds`].
    fn read(&self, arena: Arena, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// From now on plans may exchange with the other ranks, as `ranks` does. Errors: [`DeviceError::Unsupported`].
    fn connect(&mut self, ranks: SharedRanks) -> Result<(), DeviceError>;

    /// Validates a plan and makes it ready to run in an arena whose scratch part begins at `scratch` bytes.
    ///
    /// Errors: [`DeviceError::Plan`] for a plan that breaks its rules or does not fit the arena, [`DeviceError::Kernel`]
    /// for a kernel that cannot be compiled, [`DeviceError::Interrupted`] where who watches does not want to go on.
    fn load(&mut self, plan: &Plan, arena: Arena, scratch: u64) -> Result<Program, DeviceError>;

    /// From now on, `progress` hears while plans are loaded how many kernels of how many are compiled.
    fn watch(&mut self, progress: Progress);

    /// One line about what loading plans took, if it can take long.
    fn loading(&self) -> Option<String>;

    /// Runs some steps of a program in order. Errors: [`DeviceError::OutOfBounds`] for steps that do not exist.
    fn launch(&mut self, program: Program, steps: Range<usize>) -> Result<(), DeviceError>;

    /// Runs all steps of a program in order; where `stop` is set before step `last` has begun, the rest is not run, and the
    /// answer is false. A device that runs them in one go, in a time that nobody minds, need not look.
    /// Errors: those of [`Device::launch`].
    fn launch_until(&mut self, program: Program, last: usize, stop: &AtomicBool)
    -> Result<bool, DeviceError>;

    /// Runs all steps and adds the time of each to `times`, one entry per step.
    /// Errors: [`DeviceError::OutOfBounds`] for another number of entries.
    fn profile(&mut self, program: Program, times: &mut [Duration]) -> Result<(), DeviceError>;

    /// Floating-point operations per second that the machine could do at most, measured or known.
    fn peak_flops(&mut self) -> f64;

    /// Where that number comes from, in a few words.
    fn describe_peak(&mut self) -> String;

    /// A program ran at so many operations per second. If that is more than the peak, the peak was measured too low, and
    /// is raised.
    fn reached(&mut self, flops: f64);

    /// Measures what the processor does at most, in some tenths of a second; nothing for a machine that is none.
    fn cpu_limits(&mut self) -> Option<CpuLimits>;

    /// Waits for all launches.
    fn synchronize(&mut self) -> Result<(), DeviceError>;
}

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The memory is not there.
    #[error("{}", out_of_memory(*needed, available.as_ref()))]
    OutOfMemory {
        /// Requested bytes.
        needed: u64,
        /// What could be had, if the system says.
        available: Option<Available>,
    },
    /// An access outside of an arena or program: a bug of the caller.
    #[error("{what} {from}..{to} of {len}")]
    OutOfBounds {
        /// What was accessed.
        what: &'static str,
        /// First element.
        from: u64,
        /// End, exclusive.
        to: u64,
        /// Existing elements.
        len: u64,
    },
    /// A plan that breaks its rules: a bug of the compiler, or a file that was changed.
    #[error("plan {plan}: {message}")]
    Plan {
        /// Its name: model and entry point.
        plan: String,
        /// The broken rule.
        message: String,
    },
    /// A kernel that cannot be compiled.
    #[error("kernel {kernel}: {message}")]
    Kernel {
        /// Its name in the plan.
        kernel: String,
        /// What the compiler or the driver says, or the limit that is exceeded.
        message: String,
    },
    /// The driver of the machine reports a failure.
    #[error("{action}: {message}")]
    Driver {
        /// What was being done.
        action: &'static str,
        /// What it says.
        message: String,
    },
    /// The ranks cannot go on together, which ends all of them.
    #[error(transparent)]
    Ranks(Box<CommError>),
    /// Who watches does not want to go on.
    #[error("interrupted while kernels were compiled")]
    Interrupted,
    /// The machine cannot do it at all.
    #[error("{0}")]
    Unsupported(String),
}

/// The error of an index that does not exist.
pub(crate) fn missing(what: &'static str, index: usize, len: usize) -> DeviceError {
    DeviceError::OutOfBounds { what, from: index as u64, to: index as u64 + 1, len: len as u64 }
}

/// Validates a plan for an arena of `arena` bytes whose scratch part begins at `scratch`.
///
/// # Errors
/// [`DeviceError::Plan`] with the broken rule.
pub(crate) fn check_arena(plan: &Plan, scratch: u64, arena: u64) -> Result<(), DeviceError> {
    let invalid = |message: String| Err(DeviceError::Plan { plan: plan.name.clone(), message });
    if let Err(rule) = validate(plan) {
        return invalid(rule.to_string());
    }
    let fits = scratch.checked_add(plan.scratch_bytes).is_some_and(|end| end <= arena);
    if !fits || plan.persistent_bytes > scratch || !scratch.is_multiple_of(ALIGN) {
        let (persistent, own) = (plan.persistent_bytes, plan.scratch_bytes);
        return invalid(format!(
            "{persistent} persistent and {own} scratch bytes do not fit an arena of {arena} with scratch at {scratch}"
        ));
    }
    Ok(())
}

/// Bytes from the start of the arena to a place.
pub(crate) fn address(plan: &Plan, at: &Ref, scratch: u64) -> u64 {
    let buffer = &plan.buffers[at.buffer];
    let base = if buffer.space == Space::Persistent { 0 } else { scratch };
    base + buffer.offset + at.offset
}
