//! The tensors of a Llama model: one table with linc's name of each, Hugging Face's, and the shape, which import and export
//! both go by.

use super::config::Dimensions;

/// A tensor under both of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// In linc's checkpoints, which have TorchTitan's names.
    pub(super) linc: String,
    /// In Hugging Face's files.
    pub(super) foreign: String,
    pub(super) shape: Vec<usize>,
    /// Heads whose rows are in another order there: RoPE turns pairs of neighbours in linc, and the first with the second
    /// half of a head's features in Hugging Face's models.
    pub(super) rotary_heads: Option<usize>,
}

/// Name of the embedding there.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the output projection there.
pub(super) const OUTPUT: &str = "lm_head.weight";

/// All tensors, from the embedding to the output projection, which a tied model does not have.
pub(super) fn weights(sizes: &Dimensions) -> Vec<Weight> {
    let Dimensions { layers, dim, heads, kv_heads, head_dim, ffn_dim, vocab, tied } = *sizes;
    let plain = |linc: &str, foreign: &str, shape: &[usize]| Weight {
        linc: linc.to_owned(),
        foreign: foreign.to_owned(),
        shape: shape.to_vec(),
        rotary_heads: None,
    };
    let mut all = vec![plain("tok_embeddings.weight", EMBEDDING, &[vocab, dim])];
    for layer in 0..layers {
        let inner = |linc: &str, foreign: &str, shape: &[usize], rotary_heads: Option<usize>| Weight {
            linc: format!("layers.{layer}.{linc}.weight"),
            foreign: format!("model.layers.{layer}.{foreign}.weight"),
            shape: shape.to_vec(),
            rotary_heads,
        };
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        all.extend([
            inner("attention_norm", "input_layernorm", &[dim], None),
            inner("attention.wq", "self_attn.q_proj", &[q, dim], Some(heads)),
            inner("attention.wk", "self_attn.k_proj", &[kv, dim], Some(kv_heads)),
            inner("attention.wv", "self_attn.v_proj", &[kv, dim], None),
            inner("attention.wo", "self_attn.o_proj", &[dim, q], None),
            inner("ffn_norm", "post_attention_layernorm", &[dim], None),
            inner("feed_forward.w1", "mlp.gate_proj", &[ffn_dim, dim], None),
            inner("feed_forward.w2", "mlp.down_proj", &[dim, ffn_dim], None),
            inner("feed_forward.w3", "mlp.up_proj", &[ffn_dim, dim], None),
        ]);
    }
    all.push(plain("norm.weight", "model.norm.weight", &[dim]));
    if !tied {
        all.push(plain("output.weight", OUTPUT, &[vocab, dim]));
    }
    all
}

/// Buffers of the positions that old versions of transformers wrote among the weights, and none reads.
pub(super) fn is_position_buffer(foreign: &str, layers: usize) -> bool {
    (0..layers).any(|layer| foreign == format!("model.layers.{layer}.self_attn.rotary_emb.inv_freq"))
}
