//! Element types: what operations of bf16 and f16 give, what they refuse, and where they round.

use linc_ir::UpdateOp;
use linc_ir::interp::{Bindings, Real, Tensor, run};
use linc_ir::{
    AdamWSpec, DType, EfficientForm, EfficientOp, EfficientSpec, Graph, Op, SoftmaxOp, TensorType, Value,
    parse,
};

/// Result types of an operation on operands such as `bf16[2, 3]`.
fn typed(op: &Op, operands: &[&str]) -> Result<Vec<String>, String> {
    let mut graph = Graph::new("typed");
    let mut values = vec![];
    for (i, text) in operands.iter().enumerate() {
        let leaf = parse(&format!("graph \"leaf\" {{ %0: {text} = input() {{name = \"x\"}} }}"));
        let leaf = leaf.unwrap_or_else(|e| panic!("{text}: {e}"));
        let ty: TensorType = leaf.ty(Value { node: leaf.leaf("x").unwrap(), port: 0 }).clone();
        let name = format!("x{i}");
        values.push(graph.push(Op::Input { name, ty }, &[]).unwrap());
    }
    let node = graph.add(op.clone(), &values).map_err(|e| e.to_string())?;
    Ok(graph.node(node).types.iter().map(TensorType::to_string).collect())
}

#[track_caller]
fn gives(op: Op, operands: &[&str], results: &[&str]) {
    let results: Vec<String> = results.iter().map(ToString::to_string).collect();
    assert_eq!(typed(&op, operands), Ok(results), "{}", op.name());
}

#[track_caller]
fn refuses(op: Op, operands: &[&str], message: &str) {
    let error = typed(&op, operands).expect_err("the types do not fit");
    assert!(error.contains(message), "{}: {error}", op.name());
}

fn matmul(dtype: DType) -> Op {
    Op::MatMul { trans_a: false, trans_b: false, dtype }
}

#[test]
fn f16_has_the_rules_of_bf16() {
    gives(Op::Sum { axes: vec![0], keep: false }, &["f16[2, 3]"], &["f32[3]"]);
    gives(matmul(DType::F16), &["f16[2, 3]", "f16[3, 4]"], &["f16[2, 4]"]);
    gives(matmul(DType::F32), &["f16[2, 3]", "f16[3, 4]"], &["f32[2, 4]"]);
    refuses(matmul(DType::Bf16), &["f16[2, 3]", "f16[3, 4]"], "a product of f16 cannot be bf16");
    gives(Op::Embedding { dtype: DType::F16 }, &["f32[5, 3]", "i32[2]"], &["f16[2, 3]"]);
    refuses(Op::Embedding { dtype: DType::F16 }, &["bf16[5, 3]", "i32[2]"], "cannot be f16");
    let adamw =
        Op::from(UpdateOp::AdamW(AdamWSpec { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 }));
    let (low, scalar) = ("f16[3]", "f16[]");
    refuses(adamw, &[low, low, low, low, scalar, scalar, scalar], "masters of f32, these are f16");
}

#[test]
fn sums_and_statistics_of_bf16_are_f32() {
    gives(Op::Sum { axes: vec![0], keep: false }, &["bf16[2, 3]"], &["f32[3]"]);
    gives(Op::Sum { axes: vec![0], keep: false }, &["i32[2, 3]"], &["i32[3]"]);
    gives(Op::RmsNorm { eps: 1e-5 }, &["bf16[2, 3]", "f32[3]"], &["bf16[2, 3]"]);
    let norm = Op::RmsNormGrad { eps: 1e-5 };
    gives(norm.clone(), &["bf16[2, 3]", "f32[3]", "bf16[2, 3]"], &["bf16[2, 3]", "f32[2, 3]"]);
    let [x, w] = ["bf16[2, 3]", "f32[3]"];
    gives(Op::RmsNorm { eps: 1e-5 }, &[x, w, x], &[x, x]);
    refuses(Op::RmsNorm { eps: 1e-5 }, &[x, w, "f32[2, 3]"], "their element types must agree");
    gives(norm.clone(), &[x, w, x, x], &[x, "f32[2, 3]"]);
    refuses(norm, &[x, w, x, "f32[2, 3]"], "their element types must agree");
    let table = |sorted| Op::EmbeddingGrad { vocab: 5, sorted };
    let operands = ["i32[2]", "bf16[2, 3]"];
    gives(table(false), &operands, &["f32[5, 3]"]);
    gives(table(true), &operands, &["f32[5, 3]", "i32[5, 2]", "i32[2, 1]"]);
    gives(Op::GlobalNorm, &["bf16[4]"], &["f32[]", "f32[1]"]);
    let q = "bf16[1, 4, 2, 8]";
    let softmax = Op::from(SoftmaxOp::Forward { causal: true, scale: 1.0 });
    gives(softmax, &[q, q, q], &[q, "f32[1, 2, 4]"]);
    let spec = EfficientSpec { causal: true, chunk: 2, temperature: 1.0, form: EfficientForm::Fused };
    let (ell, state) = ("f32[1, 2, 2, 8]", "f32[1, 2, 2, 8, 8]");
    gives(Op::from(EfficientOp::Forward(spec.clone())), &[q, q, q], &[q, ell, state]);
    gives(Op::from(EfficientOp::Backward(spec.clone())), &[q, q, q, q, ell, state, q], &[q, q, q]);
    let low = "bf16[1, 2, 2, 8]";
    refuses(Op::from(EfficientOp::Backward(spec)), &[q, q, q, q, low, state, q], "expected f32");
}

#[test]
fn products_and_rows_say_what_they_are_rounded_to() {
    let operands = ["bf16[2, 3]", "bf16[3, 4]"];
    gives(matmul(DType::Bf16), &operands, &["bf16[2, 4]"]);
    gives(matmul(DType::F32), &operands, &["f32[2, 4]"]);
    refuses(matmul(DType::Bf16), &["f32[2, 3]", "f32[3, 4]"], "a product of f32 cannot be bf16");
    refuses(matmul(DType::I32), &operands, "cannot be i32");
    refuses(matmul(DType::F32), &["f32[2, 3]", "bf16[3, 4]"], "their element types must agree");
    gives(Op::Embedding { dtype: DType::Bf16 }, &["f32[5, 3]", "i32[2]"], &["bf16[2, 3]"]);
    refuses(Op::Embedding { dtype: DType::F32 }, &["bf16[5, 3]", "i32[2]"], "cannot be f32");
}

#[test]
fn losses_are_f32_and_masters_are_not_bf16() {
    let (h, w, targets) = ("bf16[4, 3]", "bf16[7, 3]", "i32[4]");
    let (logits, nll) = ("bf16[2, 7]", "f32[5]");
    gives(Op::LinearCrossEntropy { chunk: 2 }, &[h, w, targets], &["f32[]", logits, nll]);
    let results = ["f32[]", h, "f32[7, 3]", logits, nll];
    gives(Op::LinearCrossEntropyGrad { chunk: 2 }, &[h, w, targets, "f32[]"], &results);
    gives(Op::CrossEntropy, &["bf16[4, 7]", targets], &["f32[]"]);
    gives(Op::LogProbs, &["bf16[4, 7]", targets], &["f32[4]", "f32[4]", "i32[4]"]);
    let scores = ["f32[4]", "f32[4]", "i32[4]", logits];
    gives(Op::LinearLogProbs { chunk: 2 }, &[h, w, targets], &scores);
    refuses(Op::LogProbs, &["bf16[3, 7]", targets], "the rows of the logits");
    gives(Op::CrossEntropyGrad, &["bf16[4, 7]", targets, "f32[]"], &["bf16[4, 7]"]);
    refuses(Op::LinearCrossEntropy { chunk: 2 }, &[h, "f32[7, 3]", targets], "must agree");
    let adamw =
        Op::from(UpdateOp::AdamW(AdamWSpec { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 }));
    let (scalar, low) = ("f32[]", "bf16[3]");
    refuses(adamw.clone(), &["f32[3]", low, "f32[3]", "f32[3]", scalar, scalar, scalar], "must agree");
    refuses(adamw, &[low, low, low, low, "bf16[]", "bf16[]", "bf16[]"], "masters of f32");
}

#[test]
fn the_head_rounds_logits_and_their_gradient_to_its_workspace() {
    let text = r#"graph "head" {
        %0: bf16[1, 2] = input() {name = "h"}
        %1: bf16[2, 2] = input() {name = "w"}
        %2: i32[1] = input() {name = "targets"}
        %3: f32[] = constant() {value = 1.0}
        %4: f32[], bf16[1, 2], f32[2, 2], bf16[1, 2], f32[2] = linear_cross_entropy_grad(%0, %1, %2, %3) {chunk = 1}
        output "loss" = %4 output "dh" = %4.1 output "dw" = %4.2
    }"#;
    let at = Bindings::from([
        ("h".into(), Tensor::float([1, 2], vec![1.0, 1.0 / 128.0])),
        ("w".into(), Tensor::float([2, 2], vec![1.0, 1.0, 2.0, 1.0])),
        ("targets".into(), Tensor::int([1], vec![0])),
    ]);
    let results = run::<f64>(&parse(text).unwrap(), &at).unwrap();
    // 1 + 1/128 is a bf16 number, 2 + 1/128 is not.
    let logits: [f64; 2] = [1.0 + 1.0 / 128.0, 2.0];
    let p = 1.0 / (1.0 + (logits[1] - logits[0]).exp());
    assert!((results.outputs["loss"].doubles()[0] + p.ln()).abs() < 1e-12);
    let gradient = [(p - 1.0).round_bf16(), (1.0 - p).round_bf16()];
    let dh = [gradient[0] + 2.0 * gradient[1], gradient[0] + gradient[1]];
    assert_eq!(results.outputs["dh"].doubles(), dh.map(Real::round_bf16));
    let dw = [gradient[0], gradient[0] / 128.0, gradient[1], gradient[1] / 128.0];
    assert_eq!(results.outputs["dw"].doubles(), dw);
}
