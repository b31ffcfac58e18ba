//! Going on from the middle of a program: what its steps from some place on read is kept, so that they can be run again with
//! other inputs while those before are not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use linc_device::available_memory::zeroed;
use linc_plan::{Action, Plan, Ref, Role, Space, Step};

use super::{Executor, address, missing};
use crate::ExecError;

/// What a program had in its scratch memory before one of its steps, of what that and later steps read.
pub struct Halfway {
    program: usize,
    step: usize,
    /// Bytes with their place in the arena; shared with earlier places of the same run that had the same there.
    parts: Vec<(u64, Arc<Vec<u8>>)>,
}

impl Halfway {
    /// The step that is next.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Bytes that are kept for these alone: what several of them have in common counts once.
    pub fn kept_bytes<'a>(all: impl IntoIterator<Item = &'a Halfway>) -> usize {
        let parts = all.into_iter().flat_map(|halfway| &halfway.parts);
        let distinct: BTreeMap<*const Vec<u8>, usize> =
            parts.map(|(_, bytes)| (Arc::as_ptr(bytes), bytes.len())).collect();
        distinct.into_values().sum()
    }

    fn part(&self, at: u64, len: usize) -> Option<&Arc<Vec<u8>>> {
        self.parts.iter().find(|(place, bytes)| *place == at && bytes.len() == len).map(|(_, bytes)| bytes)
    }
}

impl Executor {
    /// Number of steps of a program.
    pub fn steps(&self, program: usize) -> usize {
        self.plans[program].plan.steps.len()
    }

    /// The first step of a program that reads an input: those before it do the same whatever it holds.
    ///
    /// # Errors
    /// [`ExecError::Tensor`] if the program has no such input.
    pub fn first_reader(&self, program: usize, input: &str) -> Result<usize, ExecError> {
        let plan = &self.plans[program].plan;
        let binding = plan.binding(Role::Input, input).ok_or_else(|| missing(input))?;
        let reads = |step: &Step| refers(plan, step, binding.at.buffer);
        Ok(plan.steps.iter().position(reads).unwrap_or(plan.steps.len()))
    }

    /// Runs some steps of a program: its first ones, or those behind the ones that ran last or that [`Executor::go_back`]
    /// went to.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn run_steps(&mut self, program: usize, steps: Range<usize>) -> Result<(), ExecError> {
        self.used = true;
        self.device.launch(self.plans[program].program, steps)?;
        Ok(self.device.synchronize()?)
    }

    /// Keeps what the steps of a program from `step` on read, after those before it ran. What an earlier place of the same run
    /// has, and no step since has to do with, is kept once for both: inputs as large as the logits are, for one.
    ///
    /// # Errors
    /// What the device refuses, or the memory for it is not there.
    pub fn keep(&self, program: usize, step: usize, earlier: Option<&Halfway>) -> Result<Halfway, ExecError> {
        let plan = &self.plans[program].plan;
        let inputs: BTreeSet<usize> =
            plan.bindings.iter().filter(|b| b.role == Role::Input).map(|b| b.at.buffer).collect();
        let earlier = earlier.filter(|earlier| earlier.program == program && earlier.step <= step);
        let mut parts = vec![];
        for (index, buffer) in plan.buffers.iter().enumerate() {
            let (first, last) = buffer.live;
            let is_there = first < step || inputs.contains(&index);
            if buffer.space == Space::Scratch && is_there && last >= step {
                let at = address(plan, Ref { buffer: index, offset: 0 }, self.persistent_bytes);
                let len = buffer.bytes as usize;
                let is_same =
                    |since: usize| !plan.steps[since..step].iter().any(|step| refers(plan, step, index));
                // What lay there earlier was this buffer, if it was alive.
                let known = earlier.filter(|earlier| {
                    let was_there = first < earlier.step || inputs.contains(&index);
                    was_there && is_same(earlier.step)
                });
                let known = known.and_then(|earlier| earlier.part(at, len)).cloned();
                let bytes = match known {
                    Some(bytes) => bytes,
                    None => {
                        let mut bytes = zeroed(len)?;
                        self.device.read(self.arena, at, &mut bytes)?;
                        Arc::new(bytes)
                    }
                };
                parts.push((at, bytes));
            }
        }
        Ok(Halfway { program, step, parts })
    }

    /// Puts back what was kept. Inputs hold again what they held then: who wants others writes them now, if no step before
    /// reads them.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn go_back(&mut self, halfway: &Halfway) -> Result<(), ExecError> {
        for (at, bytes) in &halfway.parts {
            self.device.write(self.arena, *at, bytes)?;
        }
        Ok(())
    }

    /// Runs the steps of a program that are behind what was kept.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn go_on(&mut self, halfway: &Halfway) -> Result<(), ExecError> {
        self.run_steps(halfway.program, halfway.step..self.steps(halfway.program))
    }
}

/// Whether a step reads or writes a buffer.
fn refers(plan: &Plan, step: &Step, buffer: usize) -> bool {
    match &step.action {
        Action::Launch { args, .. } => args.iter().any(|at| at.buffer == buffer),
        Action::Gemm(gemm) => [gemm.a, gemm.b, gemm.c].iter().any(|at| at.buffer == buffer),
        Action::Copy { from, to, .. } => [from, to].iter().any(|at| at.buffer == buffer),
        Action::Start { exchange, .. } => [exchange.from, exchange.to].iter().any(|at| at.buffer == buffer),
        // What it waits for may come at any time until then.
        Action::Wait { id } => plan.steps.iter().any(|begun| match &begun.action {
            Action::Start { exchange, id: other } => other == id && exchange.to.buffer == buffer,
            Action::Launch { .. } | Action::Gemm(_) | Action::Copy { .. } | Action::Wait { .. } => false,
        }),
    }
}

#[cfg(test)]
mod tests {
    use linc_plan::{DType, Exchange, Movement, World};

    use super::*;

    #[test]
    fn a_wait_has_to_do_with_what_it_waits_for() {
        let at = |buffer| Ref { buffer, offset: 0 };
        let exchange = |to| Exchange {
            movement: Movement::AllGather,
            group: 0,
            from: at(0),
            to: at(to),
            dtype: DType::F32,
            part_bytes: 4,
        };
        let step = |action| Step { action, label: "s".into(), flops: 0, bytes: 0 };
        let actions = [
            Action::Start { exchange: exchange(1), id: 7 },
            Action::Start { exchange: exchange(2), id: 8 },
            Action::Wait { id: 8 },
            Action::Wait { id: 7 },
        ];
        let plan = Plan {
            name: "p".into(),
            persistent_bytes: 0,
            scratch_bytes: 0,
            buffers: vec![],
            kernels: vec![],
            steps: actions.into_iter().map(step).collect(),
            bindings: vec![],
            world: World { rank: 0, size: 2, groups: vec![] },
        };
        let steps = |buffer| -> Vec<usize> {
            (0..4).filter(|step| refers(&plan, &plan.steps[*step], buffer)).collect()
        };
        assert_eq!([0, 1, 2].map(steps), [vec![0, 1], vec![0, 3], vec![1, 2]]);
    }
}
