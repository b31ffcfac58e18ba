//! Ranks that are threads of one process. A message is a copy in a box that all threads reach.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::exchange::{Exchange, Group, Message, copy_own};
use super::{Comm, CommError, Ticket};
use crate::words::bytes;

/// Group, sender, receiver.
type Route = (u16, usize, usize);

/// A message of a route, by its number: exchanges that are under way at once may be waited for in any order.
type Address = (Route, u64);

#[derive(Default)]
struct Mail {
    letters: HashMap<Address, Vec<u8>>,
    /// The rank that ended all, and why.
    aborted: Option<(usize, String)>,
    /// Ranks whose end of this is dropped.
    gone: Vec<bool>,
}

/// A message that is waited for.
struct Pending {
    message: Message,
    from: Address,
    /// An address in memory, which only this rank's thread writes to.
    to: *mut u8,
}

/// One rank of several threads.
pub struct Local {
    rank: usize,
    size: usize,
    mail: Arc<Mutex<Mail>>,
    started: u64,
    /// Messages of each route that this rank has sent, or begun to wait for.
    counts: HashMap<Route, u64>,
    pending: HashMap<Ticket, Vec<Pending>>,
}

// SAFETY: the addresses of what is waited for are those of the thread that started it; it is moved to its thread before.
unsafe impl Send for Local {}

impl Local {
    /// A world of `size` ranks, in order; each goes to a thread of its own.
    pub fn world(size: usize) -> Vec<Local> {
        let mail = Mail { gone: vec![false; size], ..Mail::default() };
        let mail = Arc::new(Mutex::new(mail));
        let one = |rank| Local {
            rank,
            size,
            mail: Arc::clone(&mail),
            started: 0,
            counts: HashMap::new(),
            pending: HashMap::new(),
        };
        (0..size).map(one).collect()
    }

    /// The next message of a route that this rank is an end of.
    fn next(&mut self, route: Route) -> Address {
        let count = self.counts.entry(route).or_default();
        *count += 1;
        (route, *count)
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Comm for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn describe(&self) -> String {
        format!("{} threads of one process", self.size)
    }

    unsafe fn start(
        &mut self,
        exchange: &Exchange,
        group: &Group,
        from: *const u8,
        to: *mut u8,
    ) -> Result<Ticket, CommError> {
        let messages = exchange.messages(group);
        for Message { peer, offset, bytes } in &messages.sends {
            // SAFETY: the message lies within what the caller vouches for.
            let letter = unsafe { std::slice::from_raw_parts(from.add(*offset), *bytes) }.to_vec();
            let address = self.next((group.tag, self.rank, *peer));
            self.mail().letters.insert(address, letter);
        }
        // SAFETY: as the caller vouches.
        unsafe { copy_own(&messages, from, to) };
        self.started += 1;
        let ticket = Ticket(self.started);
        let expected = messages.receives.into_iter().map(|message| Pending {
            from: self.next((group.tag, message.peer, self.rank)),
            // SAFETY: the message lies within what the caller vouches for.
            to: unsafe { to.add(message.offset) },
            message,
        });
        let expected = expected.collect();
        self.pending.insert(ticket, expected);
        Ok(ticket)
    }

    fn test(&mut self, ticket: Ticket) -> Result<bool, CommError> {
        let Some(mut pending) = self.pending.remove(&ticket) else { return Ok(true) };
        let mut mail = self.mail();
        if let Some((by, message)) = mail.aborted.clone() {
            return Err(CommError::Aborted { by, message });
        }
        let mut error = None;
        pending.retain(|Pending { message, from, to }| {
            let Some(letter) = mail.letters.remove(from) else {
                if mail.gone[message.peer] {
                    let (rank, gone) = (self.rank, message.peer);
                    error = Some(CommError::Gone { rank, gone, label: String::new() });
                }
                return true;
            };
            if letter.len() == message.bytes {
                // SAFETY: who started it vouches for so many bytes until this is over.
                unsafe { std::ptr::copy_nonoverlapping(letter.as_ptr(), *to, letter.len()) };
            } else {
                error = Some(CommError::Length {
                    rank: self.rank,
                    from: message.peer,
                    label: String::new(),
                    expected: bytes(message.bytes as u64),
                    found: bytes(letter.len() as u64),
                });
            }
            false
        });
        drop(mail);
        if let Some(error) = error {
            return Err(error);
        }
        if pending.is_empty() {
            return Ok(true);
        }
        self.pending.insert(ticket, pending);
        Ok(false)
    }

    fn missing(&self, ticket: Ticket) -> Vec<usize> {
        self.pending.get(&ticket).into_iter().flatten().map(|pending| pending.message.peer).collect()
    }

    fn look(&mut self) -> Result<(), CommError> {
        let mail = self.mail();
        if let Some((by, message)) = mail.aborted.clone() {
            return Err(CommError::Aborted { by, message });
        }
        match mail.gone.iter().position(|gone| *gone) {
            Some(gone) => Err(CommError::Gone { rank: self.rank, gone, label: String::new() }),
            None => Ok(()),
        }
    }

    fn abort(&mut self, _: u8, message: &str) {
        let rank = self.rank;
        self.mail().aborted.get_or_insert_with(|| (rank, message.to_owned()));
    }

    fn finish(&mut self) -> Result<(), CommError> {
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let rank = self.rank;
        self.mail().gone[rank] = true;
    }
}
