//! This rank among the others: exchanges with a deadline, and linc's own sums over them.

mod lost;
mod pairs;
mod reduce;

use std::mem::size_of;
use std::thread;
use std::time::{Duration, Instant};

use super::{Comm, CommError, Exchange, Group, Say, Ticket};

/// Of messages that say who is there. Tags are numbers of which MPI allows so many at least.
const ROLL_CALL: u16 = i16::MAX as u16;
/// Numbers of groups are tags of messages.
const MOST_TAG: u16 = ROLL_CALL - 1;

/// The exit code of a run that ended because a rank failed, hangs or is gone.
pub const LOST: u8 = 3;

/// How a rank waits. It gives its core away between looks from the start, since ranks may share it; after some time it
/// sleeps between them.
#[derive(Clone, Copy)]
struct Pace {
    awake: Duration,
    nap: Duration,
}

/// Of ranks whose work waits with them.
const BUSY: Pace = Pace { awake: Duration::from_secs(1), nap: Duration::from_micros(50) };

/// Of ranks that wait for the work of others, from which they are to take no time.
const IDLE: Pace = Pace { awake: Duration::ZERO, nap: Duration::from_millis(1) };

/// One rank of a run. All ranks of a group call the same exchanges of it in the same order, each with its name for errors.
///
/// A failure is said, ends all ranks (with [`LOST`]), and where they are threads is returned. A rank that is dropped before
/// [`Ranks::finish`], as by a panic, ends all as well.
pub struct Ranks {
    comm: Box<dyn Comm>,
    timeout: Duration,
    /// What sets the timeout, for errors.
    option: &'static str,
    pace: Pace,
    say: Say,
    world: Group,
    groups: u16,
    /// What exchanges are a part of, for errors.
    context: String,
    sent: u64,
    /// What sums are taken of, kept between them.
    parts: Vec<f32>,
    ended: bool,
}

impl Ranks {
    /// Over a backend, with exchanges that may take `timeout` each.
    pub fn new(comm: Box<dyn Comm>, timeout: Duration, say: Say) -> Ranks {
        let world = Group::world(comm.rank(), comm.size());
        Ranks {
            comm,
            timeout,
            option: "the timeout",
            pace: BUSY,
            say,
            world,
            groups: 0,
            context: String::new(),
            sent: 0,
            parts: vec![],
            ended: false,
        }
    }

    /// This process among all, from 0.
    pub fn rank(&self) -> usize {
        self.world.place()
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.world.size()
    }

    /// One line for people: library and ranks.
    pub fn describe(&self) -> String {
        self.comm.describe()
    }

    /// What an exchange may take from now on, and the option that sets it, for errors: what comes first may wait for processes
    /// that start, and what follows not.
    pub fn set_timeout(&mut self, timeout: Duration, option: &'static str) {
        (self.timeout, self.option) = (timeout, option);
    }

    /// What exchanges are a part of from now on, such as a step, for errors.
    pub fn set_context(&mut self, context: String) {
        self.context = context;
    }

    fn named(&self, name: &str) -> String {
        if self.context.is_empty() { name.to_owned() } else { format!("{name} in {}", self.context) }
    }

    /// The group of all ranks.
    pub fn world(&self) -> Group {
        self.world.clone()
    }

    /// Bytes that this rank has sent to others so far.
    pub fn bytes_sent(&self) -> u64 {
        self.sent
    }

    /// Divides the world into groups, the same on all ranks; the one that this rank is in.
    ///
    /// # Errors
    /// [`CommError::Group`] where a rank is in no group or in two, [`CommError::Differ`] where the ranks name others.
    pub fn divide(&mut self, groups: &[Vec<usize>]) -> Result<Group, CommError> {
        let tag = self.groups + 1;
        // First whether all name the same: then what is wrong with it all find alike.
        self.agree(&[("groups", format!("{groups:?}"))])?;
        let group = Group::of(groups, self.rank(), self.size(), tag)?;
        if tag > MOST_TAG {
            return Err(CommError::Group(format!("the world was divided {} times", self.groups)));
        }
        self.groups = tag;
        Ok(group)
    }

    /// Part i of member j becomes part j of member i. Both have as many bytes, a multiple of the members.
    ///
    /// # Errors
    /// As all exchanges: [`CommError::Missing`] after the deadline, and what the backend says.
    pub fn all_to_all(
        &mut self,
        name: &str,
        group: &Group,
        from: &[u8],
        to: &mut [u8],
    ) -> Result<(), CommError> {
        let exchange = Exchange::AllToAll { bytes: from.len() / group.size() };
        self.run(name, group, exchange, from, to)
    }

    /// Each member's part at its place, everywhere: `whole` has the bytes of all parts.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn all_gather(
        &mut self,
        name: &str,
        group: &Group,
        part: &[u8],
        whole: &mut [u8],
    ) -> Result<(), CommError> {
        self.run(name, group, Exchange::AllGather { bytes: part.len() }, part, whole)
    }

    /// `bytes` of the member `root` becomes that of all: cut into parts that the members then gather, so that the
    /// root sends its bytes about twice, whatever the size of the group.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn broadcast(
        &mut self,
        name: &str,
        group: &Group,
        root: usize,
        bytes: &mut [u8],
    ) -> Result<(), CommError> {
        let part = bytes.len().div_ceil(group.size());
        let whole = part * group.size();
        if whole != bytes.len() {
            let mut padded = bytes.to_vec();
            padded.resize(whole, 0);
            self.broadcast(name, group, root, &mut padded)?;
            bytes.copy_from_slice(&padded[..bytes.len()]);
            return Ok(());
        }
        let start = bytes.as_mut_ptr();
        // SAFETY: the part of this member lies within the whole, and both exchanges have a part at its own place.
        unsafe {
            let mine = start.add(group.place() * part);
            // The root's own part lies in the whole that it sends from.
            self.exchange(name, group, Exchange::Scatter { root, bytes: part }, start, mine)?;
            self.exchange(name, group, Exchange::AllGather { bytes: part }, mine, start)
        }
    }

    /// Sends to one member and receives as many bytes from another, both at once: a step of a ring.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn send_receive(
        &mut self,
        name: &str,
        group: &Group,
        (to, sent): (usize, &[u8]),
        (from, received): (usize, &mut [u8]),
    ) -> Result<(), CommError> {
        if group.size() == 1 {
            received.copy_from_slice(sent);
            return Ok(());
        }
        let send = Exchange::Send { to, bytes: sent.len() };
        let receive = Exchange::Receive { from, bytes: received.len() };
        // SAFETY: both slices live until both exchanges are over, and cannot overlap.
        unsafe {
            let first = self.start(name, group, receive, std::ptr::null(), received.as_mut_ptr())?;
            self.exchange(name, group, send, sent.as_ptr(), std::ptr::null_mut())?;
            self.wait(name, group, first)
        }
    }

    /// Comes back when all members have come here.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn barrier(&mut self, name: &str, group: &Group) -> Result<(), CommError> {
        self.all_gather(name, group, &[0], &mut vec![0; group.size()])
    }

    /// [`Ranks::barrier`] of a rank that has nothing to do until the others come, after as many `exchanges` among
    /// themselves at most: it waits as long as each of these may take, and sleeps meanwhile.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn idle_barrier(&mut self, name: &str, group: &Group, exchanges: u32) -> Result<(), CommError> {
        let before = (self.timeout, self.pace);
        (self.timeout, self.pace) = (self.timeout.saturating_mul(exchanges.saturating_add(1)), IDLE);
        let result = self.barrier(name, group);
        (self.timeout, self.pace) = before;
        result
    }

    /// The bytes of all members, in order; they may differ in length.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn gather(&mut self, name: &str, group: &Group, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError> {
        const LENGTH: usize = size_of::<u64>();
        let mut lengths = vec![0; LENGTH * group.size()];
        self.all_gather(name, group, &(bytes.len() as u64).to_le_bytes(), &mut lengths)?;
        let lengths: Vec<usize> = lengths
            .chunks_exact(LENGTH)
            .map(|length| length.iter().rev().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
            .collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![vec![]; group.size()]);
        }
        let mut padded = bytes.to_vec();
        padded.resize(longest, 0);
        let mut all = vec![0; longest * group.size()];
        self.all_gather(name, group, &padded, &mut all)?;
        Ok(all.chunks_exact(longest).zip(lengths).map(|(bytes, length)| bytes[..length].to_vec()).collect())
    }

    /// Ends all ranks with an exit code, because of what is said of this one: where they are processes this does not return.
    pub fn abort(&mut self, code: u8, message: &str) {
        self.ended = true;
        (self.say)(message);
        self.comm.abort(code, message);
    }

    /// Leaves in order, when all ranks do.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn finish(&mut self) -> Result<(), CommError> {
        let world = self.world();
        self.barrier("the end", &world)?;
        self.ended = true;
        self.comm.finish()
    }

    /// The group of these ranks, ascending, of which this is one. Groups of the same number have the same members on all of them;
    /// numbers begin at 1.
    ///
    /// # Errors
    /// [`CommError::Group`] where this rank is none of them, or one is not there, and for a number that cannot be told apart.
    pub fn group(&self, members: &[usize], number: u16) -> Result<Group, CommError> {
        if !(1..=MOST_TAG).contains(&number) {
            return Err(CommError::Group(format!("group {number} has no number from 1 to {MOST_TAG}")));
        }
        let place = members.iter().position(|member| *member == self.rank());
        let is_sound =
            members.is_sorted_by(|a, b| a < b) && members.last().is_some_and(|last| *last < self.size());
        match place {
            Some(me) if is_sound => Ok(Group { tag: number, members: members.to_vec(), me }),
            _ => Err(CommError::Group(format!(
                "rank {} of {} cannot exchange with the group {members:?}",
                self.rank(),
                self.size()
            ))),
        }
    }

    /// Starts an exchange of a plan, with its name for errors.
    ///
    /// # Errors
    /// What the backend says.
    ///
    /// # Safety
    /// `from` and `to` are as [`Comm::start`] wants them until [`Ranks::wait`] has returned.
    pub(crate) unsafe fn start(
        &mut self,
        name: &str,
        group: &Group,
        exchange: Exchange,
        from: *const u8,
        to: *mut u8,
    ) -> Result<Ticket, CommError> {
        // SAFETY: as the caller vouches.
        let ticket = unsafe { self.comm.start(&exchange, group, from, to) };
        let ticket = ticket.or_else(|error| self.fail(error.in_exchange(&self.named(name))))?;
        self.sent += exchange.messages(group).sends.iter().map(|message| message.bytes as u64).sum::<u64>();
        Ok(ticket)
    }

    /// An exchange whose operands do not overlap. A length that the exchange does not have is an error of the caller.
    fn run(
        &mut self,
        name: &str,
        group: &Group,
        exchange: Exchange,
        from: &[u8],
        to: &mut [u8],
    ) -> Result<(), CommError> {
        let (reads, writes) = exchange.bytes(group);
        if (from.len(), to.len()) != (reads, writes) {
            let (from, to) = (from.len(), to.len());
            return self.fail(CommError::Group(format!(
                "rank {}: {name} of {}: {from} bytes to {to}, expected {reads} to {writes}",
                self.rank(),
                group.describe(self.size())
            )));
        }
        // SAFETY: the slices have the bytes of the exchange and live until it is over.
        unsafe { self.exchange(name, group, exchange, from.as_ptr(), to.as_mut_ptr()) }
    }

    /// # Safety
    /// `from` and `to` are as [`Comm::start`] wants them, until this returns.
    unsafe fn exchange(
        &mut self,
        name: &str,
        group: &Group,
        exchange: Exchange,
        from: *const u8,
        to: *mut u8,
    ) -> Result<(), CommError> {
        // SAFETY: as the caller vouches.
        let ticket = unsafe { self.start(name, group, exchange, from, to) }?;
        self.wait(name, group, ticket)
    }

    /// Looks again and again whether an exchange is over: a backend may need that to go on at all.
    pub(crate) fn wait(&mut self, name: &str, group: &Group, ticket: Ticket) -> Result<(), CommError> {
        let begun = Instant::now();
        loop {
            match self.comm.test(ticket) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return self.fail(error.in_exchange(&self.named(name))),
            }
            let elapsed = begun.elapsed();
            if elapsed > self.timeout {
                let mut missing = self.comm.missing(ticket);
                missing.sort_unstable();
                missing.dedup();
                return self.fail(CommError::Missing {
                    rank: self.rank(),
                    label: self.named(name),
                    group: group.describe(self.size()),
                    missing,
                    timeout: self.timeout,
                    option: self.option,
                });
            }
            if elapsed > self.pace.awake { thread::sleep(self.pace.nap) } else { thread::yield_now() }
        }
    }

    /// Ends all ranks by an error of this one; by one that was another's, only this.
    fn fail<T>(&mut self, error: CommError) -> Result<T, CommError> {
        self.ended = true;
        if !matches!(error, CommError::Aborted { .. }) {
            let message = error.to_string();
            (self.say)(&message);
            self.comm.abort(LOST, &message);
        }
        Err(error)
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        if !self.ended && self.size() > 1 {
            let message = format!("rank {} has ended before the others", self.rank());
            self.abort(LOST, &message);
        }
    }
}
