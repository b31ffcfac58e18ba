//! The model of whole batches as the model of some of their tokens: what is the same for all of them stays so, in
//! whatever form it comes, and however far it is computed.

use linc_ir::{BinaryOp, Graph, Op, TensorType, UnaryOp, Value};
use linc_passes::positions::{self, Part};

/// Sequences of a batch, tokens of a sequence, and features.
const DIMS: [usize; 3] = [3, 4, 5];
const ROWS: [usize; 2] = [12, 5];

/// Tokens, their embeddings in rows, and what `other` makes of a parameter `[5]` added to them.
fn model(other: impl Fn(&mut Graph, Value) -> Value) -> Graph {
    let mut graph = Graph::new("m");
    let mut param = |name: &str, ty: TensorType| {
        graph.push(Op::Param { name: name.into(), ty, init: linc_ir::Init::Ones }, &[]).expect("a parameter")
    };
    let (table, gain) = (param("table", TensorType::f32([7, 5])), param("gain", TensorType::f32([5])));
    let ty = TensorType::i32([DIMS[0], DIMS[1]]);
    let push = |graph: &mut Graph, op, operands: &[Value]| graph.push(op, operands).expect("an operation");
    let tokens = push(&mut graph, Op::Input { name: "tokens".into(), ty }, &[]);
    let x = push(&mut graph, Op::Embedding { dtype: linc_ir::DType::F32 }, &[table, tokens]);
    let x = push(&mut graph, Op::Reshape { shape: ROWS.into() }, &[x]);
    let other = other(&mut graph, gain);
    let x = push(&mut graph, Op::Binary(BinaryOp::Add), &[x, other]);
    graph.outputs.push(("logits".into(), x));
    graph
}

/// The parts for one sequence, for one token and for two, which need no table of positions.
fn parts(graph: &Graph) -> Vec<Part> {
    let mut parts = vec![positions::sequences(graph, 1)];
    parts.extend([1, 2].map(|tokens| positions::run(graph, tokens, 8)));
    let parts: Vec<Part> = parts.into_iter().map(|part| part.unwrap_or_else(|e| panic!("{e}"))).collect();
    for (part, rows) in parts.iter().zip([4, 3, 6]) {
        linc_ir::verify(&part.graph).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(part.longest, None, "{}", linc_ir::print(&part.graph));
        assert_eq!(part.graph.ty(part.graph.outputs[0].1).shape.0, [rows, 5]);
    }
    parts
}

#[test]
fn what_is_the_same_for_all_is_so_in_every_form() {
    let repeated = |graph: &mut Graph, gain| {
        graph.push(Op::Broadcast { shape: DIMS.into() }, &[gain]).expect("repeated")
    };
    let rows = Op::Reshape { shape: ROWS.into() };
    parts(&model(|graph, gain| {
        let all = repeated(graph, gain);
        graph.push(rows.clone(), &[all]).expect("rows")
    }));
    parts(&model(|graph, gain| {
        let all = repeated(graph, gain);
        let all = graph.push(Op::Unary(UnaryOp::Neg), &[all]).expect("negative");
        let turned = graph.push(Op::Transpose { perm: vec![1, 0, 2] }, &[all]).expect("turned");
        let back = graph.push(Op::Transpose { perm: vec![1, 0, 2] }, &[turned]).expect("back");
        graph.push(rows.clone(), &[back]).expect("rows")
    }));
}

#[test]
fn a_chain_may_be_as_long_as_a_model_is_deep() {
    let layers = 100_000;
    let graph = model(|graph, gain| {
        let mut x = graph.push(Op::Broadcast { shape: ROWS.into() }, &[gain]).expect("repeated");
        for _ in 0..layers {
            // Both operands lead to the same rows, which are made once.
            x = graph.push(Op::Binary(BinaryOp::Max), &[x, x]).expect("an operation");
        }
        x
    });
    for part in parts(&graph) {
        // The chain as it was, which nothing reads any more, and its rows.
        assert!((2 * layers..2 * layers + 20).contains(&part.graph.nodes().count()));
    }
}

#[test]
fn documents_are_kept_apart_only_where_nothing_else_sees_several_positions() {
    let refused = |mut graph: Graph| positions::keep_apart(&mut graph).expect_err("refused").to_string();
    let learned = refused(model(|graph, _| {
        let ty = TensorType::f32([DIMS[1], DIMS[2]]);
        let op = Op::Param { name: "places".into(), ty, init: linc_ir::Init::Ones };
        let places = graph.push(op, &[]).expect("a parameter");
        let all = graph.push(Op::Broadcast { shape: DIMS.into() }, &[places]).expect("repeated");
        graph.push(Op::Reshape { shape: ROWS.into() }, &[all]).expect("rows")
    }));
    assert!(learned.contains("a row for each position of the sequence (learned positions)"), "{learned}");

    let mut shifted = Graph::new("m");
    let ty = TensorType::i32([DIMS[0], DIMS[1]]);
    let mut push = |op, operands: &[Value]| shifted.push(op, operands).expect("an operation");
    let table =
        push(Op::Param { name: "table".into(), ty: TensorType::f32([7, 5]), init: linc_ir::Init::Ones }, &[]);
    let tokens = push(Op::Input { name: "tokens".into(), ty }, &[]);
    let x = push(Op::Embedding { dtype: linc_ir::DType::F32 }, &[table, tokens]);
    let late = push(Op::Pad { axis: 1, before: 1, after: 0 }, &[x]);
    let late = push(Op::Slice { axis: 1, start: 0, len: DIMS[1] }, &[late]);
    let sum = push(Op::Binary(BinaryOp::Add), &[x, late]);
    shifted.outputs.push(("logits".into(), sum));
    let error = refused(shifted);
    assert!(error.contains("cannot be kept apart: this moves positions of the sequence"), "{error}");

    let mut plain =
        model(|graph, gain| graph.push(Op::Broadcast { shape: ROWS.into() }, &[gain]).expect("rows"));
    positions::keep_apart(&mut plain).unwrap_or_else(|e| panic!("{e}"));
    assert!(plain.leaf(positions::POSITIONS).is_some());
}
