//! Models whose layers mix kinds of attention: what the language builds of them, and the copies of parameters that they have.

use linc_ir::Graph;
use linc_lang::{BuildShape, Origins};
use linc_passes::{PassError, mix};

use crate::error::CompileError;
use crate::model::Model;

/// The graph of a model that can be mixed.
///
/// # Errors
/// [`CompileError::Pass`] for one whose text asks for the kind of a layer; [`CompileError::Model`] if there is no such graph.
pub(crate) fn built(model: &Model, batch: usize, seq: usize) -> Result<(Graph, Origins), CompileError> {
    if model.reads_kind {
        let message = "the model's text asks for the kind of a layer, so that each placement of linear layers is another model; layers can mix kinds only where all placements have the same parameters and the same text";
        return Err(PassError::Setting(message.into()).into());
    }
    let built = model.build(BuildShape { batch, seq, rope_len: seq })?;
    Ok((built.graph, built.origins))
}

/// The parameters that linear branches have copies of in the programs of [`crate::Entry::Mixed`]: those that only queries and
/// keys depend on. A copy starts as the parameter that it is of, and may replace it where its layer becomes linear.
///
/// # Errors
/// As for those programs.
pub fn copies(model: &Model) -> Result<Vec<mix::CopiedParam>, CompileError> {
    let (graph, _) = built(model, model.shape.batch, model.shape.seq)?;
    Ok(mix::copies(&graph))
}
