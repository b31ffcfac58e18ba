//! The model TOML of an imported model.

use std::fmt::Write as _;

use super::config::Config;
use super::layers::LinearOptions;

/// AttentionFamily of imported models, whose architecture is `llama3.linc`.
pub(super) const FAMILY: &str = "llama3";

/// The text of a model file for the architecture `architecture`, beside it.
pub(super) fn text(config: &Config, flavor: &str, architecture: &str) -> String {
    let s = &config.sizes;
    let (multiplier, multiple) = feed_forward(s.dim, s.ffn_dim);
    let mut text = format!(
        "# Imported from Hugging Face's format.\nname = \"{FAMILY}\"\nflavor = \"{flavor}\"\narchitecture = \"{architecture}\"\n\n\
         dim = {}\nn_layers = {}\nn_heads = {}\nn_kv_heads = {}\n",
        s.dim, s.layers, s.heads, s.kv_heads
    );
    // Writing to a String cannot fail.
    if s.head_dim * s.heads != s.dim {
        let _ = writeln!(text, "head_dim = {}", s.head_dim);
    }
    let _ = write!(
        text,
        "vocab_size = {}\nffn_dim_multiplier = {multiplier:?}  # with multiple_of: {} features\nmultiple_of = {multiple}\nnorm_eps = {:?}\nrope_theta = {:?}\ntie_embeddings = {}\n",
        s.vocab, s.ffn_dim, config.norm_eps, config.rope.theta, s.tied
    );
    if let Some(scaling) = config.rope.scaling {
        let remark = if scaling.is_linear() { "  # linear: all frequencies are divided" } else { "" };
        let _ = write!(
            text,
            "\n[rope_scaling]{remark}\nfactor = {:?}\nlow_freq_factor = {:?}\nhigh_freq_factor = {:?}\noriginal_max_position_embeddings = {}\n",
            scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_positions
        );
    }
    if let Some(LinearOptions { rope, temperature, chunk }) = config.linear_options {
        let _ = write!(text, "\n[linear_attention]\nrope = {rope}\ntemperature = {temperature:?}\n");
        if let Some(chunk) = chunk {
            let _ = writeln!(text, "chunk = {chunk}");
        }
    }
    text
}

/// `ffn_dim_multiplier` and `multiple_of` that give a size of the feed-forward network: those of Llama's own models if
/// they do, else any that do.
fn feed_forward(dim: usize, ffn_dim: usize) -> (f64, usize) {
    const PAIRS: [(f64, usize); 9] = [
        (1.0, 256),
        (1.0, 1024),
        (1.5, 1024),
        (1.3, 4096),
        (1.3, 1024),
        (1.2, 4096),
        (1.0, 128),
        (1.0, 64),
        (1.0, 32),
    ];
    let base = (8 * dim / 3) as f64;
    let size =
        |(multiplier, multiple): (f64, usize)| ((multiplier * base) as usize).next_multiple_of(multiple);
    // Half a feature more, so that nothing is lost where the number is cut to a whole one.
    PAIRS.into_iter().find(|pair| size(*pair) == ffn_dim).unwrap_or(((ffn_dim as f64 + 0.5) / base, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_feed_forward_networks_are_as_they_were() {
        for (dim, ffn_dim, expected) in [
            (2048, 8192, Some((1.5, 1024))),
            (3072, 8192, Some((1.0, 256))),
            (4096, 14_336, Some((1.3, 1024))),
            (8192, 28_672, Some((1.3, 4096))),
            (128, 384, Some((1.0, 128))),
            (16_384, 53_248, Some((1.2, 4096))),
            (128, 500, None),
        ] {
            let found = feed_forward(dim, ffn_dim);
            if let Some(expected) = expected {
                assert_eq!(found, expected, "{dim} {ffn_dim}");
            }
        }
        for dim in (8..4096).step_by(8).chain([16_384]) {
            for ffn_dim in [1, 7, dim, 2 * dim + 3, 4 * dim, 53_248] {
                let (multiplier, multiple) = feed_forward(dim, ffn_dim);
                let size = ((multiplier * (8 * dim / 3) as f64) as usize).next_multiple_of(multiple);
                assert_eq!(size, ffn_dim, "{dim}: {multiplier} {multiple}");
            }
        }
    }
}
