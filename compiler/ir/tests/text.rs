//! The text form: exact round trips of every operation, and errors with positions.

use linc_ir::UpdateOp;
use linc_ir::{
    AdamSpec, AdamWSpec, AttentionKind, AttentionSpec, BinaryOp, DType, EfficientForm, EfficientOp,
    EfficientSpec, EluOp, EluSpec, ExchangeOp, Graph, Group, Init, IrError, Op, ParamState, PointOp,
    Pointwise, Reduction, RopeScaling, SoftmaxOp, StateRole, TableKind, TensorType, UnaryOp, Value, dot,
    parse, print, verify,
};

#[track_caller]
pub(crate) fn round_trips(graph: &Graph) -> Graph {
    verify(graph).unwrap();
    let text = print(graph);
    let parsed = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print(&parsed), text);
    parsed
}

/// Adds leaves as needed.
pub(crate) struct Builder {
    pub(crate) graph: Graph,
    leaves: usize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Builder { graph: Graph::new("a \"quoted\" \\ name\nof two lines"), leaves: 0 }
    }

    fn input(&mut self, ty: TensorType) -> Value {
        self.leaves += 1;
        let name = format!("in{}", self.leaves);
        self.graph.push(Op::Input { name, ty }, &[]).unwrap()
    }

    pub(crate) fn f32<const N: usize>(&mut self, shape: [usize; N]) -> Value {
        self.input(TensorType::f32(shape))
    }

    pub(crate) fn i32<const N: usize>(&mut self, shape: [usize; N]) -> Value {
        self.input(TensorType::i32(shape))
    }

    fn add(&mut self, op: Op, operands: &[Value]) -> Vec<Value> {
        let id = self.graph.add(op, operands).unwrap();
        self.graph.results(id).collect()
    }
}

/// One node of every operation.
pub(crate) fn everything() -> Graph {
    let mut b = Builder::new();
    b.graph.set_scope("leaves");
    let ty = TensorType::f32([4]);
    let inits = [
        Init::Zeros,
        Init::Ones,
        Init::Normal { std: 0.1 + 0.2 },
        Init::TruncNormal { std: 0.02, bound: 1e-300 },
    ];
    for (i, init) in inits.into_iter().enumerate() {
        b.add(Op::Param { name: format!("layers.{i}.\"w"), ty: ty.clone(), init }, &[]);
    }
    let of_param = |state| StateRole::OfParam { state, of: "layers.1.\"w".into() };
    for role in ParamState::ALL.map(of_param).into_iter().chain(StateRole::ALONE) {
        b.add(Op::State { name: format!("m{}", role.name()), ty: ty.clone(), role }, &[]);
    }
    let role = StateRole::OfShard { state: ParamState::FirstMoment, of: "layers.2.\"w".into(), start: 1 };
    b.add(Op::State { name: "shard".into(), ty: TensorType::f32([3]), role }, &[]);
    let m = b.add(Op::State { name: "m".into(), ty: ty.clone(), role: StateRole::Recurrent }, &[])[0];
    let scaling =
        RopeScaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 8192 };
    let rope_type = TensorType::f32([6, 2, 2]);
    let plain = TableKind::Rope { theta: 500000.0, scaling: None };
    let scaled = TableKind::Rope { theta: 1e4, scaling: Some(scaling) };
    let table = b.add(Op::Table { name: "rope".into(), ty: rope_type.clone(), kind: plain }, &[])[0];
    b.add(Op::Table { name: "rope scaled".into(), ty: rope_type, kind: scaled }, &[]);
    for value in [-0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 1e300, 0.1, 3.0] {
        b.add(Op::Constant { value, ty: ty.clone() }, &[]);
    }

    b.graph.set_scope("odd scope: \"%{}\u{1f600}\u{7}}a");
    let x = b.f32([4]);
    for u in UnaryOp::ALL {
        b.add(Op::Unary(u), &[x]);
    }
    for op in BinaryOp::ALL {
        b.add(Op::Binary(op), &[x, m]);
    }
    b.graph.set_scope("views/inner");
    b.add(Op::Broadcast { shape: [2, 4].into() }, &[x]);
    for dtype in [DType::F32, DType::F64, DType::Bf16, DType::F16, DType::I32] {
        b.add(Op::Cast { dtype }, &[x]);
    }
    let mut steps = vec![PointOp::Input(0), PointOp::Input(1), PointOp::Const(-1.5e-7)];
    steps.extend(UnaryOp::ALL.map(|u| PointOp::Unary(u, 0)));
    steps.extend(BinaryOp::ALL.map(|op| PointOp::Binary(op, 4, 1)));
    steps.push(PointOp::Cast(DType::Bf16, 5));
    let outputs = vec![(7, DType::F32), (20, DType::Bf16)];
    let y = b.add(Op::Fused(Pointwise { shape: [3, 4].into(), steps, outputs }), &[x, m])[1];
    b.add(Op::Sum { axes: vec![0, 1], keep: true }, &[y]);
    b.add(Op::Sum { axes: vec![], keep: false }, &[y]);
    b.add(Op::Reshape { shape: [2, 6].into() }, &[y]);
    b.add(Op::Transpose { perm: vec![1, 0] }, &[y]);
    b.add(Op::Slice { axis: 1, start: 1, len: 2 }, &[y]);
    b.add(Op::Pad { axis: 0, before: 1, after: 2 }, &[y]);
    b.add(Op::Concat { axis: 0 }, &[y, y, y]);

    b.graph.set_scope("");
    let (h, w) = (b.f32([5, 4]), b.f32([3, 4]));
    b.add(Op::MatMul { trans_a: false, trans_b: true, dtype: DType::F32 }, &[h, w]);
    let [narrow, w16] = [h, w].map(|x| b.add(Op::Cast { dtype: DType::Bf16 }, &[x])[0]);
    for dtype in [DType::F32, DType::Bf16] {
        b.add(Op::MatMul { trans_a: false, trans_b: true, dtype }, &[narrow, w16]);
    }
    b.add(Op::RmsNorm { eps: 1e-5 }, &[narrow, x]);
    b.add(Op::RmsNorm { eps: 1e-5 }, &[h, x]);
    b.add(Op::RmsNorm { eps: 1e-5 }, &[narrow, x, narrow]);
    b.add(Op::RmsNormGrad { eps: 1e-5 }, &[h, x, h]);
    b.add(Op::RmsNormGrad { eps: 1e-5 }, &[h, x, h, h]);
    let ids = b.i32([5]);
    b.add(Op::Embedding { dtype: DType::F32 }, &[w, ids]);
    b.add(Op::Embedding { dtype: DType::Bf16 }, &[w, ids]);
    b.add(Op::EmbeddingGrad { vocab: 7, sorted: false }, &[ids, h]);
    b.add(Op::EmbeddingGrad { vocab: 7, sorted: true }, &[ids, h]);
    let (q, k, v) = (b.f32([2, 6, 4, 4]), b.f32([2, 6, 2, 4]), b.f32([2, 6, 2, 4]));
    let pos = b.i32([2]);
    let slot = b.i32([2]);
    b.add(Op::Rope { inverse: true }, &[q, table]);
    for kind in [None, Some(AttentionKind::Efficient)] {
        let spec = AttentionSpec { layer: 3, causal: true, rope: true, kind };
        let out = b.add(Op::Attention(spec.clone()), &[q, k, v, table])[0];
        b.add(Op::AttentionGrad(spec), &[q, k, v, out, q, table]);
    }
    let spec = AttentionSpec { layer: 3, causal: true, rope: true, kind: None };
    let positions = b.i32([2, 6]);
    let out = b.add(Op::Attention(spec.clone()), &[q, k, v, table, positions])[0];
    b.add(Op::AttentionGrad(spec), &[q, k, v, out, q, table, positions]);
    b.add(Op::Rope { inverse: false }, &[q, table, positions]);
    let apart = b.add(Op::from(SoftmaxOp::Forward { causal: true, scale: 0.5 }), &[q, k, v, positions]);
    let grad = Op::from(SoftmaxOp::Backward { causal: true, scale: 0.5 });
    b.add(grad, &[q, k, v, apart[0], apart[1], q, positions]);
    let softmax = b.add(Op::from(SoftmaxOp::Forward { causal: true, scale: 0.5 }), &[q, k, v]);
    let grad = Op::from(SoftmaxOp::Backward { causal: true, scale: 0.5 });
    b.add(grad, &[q, k, v, softmax[0], softmax[1], q]);
    let spec = EfficientSpec { causal: true, chunk: 4, temperature: 2.0, form: EfficientForm::Fused };
    let linear = b.add(Op::from(EfficientOp::Forward(spec.clone())), &[q, k, v]);
    let operands = [q, k, v, linear[0], linear[1], linear[2], q];
    b.add(Op::from(EfficientOp::Backward(spec.clone())), &operands);
    b.add(Op::from(EfficientOp::Backward(EfficientSpec { form: EfficientForm::Chunked, ..spec })), &operands);
    let spec = EluSpec { causal: true, chunk: 4 };
    let elu = b.add(Op::from(EluOp::Forward(spec.clone())), &[q, k, v]);
    b.add(Op::from(EluOp::Backward(spec.clone())), &[q, k, v, elu[0], elu[1], elu[2], q]);
    let (q, k) = (b.f32([2, 1, 4, 4]), b.f32([2, 1, 2, 4]));
    let cache = b.f32([3, 9, 2, 4]);
    b.add(Op::Rope { inverse: false }, &[q, table, pos]);
    for range in [None, Some(4)] {
        b.add(Op::from(SoftmaxOp::Decode { scale: 0.5, range }), &[q, k, k, cache, cache, pos, slot]);
    }
    let (row, state) = (b.f32([3, 2, 4]), b.f32([3, 2, 4, 4]));
    let spec = EfficientSpec { causal: true, chunk: 2, temperature: 1.0, form: EfficientForm::Fused };
    b.add(Op::from(EfficientOp::Decode(spec.clone())), &[q, k, k, row, row, state, pos, slot]);
    b.add(
        Op::from(EfficientOp::Decode(EfficientSpec { form: EfficientForm::Chunked, ..spec })),
        &[q, k, k, row, row, state, pos, slot],
    );
    b.add(Op::from(EluOp::Decode(EluSpec { causal: true, chunk: 1 })), &[q, k, k, row, state, pos, slot]);
    let loss = b.add(Op::CrossEntropy, &[h, ids])[0];
    b.add(Op::CrossEntropyGrad, &[h, ids, loss]);
    b.add(Op::LogProbs, &[h, ids]);
    b.add(Op::LinearLogProbs { chunk: 2 }, &[h, w, ids]);
    b.add(Op::LinearCrossEntropy { chunk: 2 }, &[h, w, ids]);
    b.add(Op::LinearCrossEntropyGrad { chunk: 2 }, &[h, w, ids, loss]);
    let norm = b.add(Op::GlobalNorm, &[h, w]);
    b.add(Op::NormFinish, &[norm[1]]);
    let norm = norm[0];
    let group = Group { name: "two \"words\"".into(), first: 1, stride: 2, size: 2, place: 1, turn: 3 };
    for reduction in Reduction::ALL {
        b.add(Op::from(ExchangeOp::AllReduce { group: group.clone(), reduction }), &[norm]);
        b.add(Op::from(ExchangeOp::ReduceParts { parts: 2, reduction }), &[x]);
    }
    b.add(Op::from(ExchangeOp::ReduceScatter { group: group.clone() }), &[x]);
    b.add(Op::from(ExchangeOp::AllToAll { group: group.clone() }), &[x]);
    b.add(Op::from(ExchangeOp::AllGather { group }), &[x, m]);
    let spec = AdamWSpec { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let new = b.add(Op::from(UpdateOp::AdamW(spec.clone())), &[x, x, m, m, norm, norm, loss]);
    b.add(Op::from(UpdateOp::AdamW(spec.clone())), &[x, x, m, m, norm, norm, loss, norm]);
    b.add(Op::from(AdamSpec(spec)), &[x, x, m, m, norm, norm, loss, norm]);
    b.graph.node_mut(norm.node).recompute = true;
    b.graph.outputs.extend([("loss".into(), loss), ("β".into(), new[2])]);
    b.graph.updates.push((m.node, new[1]));
    b.graph
}

#[test]
fn every_operation_round_trips() {
    let graph = everything();
    let parsed = round_trips(&graph);
    // Not only the text: node by node the same, but for NaN, which is not equal to itself.
    assert_eq!(graph.len(), parsed.len());
    for (a, b) in graph.topological().unwrap().into_iter().zip(parsed.topological().unwrap()) {
        let (a, b) = (graph.node(a), parsed.node(b));
        assert!(a == b || matches!(&a.op, Op::Constant { value, .. } if value.is_nan()), "{a:?}\n{b:?}");
    }
}

#[test]
fn dot_clusters_by_scope() {
    let text = r#"graph "g" {
        %0: f32[2] = input() {name = "x\"y"} @a/b
        %1: f32[2] = add(%0, %0) @a
        output "z" = %1
    }"#;
    let expected = r#"digraph "g" {
  node [shape=box];
  subgraph cluster0 {
    label="a";
    n1 [label="add\nf32[2]"];
    subgraph cluster1 {
      label="b";
      n0 [label="input x\"y\nf32[2]"];
    }
  }
  n0 -> n1 [label="0→0"];
  n0 -> n1 [label="0→1"];
  out0 [shape=oval, label="z"];
  n1 -> out0;
}
"#;
    assert_eq!(dot(&parse(text).unwrap()), expected);
}

#[test]
fn text_is_independent_of_node_ids() {
    let text = print(&everything());
    let mut graph = parse(&text).unwrap();
    let extra = graph.add(Op::Constant { value: 0.0, ty: TensorType::f32([]) }, &[]).unwrap();
    let first = graph.nodes().next().unwrap();
    // A leaf that is removed and added again has a new id, and so a new place, but the numbers stay dense.
    let node = graph.node(first).clone();
    graph.remove(extra);
    graph.remove(first);
    graph.insert(node, &[]);
    let parsed = round_trips(&graph);
    assert!(parsed.nodes().zip(0..).all(|(id, i)| id.0 == i));
}

#[test]
fn form() {
    let text = r#"
        # Numbers are labels, comments and layout are free.
        graph "example" {
          %10: f32[2, 4] = input() {name = "x"} %3: f32[4] = param() {init = normal(std = 1), name = "norm"}
          %4: f32[2, 4] = rms_norm(%10, %3) {eps = 0.00001} @layers.0/attention_norm !recompute
          %5: f32[2, 4], f32[2, 4] = rms_norm_grad(%10, %3, %4) {eps = 1e-5}
          output "y" = %5.1
        }"#;
    let expected = r#"graph "example" {
  %0: f32[2, 4] = input() {name = "x"}
  %1: f32[4] = param() {name = "norm", init = normal(std = 1.0)}
  %2: f32[2, 4] = rms_norm(%0, %1) {eps = 1e-5} @layers.0/attention_norm !recompute
  %3: f32[2, 4], f32[2, 4] = rms_norm_grad(%0, %1, %2) {eps = 1e-5}
  output "y" = %3.1
}
"#;
    assert_eq!(print(&parse(text).unwrap()), expected);
}

#[test]
fn errors_say_where_and_what() {
    let body = |line: &str| {
        format!(
            "graph \"g\" {{\n  %0: f32[2] = input() {{name = \"x\"}}\n  %1: f32[2] = state() {{name = \"s\", role = recurrent}}\n{line}\n}}"
        )
    };
    let cases = [
        ("  output y = %0", "line 4, column 10: expected the name of the output as a string, found `y`"),
        ("  output \"y\" = %7", "line 4, column 16: `%7` is not defined above"),
        ("  output \"y\" = %0.1", "line 4, column 16: `%0` has 1 results, there is no `.1`"),
        ("  %2: f32[2] = nog(%0)", "line 4, column 16: there is no operation `nog`"),
        ("  %2: f8[2] = neg(%0)", "line 4, column 7: `f8` is not an element type (f32, f64, bf16, f16, i32)"),
        ("  %2: f32[0] = neg(%0)", "line 4, column 11: expected the size of an axis, at least 1, found `0`"),
        ("  %2: f32[3] = neg(%0)", "line 4, column 3: the results of neg are f32[2], but f32[3] is written"),
        ("  %0: f32[2] = neg(%0)", "line 4, column 3: `%0` is defined twice"),
        ("  %2: f32[2] = neg(%2)", "line 4, column 20: `%2` is not defined above"),
        ("  %2: f32[2] = neg(%0) {a = 1}", "line 4, column 25: `neg` has no attribute `a`"),
        ("  %2: f32[2] = neg(%0, %1)", "line 4, column 16: neg: has 2 operands, takes 1..=1"),
        ("  %2: f32[2] = neg(%0 %1)", "line 4, column 23: expected `,` or `)`, found `%1`"),
        ("  %2: f32[2] = state() {name = \"m\"}", "line 4, column 16: `state` needs the attribute `role`"),
        (
            "  %2: f32[2] = state() {name = \"m\", role = moment}",
            "line 4, column 37: there is no role `moment` (known: first_moment, second_moment, gradient, loss_scale, key_value_cache, recurrent)",
        ),
        (
            "  %2: f32[2] = state() {name = \"m\", role = gradient}",
            "line 4, column 37: `gradient` needs the attribute `of`",
        ),
        (
            "  %2: f32[2] = state() {name = \"m\", role = recurrent(of = \"s\")}",
            "line 4, column 54: `recurrent` has no attribute `of`",
        ),
        (
            "  %2: f32[2] = state() {name = \"m\", role = gradient(of = \"x\")}",
            "line 4, column 3: n2 state: belongs to \"x\", which is no parameter",
        ),
        ("  %2: f32[2] = constant()", "line 4, column 16: `constant` needs the attribute `value`"),
        ("  %2: f32[2] = constant() {value = x}", "line 4, column 28: `value` is a number"),
        (
            "  %2: f32[2] = constant() {value = 1.2.3}",
            "line 4, column 28: `1.2.3` is not a number such as 1e-5",
        ),
        ("  %2: f32[2] = constant() {value = 1, value = 2}", "line 4, column 39: `value` is given twice"),
        (
            "  %2: f32[1] = slice(%0) {axis = 0, start = -1, len = 1}",
            "line 4, column 37: expected a whole number, at least 0",
        ),
        (
            "  %2: f32[1] = slice(%0) {axis = 0, start = 18446744073709551615, len = 1}",
            "line 4, column 16: slice: start is 18446744073709551615, at most 281474976710656 makes sense",
        ),
        (
            "  %2: f32[2] = param() {name = \"w\", init = uniform}",
            "line 4, column 37: there is no init `uniform` (known: zeros, ones, normal, trunc_normal)",
        ),
        (
            "  %2: f32[2] = fused(%0) {steps = [input(0, 1)], outputs = [0]}",
            "line 4, column 45: `input` takes fewer arguments",
        ),
        (
            "  %2: f32[2] = fused(%0) {steps = [neg(0)], outputs = [0]}",
            "line 4, column 16: fused: step 0 reads something that does not exist",
        ),
        ("  %2: f32[2] = input() {name = \"x\"}", "line 4, column 3: n2 input: is named \"x\", and so is n0"),
        (
            "  update %0 = %1",
            "line 4, column 3: n0 input: is updated, but only parameters and states persist",
        ),
        (
            "  %2: f32[2] = neg(%0) @",
            "line 4, column 24: `@` is followed by a scope such as `layers.0/attention`",
        ),
        ("  %2: f32[2] = neg(%0) !often", "line 4, column 25: expected `recompute`, found `often`"),
        ("  output \"y = %0", "line 4, column 10: this string has no closing quote"),
        ("  output \"\\x\" = %0", "line 4, column 11: a backslash is followed by `\"`, `\\` or `u{...}`"),
        ("  ?", "line 4, column 3: unexpected character '?'"),
        ("} extra", "line 4, column 3: expected the end of the text, found `extra`"),
        (
            "  %2: f32[2] = efficient_attention(%0, %0, %0) {causal = true, chunk = 1, temperature = 1.0, form = wide}",
            "line 4, column 94: there is no form `wide` (known: chunked)",
        ),
    ];
    for (line, expected) in cases {
        let error = parse(&body(line)).expect_err(line);
        assert!(matches!(error, IrError::Parse { .. }));
        assert_eq!(error.to_string(), expected, "{line}");
    }
    let error = parse("").unwrap_err().to_string();
    assert_eq!(error, "line 1, column 1: expected `graph \"name\" {`, found the end of the text");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let error = parse(&body(&format!("%2: f32[2] = constant() {{value = {deep}}}"))).unwrap_err();
    assert_eq!(error.to_string(), "line 4, column 43: attributes are nested deeper than 8");
    let huge = "%2: f32[281474976710656, 2] = constant() {value = 1.0}";
    let error = parse(&body(huge)).unwrap_err().to_string();
    assert!(error.contains("more than 281474976710656 elements"), "{error}");
}
