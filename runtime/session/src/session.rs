//! A model on a device: the programs of one model, compiled and loaded together.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use linc_device::Device;
use linc_device::words::bytes;
use linc_driver::{Compiled, Entry, Model, Options, Report, Target, names};
use linc_exec::{ExecError, Executor};
use linc_plan::memory::{self, Peak};
use linc_plan::{Category, Plan, Role};

use crate::error::SessionError;

/// What to do where a training step does not fit.
pub const SMALLER: &str = "lower training.batch_size, training.seq_len or the model's size, or set activation_checkpoint.mode = \"full\"";

/// Compiled programs of one model in one arena.
pub struct Session {
    /// The loaded programs, with tensors by name.
    pub executor: Executor,
    /// What each program is.
    pub reports: Vec<Report>,
    /// The stages of each program, where dumps were asked for.
    pub dumps: Vec<Vec<linc_driver::Dump>>,
}

impl Session {
    /// Compiles the entries (in this order, which numbers the programs) for the device and loads them. `proceed` is
    /// asked before each piece of work whether to go on.
    ///
    /// # Errors
    /// [`SessionError::Compile`], [`SessionError::DoesNotFit`] before anything is allocated, or the answer of `proceed`.
    pub fn new<E: From<SessionError>>(
        model: &Model,
        entries: &[(Entry, Options)],
        device: Box<dyn Device>,
        proceed: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut layout = linc_driver::layout_for(entries.iter().map(|(entry, _)| entry));
        let target = target(&*device);
        let mut compile = |(entry, options): &(Entry, Options)| -> Result<Compiled, E> {
            proceed()?;
            let options = Options { target, ..options.clone() };
            Ok(linc_driver::compile(model, entry, &options, &mut layout).map_err(SessionError::from)?)
        };
        let compiled: Vec<Compiled> = entries.iter().map(&mut compile).collect::<Result<_, _>>()?;
        proceed()?;
        let (mut plans, mut reports, mut dumps) = (vec![], vec![], vec![]);
        for c in compiled {
            plans.push(c.plan);
            reports.push(c.report);
            dumps.push(c.dumps);
        }
        let table = memory_table(&plans.iter().collect::<Vec<_>>());
        let executor = Executor::new(device, plans).map_err(|error| match error {
            ExecError::DoesNotFit { .. } => SessionError::DoesNotFit { error, table, help: SMALLER },
            other => SessionError::Exec(other),
        })?;
        Ok(Session { executor, reports, dumps })
    }

    /// Runs a program that changes nothing on tokens and targets, and the positions of tokens in their documents where these
    /// are kept apart; returns the mean loss over targets that count, or nothing
    /// if `stop` is set before it is through.
    ///
    /// # Errors
    /// [`SessionError::Exec`].
    pub fn loss(
        &mut self,
        program: usize,
        tokens: &[i32],
        targets: &[i32],
        positions: Option<&[i32]>,
        stop: &AtomicBool,
    ) -> Result<Option<f32>, SessionError> {
        self.executor.write_input(program, names::TOKENS, bytemuck::cast_slice(tokens))?;
        self.executor.write_input(program, names::TARGETS, bytemuck::cast_slice(targets))?;
        if let Some(positions) = positions {
            self.executor.write_input(program, names::POSITIONS, bytemuck::cast_slice(positions))?;
        }
        if !self.executor.run_until(program, stop)? {
            return Ok(None);
        }
        self.scalar(program, names::LOSS).map(Some)
    }

    /// A scalar output of the last run.
    ///
    /// # Errors
    /// [`SessionError::Exec`].
    pub fn scalar(&self, program: usize, name: &str) -> Result<f32, SessionError> {
        Ok(self.executor.output(program, name)?.first().copied().unwrap_or(f32::NAN))
    }

    /// The memory of some of the programs together, such as those of a step.
    pub fn memory(&self, programs: &[usize]) -> Peak {
        let plans: Vec<&Plan> = programs.iter().map(|program| self.executor.plan(*program)).collect();
        memory::peak(&plans)
    }

    /// Names and shapes of the parameters.
    pub fn params(&self) -> BTreeMap<String, Vec<usize>> {
        self.executor.tensors(|role| *role == Role::Param).into_iter().map(|t| (t.name, t.shape)).collect()
    }

    /// Names of the optimizer's state, as far as this rank has it: moments, and the scale of the loss where there is one.
    pub fn optimizer_state(&self) -> Vec<String> {
        self.executor.tensors(Role::is_optimizer_state).into_iter().map(|t| t.name).collect()
    }
}

/// What programs of a device are compiled for.
pub fn target(device: &dyn Device) -> Target {
    device.arch().map_or(Target::Cpu, Target::Cuda)
}

/// Bytes by category of programs in one arena, at their peak, for people.
pub fn memory_table(plans: &[&Plan]) -> String {
    let peak = memory::peak(plans);
    let mut text = String::from("  memory at the peak:\n");
    let parts = peak.categories.iter().filter(|(_, n)| *n > 0).map(|(category, n)| (category.name(), *n));
    for (name, n) in parts.chain([("together", peak.bytes)]) {
        text.push_str(&format!("    {name:16} {:>12}\n", bytes(n)));
    }
    text
}

/// `parameters 1.00 MiB, workspace 2.00 KiB`, for people; nothing of what is empty.
pub fn memory_parts(categories: &[(Category, u64)]) -> String {
    let parts = categories.iter().filter(|(_, n)| *n > 0);
    parts.map(|(category, n)| format!("{} {}", category.name(), bytes(*n))).collect::<Vec<_>>().join(", ")
}
