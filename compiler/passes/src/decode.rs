//! Decoding: attention over new tokens, with a key/value cache for softmax layers and a recurrent state for linear ones.
//! The position is a runtime scalar, so one compiled program serves every token. A prompt goes through a sister program
//! that takes a block of tokens at once and leaves nothing but caches and states.

use std::collections::BTreeMap;

use linc_ir::{BinaryOp, Graph, LinearForm, LinearSpec, NodeId, Op, StateRole, TensorType, Value};

use crate::attention::{LinearOptions, softmax_scale};
use crate::error::PassError;
use crate::placement::AttentionKind;
use crate::positions::POSITION;

/// Name of the input of a block of a prompt: f32 `[N]`, an upper bound of the keys of each token in the linear layers:
/// infinity, or [`NO_KEY`] for tokens that do not exist.
pub const KEY_LIMIT: &str = "key_limit";

/// A key that weighs nothing beside others, in every number format, at temperatures from [`LEAST_TEMPERATURE`] on.
pub const NO_KEY: f32 = -6e4;

/// The least temperature of linear layers at which a prompt can be taken in blocks: `e^(NO_KEY · temperature)` is nothing.
pub const LEAST_TEMPERATURE: f64 = 0.01;

/// Whether a model takes prompts in blocks: it has no linear layer, or one in which keys can be hidden.
pub fn takes_blocks(kinds: &[AttentionKind], temperature: f64) -> bool {
    temperature >= LEAST_TEMPERATURE || !kinds.contains(&AttentionKind::Linear)
}

/// Most tokens of a chunk of linear attention: no more of a block of a prompt need exist.
const CHUNK: usize = 64;

/// The caches of softmax layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caches {
    /// Tokens that they hold.
    pub context: usize,
    /// Tokens of a part of the work on them, if it is split.
    pub range: Option<usize>,
}

/// Lowers the attention of a graph for one token, which is causal: others do not get here.
///
/// # Errors
/// [`PassError::Missing`] for a layer without a kind.
pub fn run(
    graph: &mut Graph,
    kinds: &[AttentionKind],
    options: &LinearOptions,
    caches: Caches,
) -> Result<(), PassError> {
    lower(graph, kinds, options, caches, None)
}

/// The same for a graph for a block of tokens of a prompt, no more than the caches hold, of which those at the end need not
/// exist: what they leave in caches is written over before it is read, and their keys add nothing to states. Logits are
/// left out: those of the last token, which alone are wanted, are what decoding starts with.
///
/// # Errors
/// As [`run`], and [`PassError::Setting`] below [`LEAST_TEMPERATURE`].
pub fn prefill(
    graph: &mut Graph,
    kinds: &[AttentionKind],
    options: &LinearOptions,
    caches: Caches,
    tokens: usize,
) -> Result<(), PassError> {
    if !takes_blocks(kinds, options.temperature) {
        return Err(PassError::Setting(format!(
            "linear layers with a temperature of {} take a prompt token by token (from {LEAST_TEMPERATURE} on, in blocks)",
            options.temperature
        )));
    }
    graph.outputs.clear();
    let linear = Some(&AttentionKind::Linear);
    let is_linear = |n: NodeId| matches!(graph.op(n), Op::Attention(spec) if kinds.get(spec.layer) == linear);
    if !graph.nodes().any(is_linear) {
        return lower(graph, kinds, options, caches, None);
    }
    let ty = TensorType::f32([tokens]);
    let limit = graph.push(Op::Input { name: KEY_LIMIT.into(), ty }, &[])?;
    let limit = graph.push(Op::Reshape { shape: [1, tokens, 1, 1].into() }, &[limit])?;
    lower(graph, kinds, options, caches, Some(limit))
}

/// With `limit` `[1, N, 1, 1]`, the least of it and the keys of linear layers.
fn lower(
    graph: &mut Graph,
    kinds: &[AttentionKind],
    options: &LinearOptions,
    Caches { context, range }: Caches,
    limit: Option<Value>,
) -> Result<(), PassError> {
    let outer = graph.set_scope("decode");
    // Where positions are looked up, it is there.
    let position = match graph.leaf(POSITION) {
        Some(node) => Value { node, port: 0 },
        None => graph.push(Op::Input { name: POSITION.into(), ty: TensorType::i32([1]) }, &[])?,
    };
    // Attentions of each layer so far.
    let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
    let nodes: Vec<NodeId> = graph.nodes().filter(|n| matches!(graph.op(*n), Op::Attention(_))).collect();
    for id in nodes {
        let Op::Attention(spec) = graph.op(id).clone() else { continue };
        let kind = *kinds.get(spec.layer).ok_or_else(|| {
            PassError::Missing(format!("layer {} has no attention kind ({} layers)", spec.layer, kinds.len()))
        })?;
        graph.set_scope(graph.node(id).scope.clone());
        let x = graph.operands(id);
        let (mut q, mut k) = (x[0], x[1]);
        if spec.rope && (kind == AttentionKind::Softmax || options.rope) {
            q = graph.push(Op::Rope { inverse: false }, &[q, x[3], position])?;
            k = graph.push(Op::Rope { inverse: false }, &[k, x[3], position])?;
        }
        let shape = graph.ty(k).shape.clone();
        let (b, n, g, d) = (shape.0[0], shape.0[1], shape.0[2], shape.0[3]);
        let (op, role, states) = match kind {
            AttentionKind::Softmax => {
                let cache: linc_ir::Shape = [b, context, g, d].into();
                let op = Op::SoftmaxDecode { scale: softmax_scale(graph, q), range };
                (op, StateRole::KeyValueCache, vec![("cache_k", cache.clone()), ("cache_v", cache)])
            }
            AttentionKind::Linear => {
                if let Some(limit) = limit {
                    let limit = graph.push(Op::Broadcast { shape }, &[limit])?;
                    k = graph.push(Op::Binary(BinaryOp::Min), &[k, limit])?;
                }
                let row: linc_ir::Shape = [b, g, d].into();
                let form = if n == 1 { LinearForm::Fused } else { options.form };
                let chunk = options.chunk.min(n).min(CHUNK);
                let op = Op::LinearDecode(LinearSpec { form, chunk, ..options.spec(true) });
                let states =
                    vec![("state_max", row.clone()), ("state_sum", row), ("state", [b, g, d, d].into())];
                (op, StateRole::Recurrent, states)
            }
        };
        let number = numbers.entry(spec.layer).or_default();
        let mut operands = vec![q, k, x[2]];
        let mut leaves = vec![];
        for (name, shape) in states {
            let name = state_name(spec.layer, *number, name);
            let leaf = graph.add(Op::State { name, ty: TensorType::f32(shape), role: role.clone() }, &[])?;
            operands.push(Value { node: leaf, port: 0 });
            leaves.push(leaf);
        }
        *number += 1;
        operands.push(position);
        let step = graph.add(op, &operands)?;
        for (i, leaf) in leaves.into_iter().enumerate() {
            graph.updates.push((leaf, Value { node: step, port: i as u32 + 1 }));
        }
        graph.replace_uses(Value { node: id, port: 0 }, Value { node: step, port: 0 });
        graph.remove(id);
    }
    graph.set_scope(outer);
    Ok(())
}

/// The name of a cache or state of attention `number` of a layer, the same in all programs of a model.
fn state_name(layer: usize, number: usize, name: &str) -> String {
    match number {
        0 => format!("layers.{layer}.attention.{name}"),
        _ => format!("layers.{layer}.attention.{number}.{name}"),
    }
}
