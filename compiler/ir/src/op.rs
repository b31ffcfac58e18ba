//! The operations of the graph.
//!
//! Semantic operations (attention, norm, rope, embedding, cross-entropy, updates of optimizers) stay whole until the
//! kernel library lowers them; everything else is a matmul, a view, or pointwise. Letters in shapes:
//! `B` batch, `N` sequence, `H` query heads, `G` key/value heads (`H % G == 0`), `D` features of a head,
//! `C` chunk length, `V` vocabulary, `T = B*N` tokens.
//!
//! To add an operation: add the variant here, declare its facts in `facts`, then follow the compiler through `infer`,
//! `text`, `interp`, and the passes' `match`es; none has a `_` arm.

use crate::attention::{AttentionSpec, KindOp};
use crate::exchange::ExchangeOp;
use crate::optimizer::UpdateOp;
use crate::pointwise::{BinaryOp, Pointwise, UnaryOp};
use crate::role::StateRole;
use crate::types::{DType, Shape, TensorType};

/// How a parameter or state tensor starts.
#[derive(Clone, PartialEq, Debug)]
pub enum Init {
    /// All elements zero.
    Zeros,
    /// All elements one.
    Ones,
    /// Independent N(0, std²).
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// N(0, std²) truncated to the absolute interval [-bound, bound].
    TruncNormal {
        /// Standard deviation before truncation.
        std: f64,
        /// Absolute truncation bound.
        bound: f64,
    },
}

/// What a persistent, non-trainable table holds; computed once by the runtime.
#[derive(Clone, PartialEq, Debug)]
pub enum TableKind {
    /// Rotary angles: `[len, head_dim/2, 2]` of (cos, sin), angle `pos * freq_i`,
    /// `freq_i = theta^(-2i/head_dim)`, rescaled by `scaling` when present.
    Rope {
        /// Base of the geometric frequency series.
        theta: f64,
        /// Llama 3.1 frequency rescaling.
        scaling: Option<RopeScaling>,
    },
}

/// Llama 3.1 rope frequency scaling (wavelengths above `original/low` are divided by `factor`,
/// below `original/high` kept, and blended linearly between).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RopeScaling {
    /// Division factor of the low frequencies.
    pub factor: f64,
    /// Low frequency cut.
    pub low_freq_factor: f64,
    /// High frequency cut.
    pub high_freq_factor: f64,
    /// Context length of the original training.
    pub original_max_position: usize,
}

/// An operation with its attributes. Operand order is fixed and documented per variant.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    // ---- leaves ----
    /// `() -> ty`: fed at every call (tokens, targets, learning rate, step, position).
    Input {
        /// Binding name.
        name: String,
        /// Element type and shape of what the caller has to feed.
        ty: TensorType,
    },
    /// `() -> ty`: trainable weight.
    Param {
        /// Checkpoint name.
        name: String,
        /// Element type and shape.
        ty: TensorType,
        /// Initial distribution.
        init: Init,
    },
    /// `() -> ty`: persistent, not trainable (moments, caches, recurrent state); starts at zero.
    State {
        /// Checkpoint name.
        name: String,
        /// Element type and shape.
        ty: TensorType,
        /// What it holds.
        role: StateRole,
    },
    /// `() -> ty`: persistent constant data computed by the runtime at load.
    Table {
        /// Binding name, unique in the graph.
        name: String,
        /// Element type and shape.
        ty: TensorType,
        /// How the runtime computes it when a program is loaded.
        kind: TableKind,
    },
    /// `() -> ty`: every element equals `value`.
    Constant {
        /// Rounded to the element type where it is used.
        value: f64,
        /// Element type and shape.
        ty: TensorType,
    },

    // ---- pointwise ----
    /// `(x) -> like x`
    Unary(UnaryOp),
    /// `(x, y) -> like x`; equal shapes, see [`Op::Broadcast`].
    Binary(BinaryOp),
    /// `(x) -> shape`: axes aligned at the end, size-1 or missing axes repeated.
    Broadcast {
        /// Every axis is that of the operand or repeats its single element.
        shape: Shape,
    },
    /// `(x) -> dtype`: round to nearest even.
    Cast {
        /// Target element type.
        dtype: DType,
    },
    /// `(inputs..) -> outputs..`: a fused pointwise region.
    Fused(Pointwise),

    // ---- reductions, views ----
    /// `(x) -> x without axes`: sum over the axes (kept as size 1 if `keep`); bf16 and f16 are summed to f32.
    Sum {
        /// Axes, ascending.
        axes: Vec<usize>,
        /// Keep reduced axes with size 1.
        keep: bool,
    },
    /// `(x) -> shape` with the same elements in row-major order.
    Reshape {
        /// As many elements as the operand has.
        shape: Shape,
    },
    /// `(x) -> x with permuted axes`: output axis `i` is input axis `perm[i]`.
    Transpose {
        /// Permutation.
        perm: Vec<usize>,
    },
    /// `(x) -> part of x along one axis`.
    Slice {
        /// The axis that becomes shorter.
        axis: usize,
        /// First index.
        start: usize,
        /// Number of indices.
        len: usize,
    },
    /// `(x) -> x with zeros around it along one axis`; the adjoint of slice.
    Pad {
        /// The axis that becomes longer.
        axis: usize,
        /// Zeros before.
        before: usize,
        /// Zeros after.
        after: usize,
    },
    /// `(xs..) -> joined along one axis`.
    Concat {
        /// The only axis in which the operands may differ.
        axis: usize,
    },

    // ---- contraction ----
    /// `(a, b) -> [m, n]`: 2-D product of `a` (`[m,k]`, or `[k,m]` if `trans_a`) and `b` (`[k,n]`, or `[n,k]` if `trans_b`),
    /// both of one type; summed in [`DType::accumulator`] and rounded once, to `dtype`: the operands' type or f32.
    MatMul {
        /// Read `a` transposed.
        trans_a: bool,
        /// Read `b` transposed.
        trans_b: bool,
        /// Element type of the result.
        dtype: DType,
    },

    // ---- norms, position, embedding ----
    /// `(x [.., d], w [d], residual?) -> (y, sum?)`, all but `w` like x: `x / sqrt(mean(x²) + eps) * w` (arXiv 1910.07467);
    /// `w` may be f32 where x is bf16 or f16. With a residual, the norm of `sum = x + residual`, rounded to its type.
    RmsNorm {
        /// Added to the mean square.
        eps: f64,
    },
    /// `(x, w, dy, dres?) -> (dx like x, dw_partial [P, d])`: P row blocks, see [`rms_norm_row_blocks`]; partial sums are f32.
    /// `dres`, like dy, is what reaches x by other ways: it is added to the gradient after that is rounded.
    RmsNormGrad {
        /// As in the forward.
        eps: f64,
    },
    /// `(x [B,N,H,D], table [len,D/2,2], start i32[B]?) -> y like x`: rotates interleaved feature pairs by
    /// position `start + n` (arXiv 2104.09864), or by the position of each token if that is `positions i32[B,N]`; `inverse` rotates back (its gradient). The table is f32 for an x of 16 bits, too.
    Rope {
        /// Rotate by the negative angle.
        inverse: bool,
    },
    /// `(table [V, d], ids i32[..]) -> [.., d]`: rows of the table, rounded to `dtype`: the table's type, bf16 or f16.
    Embedding {
        /// Element type of the result.
        dtype: DType,
    },
    /// `(ids i32[..], dy [.., d]) -> dtable [V, d]`; bf16 and f16 are summed to f32. If `sorted`, there are two results more,
    /// `order i32[5, tokens]` and `ranges i32[2, blocks]`: room for the kernels, in which the interpreter leaves zeros.
    EmbeddingGrad {
        /// Rows of the table.
        vocab: usize,
        /// The tokens are sorted by their ids first.
        sorted: bool,
    },

    // ---- attention; `attention` has the operations of each kind ----
    /// `(q [B,N,H,D], k [B,N,G,D], v [B,N,G,D], rope table?, positions i32[B,N]?) -> out [B,N,H,D]`; abstract, one kind is
    /// chosen per layer. `positions` is the position of each token in its document, 0 at its start: a token then sees those of
    /// its own document only, and is rotated by that position. Each is 0 or one more than the one before it.
    Attention(AttentionSpec),
    /// `(q, k, v, out, dout, rope table?, positions?) -> (dq, dk, dv)`; `out` names the forward node.
    AttentionGrad(AttentionSpec),
    /// An operation of the kind that was chosen: forward, backward, or decoding.
    Kind(KindOp),

    // ---- loss: a head of bf16 or f16 has such logits and gradients of logits; the loss and dw are f32 ----
    /// `(logits [T,V], targets i32[T]) -> f32[]`: mean over targets >= 0 of the negative log likelihood.
    CrossEntropy,
    /// `(logits, targets, dloss []) -> dlogits like logits`
    CrossEntropyGrad,
    /// `(logits [T,V], targets i32[T]) -> (log_probs f32[T], best_log_probs f32[T], best i32[T])`: the log-probability of
    /// each target (0 where it is below 0), and the most likely class of each row, the first of equals.
    LogProbs,
    /// `(h [T,d], w [V,d], targets i32[T]) -> (log_probs f32[T], best_log_probs f32[T], best i32[T], logits [chunk,V])`:
    /// [`Op::LogProbs`] of `h wᵀ`, `chunk` rows at a time; the logits are workspace, and rounded to the type of h and w.
    LinearLogProbs {
        /// Rows of logits that exist at once.
        chunk: usize,
    },
    /// `(h [T,d], w [V,d], targets i32[T]) -> (loss [], logits [chunk,V], nll [T+1])`: [`Op::CrossEntropy`] of `h wᵀ`,
    /// `chunk` rows at a time; all but the loss are workspace; the last element of `nll` is 1/(number of targets >= 0).
    /// h, w and logits are of one type, and logits are rounded to it.
    LinearCrossEntropy {
        /// Rows of logits that exist at once.
        chunk: usize,
    },
    /// `(h, w, targets, dloss []) -> (loss [], dh, dw, logits [chunk,V], nll [T+1])`: loss and gradients in one sweep.
    /// The gradient of the logits takes their place, and so is rounded as they are; dh is like h, dw f32.
    LinearCrossEntropyGrad {
        /// Rows of logits that exist at once.
        chunk: usize,
    },

    // ---- optimizer ----
    /// `(gs..) -> (norm [], partials [P])`: global L2 norm over all operands; `partials` is workspace,
    /// one sum of squares per [`NORM_BLOCK`] elements of each operand.
    GlobalNorm,
    /// `(partials [P]) -> norm []`: the norm of [`Op::GlobalNorm`] from its partial sums.
    NormFinish,
    /// The update of parameters, of one vector with all of them.
    Update(UpdateOp),

    // ---- ranks ----
    /// An exchange between ranks.
    Exchange(ExchangeOp),
}

/// Number of row blocks of [`Op::RmsNormGrad`] for so many rows: 8 rows or more each, so that partial sums are few beside
/// what the operation moves, and at most about two for each multiprocessor of a large GPU; 64 where rows are few.
pub fn rms_norm_row_blocks(rows: usize) -> usize {
    (rows / 8).clamp(64, 256).min(rows)
}

/// Rows of the table in one block of a sorted [`Op::EmbeddingGrad`]'s ranges.
pub const EMBEDDING_ROWS: usize = 8;

/// How many tokens are sorted at most: as many as f32 counts.
pub const SORTED_TOKENS: usize = 1 << 24;

/// Elements per partial sum of [`Op::GlobalNorm`].
pub const NORM_BLOCK: usize = 16384;

impl Op {
    /// The operation's name in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Param { .. } => "param",
            Op::State { .. } => "state",
            Op::Table { .. } => "table",
            Op::Constant { .. } => "constant",
            Op::Unary(u) => u.name(),
            Op::Binary(b) => b.name(),
            Op::Broadcast { .. } => "broadcast",
            Op::Cast { .. } => "cast",
            Op::Fused(_) => "fused",
            Op::Sum { .. } => "sum",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Concat { .. } => "concat",
            Op::MatMul { .. } => "matmul",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RmsNormGrad { .. } => "rms_norm_grad",
            Op::Rope { .. } => "rope",
            Op::Embedding { .. } => "embedding",
            Op::EmbeddingGrad { .. } => "embedding_grad",
            Op::Attention(_) => "attention",
            Op::AttentionGrad(_) => "attention_grad",
            Op::Kind(op) => op.name(),
            Op::CrossEntropy => "cross_entropy",
            Op::CrossEntropyGrad => "cross_entropy_grad",
            Op::LogProbs => "log_probs",
            Op::LinearLogProbs { .. } => "linear_log_probs",
            Op::LinearCrossEntropy { .. } => "linear_cross_entropy",
            Op::LinearCrossEntropyGrad { .. } => "linear_cross_entropy_grad",
            Op::GlobalNorm => "global_norm",
            Op::NormFinish => "norm_finish",
            Op::Update(op) => op.name(),
            Op::Exchange(op) => op.name(),
        }
    }

    /// The binding name of a leaf, which is what [`crate::facts::Class::Leaf`] is.
    pub fn leaf_name(&self) -> Option<&str> {
        let (Op::Input { name, .. }
        | Op::Param { name, .. }
        | Op::State { name, .. }
        | Op::Table { name, .. }) = self
        else {
            return None;
        };
        Some(name)
    }
}
