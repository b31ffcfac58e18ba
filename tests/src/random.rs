//! Random architectures: the texts of a `.linc` and its TOML, with what a user might write: norms, gates, parallel
//! blocks, norms of q and k, norms behind a block, biases, tied weights, grouped heads, odd sizes, learned positions, layers
//! without attention and with two.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use linc_driver::{
    BatchShape, MemoryLimit, Model, OPTIONAL_PASSES, Placement, Precision, RecomputePolicy, Source,
};
use proptest::prelude::*;

/// An architecture with the settings to compile it.
#[derive(Clone, Debug)]
pub struct Architecture {
    /// Layers; `linear` of them use linear attention.
    pub layers: usize,
    /// Layers with linear attention.
    pub linear: usize,
    /// Where they are.
    pub placement: &'static str,
    /// Attentions of a layer.
    pub attentions: usize,
    /// What a token knows of its place, besides rotary positions.
    pub positions: Positions,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Query heads per key/value head.
    pub group: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Features of a token.
    pub dim: usize,
    /// Features of the feed-forward network.
    pub ffn: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Batch and sequence.
    pub shape: (usize, usize),
    /// Chunk of linear attention.
    pub chunk: usize,
    /// Multiplier of q and k of linear attention, before their softmaxes.
    pub temperature: f64,
    /// Body of the norm.
    pub norm: &'static str,
    /// Body of the gate.
    pub gate: &'static str,
    /// Switches of the architecture.
    pub with: Switches,
    /// Number format; f32 unless a test asks for another.
    pub precision: Precision,
    /// What the backward recomputes.
    pub recompute: RecomputePolicy,
    /// Optional passes that are off.
    pub disabled: BTreeSet<String>,
    /// For parameters and tokens.
    pub seed: u64,
}

/// What is in the architecture.
#[derive(Clone, Copy, Debug)]
pub struct Switches {
    /// Attention and feed-forward network read the same input.
    pub parallel: bool,
    /// Norms of q and k.
    pub qk_norm: bool,
    /// Norms behind the blocks.
    pub post_norm: bool,
    /// A bias of the output projection.
    pub bias: bool,
    /// A product of gate and value instead of one hidden layer.
    pub gated: bool,
    /// Gate and value in one weight.
    pub joined: bool,
    /// The embedding is the output weight.
    pub tied: bool,
    /// Rotary positions.
    pub rope: bool,
    /// Rotary positions in linear layers, too.
    pub linear_rope: bool,
    /// Causal attention.
    pub causal: bool,
}

/// What the text makes of the number of tokens of a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Positions {
    /// Nothing.
    None,
    /// A learned vector for each position.
    Learned,
    /// A part of a longer table of them.
    Sliced,
    /// A table whose columns they are.
    Columns,
    /// A table in one axis, of which a view makes rows.
    Flat,
    /// A factor for all tokens.
    Length,
}

impl Positions {
    const ALL: [Positions; 6] = [
        Positions::None,
        Positions::Learned,
        Positions::Sliced,
        Positions::Columns,
        Positions::Flat,
        Positions::Length,
    ];

    /// Statements that bind `x` anew.
    fn text(self) -> &'static str {
        match self {
            Positions::None => "",
            Positions::Learned => "param places [seq, dim] init normal(0.5)\nx = x + places\n",
            Positions::Sliced => {
                "param places [seq + 3, dim] init normal(0.5)\nx = x + 0.5 * slice(places, 2, seq, 0)\n"
            }
            Positions::Columns => "param places [dim, seq] init normal(0.5)\nx = x + places.T\n",
            Positions::Flat => {
                "param places [seq * dim] init normal(0.5)\nx = x + silu(reshape(places, [seq, dim]))\n"
            }
            Positions::Length => "x = x * (1.0 + 1.0 / (seq + 1.0))\n",
        }
    }
}

const NORMS: [&str; 4] = [
    "return rms_norm(x, w, 0.001)",
    "return x * rsqrt(mean(x * x) + 0.01) * w",
    "c = x - mean(x) return c / sqrt(mean(c * c) + 0.01) * w",
    "return x * w",
];

const GATES: [&str; 7] = [
    "return silu(x)",
    "return gelu(x)",
    "return relu(x)",
    "return x * sigmoid(1.5 * x)",
    "return tanh(x) + 0.1 * x",
    "return min(max(x, -0.5), 1.0)",
    "return log(1.0 + exp(-x)) / 2.0",
];

impl Architecture {
    /// The `.linc` text.
    pub fn linc(&self) -> String {
        let Architecture { norm, gate, with, .. } = self;
        let mut text = format!("fn norm(x, w) {{ {norm} }}\nfn gate(x) {{ {gate} }}\n\n");
        text += "model random(tokens: [batch, seq] int) {\n";
        if with.rope && self.attentions > 0 {
            text += "let rope = rope_table(head_dim, rope_theta)\n";
        }
        text += "param tok_embeddings [vocab_size, dim] init normal(1.0)\nx = embedding(tokens, tok_embeddings)\n";
        text += self.positions.text();
        text += "for _layer in layers {\nparam attention_norm [dim] init ones\nh = norm(x, attention_norm)\n";
        text += &self.attention();
        if !with.parallel {
            text += "x = x + a\nparam ffn_norm [dim] init ones\nh = norm(x, ffn_norm)\n";
        }
        text += &self.feed_forward();
        text += if with.parallel { "x = x + a + f\n}\n" } else { "x = x + f\n}\n" };
        text += "param norm_out [dim] init ones\n";
        text += if with.tied {
            "logits = norm(x, norm_out) @ tok_embeddings.T\n}\n"
        } else {
            "param output [vocab_size, dim] init normal(0.02)\nlogits = norm(x, norm_out) @ output.T\n}\n"
        };
        text
    }

    /// Binds `a` from `h`.
    fn attention(&self) -> String {
        let with = self.with;
        let mut text = String::from("a = h\nblock attention {\n");
        if self.attentions == 0 {
            for name in ["wv", "wo"] {
                let _ = writeln!(text, "param {name} [n_kv_heads * head_dim, dim] init trunc_normal(0.02)");
            }
            return text + "a = (h @ wv.T) @ wo\n}\n";
        }
        for (name, heads) in [("wq", "n_heads"), ("wk", "n_kv_heads"), ("wv", "n_kv_heads")] {
            let _ = writeln!(text, "param {name} [{heads} * head_dim, dim] init trunc_normal(0.02)");
        }
        text += "param wo [n_heads * head_dim, dim] init trunc_normal(0.02)\n";
        for (x, heads) in [("q", "n_heads"), ("k", "n_kv_heads"), ("v", "n_kv_heads")] {
            let _ = writeln!(text, "{x} = split_heads(h @ w{x}.T, {heads})");
        }
        if with.qk_norm {
            text += "param q_norm [head_dim] init ones\nparam k_norm [head_dim] init ones\n";
            text += "q = norm(q, q_norm)\nk = norm(k, k_norm)\n";
        }
        let rope = if with.rope { ", rope = rope" } else { "" };
        let causal = with.causal;
        let _ = writeln!(text, "a = merge_heads(attention(q, k, v{rope}, causal = {causal}))");
        for _ in 1..self.attentions {
            let _ = writeln!(text, "a = a + merge_heads(attention(q, v, k{rope}, causal = {causal}))");
        }
        text += "a = a @ wo\n";
        if with.bias {
            let bias = "param bias [dim] init zeros\na = a + bias\n";
            // In some models, of linear layers only.
            text +=
                &if with.parallel { format!("if kind == linear {{\n{bias}}}\n") } else { bias.to_string() };
        }
        if with.post_norm {
            text += "param post_norm [dim] init ones\na = norm(a, post_norm)\n";
        }
        text + "}\n"
    }

    /// Binds `f` from `h`.
    fn feed_forward(&self) -> String {
        let with = self.with;
        let mut text =
            String::from("f = h\nblock feed_forward {\nparam w2 [dim, ffn] init trunc_normal(0.02)\n");
        text += match (with.gated, with.joined) {
            (true, true) => {
                "param w13 [2 * ffn, dim] init trunc_normal(0.02)\nu = h @ w13.T\n\
                 f = (gate(slice(u, 0, ffn)) * slice(u, ffn, ffn)) @ w2.T\n"
            }
            (true, false) => {
                "param w1 [ffn, dim] init trunc_normal(0.02)\nparam w3 [ffn, dim] init trunc_normal(0.02)\n\
                 f = (gate(h @ w1.T) * (h @ w3.T)) @ w2.T\n"
            }
            (false, _) => "param w1 [ffn, dim] init trunc_normal(0.02)\nf = gate(h @ w1.T) @ w2.T\n",
        };
        if with.post_norm {
            text += "param post_norm [dim] init ones\nf = norm(f, post_norm)\n";
        }
        text + "}\n"
    }

    /// The model TOML.
    pub fn toml(&self) -> String {
        format!(
            "name = \"random\"\nflavor = \"small\"\narchitecture = \"random.linc\"\n\
             dim = {}\nn_layers = {}\nn_heads = {}\nn_kv_heads = {}\nhead_dim = {}\nvocab_size = {}\n\
             [linear_attention]\nrope = {}\ntemperature = {:?}\nchunk = {}\n[constants]\nffn = {}\n",
            self.dim,
            self.layers,
            self.kv_heads * self.group,
            self.kv_heads,
            self.head_dim,
            self.vocab,
            self.with.linear_rope,
            self.temperature,
            self.chunk,
            self.ffn,
        )
    }

    /// The model as the driver takes it.
    ///
    /// # Panics
    /// If the texts do not build: they are meant to.
    pub fn model(&self) -> Model {
        let config = Source { path: "random.toml".into(), text: self.toml() };
        let architecture = Source { path: "random.linc".into(), text: self.linc() };
        let ratio = format!("{}/{}", self.linear, self.layers).parse().unwrap_or_else(|e| panic!("{e}"));
        let placement: Placement = self.placement.parse().unwrap_or_else(|e| panic!("{e}"));
        let shape = BatchShape { batch: self.shape.0, seq: self.shape.1 };
        Model::new(&config, &architecture, &[], Some(ratio), placement, shape)
            .unwrap_or_else(|e| panic!("{e}\n{}\n{}", architecture.text, config.text))
    }
}

prop_compose! {
    fn switches()(bits in any::<[bool; 10]>()) -> Switches {
        let [parallel, qk_norm, post_norm, bias, gated, joined, tied, rope, linear_rope, acausal] = bits;
        Switches { parallel, qk_norm, post_norm, bias, gated, joined, tied, rope, linear_rope, causal: !acausal }
    }
}

prop_compose! {
    /// A random architecture with one of these head sizes. Rotary positions need an even one.
    pub fn architecture(head_dims: &'static [usize])(
        (layers, linear) in (1usize..=3).prop_flat_map(|n| (Just(n), 0..=n)),
        placement in prop::sample::select(vec!["uniform", "front", "middle", "back"]),
        attentions in prop::sample::select(vec![1usize, 1, 1, 2, 0]),
        positions in prop::sample::select(Positions::ALL.to_vec()),
        (kv_heads, group) in (1usize..=2, 1usize..=3),
        head_dim in prop::sample::select(head_dims),
        (dim, ffn, vocab) in (3usize..=13, 1usize..=11, 2usize..=17),
        (batch, seq, chunk) in (1usize..=2, 1usize..=9, 1usize..=5),
        temperature in prop::sample::select(vec![0.5, 1.0, 2.0]),
        norm in prop::sample::select(NORMS.to_vec()),
        gate in prop::sample::select(GATES.to_vec()),
        with in switches(),
        recompute in prop::sample::select(vec![
            RecomputePolicy::None,
            RecomputePolicy::Selective,
            RecomputePolicy::Full,
            RecomputePolicy::Layers(2),
            RecomputePolicy::Budget(MemoryLimit::Share(0.3)),
        ]),
        disabled in prop::collection::vec(prop::sample::select(OPTIONAL_PASSES.to_vec()), 0..=2),
        seed in any::<u64>(),
    ) -> Architecture {
        Architecture {
            layers, linear, placement, attentions, positions, kv_heads, group, head_dim, dim, ffn, vocab,
            shape: (batch, seq), chunk, temperature, norm, gate, recompute,
            precision: Precision::Float32,
            with: Switches { rope: with.rope && head_dim % 2 == 0, ..with },
            disabled: disabled.into_iter().map(str::to_string).collect(),
            seed,
        }
    }
}
