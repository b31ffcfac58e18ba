//! Ranks over TCP, for launchers that bring no MPI: `torchrun`. Each two ranks have a connection.
//!
//! It carries what ranks tell each other, and gradients where devices have nothing faster (NCCL).

mod link;
mod meeting;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use link::{Event, Link, State};
use meeting::Meeting;

use super::exchange::{Exchange, Group, copy_own};
use super::watchdog::Watchdog;
use super::{Comm, CommError, Environment, LOST, Place, Say, Ticket};
use crate::words;

/// What telling all others of an end may take.
const ABORT: Duration = Duration::from_secs(2);
/// What leaving may take beside that.
const EXIT: Duration = Duration::from_secs(10);

/// Messages of an exchange that are on their way.
#[derive(Default)]
struct Pending {
    sends: Vec<usize>,
    receives: Vec<usize>,
    wrong: Option<CommError>,
}

/// This rank among those that a launcher has told one address.
pub struct Tcp {
    rank: usize,
    links: Vec<Option<Link>>,
    started: u64,
    pending: HashMap<Ticket, Pending>,
    /// Who has ended all, with which code, and why.
    aborted: Option<(usize, u8, String)>,
    /// Ranks are processes, which end with the others; nothing where they are threads.
    process: Option<Say>,
}

impl Tcp {
    /// Meets the other ranks where the environment says.
    ///
    /// # Errors
    /// [`CommError::Meeting`]: no address, or none to listen at. Where ranks do not come, the process ends with [`LOST`].
    pub fn connect(
        place: &Place,
        environment: &Environment<'_>,
        timeout: Duration,
        say: Say,
    ) -> Result<Tcp, CommError> {
        let begun = Instant::now();
        let mut comm = Tcp::of_threads(place, environment, timeout).inspect_err(|error| {
            if begun.elapsed() >= timeout {
                say(&error.to_string());
                std::process::exit(LOST.into());
            }
        })?;
        comm.process = Some(say);
        Ok(comm)
    }

    /// As [`Tcp::connect`], of ranks that are threads.
    fn of_threads(place: &Place, environment: &Environment<'_>, timeout: Duration) -> Result<Tcp, CommError> {
        let streams = Meeting::of(place, environment)?.connect(place, timeout)?;
        let links: io::Result<_> =
            streams.into_iter().map(|stream| stream.map(Link::new).transpose()).collect();
        let links = links.map_err(|error| CommError::Meeting(format!("rank {}: {error}", place.rank)))?;
        let (rank, pending) = (place.rank, HashMap::new());
        Ok(Tcp { rank, links, started: 0, pending, aborted: None, process: None })
    }

    /// Sends and receives what can be now.
    fn progress(&mut self) {
        let mut events = vec![];
        for peer in 0..self.links.len() {
            if let Some(link) = &mut self.links[peer] {
                link.progress(&mut events);
            }
            self.note(peer, &mut events);
        }
    }

    fn note(&mut self, peer: usize, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            match event {
                Event::Sent(ticket) => self.over(ticket, |pending| &mut pending.sends, peer),
                Event::Received(ticket) => self.over(ticket, |pending| &mut pending.receives, peer),
                Event::Length { ticket, expected, found } => {
                    let error = CommError::Length {
                        rank: self.rank,
                        from: peer,
                        label: String::new(),
                        expected: words::bytes(expected as u64),
                        found: words::bytes(found as u64),
                    };
                    self.pending.entry(ticket).or_default().wrong.get_or_insert(error);
                }
                Event::Abort { code, message } => {
                    self.aborted.get_or_insert((peer, code, message));
                }
            }
        }
    }

    fn over(&mut self, ticket: Ticket, side: fn(&mut Pending) -> &mut Vec<usize>, peer: usize) {
        let Some(side) = self.pending.get_mut(&ticket).map(side) else { return };
        if let Some(index) = side.iter().position(|other| *other == peer) {
            side.swap_remove(index);
        }
    }

    /// The end that another rank has made of all. Where ranks are processes this one ends as well.
    fn end_of_all(&mut self) -> Result<(), CommError> {
        let Some((by, code, message)) = self.aborted.clone() else { return Ok(()) };
        self.exit(code);
        self.disconnect();
        Err(CommError::Aborted { by, message })
    }

    fn exit(&self, code: u8) {
        let Some(say) = self.process else { return };
        let (rank, world) = (self.rank, self.links.len());
        let blocked = CommError::Blocked { rank, world, action: "the end of the process", timeout: EXIT };
        let _watchdog = Watchdog::start(EXIT, blocked, say);
        std::process::exit(code.into());
    }

    /// What is on its way never comes: nobody vouches for its places any more.
    fn disconnect(&mut self) {
        self.links.iter_mut().for_each(|link| *link = None);
    }

    fn is_gone(&self, peer: usize) -> bool {
        self.links[peer].as_ref().is_none_or(|link| link.state != State::Open)
    }

    /// Sends what is queued, within a time.
    fn flush(&mut self, within: Duration) {
        let begun = Instant::now();
        while self.links.iter().flatten().any(|link| !link.is_flushed()) && begun.elapsed() < within {
            self.progress();
            std::thread::yield_now();
        }
    }
}

impl Comm for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.links.len()
    }

    fn describe(&self) -> String {
        format!("{} ranks over TCP", self.links.len())
    }

    unsafe fn start(
        &mut self,
        exchange: &Exchange,
        group: &Group,
        from: *const u8,
        to: *mut u8,
    ) -> Result<Ticket, CommError> {
        self.started += 1;
        let ticket = Ticket(self.started);
        let messages = exchange.messages(group);
        let peers = |messages: &[super::exchange::Message]| messages.iter().map(|m| m.peer).collect();
        let pending =
            Pending { sends: peers(&messages.sends), receives: peers(&messages.receives), wrong: None };
        self.pending.insert(ticket, pending);
        for message in &messages.receives {
            let mut events = vec![];
            if let Some(link) = &mut self.links[message.peer] {
                // SAFETY: the message lies within what the caller vouches for.
                unsafe {
                    link.receive(group.tag, to.add(message.offset), message.bytes, ticket, &mut events);
                }
            }
            self.note(message.peer, &mut events);
        }
        for message in &messages.sends {
            if let Some(link) = &mut self.links[message.peer] {
                // SAFETY: the message lies within what the caller vouches for.
                unsafe { link.send(group.tag, from.wrapping_add(message.offset), message.bytes, ticket) };
            }
        }
        // SAFETY: as the caller vouches.
        unsafe { copy_own(&messages, from, to) };
        self.progress();
        Ok(ticket)
    }

    fn test(&mut self, ticket: Ticket) -> Result<bool, CommError> {
        self.progress();
        self.end_of_all()?;
        let Some(pending) = self.pending.get_mut(&ticket) else { return Ok(true) };
        if let Some(error) = pending.wrong.take() {
            return Err(error);
        }
        if pending.sends.is_empty() && pending.receives.is_empty() {
            self.pending.remove(&ticket);
            return Ok(true);
        }
        let waited: Vec<usize> = pending.receives.iter().chain(&pending.sends).copied().collect();
        match waited.into_iter().find(|peer| self.is_gone(*peer)) {
            Some(gone) => Err(CommError::Gone { rank: self.rank, gone, label: String::new() }),
            None => Ok(false),
        }
    }

    fn missing(&self, ticket: Ticket) -> Vec<usize> {
        let Some(pending) = self.pending.get(&ticket) else { return vec![] };
        // A rank to which nothing can be sent hangs as well; but whose message has not come is the surer.
        if pending.receives.is_empty() { pending.sends.clone() } else { pending.receives.clone() }
    }

    fn look(&mut self) -> Result<(), CommError> {
        self.progress();
        self.end_of_all()?;
        let is_gone = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.state == State::Gone);
        match self.links.iter().position(is_gone) {
            Some(gone) => Err(CommError::Gone { rank: self.rank, gone, label: String::new() }),
            None => Ok(()),
        }
    }

    fn abort(&mut self, code: u8, message: &str) {
        for link in self.links.iter_mut().flatten() {
            link.send_abort(code, message);
        }
        self.flush(ABORT);
        self.exit(code);
        self.disconnect();
    }

    fn finish(&mut self) -> Result<(), CommError> {
        for link in self.links.iter_mut().flatten() {
            link.send_leave();
        }
        self.flush(ABORT);
        Ok(())
    }
}
