//! The ranks of a run, of which each has a plan of its own, and what they exchange.
//!
//! # What a device does with an exchange
//!
//! A step [`Start`](crate::Action::Start) begins to move bytes, a step [`Wait`](crate::Action::Wait) is over when all of them have come and all of
//! this rank's have been sent. Other steps may run in between: [`crate::validate`] sees to it that none of them touches what is
//! received or writes what is sent. The first two movements add nothing; sums are launches of kernels then, so that they have the same
//! bits whoever moves the bytes. The others add up f32 as they move, in an order that a library chooses: a device whose library has none refuses them.
//!
//! With n bytes a part, in a group of k members of which this rank is number `place`:
//!
//! | movement | reads | writes | |
//! |---|---|---|---|
//! | [`Movement::AllGather`] | n at `from` | k·n at `to` | the part of member i is at `to + i·n`; `from` may be `to + place·n`, which then stays |
//! | [`Movement::AllToAll`] | k·n at `from` | k·n at `to` | part i of `from` goes to member i; the part that member j sends is at `to + j·n`. The ranges do not overlap |
//!
//! | [`Movement::AllReduce`] | n at `from` | n at `to` | the sum over all members, everywhere; `from` may be `to` |
//! | [`Movement::ReduceScatter`] | k·n at `from` | n at `to` | the sum over all members of part `place`. The ranges do not overlap |
//!
//! Both places, and n, are multiples of the size of an element, and no more is promised of them. All members of a group start its
//! exchanges in the same order, with the same movements and sizes, and a device starts those of all groups in the order of the
//! steps: then no rank waits for one that waits for it, whether a machine works at one exchange at a time or at all at once
//! ([`crate::validate::validate_ranks`]).

use serde::{Deserialize, Serialize};

use crate::{DType, Ref};

/// Where the rank of a plan stands among all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct World {
    /// This rank, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Those that its exchanges are among.
    pub groups: Vec<Group>,
}

impl Default for World {
    /// One rank alone.
    fn default() -> Self {
        World { rank: 0, size: 1, groups: vec![] }
    }
}

impl World {
    /// True if there are no others.
    pub fn is_single(&self) -> bool {
        *self == World::default()
    }
}

/// Ranks that exchange with each other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Group {
    /// The axis, or axes, of the mesh along which they lie; for people.
    pub name: String,
    /// Ranks of the world, ascending; the plan's own is one of them.
    pub members: Vec<usize>,
}

/// How bytes move.
///
/// The last two add up f32 as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl Movement {
    /// Whether numbers are added up on the way.
    pub const fn adds(self) -> bool {
        matches!(self, Movement::AllReduce | Movement::ReduceScatter)
    }

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Movement::AllGather => "all_gather",
            Movement::AllToAll => "all_to_all",
            Movement::AllReduce => "all_reduce",
            Movement::ReduceScatter => "reduce_scatter",
        }
    }
}

/// What one rank sends and receives in one exchange.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// How bytes move.
    pub movement: Movement,
    /// Index into [`World::groups`].
    pub group: usize,
    /// First byte that is sent.
    pub from: Ref,
    /// First byte that is received.
    pub to: Ref,
    /// Element type of what moves; for reports and checks.
    pub dtype: DType,
    /// Bytes that go from one member to another; a multiple of the element.
    pub part_bytes: u64,
}

impl Exchange {
    /// Bytes that are read at `from` and written at `to`, in a group of so many; nothing if that overflows.
    pub fn extents(&self, members: usize) -> Option<(u64, u64)> {
        let whole = self.part_bytes.checked_mul(members as u64)?;
        Some(match self.movement {
            Movement::AllGather => (self.part_bytes, whole),
            Movement::AllToAll => (whole, whole),
            Movement::AllReduce => (self.part_bytes, self.part_bytes),
            Movement::ReduceScatter => (whole, self.part_bytes),
        })
    }

    /// Bytes that this rank sends to others, which is as many as it receives from them: of a reduction that a library makes, what
    /// a ring of the members does, which is the least.
    pub fn bytes_sent(&self, members: usize) -> u64 {
        let (members, others) = (members as u64, (members as u64).saturating_sub(1));
        match self.movement {
            Movement::AllGather | Movement::AllToAll | Movement::ReduceScatter => self.part_bytes * others,
            Movement::AllReduce => 2 * self.part_bytes * others / members.max(1),
        }
    }

    /// `all_gather_16384_f32x4`: movement, elements of a part, their type, and members.
    pub fn name(&self, members: usize) -> String {
        let elements = self.part_bytes / self.dtype.bytes();
        format!("{}_{elements}_{}x{members}", self.movement.name(), self.dtype.name())
    }
}

/// The elements of a tensor that one rank has of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shard {
    /// The first, in row-major order.
    pub start: usize,
    /// How many.
    pub len: usize,
    /// How many the whole tensor has.
    pub of: usize,
}
