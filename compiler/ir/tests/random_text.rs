//! The text form of random graphs: the same graph comes back, and no text ends in a panic.

use crate::common::Numbers;
use crate::text::{Builder, everything, round_trips};
use linc_ir::interp::{Bindings, Tensor, run_all};
use linc_ir::{
    BinaryOp, DType, EfficientForm, EfficientOp, EfficientSpec, Graph, Init, IrError, KindOp, Op, PointOp,
    Pointwise, Shape, SoftmaxOp, StateRole, UnaryOp, Value, parse, print,
};
use proptest::prelude::*;

/// A random well-formed graph: tries `tries` random operations on random values and keeps those that fit.
fn random_graph(seed: u64, tries: usize) -> Graph {
    let mut numbers = Numbers(seed);
    let mut b = Builder::new();
    let mut values = vec![b.f32([2, 3]), b.f32([3]), b.f32([1, 2, 2, 4]), b.i32([2]), b.f32([])];
    let scopes = ["", "layers.0/attention", "layers.1", "a b", "\"\\\u{0}"];
    for i in 0..tries {
        b.graph.set_scope(scopes[numbers.below(scopes.len())]);
        let pick = |n: &mut Numbers, values: &[Value]| values[n.below(values.len())];
        let x = pick(&mut numbers, &values);
        let shape = b.graph.ty(x).shape.clone();
        let axis = numbers.below(shape.rank().max(1));
        let value = f64::from_bits(numbers.bits());
        let kind = numbers.below(24);
        let op = match kind {
            0 => Op::Unary(UnaryOp::ALL[numbers.below(10)]),
            1 | 2 => Op::Binary(BinaryOp::ALL[numbers.below(7)]),
            3 => Op::Broadcast { shape: Shape([&[2], shape.dims()].concat()) },
            4 => Op::Cast { dtype: [DType::F32, DType::Bf16, DType::F16, DType::I32][numbers.below(4)] },
            5 => Op::Sum { axes: vec![axis], keep: numbers.below(2) == 0 },
            6 => Op::Reshape { shape: [shape.numel()].into() },
            7 => Op::Transpose { perm: (0..shape.rank()).rev().collect() },
            8 => Op::Slice { axis, start: numbers.below(2), len: 1 + numbers.below(2) },
            9 => Op::Pad { axis, before: numbers.below(2), after: numbers.below(2) },
            10 => Op::Concat { axis },
            11 => Op::MatMul {
                trans_a: numbers.below(2) == 0,
                trans_b: numbers.below(2) == 0,
                dtype: DType::F32,
            },
            12 => Op::RmsNorm { eps: value },
            13 => Op::RmsNormGrad { eps: value },
            14 => Op::from(SoftmaxOp::Forward { causal: numbers.below(2) == 0, scale: value }),
            15 => Op::from(EfficientOp::Forward(EfficientSpec {
                causal: numbers.below(2) == 0,
                chunk: 1 + numbers.below(3),
                temperature: value,
                form: EfficientForm::Fused,
            })),
            16 => Op::CrossEntropy,
            17 => Op::GlobalNorm,
            18 => Op::Constant { value, ty: b.graph.ty(x).clone() },
            19 => Op::Param {
                name: format!("p{i}"),
                ty: b.graph.ty(x).clone(),
                init: Init::Normal { std: value },
            },
            20 => {
                let role = StateRole::ALONE[numbers.below(3)].clone();
                Op::State { name: format!("s{i}"), ty: b.graph.ty(x).clone(), role }
            }
            21 | 22 => {
                let steps = vec![
                    PointOp::Input(0),
                    PointOp::Const(value),
                    PointOp::Binary(BinaryOp::ALL[numbers.below(7)], 0, 1),
                    PointOp::Unary(UnaryOp::ALL[numbers.below(10)], 2),
                    PointOp::Cast(DType::Bf16, 3),
                ];
                let outputs = (0..1 + numbers.below(3)).map(|_| (numbers.below(5), DType::F32)).collect();
                Op::Fused(Pointwise { shape: shape.clone(), steps, outputs })
            }
            _ => Op::Embedding { dtype: DType::F32 },
        };
        let arity = match &op {
            Op::Param { .. } | Op::State { .. } | Op::Constant { .. } => 0,
            Op::Binary(_)
            | Op::MatMul { .. }
            | Op::RmsNorm { .. }
            | Op::CrossEntropy
            | Op::Embedding { .. } => 2,
            Op::RmsNormGrad { .. }
            | Op::Kind(KindOp::Softmax(SoftmaxOp::Forward { .. }))
            | Op::Kind(KindOp::Efficient(EfficientOp::Forward(_))) => 3,
            Op::Concat { .. } | Op::GlobalNorm => 1 + numbers.below(3),
            _ => 1,
        };
        // Repeating the first operand makes operations that want equal types succeed more often.
        let operands: Vec<Value> = (0..arity)
            .map(|j| if j == 0 || numbers.below(2) == 0 { x } else { pick(&mut numbers, &values) })
            .collect();
        if let Ok(id) = b.graph.add(op, &operands) {
            b.graph.node_mut(id).recompute = numbers.below(4) == 0;
            values.extend(b.graph.results(id).filter(|v| b.graph.ty(*v).shape.numel() < 500));
        }
    }
    let states: Vec<_> = b.graph.nodes().filter(|n| matches!(b.graph.op(*n), Op::State { .. })).collect();
    for (i, value) in values.iter().rev().take(3).enumerate() {
        b.graph.outputs.push((format!("out{i}"), *value));
    }
    for leaf in states {
        let ty = b.graph.ty(Value { node: leaf, port: 0 });
        if let Some(value) = values.iter().rev().find(|v| b.graph.ty(**v) == ty) {
            b.graph.updates.push((leaf, *value));
        }
    }
    // Passes remove nodes and leave holes in the ids.
    let unused = b.graph.nodes().filter(|n| b.graph.results(*n).all(|v| b.graph.users(v).is_empty()));
    let removable: Vec<_> = unused.filter(|n| !b.graph.results(*n).any(|v| b.graph.is_result(v))).collect();
    for id in removable {
        if numbers.below(2) == 0 && !b.graph.updates.iter().any(|(leaf, _)| *leaf == id) {
            b.graph.remove(id);
        }
    }
    b.graph
}

/// Small positive data for every leaf.
fn bindings(graph: &Graph, seed: u64) -> Bindings<f64> {
    let mut numbers = Numbers(seed);
    let leaf = |id| Some((graph.op(id).leaf_name()?.to_string(), graph.node(id).types[0].clone()));
    let leaves = graph.nodes().filter_map(leaf);
    leaves
        .map(|(name, ty)| {
            let data: Vec<usize> = (0..ty.shape.numel()).map(|_| numbers.below(3)).collect();
            let tensor = match ty.dtype {
                DType::I32 => Tensor::int(ty.shape, data.iter().map(|x| *x as i32).collect()),
                DType::F32 | DType::F64 | DType::Bf16 | DType::F16 => {
                    Tensor::float(ty.shape, data.iter().map(|x| *x as f64).collect())
                }
            };
            (name, tensor)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_graphs_round_trip(seed: u64, tries in 0_usize..60) {
        let graph = random_graph(seed, tries);
        let parsed = round_trips(&graph);
        // The same meaning, down to the bits, and every value as its type says.
        let bindings = bindings(&graph, seed);
        match (run_all(&graph, &bindings), run_all(&parsed, &bindings)) {
            (Ok(a), Ok(b)) => {
                prop_assert_eq!(format!("{:?}", a.outputs), format!("{:?}", b.outputs));
                prop_assert_eq!(format!("{:?}", a.updates), format!("{:?}", b.updates));
                for (value, tensor) in &a.values {
                    let ty = graph.ty(*value);
                    prop_assert_eq!(&tensor.shape, &ty.shape);
                    prop_assert_eq!(tensor.len(), ty.shape.numel());
                    prop_assert_eq!(tensor.floats().is_some(), ty.dtype.is_float());
                }
            }
            // A token id out of range is found in both.
            (a, b) => prop_assert_eq!(a.map(|_| ()), b.map(|_| ())),
        }
    }

    #[test]
    fn parsing_mutated_text_never_panics(seed: u64, edits in 1_usize..6) {
        let mut numbers = Numbers(seed);
        let graph = if numbers.below(2) == 0 { everything() } else { random_graph(seed, 30) };
        let mut text: Vec<char> = print(&graph).chars().collect();
        let junk: Vec<char> = "%.:=,()[]{}@!\"\\#-+0123456789efnigraph \n\u{e9}\u{0}".chars().collect();
        for _ in 0..edits {
            let at = numbers.below(text.len());
            let end = (at + numbers.below(20)).min(text.len());
            match numbers.below(5) {
                0 => { text.drain(at..end); }
                1 => text[at] = junk[numbers.below(junk.len())],
                2 => text.insert(at, junk[numbers.below(junk.len())]),
                3 => { let part = text[at..end].to_vec(); let to = numbers.below(text.len()); text.splice(to..to, part); }
                _ => text.truncate(at.max(1)),
            }
            if text.is_empty() { text.push('g'); }
        }
        let text: String = text.into_iter().collect();
        match parse(&text) {
            Ok(graph) => { round_trips(&graph); }
            Err(e) => prop_assert!(matches!(e, IrError::Parse { .. }), "{}", e),
        }
    }

    #[test]
    fn parsing_any_text_never_panics(text: String) {
        let _ = parse(&text).is_ok();
        let _ = parse(&format!("graph \"g\" {{ {text} }}")).is_ok();
    }
}
