//! The loss: cross-entropy of the logits, evaluated in chunks of rows so that full logits never exist.

use linc_ir::{Graph, NodeId, Op, TensorType, Value};

use crate::error::PassError;

/// Name of the targets input: i32 `[tokens]`, -1 where no loss is taken.
pub const TARGETS: &str = "targets";
/// Name of the loss output.
pub const LOSS: &str = "loss";
/// Name of the logits output of a model.
pub const LOGITS: &str = "logits";

/// Name of the output with the log-probability of each target: f32 `[tokens]`.
pub const LOG_PROBS: &str = "log_probs";
/// Name of the output with the log-probability of the most likely token at each place: f32 `[tokens]`.
pub const BEST_LOG_PROBS: &str = "best_log_probs";
/// Name of the output with the most likely token at each place: i32 `[tokens]`.
pub const BEST: &str = "best";

/// Bytes of logits that stay in a cache.
const LOGITS_BYTES: usize = 16 << 20;

/// Replaces the output `logits` by `loss`, the mean cross-entropy against input `targets`.
///
/// # Errors
/// [`PassError::Missing`] if the model has no output `logits`.
pub fn attach(graph: &mut Graph) -> Result<(), PassError> {
    let outer = graph.set_scope("loss");
    let (logits, targets) = compared(graph)?;
    let loss = graph.push(Op::CrossEntropy, &[logits, targets])?;
    graph.outputs.push((LOSS.into(), loss));
    graph.set_scope(outer);
    Ok(())
}

/// Replaces the output `logits` by what the model says of each of the `targets` by itself: [`LOG_PROBS`],
/// [`BEST_LOG_PROBS`] and [`BEST`].
///
/// # Errors
/// As [`attach`].
pub fn score(graph: &mut Graph) -> Result<(), PassError> {
    let outer = graph.set_scope("loss");
    let (logits, targets) = compared(graph)?;
    let scores = graph.add(Op::LogProbs, &[logits, targets])?;
    for (port, name) in (0..).zip([LOG_PROBS, BEST_LOG_PROBS, BEST]) {
        graph.outputs.push((name.into(), Value { node: scores, port }));
    }
    graph.set_scope(outer);
    Ok(())
}

/// The logits `[tokens, vocab]`, no output any more, and the targets that they are compared with, a new input.
fn compared(graph: &mut Graph) -> Result<(Value, Value), PassError> {
    let position = graph
        .outputs
        .iter()
        .position(|(name, _)| name == LOGITS)
        .ok_or_else(|| PassError::Missing("the model has no output logits".into()))?;
    let (_, logits) = graph.outputs.remove(position);
    let shape = graph.ty(logits).shape.clone();
    let (vocab, tokens) = (shape.last(), shape.numel() / shape.last().max(1));
    let logits = graph.push(Op::Reshape { shape: [tokens, vocab].into() }, &[logits])?;
    let targets = graph.push(Op::Input { name: TARGETS.into(), ty: TensorType::i32([tokens]) }, &[])?;
    Ok((logits, targets))
}

/// Turns `cross_entropy(h · wᵀ)` and `log_probs(h · wᵀ)` into the chunked form, where nothing else reads the logits.
/// `min_rows` of them exist at once at least, and more where the vocabulary is small.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn chunk(graph: &mut Graph, min_rows: usize) -> Result<(), PassError> {
    let reads_logits = |n: &NodeId| matches!(graph.op(*n), Op::CrossEntropy | Op::LogProbs);
    let readers: Vec<NodeId> = graph.nodes().filter(reads_logits).collect();
    for id in readers {
        let operands = graph.operands(id);
        let Some(product) = sole_product(graph, operands[0]) else { continue };
        let factors = graph.operands(product.node);
        let tokens = graph.ty(product).shape.0[0];
        let chunk = chunk_rows(tokens, graph.ty(product).shape.last(), min_rows);
        let outer = graph.set_scope(graph.node(id).scope.clone());
        let scores = *graph.op(id) == Op::LogProbs;
        let linear = if scores { Op::LinearLogProbs { chunk } } else { Op::LinearCrossEntropy { chunk } };
        let node = graph.add(linear, &[factors[0], factors[1], operands[1]])?;
        let results: Vec<Value> = graph.results(id).collect();
        for result in results {
            graph.replace_uses(result, Value { node, ..result });
        }
        graph.set_scope(outer);
    }
    Ok(())
}

/// The product `h · wᵀ` behind reshapes, if each step of the way has one reader.
fn sole_product(graph: &Graph, mut value: Value) -> Option<Value> {
    loop {
        if graph.users(value).len() != 1 || graph.is_result(value) {
            return None;
        }
        match graph.op(value.node) {
            Op::Reshape { .. } => value = graph.operands(value.node)[0],
            Op::MatMul { trans_a: false, trans_b: true, .. } => return Some(value),
            _ => return None,
        }
    }
}

/// Rows of logits per chunk, a multiple of 64 or all: as many as are near [`LOGITS_BYTES`], but at least `min_rows`; less
/// where that makes chunks of one size.
fn chunk_rows(tokens: usize, vocab: usize, min_rows: usize) -> usize {
    let rows = (LOGITS_BYTES / (4 * vocab.max(1)) / 64 * 64).max(min_rows).max(1);
    let tokens = tokens.max(1);
    tokens.div_ceil(tokens.div_ceil(rows)).next_multiple_of(64).min(tokens)
}

/// The gradient operation computes the loss as well: drops the forward node that it repeats.
pub fn share(graph: &mut Graph) {
    let grads: Vec<NodeId> =
        graph.nodes().filter(|n| matches!(graph.op(*n), Op::LinearCrossEntropyGrad { .. })).collect();
    for grad in grads {
        let operands = graph.operands(grad);
        let forward = graph.users(operands[0]).into_iter().map(|(node, _)| node).find(|node| {
            matches!(graph.op(*node), Op::LinearCrossEntropy { .. }) && graph.operands(*node) == operands[..3]
        });
        if let Some(forward) = forward {
            graph.replace_uses(Value { node: forward, port: 0 }, Value { node: grad, port: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::chunk_rows;

    #[test]
    fn small_vocabularies_have_rows_by_cache_and_large_ones_by_their_least() {
        assert_eq!(chunk_rows(16_384, 2048, 256), 2048);
        assert_eq!(chunk_rows(16_384, 10_000, 256), 384);
        assert_eq!(chunk_rows(2049, 128_256, 2048), 1088);
        assert_eq!(chunk_rows(65, 128_256, 64), 64);
        assert_eq!(chunk_rows(16_384, 128_256, 256), 256);
        assert_eq!(chunk_rows(16_384, 128_256, 2048), 2048);
        assert_eq!(chunk_rows(100, 128_256, 2048), 100);
    }
}
