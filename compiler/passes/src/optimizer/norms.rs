//! Norms of parts of the gradients, beside that of all: for whoever looks for the layer in which training goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::{BinaryOp, Graph, Op, Shape, Value};

use super::Run;
use crate::error::PassError;

/// Name of the output with the norm of the gradients of each set of parameters, before clipping, f32 `[sets]`.
pub const GRAD_NORMS: &str = "grad_norms";

/// Appends [`GRAD_NORMS`], of gradients as `runs` has them and `joined` their vectors, and without their scale where `unscale`
/// (f32 scalar) takes it away.
///
/// The norms read pieces of the vectors: what read the single gradients would keep them beside the vectors.
///
/// # Errors
/// [`PassError::Setting`] for a set that is empty or names no parameter; [`PassError::Ir`] on a malformed graph.
pub(super) fn run(
    graph: &mut Graph,
    runs: &[Run],
    joined: &[Value],
    sets: &[BTreeSet<String>],
    unscale: Option<Value>,
) -> Result<(), PassError> {
    if sets.is_empty() {
        return Ok(());
    }
    let mut pieces: BTreeMap<String, Value> = BTreeMap::new();
    for (run, whole) in runs.iter().zip(joined) {
        let shapes: Vec<Shape> =
            run.grads.iter().map(|grad| [graph.ty(*grad).shape.numel()].into()).collect();
        let names =
            run.params.iter().map(|param| graph.op(*param).leaf_name().unwrap_or_default().to_owned());
        let names: Vec<String> = names.collect();
        pieces.extend(names.into_iter().zip(graph.cut(*whole, &shapes)?));
    }
    let mut norms = vec![];
    for set in sets {
        let mut grads = vec![];
        for name in set {
            let Some(piece) = pieces.get(name) else {
                return Err(PassError::Setting(format!(
                    "a norm of gradients is asked for of {name}, which is no parameter"
                )));
            };
            grads.push(*piece);
        }
        if grads.is_empty() {
            return Err(PassError::Setting("a norm of gradients is asked for of no parameter".into()));
        }
        norms.push(graph.push(Op::GlobalNorm, &grads)?);
    }
    let mut norms = graph.join(&norms)?;
    if let Some(unscale) = unscale {
        let unscale = graph.push(Op::Broadcast { shape: [sets.len()].into() }, &[unscale])?;
        norms = graph.push(Op::Binary(BinaryOp::Mul), &[norms, unscale])?;
    }
    graph.outputs.push((GRAD_NORMS.into(), norms));
    Ok(())
}
