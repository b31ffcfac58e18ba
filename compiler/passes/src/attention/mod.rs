//! Attention lowering: every abstract attention node becomes an operation of the kind of its layer. [`decode`] does it for
//! programs that go on from what earlier tokens left, [`exposed`] for those that show what attention does.
//!
//! A kind is a module here, with its options and its [`KindLowering`]. To add one: its module, its field in [`AttentionOptions`] if it
//! has any, and its arm in `lowering`.

pub mod decode;
mod efficient;
mod elu;
pub mod exposed;
mod softmax;

use linc_ir::{AttentionKind, AttentionSpec, Graph, KindOp, NodeId, Op, Shape, StateRole, Value};

pub use efficient::EfficientOptions;
pub use elu::EluOptions;
pub use softmax::SoftmaxOptions;

use crate::error::PassError;

/// Options of each kind, the same for all of its layers.
#[derive(Clone, PartialEq, Debug)]
pub struct AttentionOptions {
    /// Of softmax attention.
    pub softmax: SoftmaxOptions,
    /// Of efficient attention.
    pub efficient: EfficientOptions,
    /// Of attention with elu features.
    pub elu: EluOptions,
}

/// What lowering asks of a kind.
trait KindLowering {
    /// Queries and keys are rotated by position where the model has a rope table.
    fn rotates(&self) -> bool;

    /// The forward of a whole sequence, on q, k and v, and the positions of tokens in documents where these are kept apart.
    fn forward(&self, graph: &Graph, q: Value, causal: bool) -> Op;

    /// The step that goes on from what earlier tokens left. It may put nodes before its operands.
    fn decode(&self, graph: &mut Graph, tokens: &Tokens) -> Result<Step, PassError>;

    /// Why documents of one sequence cannot be kept apart, if so; else they see nothing of each other.
    fn refuses_documents(&self) -> Option<String>;

    /// Why a prompt can be taken token by token only, if so; else in blocks.
    fn refuses_blocks(&self) -> Option<String>;

    /// A token that fills a block up would be seen by later tokens, unless [`KindLowering::decode`] hides it.
    fn needs_mask(&self) -> bool;
}

/// New tokens, with q and k rotated.
struct Tokens {
    q: Value,
    k: Value,
    /// f32 `[N]`, 1 for tokens that exist and 0 for others, if there may be others and the kind asks for it.
    mask: Option<Value>,
    /// What the states have room for.
    room: decode::Room,
}

/// An operation on new tokens.
struct Step {
    /// Its operands are q, k, v, its states, positions and slots; its results the output and the new states.
    op: Op,
    /// What it reads in place of k.
    k: Value,
    /// What the states hold.
    role: StateRole,
    /// Last part of their names, and their shapes.
    states: Vec<(&'static str, Shape)>,
}

fn lowering(kind: AttentionKind, options: &AttentionOptions) -> &dyn KindLowering {
    match kind {
        AttentionKind::Softmax => &options.softmax,
        AttentionKind::Efficient => &options.efficient,
        AttentionKind::Elu => &options.elu,
    }
}

/// The kind of an attention: its own, or that of its layer, of which `kinds` has one for each.
fn kind_of<'o>(
    spec: &AttentionSpec,
    kinds: &[AttentionKind],
    options: &'o AttentionOptions,
) -> Result<&'o dyn KindLowering, PassError> {
    match spec.kind.as_ref().or_else(|| kinds.get(spec.layer)) {
        Some(kind) => Ok(lowering(*kind, options)),
        None => Err(PassError::Missing(format!(
            "attention of layer {}, but the layer map has {} layers",
            spec.layer,
            kinds.len()
        ))),
    }
}

/// Lowers all attention nodes; `kinds` has one entry per layer.
///
/// # Errors
/// [`PassError::Missing`] if a node names a layer that `kinds` does not have.
pub fn run(graph: &mut Graph, kinds: &[AttentionKind], options: &AttentionOptions) -> Result<(), PassError> {
    lower_forwards(graph, kinds, options)?;
    for id in select(graph, |op| matches!(op, Op::AttentionGrad(_))) {
        lower_backward(graph, id, kinds, options)?;
    }
    Ok(())
}

fn select(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> Vec<NodeId> {
    graph.nodes().filter(|n| wanted(graph.op(*n))).collect()
}

/// An attention that was lowered.
struct Lowered {
    layer: usize,
    /// The first result of the operation of its kind.
    out: Value,
}

/// All forwards, in the order of the text.
fn lower_forwards(
    graph: &mut Graph,
    kinds: &[AttentionKind],
    options: &AttentionOptions,
) -> Result<Vec<Lowered>, PassError> {
    let mut lowered = vec![];
    for id in select(graph, |op| matches!(op, Op::Attention(_))) {
        let Op::Attention(spec) = graph.op(id).clone() else { continue };
        let out = lower_forward(graph, id, &spec, kinds, options)?;
        lowered.push(Lowered { layer: spec.layer, out });
    }
    Ok(lowered)
}

fn lower_forward(
    graph: &mut Graph,
    id: NodeId,
    spec: &AttentionSpec,
    kinds: &[AttentionKind],
    options: &AttentionOptions,
) -> Result<Value, PassError> {
    let operands = graph.operands(id);
    let kind = kind_of(spec, kinds, options)?;
    let scope = graph.set_scope(graph.node(id).scope.clone());
    let (mut q, mut k) = (operands[0], operands[1]);
    let positions = &operands[3 + usize::from(spec.rope)..];
    if let (false, Some(refusal)) = (positions.is_empty(), kind.refuses_documents()) {
        return Err(PassError::Setting(refusal));
    }
    if spec.rope && kind.rotates() {
        let rope = Op::Rope { inverse: false };
        // The table, and positions if there are some.
        q = graph.push(rope.clone(), &[&[q][..], &operands[3..]].concat())?;
        k = graph.push(rope, &[&[k][..], &operands[3..]].concat())?;
    }
    let op = kind.forward(graph, q, spec.causal);
    let out = graph.push(op, &[&[q, k, operands[2]][..], positions].concat())?;
    graph.set_scope(scope);
    graph.replace_uses(Value { node: id, port: 0 }, out);
    graph.remove(id);
    Ok(out)
}

fn lower_backward(
    graph: &mut Graph,
    id: NodeId,
    kinds: &[AttentionKind],
    options: &AttentionOptions,
) -> Result<(), PassError> {
    let Op::AttentionGrad(spec) = graph.op(id).clone() else { return Ok(()) };
    let operands = graph.operands(id);
    let (out, dout) = (operands[3], operands[4]);
    let kind = kind_of(&spec, kinds, options)?;
    // `out` names the lowered forward node: its operands are q and k as rotated, its other results are what it saved.
    let forward = graph.operands(out.node);
    let inputs = KindOp::gradient_operands(&forward, graph.results(out.node), dout);
    let gradient = if let Op::Kind(forward) = graph.op(out.node) { forward.gradient() } else { None };
    let Some(gradient) = gradient else {
        return Err(PassError::Missing(format!(
            "the forward of an attention gradient, found {}",
            graph.op(out.node).name()
        )));
    };
    let scope = graph.set_scope(graph.node(id).scope.clone());
    let grad = graph.add(Op::Kind(gradient), &inputs)?;
    for port in 0..3 {
        let mut d = Value { node: grad, port };
        if port < 2 && spec.rope && kind.rotates() {
            d = graph.push(Op::Rope { inverse: true }, &[&[d][..], &operands[5..]].concat())?;
        }
        graph.replace_uses(Value { node: id, port }, d);
    }
    graph.set_scope(scope);
    graph.remove(id);
    Ok(())
}
