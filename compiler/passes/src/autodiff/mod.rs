//! Reverse-mode differentiation of a scalar loss over the graph.
//!
//! Walks the nodes between the parameters and the loss backwards; `vjp.rs` holds one rule per operation.
//! Gradients that meet at a value are added in the order in which they arise, except that a sum of products
//! `Σ aᵢ·bᵢ` over equal result types becomes one product of the joined operands (the inputs of q, k, v and of gate and
//! up projections): the same terms in one contraction.

mod vjp;

use std::collections::BTreeMap;

use linc_ir::{Graph, NodeId, Op, TensorType, Value};

use crate::error::PassError;

/// Gradient of every parameter, in the order of the parameters' creation.
pub type Gradients = Vec<(NodeId, Value)>;

/// Appends the backward of output `loss` (an f32 scalar) to the graph.
///
/// # Errors
/// [`PassError::Missing`] without such an output, [`PassError::NotDifferentiable`] at an operation without a
/// derivative, [`PassError::UnusedParameter`] for a parameter the loss does not depend on.
pub fn run(graph: &mut Graph, loss: &str) -> Result<Gradients, PassError> {
    run_from(graph, loss, None)
}

/// The same for the loss times `seed` (f32 scalar; 1 if there is none), which itself stays as it is.
///
/// # Errors
/// As [`run`].
pub fn run_from(graph: &mut Graph, loss: &str, seed: Option<Value>) -> Result<Gradients, PassError> {
    let root = graph
        .outputs
        .iter()
        .find(|(name, _)| name == loss)
        .map(|(_, value)| *value)
        .ok_or_else(|| PassError::Missing(format!("the graph has no output {loss}")))?;
    let params: Vec<NodeId> = graph.nodes().filter(|n| matches!(graph.op(*n), Op::Param { .. })).collect();
    run_to(graph, root, seed, &params)
}

/// Appends the backward of a value from its own gradient `seed` (ones if there is none) to some leaves, which nothing goes
/// beyond; returns their gradients in their order.
///
/// # Errors
/// As [`run`], for those leaves.
pub fn run_to(
    graph: &mut Graph,
    root: Value,
    seed: Option<Value>,
    leaves: &[NodeId],
) -> Result<Gradients, PassError> {
    let order = graph.topological()?;
    let active = active_nodes(graph, &order, root, leaves)?;

    let mut pending: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    let outer = graph.set_scope("loss");
    let seed = match seed {
        None => graph.push(Op::Constant { value: 1.0, ty: graph.ty(root).clone() }, &[])?,
        Some(seed) => seed,
    };
    pending.insert(root, vec![seed]);

    for id in order.into_iter().rev().filter(|id| active.contains(id)) {
        if graph.op(id).leaf_name().is_some() {
            continue;
        }
        graph.set_scope(graph.node(id).scope.clone());
        let mut grads = vec![];
        for value in graph.results(id).collect::<Vec<_>>() {
            grads.push(match pending.remove(&value) {
                Some(parts) => Some(accumulate(graph, &parts)?),
                None => None,
            });
        }
        if grads.iter().all(Option::is_none) {
            continue;
        }
        let operands = graph.operands(id);
        for (operand, grad) in operands.iter().zip(vjp::vjp(graph, id, &grads)?) {
            if let Some(grad) = grad.filter(|_| active.contains(&operand.node)) {
                pending.entry(*operand).or_default().push(grad);
            }
        }
    }

    let mut gradients = vec![];
    for leaf in leaves {
        graph.set_scope(graph.node(*leaf).scope.clone());
        let parts = pending.remove(&Value { node: *leaf, port: 0 }).ok_or_else(|| {
            PassError::UnusedParameter { name: graph.op(*leaf).leaf_name().unwrap_or_default().to_string() }
        })?;
        gradients.push((*leaf, accumulate(graph, &parts)?));
    }
    graph.set_scope(outer);
    Ok(gradients)
}

/// Nodes on a path from a leaf of these to the root.
fn active_nodes(
    graph: &Graph,
    order: &[NodeId],
    root: Value,
    leaves: &[NodeId],
) -> Result<std::collections::BTreeSet<NodeId>, PassError> {
    let mut reached: std::collections::BTreeSet<NodeId> = leaves.iter().copied().collect();
    for id in order {
        let operands = graph.operands(*id);
        if operands.iter().any(|v| reached.contains(&v.node) && graph.ty(*v).dtype.is_float()) {
            reached.insert(*id);
        }
    }
    let mut active = std::collections::BTreeSet::new();
    let mut stack = vec![root.node];
    while let Some(id) = stack.pop() {
        if reached.contains(&id) && active.insert(id) {
            stack.extend(graph.operands(id).iter().map(|v| v.node));
        }
    }
    Ok(active)
}

/// The sum of the gradients that meet at one value.
fn accumulate(graph: &mut Graph, parts: &[Value]) -> Result<Value, PassError> {
    if let Some(joined) = join_products(graph, parts)? {
        return Ok(joined);
    }
    let mut sum = parts[0];
    for part in &parts[1..] {
        sum = graph.push(Op::Binary(linc_ir::BinaryOp::Add), &[sum, *part])?;
    }
    Ok(sum)
}

/// `a₁·b₁ + a₂·b₂ + ..` as one product of `[a₁ a₂ ..]` and `[b₁; b₂; ..]`, if all parts are such products,
/// looking through reshapes.
fn join_products(graph: &mut Graph, parts: &[Value]) -> Result<Option<Value>, PassError> {
    if parts.len() < 2 {
        return Ok(None);
    }
    let behind_reshape = |graph: &Graph, v: Value| match graph.op(v.node) {
        Op::Reshape { .. } => graph.operands(v.node)[0],
        _ => v,
    };
    let products: Vec<Value> = parts.iter().map(|p| behind_reshape(graph, *p)).collect();
    let Op::MatMul { trans_a, trans_b, dtype } = *graph.op(products[0].node) else { return Ok(None) };
    let ty = graph.ty(products[0]).clone();
    let alike = products
        .iter()
        .all(|p| *graph.op(p.node) == Op::MatMul { trans_a, trans_b, dtype } && *graph.ty(*p) == ty);
    if !alike {
        return Ok(None);
    }
    // Contributions arrive last use first; join them in program order (q, k, v), as the weights lie in memory.
    let operands: Vec<Vec<Value>> = products.iter().rev().map(|p| graph.operands(p.node)).collect();
    let left: Vec<Value> = operands.iter().map(|o| o[0]).collect();
    let right: Vec<Value> = operands.iter().map(|o| o[1]).collect();
    let left = graph.push(Op::Concat { axis: usize::from(!trans_a) }, &left)?;
    let right = graph.push(Op::Concat { axis: usize::from(trans_b) }, &right)?;
    let product = graph.push(Op::MatMul { trans_a, trans_b, dtype }, &[left, right])?;
    let shape = graph.ty(parts[0]).shape.clone();
    if graph.ty(product).shape == shape {
        return Ok(Some(product));
    }
    Ok(Some(graph.push(Op::Reshape { shape }, &[product])?))
}

/// A scalar constant spread over a type.
fn constant_like(graph: &mut Graph, value: f64, ty: &TensorType) -> Result<Value, PassError> {
    Ok(graph.push(Op::Constant { value, ty: ty.clone() }, &[])?)
}
