//! Prints a graph in its text form; [`mod@crate::parse`] reads it back.
//!
//! ```text
//! graph "example" {
//!   %0: f32[2, 4] = input() {name = "x"}
//!   %1: f32[4] = param() {name = "norm", init = ones}
//!   %2: f32[2, 4] = rms_norm(%0, %1) {eps = 1e-5} @layers.0/norm
//!   output "y" = %2
//! }
//! ```
//!
//! Nodes are numbered in topological order, so equal programs print equal text, whatever passes did to the
//! ids before. Floats print with `{:?}`, which Rust reads back to the same bits. Shapes and element types that
//! the result type shows already (of leaves, `broadcast`, `reshape`, `cast`, `fused`, `matmul`, `embedding`) are not repeated.

use std::collections::BTreeMap;

use linc_text::{is_scope_char, quote};

use crate::graph::{Graph, NodeId, Value};
use crate::op::{Init, Op, TableKind};
use crate::pointwise::{PointOp, Pointwise};
use crate::types::TensorType;

/// The text of a graph. A cyclic graph (a bug) prints in order of creation and does not parse.
pub fn print(graph: &Graph) -> String {
    let order = graph.topological().unwrap_or_else(|_| graph.nodes().collect());
    let numbers: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let mut lines = vec![format!("graph {} {{", quote(&graph.name))];
    for (i, id) in order.iter().enumerate() {
        let node = graph.node(*id);
        let types: Vec<String> = node.types.iter().map(TensorType::to_string).collect();
        let operands: Vec<String> = graph.operands(*id).iter().map(|v| value(&numbers, *v)).collect();
        let mut line = format!("  %{i}: {} = {}({})", types.join(", "), node.op.name(), operands.join(", "));
        let attributes = attributes(&node.op);
        if !attributes.is_empty() {
            line += &format!(" {{{}}}", attributes.join(", "));
        }
        if !node.scope.is_empty() {
            line += &format!(" @{}", scope(&node.scope.to_string()));
        }
        if node.recompute {
            line += " !recompute";
        }
        lines.push(line);
    }
    for (name, v) in &graph.outputs {
        lines.push(format!("  output {} = {}", quote(name), value(&numbers, *v)));
    }
    for (leaf, v) in &graph.updates {
        let leaf = Value { node: *leaf, port: 0 };
        lines.push(format!("  update {} = {}", value(&numbers, leaf), value(&numbers, *v)));
    }
    lines.join("\n") + "\n}\n"
}

/// `%3` or `%3.1`; `%?` for a node that was removed, so that a broken graph can still be looked at.
fn value(numbers: &BTreeMap<NodeId, usize>, v: Value) -> String {
    match (numbers.get(&v.node), v.port) {
        (None, _) => "%?".into(),
        (Some(n), 0) => format!("%{n}"),
        (Some(n), port) => format!("%{n}.{port}"),
    }
}

fn scope(text: &str) -> String {
    if text.chars().all(is_scope_char) { text.into() } else { quote(text) }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|x| x.to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// The attributes as `key = value`, in the order the parser's messages list them.
fn attributes(op: &Op) -> Vec<String> {
    match op {
        Op::Input { name, .. } => vec![format!("name = {}", quote(name))],
        Op::State { name, role, .. } => {
            let start = role.start().map_or(String::new(), |start| format!(", start = {start}"));
            let of = role.param().map_or(String::new(), |param| format!("(of = {}{start})", quote(param)));
            vec![format!("name = {}", quote(name)), format!("role = {}{of}", role.name())]
        }
        Op::Param { name, init, .. } => {
            vec![format!("name = {}", quote(name)), format!("init = {}", init_text(init))]
        }
        Op::Table { name, kind, .. } => {
            vec![format!("name = {}", quote(name)), format!("kind = {}", table_text(kind))]
        }
        Op::Constant { value, .. } => vec![format!("value = {value:?}")],
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Broadcast { .. }
        | Op::Cast { .. }
        | Op::Reshape { .. }
        | Op::Embedding { .. }
        | Op::CrossEntropy
        | Op::CrossEntropyGrad
        | Op::LogProbs
        | Op::GlobalNorm
        | Op::NormFinish => vec![],
        Op::Fused(region) => fused(region),
        Op::Sum { axes, keep } => vec![format!("axes = {}", list(axes)), format!("keep = {keep}")],
        Op::Transpose { perm } => vec![format!("perm = {}", list(perm))],
        Op::Slice { axis, start, len } => {
            vec![format!("axis = {axis}"), format!("start = {start}"), format!("len = {len}")]
        }
        Op::Pad { axis, before, after } => {
            vec![format!("axis = {axis}"), format!("before = {before}"), format!("after = {after}")]
        }
        Op::Concat { axis } => vec![format!("axis = {axis}")],
        Op::MatMul { trans_a, trans_b, .. } => {
            vec![format!("trans_a = {trans_a}"), format!("trans_b = {trans_b}")]
        }
        Op::RmsNorm { eps } | Op::RmsNormGrad { eps } => vec![format!("eps = {eps:?}")],
        Op::Rope { inverse } => vec![format!("inverse = {inverse}")],
        Op::EmbeddingGrad { vocab, sorted } => {
            let mut attributes = vec![format!("vocab = {vocab}")];
            attributes.extend(sorted.then(|| "sorted = true".to_string()));
            attributes
        }
        Op::Attention(spec) | Op::AttentionGrad(spec) => {
            let mut attributes = vec![
                format!("layer = {}", spec.layer),
                format!("causal = {}", spec.causal),
                format!("rope = {}", spec.rope),
            ];
            attributes.extend(spec.kind.map(|kind| format!("kind = {}", kind.name())));
            attributes
        }
        Op::Kind(op) => op.attributes(),
        Op::LinearCrossEntropy { chunk }
        | Op::LinearCrossEntropyGrad { chunk }
        | Op::LinearLogProbs { chunk } => {
            vec![format!("chunk = {chunk}")]
        }
        Op::Update(op) => op.attributes(),
        Op::Exchange(op) => op.attributes(),
    }
}

fn init_text(init: &Init) -> String {
    match init {
        Init::Zeros => "zeros".into(),
        Init::Ones => "ones".into(),
        Init::Normal { std } => format!("normal(std = {std:?})"),
        Init::TruncNormal { std, bound } => format!("trunc_normal(std = {std:?}, bound = {bound:?})"),
    }
}

fn table_text(kind: &TableKind) -> String {
    match kind {
        TableKind::Rope { theta, scaling: None } => format!("rope(theta = {theta:?})"),
        TableKind::Rope { theta, scaling: Some(s) } => format!(
            "rope(theta = {theta:?}, factor = {:?}, low_freq_factor = {:?}, high_freq_factor = {:?}, \
             original_max_position = {})",
            s.factor, s.low_freq_factor, s.high_freq_factor, s.original_max_position
        ),
    }
}

fn fused(region: &Pointwise) -> Vec<String> {
    let steps = region.steps.iter().map(|step| match step {
        PointOp::Input(i) => format!("input({i})"),
        PointOp::Const(c) => format!("const({c:?})"),
        PointOp::Unary(u, a) => format!("{}({a})", u.name()),
        PointOp::Binary(b, a, c) => format!("{}({a}, {c})", b.name()),
        PointOp::Cast(dtype, a) => format!("cast({dtype}, {a})"),
    });
    vec![
        format!("steps = {}", list(steps)),
        format!("outputs = {}", list(region.outputs.iter().map(|(step, _)| step))),
    ]
}
