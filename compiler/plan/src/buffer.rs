//! The arena: buffers, places in them, and the tensors that are found by name.

use serde::{Deserialize, Serialize};

use crate::{DType, Role, Shard};

/// What a buffer's bytes are counted as in reports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Trainable weights.
    Parameters,
    /// Optimizer moments.
    OptimizerState,
    /// Gradients of parameters.
    Gradients,
    /// Values that live from the forward to the backward, without those of attention.
    Activations,
    /// What attention nodes save or produce: outputs, statistics, states.
    Attention,
    /// Everything short-lived.
    Workspace,
    /// Batches, scalars, tables, caches.
    Inputs,
}

impl Category {
    /// All categories, in report order.
    pub const ALL: [Category; 7] = [
        Category::Parameters,
        Category::OptimizerState,
        Category::Gradients,
        Category::Activations,
        Category::Attention,
        Category::Workspace,
        Category::Inputs,
    ];

    /// Name in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Category::Parameters => "parameters",
            Category::OptimizerState => "optimizer_state",
            Category::Gradients => "gradients",
            Category::Activations => "activations",
            Category::Attention => "attention",
            Category::Workspace => "workspace",
            Category::Inputs => "inputs",
        }
    }
}

/// Which part of the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    /// Lives as long as the model; same offsets in all sister plans.
    Persistent,
    /// Valid within one run.
    Scratch,
}

/// A range of the arena with one lifetime.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// Shown in dumps; nothing is found by it.
    pub name: String,
    /// Part of the arena.
    pub space: Space,
    /// Byte offset within that part.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// By which reports add up memory.
    pub category: Category,
    /// First and last step that uses it (scratch only; inclusive).
    pub live: (usize, usize),
}

/// A place in a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ref {
    /// Index into [`Plan::buffers`](crate::Plan::buffers).
    pub buffer: usize,
    /// Byte offset within the buffer.
    pub offset: u64,
}

/// How the runtime fills a persistent tensor before the first run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Init {
    /// All bytes zero.
    Zeros,
    /// Every element 1 in its type.
    Ones,
    /// N(0, std²).
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// N(0, std²) truncated to [-bound, bound].
    TruncNormal {
        /// Standard deviation before truncation.
        std: f64,
        /// Absolute bound.
        bound: f64,
    },
    /// Rotary angles `[len, head_dim/2, 2]` of (cos, sin): angle `pos * freqs[i]`.
    Rope {
        /// Frequency of each feature pair, after scaling.
        freqs: Vec<f64>,
    },
}

/// A named tensor, or a shard of one, dense row-major, somewhere in a buffer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// Name: a checkpoint name for parameters.
    pub name: String,
    /// What the runtime may do with it: fill it, feed it, save it.
    pub role: Role,
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes, outermost first; empty for a scalar. Those of the whole tensor, also where this rank has a shard.
    pub shape: Vec<usize>,
    /// Its first byte.
    pub at: Ref,
    /// Initial contents (`Zeros` for inputs and outputs).
    pub init: Init,
    /// The part of the tensor that is here, if that is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
}

impl Binding {
    /// How many elements are here.
    pub fn numel(&self) -> usize {
        self.shard.map_or_else(|| self.shape.iter().product(), |shard| shard.len)
    }

    /// Size in bytes of what is here.
    pub fn bytes(&self) -> u64 {
        self.numel() as u64 * self.dtype.bytes()
    }
}
