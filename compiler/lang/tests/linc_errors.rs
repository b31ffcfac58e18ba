//! What a person sees for each mistake in a `.linc` file, as snapshots.

use crate::common::{LLAMA3, NANO, shape, source};
use linc_lang::{Architecture, ModelConfig, build};

/// The errors of a file with the nano model's numbers.
fn errors_with(linc: &str, toml: &str) -> String {
    let config = ModelConfig::parse(&source("llama3_nano.toml", toml)).expect("the TOML is fine");
    let result = Architecture::parse(&source("llama3.linc", linc))
        .and_then(|arch| build(&arch, &config, &shape(2, 8, 8), &[]));
    match result {
        Ok(_) => panic!("no error"),
        Err(errors) => errors.to_string(),
    }
}

/// The errors of `llama3.linc` after one edit.
fn edited(from: &str, to: &str) -> String {
    assert!(LLAMA3.contains(from), "llama3.linc has no {from:?}");
    errors_with(&LLAMA3.replacen(from, to, 1), NANO)
}

/// The errors of a whole small file whose model reads all numbers of a minimal TOML.
fn small(linc: &str) -> String {
    let toml = "name = 'a'\nflavor = 'b'\narchitecture = 'c.linc'\n\
                dim = 8\nn_layers = 2\nn_heads = 2\nvocab_size = 10\n";
    errors_with(linc, toml)
}

/// A model with the given first statements.
fn body(statements: &str) -> String {
    small(&format!(
        "model m(tokens: [batch, seq] int) {{\n  param w [vocab_size, dim] init normal(1.0)\n  \
         x = embedding(tokens, w)\n{statements}\n  logits = x @ w.T\n}}\n"
    ))
}

macro_rules! snapshots {
    ($($name:ident: $text:expr;)*) => {
        $(#[test] fn $name() { insta::assert_snapshot!($text); })*
    };
}

snapshots! {
    // ---- names ----
    undefined_name: edited("rms_norm(x, ffn_norm", "rms_norm(x, fnn_norm");
    undefined_name_without_a_near_one: edited("@ output.T", "@ projection.T");
    undefined_function: edited("silu(", "slu(");
    a_name_of_another_block: edited("(silu(h @ w1.T) * (h @ w3.T)) @ w2.T", "h @ wq + (silu(h @ w1.T) * (h @ w3.T)) @ w2.T");
    used_before_defined: edited("let output_std = 1 / sqrt(dim)", "let output_std = ffn / 2\n  let ffn = 12.0\n  _unused = ffn");
    duplicate_let: edited("let output_std = 1 / sqrt(dim)", "let output_std = 1 / sqrt(dim)\n  let output_std = 2");
    duplicate_of_a_model_number: edited("let output_std", "let dim = 3\n  let output_std");
    rebound_parameter: edited("q = split_heads(", "wq = h\n      q = split_heads(");
    unused_names: edited("let output_std = 1 / sqrt(dim)", "let output_std = 1 / sqrt(dim)\n  let unused = 2\n  param extra [dim] init ones");
    unread_number: errors_with(&LLAMA3.replace(", multiple_of)", ", 64)"), NANO);
    definition_cycle: body("  let a = b\n  let b = c\n  let c = a\n  x = x * a");
    definition_of_itself: body("  let a = a + 1\n  x = x * a");
    recursive_function: small("fn f(x) {\n  return g(x)\n}\n\nfn g(x) {\n  return f(x) + 1\n}\n\nmodel m(tokens: [batch, seq] int) {\n  param w [vocab_size, dim] init normal(1.0)\n  logits = f(embedding(tokens, w)) @ w.T\n}\n");
    duplicate_parameter: body("  for layer in layers {\n    block a {\n      param v [dim] init ones\n      x = x * v\n    }\n    block a {\n      param v [dim] init ones\n      x = x * v\n    }\n  }");

    // ---- kinds of layers ----
    unknown_kind: body("  for layer in layers {\n    if kind == eficient {\n      x = 2 * x\n    }\n  }");
    unknown_kind_without_a_near_one: body("  for layer in layers {\n    if mamba != kind {\n      x = 2 * x\n    }\n  }");
    kind_outside_of_layers: body("  if kind == linear {\n    x = 2 * x\n  }");
    kind_in_a_function: small("fn f(x) {\n  y = x\n  if kind == linear {\n    y = 2 * x\n  }\n  return y\n}\n\nmodel m(tokens: [batch, seq] int) {\n  param w [vocab_size, dim] init normal(1.0)\n  logits = f(embedding(tokens, w)) @ w.T\n}\n");
    kind_beside_a_number: body("  for layer in layers {\n    if kind == 2 {\n      x = 2 * x\n    }\n  }");
    kind_as_a_value: body("  for layer in layers {\n    x = kind * x\n  }");

    // ---- syntax ----
    unclosed_block: edited("    param ffn_norm", "    block feed {\n    param ffn_norm");
    unclosed_block_before_a_function: small("model m(tokens: [batch, seq] int) {\n  x = tokens\n\nfn f(x) {\n  return x\n}\n");
    stray_brace: edited("  logits = ", "  }\n  logits = ");
    missing_operand: edited("= x + merge_heads", "= x + * merge_heads");
    semicolon: edited("1 / sqrt(dim)", "1 / sqrt(dim);");
    misspelt_keyword: edited("param wk", "parm wk");
    param_without_init: edited(" init ones", "");
    unknown_distribution: edited("init ones", "init uniform(1.0)");
    too_deep: edited("1 / sqrt(dim)", &format!("{}1{}", "(".repeat(100), ")".repeat(100)));
    empty_file: small("");
    binary_file: small("\u{0}\u{1}\u{2}");
    wrong_input: small("model m(ids: [batch] float) {}\n");
    loop_over_something_else: edited("in layers", "in blocks");

    // ---- shapes ----
    matmul_inner_sizes: edited("param wk [n_kv_heads * head_dim, dim]", "param wk [n_kv_heads * head_dim, n_kv_heads * head_dim]");
    matmul_other_way_round: edited("(h @ w3.T)", "(h @ w3)");
    addition_shapes: body("  param v [3, dim] init ones\n  x = x + v");
    norm_weight: edited("param norm [dim]", "param norm [ffn_dim]");
    heads_that_do_not_split: edited("split_heads(h @ wk.T, n_kv_heads)", "split_heads(h @ wk.T, 3)");
    attention_without_heads: edited("v = split_heads(h @ wv.T, n_kv_heads)", "v = h @ wv.T");
    attention_of_different_heads: edited("v = split_heads(h @ wv.T, n_kv_heads)", "v = split_heads(h @ wv.T, n_kv_heads * 2)");
    attention_outside_layers: body("  x = attention(x, x, x)");
    wrong_logits: edited("logits = rms_norm(x, norm, norm_eps) @ output.T", "logits = mean(rms_norm(x, norm, norm_eps) @ output.T)");
    tokens_as_features: body("  x = x + tokens");
    reshape_elements: body("  x = reshape(x, [batch, seq, 2, dim])");
    slice_outside: body("  x = slice(x, 4, 6)");

    // ---- numbers and arguments ----
    inexact_division: edited("let output_std = 1 / sqrt(dim)", "let half = n_kv_heads / (dim - 1)\n  let output_std = half * 1.0");
    division_by_zero: body("  x = x * (dim / (n_heads - 2))");
    condition_is_a_number: edited("if tie_embeddings", "if n_heads");
    size_of_zero: body("  param v [n_heads - 2] init ones\n  x = x * v");
    size_that_overflows: body("  param v [1000000000, 1000000000] init ones\n  x = x * v");
    unknown_argument: edited("causal = true", "casual = true");
    missing_argument: edited(", ffn_norm, norm_eps", ", ffn_norm");
    too_many_arguments: edited("merge_heads(attention", "merge_heads(1, attention");
    error_in_a_function: small("fn twice(x) {\n  return x @ x\n}\n\nmodel m(tokens: [batch, seq] int) {\n  param w [vocab_size, dim] init normal(1.0)\n  logits = twice(w)\n  x = embedding(tokens, w)\n  _y = x\n}\n");
    branch_not_taken: edited("output = tok_embeddings\n  } else {\n    param output [vocab_size, dim] init trunc_normal(output_std, 3 * output_std)", "output = tok_embeddings");
}
