//! What a person sees for each mistake in a model TOML, as snapshots.

use crate::common::{LLAMA3, NANO, flavor_text, shape, source};
use linc_lang::{Architecture, ModelConfig, build};

/// The errors of a TOML, from reading it or else from building Llama 3 with it.
fn errors(text: &str) -> String {
    let arch = Architecture::parse(&source("llama3.linc", LLAMA3)).expect("llama3.linc parses");
    let result = ModelConfig::parse(&source("llama3_nano.toml", text))
        .and_then(|config| build(&arch, &config, &shape(2, 8, 8), &[]));
    match result {
        Ok(_) => panic!("no error"),
        Err(errors) => errors.to_string(),
    }
}

fn edited(from: &str, to: &str) -> String {
    assert!(NANO.contains(from), "the TOML has no {from:?}");
    errors(&NANO.replacen(from, to, 1))
}

fn edited_8b(from: &str, to: &str) -> String {
    let text = flavor_text("8b");
    assert!(text.contains(from), "the TOML has no {from:?}");
    errors(&text.replacen(from, to, 1))
}

fn overridden(key: &str, value: f64) -> String {
    let arch = Architecture::parse(&source("llama3.linc", LLAMA3)).expect("llama3.linc parses");
    let mut config = ModelConfig::parse(&source("llama3_nano.toml", NANO)).expect("the TOML is fine");
    match config.override_number(key, value).and_then(|()| build(&arch, &config, &shape(2, 8, 8), &[])) {
        Ok(_) => panic!("no error"),
        Err(errors) => errors.to_string(),
    }
}

macro_rules! snapshots {
    ($($name:ident: $text:expr;)*) => {
        $(#[test] fn $name() { insta::assert_snapshot!($text); })*
    };
}

snapshots! {
    malformed: edited("dim = 128", "dim = = 128");
    unclosed_string: edited("\"llama3\"", "\"llama3");
    duplicate_key: edited("dim = 128", "dim = 128\ndim = 256");
    unknown_key: edited("n_kv_heads", "n_kv_head");
    unknown_key_without_a_near_one: edited("n_kv_heads", "sliding_window");
    unknown_table: errors(&format!("{NANO}\n[linear_atention]\nchunk = 3\n"));
    key_in_the_wrong_table: errors(&format!("{NANO}\n[linear_attention]\nrope_theta = 3.0\n"));
    key_of_a_table_at_the_top: edited("dim = 128", "dim = 128\nchunk = 32");
    missing_keys: edited("dim = 128\nn_layers = 4\n", "");
    missing_key_in_a_table: edited_8b("low_freq_factor = 1.0\n", "");
    wrong_types: edited("dim = 128\nn_layers = 4\n", "dim = \"wide\"\nn_layers = 4.5\n");
    zero: edited("dim = 128", "dim = 0");
    negative: edited("norm_eps = 1e-5", "norm_eps = -1e-5");
    not_a_number: edited("norm_eps = 1e-5", "norm_eps = nan");
    too_large: edited("dim = 128", "dim = 99999999999999999999");
    table_that_is_a_number: errors(&format!("linear_attention = 3\n{NANO}"));
    heads_do_not_divide_dim: edited("n_heads = 4\nn_kv_heads = 2", "n_heads = 3\nn_kv_heads = 3");
    kv_heads_do_not_divide_heads: edited("n_kv_heads = 2", "n_kv_heads = 3");
    odd_head_dim: edited("n_heads = 4", "n_heads = 4\nhead_dim = 33");
    scaling_cuts_the_wrong_way: edited_8b("high_freq_factor = 4.0", "high_freq_factor = 0.5");
    constant_nobody_reads: errors(&format!("{NANO}\n[constants]\nwindow = 128\n"));
    constant_that_is_a_key: errors(&format!("{NANO}\n[constants]\ndim = 128\n"));
    constant_that_is_no_name: errors(&format!("{NANO}\n[constants]\n\"a b\" = 128\nlet = 2\n"));
    overridden_heads: overridden("n_heads", 6.0);
    overridden_unknown: overridden("vocabsize", 6.0);
    overridden_fraction: overridden("dim", 6.5);
    overridden_absent_table: overridden("rope_scaling.factor", 2.0);
    empty: errors("");
    binary: errors("\u{0}\u{1}\u{7f}");
}

#[test]
fn build_shapes_are_checked() {
    let (arch, config) = crate::common::model("nano");
    let sizes = [(0, 8, 8), (2, 0, 8), (2, 8, 0), (usize::MAX, 2, 8), (2, 8, usize::MAX), (2, 9, 8)];
    for (batch, seq, rope_len) in sizes {
        assert!(
            build(&arch, &config, &shape(batch, seq, rope_len), &[]).is_err(),
            "{batch} {seq} {rope_len}"
        );
    }
}
