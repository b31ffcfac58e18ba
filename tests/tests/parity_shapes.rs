//! The compiled program against the interpreter at the sizes that real models have: head sizes of 32 to 128, chunks of
//! 64 with every kind of ragged end, several blocks of tokens and of the vocabulary.

use linc_driver::names::{GRAD_NORM, LOSS};
use linc_driver::{
    AdamWSpec, AttentionKind, BatchShape, Entry, Model, OptimizerOptions, Options, PersistentLayout, Source,
    UpdateOp, compile,
};
use linc_ir::interp::run;
use linc_tests::reference::{bindings, distance, doubles, norm};
use linc_tests::{compiled, models};

/// A model of one linear and one softmax layer, and a batch.
struct Shape {
    /// Kind of the linear layer.
    linear: AttentionKind,
    dim: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    batch: usize,
    seq: usize,
}

impl Shape {
    fn model(&self) -> Model {
        let Shape { dim, heads, kv_heads, vocab, .. } = self;
        // The smallest feed-forward network that is not a whole number of tiles. Weights are drawn so large that a
        // temperature of 3 would saturate the softmaxes, whose gradients then are differences of equal numbers.
        let text = format!(
            "name = \"llama3\"\nflavor = \"shape\"\narchitecture = \"llama3.linc\"\nn_layers = 2\ndim = {dim}\n\
             n_heads = {heads}\nn_kv_heads = {kv_heads}\nvocab_size = {vocab}\nffn_dim_multiplier = 0.3\nmultiple_of = 24\n\
             [linear_attention]\ntemperature = 1.0\n"
        );
        let config = Source { path: "shape.toml".into(), text };
        let kinds = vec![self.linear, AttentionKind::Softmax];
        let shape = BatchShape { batch: self.batch, seq: self.seq };
        Model::with_kinds(&config, &models::source("llama3.linc"), &[], kinds, shape)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Loss, norm and every gradient: with beta1 = 0 and a norm that nothing exceeds, the first moments.
    fn check(&self) {
        let model = self.model();
        let adamw = AdamWSpec { beta1: 0.0, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
        let entry = Entry::Train(OptimizerOptions {
            update: UpdateOp::AdamW(adamw),
            groups: vec![],
            max_norm: 1e30,
            norms: vec![],
        });
        let options = Options { dumps: true, ..Options::new(self.batch, self.seq) };
        let done = compile(&model, &entry, &options, &mut PersistentLayout::default())
            .unwrap_or_else(|e| panic!("{e}"));
        let text = done.dumps.iter().rfind(|d| d.path.ends_with(".ir")).map(|d| d.text.as_str());
        let graph = linc_ir::parse(text.expect("a graph")).unwrap_or_else(|e| panic!("{e}"));
        let bindings = bindings(&graph, self.vocab, 11, false);
        let expected = doubles(&run::<f64>(&graph, &bindings).unwrap_or_else(|e| panic!("{e}")));
        let found = compiled::run(&done.plan, &bindings, 2);

        let at =
            format!("{} of {} x {}, heads of {}", self.vocab, self.batch, self.seq, self.dim / self.heads);
        let moments = expected.keys().filter(|name| name.ends_with(".exp_avg"));
        let compared: Vec<&str> = moments.map(String::as_str).chain([LOSS, GRAD_NORM]).collect();
        assert_eq!(compared.len(), 3 + 2 * 9 + 2, "parameters of two layers, embedding, norm and output");
        for name in compared {
            let (found, expected) = (&found[name], &expected[name]);
            let (error, scale) = (distance(found, expected), norm(expected));
            assert!(scale > 0.0 && error <= 1e-4 * scale, "vocabulary {at}: {name}: {error:e} of {scale:e}");
        }
    }
}

#[test]
fn sequences_of_every_length_against_the_chunk() {
    for seq in [2, 63, 64, 65, 129, 200, 257] {
        Shape { linear: AttentionKind::Efficient, dim: 64, heads: 2, kv_heads: 1, vocab: 50, batch: 2, seq }
            .check();
    }
}

#[test]
fn heads_of_every_size() {
    for head in [32, 64, 96, 128] {
        Shape {
            linear: AttentionKind::Efficient,
            dim: 2 * head,
            heads: 2,
            kv_heads: 2,
            vocab: 31,
            batch: 1,
            seq: 100,
        }
        .check();
    }
    Shape { linear: AttentionKind::Efficient, dim: 256, heads: 8, kv_heads: 2, vocab: 31, batch: 1, seq: 70 }
        .check();
    // Sequences and heads enough for a backward of softmax attention in one kernel.
    Shape { linear: AttentionKind::Efficient, dim: 64, heads: 4, kv_heads: 2, vocab: 31, batch: 8, seq: 70 }
        .check();
}

#[test]
fn the_loss_over_several_blocks_of_tokens() {
    // Logits of 64 tokens exist at once: three blocks, the last of one token.
    Shape {
        linear: AttentionKind::Efficient,
        dim: 16,
        heads: 2,
        kv_heads: 1,
        vocab: 65_537,
        batch: 1,
        seq: 129,
    }
    .check();
}

#[test]
fn elu_features() {
    let shape = |seq, dim, heads, kv_heads| {
        Shape { linear: AttentionKind::Elu, dim, heads, kv_heads, vocab: 31, batch: 2, seq }.check();
    };
    for seq in [2, 63, 64, 65, 200] {
        shape(seq, 64, 2, 1);
    }
    for head in [8, 40, 128] {
        shape(70, 4 * head, 4, 2);
    }
}
