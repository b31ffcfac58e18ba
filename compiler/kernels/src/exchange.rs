//! Exchanges between ranks: what moves elements is a call of its own, and what adds them up a kernel, so that sums have the same
//! bits whoever moves; or a library does both, in one call.

use linc_ir::{ExchangeOp, Group, Reduction};
use linc_tile::library::parts::{PartsReduction, ReducePartsSpec, reduce_parts};

use crate::context::Lowering;
use crate::lower::part_copy;
use crate::{KernelError, StoragePlace};

/// How elements move. A whole has as many parts as the group has members, one behind the other, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Movement {
    /// A part to a whole: each member's at its place, everywhere.
    AllGather,
    /// A whole to a whole: part i of member j becomes part j of member i.
    AllToAll,
    /// A part to the sum of those of all members.
    AllReduce,
    /// A whole to a part: the sum over all members of the part at this one's place.
    ReduceScatter,
}

/// Elements that ranks exchange; `from` and `to` are dense.
#[derive(Clone, PartialEq, Debug)]
pub struct Exchange {
    /// How they move.
    pub movement: Movement,
    /// Who takes part.
    pub group: Group,
    /// What this rank sends. That of a gather may be the part of `to` that is this rank's.
    pub from: StoragePlace,
    /// What it receives.
    pub to: StoragePlace,
    /// Elements of one part.
    pub part: usize,
}

impl Exchange {
    /// How many elements it reads, and how many it writes.
    pub fn elements(&self) -> (usize, usize) {
        let whole = self.part * self.group.size;
        match self.movement {
            Movement::AllGather => (self.part, whole),
            Movement::AllToAll => (whole, whole),
            Movement::AllReduce => (self.part, self.part),
            Movement::ReduceScatter => (whole, self.part),
        }
    }
}

pub(crate) fn lower(l: &mut Lowering<'_>, op: &ExchangeOp) -> Result<(), KernelError> {
    let (x, y) = (l.operands[0], l.results[0]);
    match op {
        // What the pass that parts moving from adding has left is for a library to add up.
        ExchangeOp::AllReduce { group, reduction: Reduction::Sum } => {
            let (movement, part) = (Movement::AllReduce, l.shape(y).numel());
            let (from, to) = (l.place(x), l.place(y));
            l.exchange(Exchange { movement, group: group.clone(), from, to, part });
            Ok(())
        }
        ExchangeOp::AllReduce { reduction: Reduction::Max, .. } => {
            l.fail("it is still one operation: run the pass that parts moving from adding first")
        }
        ExchangeOp::ReduceScatter { group } => {
            let (movement, part) = (Movement::ReduceScatter, l.shape(y).numel());
            let (from, to) = (l.place(x), l.place(y));
            l.exchange(Exchange { movement, group: group.clone(), from, to, part });
            Ok(())
        }
        ExchangeOp::AllToAll { group } => {
            let part = l.shape(x).numel() / group.size;
            let (from, to) = (l.place(x), l.place(y));
            l.exchange(Exchange { movement: Movement::AllToAll, group: group.clone(), from, to, part });
            Ok(())
        }
        ExchangeOp::AllGather { group } => gather(l, group),
        ExchangeOp::ReduceParts { parts, reduction } => {
            let by = match reduction {
                Reduction::Sum => PartsReduction::Sum,
                Reduction::Max => PartsReduction::Max,
            };
            let spec = ReducePartsSpec { parts: *parts, numel: l.shape(y).numel(), by };
            let args = l.places(&[x, y]);
            l.launch(reduce_parts(&spec), args);
            Ok(())
        }
    }
}

/// From where the only part lies; else the parts are brought to this rank's place in the whole first.
fn gather(l: &mut Lowering<'_>, group: &Group) -> Result<(), KernelError> {
    let whole = l.results[0];
    let part = l.shape(whole).numel() / group.size;
    let (to, layout) = (l.place(whole), l.layout(whole).clone());
    let mut from = to.at(group.place * part);
    match l.operands[..] {
        [only] if l.root(only) != l.root(whole) => from = l.place(only),
        _ => {
            let mut row = group.place * (l.shape(whole).0[0] / group.size);
            for operand in 0..l.operands.len() {
                let target = layout.slice(0, row);
                row += l.shape(l.operands[operand]).0[0];
                part_copy(l, operand, &target)?;
            }
        }
    }
    l.exchange(Exchange { movement: Movement::AllGather, group: group.clone(), from, to, part });
    Ok(())
}

/// Floating-point operations on so many elements of the first operand.
pub(crate) fn flops(op: &ExchangeOp, numel: usize) -> usize {
    match op {
        ExchangeOp::AllReduce { .. } | ExchangeOp::ReduceScatter { .. } | ExchangeOp::ReduceParts { .. } => {
            numel
        }
        ExchangeOp::AllGather { .. } | ExchangeOp::AllToAll { .. } => 0,
    }
}
