//! Turns the parsed attributes of a node into its operation.

use linc_text::{Parsed, Position};

use crate::attention::{AttentionKind, AttentionSpec, KindOp};
use crate::exchange::ExchangeOp;
use crate::op::{Init, Op, RopeScaling, TableKind};
use crate::optimizer::UpdateOp;
use crate::pointwise::{BinaryOp, PointOp, Pointwise, UnaryOp};
use crate::role::{ParamState, StateRole};
use crate::types::{DType, TensorType};

/// An attribute value as written.
#[derive(Clone, Debug)]
pub(crate) enum Attribute {
    Number(String),
    Text(String),
    List(Vec<(Position, Attribute)>),
    /// A name with arguments, or a bare name.
    Call(String, Vec<Entry>),
}

/// `key = value`; the key is empty for an argument without name.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Position,
    pub(crate) key: String,
    pub(crate) value: Attribute,
}

/// The attributes of one node or call, taken one by one.
pub(crate) struct Attributes {
    /// The name they belong to, and where it is.
    name: String,
    at: Position,
    entries: Vec<Entry>,
}

impl Attributes {
    pub(crate) fn new(at: Position, name: &str, entries: Vec<Entry>) -> Parsed<Self> {
        for (i, entry) in entries.iter().enumerate() {
            if !entry.key.is_empty() && entries[..i].iter().any(|e| e.key == entry.key) {
                return Err(entry.at.error(format!("`{}` is given twice", entry.key)));
            }
        }
        Ok(Attributes { name: name.into(), at, entries })
    }

    /// Fails if an attribute was not taken.
    pub(crate) fn finish(self) -> Parsed<()> {
        match self.entries.first() {
            None => Ok(()),
            Some(e) if e.key.is_empty() => Err(e.at.error(format!("`{}` takes fewer arguments", self.name))),
            Some(e) => Err(e.at.error(format!("`{}` has no attribute `{}`", self.name, e.key))),
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    /// Takes `key`; an empty key takes the next argument without name.
    fn take(&mut self, key: &str) -> Parsed<(Position, Attribute)> {
        match self.entries.iter().position(|e| e.key == key) {
            Some(i) => {
                let entry = self.entries.remove(i);
                Ok((entry.at, entry.value))
            }
            None if key.is_empty() => Err(self.at.error(format!("`{}` takes more arguments", self.name))),
            None => Err(self.at.error(format!("`{}` needs the attribute `{key}`", self.name))),
        }
    }

    pub(crate) fn f64(&mut self, key: &str) -> Parsed<f64> {
        let (at, value) = self.take(key)?;
        match &value {
            Attribute::Number(n) => {
                n.parse().map_err(|_| at.error(format!("`{n}` is not a number such as 1e-5")))
            }
            _ => Err(at.error(format!("`{key}` is a number"))),
        }
    }

    pub(crate) fn usize(&mut self, key: &str) -> Parsed<usize> {
        let (at, value) = self.take(key)?;
        whole(at, &value)
    }

    pub(crate) fn bool(&mut self, key: &str) -> Parsed<bool> {
        let (at, value) = self.take(key)?;
        match &value {
            Attribute::Call(name, args) if args.is_empty() && name == "true" => Ok(true),
            Attribute::Call(name, args) if args.is_empty() && name == "false" => Ok(false),
            _ => Err(at.error(format!("`{key}` is true or false"))),
        }
    }

    pub(crate) fn text(&mut self, key: &str) -> Parsed<String> {
        match self.take(key)? {
            (_, Attribute::Text(text)) => Ok(text),
            (at, _) => Err(at.error(format!("`{key}` is a string"))),
        }
    }

    fn list(&mut self, key: &str) -> Parsed<Vec<(Position, Attribute)>> {
        match self.take(key)? {
            (_, Attribute::List(items)) => Ok(items),
            (at, _) => Err(at.error(format!("`{key}` is a list"))),
        }
    }

    fn usizes(&mut self, key: &str) -> Parsed<Vec<usize>> {
        self.list(key)?.iter().map(|(at, value)| whole(*at, value)).collect()
    }

    /// Takes a call such as `normal(std = 0.02)` as the attributes of its name.
    pub(crate) fn call(&mut self, key: &str) -> Parsed<Attributes> {
        match self.take(key)? {
            (at, Attribute::Call(name, args)) => Attributes::new(at, &name, args),
            (at, _) => Err(at.error(format!("`{key}` is a name"))),
        }
    }

    /// The operation named by `self` with result types as written. Takes the attributes it needs.
    pub(crate) fn op(&mut self, types: &[TensorType]) -> Parsed<Op> {
        let ty = types[0].clone();
        let name = self.name.clone();
        if let Some(u) = UnaryOp::ALL.into_iter().find(|u| u.name() == name) {
            return Ok(Op::Unary(u));
        }
        if let Some(b) = BinaryOp::ALL.into_iter().find(|b| b.name() == name) {
            return Ok(Op::Binary(b));
        }
        Ok(match name.as_str() {
            "input" => Op::Input { name: self.text("name")?, ty },
            "param" => Op::Param { name: self.text("name")?, ty, init: self.init()? },
            "state" => Op::State { name: self.text("name")?, ty, role: self.role()? },
            "table" => Op::Table { name: self.text("name")?, ty, kind: self.table()? },
            "constant" => Op::Constant { value: self.f64("value")?, ty },
            "broadcast" => Op::Broadcast { shape: ty.shape },
            "cast" => Op::Cast { dtype: ty.dtype },
            "fused" => Op::Fused(self.fused(types)?),
            "sum" => Op::Sum { axes: self.usizes("axes")?, keep: self.bool("keep")? },
            "reshape" => Op::Reshape { shape: ty.shape },
            "transpose" => Op::Transpose { perm: self.usizes("perm")? },
            "slice" => {
                let (axis, start) = (self.usize("axis")?, self.usize("start")?);
                Op::Slice { axis, start, len: self.usize("len")? }
            }
            "pad" => {
                let (axis, before) = (self.usize("axis")?, self.usize("before")?);
                Op::Pad { axis, before, after: self.usize("after")? }
            }
            "concat" => Op::Concat { axis: self.usize("axis")? },
            "matmul" => {
                let (trans_a, trans_b) = (self.bool("trans_a")?, self.bool("trans_b")?);
                Op::MatMul { trans_a, trans_b, dtype: ty.dtype }
            }
            "rms_norm" => Op::RmsNorm { eps: self.f64("eps")? },
            "rms_norm_grad" => Op::RmsNormGrad { eps: self.f64("eps")? },
            "rope" => Op::Rope { inverse: self.bool("inverse")? },
            "embedding" => Op::Embedding { dtype: ty.dtype },
            "embedding_grad" => {
                let vocab = self.usize("vocab")?;
                Op::EmbeddingGrad { vocab, sorted: self.has("sorted") && self.bool("sorted")? }
            }
            "attention" => Op::Attention(self.attention()?),
            "attention_grad" => Op::AttentionGrad(self.attention()?),
            "cross_entropy" => Op::CrossEntropy,
            "cross_entropy_grad" => Op::CrossEntropyGrad,
            "log_probs" => Op::LogProbs,
            "linear_log_probs" => Op::LinearLogProbs { chunk: self.usize("chunk")? },
            "linear_cross_entropy" => Op::LinearCrossEntropy { chunk: self.usize("chunk")? },
            "linear_cross_entropy_grad" => Op::LinearCrossEntropyGrad { chunk: self.usize("chunk")? },
            "global_norm" => Op::GlobalNorm,
            "norm_finish" => Op::NormFinish,
            _ => {
                if let Some(op) = KindOp::parse(&name, self)? {
                    Op::Kind(op)
                } else if let Some(op) = UpdateOp::parse(&name, self)? {
                    Op::Update(op)
                } else if let Some(op) = ExchangeOp::parse(&name, self)? {
                    Op::Exchange(op)
                } else {
                    return Err(self.at.error(format!("there is no operation `{name}`")));
                }
            }
        })
    }

    /// Whether an attribute that may be left out is there, with the only word that it can have.
    pub(crate) fn has_word(&mut self, key: &str, word: &str) -> Parsed<bool> {
        if !self.has(key) {
            return Ok(false);
        }
        let found = self.call(key)?;
        if found.name != word {
            return Err(found.at.error(format!("there is no {key} `{}` (known: {word})", found.name)));
        }
        found.finish()?;
        Ok(true)
    }

    /// Takes a word that stands for one of `all`.
    pub(crate) fn one_of<T: Copy>(
        &mut self,
        key: &str,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Parsed<T> {
        let word = self.call(key)?;
        let Some(found) = all.iter().copied().find(|item| name(*item) == word.name) else {
            let known: Vec<&str> = all.iter().map(|item| name(*item)).collect();
            return Err(word.at.error(format!(
                "there is no {key} `{}` (known: {})",
                word.name,
                known.join(", ")
            )));
        };
        word.finish()?;
        Ok(found)
    }

    fn attention(&mut self) -> Parsed<AttentionSpec> {
        let (layer, causal) = (self.usize("layer")?, self.bool("causal")?);
        let rope = self.bool("rope")?;
        let has_kind = self.has("kind");
        let kind =
            has_kind.then(|| self.one_of("kind", &AttentionKind::ALL, AttentionKind::name)).transpose()?;
        Ok(AttentionSpec { layer, causal, rope, kind })
    }

    fn init(&mut self) -> Parsed<Init> {
        let mut call = self.call("init")?;
        let init = match call.name.as_str() {
            "zeros" => Init::Zeros,
            "ones" => Init::Ones,
            "normal" => Init::Normal { std: call.f64("std")? },
            "trunc_normal" => Init::TruncNormal { std: call.f64("std")?, bound: call.f64("bound")? },
            other => {
                let known = "zeros, ones, normal, trunc_normal";
                return Err(call.at.error(format!("there is no init `{other}` (known: {known})")));
            }
        };
        call.finish()?;
        Ok(init)
    }

    fn role(&mut self) -> Parsed<StateRole> {
        let mut call = self.call("role")?;
        let alone = StateRole::ALONE.into_iter().find(|role| role.name() == call.name);
        let role = match ParamState::ALL.into_iter().find(|state| state.name() == call.name) {
            Some(state) => {
                let of = call.text("of")?;
                Some(match call.has("start") {
                    true => StateRole::OfShard { state, of, start: call.usize("start")? },
                    false => StateRole::OfParam { state, of },
                })
            }
            None => alone,
        };
        let Some(role) = role else {
            let alone = StateRole::ALONE.map(|role| role.name());
            let known = [&ParamState::ALL.map(ParamState::name)[..], &alone].concat().join(", ");
            return Err(call.at.error(format!("there is no role `{}` (known: {known})", call.name)));
        };
        call.finish()?;
        Ok(role)
    }

    fn table(&mut self) -> Parsed<TableKind> {
        let mut call = self.call("kind")?;
        if call.name != "rope" {
            return Err(call.at.error(format!("there is no table `{}` (known: rope)", call.name)));
        }
        let theta = call.f64("theta")?;
        let scaling = if call.has("factor") {
            let (factor, low_freq_factor) = (call.f64("factor")?, call.f64("low_freq_factor")?);
            let high_freq_factor = call.f64("high_freq_factor")?;
            let original_max_position = call.usize("original_max_position")?;
            Some(RopeScaling { factor, low_freq_factor, high_freq_factor, original_max_position })
        } else {
            None
        };
        call.finish()?;
        Ok(TableKind::Rope { theta, scaling })
    }

    fn fused(&mut self, types: &[TensorType]) -> Parsed<Pointwise> {
        let mut steps = Vec::new();
        for (at, value) in self.list("steps")? {
            let Attribute::Call(name, args) = value else {
                return Err(at.error("a step is a call such as `add(0, 1)`"));
            };
            let mut call = Attributes::new(at, &name, args)?;
            steps.push(call.step()?);
            call.finish()?;
        }
        let outputs = self.usizes("outputs")?;
        if outputs.len() != types.len() {
            return Err(self.at.error(format!("{} outputs, {} result types", outputs.len(), types.len())));
        }
        let outputs = outputs.into_iter().zip(types).map(|(step, ty)| (step, ty.dtype)).collect();
        Ok(Pointwise { shape: types[0].shape.clone(), steps, outputs })
    }

    fn step(&mut self) -> Parsed<PointOp> {
        if let Some(u) = UnaryOp::ALL.into_iter().find(|u| u.name() == self.name) {
            return Ok(PointOp::Unary(u, self.usize("")?));
        }
        if let Some(b) = BinaryOp::ALL.into_iter().find(|b| b.name() == self.name) {
            return Ok(PointOp::Binary(b, self.usize("")?, self.usize("")?));
        }
        match self.name.as_str() {
            "input" => Ok(PointOp::Input(self.usize("")?)),
            "const" => Ok(PointOp::Const(self.f64("")?)),
            "cast" => {
                let dtype = self.call("")?;
                let Some(found) = DType::from_name(&dtype.name) else {
                    return Err(dtype.at.error(format!("`{}` is not an element type", dtype.name)));
                };
                Ok(PointOp::Cast(found, self.usize("")?))
            }
            other => Err(self.at.error(format!("there is no pointwise step `{other}`"))),
        }
    }
}

fn whole(at: Position, value: &Attribute) -> Parsed<usize> {
    let number = match value {
        Attribute::Number(n) => n.parse().ok(),
        Attribute::Text(_) | Attribute::List(_) | Attribute::Call(..) => None,
    };
    number.ok_or_else(|| at.error("expected a whole number, at least 0"))
}
