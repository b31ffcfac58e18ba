//! What the language means: small programs against the same formulas in Rust, on the reference interpreter.

use std::collections::BTreeMap;

use crate::common::{NANO, shape, source};
use linc_ir::interp::{Tensor, run};
use linc_ir::{AttentionKind, Op, verify};
use linc_lang::{Architecture, BuiltModel, Diagnostics, ModelConfig, build};

/// Features of a token, and the vocabulary, so that any `[batch, seq, dim]` can be the result.
const DIM: usize = 4;

fn config(extra: &str) -> ModelConfig {
    let text = format!(
        "name = 'a'\nflavor = 'b'\narchitecture = 'c.linc'\n\
         dim = {DIM}\nn_layers = 2\nn_heads = 2\nvocab_size = {DIM}\n{extra}"
    );
    ModelConfig::parse(&source("c.toml", &text)).unwrap_or_else(|e| panic!("{e}"))
}

fn try_build(text: &str, extra: &str) -> Result<BuiltModel, Diagnostics> {
    build(&Architecture::parse(&source("c.linc", text))?, &config(extra), &shape(2, 3, 5), &[])
}

fn built(text: &str, extra: &str) -> BuiltModel {
    let model = try_build(text, extra).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&model.graph).unwrap_or_else(|e| panic!("{e}\n{text}"));
    model
}

/// Numbers that are neither equal nor all of one sign.
fn data(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7 + seed * 13) % 23) as f64 / 5.0 - 2.1).collect()
}

/// The result of a program on fixed tokens and weights; weight `i` in order of the text is `data(.., i)`.
fn evaluate(model: &BuiltModel) -> Vec<f64> {
    let mut bindings = BTreeMap::new();
    bindings.insert("tokens".to_string(), Tensor::int([2, 3], vec![0, 1, 2, 3, 2, 1]));
    for id in model.graph.nodes() {
        if let Op::Param { name, ty, .. } = model.graph.op(id) {
            let values = data(ty.shape.numel(), bindings.len() - 1);
            bindings.insert(name.clone(), Tensor::float(ty.shape.clone(), values));
        }
    }
    let results = run::<f64>(&model.graph, &bindings).unwrap_or_else(|e| panic!("{e}"));
    results.outputs["logits"].floats().expect("floats").to_vec()
}

/// The rows that `x` has in [`rows`].
fn inputs() -> Vec<[f64; DIM]> {
    let table = data(DIM * DIM, 0);
    [0, 1, 2, 3, 2, 1].map(|t: usize| std::array::from_fn(|i| table[t * DIM + i])).to_vec()
}

/// Checks that statements which turn `x` into `y` act on each row as a function does. `v` is a vector `[dim]`.
fn rows(functions: &str, statements: &str, expected: impl Fn([f64; DIM], [f64; DIM]) -> [f64; DIM]) {
    let model = built(
        &format!(
            "{functions}\nmodel m(tokens: [batch, seq] int) {{\n  param table [vocab_size, dim] init normal(1.0)\n  \
             param v [dim] init ones\n  let x = embedding(tokens, table)\n  {statements}\n  _keep = v\n  logits = y\n}}\n"
        ),
        "",
    );
    let v: [f64; DIM] = std::array::from_fn(|i| data(DIM, 1)[i]);
    let expected: Vec<f64> = inputs().into_iter().flat_map(|x| expected(x, v)).collect();
    let found = evaluate(&model);
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() < 1e-12, "{statements}: element {i} is {a}, expected {b}");
    }
}

fn each(statements: &str, expected: impl Fn(f64, f64) -> f64) {
    rows("", statements, |x, v| std::array::from_fn(|i| expected(x[i], v[i])));
}

#[test]
fn arithmetic_of_tensors_and_numbers() {
    each("y = x * v + 1", |x, v| x * v + 1.0);
    each("y = 2 - x / 4", |x, _| 2.0 - x / 4.0);
    each("y = -x - -1.5", |x, _| -x + 1.5);
    each("y = 1 / (x + 10)", |x, _| 1.0 / (x + 10.0));
    each("y = 3 / (x + 10)", |x, _| 3.0 / (x + 10.0));
    each("y = max(x, 0.5) + min(x, v)", |x, v| x.max(0.5) + x.min(v));
    each("y = (x > v) + (x < 0)", |x, v| f64::from(u8::from(x > v)) + f64::from(u8::from(x < 0.0)));
    each("y = v * x - x * v + x", |x, _| x);
}

#[test]
fn functions_of_each_element() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    each("y = silu(x) + sigmoid(v)", |x, v| x * sigmoid(x) + sigmoid(v));
    each("y = tanh(x) + relu(x)", |x, _| x.tanh() + x.max(0.0));
    each("y = log(exp(x)) + sqrt(x * x) + rsqrt(x * x + 1)", |x, _| x + x.abs() + 1.0 / (x * x + 1.0).sqrt());
    each("y = gelu(x)", |x, _| {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    });
}

#[test]
fn reductions_and_views() {
    rows("", "y = x - mean(x) + sum(v)", |x, v| {
        let mean = x.iter().sum::<f64>() / DIM as f64;
        x.map(|a| a - mean + v.iter().sum::<f64>())
    });
    rows("", "y = rms_norm(x, v, norm_eps)", |x, v| {
        let scale = 1.0 / (x.iter().map(|a| a * a).sum::<f64>() / DIM as f64 + 1e-5).sqrt();
        std::array::from_fn(|i| x[i] * scale * v[i])
    });
    rows("", "y = concat(slice(x, 1, dim - 1), slice(x, 0, 1, axis = -1))", |x, _| [x[1], x[2], x[3], x[0]]);
    rows("", "y = merge_heads(transpose(split_heads(x, n_heads), 2, 3))", |x, _| [x[0], x[2], x[1], x[3]]);
    rows("", "y = reshape(reshape(x, [seq, batch, 2, 2]), [batch, seq, dim])", |x, _| x);
}

#[test]
fn products_with_matrices() {
    let text = |product: &str| {
        format!(
            "model m(tokens: [batch, seq] int) {{\n  param table [vocab_size, dim] init normal(1.0)\n  \
             param w [dim, dim] init normal(1.0)\n  x = embedding(tokens, table)\n  logits = {product}\n}}\n"
        )
    };
    let w = data(DIM * DIM, 1);
    for (product, transposed) in [("x @ w", false), ("x @ w.T", true), ("x @ (w.T)", true)] {
        let found = evaluate(&built(&text(product), ""));
        for (row, x) in inputs().iter().enumerate() {
            for j in 0..DIM {
                let at = |k: usize| if transposed { w[j * DIM + k] } else { w[k * DIM + j] };
                let expected: f64 = (0..DIM).map(|k| x[k] * at(k)).sum();
                assert!((found[row * DIM + j] - expected).abs() < 1e-12, "{product}");
            }
        }
    }
}

#[test]
fn functions_are_expanded() {
    let functions = "fn twice(a) {\n  let b = a * 2\n  return b\n}\n\nfn both(a, b) {\n  c = twice(a)\n  c = c + twice(b)\n  return c\n}\n";
    rows(functions, "y = both(b = x, a = v)", |x, v| std::array::from_fn(|i| 2.0 * (x[i] + v[i])));
    rows(functions, "y = x * both(1, 0.5)", |x, _| x.map(|a| a * 3.0));
}

#[test]
fn numbers_are_computed_while_building() {
    for (number, value) in [
        ("dim / 2", 2.0),
        ("(dim + 3) // 2", 3.0),
        ("round_up(dim + 1, 8)", 8.0),
        ("int(dim * 0.9)", 3.0),
        ("int(-1.7)", -1.0),
        ("1 / sqrt(dim)", 0.5),
        ("max(dim, 7) - min(1, 2.5)", 6.0),
        ("2 * -3 + 10 - 1 - 1", 2.0),
        ("window", 1.5),
    ] {
        let text = format!(
            "model m(tokens: [batch, seq] int) {{\n  param t [vocab_size, dim] init normal(1.0)\n  \
             let _w = window\n  logits = embedding(tokens, t) * 0 + {number}\n}}\n"
        );
        let found = evaluate(&built(&text, "[constants]\nwindow = 1.5\n"));
        assert!(found.iter().all(|x| *x == value), "{number} is {}", found[0]);
    }
}

#[test]
fn conditions_choose_while_building() {
    for (condition, holds) in [
        ("dim == 4 and not false", true),
        ("dim != 4 or n_heads < 2", false),
        ("1.5 <= 1 or batch >= 3", false),
        ("tie_embeddings == false", true),
        ("not dim > 4", true),
    ] {
        rows(
            "",
            &format!("if {condition} {{ y = x }} else if seq == 3 {{ y = v + x * 0 }} else {{ y = 0 }}"),
            |x, v| {
                if holds { x } else { v }
            },
        );
    }
}

#[test]
fn blocks_name_parameters_and_scopes() {
    let model = built(
        "model m(tokens: [batch, seq] int) {\n  param t [vocab_size, dim] init normal(1.0)\n  x = embedding(tokens, t)\n  \
         block outer {\n    for i in layers {\n      block inner {\n        param w [dim] init zeros\n        \
         x = x * w * (i + 1)\n      }\n    }\n  }\n  logits = x\n}\n",
        "",
    );
    let names: Vec<_> = model.graph.nodes().filter_map(|n| model.graph.op(n).leaf_name()).collect();
    assert_eq!(
        names,
        ["tokens", "t.weight", "outer.layers.0.inner.w.weight", "outer.layers.1.inner.w.weight"]
    );
    let scope = &model.graph.node(model.graph.outputs[0].1.node).scope;
    assert_eq!((scope.layer, scope.to_string().as_str()), (Some(1), "layers.1/outer/inner"));
}

#[test]
fn an_architecture_changes_without_rust() {
    // A parallel block with norms of q and k, and a gated attention output.
    let text = "
model parallel(tokens: [batch, seq] int) {
  param tok_embeddings [vocab_size, dim] init normal(1.0)
  let ffn_dim = round_up(int(ffn_dim_multiplier * 4 * dim), multiple_of)
  x = embedding(tokens, tok_embeddings)
  for layer in layers {
    param norm [dim] init ones
    h = rms_norm(x, norm, norm_eps)
    block attention {
      param wq [n_heads * head_dim, dim] init normal(0.02)
      param wk [n_kv_heads * head_dim, dim] init normal(0.02)
      param wv [n_kv_heads * head_dim, dim] init normal(0.02)
      param wo [dim, n_heads * head_dim] init normal(0.02 / sqrt(layer + 1))
      param gate [n_heads * head_dim, dim] init zeros
      param q_norm [head_dim] init ones
      param k_norm [head_dim] init ones
      q = rms_norm(split_heads(h @ wq.T, n_heads), q_norm, norm_eps)
      k = rms_norm(split_heads(h @ wk.T, n_kv_heads), k_norm, norm_eps)
      v = split_heads(h @ wv.T, n_kv_heads)
      a = attention(q, k, v, rope = rope_table(head_dim, rope_theta))
      x = x + (merge_heads(a) * sigmoid(h @ gate.T)) @ wo.T
    }
    block feed_forward {
      param w1 [ffn_dim, dim] init normal(0.02)
      param w2 [dim, ffn_dim] init normal(0.02)
      x = x + gelu(h @ w1.T) @ w2.T
    }
  }
  logits = reshape(x @ tok_embeddings.T, [batch * seq, vocab_size])
}
";
    let arch = Architecture::parse(&source("p.linc", text)).unwrap_or_else(|e| panic!("{e}"));
    let config = ModelConfig::parse(&source("p.toml", NANO)).unwrap_or_else(|e| panic!("{e}"));
    let model = build(&arch, &config, &shape(2, 8, 16), &[]).unwrap_or_else(|e| panic!("{e}"));
    verify(&model.graph).expect("a sound graph");
    assert_eq!(model.graph.ty(model.graph.outputs[0].1).shape.dims(), [16, 256]);
    let tables = model.graph.nodes().filter(|n| matches!(model.graph.op(*n), Op::Table { .. })).count();
    assert_eq!(tables, 1, "equal rope tables are one");
    let ffn = 4 * 128;
    let attention = 3 * 128 * 128 + 2 * 64 * 128 + 2 * 32;
    assert_eq!(model.parameter_count(), 256 * 128 + 4 * (128 + attention + 2 * ffn * 128));
}

#[test]
fn shipped_models_are_sound_graphs() {
    for flavor in ["nano", "debugmodel", "405b"] {
        verify(&crate::common::built(flavor).graph).unwrap_or_else(|e| panic!("{flavor}: {e}"));
    }
}

#[test]
fn the_example_of_the_readme_builds() {
    let readme = include_str!("../README.md");
    let start = readme.find("model tiny").expect("the example");
    let end = start + readme[start..].find("```").expect("its end");
    let model = built(&readme[start..end], "");
    assert_eq!(model.parameter_count(), DIM * DIM + 2 * 2 * 4 * DIM * DIM);
    let formatted = Architecture::parse(&source("r.linc", &readme[start..end])).expect("parses").format();
    assert_eq!(formatted, readme[start..end]);
}

#[test]
fn the_readme_names_every_function() {
    let readme = include_str!("../README.md");
    for name in linc_lang::function_names() {
        let named = [format!("`{name}("), format!("`{name} "), format!(" {name} "), format!(" {name}`")];
        assert!(named.iter().any(|n| readme.contains(n.as_str())), "{name}");
    }
}

#[test]
fn the_largest_model_builds() {
    assert_eq!(crate::common::built("405b").n_layers, 126);
}

#[test]
fn nodes_know_their_layer() {
    let model = built(
        "model m(tokens: [batch, seq] int) {
           param table [vocab_size, dim] init normal(1.0)
           x = embedding(tokens, table)
           block stack {
             for layer in layers {
               x = exp(x)
               block inner { x = tanh(x) }
             }
           }
           let logits = sqrt(x)
         }",
        "",
    );
    let mut found = vec![];
    for id in model.graph.nodes() {
        let node = model.graph.node(id);
        if let Op::Unary(f) = node.op {
            found.push((f.name(), node.scope.layer, node.scope.path.as_str()));
        }
    }
    let expected = [
        ("exp", Some(0), "stack"),
        ("tanh", Some(0), "stack/inner"),
        ("exp", Some(1), "stack"),
        ("tanh", Some(1), "stack/inner"),
        ("sqrt", None, ""),
    ];
    assert_eq!(found, expected);
}

/// Names of parameters of a model with two layers of these kinds.
fn parameters(in_layers: &str, extra: &str, kinds: &[AttentionKind]) -> Vec<String> {
    let text = format!(
        "fn scaled(x, is_scaled) {{\n  y = x\n  if is_scaled {{ y = 2 * x }}\n  return y\n}}\n\
         model m(tokens: [batch, seq] int) {{\n  param table [vocab_size, dim] init normal(1.0)\n  \
         x = embedding(tokens, table)\n  for _layer in layers {{\n    {in_layers}\n    x = scaled(x, false)\n  }}\n  \
         logits = x\n}}\n"
    );
    let arch = Architecture::parse(&source("c.linc", &text)).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let model =
        build(&arch, &config(extra), &shape(2, 3, 5), kinds).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&model.graph).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let name =
        |id| model.graph.op(id).leaf_name().filter(|name| name.starts_with("layers")).map(String::from);
    model.graph.nodes().filter_map(name).collect()
}

#[test]
fn layers_of_a_kind_have_parameters_of_their_own() {
    const GATE: &str = "{ param gate [dim] init ones x = x * gate }";
    let kinds = [AttentionKind::Softmax, AttentionKind::Efficient];
    let found = |condition: &str| parameters(&format!("if {condition} {GATE}"), "", &kinds);
    let (first, second) = ("layers.0.gate.weight", "layers.1.gate.weight");
    for condition in
        ["kind == efficient", "kind == linear", "linear == kind", "kind != softmax", "not (kind == softmax)"]
    {
        assert_eq!(found(condition), [second], "{condition}");
    }
    assert_eq!(found("kind == softmax"), [first]);
    assert_eq!(found("kind == softmax or kind == linear"), [first, second]);
    // Without kinds all layers have softmax attention.
    assert_eq!(parameters(&format!("if kind == linear {GATE}"), "", &[]), <[&str; 0]>::default());
    let otherwise = format!("if kind == linear {GATE} else {{ param bias [dim] init zeros x = x + bias }}");
    assert_eq!(parameters(&otherwise, "", &kinds), ["layers.0.bias.weight", second]);
    // The answer is a value, which a function takes.
    let passed = format!("let is_linear = kind == linear x = scaled(x, is_linear) if is_linear {GATE}");
    assert_eq!(parameters(&passed, "", &kinds), [second]);
    // Who has a name `kind` keeps it, and names that are words elsewhere are free.
    let own = format!("let kind = 3 let efficient = 3 if kind == efficient {GATE}");
    assert_eq!(parameters(&own, "", &kinds), [first, second]);
    let constant = format!("if kind == 3 {GATE}");
    assert_eq!(parameters(&constant, "[constants]\nkind = 3\n", &kinds), [first, second]);
    let words = format!("let linear = 0 * dim if kind == linear and linear == 0 {GATE}");
    assert_eq!(parameters(&words, "", &kinds), [second]);
}
