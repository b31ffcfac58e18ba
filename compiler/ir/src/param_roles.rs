//! The roles of parameters, by what reads them.

use std::collections::{BTreeMap, BTreeSet};

use crate::attention::{AttentionFamily, AttentionKind};
use crate::facts::Class;
use crate::graph::{Graph, NodeId, Value};
use crate::op::Op;
use crate::pointwise::BinaryOp;
use crate::role::ParamRole;

/// The roles of each parameter of a model as it was built, whose layers have these kinds of attention and whose output is `logits`.
pub fn param_roles(
    graph: &Graph,
    kinds: &[AttentionKind],
    logits: Option<Value>,
) -> BTreeMap<NodeId, BTreeSet<ParamRole>> {
    let mut roles: BTreeMap<NodeId, BTreeSet<ParamRole>> = BTreeMap::new();
    let mut add = |params: Vec<NodeId>, role: ParamRole| {
        for param in params {
            roles.entry(param).or_default().insert(role);
        }
    };
    let mut factors = vec![];
    for id in graph.nodes() {
        let operands = graph.operands(id);
        match graph.op(id) {
            Op::Param { ty, .. } if ty.shape.rank() < 2 => add(vec![id], ParamRole::Vector),
            Op::Param { .. } => add(vec![id], ParamRole::Matrix),
            Op::Embedding { .. } => add(behind_views(graph, operands[0]), ParamRole::Embedding),
            Op::RmsNorm { .. } => add(behind_views(graph, operands[1]), ParamRole::Norm),
            Op::MatMul { .. } => factors.extend(operands.iter().flat_map(|v| behind_views(graph, *v))),
            Op::Attention(spec) => {
                let role = match kinds.get(spec.layer).map(|kind| kind.family()) {
                    Some(AttentionFamily::Linear) => ParamRole::LinearAttention,
                    Some(AttentionFamily::Softmax) | None => ParamRole::SoftmaxAttention,
                };
                add(projections(graph, id), role);
            }
            _ => {}
        }
    }
    add(logits.map(|logits| output_matrix(graph, logits)).unwrap_or_default(), ParamRole::Output);
    // Only what a product inside of the model reads is one of its matrices.
    for (param, roles) in &mut roles {
        let is_elsewhere = roles.contains(&ParamRole::Embedding) || roles.contains(&ParamRole::Output);
        let rank = graph.ty(Value { node: *param, port: 0 }).shape.rank();
        if is_elsewhere || rank != 2 || !factors.contains(param) {
            roles.remove(&ParamRole::Matrix);
        }
    }
    roles
}

/// Parameters of which a value is a view, a copy or a join.
fn behind_views(graph: &Graph, value: Value) -> Vec<NodeId> {
    match graph.op(value.node) {
        Op::Param { .. } => vec![value.node],
        op if op.moves_elements() || matches!(op, Op::Cast { .. }) => {
            graph.operands(value.node).into_iter().flat_map(|v| behind_views(graph, v)).collect()
        }
        _ => vec![],
    }
}

/// The matrix of the product that a value is, but for pointwise operations and views.
fn output_matrix(graph: &Graph, value: Value) -> Vec<NodeId> {
    let (mut stack, mut seen, mut found) = (vec![value.node], BTreeSet::new(), vec![]);
    while let Some(id) = stack.pop() {
        let op = graph.op(id);
        if !seen.insert(id) {
            continue;
        }
        if matches!(op, Op::MatMul { .. }) {
            found.extend(graph.operands(id).iter().flat_map(|v| behind_views(graph, *v)));
        } else if op.moves_elements() || op.facts().class == Class::Pointwise {
            stack.extend(graph.operands(id).iter().map(|v| v.node));
        }
    }
    found
}

/// Parameters between an attention and the products around it, those of the products included: projections, their biases,
/// gains of norms of queries and keys.
fn projections(graph: &Graph, attention: NodeId) -> Vec<NodeId> {
    let layer = graph.node(attention).scope.layer;
    let inside = |id: NodeId| graph.node(id).scope.layer == layer;
    let mut found = vec![];
    let (mut stack, mut seen) = (vec![], BTreeSet::from([attention]));
    stack.extend(graph.operands(attention).iter().map(|v| v.node));
    while let Some(id) = stack.pop() {
        let op = graph.op(id);
        if matches!(op, Op::Param { .. }) {
            found.push(id);
        } else if seen.insert(id) && inside(id) {
            let operands = graph.operands(id);
            match op {
                Op::MatMul { .. } => found.extend(operands.iter().flat_map(|v| behind_views(graph, *v))),
                Op::RmsNorm { .. } | Op::Rope { .. } => stack.extend(operands.iter().map(|v| v.node)),
                op if op.moves_elements() || op.facts().class == Class::Pointwise => {
                    stack.extend(operands.iter().map(|v| v.node));
                }
                _ => {}
            }
        }
    }
    // Behind it, up to the first product; a sum is the residual stream already.
    let mut stack: Vec<Value> = graph.results(attention).collect();
    while let Some(value) = stack.pop() {
        for (reader, operand) in graph.users(value) {
            if !seen.insert(reader) || !inside(reader) {
                continue;
            }
            let operands = graph.operands(reader);
            let passes_on = match graph.op(reader) {
                Op::MatMul { .. } => {
                    found.extend(operands.iter().flat_map(|v| behind_views(graph, *v)));
                    false
                }
                Op::RmsNorm { .. } => {
                    found.extend(behind_views(graph, operands[1]));
                    operand == 0
                }
                Op::Binary(BinaryOp::Add | BinaryOp::Sub) => false,
                op => op.moves_elements() || op.facts().class == Class::Pointwise,
            };
            if passes_on {
                stack.extend(graph.results(reader));
            }
        }
    }
    found
}
