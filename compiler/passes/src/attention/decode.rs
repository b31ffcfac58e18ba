//! Decoding: attention over new tokens, with what their kinds keep of earlier ones: caches or recurrent states, one set in each
//! of some slots. Position and slot of each sequence of a batch are inputs, so one compiled program serves every token of any
//! sequences. A prompt goes through a sister program that takes a block of tokens at once and leaves nothing but caches and
//! states.

use std::collections::BTreeMap;

use linc_ir::{AttentionKind, Graph, NodeId, Op, TensorType, Value};

use super::{AttentionOptions, Step, Tokens, kind_of, lowering};
use crate::error::PassError;
use crate::positions::POSITION;

/// Name of the input of a block of a prompt: f32 `[N]`, 1 for its tokens and 0 for those that fill it up.
pub const TOKEN_MASK: &str = "token_mask";

/// Name of the input of slots: i32 `[B]`, where the caches and states of each sequence are; different numbers.
pub const SLOT: &str = "slot";

/// The room for sequences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Sequences that have caches and states, at least those of a batch.
    pub slots: usize,
    /// Tokens that each may have.
    pub context: usize,
}

impl Room {
    /// The room for one sequence.
    pub fn of_one(context: usize) -> Self {
        Room { slots: 1, context }
    }
}

/// Whether a model takes prompts in blocks: each of its kinds can.
pub fn takes_blocks(kinds: &[AttentionKind], options: &AttentionOptions) -> bool {
    kinds.iter().all(|kind| lowering(*kind, options).refuses_blocks().is_none())
}

/// Lowers the attention of a graph for one token of each sequence, which is causal: others do not get here.
///
/// # Errors
/// [`PassError::Missing`] for a layer without a kind.
pub fn run(
    graph: &mut Graph,
    kinds: &[AttentionKind],
    options: &AttentionOptions,
    room: Room,
) -> Result<(), PassError> {
    lower(graph, kinds, options, room, None)
}

/// The same for a graph for a block of tokens of a prompt, no more than the caches hold, of which those at the end need not
/// exist: what they leave in caches is written over before it is read, and they add nothing to states. Logits are
/// left out: those of the last token, which alone are wanted, are what decoding starts with.
///
/// # Errors
/// As [`run`], and [`PassError::Setting`] if a kind refuses blocks.
pub fn prefill(
    graph: &mut Graph,
    kinds: &[AttentionKind],
    options: &AttentionOptions,
    room: Room,
    tokens: usize,
) -> Result<(), PassError> {
    if let Some(refusal) = kinds.iter().find_map(|kind| lowering(*kind, options).refuses_blocks()) {
        return Err(PassError::Setting(refusal));
    }
    graph.outputs.clear();
    let needs_mask = |n: NodeId| match graph.op(n) {
        Op::Attention(spec) => kind_of(spec, kinds, options).map(|kind| kind.needs_mask()),
        _ => Ok(false),
    };
    let needs: Result<Vec<bool>, PassError> = graph.nodes().map(needs_mask).collect();
    if !needs?.contains(&true) {
        return lower(graph, kinds, options, room, None);
    }
    let ty = TensorType::f32([tokens]);
    let mask = graph.push(Op::Input { name: TOKEN_MASK.into(), ty }, &[])?;
    lower(graph, kinds, options, room, Some(mask))
}

fn lower(
    graph: &mut Graph,
    kinds: &[AttentionKind],
    options: &AttentionOptions,
    room: Room,
    mask: Option<Value>,
) -> Result<(), PassError> {
    let outer = graph.set_scope("decode");
    let nodes: Vec<NodeId> = graph.nodes().filter(|n| matches!(graph.op(*n), Op::Attention(_))).collect();
    let batch = graph.nodes().find_map(|id| match graph.op(id) {
        Op::Input { ty, .. } if ty.shape.rank() == 2 => Some(ty.shape.0[0]),
        _ => None,
    });
    let batch = batch.ok_or_else(|| PassError::Missing("the model has no input of tokens".into()))?;
    let mut numbers = |name: &str| match graph.leaf(name) {
        // Where positions are looked up, they are there, for a table is looked up once for all sequences.
        Some(_) if batch > 1 => {
            Err(PassError::Setting("a model with a table of positions decodes one sequence at a time".into()))
        }
        Some(node) => Ok(Value { node, port: 0 }),
        None => graph
            .push(Op::Input { name: name.into(), ty: TensorType::i32([batch]) }, &[])
            .map_err(PassError::from),
    };
    let (position, slot) = (numbers(POSITION)?, numbers(SLOT)?);
    // Attentions of each layer so far.
    let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
    for id in nodes {
        let Op::Attention(spec) = graph.op(id).clone() else { continue };
        let kind = kind_of(&spec, kinds, options)?;
        graph.set_scope(graph.node(id).scope.clone());
        let x = graph.operands(id);
        let (mut q, mut k) = (x[0], x[1]);
        if spec.rope && kind.rotates() {
            q = graph.push(Op::Rope { inverse: false }, &[q, x[3], position])?;
            k = graph.push(Op::Rope { inverse: false }, &[k, x[3], position])?;
        }
        let mask = mask.filter(|_| kind.needs_mask());
        let Step { op, k, role, states } = kind.decode(graph, &Tokens { q, k, mask, room })?;
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
        operands.extend([position, slot]);
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
