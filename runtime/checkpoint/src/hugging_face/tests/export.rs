//! Exports of small models: what is written, that it comes back, and what cannot be exported.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use linc_data::DataState;
use linc_driver::Source;
use serde_json::{Value, json};

use super::super::export::{ExportOptions, Exported, export};
use super::super::import::{import, parameters};
use super::super::logits::Evaluated;
use super::{Element, llama};
use crate::read::TensorFile;
use crate::write::{self, Tensor};
use crate::{CheckpointError, Contents, MODEL_FILE, ModelRecord, State, model_of};

/// A model file; `more` has further keys.
fn toml(more: &str) -> String {
    format!(
        "name = \"llama3\"\nflavor = \"tiny\"\narchitecture = \"llama3.linc\"\ndim = 32\nn_layers = 4\nn_heads = 4\nn_kv_heads = 2\nvocab_size = 40\nmultiple_of = 16\nnorm_eps = 1e-6\n{more}"
    )
}

/// The record of a model with one letter for each layer.
fn record(model_toml: String, architecture: String, layers: &str) -> ModelRecord {
    let name = |letter| if letter == 'L' { "linear" } else { "softmax" };
    ModelRecord {
        name: "llama3".into(),
        flavor: "tiny".into(),
        linear_attn_ratio: "0.5".into(),
        linear_attn_placement: "uniform".into(),
        layers: layers.chars().map(|letter| name(letter).to_owned()).collect(),
        params: 0,
        model_path: "tiny.toml".into(),
        model_toml,
        architecture_path: "llama3.linc".into(),
        architecture,
        overrides: vec![],
        seq_len: 48,
        batch_size: 2,
    }
}

/// A checkpoint of random weights in a folder of its own.
struct Checkpoint {
    home: tempfile::TempDir,
}

impl Checkpoint {
    fn new(record: ModelRecord) -> Self {
        Self::scaled(record, 1.0)
    }

    fn scaled(record: ModelRecord, scale: f32) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let params = parameters(&model_of(&record).expect("a model")).expect("parameters");
        let mut seed = 1_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(seed) / f64::from(u32::MAX) - 0.5) as f32 * scale
        };
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(|_| random().to_le_bytes()).collect();
            Tensor { name, shape, read: Box::new(move || Ok(bytes.clone())) }
        };
        let params = params.into_iter().map(tensor).collect();
        let data = DataState {
            kind: "mqar".into(),
            seed: 0,
            shuffle: false,
            seq_len: 48,
            size: 0,
            checksum: 0,
            ..DataState::default()
        };
        let contents = Contents {
            params,
            optimizer: vec![],
            tokenizer: &[],
            shard_bytes: u64::MAX,
            state: State::new(3, 9, 0, data, record),
        };
        let checkpoint = Checkpoint { home };
        fs::create_dir(checkpoint.path("step-3")).expect("a folder");
        write::write_files(&checkpoint.path("step-3"), &contents).expect("written");
        checkpoint
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn export(&self, out: &str, element: Element, shard_bytes: u64) -> Result<Exported, CheckpointError> {
        let options = ExportOptions { element, shard_bytes, architecture: llama() };
        export(&self.path("step-3"), &self.path(out), &options, &mut |_, _| true)
    }

    /// The message of an export that must fail and leave nothing behind.
    fn refused(&self, element: Element) -> String {
        let error = self.export("out", element, 1 << 40).map(|_| ()).expect_err("refused").to_string();
        let left: Vec<String> = fs::read_dir(self.home.path())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(left, ["step-3"], "{error}");
        error
    }

    fn json(&self, name: &str) -> Value {
        let text = fs::read(self.path(name)).expect("a file");
        serde_json::from_slice(&text).expect("JSON")
    }
}

/// Contents by name, of the file of weights.
fn tensors(checkpoint: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(file) = TensorFile::open(&checkpoint.join(MODEL_FILE)) else { panic!("no file of tensors") };
    let held = file.metadata.tensors();
    let read = |(name, info): (String, &_)| {
        let Ok(bytes) = file.read(&name, info) else { panic!("{name} cannot be read") };
        (name, bytes)
    };
    held.into_iter().map(read).collect()
}

fn plain(more: &str) -> ModelRecord {
    record(toml(more), llama().text, "SSSS")
}

#[test]
fn an_export_comes_back_bit_by_bit_in_one_file_or_in_many() {
    for (more, shard_bytes) in
        [("", 1 << 40), ("tie_embeddings = true\nhead_dim = 16\n", 1 << 40), ("", 5000)]
    {
        let checkpoint = Checkpoint::new(plain(more));
        let exported = checkpoint.export("out", Element::F32, shard_bytes).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(exported.logits, Evaluated::Same { rounding: 0.0 });
        assert_eq!(exported.shards > 1, shard_bytes == 5000);
        assert_eq!(checkpoint.path("out/model.safetensors").exists(), exported.shards == 1);
        assert_eq!(checkpoint.path("out/model.safetensors.index.json").exists(), exported.shards > 1);
        let back = checkpoint.path("back");
        import(&checkpoint.path("out"), &back, &llama(), &mut |_, _| true).unwrap_or_else(|e| panic!("{e}"));
        assert!(tensors(&back) == tensors(&checkpoint.path("step-3")), "other bits");
        let config = checkpoint.json("out/config.json");
        assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
        assert_eq!(config["tie_word_embeddings"], json!(!more.is_empty()));
        assert_eq!(config["max_position_embeddings"], json!(48));
        assert_eq!(config["head_dim"], json!(if more.is_empty() { 8 } else { 16 }));
    }
}

#[test]
fn shards_have_the_size_that_was_asked_for() {
    let checkpoint = Checkpoint::new(plain(""));
    let limit = 5000;
    let exported = checkpoint.export("out", Element::F32, limit).unwrap_or_else(|e| panic!("{e}"));
    let index = checkpoint.json("out/model.safetensors.index.json");
    let map = index["weight_map"].as_object().expect("a map");
    let mut total = 0;
    for shard in 1..=exported.shards {
        let name = format!("model-{shard:05}-of-{:05}.safetensors", exported.shards);
        let Ok(file) = TensorFile::open(&checkpoint.path("out").join(&name)) else { panic!("no {name}") };
        let held = file.metadata.tensors();
        assert!(held.len() == 1 || file.metadata.data_len() as u64 <= limit, "{name}");
        assert!(held.keys().all(|tensor| map[tensor] == json!(name)), "{name}");
        assert_eq!(file.metadata.metadata().as_ref().map(|m| m["format"].as_str()), Some("pt"));
        total += file.metadata.data_len();
    }
    assert_eq!(index["metadata"]["total_size"], json!(total));
    assert_eq!(exported.bytes, total as u64);
}

#[test]
fn narrow_weights_are_those_of_the_checkpoint_rounded() {
    let checkpoint = Checkpoint::new(plain(""));
    for (element, most) in [(Element::Bf16, 0.5), (Element::F16, 0.05)] {
        let out = element.name();
        let exported = checkpoint.export(out, element, 1 << 40).unwrap_or_else(|e| panic!("{e}"));
        let Evaluated::Same { rounding } = exported.logits else { panic!("not compared") };
        assert!(rounding > 0.0 && rounding < most, "{out}: {rounding}");
        assert_eq!(checkpoint.json(&format!("{out}/config.json"))["torch_dtype"], json!(out));
        let back = checkpoint.path(&format!("{out}-back"));
        import(&checkpoint.path(out), &back, &llama(), &mut |_, _| true).unwrap_or_else(|e| panic!("{e}"));
        let before = tensors(&checkpoint.path("step-3"));
        for (name, bytes) in tensors(&back) {
            let pairs = bytes.as_chunks::<4>().0.iter().zip(before[&name].as_chunks::<4>().0);
            let close = |(a, b): (&[u8; 4], &[u8; 4])| {
                let (a, b) = (f32::from_le_bytes(*a), f32::from_le_bytes(*b));
                (a - b).abs() <= 0.004 * b.abs() + 1e-7
            };
            assert!(pairs.into_iter().all(close), "{out}: {name}");
        }
    }
    let large = Checkpoint::scaled(plain(""), 3e5);
    let said = large.refused(Element::F16);
    assert!(said.contains("beyond the range of float16") && said.contains("--dtype bfloat16"), "{said}");
}

#[test]
fn rotary_positions_are_said_in_the_words_of_transformers() {
    let scaled = |low, high| {
        let more = format!(
            "\n[rope_scaling]\nfactor = 8.0\nlow_freq_factor = {low}\nhigh_freq_factor = {high}\noriginal_max_position_embeddings = 32\n"
        );
        let checkpoint = Checkpoint::new(plain(&more));
        checkpoint.export("out", Element::F32, 1 << 40).unwrap_or_else(|e| panic!("{e}"));
        checkpoint.json("out/config.json")["rope_scaling"].clone()
    };
    let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32 });
    assert_eq!(scaled(1.0, 4.0), llama3);
    // No pair of features turns as often as 32 times in 32 tokens, so all are slowed down.
    assert_eq!(scaled(32.0, 64.0), json!({ "rope_type": "linear", "factor": 8.0 }));
}

/// What is said of a checkpoint whose architecture is an edit of the Llama models'.
fn edited(from: &str, to: &str) -> Result<Exported, CheckpointError> {
    let text = llama().text;
    assert!(text.contains(from), "{from}");
    let constants = if to.contains("clip") { "\n[constants]\nclip = 2.0\n" } else { "" };
    let checkpoint = Checkpoint::new(record(toml(constants), text.replacen(from, to, 1), "SSSS"));
    checkpoint.export("out", Element::F32, 1 << 40)
}

#[test]
fn an_architecture_that_is_no_llama_is_refused_with_the_difference() {
    for (from, to, words) in [
        ("silu(h @ w1.T)", "relu(h @ w1.T)", "it has `relu` in layers.0/feed_forward"),
        ("x = embedding(tokens, tok_embeddings)", "x = 2 * embedding(tokens, tok_embeddings)", "it has `"),
        ("head_dim, rope_theta, rope", "head_dim, 2 * rope_theta, rope", "it has `table"),
        (
            "      h = rms_norm(x, attention_norm, norm_eps)\n",
            "      param gate [dim] init ones\n      h = rms_norm(x, attention_norm, norm_eps) * gate\n",
            "layers.0.attention.gate.weight: [32] in the text, none in a Llama model",
        ),
        ("silu(h @ w1.T)", "min(silu(h @ w1.T), clip)", "it has `"),
        (
            "h = rms_norm(x, ffn_norm, norm_eps)",
            "h = rms_norm(x, ffn_norm, 2 * norm_eps)",
            "it has `rms_norm` in layers.0/feed_forward",
        ),
    ] {
        let said = edited(from, to).map(|_| ()).expect_err(to).to_string();
        assert!(said.contains(words) || said.contains("it has numbers of its own"), "{to}: {said}");
        // What is another operation is shown where it is written.
        assert!(!said.contains("it has `") || said.starts_with("llama3.linc:"), "{to}: {said}");
        assert!(said.contains("Llama model") && said.contains("help: "), "{to}: {said}");
    }
}

#[test]
fn an_edit_that_changes_nothing_computed_is_exported() {
    for (from, to) in [
        ("# Llama 3", "# Mine"),
        ("init trunc_normal(0.02)", "init normal(0.5)"),
        (
            "      k = split_heads(h @ wk.T, n_kv_heads)\n      v = split_heads(h @ wv.T, n_kv_heads)\n",
            "      v = split_heads(h @ wv.T, n_kv_heads)\n      key = h @ wk.T\n      k = split_heads(key, n_kv_heads)\n",
        ),
    ] {
        edited(from, to).unwrap_or_else(|error| panic!("{to}: {error}"));
    }
    // Parameters may be declared in any order, and so may what is computed from others.
    let other = Source {
        path: "other.linc".into(),
        text: llama().text.replace("param ffn_norm [dim] init ones\n", ""),
    };
    let other = other.text.replace(
        "param attention_norm [dim] init ones\n",
        "param ffn_norm [dim] init ones\n    param attention_norm [dim] init ones\n",
    );
    let checkpoint = Checkpoint::new(record(toml(""), other, "SSSS"));
    checkpoint.export("out", Element::F32, 1 << 40).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn another_family_and_a_damaged_checkpoint_are_refused() {
    let recall = include_str!("../../../../../models/recall.linc");
    let numbers = toml("").replace("multiple_of = 16\n", "");
    let checkpoint = Checkpoint::new(record(numbers, recall.to_owned(), "SSSS"));
    let said = checkpoint.refused(Element::F32);
    assert!(said.contains("layers.0.feed_forward.w1.weight: none in the text"), "{said}");
    let checkpoint = Checkpoint::new(plain(""));
    let weights = checkpoint.path("step-3").join(MODEL_FILE);
    let bytes = fs::read(&weights).expect("a file");
    fs::write(&weights, &bytes[..bytes.len() - 1]).expect("a file");
    assert!(checkpoint.refused(Element::F32).contains("truncated"));
}

#[test]
fn whoever_is_told_how_far_it_is_can_end_it() {
    let checkpoint = Checkpoint::new(plain(""));
    let options = || ExportOptions { element: Element::Bf16, shard_bytes: 1 << 40, architecture: llama() };
    let step = checkpoint.path("step-3");
    let mut told = vec![];
    let mut tell = |done, total| {
        told.push((done, total));
        true
    };
    export(&step, &checkpoint.path("whole"), &options(), &mut tell).unwrap_or_else(|e| panic!("{e}"));
    assert!(told.is_sorted() && told.last().is_some_and(|(done, total)| done == total), "{:?}", told.last());
    // While it writes, compares tensors, or loads them for a text.
    for end in [1, told.len() / 3, told.len() - 1] {
        let (mut calls, out) = (0, checkpoint.path("out"));
        let mut tell = |_, _| {
            calls += 1;
            calls < end
        };
        let ended = export(&step, &out, &options(), &mut tell).map(|_| ()).expect_err("ended").to_string();
        assert!(ended.contains("stopped") && calls == end && !out.exists(), "{ended}");
        calls = 0;
        let mut tell = |_, _| {
            calls += 1;
            calls < 2
        };
        import(&checkpoint.path("whole"), &out, &llama(), &mut tell).map(|_| ()).expect_err("ended");
        assert!(calls == 2 && !out.exists());
    }
    assert_eq!(fs::read_dir(checkpoint.home.path()).expect("a folder").count(), 2, "something is left");
}

#[test]
fn hybrids_come_back_with_their_layers_and_options() {
    let options = "\n[linear_attention]\nrope = false\ntemperature = 2.5\nchunk = 16\n";
    let scaled = "\n[rope_scaling]\nfactor = 8.0\nlow_freq_factor = 1.0\nhigh_freq_factor = 4.0\noriginal_max_position_embeddings = 32\n";
    for (more, layers) in
        [("", "LSLS"), (options, "LLLL"), (scaled, "SLLS"), ("tie_embeddings = true\n", "LLLS")]
    {
        let checkpoint = Checkpoint::new(record(toml(more), llama().text, layers));
        let exported = checkpoint.export("out", Element::F32, 9000).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(exported.logits, Evaluated::Same { rounding: 0.0 });
        assert_eq!(exported.model.kinds.len(), layers.len());
        let back = checkpoint.path("back");
        let imported = import(&checkpoint.path("out"), &back, &llama(), &mut |_, _| true);
        let imported = imported.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(imported.model.layer_map().replace(' ', ""), layers);
        assert!(tensors(&back) == tensors(&checkpoint.path("step-3")), "{layers}: other bits");
        let linear = imported.model.config().linear_attention();
        let expected = if more == options { (false, 2.5, 16) } else { (true, 3.0, 64) };
        assert_eq!((linear.rope, linear.temperature, linear.chunk), expected);
        assert_eq!(imported.model.config().rope_scaling().is_some(), more == scaled);
        let config = checkpoint.json("out/config.json");
        assert_eq!(config["model_type"], json!("linc"));
        assert_eq!(config["auto_map"]["AutoModelForCausalLM"], json!("modeling_linc.LincForCausalLM"));
        let kind = |letter| if letter == 'L' { "linear_attention" } else { "full_attention" };
        assert_eq!(config["layer_types"], json!(layers.chars().map(kind).collect::<Vec<_>>()));
        // The classes that config.json names are there.
        for (file, class) in
            [("configuration_linc.py", "LincConfig"), ("modeling_linc.py", "LincForCausalLM")]
        {
            let text = fs::read_to_string(checkpoint.path("out").join(file)).expect("a file");
            assert!(text.contains(&format!("class {class}(")), "{file}");
        }
    }
    let plain = Checkpoint::new(plain(""));
    plain.export("out", Element::F32, 1 << 40).unwrap_or_else(|e| panic!("{e}"));
    assert!(!plain.path("out/modeling_linc.py").exists());
}

#[test]
fn heads_that_transformers_refuses_in_a_llama_get_the_class_of_hybrids() {
    let overrides =
        [("n_heads", 6.0), ("head_dim", 8.0)].map(|(key, value)| (key.to_owned(), value)).to_vec();
    let checkpoint = Checkpoint::new(ModelRecord { overrides, ..plain("") });
    let exported = checkpoint.export("out", Element::F32, 1 << 40).unwrap_or_else(|e| panic!("{e}"));
    assert!(
        exported.notes.iter().any(|note| note.contains("32 features and 6 heads")),
        "{:?}",
        exported.notes
    );
    let config = checkpoint.json("out/config.json");
    assert_eq!((&config["model_type"], &config["num_attention_heads"]), (&json!("linc"), &json!(6)));
    assert_eq!(config["layer_types"], json!(vec!["full_attention"; 4]));
    assert!(checkpoint.path("out/modeling_linc.py").exists());
    let back = checkpoint.path("back");
    import(&checkpoint.path("out"), &back, &llama(), &mut |_, _| true).unwrap_or_else(|e| panic!("{e}"));
    assert!(tensors(&back) == tensors(&checkpoint.path("step-3")), "other bits");
}

#[test]
fn a_kind_of_attention_that_exported_models_lack_is_refused() {
    let mut elu = plain("");
    elu.layers[2] = "elu".into();
    let said = Checkpoint::new(elu).refused(Element::F32);
    assert!(said.contains("a layer has elu attention"), "{said}");
}

#[test]
fn an_edit_of_a_hybrid_is_refused_as_one_of_a_llama_is() {
    let text = llama().text.replacen("causal = true", "causal = kind == softmax", 1);
    let checkpoint = Checkpoint::new(record(toml(""), text, "LSLS"));
    let said = checkpoint.refused(Element::F32);
    assert!(
        said.contains("it has `attention` in layers.0/attention")
            && said.contains("causal = kind == softmax"),
        "{said}"
    );
}
