//! Whether two models compute the same, however their texts are written.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::{Graph, Init, NodeId, Op};
use linc_lang::{BuildShape, BuiltModel, Diagnostic, Diagnostics};

use crate::error::CompileError;
use crate::model::Model;

/// Refuses a model whose graph, as the language built it, has an operation that another's has not, or lacks one of them. The
/// order of statements and the initial values of parameters do not count. `describe` makes a message of `has X` or `lacks X`.
///
/// # Errors
/// [`CompileError::Model`] at the expression in the text that the other model does not have; one without a place for an
/// operation that is lacking.
pub fn check_same(
    model: &Model,
    other: &Model,
    describe: &dyn Fn(&str) -> String,
    help: &str,
) -> Result<(), CompileError> {
    let shape = BuildShape { batch: model.shape.batch, seq: model.shape.seq, rope_len: model.shape.seq };
    let (built, other) = (model.build(shape)?, other.build(shape)?);
    let mut known = BTreeMap::new();
    let (found, expected) = (computed(&built, &mut known), computed(&other, &mut known));
    let classes = |nodes: &BTreeMap<NodeId, usize>| nodes.values().copied().collect::<BTreeSet<_>>();
    let (has, wants) = (classes(&found), classes(&expected));
    let first = |nodes: &BTreeMap<NodeId, usize>, others: &BTreeSet<usize>| {
        // Whatever is computed from a difference differs: the operation that was met first is the one.
        let outside = nodes.iter().filter(|(_, class)| !others.contains(class));
        outside.min_by_key(|(_, class)| **class).map(|(node, _)| *node)
    };
    if let Some(node) = first(&found, &wants) {
        let message = describe(&format!("has {}", words(&built.graph, node)));
        return Err(built.origins.error(node, &message, help).into());
    }
    match first(&expected, &has) {
        None => Ok(()),
        Some(node) => {
            let message = describe(&format!("lacks {}", words(&other.graph, node)));
            let error = Diagnostic::nowhere(message).help(help.to_string());
            Err(Diagnostics::new(vec![error], vec![]).into())
        }
    }
}

/// An operation, and what it is computed from.
type Computation = (String, Vec<(usize, u32)>);

/// The class of each node of a graph: equal for those that compute the same, in whichever graph they are.
fn computed(built: &BuiltModel, known: &mut BTreeMap<Computation, usize>) -> BTreeMap<NodeId, usize> {
    let graph = &built.graph;
    let mut classes = BTreeMap::new();
    // The language adds operations after their operands.
    for node in graph.nodes() {
        let op = match graph.op(node) {
            Op::Param { name, ty, .. } => Op::Param { name: name.clone(), ty: ty.clone(), init: Init::Zeros },
            other => other.clone(),
        };
        let operands = graph.operands(node).into_iter();
        let operands = operands.map(|v| (classes.get(&v.node).copied().unwrap_or(usize::MAX), v.port));
        let computation = (format!("{op:?}"), operands.collect());
        let next = known.len();
        classes.insert(node, *known.entry(computation).or_insert(next));
    }
    classes
}

/// `rms_norm in layers.0/attention`, for people.
fn words(graph: &Graph, node: NodeId) -> String {
    let scope = graph.node(node).scope.to_string();
    let place = if scope.is_empty() { scope } else { format!(" in {scope}") };
    format!("`{}`{place}", graph.op(node).name())
}
