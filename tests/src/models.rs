//! The shipped models, and a hybrid that is small enough to read, as the driver compiles them.

use std::collections::BTreeMap;

use linc_driver::{
    BatchShape, Compiled, Entry, Model, MuonSpec, OptimizerOptions, Options, ParamGroup, ParamRole,
    PersistentLayout, Placement, Source, UpdateRule, compile,
};

use crate::tree::read;

/// The flavours of Llama 3 with their numbers of parameters.
pub const FLAVORS: [(&str, u64); 6] = [
    ("debugmodel", 6_163_712),
    ("1b", 1_235_814_400),
    ("3b", 3_212_749_824),
    ("8b", 8_030_261_248),
    ("70b", 70_553_706_496),
    ("405b", 405_853_388_800),
];

/// Numbers of the small hybrid that differ from the nano flavour's: two layers of dimension 32 with four query and two
/// key/value heads, a feed-forward network of 48, a vocabulary of 16, chunks of 4.
const SMALL: [(&str, f64); 8] = [
    ("dim", 32.0),
    ("n_layers", 2.0),
    ("n_heads", 4.0),
    ("n_kv_heads", 2.0),
    ("vocab_size", 16.0),
    ("ffn_dim_multiplier", 0.5),
    ("multiple_of", 8.0),
    ("linear_attention.chunk", 4.0),
];

/// A file under `models/`.
pub fn source(name: &str) -> Source {
    let path = format!("models/{name}");
    let text = read(&path);
    Source { path, text }
}

/// A flavour of Llama 3 at a ratio, placed uniformly.
///
/// # Panics
/// If the model does not compile: the tests that ask for it cannot go on.
pub fn flavor(name: &str, ratio: &str) -> Model {
    sized(name, &[], ratio)
}

/// The small hybrid: one linear layer, then one softmax layer.
///
/// # Panics
/// As [`flavor`].
pub fn small_hybrid() -> Model {
    sized("nano", &SMALL, "0.5")
}

/// A flavour with other numbers, by their keys in the TOML.
///
/// # Panics
/// As [`flavor`].
pub fn sized(name: &str, numbers: &[(&str, f64)], ratio: &str) -> Model {
    let numbers: Vec<(String, f64)> = numbers.iter().map(|(key, value)| ((*key).into(), *value)).collect();
    let (config, architecture) = (source(&format!("llama3_{name}.toml")), source("llama3.linc"));
    let ratio = ratio.parse().unwrap_or_else(|e| panic!("{e}"));
    // Nothing in the text depends on it.
    let shape = BatchShape { batch: 1, seq: 16 };
    Model::new(&config, &architecture, &numbers, Some(ratio), Placement::Uniform, shape)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The training program with usual hyperparameters.
pub fn training() -> Entry {
    Entry::Train(OptimizerOptions::default())
}

/// The training program with Muon for the matrices of a model.
pub fn muon(model: &Model) -> OptimizerOptions {
    let params = model.parameters.iter().filter(|param| param.roles.contains(&ParamRole::Matrix));
    let params = params.map(|param| param.name.clone()).collect();
    let group = ParamGroup { params, rule: UpdateRule::Muon(MuonSpec::default()), lr: 1.0 };
    OptimizerOptions { groups: vec![group], ..OptimizerOptions::default() }
}

/// Compiles a program of a model on its own.
///
/// # Panics
/// As [`flavor`].
pub fn compiled(model: &Model, entry: &Entry, options: &Options) -> Compiled {
    compile(model, entry, options, &mut PersistentLayout::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// The texts of all stages of a program of a model by path.
///
/// # Panics
/// As [`flavor`].
pub fn dumps(model: &Model, entry: &Entry, batch: usize, seq: usize) -> BTreeMap<String, String> {
    let options = Options { dumps: true, ..Options::new(batch, seq) };
    compiled(model, entry, &options).dumps.into_iter().map(|dump| (dump.path, dump.text)).collect()
}
