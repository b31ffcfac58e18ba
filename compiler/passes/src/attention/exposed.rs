//! What attention reads and gives, as results of the program, and a factor for what it gives: for whoever looks into a model.
//! With factors of 1 the program computes what it would without them.

use std::fmt;

use linc_ir::{AttentionKind, BinaryOp, Graph, KindOp, Op, TensorType, Value};

use super::{AttentionOptions, lower_forwards};
use crate::error::PassError;

/// A tensor of one attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Result, `[B, N, H, D]`: queries as the operation of its kind reads them.
    Queries,
    /// Result, `[B, N, G, D]`: keys, likewise.
    Keys,
    /// Result, `[B, N, G, D]`.
    Values,
    /// Result, `[B, N, H, D]`: what it gives, before the factor.
    Output,
    /// Input, f32 `[H, D]`: what its output is multiplied by before the model reads it.
    Factor,
}

/// Names a tensor of an attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exposed {
    /// Which attention, by their order in the text, layer by layer.
    pub attention: usize,
    /// Which of its tensors.
    pub part: Part,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Queries => "queries",
            Part::Keys => "keys",
            Part::Values => "values",
            Part::Output => "output",
            Part::Factor => "factor",
        };
        write!(f, "attention.{}.{part}", self.attention)
    }
}

/// Lowers all attention nodes of a graph that is not differentiated, and gives it the results and inputs of each [`Part`].
///
/// # Errors
/// As [`super::run`].
pub fn run(graph: &mut Graph, kinds: &[AttentionKind], options: &AttentionOptions) -> Result<(), PassError> {
    for (attention, lowered) in lower_forwards(graph, kinds, options)?.into_iter().enumerate() {
        let name = |part: Part| Exposed { attention, part }.to_string();
        let out = lowered.out;
        let shape = graph.ty(out).shape.clone();
        let [.., heads, features] = shape.0[..] else {
            return Err(PassError::Missing("attention of [batch, seq, heads, head_dim]".into()));
        };
        let scope = graph.set_scope(graph.node(out.node).scope.clone());
        let ty = TensorType::f32([heads, features]);
        let factor = graph.push(Op::Input { name: name(Part::Factor), ty }, &[])?;
        let factor = graph.push(Op::Reshape { shape: [1, 1, heads, features].into() }, &[factor])?;
        let factor = graph.push(Op::Broadcast { shape }, &[factor])?;
        let readers = graph.users(out);
        let changed = graph.push(Op::Binary(BinaryOp::Mul), &[out, factor])?;
        readers.into_iter().for_each(|(reader, operand)| graph.set_operand(reader, operand, changed));
        graph.set_scope(scope);
        let operands = graph.operands(out.node);
        let [q, k, v] = operands[..] else {
            return Err(PassError::Missing("attention of queries, keys and values".into()));
        };
        for (part, value) in [(Part::Queries, q), (Part::Keys, k), (Part::Values, v), (Part::Output, out)] {
            graph.outputs.push((name(part), value));
        }
    }
    Ok(())
}

/// An attention of a graph as its kind computes it.
#[derive(Clone, PartialEq, Debug)]
pub struct KindForward {
    /// Its layer, from 0.
    pub layer: usize,
    /// The forward of its kind.
    pub op: KindOp,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
}

/// The attentions of a graph, numbered as in [`Exposed`].
///
/// # Errors
/// As [`super::run`].
pub fn forwards(
    mut graph: Graph,
    kinds: &[AttentionKind],
    options: &AttentionOptions,
) -> Result<Vec<KindForward>, PassError> {
    let lowered = lower_forwards(&mut graph, kinds, options)?;
    let forward = |lowered: super::Lowered| {
        let operands: Vec<Value> = graph.operands(lowered.out.node);
        let sizes = |value: &Value| graph.ty(*value).shape.dims().to_vec();
        match (graph.op(lowered.out.node), &operands[..]) {
            (Op::Kind(op), [q, k, _]) => {
                let (q, k) = (sizes(q), sizes(k));
                let (heads, kv_heads, head_dim) = (q[2], k[2], q[3]);
                Ok(KindForward { layer: lowered.layer, op: op.clone(), heads, kv_heads, head_dim })
            }
            (op, _) => Err(PassError::Missing(format!("the forward of a kind, found {}", op.name()))),
        }
    };
    lowered.into_iter().map(forward).collect()
}
