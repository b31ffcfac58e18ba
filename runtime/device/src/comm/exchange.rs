//! Exchanges as messages between pairs of ranks: which bytes go where.

use super::error::{CommError, ranks};

/// Ranks that exchange with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Sets its messages apart from those of other groups of the same ranks.
    pub(super) tag: u16,
    /// Ranks of the world, in order.
    pub(super) members: Vec<usize>,
    /// This rank's place among them.
    pub(super) me: usize,
}

impl Group {
    /// Everybody, told apart from groups by the tag 0.
    pub(super) fn world(rank: usize, size: usize) -> Group {
        Group { tag: 0, members: (0..size).collect(), me: rank }
    }

    /// Ranks of the world that belong to it, in order.
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// How many belong to it.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// This rank's place among the members, from 0.
    pub fn place(&self) -> usize {
        self.me
    }

    /// The one of `groups` that `rank` is in; every rank of a world of `size` must be in exactly one.
    ///
    /// # Errors
    /// [`CommError::Group`] with the ranks that are in none, in two, or not there.
    pub(super) fn of(groups: &[Vec<usize>], rank: usize, size: usize, tag: u16) -> Result<Group, CommError> {
        let mut seen = vec![0; size];
        for member in groups.iter().flatten() {
            match seen.get_mut(*member) {
                Some(count) => *count += 1,
                None => return Err(CommError::Group(format!("a group has rank {member}, of {size} ranks"))),
            }
        }
        let wrong: Vec<usize> = (0..size).filter(|rank| seen[*rank] != 1).collect();
        if !wrong.is_empty() {
            return Err(CommError::Group(format!(
                "{} must be in one group each, no more and no less",
                ranks(&wrong)
            )));
        }
        let mut members =
            groups.iter().find(|group| group.contains(&rank)).cloned().unwrap_or_else(|| vec![rank]);
        members.sort_unstable();
        let me = members.iter().position(|member| *member == rank).unwrap_or(0);
        Ok(Group { tag, members, me })
    }

    /// `all 4 ranks`, or the members.
    pub(super) fn describe(&self, size: usize) -> String {
        if self.size() == size {
            format!("all {size} ranks")
        } else {
            format!("the group of {}", ranks(&self.members))
        }
    }
}

/// What is exchanged. Bytes are those of a part; a whole has as many parts as the group has members, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A whole to a whole: part i of member j becomes part j of member i.
    AllToAll {
        /// Of a part.
        bytes: usize,
    },
    /// A part to a whole: each member's part at its place, everywhere.
    AllGather {
        /// Of a part.
        bytes: usize,
    },
    /// The root's whole to a part: each member gets its own.
    Scatter {
        /// The member that has the whole.
        root: usize,
        /// Of a part.
        bytes: usize,
    },
    /// To one member.
    Send {
        /// The member that receives.
        to: usize,
        /// Of the message.
        bytes: usize,
    },
    /// From one member.
    Receive {
        /// The member that sends.
        from: usize,
        /// Of the message.
        bytes: usize,
    },
}

/// Bytes for or from another rank of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Rank of the world.
    pub(super) peer: usize,
    /// Where they lie, from the start of the operand.
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// What one rank does in an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    pub(super) sends: Vec<Message>,
    pub(super) receives: Vec<Message>,
    /// What stays here: where it is, where it goes, and how much.
    pub(super) own: Option<(usize, usize, usize)>,
}

impl Exchange {
    /// Bytes that this rank reads, and that it writes.
    pub fn bytes(&self, group: &Group) -> (usize, usize) {
        let whole = |bytes: usize| bytes * group.size();
        match *self {
            Exchange::AllToAll { bytes } => (whole(bytes), whole(bytes)),
            Exchange::AllGather { bytes } => (bytes, whole(bytes)),
            Exchange::Scatter { root, bytes } => (if group.me == root { whole(bytes) } else { 0 }, bytes),
            Exchange::Send { bytes, .. } => (bytes, 0),
            Exchange::Receive { bytes, .. } => (0, bytes),
        }
    }

    /// The messages of this rank.
    pub(super) fn messages(&self, group: &Group) -> Messages {
        let me = group.me;
        let others = || (1..group.size()).map(|step| (me + step) % group.size());
        let message = |member: usize, part: usize, bytes: usize| Message {
            peer: group.members[member],
            offset: part * bytes,
            bytes,
        };
        // Each begins with its next neighbour: else all would send to the first one at once.
        match *self {
            Exchange::AllToAll { bytes } => Messages {
                sends: others().map(|to| message(to, to, bytes)).collect(),
                receives: others().map(|from| message(from, from, bytes)).collect(),
                own: Some((me * bytes, me * bytes, bytes)),
            },
            Exchange::AllGather { bytes } => Messages {
                sends: others().map(|to| message(to, 0, bytes)).collect(),
                receives: others().map(|from| message(from, from, bytes)).collect(),
                own: Some((0, me * bytes, bytes)),
            },
            Exchange::Scatter { root, bytes } if root == me => Messages {
                sends: others().map(|to| message(to, to, bytes)).collect(),
                receives: vec![],
                own: Some((me * bytes, 0, bytes)),
            },
            Exchange::Scatter { root, bytes } => {
                Messages { receives: vec![message(root, 0, bytes)], ..Messages::default() }
            }
            Exchange::Send { to, bytes } => {
                Messages { sends: vec![message(to, 0, bytes)], ..Messages::default() }
            }
            Exchange::Receive { from, bytes } => {
                Messages { receives: vec![message(from, 0, bytes)], ..Messages::default() }
            }
        }
    }
}

/// Copies what stays with this rank.
///
/// # Safety
/// As [`super::Comm::start`].
pub(super) unsafe fn copy_own(messages: &Messages, from: *const u8, to: *mut u8) {
    let Some((source, target, bytes)) = messages.own else { return };
    // SAFETY: both lie within what the caller vouches for. A part at its own place is copied onto itself, which `copy` allows.
    unsafe { std::ptr::copy(from.add(source), to.add(target), bytes) };
}
