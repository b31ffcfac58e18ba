//! From a syntax tree and the numbers of a model to a graph: statements.
//!
//! Building runs the program once: numbers are computed, `if` takes its branch, layers are unrolled,
//! functions are expanded, and each tensor operation adds nodes to the graph. No weights are allocated.

use std::collections::BTreeMap;
use std::fmt;

use linc_ir::{AttentionFamily, AttentionKind, Graph, Op, RopeScaling, Shape, TensorType};

use crate::Architecture;
use crate::ast::*;
use crate::check::{self, Outside, RESULT};
use crate::config::{ModelConfig, Number, Setting};
use crate::diagnostics::{Diagnostic, Diagnostics, Label};
use crate::value::{Dim, MAX_ELEMENTS, Tensor, Value, describe_shape, elements, shape};

mod origin;
mod param;
mod statement;

pub use origin::Origins;

/// The sizes that are not the model's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuildShape {
    /// Sequences at once.
    pub batch: usize,
    /// Tokens per sequence.
    pub seq: usize,
    /// Positions that rope tables cover, at least `seq`.
    pub rope_len: usize,
}

/// A model as a graph.
#[derive(Clone, Debug)]
pub struct BuiltModel {
    /// One input leaf `tokens`, i32 `[batch, seq]`; one output `logits`, f32 `[batch, seq, vocab_size]` or
    /// `[batch * seq, vocab_size]`. Attention is abstract; each node's scope is `layers.3/attention`.
    pub graph: Graph,
    /// Where in the text each node comes from.
    pub origins: Origins,
    /// The text reads the number of tokens of a sequence, so that other lengths may make another model of it.
    pub reads_seq: bool,
    /// The text reads the number of sequences of a batch.
    pub reads_batch: bool,
    /// The text asks for the kind of a layer, so that another placement makes another model of it.
    pub reads_kind: bool,
    /// Number of layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Features of a token.
    pub dim: usize,
}

impl BuiltModel {
    /// Number of trainable numbers; a tied weight counts once.
    pub fn parameter_count(&self) -> usize {
        let size = |op: &Op| if let Op::Param { ty, .. } = op { ty.shape.numel() } else { 0 };
        self.graph.nodes().map(|n| size(self.graph.op(n))).sum()
    }
}

/// Builds the graph of `arch` with the numbers of `config`. `kinds` has the kind of attention of each layer, for texts that
/// ask for it; layers that it lacks have softmax attention.
///
/// # Errors
/// Undefined, duplicate or unused names, shapes that do not fit, numbers that do not divide: all name errors
/// of the file at once, or else the first error met while building.
pub fn build(
    arch: &Architecture,
    config: &ModelConfig,
    shape: &BuildShape,
    kinds: &[AttentionKind],
) -> Result<BuiltModel, Diagnostics> {
    let sources = || vec![arch.source().clone(), config.source().clone()];
    let fail = |errors| Err(Diagnostics::new(errors, sources()));
    if elements([shape.batch, shape.seq]).is_none() || elements([shape.rope_len]).is_none() {
        let message = format!(
            "a batch of {} x {} tokens, with room for positions up to {}: each number and the tokens of the batch must be from 1 to {MAX_ELEMENTS}; ask for fewer sequences or tokens",
            shape.batch, shape.seq, shape.rope_len
        );
        return fail(vec![Diagnostic::nowhere(message)]);
    }
    let settings = match config.resolve() {
        Ok(settings) => settings,
        Err(errors) => return fail(errors),
    };
    let mut names: std::collections::BTreeSet<&str> = settings.keys().map(String::as_str).collect();
    names.insert(SCALING);
    let mut given: Vec<_> = names.iter().filter_map(|n| Some((*n, config.given(n)?))).collect();
    given.extend(config.given("rope_scaling.factor").map(|span| (SCALING, span)));
    let outside = Outside { names, path: &config.source().path, given };
    let errors = check::check(&arch.source().path, arch.ast(), &outside);
    if !errors.is_empty() {
        return fail(errors);
    }
    match Builder::new(arch, config, settings, *shape, kinds).build() {
        Ok(model) => Ok(model),
        Err(error) => fail(vec![*error]),
    }
}

/// The name under which an architecture sees `[rope_scaling]`.
pub(crate) const SCALING: &str = "rope_scaling";

/// Statements and expressions evaluated at most; a file that runs longer is a mistake.
const MAX_STEPS: usize = 1 << 20;

/// Depth of evaluation: expressions within expressions, calls within calls.
const MAX_DEPTH: usize = 160;

pub(crate) type Built<T> = Result<T, Box<Diagnostic>>;

/// What encloses a statement; prints as the part of a checkpoint name that it is.
enum Part {
    Layer(usize),
    Block(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Layer(layer) => write!(f, "layers.{layer}"),
            Part::Block(name) => f.write_str(name),
        }
    }
}

pub(crate) struct Builder<'a> {
    pub(crate) arch: &'a Architecture,
    pub(crate) config: &'a ModelConfig,
    pub(crate) settings: BTreeMap<String, Setting>,
    pub(crate) functions: BTreeMap<&'a str, &'a Function>,
    pub(crate) graph: Graph,
    origins: Origins,
    /// The names of the input's axes, and whether an expression that was evaluated reads them.
    pub(crate) batch_name: &'a str,
    pub(crate) reads_batch: bool,
    pub(crate) seq_name: &'a str,
    pub(crate) reads_seq: bool,
    /// An expression that was evaluated asks for the kind of a layer.
    pub(crate) reads_kind: bool,
    pub(crate) shape: BuildShape,
    /// Of the layers from the first on.
    kinds: &'a [AttentionKind],
    /// Innermost last; a function's body sees only its own.
    pub(crate) scopes: Vec<BTreeMap<String, Value>>,
    /// Calls being expanded, outermost first.
    pub(crate) calls: Vec<Span>,
    /// The layer and the blocks around the statement.
    prefix: Vec<Part>,
    /// The layer being built.
    pub(crate) layer: Option<usize>,
    /// Where each checkpoint name was first used.
    params: BTreeMap<String, Span>,
    /// Rope tables that exist: head size, theta, scaling.
    pub(crate) ropes: Vec<(usize, f64, Option<RopeScaling>, linc_ir::Value)>,
    /// Matrix forms of tensors with more axes, so that three projections of one tensor share one reshape.
    pub(crate) flat: BTreeMap<linc_ir::Value, linc_ir::Value>,
    steps: usize,
    depth: usize,
}

impl<'a> Builder<'a> {
    fn new(
        arch: &'a Architecture,
        config: &'a ModelConfig,
        settings: BTreeMap<String, Setting>,
        shape: BuildShape,
        kinds: &'a [AttentionKind],
    ) -> Self {
        let functions = arch.ast().items.iter().filter_map(|item| match &item.kind {
            ItemKind::Function(f) => Some((f.name.text.as_str(), f)),
            ItemKind::Model(_) => None,
        });
        Builder {
            arch,
            config,
            settings,
            functions: functions.collect(),
            graph: Graph::new(format!("{}_{}", config.name, config.flavor)),
            origins: Origins::new(arch.source().clone()),
            batch_name: "",
            reads_batch: false,
            seq_name: "",
            reads_seq: false,
            reads_kind: false,
            shape,
            kinds,
            scopes: vec![BTreeMap::new()],
            calls: Vec::new(),
            prefix: Vec::new(),
            layer: None,
            params: BTreeMap::new(),
            ropes: Vec::new(),
            flat: BTreeMap::new(),
            steps: 0,
            depth: 0,
        }
    }

    // ---- errors ----

    /// An error at a place of the `.linc` file, with the calls that led there.
    pub(crate) fn error(&self, span: Span, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(origin::diagnostic(&self.arch.source().path, span, &self.calls, message))
    }

    /// Adds a remark at another place of the `.linc` file.
    pub(crate) fn with_label(
        &self,
        mut error: Box<Diagnostic>,
        span: Span,
        text: impl Into<String>,
    ) -> Box<Diagnostic> {
        let path = self.arch.source().path.clone();
        error.labels.push(Label { path, span: span.into(), text: text.into() });
        error
    }

    /// Points at the TOML lines of the model numbers that an expression reads.
    pub(crate) fn blame(&self, mut error: Box<Diagnostic>, expr: &Expr) -> Box<Diagnostic> {
        let mut names = std::collections::BTreeSet::new();
        check::walk(expr, &mut |e| {
            if let ExprKind::Name(name) = &e.kind {
                names.insert(name.as_str());
            }
        });
        for name in names {
            error = Box::new(self.config.also(*error, &self.settings, name));
        }
        error
    }

    /// Counts a step and a level of depth around `work`.
    pub(crate) fn guarded<T>(&mut self, span: Span, work: impl FnOnce(&mut Self) -> Built<T>) -> Built<T> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            let message = format!("building the model takes more than {MAX_STEPS} steps");
            let help = format!("n_layers = {}; are there functions that call each other in long chains?", {
                self.count("n_layers")
            });
            return Err(Box::new(self.error(span, message).help(help)));
        }
        if self.depth >= MAX_DEPTH {
            return Err(self.error(span, format!("calls are nested more than {MAX_DEPTH} levels deep")));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    // ---- numbers ----

    /// A count that every model has.
    fn count(&self, name: &str) -> usize {
        match self.settings.get(name).map(|s| s.value) {
            Some(Number::Int(value)) => usize::try_from(value).unwrap_or(1),
            Some(Number::Float(_) | Number::Bool(_)) | None => 1,
        }
    }

    /// The kind of attention of the layer being built.
    pub(crate) fn kind(&self) -> Option<AttentionKind> {
        let softmax = AttentionFamily::Softmax.default_kind();
        self.layer.map(|layer| self.kinds.get(layer).copied().unwrap_or(softmax))
    }

    // ---- statements ----

    fn build(mut self) -> Built<BuiltModel> {
        let mut models = self.arch.ast().items.iter().filter_map(|item| match &item.kind {
            ItemKind::Model(model) => Some(model),
            ItemKind::Function(_) => None,
        });
        let Some(model) = models.next() else {
            return Err(Box::new(Diagnostic::nowhere("the file defines no model")));
        };
        let sizes = [self.shape.batch, self.shape.seq];
        let dims: Vec<Dim> =
            model.axes.iter().zip(sizes).map(|(axis, size)| Dim::new(size, axis.text.as_str())).collect();
        for dim in &dims {
            self.bind(&dim.name, Value::Number(Number::Int(dim.size as i64)));
        }
        self.batch_name = model.axes.first().map_or("", |axis| axis.text.as_str());
        self.seq_name = model.axes.last().map_or("", |axis| axis.text.as_str());
        let ty = TensorType::i32(sizes);
        let tokens = self.add(Op::Input { name: check::INPUT.into(), ty }, &[], model.input.span)?;
        self.bind(check::INPUT, Value::Tensor(Tensor { value: tokens, dims }));
        self.block(&model.body)?;
        let result = self.logits(model)?;
        self.graph.outputs.push((RESULT.into(), result));
        Ok(BuiltModel {
            n_layers: self.count("n_layers"),
            n_heads: self.count("n_heads"),
            n_kv_heads: self.count("n_kv_heads"),
            head_dim: self.count("head_dim"),
            vocab_size: self.count("vocab_size"),
            dim: self.count("dim"),
            graph: self.graph,
            origins: self.origins,
            reads_seq: self.reads_seq,
            reads_batch: self.reads_batch,
            reads_kind: self.reads_kind,
        })
    }

    fn logits(&self, model: &Model) -> Built<linc_ir::Value> {
        let Some(result) = self.scopes[0].get(RESULT) else {
            let message = format!("`{RESULT}` has no value: the branch that defines it was not taken");
            return Err(self.error(model.name.span, message));
        };
        let place = last_definition(&model.body, RESULT).unwrap_or(model.name.span);
        let (batch, seq, vocab) = (self.shape.batch, self.shape.seq, self.count("vocab_size"));
        let Value::Tensor(tensor) = result else {
            return Err(
                self.error(place, format!("`{RESULT}` must be a tensor, found {}", result.describe()))
            );
        };
        let found = shape(&tensor.dims);
        if found != Shape::from([batch, seq, vocab]) && found != Shape::from([batch * seq, vocab]) {
            let found = describe_shape(&tensor.dims);
            let message = format!(
                "`{RESULT}` is {found}, expected [batch, seq, vocab_size] = [{batch}, {seq}, {vocab}]"
            );
            return Err(self.error(place, message));
        }
        let dtype = self.graph.ty(tensor.value).dtype;
        if !dtype.is_float() {
            return Err(self.error(place, format!("`{RESULT}` holds whole numbers")));
        }
        Ok(tensor.value)
    }

    /// Adds an operation. Its operands are known to fit, or `span` gets the graph's own message.
    pub(crate) fn add(&mut self, op: Op, operands: &[linc_ir::Value], span: Span) -> Built<linc_ir::Value> {
        let value = self.graph.push(op, operands).map_err(|e| self.error(span, e.to_string()))?;
        self.origins.record(value.node, span, &self.calls);
        let shape = &self.graph.ty(value).shape;
        if elements(shape.0.iter().copied()).is_none() {
            let message = format!("a tensor {shape} has more than {MAX_ELEMENTS} elements");
            return Err(Box::new(self.error(span, message).help(SMALLER.to_string())));
        }
        Ok(value)
    }
}

/// What makes a tensor smaller.
const SMALLER: &str =
    "its sizes come from the numbers of the model and from the batch: use smaller ones, or fewer tokens";

/// Where a block last binds a name.
fn last_definition(block: &Block, name: &str) -> Option<Span> {
    block.statements.iter().rev().find_map(|s| match &s.kind {
        StatementKind::Let { name: n, .. } | StatementKind::Assign { name: n, .. } => {
            (n.text == name).then_some(s.span)
        }
        StatementKind::If { then, otherwise, .. } => {
            otherwise.as_ref().and_then(|b| last_definition(b, name)).or_else(|| last_definition(then, name))
        }
        StatementKind::Param { .. }
        | StatementKind::For { .. }
        | StatementKind::Block { .. }
        | StatementKind::Return { .. } => None,
    })
}
