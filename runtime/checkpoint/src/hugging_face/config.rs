//! The `config.json` of a Llama model or of one that linc exported: its numbers, checked against each other.

use linc_config::{Place, Problem};
use serde_json::{Value, json};

use super::json::Document;
use super::layers::{self, LinearOptions};
use super::reader::{Reader, size};
use super::rope::{self, Rope};

/// `model_type` of Llama models.
pub(super) const LLAMA: &str = "llama";
/// `model_type` of hybrids that linc exports.
pub(super) const LINC: &str = "linc";

/// Class of a causal language model of that type, as `architectures` has it.
pub(super) fn class(model_type: &str) -> &'static str {
    if model_type == LINC { "LincForCausalLM" } else { "LlamaForCausalLM" }
}

/// More layers than any model has: each takes memory before a file of weights is looked at.
const MOST_LAYERS: usize = 10_000;

/// The numbers that shapes of tensors follow from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dimensions {
    pub(super) layers: usize,
    pub(super) dim: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) ffn_dim: usize,
    pub(super) vocab: usize,
    /// The output projection is the embedding.
    pub(super) tied: bool,
}

/// What a `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) sizes: Dimensions,
    pub(super) norm_eps: f64,
    pub(super) rope: Rope,
    /// `max_position_embeddings`.
    pub(super) positions: usize,
    /// Number format that the weights should have, as `safetensors` calls it.
    pub(super) dtype: Option<&'static str>,
    /// Whether each layer has linear attention.
    pub(super) linear: Vec<bool>,
    /// Of the linear layers; nothing if the file does not say.
    pub(super) linear_options: Option<LinearOptions>,
}

impl Config {
    /// Reads a document and checks it.
    ///
    /// # Errors
    /// Every key that is unknown, of another type, missing, or against another one.
    pub(super) fn read(document: &Document) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(document);
        let r = &mut reader;
        let model_type = r.typed("model_type", "a string", Value::as_str);
        match model_type {
            Some(LLAMA | LINC) => {}
            // All else would be wrong only because it is another model's.
            Some(other) => {
                let message = format!("`model_type` is \"{other}\"");
                let help = "linc imports models of the types llama and linc, which is what it exports itself";
                r.problem(&["model_type"], message, help);
                return Err(reader.problems);
            }
            None => r.problem(&["model_type"], "`model_type` is missing", "expected \"llama\""),
        }
        let model_type = model_type.unwrap_or(LLAMA);
        let allowed = json!([class(model_type)]);
        r.only("architectures", &[allowed], "the class of another model, or of a part of one");
        match model_type {
            // Written by linc, as the files that it names.
            LINC => drop(r.value("auto_map")),
            _ => r.only("auto_map", &[], "the model has code of its own, which may compute something else"),
        }
        let sizes = sizes(r);
        let rope = rope::read(r);
        let norm_eps = r.positive("rms_norm_eps").unwrap_or(1e-6);
        let positions = r.size("max_position_embeddings").unwrap_or(2048);
        let dtype = dtype(r);
        plain(r);
        let (linear, linear_options) = layers::read(r, &sizes, rope.theta);
        let mut problems = reader.finish();
        problems.sort_by_key(|problem| match &problem.place {
            Some(Place::File(place)) => place.line,
            Some(Place::CommandLine(_)) | None => 0,
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Config { sizes, norm_eps, rope, positions, dtype, linear, linear_options })
    }
}

fn sizes(r: &mut Reader<'_>) -> Dimensions {
    let mut layers = r.required("num_hidden_layers");
    if layers > MOST_LAYERS {
        let message = format!("`num_hidden_layers` is {layers}");
        r.problem(&["num_hidden_layers"], message, format!("linc imports up to {MOST_LAYERS}"));
        layers = 1;
    }
    let dim = r.required("hidden_size");
    let heads = r.required("num_attention_heads");
    let ffn_dim = r.required("intermediate_size");
    let vocab = r.required("vocab_size");
    let kv_heads = r.size("num_key_value_heads").unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let message =
            format!("num_attention_heads = {heads} is not a multiple of num_key_value_heads = {kv_heads}");
        r.problem(
            &["num_key_value_heads"],
            message,
            "each key/value head serves the same number of query heads",
        );
    }
    let head_dim = r.size("head_dim");
    // What is missing or no number has been said.
    let are_known =
        ["hidden_size", "num_attention_heads"].iter().all(|key| r.value(key).and_then(size).is_some());
    if head_dim.is_none() && are_known && !dim.is_multiple_of(heads) {
        let message = format!("hidden_size = {dim} is not a multiple of num_attention_heads = {heads}");
        r.problem(&["num_attention_heads"], message, "change one of them, or give head_dim");
    }
    let head_dim = head_dim.unwrap_or(dim / heads);
    let tied = r.flag("tie_word_embeddings").unwrap_or(false);
    Dimensions { layers, dim, heads, kv_heads, head_dim, ffn_dim, vocab, tied }
}

fn dtype(r: &mut Reader<'_>) -> Option<&'static str> {
    let name = |value: &Value| match value.as_str()?.trim_start_matches("torch.") {
        "float32" => Some("F32"),
        "bfloat16" => Some("BF16"),
        "float16" => Some("F16"),
        _ => None,
    };
    let expected = "\"float32\", \"bfloat16\" or \"float16\"";
    let old = r.typed("torch_dtype", expected, name);
    let new = r.typed("dtype", expected, name);
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        r.problem(
            &["dtype"],
            "`dtype` and `torch_dtype` differ",
            "they are two names of one thing: keep one",
        );
    }
    new.or(old)
}

/// What other models have and these do not.
fn plain(r: &mut Reader<'_>) {
    let no = [json!(false)];
    r.only("hidden_act", &[json!("silu"), json!("swish")], "linc's llama3 has SwiGLU");
    for key in ["attention_bias", "mlp_bias"] {
        r.only(key, &no, "linc's llama3 has no biases");
    }
    for key in ["attention_dropout", "hidden_dropout", "residual_dropout", "embedding_dropout"] {
        r.only(key, &[json!(0)], "linc has no dropout");
    }
    for key in
        ["alibi", "is_encoder_decoder", "add_cross_attention", "tie_encoder_decoder", "use_sliding_window"]
    {
        r.only(key, &no, "linc's llama3 has nothing of the kind");
    }
    r.only("rope_interleaved", &no, "Hugging Face's Llama rotates halves of a head");
    r.only("pruned_heads", &[json!({})], "linc's llama3 has all of its heads");
    r.only("sliding_window", &[], "linc's attention sees all tokens before it; null means so");
    r.only(
        "quantization_config",
        &[],
        "quantised weights are others; take the model before it was quantised, without this key",
    );
}
