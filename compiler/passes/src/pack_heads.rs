//! What attention goes over again and again lies head by head, for machines that multiply rows where they are.
//!
//! As products leave them, the rows of a head are as far apart as a token is wide: they compete for the same cache sets, no
//! prefetcher follows them, and each tile is copied before it is multiplied. Copied once, `[B, S, H, D]` as `[B, H, S, D]`, every
//! block of queries reads them as they are. Often the copy costs nothing: the memory pass lets rotary positions write there.

use linc_ir::{Class, Graph, NodeId, Op, Value, Walks};

use crate::error::PassError;

/// Tokens of a sequence from which on some blocks of queries read each row, which pays for the copies.
pub const TOKENS: usize = 512;

/// Packs what attention of sequences of so many tokens walks over ([`Walks`]), queries, keys, values and gradients.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph, tokens: usize) -> Result<(), PassError> {
    let nodes: Vec<NodeId> = graph.nodes().collect();
    let mut packed: Vec<(Seen, Value)> = vec![];
    for id in nodes {
        let walks = graph.op(id).facts().walks;
        if walks == Walks::NOTHING {
            continue;
        }
        let outer = graph.set_scope(graph.node(id).scope.clone());
        for index in walks.reads {
            let value = graph.operands(id)[*index];
            if !is_worth_it(graph, value, tokens) {
                continue;
            }
            let seen = Seen::of(graph, value);
            let known = packed.iter().find(|(other, _)| *other == seen).map(|(_, copy)| *copy);
            let copy = match known {
                Some(copy) => copy,
                None => pack(graph, value)?,
            };
            if known.is_none() {
                packed.push((seen, copy));
            }
            graph.set_operand(id, *index, copy);
        }
        for port in walks.adds {
            let sum = Value { node: id, port: *port as u32 };
            if is_worth_it(graph, sum, tokens) && !graph.is_result(sum) {
                let users = graph.users(sum);
                let copy = pack(graph, sum)?;
                for (user, operand) in users {
                    graph.set_operand(user, operand, copy);
                }
            }
        }
        graph.set_scope(outer);
    }
    Ok(())
}

/// What a value is a view of, and how: the backward sees what the forward saw by views of its own.
#[derive(PartialEq)]
struct Seen {
    source: Value,
    views: Vec<Op>,
}

impl Seen {
    fn of(graph: &Graph, value: Value) -> Seen {
        let mut seen = Seen { source: value, views: vec![] };
        while graph.op(seen.source.node).facts().class == Class::View {
            seen.views.push(graph.op(seen.source.node).clone());
            seen.source = graph.operands(seen.source.node)[0];
        }
        seen
    }
}

/// Whether a `[B, S, H, D]` value has several heads, and tokens enough.
fn is_worth_it(graph: &Graph, value: Value, tokens: usize) -> bool {
    let shape = &graph.ty(value).shape.0;
    shape[1] >= tokens && shape[2] > 1
}

/// The same elements, each head's side by side.
fn pack(graph: &mut Graph, value: Value) -> Result<Value, PassError> {
    let by_heads = swapped(graph, value)?;
    let copy = graph.copy(by_heads)?;
    swapped(graph, copy)
}

/// Heads before tokens, or back; computed again where the value is.
fn swapped(graph: &mut Graph, value: Value) -> Result<Value, PassError> {
    let swapped = graph.push(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[value])?;
    graph.node_mut(swapped.node).recompute = graph.node(value.node).recompute;
    Ok(swapped)
}
