//! The compiled program as plain data: what the compiler hands to the runtime, and all that the runtime sees.
//!
//! A plan addresses one arena. Its persistent part (parameters, optimizer state, tables, caches) is laid out by name and
//! shared by sister plans (train, eval, decode); its scratch part is private to a run. Offsets are bytes. Parts of the
//! arena, and buffers that stand alone, begin at multiples of [`ALIGN`]; what a kernel takes as one range (all
//! parameters, all gradients) lies side by side without gaps. Steps run in order; each is deterministic for any number
//! of workers.
//!
//! Each rank of a world has a plan of its own; what they exchange are steps of it ([`world`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

mod buffer;
mod label;
pub mod memory;
mod role;
pub mod validate;
pub mod world;

pub use buffer::{Binding, Buffer, Category, Init, Ref, Space};
pub use label::{AttentionPass, Label, WorkKind};
pub use role::{ParamState, Role, StateRole};
pub use world::{Exchange, Group, Movement, Shard, World};

/// Alignment of a buffer that stands alone, in bytes: a cache line and the widest vector.
pub const ALIGN: u64 = 64;

/// Element type of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
    /// Signed 32-bit integer.
    I32,
}

impl DType {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::Bf16 | DType::F16 => 2,
        }
    }
}

/// A generated kernel, as the text of its tile program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// Name, unique in the plan.
    pub name: String,
    /// What kernels that differ only in their sizes and types have in common.
    pub family: String,
    /// Text form of the tile program.
    pub text: String,
    /// Programs per axis.
    pub grid: [u32; 3],
    /// For each parameter, whether a launch may write it.
    pub written: Vec<bool>,
}

/// `c[i,j] = sum_p a[i,p]·b[p,j]` (+ c if `accumulate`), summed in f32 and rounded once, to nearest even, where c is
/// bf16 or f16; strides in elements as (row, column).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gemm {
    /// Rows of c.
    pub m: usize,
    /// Columns of c.
    pub n: usize,
    /// Inner size.
    pub k: usize,
    /// Left operand `[m,k]`.
    pub a: Ref,
    /// Distances of rows and columns of a, in elements.
    pub a_strides: (usize, usize),
    /// Right operand `[k,n]`.
    pub b: Ref,
    /// Distances of rows and columns of b, in elements.
    pub b_strides: (usize, usize),
    /// Result `[m,n]`.
    pub c: Ref,
    /// Distances of rows and columns of c, in elements.
    pub c_strides: (usize, usize),
    /// Add to c, which is f32, instead of overwriting it.
    pub accumulate: bool,
    /// Element type of a and b: f32, bf16 or f16.
    pub dtype: DType,
    /// Element type of c: that of a and b, or f32.
    pub c_dtype: DType,
}

impl Gemm {
    /// `gemm_MxNxK_nt_bf16`: sizes, for a and b whether rows (`n`) or columns (`t`) lie side by side, and the element
    /// types (`bf16_f32` if c differs), with `_add` if it adds to c.
    pub fn name(&self) -> String {
        let order = |strides: (usize, usize)| if strides.1 == 1 { 'n' } else { 't' };
        let (a, b) = (order(self.a_strides), order(self.b_strides));
        let mut name = format!("gemm_{}x{}x{}_{a}{b}_{}", self.m, self.n, self.k, self.dtype.name());
        if self.c_dtype != self.dtype {
            name = format!("{name}_{}", self.c_dtype.name());
        }
        if self.accumulate { name + "_add" } else { name }
    }
}

/// What one step does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Action {
    /// Run a kernel over its grid.
    Launch {
        /// Index into [`Plan::kernels`].
        kernel: usize,
        /// One per kernel parameter.
        args: Vec<Ref>,
    },
    /// A library matmul.
    Gemm(Gemm),
    /// Copy bytes between disjoint ranges.
    Copy {
        /// First byte that is read.
        from: Ref,
        /// First byte that is written; the two ranges do not overlap.
        to: Ref,
        /// How many bytes.
        bytes: u64,
    },
    /// Begin an exchange with other ranks.
    Start {
        /// What moves.
        exchange: Exchange,
        /// By which a step waits for it; no other of the plan has it.
        id: usize,
    },
    /// Wait until an exchange is over.
    Wait {
        /// Of the step that started it.
        id: usize,
    },
}

/// One step with its cost.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// Where it comes from: `layers.3/attention softmax_attention`.
    pub label: Label,
    /// Floating-point operations, multiply and add counted apart; causal halves not counted.
    pub flops: u64,
    /// Bytes that must move at least once.
    pub bytes: u64,
}

/// A compiled program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Model and entry point.
    pub name: String,
    /// Bytes of the persistent part.
    pub persistent_bytes: u64,
    /// Bytes of the scratch part.
    pub scratch_bytes: u64,
    /// What [`Ref`]s point into: places in the arena.
    pub buffers: Vec<Buffer>,
    /// Each once, however many steps launch it.
    pub kernels: Vec<Kernel>,
    /// Run one after the other, in this order.
    pub steps: Vec<Step>,
    /// What the runtime finds by name: parameters, states, inputs, outputs.
    pub bindings: Vec<Binding>,
    /// The rank that it is for, and those that it exchanges with.
    #[serde(default, skip_serializing_if = "World::is_single")]
    pub world: World,
}

impl Plan {
    /// Bytes of the whole arena.
    pub fn arena_bytes(&self) -> u64 {
        self.persistent_bytes + self.scratch_bytes
    }

    /// A named tensor of a role.
    pub fn binding(&self, role: Role, name: &str) -> Option<&Binding> {
        self.bindings.iter().find(|b| b.role == role && b.name == name)
    }

    /// The largest power of two, at most [`ALIGN`], that divides the address of each argument of a kernel in all its
    /// launches, in bytes; empty if it is never launched. Both parts of an arena begin at multiples of [`ALIGN`].
    pub fn argument_alignment(&self, kernel: usize) -> Vec<u32> {
        let mut alignment = vec![];
        for step in &self.steps {
            let Action::Launch { kernel: launched, args } = &step.action else { continue };
            if *launched != kernel {
                continue;
            }
            alignment.resize(alignment.len().max(args.len()), ALIGN as u32);
            for (alignment, at) in alignment.iter_mut().zip(args) {
                let address = self.buffers[at.buffer].offset + at.offset;
                *alignment = (*alignment).min(1 << (address | ALIGN).trailing_zeros());
            }
        }
        alignment
    }

    /// What a step runs: the name of a kernel, of a matmul or an exchange with its sizes, `copy` or `wait`.
    pub fn work_name(&self, step: &Step) -> String {
        match &step.action {
            Action::Launch { kernel, .. } => self.kernels[*kernel].name.clone(),
            Action::Gemm(gemm) => gemm.name(),
            Action::Copy { .. } => "copy".to_string(),
            Action::Start { exchange, .. } => exchange.name(self.members(exchange)),
            Action::Wait { .. } => "wait".to_string(),
        }
    }

    /// Places that a step may write.
    pub fn writes(&self, step: &Step) -> Vec<Ref> {
        match &step.action {
            Action::Launch { kernel, args } => {
                let written = args.iter().zip(&self.kernels[*kernel].written);
                written.filter(|(_, is_written)| **is_written).map(|(at, _)| *at).collect()
            }
            Action::Gemm(gemm) => vec![gemm.c],
            Action::Copy { to, .. } => vec![*to],
            // From there on until the wait.
            Action::Start { exchange, .. } => vec![exchange.to],
            Action::Wait { .. } => vec![],
        }
    }

    /// How many ranks take part in an exchange of the plan.
    pub fn members(&self, exchange: &Exchange) -> usize {
        self.world.groups.get(exchange.group).map_or(1, |group| group.members.len())
    }

    /// The exchanges, in the order in which they are started, each with the number of its step.
    pub fn exchanges(&self) -> impl Iterator<Item = (usize, &Exchange)> {
        self.steps.iter().enumerate().filter_map(|(index, step)| match &step.action {
            Action::Start { exchange, .. } => Some((index, exchange)),
            Action::Launch { .. } | Action::Gemm(_) | Action::Copy { .. } | Action::Wait { .. } => None,
        })
    }

    /// Bytes that one run sends to other ranks, in each group of the world.
    pub fn bytes_sent(&self) -> Vec<u64> {
        let mut sent = vec![0; self.world.groups.len()];
        for (_, exchange) in self.exchanges() {
            if let Some(sent) = sent.get_mut(exchange.group) {
                *sent += exchange.bytes_sent(self.members(exchange));
            }
        }
        sent
    }

    /// The first step that may write a persistent tensor of the wanted roles; the number of steps if none does. A run that
    /// ends before it has left those tensors as they were.
    pub fn first_write(&self, wanted: impl Fn(&Role) -> bool) -> usize {
        let bindings = self.bindings.iter().filter(|b| b.role.is_persistent() && wanted(&b.role));
        let buffers: BTreeSet<usize> = bindings.map(|b| b.at.buffer).collect();
        let writes = |step: &Step| self.writes(step).iter().any(|at| buffers.contains(&at.buffer));
        self.steps.iter().position(writes).unwrap_or(self.steps.len())
    }

    /// Floating-point operations of one run.
    pub fn flops(&self) -> u64 {
        self.steps.iter().map(|s| s.flops).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matmul_is_named_by_shape_order_and_types() {
        let at = Ref { buffer: 0, offset: 0 };
        let plain = Gemm {
            m: 64,
            n: 32,
            k: 16,
            a: at,
            a_strides: (16, 1),
            b: at,
            b_strides: (1, 16),
            c: at,
            c_strides: (32, 1),
            accumulate: false,
            dtype: DType::F32,
            c_dtype: DType::F32,
        };
        assert_eq!(plain.name(), "gemm_64x32x16_nt_f32");
        let sum = Gemm { dtype: DType::Bf16, a_strides: (1, 64), accumulate: true, ..plain };
        assert_eq!(sum.name(), "gemm_64x32x16_tt_bf16_f32_add");
    }

    #[test]
    fn arguments_are_as_aligned_as_their_worst_launch() {
        let buffer = |offset| Buffer {
            name: "b".into(),
            space: Space::Persistent,
            offset,
            bytes: 1024,
            category: Category::Workspace,
            live: (0, 0),
        };
        let launch = |kernel, places: &[(usize, u64)]| Step {
            action: Action::Launch {
                kernel,
                args: places
                    .iter()
                    .map(|(buffer, offset)| Ref { buffer: *buffer, offset: *offset })
                    .collect(),
            },
            label: "s".into(),
            flops: 0,
            bytes: 0,
        };
        let plan = Plan {
            name: "p".into(),
            persistent_bytes: 1 << 20,
            scratch_bytes: 0,
            buffers: vec![buffer(0), buffer(1024), buffer(4096)],
            kernels: vec![],
            steps: vec![
                launch(0, &[(0, 0), (1, 8), (2, 64)]),
                launch(1, &[(0, 2), (0, 0)]),
                launch(0, &[(1, 16), (1, 0), (2, 1024)]),
            ],
            bindings: vec![],
            world: World::default(),
        };
        assert_eq!(plan.argument_alignment(0), [16, 8, 64]);
        assert_eq!(plan.argument_alignment(1), [2, 64]);
        assert_eq!(plan.argument_alignment(2), [0; 0]);
    }
}
