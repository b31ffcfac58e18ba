//! A model as the driver knows it: its two texts, its numbers, and the attention kind of every layer.

use std::collections::BTreeSet;

use linc_ir::{AttentionFamily, AttentionKind, EfficientForm, Graph, Op, ParamRole, Scope, param_roles};
use linc_lang::{
    Architecture, BuildShape, BuiltModel, Diagnostics, LinearAttentionOptions, ModelConfig, Source, build,
};
use linc_passes::attention::{self, EfficientOptions, EluOptions, SoftmaxOptions};
use linc_passes::placement::{Placement, Ratio, describe_share, layer_kinds, layer_map};

use crate::error::CompileError;
use crate::{PassError, Target, names};

/// A parsed model with its layers' attention decided.
#[derive(Clone, Debug)]
pub struct Model {
    architecture: Architecture,
    config: ModelConfig,
    /// Share of linear layers that was asked for; [`Model::share`] is what resulted.
    pub asked: Option<Ratio>,
    /// Where the linear layers are.
    pub placement: Placement,
    /// Attention kind of every layer.
    pub kinds: Vec<AttentionKind>,
    /// Sizes of the model.
    pub sizes: Sizes,
    /// The batches that it is trained on: what `batch` and `seq` stand for in its text.
    pub shape: BatchShape,
    /// Its attentions in the order of the text, layer by layer; a layer may have none, or several.
    pub attentions: Vec<Attention>,
    /// Its parameters, in the order of the text.
    pub parameters: Vec<Parameter>,
    /// The text reads `seq`.
    pub reads_seq: bool,
    /// The text reads `batch`.
    pub reads_batch: bool,
    /// The text asks for the kind of a layer: another placement makes another model of it.
    pub reads_kind: bool,
}

/// A batch of sequences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
}

/// One parameter of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// Its name in checkpoints.
    pub name: String,
    /// Number of elements.
    pub numel: u64,
    /// What reads it in the model, by which an optimizer groups it.
    pub roles: BTreeSet<ParamRole>,
    /// The layer and the blocks that the text declares it in.
    pub scope: Scope,
}

/// One attention of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attention {
    /// Its layer, from 0.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Features of a head.
    pub head_dim: usize,
}

/// The sizes that reports and checks need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Number of transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Vocabulary.
    pub vocab_size: usize,
    /// Features of a token.
    pub dim: usize,
    /// Trainable numbers.
    pub params: u64,
    /// Trainable numbers that are only looked up (untied embedding).
    pub embedding_params: u64,
}

impl Model {
    /// Reads both texts, applies `overrides` (dotted key, number), lays out the kinds of attention, and builds the model for
    /// batches of a shape, which finds what is wrong with it. Parameters may be as long as the sequences, so programs that
    /// share them are made of models with one `shape.seq`.
    ///
    /// # Errors
    /// [`CompileError::Model`] with source positions, [`CompileError::Pass`] for a placement that the model does not
    /// have or that contradicts the ratio.
    pub fn new(
        config: &Source,
        architecture: &Source,
        overrides: &[(String, f64)],
        asked: Option<Ratio>,
        placement: Placement,
        shape: BatchShape,
    ) -> Result<Self, CompileError> {
        let config = numbers(config, overrides)?;
        let kinds = layer_kinds(config.n_layers(), asked, &placement)?;
        let model = Model::of(config, architecture, kinds, shape)?;
        Ok(Model { asked, placement, ..model })
    }

    /// The same with layers whose kinds are known, as a checkpoint's metadata gives them.
    ///
    /// # Errors
    /// [`CompileError::Model`] with source positions, [`CompileError::Pass`] if the model has another number of layers.
    pub fn with_kinds(
        config: &Source,
        architecture: &Source,
        overrides: &[(String, f64)],
        kinds: Vec<AttentionKind>,
        shape: BatchShape,
    ) -> Result<Self, CompileError> {
        let config = numbers(config, overrides)?;
        if kinds.len() != config.n_layers() {
            let (given, layers) = (kinds.len(), config.n_layers());
            let message =
                format!("{given} kinds of attention are given for the {layers} layers of the model");
            return Err(PassError::Setting(message).into());
        }
        Model::of(config, architecture, kinds, shape)
    }

    fn of(
        config: ModelConfig,
        architecture: &Source,
        kinds: Vec<AttentionKind>,
        shape: BatchShape,
    ) -> Result<Self, CompileError> {
        let architecture = Architecture::parse(architecture)?;
        let BatchShape { batch, seq } = shape;
        let built = build(&architecture, &config, &BuildShape { batch, seq, rope_len: seq }, &kinds)?;
        let (sizes, attentions) = (sizes(&built), attentions(&built.graph));
        let parameters = parameters(&built.graph, &kinds);
        let (reads_seq, reads_batch, reads_kind) = (built.reads_seq, built.reads_batch, built.reads_kind);
        let (asked, placement) = (None, Placement::default());
        Ok(Model {
            architecture,
            config,
            asked,
            placement,
            kinds,
            sizes,
            shape,
            attentions,
            parameters,
            reads_seq,
            reads_batch,
            reads_kind,
        })
    }

    /// Builds the graph for a batch shape.
    pub(crate) fn build(&self, shape: BuildShape) -> Result<BuiltModel, CompileError> {
        Ok(build(&self.architecture, &self.config, &shape, &self.kinds)?)
    }

    /// Errors with the places in the model file that give these numbers.
    pub(crate) fn point_at(&self, errors: Diagnostics, names: &[&str]) -> Diagnostics {
        self.config.point_at(errors, names)
    }

    /// Options of each kind of attention, in the forms that suit a machine.
    pub fn attention_options(&self, target: Target) -> attention::AttentionOptions {
        let LinearAttentionOptions { rope, temperature, chunk } = self.config.linear_attention();
        let form = match target {
            Target::Cpu => EfficientForm::Fused,
            Target::Cuda(_) => EfficientForm::Chunked,
        };
        attention::AttentionOptions {
            softmax: SoftmaxOptions { decode_range: linc_kernels::decode_range(target.into()) },
            efficient: EfficientOptions { rope, temperature, chunk, form },
            elu: EluOptions { rope, chunk },
        }
    }

    /// `name flavor`, as in `llama3 1B`.
    pub fn title(&self) -> String {
        format!("{} {}", self.config.name, self.config.flavor)
    }

    /// The family's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The size's name.
    pub fn flavor(&self) -> &str {
        &self.config.flavor
    }

    /// Share of linear layers.
    pub fn share(&self) -> Ratio {
        Ratio::of(&self.kinds)
    }

    /// The share for people, beside what was asked for if that is another: `0.3 of 4 layers: 1 layer, 0.25`.
    pub fn share_text(&self) -> String {
        describe_share(&self.kinds, self.asked)
    }

    /// The numbers of the model file, with those that replace them.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// `LLLS LLLS ..`
    pub fn layer_map(&self) -> String {
        layer_map(&self.kinds)
    }

    /// The `.linc` file as it was given.
    pub fn architecture_text(&self) -> &str {
        &self.architecture.source().text
    }

    /// FLOPs per token of a training step in TorchTitan's convention: `6·(params - embedding)` and, per attention,
    /// `12·heads·head_dim·seq` for softmax or `12·heads·head_dim²` for linear attention.
    pub fn titan_flops_per_token(&self, seq: usize) -> u64 {
        let per_attention = |a: &Attention| {
            let span = match self.kinds.get(a.layer).map(|kind| kind.family()) {
                Some(AttentionFamily::Linear) => a.head_dim,
                Some(AttentionFamily::Softmax) | None => seq,
            };
            12 * (a.heads * a.head_dim * span) as u64
        };
        let s = &self.sizes;
        6 * (s.params - s.embedding_params) + self.attentions.iter().map(per_attention).sum::<u64>()
    }
}

/// A model file with some numbers replaced.
fn numbers(config: &Source, overrides: &[(String, f64)]) -> Result<ModelConfig, CompileError> {
    let mut config = ModelConfig::parse(config)?;
    for (key, value) in overrides {
        let key_at_fault = |errors| CompileError::Override { key: key.clone(), errors };
        config.override_number(key, *value).map_err(key_at_fault)?;
    }
    Ok(config)
}

fn attentions(graph: &Graph) -> Vec<Attention> {
    let attention = |id| {
        let Op::Attention(spec) = graph.op(id) else { return None };
        let q = &graph.ty(graph.operands(id)[0]).shape.0;
        Some(Attention { layer: spec.layer, heads: q[2], head_dim: q[3] })
    };
    graph.nodes().filter_map(attention).collect()
}

fn parameters(graph: &Graph, kinds: &[AttentionKind]) -> Vec<Parameter> {
    let mut roles = param_roles(graph, kinds, graph.output(names::LOGITS));
    let parameter = |id| {
        let Op::Param { name, ty, .. } = graph.op(id) else { return None };
        let (name, numel) = (name.clone(), ty.shape.numel() as u64);
        let (roles, scope) = (roles.remove(&id).unwrap_or_default(), graph.node(id).scope.clone());
        Some(Parameter { name, numel, roles, scope })
    };
    graph.nodes().filter_map(parameter).collect()
}

fn sizes(built: &BuiltModel) -> Sizes {
    let looked_up_only = |graph: &Graph| {
        let tables = graph
            .nodes()
            .filter(|n| matches!(graph.op(*n), Op::Embedding { .. }))
            .map(|n| graph.operands(n)[0]);
        let only = tables.filter(|t| {
            graph.users(*t).iter().all(|(user, _)| matches!(graph.op(*user), Op::Embedding { .. }))
        });
        only.map(|t| graph.ty(t).shape.numel() as u64).sum()
    };
    Sizes {
        n_layers: built.n_layers,
        n_heads: built.n_heads,
        n_kv_heads: built.n_kv_heads,
        head_dim: built.head_dim,
        vocab_size: built.vocab_size,
        dim: built.dim,
        params: built.parameter_count() as u64,
        embedding_params: looked_up_only(&built.graph),
    }
}
