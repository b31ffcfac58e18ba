//! Every rule of the verifier rejects a graph that breaks it, and only it.

use linc_ir::{
    AttentionSpec, Graph, Init, IrError, NodeId, Op, ParamState, StateRole, TensorType, UnaryOp, Value, dot,
    print, verify,
};

fn value(node: NodeId) -> Value {
    Value { node, port: 0 }
}

fn leaf(graph: &mut Graph, op: fn(String, TensorType) -> Op, name: &str, shape: [usize; 1]) -> NodeId {
    graph.add(op(name.into(), TensorType::f32(shape)), &[]).unwrap()
}

fn input(name: String, ty: TensorType) -> Op {
    Op::Input { name, ty }
}

fn state(name: String, ty: TensorType) -> Op {
    Op::State { name, ty, role: StateRole::Recurrent }
}

fn param(name: String, ty: TensorType) -> Op {
    Op::Param { name, ty, init: Init::Zeros }
}

/// x and s are leaves, y = -x, z = s + y.
struct Small {
    graph: Graph,
    x: NodeId,
    s: NodeId,
    y: NodeId,
    z: NodeId,
}

fn small() -> Small {
    let mut graph = Graph::new("small");
    let x = leaf(&mut graph, input, "x", [2]);
    let s = leaf(&mut graph, state, "s", [2]);
    let y = graph.add(Op::Unary(UnaryOp::Neg), &[value(x)]).unwrap();
    let z = graph.add(Op::Binary(linc_ir::BinaryOp::Add), &[value(s), value(y)]).unwrap();
    graph.outputs.push(("y".into(), value(y)));
    graph.updates.push((s, value(z)));
    assert_eq!(verify(&graph), Ok(()));
    Small { graph, x, s, y, z }
}

#[track_caller]
fn rejected(graph: &Graph, message: &str) {
    let error = verify(graph).unwrap_err().to_string();
    assert_eq!(error, message);
    // A broken graph can still be looked at.
    assert!(print(graph).starts_with("graph"));
    assert!(dot(graph).starts_with("digraph"));
}

#[test]
fn operands_are_dense() {
    let Small { mut graph, y, z, .. } = small();
    graph.set_operand(z, 3, value(y));
    rejected(&graph, "n3 add: operands are numbered [0, 1, 3]: 2 is missing");
}

#[test]
fn results_exist() {
    let Small { mut graph, y, z, .. } = small();
    graph.set_operand(z, 1, Value { node: y, port: 1 });
    rejected(&graph, "n2 neg: result 1 is read, but it has 1");

    let Small { mut graph, y, .. } = small();
    graph.outputs.push(("more".into(), Value { node: y, port: 2 }));
    rejected(&graph, "n2 neg: result 2 is read, but it has 1");

    let Small { mut graph, z, .. } = small();
    graph.remove(z);
    rejected(&graph, "n3 removed node: is read but does not exist");
}

#[test]
fn types_are_inferred() {
    let Small { mut graph, y, .. } = small();
    graph.node_mut(y).types = vec![TensorType::f32([3])];
    rejected(&graph, "n2 neg: results are f32[3], expected f32[2]");

    let Small { mut graph, z, .. } = small();
    let other = leaf(&mut graph, input, "other", [5]);
    graph.set_operand(z, 1, value(other));
    assert!(matches!(verify(&graph), Err(IrError::Type { op: "add", .. })));
}

#[test]
fn cycles() {
    let Small { mut graph, y, z, .. } = small();
    graph.set_operand(y, 0, value(z));
    rejected(&graph, "cycle through neg (n2)");
}

#[test]
fn leaf_names() {
    let Small { mut graph, .. } = small();
    leaf(&mut graph, param, "s", [2]);
    rejected(&graph, "n4 param: is named \"s\", and so is n1");

    let Small { mut graph, .. } = small();
    leaf(&mut graph, param, "", [2]);
    rejected(&graph, "n4 param: has an empty name");
}

#[test]
fn output_names() {
    let Small { mut graph, x, .. } = small();
    graph.outputs.push(("y".into(), value(x)));
    rejected(&graph, "n0 input: there are two outputs named \"y\"");

    let Small { mut graph, x, .. } = small();
    graph.outputs.push((String::new(), value(x)));
    rejected(&graph, "n0 input: an output has an empty name");
}

#[test]
fn updates() {
    let Small { mut graph, x, y, .. } = small();
    graph.updates.push((x, value(y)));
    rejected(&graph, "n0 input: is updated, but only parameters and states persist");

    let Small { mut graph, s, y, .. } = small();
    graph.updates.push((s, value(y)));
    rejected(&graph, "n1 state: is updated twice");

    let Small { mut graph, y, .. } = small();
    let w = leaf(&mut graph, param, "w", [3]);
    graph.updates.push((w, value(y)));
    rejected(&graph, "n4 param: is f32[3], but is updated with f32[2]");
}

#[test]
fn states_of_parameters() {
    let moment = |graph: &mut Graph, name: &str, size: usize, of: &str| {
        let role = StateRole::OfParam { state: ParamState::FirstMoment, of: of.into() };
        graph.add(Op::State { name: name.into(), ty: TensorType::f32([size]), role }, &[]).unwrap();
    };
    let Small { mut graph, .. } = small();
    leaf(&mut graph, param, "w", [2]);
    moment(&mut graph, "m", 2, "w");
    assert_eq!(verify(&graph), Ok(()));
    moment(&mut graph, "again", 2, "w");
    rejected(&graph, "n6 state: is a second first_moment of \"w\"");

    let Small { mut graph, .. } = small();
    moment(&mut graph, "m", 2, "w");
    rejected(&graph, "n4 state: belongs to \"w\", which is no parameter");

    let Small { mut graph, .. } = small();
    moment(&mut graph, "m", 2, "x");
    rejected(&graph, "n4 state: belongs to \"x\", which is no parameter");

    let Small { mut graph, .. } = small();
    leaf(&mut graph, param, "w", [3]);
    moment(&mut graph, "m", 2, "w");
    rejected(&graph, "n5 state: is f32[2], but its parameter \"w\" is f32[3]");
}

#[test]
fn attention_gradients_name_their_forward() {
    let spec = AttentionSpec { layer: 0, causal: true, rope: false, kind: None };
    let mut graph = Graph::new("attention");
    let [q, k, v, dout] = ["q", "k", "v", "dout"].map(|name| {
        let op = Op::Input { name: name.into(), ty: TensorType::f32([1, 2, 1, 2]) };
        graph.push(op, &[]).unwrap()
    });
    let out = graph.push(Op::Attention(spec.clone()), &[q, k, v]).unwrap();
    let grad = graph.add(Op::AttentionGrad(spec), &[q, k, v, out, dout]).unwrap();
    assert_eq!(verify(&graph), Ok(()));
    graph.set_operand(grad, 3, q);
    let spec = "AttentionSpec { layer: 0, causal: true, rope: false, kind: None }";
    rejected(&graph, &format!("n5 attention_grad: operand 3 is %0, not an attention with {spec}"));
}
