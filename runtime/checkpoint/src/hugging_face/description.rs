//! The `config.json` of an export, in the form that transformers 4 and 5 both read.

use linc_data::Tokenizer;
use linc_driver::Model;
use serde_json::{Value, json};

use super::config::{Dimensions, LINC, LLAMA, class};
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

/// Whether a model needs the class that linc writes: it has linear layers, or heads that transformers 5 refuses in a Llama
/// model.
pub(super) fn needs_class(sizes: &Dimensions, linear: &[bool]) -> bool {
    linear.contains(&true) || !sizes.dim.is_multiple_of(sizes.heads)
}

/// The `config.json` of a model, of a plain Llama model if it can be one.
pub(super) fn config(
    model: &Model,
    record: &ModelRecord,
    sizes: &Dimensions,
    linear: &[bool],
    element: Element,
    special: Special,
) -> Value {
    let number = |key: &str| model.config().number(key).map_or(0.0, |number| number.as_f64());
    let theta = number("rope_theta");
    let own_class = needs_class(sizes, linear);
    let model_type = if own_class { LINC } else { LLAMA };
    let mut config = json!({
        "architectures": [class(model_type)],
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "head_dim": sizes.head_dim,
        "hidden_size": sizes.dim,
        "initializer_range": 0.02,
        "intermediate_size": sizes.ffn_dim,
        "max_position_embeddings": record.seq_len,
        "model_type": model_type,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "rms_norm_eps": number("norm_eps"),
        "tie_word_embeddings": sizes.tied,
        "torch_dtype": element.name(),
        "use_cache": true,
        "vocab_size": sizes.vocab,
    });
    if own_class {
        let types = |linear: &bool| if *linear { "linear_attention" } else { "full_attention" };
        let options = model.config().linear_attention();
        config["auto_map"] = json!({
            "AutoConfig": format!("{}.LincConfig", PYTHON[0].0.trim_end_matches(".py")),
            "AutoModelForCausalLM": format!("{}.{}", PYTHON[1].0.trim_end_matches(".py"), class(LINC)),
        });
        config["layer_types"] = linear.iter().map(types).collect();
        config["linc"] = json!({
            "linear_attention": { "chunk": options.chunk, "rope": options.rope, "temperature": options.temperature },
        });
        let mut rope = scaling(model).unwrap_or_else(|| json!({ "rope_type": "default" }));
        rope["rope_theta"] = json!(theta);
        config["rope_parameters"] = rope;
    } else {
        config["attention_bias"] = json!(false);
        config["attention_dropout"] = json!(0.0);
        config["hidden_act"] = json!("silu");
        config["mlp_bias"] = json!(false);
        // The names that every version of transformers reads.
        config["rope_scaling"] = json!(scaling(model));
        config["rope_theta"] = json!(theta);
    }
    config
}

/// The model class that linc writes, which transformers loads from beside the weights.
pub(super) const PYTHON: [(&str, &str); 2] = [
    ("configuration_linc.py", include_str!("python/configuration_linc.py")),
    ("modeling_linc.py", include_str!("python/modeling_linc.py")),
];

fn scaling(model: &Model) -> Option<Value> {
    let scaling = super::rope::Scaling::of(model)?;
    if scaling.is_linear() {
        return Some(json!({ "rope_type": "linear", "factor": scaling.factor }));
    }
    Some(json!({
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_positions,
    }))
}

/// The `generation_config.json` of a model whose tokenizer has none.
pub(super) fn generation(special: Special) -> Value {
    json!({ "_from_model_config": true, "bos_token_id": special.bos, "eos_token_id": special.eos })
}
