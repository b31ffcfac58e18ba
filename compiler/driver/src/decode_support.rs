//! Whether a model can decode, that is write text: one token at a time, each from the tokens before it.

use linc_ir::Graph;
use linc_lang::{BuildShape, Diagnostic, Diagnostics, Origins};
use linc_passes::positions;

use crate::error::CompileError;
use crate::locate::pass_error;
use crate::model::Model;

/// How a model decodes: one token at a time, each from the tokens before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeSupport {
    /// Tokens that a sequence can have, if its parameters hold something for each position.
    pub longest: Option<usize>,
}

/// Decides whether the programs of [`crate::Entry::Decode`] and [`crate::Entry::Prefill`] exist for a model.
///
/// # Errors
/// [`CompileError::Model`] with the place in the text that makes it impossible.
pub fn decode_support(model: &Model) -> Result<DecodeSupport, CompileError> {
    let (graph, origins) = whole_sequences(model, 1, 1)?;
    match positions::run(&graph, 1, 1) {
        Ok(part) => Ok(DecodeSupport { longest: part.longest }),
        Err(error) => Err(pass_error(error, &graph, &origins)),
    }
}

/// The graph for `batch` sequences as long as in training, whose single tokens are to be decoded within a context. It is
/// built for the batches of training, so that the text computes with the same numbers.
///
/// # Errors
/// [`CompileError::Model`] if there is no such graph.
pub(crate) fn whole_sequences(
    model: &Model,
    batch: usize,
    context: usize,
) -> Result<(Graph, Origins), CompileError> {
    let seq = trained_seq(model)?;
    sequences(model, batch, seq, context.max(seq))
}

/// The graph for `batch` sequences of `seq` tokens, which shares tables with programs of [`whole_sequences`].
///
/// # Errors
/// [`CompileError::Model`] if there is no such graph.
pub(crate) fn scored(
    model: &Model,
    batch: usize,
    seq: usize,
    context: usize,
) -> Result<(Graph, Origins), CompileError> {
    // Those of programs that decode are as long as the context, whatever the model was trained on.
    let rope_len = context.max(seq);
    sequences(model, batch, seq, rope_len)
}

/// Length of the sequences that a model is built for.
fn trained_seq(model: &Model) -> Result<usize, CompileError> {
    match model.shape.seq {
        1 if model.reads_seq => {
            let error = Diagnostic::nowhere(
                "a model whose text reads the length of sequences cannot generate if it was trained on single tokens",
            );
            Err(Diagnostics::new(vec![error], vec![]).into())
        }
        // Where a single token's axis is cannot be told from others of size 1; any length makes the same model.
        1 => Ok(2),
        seq => Ok(seq),
    }
}

/// It is built for the batches of training, so that the text computes with the same numbers.
fn sequences(
    model: &Model,
    batch: usize,
    seq: usize,
    rope_len: usize,
) -> Result<(Graph, Origins), CompileError> {
    let trained = model.shape.batch;
    // Of one sequence there is nothing that it could be mixed with.
    let built_batch = if trained == 1 { batch } else { trained };
    let built = model.build(BuildShape { batch: built_batch, seq, rope_len })?;
    if built_batch == batch {
        return Ok((built.graph, built.origins));
    }
    match positions::sequences(&built.graph, batch) {
        Ok(part) => Ok((part.graph, built.origins.through(&part.sources))),
        Err(error) => Err(pass_error(error, &built.graph, &built.origins)),
    }
}
