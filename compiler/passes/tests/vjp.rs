//! The derivative of every operation against central differences, in f64.

use linc_ir::interp::{Bindings, Data, Tensor, run};
use linc_ir::{
    AttentionSpec, BinaryOp, DType, EfficientForm, EfficientOp, EfficientSpec, Graph, Init, Op, Shape,
    SoftmaxOp, TableKind, TensorType, UnaryOp, Value,
};
use linc_passes::autodiff;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A parameter of a test graph.
fn param(graph: &mut Graph, name: &str, shape: &[usize]) -> Value {
    let ty = TensorType::f32(Shape::from(shape));
    graph.push(Op::Param { name: name.into(), ty, init: Init::Zeros }, &[]).expect("a parameter")
}

/// Checks d(Σ w·f)/dp for every parameter of a graph, with random weights `w` so that no gradient is uniform.
/// Parameters are drawn from `range`.
fn check(name: &str, range: (f64, f64), build: impl Fn(&mut Graph) -> Value) {
    let mut graph = Graph::new(name);
    let out = build(&mut graph);
    let shape = graph.ty(out).shape.clone();
    let w = graph
        .push(Op::Input { name: "weights".into(), ty: TensorType::f32(shape.clone()) }, &[])
        .expect("weights");
    let product = graph.push(Op::Binary(BinaryOp::Mul), &[out, w]).expect("a product");
    let axes: Vec<usize> = (0..shape.rank()).collect();
    let loss = graph.push(Op::Sum { axes, keep: false }, &[product]).expect("a sum");
    graph.outputs.push(("loss".into(), loss));

    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut bindings = Bindings::<f64>::new();
    for id in graph.nodes() {
        let (name, ty) = match graph.op(id) {
            Op::Param { name, ty, .. } | Op::Input { name, ty } => (name, ty),
            _ => continue,
        };
        let n = ty.shape.numel();
        let tensor = if ty.dtype.is_float() {
            Tensor::float(ty.shape.clone(), (0..n).map(|_| rng.random_range(range.0..range.1)).collect())
        } else {
            Tensor::int(ty.shape.clone(), (0..n as i32).map(|i| if i == 1 { 3 } else { i % 4 }).collect())
        };
        bindings.insert(name.clone(), tensor);
    }

    let forward = graph.clone();
    let gradients = autodiff::run(&mut graph, "loss").unwrap_or_else(|e| panic!("{name}: {e}"));
    for (param, grad) in &gradients {
        graph.outputs.push((graph.op(*param).leaf_name().expect("a name").to_string(), *grad));
    }
    let analytic = run::<f64>(&graph, &bindings).unwrap_or_else(|e| panic!("{name}: {e}"));
    let value = |b: &Bindings<f64>| run::<f64>(&forward, b).expect("a loss").outputs["loss"].doubles()[0];
    for (param, _) in &gradients {
        let leaf = graph.op(*param).leaf_name().expect("a name");
        let grad = analytic.outputs[leaf].doubles();
        for (i, g) in grad.iter().enumerate() {
            let moved = |delta: f64| {
                let mut b = bindings.clone();
                let Data::Float(data) = &mut b.get_mut(leaf).expect("bound").data else {
                    panic!("not float")
                };
                data[i] += delta;
                value(&b)
            };
            let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((numeric - g).abs() <= 2e-8 * (1.0 + g.abs()), "{name} {leaf}[{i}]: {numeric} vs {g}");
        }
    }
}

#[test]
fn unary() {
    for f in UnaryOp::ALL {
        // Away from the kink of relu and the poles of log, rsqrt and recip.
        check(f.name(), (0.3, 1.7), |g| {
            let x = param(g, "x", &[2, 3]);
            g.push(Op::Unary(f), &[x]).expect("a function")
        });
    }
    check("relu of negatives", (-1.7, -0.3), |g| {
        let x = param(g, "x", &[4]);
        g.push(Op::Unary(UnaryOp::Relu), &[x]).expect("relu")
    });
}

#[test]
fn binary() {
    let smooth = |f: &BinaryOp| !matches!(f, BinaryOp::Greater | BinaryOp::Mask);
    for f in BinaryOp::ALL.into_iter().filter(smooth) {
        check(f.name(), (0.3, 1.7), |g| {
            let (x, y) = (param(g, "x", &[2, 3]), param(g, "y", &[2, 3]));
            g.push(Op::Binary(f), &[x, y]).expect("a function")
        });
    }
    for kept in [0.0, 2.0] {
        check("mask", (0.3, 1.7), |g| {
            let x = param(g, "x", &[2, 3]);
            let ty = TensorType::f32([2, 3]);
            let y = g.push(Op::Constant { value: kept, ty }, &[]).expect("a constant");
            g.push(Op::Binary(BinaryOp::Mask), &[x, y]).expect("a function")
        });
    }
}

#[test]
fn views_and_sums() {
    let ops = [
        Op::Broadcast { shape: [2, 5, 3, 4].into() },
        Op::Sum { axes: vec![0], keep: false },
        Op::Sum { axes: vec![1, 2], keep: true },
        Op::Reshape { shape: [4, 3].into() },
        Op::Transpose { perm: vec![2, 0, 1] },
        Op::Slice { axis: 2, start: 1, len: 2 },
        Op::Pad { axis: 1, before: 1, after: 2 },
    ];
    for op in ops {
        check(op.name(), (-1.0, 1.0), |g| {
            let shape: &[usize] = if op.name() == "broadcast" { &[5, 1, 4] } else { &[3, 1, 4] };
            let x = param(g, "x", shape);
            g.push(op.clone(), &[x]).expect("a view")
        });
    }
    check("concat", (-1.0, 1.0), |g| {
        let (x, y) = (param(g, "x", &[2, 3]), param(g, "y", &[2, 1]));
        g.push(Op::Concat { axis: 1 }, &[x, y, x]).expect("a concat")
    });
}

#[test]
fn matmul_of_all_orientations() {
    for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
        check("matmul", (-1.0, 1.0), |g| {
            let a = param(g, "a", if trans_a { &[3, 2] } else { &[2, 3] });
            let b = param(g, "b", if trans_b { &[4, 3] } else { &[3, 4] });
            g.push(Op::MatMul { trans_a, trans_b, dtype: DType::F32 }, &[a, b]).expect("a product")
        });
    }
}

#[test]
fn products_that_meet_are_joined() {
    check("joined products", (-1.0, 1.0), |g| {
        let x = param(g, "x", &[3, 4]);
        let mut parts = vec![];
        for (name, rows) in [("p", 2), ("q", 5)] {
            let w = param(g, name, &[rows, 4]);
            parts.push(
                g.push(Op::MatMul { trans_a: false, trans_b: true, dtype: DType::F32 }, &[x, w])
                    .expect("a product"),
            );
        }
        g.push(Op::Concat { axis: 1 }, &parts).expect("a concat")
    });
}

#[test]
fn norm_rope_embedding() {
    check("rms_norm", (-1.0, 1.0), |g| {
        let (x, w) = (param(g, "x", &[3, 2, 4]), param(g, "w", &[4]));
        g.push(Op::RmsNorm { eps: 1e-5 }, &[x, w]).expect("a norm")
    });
    for inverse in [false, true] {
        check("rope", (-1.0, 1.0), |g| {
            let x = param(g, "x", &[1, 3, 2, 4]);
            let table = rope_table(g);
            g.push(Op::Rope { inverse }, &[x, table]).expect("a rotation")
        });
    }
    check("embedding", (-1.0, 1.0), |g| {
        let table = param(g, "table", &[4, 3]);
        let ids = g.push(Op::Input { name: "ids".into(), ty: TensorType::i32([5]) }, &[]).expect("ids");
        g.push(Op::Embedding { dtype: DType::F32 }, &[table, ids]).expect("rows")
    });
}

fn rope_table(g: &mut Graph) -> Value {
    let kind = TableKind::Rope { theta: 100.0, scaling: None };
    g.push(Op::Table { name: "rope".into(), ty: TensorType::f32([3, 2, 2]), kind }, &[]).expect("a table")
}

fn heads(g: &mut Graph) -> [Value; 3] {
    [param(g, "q", &[1, 3, 4, 4]), param(g, "k", &[1, 3, 2, 4]), param(g, "v", &[1, 3, 2, 4])]
}

#[test]
fn attention_of_every_kind() {
    for causal in [true, false] {
        check("softmax", (-1.5, 1.5), |g| {
            let qkv = heads(g);
            g.push(Op::from(SoftmaxOp::Forward { causal, scale: 0.5 }), &qkv).expect("attention")
        });
        check("linear", (-1.5, 1.5), |g| {
            let qkv = heads(g);
            let spec = EfficientSpec { causal, chunk: 2, temperature: 1.5, form: EfficientForm::Fused };
            g.push(Op::from(EfficientOp::Forward(spec)), &qkv).expect("attention")
        });
        check("abstract", (-1.5, 1.5), |g| {
            let [q, k, v] = heads(g);
            let table = rope_table(g);
            let spec = AttentionSpec { layer: 0, causal, rope: true, kind: None };
            g.push(Op::Attention(spec), &[q, k, v, table]).expect("attention")
        });
    }
}

#[test]
fn losses() {
    let targets = |g: &mut Graph| {
        g.push(Op::Input { name: "targets".into(), ty: TensorType::i32([3]) }, &[]).expect("targets")
    };
    check("cross_entropy", (-1.0, 1.0), |g| {
        let logits = param(g, "logits", &[3, 4]);
        let targets = targets(g);
        g.push(Op::CrossEntropy, &[logits, targets]).expect("a loss")
    });
    check("linear_cross_entropy", (-1.0, 1.0), |g| {
        let (h, w) = (param(g, "h", &[3, 2]), param(g, "w", &[4, 2]));
        let targets = targets(g);
        g.push(Op::LinearCrossEntropy { chunk: 2 }, &[h, w, targets]).expect("a loss")
    });
}

#[test]
fn gradient_operations_have_no_derivative() {
    let mut graph = Graph::new("second order");
    let (x, w) = (param(&mut graph, "x", &[2, 3]), param(&mut graph, "w", &[3]));
    let grad = graph.push(Op::RmsNormGrad { eps: 1e-5 }, &[x, w, x]).expect("a gradient");
    let loss = graph.push(Op::Sum { axes: vec![0, 1], keep: false }, &[grad]).expect("a sum");
    graph.outputs.push(("loss".into(), loss));
    let error = autodiff::run(&mut graph, "loss").expect_err("no second derivative");
    assert!(error.to_string().contains("rms_norm_grad has no derivative"), "{error}");
}

#[test]
fn unused_parameters_are_named() {
    let mut graph = Graph::new("unused");
    let x = param(&mut graph, "x", &[2]);
    param(&mut graph, "idle", &[2]);
    let loss = graph.push(Op::Sum { axes: vec![0], keep: false }, &[x]).expect("a sum");
    graph.outputs.push(("loss".into(), loss));
    let error = autodiff::run(&mut graph, "loss").expect_err("an unused parameter");
    assert!(error.to_string().contains("parameter idle"), "{error}");
}
