//! Ranks over MPI: a library that is opened at run time, whichever the launcher belongs to.
//!
//! Only messages between pairs are used, so that a dozen functions and a few constants make up for what the three binary
//! interfaces of MPIs differ in ([`table`]). Everything is called by the thread that connected.

mod library;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

pub(super) use library::{Search, VARIABLE, file_names, open, program_folders};
pub(super) use table::Family;
use table::{Request, Status, Table};

use super::exchange::{Exchange, Group, copy_own};
use super::watchdog::Watchdog;
use super::{Comm, CommError, Launcher, Place, Say, Ticket};
use crate::words;

/// Counts of MPI are C integers: a longer message is cut.
const LONGEST: usize = 1 << 30;

/// A piece of a message that is on its way.
struct Pending {
    request: Request,
    peer: usize,
    /// What must come; nothing for a piece that is sent.
    expected: Option<usize>,
}

/// This rank in the world of an MPI library.
pub struct Mpi {
    table: Table,
    rank: usize,
    size: usize,
    description: String,
    started: u64,
    pending: HashMap<Ticket, Vec<Pending>>,
    timeout: Duration,
    say: Say,
    /// The library is told that one thread calls it.
    _one_thread: PhantomData<*const ()>,
}

impl Mpi {
    /// Opens the library that belongs to the launcher, and waits for the other ranks.
    ///
    /// # Errors
    /// [`CommError`]: no library, another MPI's, or one that knows of other ranks than the launcher. Where ranks do not come,
    /// the process ends with [`super::LOST`].
    pub fn connect(place: &Place, launcher: Launcher, timeout: Duration, say: Say) -> Result<Mpi, CommError> {
        let (library, path) = open(&Search::of_process(), &file_names(launcher))
            .map_err(|looked| CommError::NoLibrary { launcher: launcher.name(), looked })?;
        let shown = path.display().to_string();
        let refused = |message: String| CommError::Call {
            rank: place.rank,
            action: format!("cannot use {shown}"),
            message,
        };
        let table = Table::of(library, &path).map_err(refused)?;
        // Open MPI's launcher ends processes of another library with obscure words; so it is looked at before.
        if let Some(library) = table.stranger_to(launcher) {
            return Err(CommError::OtherLibrary { path: shown, library, launcher: launcher.name() });
        }
        let blocked = |action| CommError::Blocked { rank: place.rank, world: place.world, action, timeout };
        let watchdog = Watchdog::start(timeout, blocked("MPI_Init_thread"), say);
        let (rank, size) = table.init().map_err(refused)?;
        drop(watchdog);
        if (rank, size) != (place.rank, place.world) {
            return Err(CommError::OtherWorld {
                path: shown,
                rank,
                size,
                launcher: launcher.name(),
                expected_rank: place.rank,
                expected: place.world,
            });
        }
        let description = format!("{size} ranks over {} ({shown})", table.version());
        Ok(Mpi {
            table,
            rank,
            size,
            description,
            started: 0,
            pending: HashMap::new(),
            timeout,
            say,
            _one_thread: PhantomData,
        })
    }

    fn check(&self, code: c_int, action: &str) -> Result<(), CommError> {
        self.table.check(code).map_err(|message| CommError::Call {
            rank: self.rank,
            action: action.to_owned(),
            message,
        })
    }
}

impl Comm for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    unsafe fn start(
        &mut self,
        exchange: &Exchange,
        group: &Group,
        from: *const u8,
        to: *mut u8,
    ) -> Result<Ticket, CommError> {
        let messages = exchange.messages(group);
        let mut pending = vec![];
        let tag = c_int::from(group.tag);
        // Receives first: what comes finds its place.
        for message in &messages.receives {
            for (offset, bytes) in pieces(message.offset, message.bytes) {
                let mut request = Request::default();
                // SAFETY: the piece lies within what the caller vouches for until the request is over.
                let code = unsafe {
                    self.table.irecv(to.add(offset).cast(), bytes, message.peer, tag, &mut request)
                };
                self.check(code, &format!("receiving from rank {}", message.peer))?;
                pending.push(Pending { request, peer: message.peer, expected: Some(bytes) });
            }
        }
        for message in &messages.sends {
            for (offset, bytes) in pieces(message.offset, message.bytes) {
                let mut request = Request::default();
                let piece: *const c_void = from.wrapping_add(offset).cast();
                // SAFETY: the piece lies within what the caller vouches for until the request is over.
                let code = unsafe { self.table.isend(piece, bytes, message.peer, tag, &mut request) };
                self.check(code, &format!("sending to rank {}", message.peer))?;
                pending.push(Pending { request, peer: message.peer, expected: None });
            }
        }
        // SAFETY: as the caller vouches.
        unsafe { copy_own(&messages, from, to) };
        self.started += 1;
        let ticket = Ticket(self.started);
        self.pending.insert(ticket, pending);
        Ok(ticket)
    }

    fn test(&mut self, ticket: Ticket) -> Result<bool, CommError> {
        let Some(mut pending) = self.pending.remove(&ticket) else { return Ok(true) };
        let mut index = 0;
        while let Some(piece) = pending.get_mut(index) {
            let mut status = Status::default();
            // SAFETY: the request is one that was started and is not over; what it touches is vouched for.
            let (code, done) = unsafe { self.table.test(&mut piece.request, &mut status) };
            let Pending { peer, expected, .. } = *piece;
            let other_length = |expected: usize, found: String| CommError::Length {
                rank: self.rank,
                from: peer,
                label: String::new(),
                expected: words::bytes(expected as u64),
                found,
            };
            // What did not find room is an error of the call, and how much it was libraries do not say.
            if let Some(expected) = expected.filter(|_| self.table.is_truncation(code)) {
                let room = words::bytes(expected as u64);
                return Err(other_length(expected, format!("more than {room}")));
            }
            self.check(code, &format!("messages with rank {peer}"))?;
            if !done {
                index += 1;
                continue;
            }
            pending.swap_remove(index);
            let Some(expected) = expected else { continue };
            let found = self.table.count(&status);
            if found != expected {
                return Err(other_length(expected, words::bytes(found as u64)));
            }
        }
        if pending.is_empty() {
            return Ok(true);
        }
        self.pending.insert(ticket, pending);
        Ok(false)
    }

    fn missing(&self, ticket: Ticket) -> Vec<usize> {
        let pending = self.pending.get(&ticket).map(Vec::as_slice).unwrap_or_default();
        let of = |received: bool| {
            let some = pending.iter().filter(move |piece| piece.expected.is_some() == received);
            some.map(|piece| piece.peer).collect::<Vec<_>>()
        };
        // A rank to which nothing can be sent hangs as well; but whose message has not come is the surer.
        Some(of(true)).filter(|receives| !receives.is_empty()).unwrap_or_else(|| of(false))
    }

    fn abort(&mut self, code: u8, _: &str) {
        let blocked =
            CommError::Blocked { rank: self.rank, world: self.size, action: "MPI_Abort", timeout: ABORT };
        let _watchdog = Watchdog::start(ABORT, blocked, self.say);
        // What the starter has not read of a rank yet, MPICH's drops when it ends all: then nobody would know why.
        std::thread::sleep(HEARD);
        self.table.abort(code);
        std::process::exit(code.into());
    }

    fn finish(&mut self) -> Result<(), CommError> {
        let (rank, world, timeout) = (self.rank, self.size, self.timeout);
        let blocked = CommError::Blocked { rank, world, action: "MPI_Finalize", timeout };
        let _watchdog = Watchdog::start(timeout, blocked, self.say);
        let code = self.table.finalize();
        self.check(code, "MPI_Finalize")
    }
}

/// What ending all ranks may take.
const ABORT: Duration = Duration::from_secs(10);

/// What a starter may take to hand on what a rank has said.
const HEARD: Duration = Duration::from_millis(200);

/// A message in pieces that MPI can count, each with its place and bytes. One without bytes is a message as well.
fn pieces(offset: usize, bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = bytes.div_ceil(LONGEST).max(1);
    (0..count).map(move |piece| (offset + piece * LONGEST, LONGEST.min(bytes - piece * LONGEST)))
}

/// Whether a file is a library of the launcher's MPI that opens.
pub(super) fn fits(path: &Path, family: Family) -> bool {
    // SAFETY: opening an MPI library runs the initialisers of it and its dependencies, which do not start it.
    let library = unsafe { libloading::Library::new(path) };
    library.ok().and_then(|library| Table::of(library, path).ok()).is_some_and(|table| table.family == family)
}
