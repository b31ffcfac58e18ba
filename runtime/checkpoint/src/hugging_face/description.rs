//! The `config.json` of an export, in the form that transformers 4 and 5 both read.

use linc_data::Tokenizer;
use linc_driver::Model;
use serde_json::{Value, json};

use super::config::{Dimensions, LLAMA, class};
use super::convert::Element;
use crate::ModelRecord;

/// What generation begins and ends with.
pub(super) const GENERATION: &str = "generation_config.json";

/// Tokens that begin and end a text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Special {
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Special {
    pub(super) fn of(tokenizer: Option<&Tokenizer>) -> Self {
        tokenizer.map_or_else(Special::default, |t| Special { bos: t.bos(), eos: t.eos() })
    }
}

/// The `config.json` of a model.
pub(super) fn config(
    model: &Model,
    record: &ModelRecord,
    sizes: &Dimensions,
    _linear: &[bool],
    element: Element,
    special: Special,
) -> Value {
    let number = |key: &str| model.config().number(key).map_or(0.0, |number| number.as_f64());
    json!({
        "architectures": [class(LLAMA)],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "hidden_size": sizes.dim,
        "initializer_range": 0.02,
        "intermediate_size": sizes.ffn_dim,
        "max_position_embeddings": record.seq_len,
        "mlp_bias": false,
        "model_type": LLAMA,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "rms_norm_eps": number("norm_eps"),
        "rope_scaling": scaling(model),
        "rope_theta": number("rope_theta"),
        "tie_word_embeddings": sizes.tied,
        "torch_dtype": element.name(),
        "use_cache": true,
        "vocab_size": sizes.vocab,
    })
}

fn scaling(model: &Model) -> Value {
    let Some(scaling) = super::rope::Scaling::of(model) else { return Value::Null };
    if scaling.is_linear() {
        return json!({ "rope_type": "linear", "factor": scaling.factor });
    }
    json!({
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_positions,
    })
}

/// The `generation_config.json` of a model whose tokenizer has none.
pub(super) fn generation(special: Special) -> Value {
    json!({ "_from_model_config": true, "bos_token_id": special.bos, "eos_token_id": special.eos })
}
