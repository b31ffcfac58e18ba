//! Folders as others write them, whole and broken.

mod export;
mod tokenizer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use linc_driver::{Entry, Options, PersistentLayout, Source};
use linc_plan::Init;
use serde_json::{Value, json};

use super::config::{Config, Dimensions};
use super::convert::Element;
use super::import::{import, usual_folder};
use super::json::Document;
use super::names::{EMBEDDING, OUTPUT, weights};
use crate::read::TensorFile;
use crate::{CheckpointError, MODEL_FILE};

/// The architecture that the program hands over.
pub(super) fn llama() -> Source {
    Source { path: "models/llama3.linc".into(), text: include_str!("../../../../models/llama3.linc").into() }
}

/// A tensor of a file.
#[derive(Clone)]
struct Stored {
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A small model as a folder of Hugging Face has it, to be changed before it is written.
struct Folder {
    home: tempfile::TempDir,
    config: Value,
    tensors: BTreeMap<String, Stored>,
}

const SIZES: Dimensions = Dimensions {
    layers: 2,
    dim: 16,
    heads: 4,
    kv_heads: 2,
    head_dim: 8,
    ffn_dim: 24,
    vocab: 256,
    tied: false,
};

/// Numbers that all formats hold, another one at each place.
fn numbers(count: usize, from: usize) -> impl Iterator<Item = f32> {
    (from..from + count).map(|i| (i * 37 % 255) as f32 / 128.0 - 1.0)
}

impl Folder {
    fn new() -> Self {
        Self::of(Element::F32, false)
    }

    fn of(element: Element, tied: bool) -> Self {
        let config = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 8, "intermediate_size": 24, "vocab_size": 256, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-6, "rope_theta": 5000.0, "hidden_act": "silu", "tie_word_embeddings": tied,
            "torch_dtype": element.name(), "transformers_version": "4.57.0", "eos_token_id": 2,
        });
        let mut tensors = BTreeMap::new();
        for (index, weight) in weights(&Dimensions { tied, ..SIZES }).into_iter().enumerate() {
            let count = weight.shape.iter().product();
            let bytes = numbers(count, 11 * index).flat_map(|x| match element {
                Element::F32 => x.to_le_bytes().to_vec(),
                Element::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
                Element::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            });
            let dtype = match element {
                Element::F32 => "F32",
                Element::Bf16 => "BF16",
                Element::F16 => "F16",
            };
            tensors.insert(weight.foreign, Stored { dtype, shape: weight.shape, bytes: bytes.collect() });
        }
        Folder { home: tempfile::tempdir().expect("a folder"), config, tensors }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("tiny")
    }

    fn out(&self) -> PathBuf {
        self.home.path().join("out")
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path()).expect("a folder");
        fs::write(self.path().join(name), contents).expect("a file");
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn without(mut self, tensor: &str) -> Self {
        self.tensors.remove(tensor).expect("a tensor of the model");
        self
    }

    /// Changes a tensor of the model, or adds one.
    fn with(mut self, tensor: &str, dtype: &'static str, shape: &[usize]) -> Self {
        let size = if matches!(dtype, "F32" | "I32") { 4 } else { 2 };
        let bytes = vec![0; shape.iter().product::<usize>() * size];
        self.tensors.insert(tensor.to_owned(), Stored { dtype, shape: shape.to_vec(), bytes });
        self
    }

    fn write_config(&self) {
        self.file("config.json", serde_json::to_string_pretty(&self.config).expect("JSON"));
    }

    /// One file.
    fn write(&self) {
        self.write_config();
        self.file("model.safetensors", safetensors(&self.tensors));
    }

    /// Two files with an index, which says of each tensor what `place` makes of its file's name.
    fn write_shards(&self, place: impl Fn(&str, &str) -> Option<String>) {
        self.write_config();
        let mut map = BTreeMap::new();
        for half in 0..2 {
            let name = format!("model-0000{}-of-00002.safetensors", half + 1);
            let part: BTreeMap<String, Stored> = self
                .tensors
                .iter()
                .enumerate()
                .filter(|(index, _)| index % 2 == half)
                .map(|(_, (tensor, stored))| (tensor.clone(), stored.clone()))
                .collect();
            map.extend(part.keys().filter_map(|tensor| Some((tensor.clone(), place(tensor, &name)?))));
            self.file(&name, safetensors(&part));
        }
        let total: usize = self.tensors.values().map(|stored| stored.bytes.len()).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        self.file("model.safetensors.index.json", index.to_string());
    }

    fn import(&self) -> Result<super::Imported, CheckpointError> {
        import(&self.path(), &self.out(), &llama(), &mut |_, _| true)
    }

    /// The message of an import that must fail and leave nothing behind.
    fn refused(&self) -> String {
        let error = match self.import() {
            Ok(_) => panic!("it was imported: {}", self.config),
            Err(error) => error.to_string(),
        };
        let left: Vec<String> = fs::read_dir(self.home.path())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(left, ["tiny"], "{error}");
        error
    }

    /// A tensor of the checkpoint that was written.
    fn imported(&self, name: &str) -> Vec<f32> {
        let Ok(file) = TensorFile::open(&self.out().join(MODEL_FILE)) else { panic!("no file of tensors") };
        let info = file.metadata.info(name).unwrap_or_else(|| panic!("no tensor {name}")).clone();
        let Ok(bytes) = file.read(name, &info) else { panic!("{name} cannot be read") };
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

/// A safetensors file.
fn safetensors(tensors: &BTreeMap<String, Stored>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    for (name, stored) in tensors {
        let start = data.len();
        data.extend_from_slice(&stored.bytes);
        let entry =
            json!({ "dtype": stored.dtype, "shape": stored.shape, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), entry);
    }
    with_header(&Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// Whether a checkpoint has exactly the numbers that [`Folder::of`] stores.
fn assert_numbers(folder: &Folder, tied: bool) {
    let state = crate::open(&folder.out()).expect("a checkpoint");
    assert_eq!((state.step, state.data.kind.as_str(), state.model.seq_len), (0, "text", 64));
    for (index, weight) in weights(&Dimensions { tied, ..SIZES }).into_iter().enumerate() {
        let count: usize = weight.shape.iter().product();
        let stored: Vec<f32> = numbers(count, 11 * index).collect();
        let found = folder.imported(&weight.linc);
        let expected: Vec<f32> = match weight.rotary_heads {
            None => stored,
            // Row 2i of a head is row i, row 2i + 1 is row i + 4, of 16 numbers each.
            Some(heads) => (0..heads * 8)
                .flat_map(|row| {
                    let (head, at) = (row / 8, row % 8);
                    let from = 8 * head + at / 2 + if at % 2 == 1 { 4 } else { 0 };
                    stored[16 * from..][..16].to_vec()
                })
                .collect(),
        };
        assert_eq!(found, expected, "{}", weight.linc);
    }
}

#[test]
fn one_file_or_shards_of_any_format_give_the_same_checkpoint() {
    for element in Element::ALL {
        for tied in [false, true] {
            let folder = Folder::of(element, tied);
            folder.write();
            let imported = folder.import().unwrap_or_else(|error| panic!("{error}"));
            assert!(imported.notes.is_empty(), "{:?}", imported.notes);
            assert_eq!(imported.model.layer_map(), "SS");
            assert_numbers(&folder, tied);
            let shards = Folder::of(element, tied);
            shards.write_shards(|_, file| Some(file.to_owned()));
            shards.import().unwrap_or_else(|error| panic!("{error}"));
            assert_numbers(&shards, tied);
        }
    }
}

#[test]
fn a_tied_embedding_has_either_name_and_both_only_if_they_are_equal() {
    let only_output = || {
        let mut folder = Folder::of(Element::F32, true);
        let embedding = folder.tensors.remove(EMBEDDING).expect("an embedding");
        folder.tensors.insert(OUTPUT.to_owned(), embedding);
        folder
    };
    let folder = only_output();
    folder.write();
    folder.import().unwrap_or_else(|error| panic!("{error}"));
    assert_numbers(&folder, true);
    let mut both = only_output();
    both.tensors.insert(EMBEDDING.to_owned(), both.tensors[OUTPUT].clone());
    both.write();
    both.import().unwrap_or_else(|error| panic!("{error}"));
    assert_numbers(&both, true);
    fs::remove_dir_all(both.out()).expect("removed");
    both.tensors.get_mut(OUTPUT).expect("a tensor").bytes[0] ^= 1;
    both.write();
    let said = both.refused();
    assert!(said.contains("model.embed_tokens.weight and lm_head.weight differ"), "{said}");
    // Whoever is not tied has both.
    let folder = only_output().set("tie_word_embeddings", json!(false));
    folder.write();
    assert!(
        folder.refused().contains("1 tensor of the model of config.json missing: model.embed_tokens.weight")
    );
    let folder = Folder::of(Element::F32, true).set("tie_word_embeddings", json!(false));
    folder.write();
    let said = folder.refused();
    assert!(
        said.contains("missing: lm_head.weight") && said.contains("\"tie_word_embeddings\": true"),
        "{said}"
    );
}

/// The rotary frequencies of an imported model, as its programs get them.
fn frequencies(scaling: (&str, Value)) -> Vec<f64> {
    let folder = Folder::new().set(scaling.0, scaling.1);
    folder.write();
    let model = folder.import().unwrap_or_else(|error| panic!("{error}")).model;
    let compiled =
        linc_driver::compile(&model, &Entry::Forward, &Options::new(1, 16), &mut PersistentLayout::default());
    let plan = compiled.expect("compiles").plan;
    let tables = plan.bindings.iter().filter_map(|binding| match &binding.init {
        Init::Rope { freqs } => Some(freqs.clone()),
        Init::Zeros | Init::Ones | Init::Normal { .. } | Init::TruncNormal { .. } => None,
    });
    tables.into_iter().next().expect("a table of positions")
}

#[test]
fn rotary_positions_are_those_of_the_file() {
    let plain: Vec<f64> = (0..4).map(|i| 5000f64.powf(-f64::from(i) / 4.0)).collect();
    let near = |found: &[f64], expected: &[f64]| {
        assert!(
            found.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-12),
            "{found:?} {expected:?}"
        );
    };
    near(&frequencies(("rope_scaling", json!(null))), &plain);
    near(&frequencies(("rope_parameters", json!({ "rope_type": "default", "rope_theta": 5000.0 }))), &plain);
    let slower: Vec<f64> = plain.iter().map(|frequency| frequency / 4.0).collect();
    near(&frequencies(("rope_scaling", json!({ "type": "linear", "factor": 4.0 }))), &slower);
    let llama3 = json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 100, "rope_theta": 5000.0 });
    // 100 tokens are 15.9, 1.89, 0.225 and 0.027 turns: kept, in between, and twice divided by 8.
    let turns = 100.0 * plain[1] / std::f64::consts::TAU;
    let kept = (turns - 1.0) / 3.0;
    let expected = [plain[0], plain[1] * (kept + (1.0 - kept) / 8.0), plain[2] / 8.0, plain[3] / 8.0];
    near(&frequencies(("rope_parameters", llama3)), &expected);
}

#[test]
fn layers_of_hybrids_are_listed_in_three_ways() {
    let layers = |key: &str, value: Value| {
        let folder = Folder::new().set(key, value);
        folder.write();
        let imported = folder.import().unwrap_or_else(|error| panic!("{error}"));
        let record = crate::open(&folder.out()).expect("a checkpoint").model;
        assert_eq!(imported.model.layer_map(), crate::model_of(&record).expect("a model").layer_map());
        (imported.model.layer_map(), record.linear_attn_placement, imported.notes.len())
    };
    let types = |list: [&str; 2]| ("layer_types", json!(list));
    let (key, list) = types(["linear_attention", "full_attention"]);
    assert_eq!(layers(key, list), ("LS".into(), "uniform".into(), 1));
    let (key, list) = types(["full_attention", "linear_attention"]);
    assert_eq!(layers(key, list), ("SL".into(), "1".into(), 1));
    let (key, list) = types(["linear_attention"; 2]);
    assert_eq!(layers(key, list).0, "LL");
    let (key, list) = types(["full_attention"; 2]);
    assert_eq!(layers(key, list), ("SS".into(), "uniform".into(), 0));
    let block = json!({ "layers": [1], "num_heads": 4, "num_kv_heads": 2, "qkv_bias": false, "window_size": null, "rope_theta": 5000 });
    assert_eq!(layers("attn", block.clone()).0, "LS");
    assert_eq!(layers("attn", json!([block, { "layers": [0] }])).0, "SS");
    assert_eq!(layers("attn", json!({ "layers": [] })).0, "LL");
}

/// What is said of a config with other values of some keys.
fn config_refused(changes: &[(&str, Value)]) -> String {
    let folder = changes.iter().fold(Folder::new(), |folder, (key, value)| folder.set(key, value.clone()));
    folder.write();
    folder.refused()
}

#[test]
fn wrong_keys_are_all_said_with_their_lines() {
    let said = config_refused(&[
        ("hidden_siz", json!(16)),
        ("attention_bias", json!(true)),
        ("vocab_size", json!(-3)),
        ("hidden_act", json!("gelu")),
    ]);
    for words in [
        "`hidden_siz` is no key of a Llama model",
        "did you mean hidden_size?",
        "`attention_bias` is true: linc's llama3 has no biases",
        "`vocab_size` is -3",
        "`hidden_act` is \"gelu\"",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let text = fs::read_to_string;
    let folder = Folder::new().set("mlp_bias", json!(true));
    folder.write();
    let config = text(folder.path().join("config.json")).expect("a file");
    let line = config.lines().position(|line| line.contains("mlp_bias")).expect("a line") + 1;
    assert!(folder.refused().contains(&format!("config.json:{line}:3: error: `mlp_bias`")));
}

#[test]
fn every_contradiction_in_a_config_is_refused() {
    let llama3 = |key: &str, value: Value| {
        let mut scaling = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32 });
        scaling[key] = value;
        ("rope_scaling", scaling)
    };
    let cases: Vec<(Vec<(&str, Value)>, &str)> = vec![
        (
            vec![("auto_map", json!({ "AutoModelForCausalLM": "modeling_mine.Mine" }))],
            "the model has code of its own",
        ),
        (vec![("model_type", json!("qwen3"))], "`model_type` is \"qwen3\""),
        (vec![("model_type", json!(null))], "`model_type` is missing"),
        (vec![("architectures", json!(["LlamaForSequenceClassification"]))], "the class of another model"),
        (
            vec![("hidden_size", json!(null)), ("num_hidden_layers", json!(null))],
            "`num_hidden_layers` is missing",
        ),
        (vec![("num_hidden_layers", json!(2_000_000_000))], "`num_hidden_layers` is 2000000000"),
        (vec![("hidden_size", json!("16"))], "`hidden_size` is \"16\""),
        (vec![("num_hidden_layers", json!(2.5))], "`num_hidden_layers` is 2.5"),
        (vec![("num_key_value_heads", json!(3))], "not a multiple of num_key_value_heads = 3"),
        (
            vec![("head_dim", json!(null)), ("num_attention_heads", json!(6))],
            "hidden_size = 16 is not a multiple",
        ),
        (vec![("head_dim", json!(6))], "heads have 6 features"),
        (vec![("rms_norm_eps", json!(0))], "`rms_norm_eps` is 0"),
        (vec![("attention_dropout", json!(0.1))], "linc has no dropout"),
        (vec![("quantization_config", json!({ "bits": 4 }))], "quantised weights are others"),
        (vec![("sliding_window", json!(128))], "linc's attention sees all tokens"),
        (vec![("dtype", json!("bfloat16"))], "`dtype` and `torch_dtype` differ"),
        (vec![("torch_dtype", json!("int8"))], "`torch_dtype` is \"int8\""),
        (vec![("rope_parameters", json!({ "rope_theta": 10 }))], "`rope_theta` is 10 here and 5000"),
        (vec![("rope_scaling", json!({ "rope_type": "yarn", "factor": 2 }))], "`rope_type` is \"yarn\""),
        (
            vec![("rope_scaling", json!({ "type": "linear", "rope_type": "default", "factor": 2 }))],
            "`type` and `rope_type` differ",
        ),
        (vec![("rope_scaling", json!({ "type": "linear" }))], "`factor` is missing in `rope_scaling`"),
        (vec![("rope_scaling", json!({ "type": "linear", "factor": 2, "beta": 1 }))], "`beta` is no key"),
        (vec![("rope_scaling", json!({ "factor": 2 }))], "has no rope_type"),
        (vec![("rope_scaling", json!(7))], "`rope_scaling` is 7"),
        (vec![llama3("high_freq_factor", json!(0.5))], "is not above low_freq_factor"),
        (vec![llama3("factor", json!("x"))], "`factor` is \"x\""),
        (vec![llama3("low_freq_factor", json!(null))], "`low_freq_factor` is missing"),
        // Not as if there were no scaling.
        (
            vec![llama3("original_max_position_embeddings", json!(1e10))],
            "`original_max_position_embeddings` is 10000000000.0",
        ),
        (
            vec![llama3("original_max_position_embeddings", json!(0.5))],
            "`original_max_position_embeddings` is 0.5",
        ),
        (
            vec![llama3("factor", json!(8)), ("rope_parameters", json!({ "rope_type": "default" }))],
            "`rope_scaling` and `rope_parameters` differ",
        ),
        (vec![("partial_rotary_factor", json!(0.5))], "linc rotates all features"),
        (
            vec![("layer_types", json!(["full_attention"]))],
            "`layer_types` has 1 layers, num_hidden_layers is 2",
        ),
        (
            vec![("layer_types", json!(["full_attention", "sliding_attention"]))],
            "layer 1 is \"sliding_attention\"",
        ),
        (vec![("attn", json!({ "layers": [2] }))], "there is no layer 2"),
        (vec![("attn", json!([{ "layers": [1] }, { "layers": [1] }]))], "layer 1 is listed twice"),
        (vec![("attn", json!({ "layers": [1], "num_heads": 2 }))], "`num_heads` is 2"),
        (vec![("attn", json!({ "layers": [1], "window_size": 8 }))], "`window_size` is set"),
        (vec![("attn", json!({ "layers": [1], "qk_norm": true }))], "`qk_norm` is true"),
        (vec![("attn", json!({ "layer": [1] }))], "did you mean layers?"),
        (vec![("attn", json!([7]))], "a block of `attn` is no object"),
        (vec![("attn", json!("all"))], "`attn` is \"all\""),
        (
            vec![
                ("attn", json!({ "layers": [0] })),
                ("layer_types", json!(["linear_attention", "full_attention"])),
            ],
            "`attn` and `layer_types` give",
        ),
        (vec![("linc", json!({ "linear_attention": { "rope": true } }))], "`temperature` is missing"),
        (vec![("linc", json!({ "linear_attention": { "rope": 1, "temperature": 3 } }))], "`rope` is 1"),
        (
            vec![("linc", json!({ "linear_attention": { "rope": true, "temperature": 3, "chunk": 0.5 } }))],
            "`chunk` is 0.5",
        ),
        (vec![("linc", json!({ "speed": 1 }))], "`speed` is no key"),
    ];
    for (changes, words) in cases {
        let said = config_refused(&changes);
        assert!(said.contains(words), "{changes:?} without {words:?}: {said}");
        assert!(said.contains("config.json:") && said.contains("help: "), "{changes:?}: {said}");
    }
}

#[test]
fn what_is_wrong_with_weights_is_all_said_at_once() {
    let folder = Folder::new()
        .without("model.layers.1.mlp.up_proj.weight")
        .without("model.norm.weight")
        .with("model.layers.0.self_attn.q_proj.bias", "F32", &[32])
        .with("model.layers.0.self_attn.k_proj.weight", "F32", &[32, 16])
        .with("model.layers.1.self_attn.o_proj.weight", "I32", &[16, 32]);
    folder.write();
    let said = folder.refused();
    for words in [
        "2 tensors of the model of config.json missing: model.layers.1.mlp.up_proj.weight, model.norm.weight",
        "1 tensor that the model of config.json does not have: model.layers.0.self_attn.q_proj.bias",
        "of another shape than config.json says: model.layers.0.self_attn.k_proj.weight [32, 16] and not [16, 16]",
        "a number format that linc does not read: model.layers.1.self_attn.o_proj.weight I32",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // What old versions of transformers kept beside the weights is no weight.
    let folder = Folder::new().with("model.layers.1.self_attn.rotary_emb.inv_freq", "F32", &[4]);
    folder.write();
    folder.import().unwrap_or_else(|error| panic!("{error}"));
    let folder = Folder::new().with("model.norm.weight", "BF16", &[16]);
    folder.write();
    let notes = folder.import().unwrap_or_else(|error| panic!("{error}")).notes;
    assert_eq!(notes, ["config.json says F32, and there are tensors of BF16: each is read as it is"]);
}

#[test]
fn an_index_that_disagrees_with_its_files_is_refused() {
    let norm = "model.norm.weight";
    let refused = |place: &dyn Fn(&str, &str) -> Option<String>| {
        let folder = Folder::new();
        folder.write_shards(place);
        folder.refused()
    };
    let elsewhere =
        |file: &str| file.replace("00001-of", "x").replace("00002-of", "00001-of").replace('x', "00002-of");
    let said = refused(&|name, file| Some(if name == norm { elsewhere(file) } else { file.to_owned() }));
    assert!(said.contains("does not name it for model.norm.weight"), "{said}");
    assert!(said.contains("names it for model.norm.weight, which it does not have"), "{said}");
    let said = refused(&|name, file| (name != norm).then(|| file.to_owned()));
    assert!(said.contains("does not name it for model.norm.weight"), "{said}");
    for outside in ["../model-00001-of-00002.safetensors", "a/b.safetensors", "", ".."] {
        let said = refused(&|name, file| Some(if name == norm { outside } else { file }.to_owned()));
        assert!(said.contains("is no name of a file beside the index"), "{outside}: {said}");
    }
    let folder = Folder::new();
    folder.write_shards(|_, file| Some(file.to_owned()));
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).expect("removed");
    let said = folder.refused();
    assert!(said.contains("model-00002-of-00002.safetensors: it is missing, and model.safetensors.index.json names it for 10 tensors"), "{said}");
    folder.file("model-00002-of-00002.safetensors", safetensors(&folder.tensors));
    let said = folder.refused();
    assert!(said.contains("another file has these tensors as well: lm_head.weight"), "{said}");
    folder.write();
    assert!(folder.refused().contains("there are both model.safetensors and model.safetensors.index.json"));
    fs::remove_file(folder.path().join("model.safetensors")).expect("removed");
    for (index, words) in [
        ("{}", "the index has no weight_map"),
        ("{\"weight_map\": {}}", "its weight_map is empty"),
        ("{\"weight_map\": {\"a\": 1}}", "1 is no name of a file"),
        ("{\"weight_map\": {\"a\": \"b\", \"a\": \"c\"}}", "`weight_map.a` is there twice"),
        ("{\"weight_map\": ", "the index is no JSON"),
    ] {
        folder.file("model.safetensors.index.json", index);
        let said = folder.refused();
        assert!(said.contains(words), "{index}: {said}");
    }
}

#[test]
fn damaged_files_are_refused_wherever_they_are_cut() {
    let folder = Folder::new();
    folder.write();
    let whole = fs::read(folder.path().join("model.safetensors")).expect("a file");
    for length in [0, 5, 8, 9, 300, whole.len() / 2, whole.len() - 1] {
        folder.file("model.safetensors", &whole[..length]);
        let said = folder.refused();
        assert!(said.contains("model.safetensors: ") && said.contains("help: "), "{length}: {said}");
    }
    folder.file("model.safetensors", [&whole[..], &[0]].concat());
    assert!(folder.refused().contains("there is more in it than its tensors"));
    let entry = |offsets: &str, shape: &str| {
        format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    let hostile = [
        vec![0xff; 64],
        [&[0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0][..], &[b'{'; 64]].concat(),
        with_header(&entry("[4, 0]", "[1]"), &[0; 4]),
        with_header(&entry("[4, 8]", "[1]"), &[0; 8]),
        with_header(&entry("[0, 4]", "[2]"), &[0; 4]),
        with_header(&entry("[0, 18446744073709551615]", "[1]"), &[0; 4]),
        with_header(&entry("[0, 4]", "[18446744073709551615, 18446744073709551615]"), &[0; 4]),
        with_header(&"[".repeat(5000), &[]),
        with_header("[1, 2]", &[]),
        with_header("{\"a\": 1}", &[]),
    ];
    for file in hostile {
        folder.file("model.safetensors", &file);
        let said = folder.refused();
        assert!(said.contains("not a safetensors file") || said.contains("truncated"), "{said}");
    }
    let twice = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    folder.file("model.safetensors", with_header(twice, &[0; 4]));
    let said = folder.refused();
    assert!(said.contains("its header names 1 tensor twice"), "{said}");
}

#[test]
fn what_is_there_in_place_of_a_model_is_said() {
    let folder = Folder::new();
    let refused = || match folder.import() {
        Ok(_) => panic!("there is no model"),
        Err(error) => error.to_string(),
    };
    assert!(refused().contains("config.json: cannot read the config of a model"));
    folder.write_config();
    assert!(refused().contains("there is neither model.safetensors nor model.safetensors.index.json"));
    folder.file("pytorch_model.bin", "");
    assert!(
        refused().contains("there is pytorch_model.bin: have transformers load and save it as safetensors")
    );
    folder.file("config.json", "{\"hidden_size\": 16,");
    assert!(refused().contains("config.json:1:19: error: the config of a model is no JSON"));
    folder.file("config.json", b"{\xff}");
    assert!(refused().contains("is not UTF-8 text (byte 1)"));
    folder.file("config.json", "{\"model_type\": \"llama\", \"vocab_size\": 1,\n\"vocab_size\": 2}");
    assert!(refused().contains("config.json:2:1: error: `vocab_size` is there twice"));
    folder.write();
    folder.file("tokenizer.json", "{}");
    assert!(refused().contains("tokenizer.json"));
    assert!(!folder.out().exists());
}

/// A small generator of positions and bytes.
fn random(seed: &mut u32, below: usize) -> usize {
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*seed >> 8) as usize % below
}

#[test]
fn whatever_is_changed_in_a_file_is_refused_or_read_and_nothing_else() {
    let folder = Folder::new().set("rope_scaling", json!({ "type": "linear", "factor": 2.0 }));
    folder.write_shards(|_, file| Some(file.to_owned()));
    let mut seed = 7;
    for name in ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"] {
        let whole = fs::read(folder.path().join(name)).expect("a file");
        // Of a file of tensors the header, whose bytes mean something.
        let end = whole.len().min(1200);
        for _ in 0..150 {
            let mut changed = whole.clone();
            for _ in 0..=random(&mut seed, 3) {
                let at = random(&mut seed, end.min(changed.len()));
                match random(&mut seed, 3) {
                    0 => changed[at] = random(&mut seed, 256) as u8,
                    1 => changed[at] = b"0123456789{}[]\",:-e"[random(&mut seed, 19)],
                    _ => drop(changed.remove(at)),
                }
            }
            folder.file(name, &changed);
            if folder.import().is_ok() {
                fs::remove_dir_all(folder.out()).expect("removed");
            }
            assert_eq!(fs::read_dir(folder.home.path()).expect("a folder").count(), 1, "something is left");
        }
        folder.file(name, &whole);
    }
    folder.import().unwrap_or_else(|error| panic!("{error}"));
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
    let pipe = |path: PathBuf| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    };
    let folder = Folder::new();
    folder.write_shards(|_, file| Some(file.to_owned()));
    let shard = folder.path().join("model-00001-of-00002.safetensors");
    fs::remove_file(&shard).expect("removed");
    pipe(shard);
    assert!(folder.refused().contains("it is a pipe, socket or device"));
    let config = folder.path().join("config.json");
    fs::remove_file(&config).expect("removed");
    pipe(config);
    assert!(folder.refused().contains("is a pipe, socket or device, which may have no end"));
}

#[test]
fn an_import_is_called_as_its_folder_is() {
    let folder = Folder::new();
    folder.write();
    for path in [folder.path(), folder.path().join("."), folder.path().join("../tiny/")] {
        assert_eq!(usual_folder(&path), Path::new("outputs/tiny"), "{}", path.display());
    }
    let record = folder.import().unwrap_or_else(|error| panic!("{error}")).model;
    assert_eq!(record.title(), "llama3 tiny");
}

#[test]
fn what_is_at_the_place_already_stays() {
    let folder = Folder::new();
    folder.write();
    fs::create_dir(folder.out()).expect("a folder");
    fs::write(folder.out().join("mine"), "x").expect("a file");
    let said = folder.import().map(|_| ()).expect_err("refused").to_string();
    assert!(said.contains("there is something already") && said.contains("--out"), "{said}");
    assert_eq!(fs::read(folder.out().join("mine")).expect("a file"), b"x");
    fs::remove_file(folder.out().join("mine")).expect("removed");
    // What a killed run left is no obstacle, and an empty folder is none.
    let partial = folder.home.path().join(".out.partial");
    fs::create_dir(&partial).expect("a folder");
    fs::write(partial.join("model.safetensors"), "half").expect("a file");
    folder.import().unwrap_or_else(|error| panic!("{error}"));
    assert!(!partial.exists());
    assert_numbers(&folder, false);
}

/// The small model of real weights, where it is: it has only `lm_head`, and `rope_scaling` null.
#[test]
fn a_real_model_is_imported() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/weights/tinystories-656k");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let document = Document::open(&folder.join("config.json"), "config").unwrap_or_else(|e| panic!("{e}"));
    let Ok(config) = Config::read(&document) else { panic!("its config is refused") };
    assert_eq!((config.sizes.vocab, config.positions, config.norm_eps), (2048, 512, 1e-6));
    let home = tempfile::tempdir().expect("a folder");
    let imported = import(&folder, &home.path().join("out"), &llama(), &mut |_, _| true);
    let imported = imported.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((imported.model.sizes.params, imported.model.layer_map().as_str()), (656_000, "SS"));
    assert!(imported.has_tokenizer && imported.notes.is_empty(), "{:?}", imported.notes);
}
