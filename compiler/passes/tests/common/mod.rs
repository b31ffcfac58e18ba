//! A small Llama for pass tests, random bindings for it, and the pipeline with its settings.

use std::collections::BTreeSet;

use linc_ir::interp::{Bindings, Tensor};
use linc_ir::{AttentionFamily, DType, EfficientForm, Graph, Init, Op};
use linc_lang::{Architecture, BuildShape, ModelConfig, Source, build};
use linc_passes::attention::{self, EfficientOptions, EluOptions, SoftmaxOptions};
use linc_passes::loss_scale::LossScale;
use linc_passes::memory::{MemoryPlan, PersistentLayout, StorageAssignment};
use linc_passes::mesh::Mesh;
use linc_passes::pipeline::PipelineOptions;
use linc_passes::precision::Precision;
use linc_passes::recompute::Policy;
use linc_passes::recompute::budget::Machine;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}

/// Two layers, four query heads, two key/value heads, vocabulary 13.
pub(crate) fn tiny_llama(batch: usize, seq: usize) -> Graph {
    let config = source("llama3_nano.toml", include_str!("../../../../models/llama3_nano.toml"));
    let mut config = ModelConfig::parse(&config).expect("the nano model");
    for (key, value) in [
        ("dim", 32.0),
        ("n_layers", 2.0),
        ("n_heads", 4.0),
        ("n_kv_heads", 2.0),
        ("vocab_size", 13.0),
        ("multiple_of", 8.0),
    ] {
        config.override_number(key, value).expect("a number of the model");
    }
    built(&config, include_str!("../../../../models/llama3.linc"), batch, seq)
}

/// An architecture that reads no more than the numbers which each model has: two layers of dimension 8.
pub(crate) fn plain(architecture: &str, batch: usize, seq: usize) -> Graph {
    let text = "name = 'a'\nflavor = 'b'\narchitecture = 'c.linc'\n\
                dim = 8\nn_layers = 2\nn_heads = 2\nvocab_size = 13\n";
    let config = ModelConfig::parse(&source("c.toml", text)).expect("a model file");
    built(&config, architecture, batch, seq)
}

fn built(config: &ModelConfig, architecture: &str, batch: usize, seq: usize) -> Graph {
    let architecture = Architecture::parse(&source("model.linc", architecture)).expect("an architecture");
    let shape = BuildShape { batch, seq, rope_len: seq };
    build(&architecture, config, &shape, &[]).unwrap_or_else(|e| panic!("{e}")).graph
}

pub(crate) fn options(kinds: &str) -> PipelineOptions {
    let family = |c| if c == 'L' { AttentionFamily::Linear } else { AttentionFamily::Softmax };
    PipelineOptions {
        kinds: kinds.chars().map(|c| family(c).default_kind()).collect(),
        attention: attention::AttentionOptions {
            softmax: SoftmaxOptions::default(),
            efficient: EfficientOptions {
                rope: false,
                temperature: 1.5,
                chunk: 4,
                form: EfficientForm::Fused,
            },
            elu: EluOptions { rope: false, chunk: 4 },
        },
        min_loss_rows: 64,
        sort_tokens: true,
        pack_heads: Some(1),
        narrow_weights: false,
        documents: false,
        precision: Precision::Float32,
        loss_scale: LossScale::default(),
        recompute: Policy::Selective,
        machine: Machine { cost: |_, _| (1, 1), balance: 1.0 },
        mesh: Mesh::default(),
        reduce: Default::default(),
        disabled: BTreeSet::new(),
    }
}

/// Addresses where every node is one step.
pub(crate) fn allocated(
    graph: &Graph,
    assignment: &StorageAssignment,
    layout: &PersistentLayout,
) -> MemoryPlan {
    assignment.allocate(graph, layout, &vec![1; assignment.order.len()])
}

/// Random parameters (at a scale where gradients are not tiny), tokens, targets (one ignored), learning rate, step.
pub(crate) fn bindings(graph: &Graph, vocab: i32) -> Bindings<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut bindings = Bindings::new();
    for id in graph.nodes() {
        let (name, ty, init) = match graph.op(id) {
            Op::Input { name, ty } => (name, ty, None),
            Op::Param { name, ty, init } => (name, ty, Some(init)),
            _ => continue,
        };
        let n = ty.shape.numel();
        let tensor = if ty.dtype == DType::I32 {
            let mut ids: Vec<i32> = (0..n).map(|_| rng.random_range(0..vocab)).collect();
            if name == linc_passes::loss::TARGETS {
                ids[n / 2] = -1;
            }
            Tensor::int(ty.shape.clone(), ids)
        } else {
            let draw = |rng: &mut ChaCha8Rng| match init {
                Some(Init::Ones) => 1.0 + 0.2 * rng.random_range(-1.0..1.0),
                Some(_) => 0.4 * rng.random_range(-1.0..1.0),
                None => 0.01,
            };
            Tensor::float(ty.shape.clone(), (0..n).map(|_| draw(&mut rng)).collect())
        };
        bindings.insert(name.clone(), tensor);
    }
    bindings.insert(linc_passes::optimizer::STEP.into(), Tensor::scalar(3.0));
    bindings
}
