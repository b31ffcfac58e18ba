//! Errors that are found after the text of a model was read, at the place in the text that they are about.

use linc_ir::{Graph, NodeId, Op, Scope};
use linc_kernels::{HEAD_DIM_MULTIPLE, KernelError};
use linc_lang::Origins;
use linc_passes::PassError;

use crate::error::CompileError;
use crate::model::Model;

/// Refuses a model, as the language built it, with heads that no kernel exists for: of whatever kind and for whatever
/// machine.
///
/// # Errors
/// [`CompileError::Model`] at the attention and at the numbers of the model file that make its heads.
pub(crate) fn check_heads(model: &Model, graph: &Graph, origins: &Origins) -> Result<(), CompileError> {
    for node in graph.nodes() {
        let Op::Attention(_) = graph.op(node) else { continue };
        let found = graph.ty(graph.operands(node)[0]).shape.last();
        if found.is_multiple_of(HEAD_DIM_MULTIPLE) {
            continue;
        }
        let message = format!(
            "attention with heads of {found} features, which must be a multiple of {HEAD_DIM_MULTIPLE}"
        );
        let help = format!(
            "choose another head_dim, which is dim / n_heads where the model file does not say it, such as {}: in the \
             model file, by --set head_dim=N (compile) or by --model.overrides.head_dim N (train)",
            found.next_multiple_of(HEAD_DIM_MULTIPLE)
        );
        let error = origins.error(node, &message, &help);
        // Heads of another size come from numbers that only the text knows.
        let names: &[&str] = if found == model.sizes.head_dim { &["head_dim"] } else { &[] };
        return Err(model.point_at(error, names).into());
    }
    Ok(())
}

/// What to do about a model that cannot be decoded.
const MIXES: &str = "a token sees others through causal `attention` only, or it cannot be decoded one at a time; training and validation need none of this";

/// What to do about a model whose documents cannot be kept apart.
const MIXES_DOCUMENTS: &str = "tokens see others through causal `attention` only where documents are kept apart; leave out training.reset_at_document to let documents of a sequence see each other";

/// The error of a pass, at its place in the text if it has one; `graph` is the model as the language built it.
pub(crate) fn pass_error(error: PassError, graph: &Graph, origins: &Origins) -> CompileError {
    let (node, help) = match &error {
        PassError::MixesPositions { node, .. } => (Some(*node), MIXES),
        PassError::MixesDocuments { node, .. } => (*node, MIXES_DOCUMENTS),
        PassError::UnusedParameter { name } => {
            let is_it = |node: &NodeId| matches!(graph.op(*node), Op::Param { name: n, .. } if n == name);
            (graph.nodes().find(is_it), "what is trained must have a gradient")
        }
        PassError::NotDifferentiable { scope, op } => {
            (find(graph, scope, op), "write this part of the model in another way")
        }
        PassError::Ir(_) | PassError::Missing(_) | PassError::Setting(_) => (None, ""),
    };
    match node {
        Some(node) => origins.error(node, &error.to_string(), help).into(),
        None => error.into(),
    }
}

/// The first operation of that name in a block of the text, or what else is there: passes replace operations, but keep in
/// which block they are.
fn find(graph: &Graph, scope: &Scope, op: &str) -> Option<NodeId> {
    let here = || graph.nodes().filter(|node| graph.node(*node).scope == *scope);
    here().find(|node| graph.op(*node).name() == op).or_else(|| here().next())
}

/// A refused kernel, at the expression that its operation was built for; `graph` as for [`pass_error`].
pub(crate) fn kernel_error(error: KernelError, graph: &Graph, origins: &Origins) -> CompileError {
    match find(graph, &error.scope, error.op) {
        Some(node) => {
            let help = "write this part of the model in another way; there is no kernel for it";
            origins.error(node, &error.to_string(), help).into()
        }
        None => error.into(),
    }
}
