//! The rules of a plan, checked without knowledge of how it was made: what the runtime relies on before it runs code.
//!
//! 1. Buffers are aligned to their elements, of at most [`WORD`] bytes, lie within their part of the arena, and live within the program.
//! 2. Scratch buffers that live at the same time do not overlap, and persistent buffers never do.
//! 3. A step uses a scratch buffer only while it lives.
//! 4. References point into their buffers; matmuls, copies and named tensors end within them.
//! 5. A matmul's operands are f32, bf16 or f16, its result is of their type or f32, and it adds to f32 only.
//! 6. A launch names an existing kernel and has an argument for each of its parameters; no grid is empty; names of kernels differ.
//! 7. The rank is one of the world, and a member of each group; members of a group ascend, and no two groups are the same.
//! 8. An exchange is of a group, moves whole elements, at least one, between places of their size, and is waited for once. What is
//!    received does not overlap what is sent, but for a part that is gathered from its own place.
//! 9. From its start to its wait, the buffers of an exchange live, no step touches what is received, and none writes what is sent.
//! 10. A shard lies within its tensor.

#[cfg(test)]
mod exchange_tests;
mod exchanges;
mod ranks;

use std::collections::BTreeSet;

use crate::{Action, DType, Gemm, Plan, Ref, Shard, Space};

pub use ranks::validate_ranks;

/// Bytes of the widest element.
const WORD: u64 = 4;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {message}")]
pub struct Invalid {
    /// The buffer, step, kernel or tensor.
    pub what: String,
    /// What is wrong with it.
    pub message: String,
}

fn rule(holds: bool, what: impl FnOnce() -> String, message: impl FnOnce() -> String) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid { what: what(), message: message() }) }
}

/// Checks all rules of this module and returns the first that is broken.
pub fn validate(plan: &Plan) -> Result<(), Invalid> {
    buffers(plan)?;
    overlaps(plan, Space::Persistent)?;
    overlaps(plan, Space::Scratch)?;
    kernels(plan)?;
    exchanges::world(plan)?;
    for (index, step) in plan.steps.iter().enumerate() {
        let what = || format!("step {index} ({})", step.label);
        let at = |r: &Ref, bytes: Option<u64>| {
            reference(plan, r, bytes, what)?;
            let b = &plan.buffers[r.buffer];
            let alive = b.space == Space::Persistent || (b.live.0 <= index && index <= b.live.1);
            rule(alive, what, || format!("uses buffer {} ({}), which lives {:?}", r.buffer, b.name, b.live))
        };
        match &step.action {
            Action::Launch { kernel, args } => {
                rule(*kernel < plan.kernels.len(), what, || format!("there is no kernel {kernel}"))?;
                args.iter().try_for_each(|r| at(r, Some(1)))?;
                let (given, params) = (args.len(), plan.kernels[*kernel].written.len());
                rule(given == params, what, || format!("{given} arguments for {params} parameters"))?;
            }
            Action::Gemm(g) => {
                let typed = g.dtype != DType::I32 && (g.c_dtype == g.dtype || g.c_dtype == DType::F32);
                rule(typed, what, || format!("a matmul of {:?} to {:?}", g.dtype, g.c_dtype))?;
                let exact = !g.accumulate || g.c_dtype == DType::F32;
                rule(exact, what, || format!("a matmul adds to {:?}", g.c_dtype))?;
                for (r, bytes) in gemm_extents(g) {
                    rule(bytes.is_some(), what, || "the sizes of the matmul overflow".into())?;
                    at(&r, bytes)?;
                }
            }
            Action::Copy { from, to, bytes } => {
                at(from, Some(*bytes))?;
                at(to, Some(*bytes))?;
                let apart = from.buffer != to.buffer
                    || from.offset + bytes <= to.offset
                    || to.offset + bytes <= from.offset;
                rule(apart, what, || "the copy's source and destination overlap".into())?;
            }
            Action::Start { exchange, .. } => {
                at(&exchange.from, Some(exchange.part_bytes))?;
                at(&exchange.to, Some(exchange.part_bytes))?;
            }
            Action::Wait { .. } => {}
        }
    }
    exchanges::exchanges(plan)?;
    for binding in &plan.bindings {
        let what = || format!("tensor {}", binding.name);
        let numel = binding.shape.iter().try_fold(1u64, |n, axis| n.checked_mul(*axis as u64));
        let bytes = numel.and_then(|n| n.checked_mul(binding.dtype.bytes()));
        rule(bytes.is_some(), what, || "the number of elements overflows".into())?;
        let mut here = bytes;
        if let Some(Shard { start, len, of }) = binding.shard {
            let inside = start.checked_add(len).is_some_and(|end| end <= of) && len > 0;
            let whole = numel == Some(of as u64);
            rule(inside && whole, what, || {
                format!("elements {start} to {start}+{len} of {of} are no shard of {:?}", binding.shape)
            })?;
            here = Some(binding.bytes());
        }
        reference(plan, &binding.at, here, what)?;
    }
    Ok(())
}

/// Rule 1.
fn buffers(plan: &Plan) -> Result<(), Invalid> {
    for (index, b) in plan.buffers.iter().enumerate() {
        let what = || format!("buffer {index} ({})", b.name);
        rule(b.offset.is_multiple_of(WORD), what, || {
            format!("offset {} is not a multiple of {WORD}", b.offset)
        })?;
        let part = match b.space {
            Space::Persistent => plan.persistent_bytes,
            Space::Scratch => plan.scratch_bytes,
        };
        let inside = b.offset.checked_add(b.bytes).is_some_and(|end| end <= part);
        rule(inside, what, || format!("{} bytes at {} are not within the part's {part}", b.bytes, b.offset))?;
        if b.space == Space::Scratch {
            let steps = plan.steps.len();
            rule(b.live.0 <= b.live.1 && b.live.1 < steps.max(1), what, || {
                format!("lives from step {} to {} of {steps}", b.live.0, b.live.1)
            })?;
        }
    }
    Ok(())
}

/// Rule 2: a sweep over the steps; the live buffers are kept in order of their offsets.
fn overlaps(plan: &Plan, space: Space) -> Result<(), Invalid> {
    let mut events: Vec<(usize, bool, usize)> = vec![];
    for (index, b) in plan.buffers.iter().enumerate().filter(|(_, b)| b.space == space && b.bytes > 0) {
        let (first, last) = if space == Space::Scratch { b.live } else { (0, 0) };
        events.push((first, true, index));
        events.push((last + 1, false, index));
    }
    // Ends come before beginnings at the same step.
    events.sort_unstable();
    let mut live: BTreeSet<(u64, usize)> = BTreeSet::new();
    for (_, begins, index) in events {
        let b = &plan.buffers[index];
        let key = (b.offset, index);
        if !begins {
            live.remove(&key);
            continue;
        }
        let before = live.range(..key).next_back();
        let after = live.range(key..).next();
        for (_, other) in before.into_iter().chain(after) {
            let o = &plan.buffers[*other];
            let apart = o.offset + o.bytes <= b.offset || b.offset + b.bytes <= o.offset;
            rule(
                apart,
                || format!("buffer {index} ({})", b.name),
                || {
                    format!(
                        "overlaps buffer {other} ({}): {}+{} and {}+{} bytes, live {:?} and {:?}",
                        o.name, b.offset, b.bytes, o.offset, o.bytes, b.live, o.live
                    )
                },
            )?;
        }
        live.insert(key);
    }
    Ok(())
}

/// Rule 6.
fn kernels(plan: &Plan) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    for kernel in &plan.kernels {
        let what = || format!("kernel {}", kernel.name);
        rule(names.insert(&kernel.name), what, || "two kernels have this name".into())?;
        rule(!kernel.grid.contains(&0), what, || format!("the grid {:?} is empty", kernel.grid))?;
    }
    Ok(())
}

/// Rule 4 for one reference; no number of bytes is one that overflows.
fn reference(
    plan: &Plan,
    r: &Ref,
    bytes: Option<u64>,
    what: impl Fn() -> String + Copy,
) -> Result<(), Invalid> {
    rule(r.buffer < plan.buffers.len(), what, || format!("there is no buffer {}", r.buffer))?;
    let b = &plan.buffers[r.buffer];
    let end = bytes.and_then(|bytes| r.offset.checked_add(bytes));
    rule(end.is_some_and(|end| end <= b.bytes), what, || {
        let bytes = bytes.map_or("too many".to_string(), |b| b.to_string());
        format!("{bytes} bytes at {} of buffer {} ({}), which has {}", r.offset, r.buffer, b.name, b.bytes)
    })
}

/// Operands of a matmul with the bytes from the first to the last element; nothing if that overflows.
fn gemm_extents(g: &Gemm) -> [(Ref, Option<u64>); 3] {
    let extent = |rows: usize, cols: usize, (rs, cs): (usize, usize), dtype: DType| -> Option<u64> {
        if rows == 0 || cols == 0 {
            return Some(0);
        }
        let down = (rows as u64 - 1).checked_mul(rs as u64)?;
        let across = (cols as u64 - 1).checked_mul(cs as u64)?;
        down.checked_add(across)?.checked_add(1)?.checked_mul(dtype.bytes())
    };
    [
        (g.a, extent(g.m, g.k, g.a_strides, g.dtype)),
        (g.b, extent(g.k, g.n, g.b_strides, g.dtype)),
        (g.c, extent(g.m, g.n, g.c_strides, g.c_dtype)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Binding, Buffer, Category, Init, Kernel, Role, Step, World};

    fn buffer(name: &str, space: Space, offset: u64, bytes: u64, live: (usize, usize)) -> Buffer {
        Buffer { name: name.into(), space, offset, bytes, category: Category::Workspace, live }
    }

    fn at(buffer: usize, offset: u64) -> Ref {
        Ref { buffer, offset }
    }

    fn step(action: Action) -> Step {
        Step { action, label: "s".into(), flops: 0, bytes: 0 }
    }

    /// w (persistent), x live 0..=0, y live 0..=1, z live 1..=1 in the place of x.
    fn good() -> Plan {
        let gemm = Gemm {
            m: 4,
            n: 4,
            k: 4,
            a: at(1, 0),
            a_strides: (4, 1),
            b: at(0, 0),
            b_strides: (1, 4),
            c: at(2, 0),
            c_strides: (4, 1),
            accumulate: false,
            dtype: DType::F32,
            c_dtype: DType::F32,
        };
        Plan {
            name: "p".into(),
            persistent_bytes: 64,
            scratch_bytes: 128,
            buffers: vec![
                buffer("w", Space::Persistent, 0, 64, (0, 0)),
                buffer("x", Space::Scratch, 0, 64, (0, 0)),
                buffer("y", Space::Scratch, 64, 64, (0, 1)),
                buffer("z", Space::Scratch, 0, 64, (1, 1)),
            ],
            kernels: vec![Kernel {
                name: "k".into(),
                family: "k".into(),
                text: String::new(),
                grid: [1, 1, 1],
                written: vec![false, true],
            }],
            steps: vec![
                step(Action::Gemm(gemm)),
                step(Action::Launch { kernel: 0, args: vec![at(2, 0), at(3, 0)] }),
            ],
            bindings: vec![Binding {
                name: "w".into(),
                role: Role::Param,
                dtype: DType::F32,
                shape: vec![4, 4],
                at: at(0, 0),
                init: Init::Ones,
                shard: None,
            }],
            world: World::default(),
        }
    }

    fn broken(change: impl Fn(&mut Plan)) -> String {
        let mut plan = good();
        change(&mut plan);
        validate(&plan).expect_err("the change breaks a rule").to_string()
    }

    #[test]
    fn a_good_plan_passes() {
        validate(&good()).expect("valid");
    }

    #[test]
    fn every_rule_is_checked() {
        assert!(broken(|p| p.buffers[1].offset = 2).contains("multiple of 4"));
        assert!(broken(|p| p.buffers[2].bytes = 128).contains("not within the part's 128"));
        assert!(broken(|p| p.buffers[1].bytes = u64::MAX).contains("not within"));
        assert!(broken(|p| p.buffers[3].live = (1, 2)).contains("from step 1 to 2 of 2"));
        assert!(broken(|p| p.buffers[3].live = (0, 1)).contains("overlaps buffer"));
        assert!(broken(|p| p.buffers[1].live = (1, 1)).contains("overlaps buffer"));
        assert!(broken(|p| p.buffers[2].live = (0, 0)).contains("lives (0, 0)"));
        assert!(broken(|p| p.buffers[0].bytes = 60).contains("64 bytes at 0 of buffer 0"));
        assert!(
            broken(|p| p.steps[1].action = Action::Launch { kernel: 1, args: vec![] }).contains("kernel 1")
        );
        assert!(broken(|p| p.kernels[0].grid[1] = 0).contains("is empty"));
        assert!(broken(|p| p.kernels.push(p.kernels[0].clone())).contains("two kernels"));
        assert!(broken(|p| p.bindings[0].at.buffer = 9).contains("no buffer 9"));
        assert!(broken(|p| p.bindings[0].shape = vec![usize::MAX, 4]).contains("overflows"));
        let copy = |from, to| Action::Copy { from: at(2, from), to: at(2, to), bytes: 32 };
        assert!(broken(|p| p.steps[1].action = copy(0, 16)).contains("overlap"));
        assert!(broken(|p| p.steps[1].action = copy(0, 40)).contains("32 bytes at 40"));
        assert!(
            broken(|p| {
                if let Action::Gemm(g) = &mut p.steps[0].action {
                    g.c_strides = (5, 1);
                }
            })
            .contains("76 bytes at 0 of buffer 2")
        );
        let typed = |dtype, c_dtype, accumulate| {
            broken(|p| {
                if let Action::Gemm(g) = &mut p.steps[0].action {
                    (g.dtype, g.c_dtype, g.accumulate) = (dtype, c_dtype, accumulate);
                }
            })
        };
        assert!(typed(DType::I32, DType::I32, false).contains("a matmul of I32 to I32"));
        assert!(typed(DType::F32, DType::Bf16, false).contains("a matmul of F32 to Bf16"));
        assert!(typed(DType::F16, DType::Bf16, false).contains("a matmul of F16 to Bf16"));
        assert!(typed(DType::Bf16, DType::Bf16, true).contains("adds to Bf16"));
        assert!(
            broken(|p| p.steps[1].action = Action::Launch { kernel: 0, args: vec![at(2, 64)] })
                .contains("1 bytes at 64")
        );
        assert!(
            broken(|p| p.steps[1].action = Action::Launch { kernel: 0, args: vec![at(2, 0)] })
                .contains("1 arguments for 2 parameters")
        );
    }

    #[test]
    fn the_first_step_that_writes_a_tensor_is_known() {
        let plan = good();
        assert_eq!(plan.first_write(|role| *role == Role::Param), 2, "w is only read");
        let mut plan = good();
        plan.steps[1].action = Action::Launch { kernel: 0, args: vec![at(2, 0), at(0, 0)] };
        assert_eq!(plan.first_write(|role| *role == Role::Param), 1);
        assert_eq!(plan.first_write(|role| *role == Role::Table), 2);
        plan.steps.insert(0, step(Action::Copy { from: at(2, 0), to: at(0, 32), bytes: 32 }));
        assert_eq!(plan.first_write(|role| *role == Role::Param), 0);
    }
}
