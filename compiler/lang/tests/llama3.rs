//! The shipped models: parameter counts, names, shapes and initial values.

use crate::common::{built, model, shape};
use linc_ir::{Init, Op, Scope, TableKind};
use linc_lang::ModelConfig;

#[test]
fn parameter_counts_are_those_of_the_published_models() {
    for (flavor, count) in [
        ("debugmodel", 6_163_712),
        ("1b", 1_235_814_400),
        ("3b", 3_212_749_824),
        ("8b", 8_030_261_248),
        ("70b", 70_553_706_496),
        ("405b", 405_853_388_800),
    ] {
        assert_eq!(built(flavor).parameter_count(), count, "{flavor}");
    }
}

#[test]
fn parameters_have_torchtitan_names_shapes_and_initial_values() {
    let model = built("nano");
    let mut found = String::new();
    for id in model.graph.nodes() {
        if let Op::Param { name, ty, init } = model.graph.op(id) {
            if name.starts_with("layers.") && !name.starts_with("layers.1.") {
                continue;
            }
            found += &match init {
                Init::Normal { std } => format!("{name} {ty} normal {std:.6}\n"),
                Init::TruncNormal { std, bound } => format!("{name} {ty} trunc_normal {std:.6} {bound:.6}\n"),
                Init::Ones => format!("{name} {ty} ones\n"),
                Init::Zeros => format!("{name} {ty} zeros\n"),
            };
        }
    }
    // 1/sqrt(128) = 0.088388, 0.02/sqrt(2 * 2) = 0.01
    insta::assert_snapshot!(found, @r"
    tok_embeddings.weight f32[256, 128] normal 1.000000
    layers.1.attention_norm.weight f32[128] ones
    layers.1.attention.wq.weight f32[128, 128] trunc_normal 0.020000 2.000000
    layers.1.attention.wk.weight f32[64, 128] trunc_normal 0.020000 2.000000
    layers.1.attention.wv.weight f32[64, 128] trunc_normal 0.020000 2.000000
    layers.1.attention.wo.weight f32[128, 128] trunc_normal 0.010000 2.000000
    layers.1.ffn_norm.weight f32[128] ones
    layers.1.feed_forward.w1.weight f32[384, 128] trunc_normal 0.020000 2.000000
    layers.1.feed_forward.w2.weight f32[128, 384] trunc_normal 0.010000 2.000000
    layers.1.feed_forward.w3.weight f32[384, 128] trunc_normal 0.010000 2.000000
    norm.weight f32[128] ones
    output.weight f32[256, 128] trunc_normal 0.088388 0.265165
    ");
}

#[test]
fn tied_models_have_no_output_weight() {
    let model = built("1b");
    assert!(model.graph.leaf("output.weight").is_none());
    let table = model.graph.leaf("tok_embeddings.weight").expect("the embedding");
    let value = model.graph.results(table).next().expect("one result");
    assert_eq!(model.graph.users(value).len(), 2, "embedding and output projection");
}

#[test]
fn attention_nodes_know_their_layer_and_scope() {
    let model = built("nano");
    let mut layers = Vec::new();
    for id in model.graph.nodes() {
        if let Op::Attention(spec) = model.graph.op(id) {
            assert!(spec.causal && spec.rope);
            let scope = Scope { layer: Some(spec.layer), path: "attention".into() };
            assert_eq!(model.graph.node(id).scope, scope);
            layers.push(spec.layer);
        }
    }
    assert_eq!(layers, [0, 1, 2, 3]);
}

#[test]
fn the_same_architecture_decodes_one_token() {
    let (arch, config) = model("nano");
    let model = linc_lang::build(&arch, &config, &shape(2, 1, 64), &[]).expect("seq 1 builds");
    let (name, logits) = &model.graph.outputs[0];
    assert_eq!(name, "logits");
    assert_eq!(model.graph.ty(*logits).shape.dims(), [2, 1, 256]);
    let table = model.graph.leaf("rope").expect("a rope table");
    assert_eq!(model.graph.node(table).types[0].shape.dims(), [64, 16, 2]);
}

#[test]
fn rope_scaling_comes_from_the_toml() {
    for (flavor, factor) in [("debugmodel", None), ("1b", Some(32.0)), ("8b", Some(8.0))] {
        let model = built(flavor);
        let table = model.graph.leaf("rope").expect("a rope table");
        let Op::Table { kind: TableKind::Rope { theta, scaling }, .. } = model.graph.op(table) else {
            panic!("rope is a table");
        };
        assert_eq!(*theta, 500000.0);
        assert_eq!(scaling.map(|s| s.factor), factor, "{flavor}");
        assert!(scaling.is_none_or(|s| s.original_max_position == 8192));
    }
}

#[test]
fn projections_of_one_tensor_share_its_matrix_form() {
    let model = built("nano");
    let scope = Scope { layer: Some(2), path: "feed_forward".into() };
    let reshapes = model
        .graph
        .nodes()
        .filter(|n| model.graph.node(*n).scope == scope)
        .filter(|n| matches!(model.graph.op(*n), Op::Reshape { .. }));
    // h once; w1, w3 and w2 each back to three axes; their product once.
    assert_eq!(reshapes.count(), 5);
}

#[test]
fn numbers_can_be_overridden() {
    let (arch, mut config) = model("8b");
    for (key, value) in
        [("n_layers", 2.0), ("vocab_size", 1000.0), ("dim", 512.0), ("rope_scaling.factor", 2.0)]
    {
        config.override_number(key, value).expect(key);
    }
    let model = linc_lang::build(&arch, &config, &shape(1, 8, 8), &[]).expect("builds");
    assert_eq!((model.n_layers, model.vocab_size, model.head_dim), (2, 1000, 16));
    assert_eq!(config.rope_scaling().map(|s| s.factor), Some(2.0));
    let error = config.override_number("n_layer", 2.0).expect_err("no such key").to_string();
    assert_eq!(error, "error: the model has no number `n_layer`\n  = help: did you mean `n_layers`?\n");
    assert!(config.override_number("n_layers", 2.5).is_err());
    assert!(config.override_number("norm_eps", f64::NAN).is_err());
}

#[test]
fn flags_can_be_overridden_by_0_and_1() {
    let (arch, mut config) = model("nano");
    config.override_number("linear_attention.rope", 1.0).expect("a flag");
    assert!(config.linear_attention().rope);
    config.override_number("linear_attention.rope", 0.0).expect("a flag");
    assert!(!config.linear_attention().rope);
    let error = config.override_number("linear_attention.rope", 2.0).expect_err("no flag").to_string();
    assert!(error.contains("must be true or false (1 or 0), not 2"), "{error}");
    let parameters = |config: &ModelConfig| {
        linc_lang::build(&arch, config, &shape(1, 8, 8), &[]).expect("builds").parameter_count()
    };
    let untied = parameters(&config);
    config.override_number("tie_embeddings", 1.0).expect("a flag");
    assert_eq!(untied - parameters(&config), 128 * 256, "the tied model has no output matrix of its own");
}

#[test]
fn linear_attention_options_have_defaults() {
    let (_, config) = model("nano");
    let options = config.linear_attention();
    assert_eq!((options.rope, options.temperature, options.chunk), (true, 3.0, 64));
}
