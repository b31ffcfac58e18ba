//! The shipped models as texts, for all tests of the crate.

use linc_lang::{Architecture, BuildShape, BuiltModel, ModelConfig, Source};

/// `models/llama3.linc`
pub(crate) const LLAMA3: &str = include_str!("../../../../models/llama3.linc");

/// `models/llama3_nano.toml`
pub(crate) const NANO: &str = include_str!("../../../../models/llama3_nano.toml");

/// A text under `models/`.
pub(crate) fn source(name: &str, text: &str) -> Source {
    Source { path: format!("models/{name}"), text: text.to_string() }
}

/// The TOML of a flavour.
pub(crate) fn flavor_text(flavor: &str) -> &'static str {
    match flavor {
        "nano" => NANO,
        "debugmodel" => include_str!("../../../../models/llama3_debugmodel.toml"),
        "1b" => include_str!("../../../../models/llama3_1b.toml"),
        "3b" => include_str!("../../../../models/llama3_3b.toml"),
        "8b" => include_str!("../../../../models/llama3_8b.toml"),
        "70b" => include_str!("../../../../models/llama3_70b.toml"),
        "405b" => include_str!("../../../../models/llama3_405b.toml"),
        other => panic!("no flavour {other}"),
    }
}

/// A shipped model.
pub(crate) fn model(flavor: &str) -> (Architecture, ModelConfig) {
    let arch = Architecture::parse(&source("llama3.linc", LLAMA3)).unwrap_or_else(|e| panic!("{e}"));
    let toml = source(&format!("llama3_{flavor}.toml"), flavor_text(flavor));
    let config = ModelConfig::parse(&toml).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.architecture, "llama3.linc");
    (arch, config)
}

pub(crate) fn shape(batch: usize, seq: usize, rope_len: usize) -> BuildShape {
    BuildShape { batch, seq, rope_len }
}

/// A shipped model, built.
pub(crate) fn built(flavor: &str) -> BuiltModel {
    let (arch, config) = model(flavor);
    linc_lang::build(&arch, &config, &shape(2, 8, 8), &[]).unwrap_or_else(|e| panic!("{e}"))
}
