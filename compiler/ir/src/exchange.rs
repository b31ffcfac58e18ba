//! Exchanges between ranks: processes that each run a graph of their own, in lockstep. They move elements, or add them up in
//! an order that depends on nothing but the number of the parts.
//!
//! The first axis is the one that is cut: a whole has as many parts as its group has members, one behind the other, in the
//! order of the members. All members of a group have the same exchanges of it in the same order.

use linc_text::Parsed;

use crate::attributes::Attributes;
use crate::error::IrError;
use crate::facts::{Facts, OperandTypes, Overwrites, compute};
use crate::infer::{Check, Types};
use crate::op::Op;
use crate::types::TensorType;

/// Ranks that exchange with each other, with the place of the one whose graph it is, and the turn in which they do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Group {
    /// The axis, or axes, of the mesh along which they lie: `dp_shard`.
    pub name: String,
    /// The first member, a rank of the world.
    pub first: usize,
    /// From one member to the next.
    pub stride: usize,
    /// How many members there are.
    pub size: usize,
    /// This rank's place among them, from 0.
    pub place: usize,
    /// Exchanges of a graph with lower numbers come first, of whatever groups: so all ranks have one order, though they may
    /// compute different things in between. Those of one number depend on each other.
    pub turn: usize,
}

impl Group {
    /// Ranks of the world that belong to it, ascending.
    pub fn members(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, stride) = (self.first, self.stride);
        (0..self.size).map(move |member| first + member * stride)
    }

    /// The rank whose graph it is.
    pub fn rank(&self) -> usize {
        self.first + self.place * self.stride
    }

    /// The same ranks in another turn.
    #[must_use]
    pub fn in_turn(&self, turn: usize) -> Group {
        Group { turn, ..self.clone() }
    }

    fn is_sound(&self) -> bool {
        let last = self.size.checked_mul(self.stride).and_then(|span| span.checked_add(self.first));
        !self.name.is_empty() && self.place < self.size && self.stride > 0 && last.is_some()
    }

    fn read(a: &mut Attributes) -> Parsed<Group> {
        let mut call = a.call("group")?;
        let name = call.text("name")?;
        let (first, stride) = (call.usize("first")?, call.usize("stride")?);
        let (size, place) = (call.usize("size")?, call.usize("place")?);
        let turn = call.usize("turn")?;
        call.finish()?;
        Ok(Group { name, first, stride, size, place, turn })
    }

    fn attribute(&self) -> String {
        let Group { name, first, stride, size, place, turn } = self;
        let name = linc_text::quote(name);
        format!(
            "group = ranks(name = {name}, first = {first}, stride = {stride}, size = {size}, place = {place}, turn = {turn})"
        )
    }
}

/// What becomes of elements that meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

impl Reduction {
    /// All of them.
    pub const ALL: [Reduction; 2] = [Reduction::Sum, Reduction::Max];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Reduction::Sum => "sum",
            Reduction::Max => "max",
        }
    }

    fn read(a: &mut Attributes) -> Parsed<Reduction> {
        a.one_of("reduce", &Reduction::ALL, |reduction| reduction.name())
    }
}

/// Where the order of a reduction divides `count` parts, of which there are two at least: those before the largest power of two
/// that leaves some, and the rest. So it pairs neighbours, then pairs, and so on, and over a power of two of parts of which each is
/// such a reduction of as many others, it is one over all of these.
pub fn middle(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

/// An exchange, and what is left to compute of one.
#[derive(Clone, PartialEq, Debug)]
pub enum ExchangeOp {
    /// `(x) -> like x`: the reduction of all members' x. f32.
    AllReduce {
        /// Who takes part.
        group: Group,
        /// Of elements at one place.
        reduction: Reduction,
    },
    /// `(parts..) -> [size·n, ..]`: this member's part, `[n, ..]`, is what its operands are one behind the other; the result has
    /// the parts of all members, in their order.
    AllGather {
        /// Who takes part.
        group: Group,
    },
    /// `(x [size·n, ..]) -> [n, ..]`: of the sum of all members' x, this member's part. f32.
    ReduceScatter {
        /// Who takes part.
        group: Group,
    },
    /// `(x [size·n, ..]) -> like x`: part i of member j becomes part j of member i.
    AllToAll {
        /// Who takes part.
        group: Group,
    },
    /// `(x [parts·n, ..]) -> [n, ..]`: the reduction of the parts, in the order of [`middle`]. What reductions over ranks
    /// compute when their elements have been moved. f32.
    ReduceParts {
        /// How many there are.
        parts: usize,
        /// Of elements at one place of each.
        reduction: Reduction,
    },
}

impl ExchangeOp {
    /// The name in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            ExchangeOp::AllReduce { .. } => "all_reduce",
            ExchangeOp::AllGather { .. } => "all_gather",
            ExchangeOp::ReduceScatter { .. } => "reduce_scatter",
            ExchangeOp::AllToAll { .. } => "all_to_all",
            ExchangeOp::ReduceParts { .. } => "reduce_parts",
        }
    }

    /// The ranks that it needs; nothing if this one can compute it alone.
    pub fn group(&self) -> Option<&Group> {
        match self {
            ExchangeOp::AllReduce { group, .. }
            | ExchangeOp::AllGather { group }
            | ExchangeOp::ReduceScatter { group }
            | ExchangeOp::AllToAll { group } => Some(group),
            ExchangeOp::ReduceParts { .. } => None,
        }
    }

    pub(crate) fn parse(name: &str, a: &mut Attributes) -> Parsed<Option<ExchangeOp>> {
        Ok(Some(match name {
            "all_reduce" => ExchangeOp::AllReduce { group: Group::read(a)?, reduction: Reduction::read(a)? },
            "all_gather" => ExchangeOp::AllGather { group: Group::read(a)? },
            "reduce_scatter" => ExchangeOp::ReduceScatter { group: Group::read(a)? },
            "all_to_all" => ExchangeOp::AllToAll { group: Group::read(a)? },
            "reduce_parts" => {
                ExchangeOp::ReduceParts { parts: a.usize("parts")?, reduction: Reduction::read(a)? }
            }
            _ => return Ok(None),
        }))
    }

    pub(crate) fn attributes(&self) -> Vec<String> {
        let reduce = |reduction: &Reduction| format!("reduce = {}", reduction.name());
        match self {
            ExchangeOp::AllReduce { group, reduction } => vec![group.attribute(), reduce(reduction)],
            ExchangeOp::AllGather { group }
            | ExchangeOp::ReduceScatter { group }
            | ExchangeOp::AllToAll { group } => vec![group.attribute()],
            ExchangeOp::ReduceParts { parts, reduction } => {
                vec![format!("parts = {parts}"), reduce(reduction)]
            }
        }
    }

    pub(crate) fn facts(&self) -> &'static Facts {
        match self {
            ExchangeOp::AllReduce { .. }
            | ExchangeOp::ReduceScatter { .. }
            | ExchangeOp::ReduceParts { .. } => const { &compute(OperandTypes::Wide, &[]) },
            // Any elements can be moved, as they are.
            ExchangeOp::AllToAll { .. } => {
                const { &Facts { integers: None, ..compute(OperandTypes::Any, &[]) } }
            }
            ExchangeOp::AllGather { .. } => {
                const {
                    &Facts {
                        overwrites: Overwrites::UpdatedLeaves,
                        integers: None,
                        // What one rank joins has one type, and so has what comes from the others.
                        ..compute(OperandTypes::Alike, &[])
                    }
                }
            }
        }
    }

    /// The typing rules.
    pub(crate) fn results(&self, check: &Check<'_>) -> Types {
        if let Some(group) = self.group()
            && !group.is_sound()
        {
            return check.fail(format!("{group:?} is no group with this rank in it"));
        }
        match self {
            ExchangeOp::AllReduce { .. } => {
                check.arity(1..=1)?;
                check.full(0)?;
                Ok(vec![check.like(0)])
            }
            ExchangeOp::ReduceScatter { group } => {
                check.arity(1..=1)?;
                check.full(0)?;
                self.parts(check, group.size).map(|part| vec![part])
            }
            ExchangeOp::ReduceParts { parts, .. } => {
                check.arity(1..=1)?;
                check.full(0)?;
                self.parts(check, *parts).map(|part| vec![part])
            }
            ExchangeOp::AllToAll { group } => {
                check.arity(1..=1)?;
                self.parts(check, group.size)?;
                Ok(vec![check.like(0)])
            }
            ExchangeOp::AllGather { group } => {
                check.arity(1..=usize::MAX)?;
                let mut whole = check.like(0);
                let mut rows: usize = 0;
                for i in 0..check.operands.len() {
                    let same_rows = check.shape(i).0.get(1..) == whole.shape.0.get(1..);
                    let [n, ..] = check.shape(i).0[..] else { return check.fail("a scalar has no parts") };
                    if !same_rows || check.dtype(i) != check.dtype(0) {
                        return check.fail(format!(
                            "operand {i} is {}, operand 0 is {}",
                            check.operands[i], check.operands[0]
                        ));
                    }
                    rows = rows.saturating_add(n);
                }
                whole.shape.0[0] = rows.saturating_mul(group.size);
                Ok(vec![whole])
            }
        }
    }

    /// The type of one of `count` parts of operand 0.
    fn parts(&self, check: &Check<'_>, count: usize) -> Result<TensorType, IrError> {
        let mut part = check.like(0);
        match part.shape.0.first_mut() {
            Some(rows) if count > 0 && rows.is_multiple_of(count) => {
                *rows /= count;
                Ok(part)
            }
            _ => check.fail(format!("operand 0 is {}, which has not {count} equal parts", check.operands[0])),
        }
    }
}

impl From<ExchangeOp> for Op {
    fn from(op: ExchangeOp) -> Self {
        Op::Exchange(op)
    }
}
