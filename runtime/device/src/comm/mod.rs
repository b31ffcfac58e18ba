//! Ranks: processes that share one piece of work and exchange bytes. Where this process stands among them ([`Place`]), what
//! moves bytes ([`Comm`]: `single`, `local`, `mpi`, `tcp`), and what is built on that ([`Ranks`]).
//!
//! Invariants: a backend moves bytes and never adds numbers, so that sums have the same bits on every backend; whoever waits has a
//! deadline and names whom it waits for; a failure of one rank ends all of them.
//!
//! An exchange is a set of messages between pairs of ranks ([`Exchange`]), not a collective call of the library: then a
//! rank that waits knows whose message has not come, and a group is a list of its members that no library is told of.
//! Bytes on the wire are those of the collectives.
//!
//! To add a backend: a module that implements [`Comm`], and an arm in [`connect`].

mod agree;
mod cores;
mod error;
mod exchange;
mod local;
mod mpi;
pub mod pattern;
mod place;
mod plan;
mod ranks;
mod single;
mod starter;
mod sum;
mod tcp;
#[cfg(test)]
mod tests;
mod watchdog;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

pub use agree::of_processes;
pub(crate) use cores::shown_gpus;
pub use error::CommError;
pub use exchange::{Exchange, Group};
pub use local::Local;
pub use mpi::Mpi;
pub use place::{Environment, LAUNCHER_VARIABLE, Launcher, Place, PlaceError};
pub(crate) use plan::groups_of;
pub use ranks::{LOST, Ranks};
pub use single::Single;
pub use starter::{StartError, Starter, become_command};
pub use sum::sum_parts;
pub use tcp::Tcp;

/// Names an exchange that was started and may not be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub(crate) u64);

/// One rank, for all that exchange with the others: a device, and who runs it. They are of one thread, which is all that MPI is asked for.
pub type SharedRanks = Rc<RefCell<Ranks>>;

/// Says a failure to the user, before the process ends by it.
pub type Say = fn(&str);

/// Moves bytes between ranks. All ranks of a group start the same exchanges of it in the same order.
pub trait Comm {
    /// This process among all, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// One line for people: library and ranks.
    fn describe(&self) -> String;

    /// Starts an exchange, and does not wait for it. Errors: those of the library.
    ///
    /// # Safety
    /// `from` and `to` are valid for as many bytes as [`Exchange::bytes`] says, reads and writes, and nobody else touches
    /// them, until [`Comm::test`] has said that it is over. They may overlap only where a part lies at its own place in
    /// the whole.
    unsafe fn start(
        &mut self,
        exchange: &Exchange,
        group: &Group,
        from: *const u8,
        to: *mut u8,
    ) -> Result<Ticket, CommError>;

    /// Whether an exchange is over: then its ticket is worth nothing any more. Errors: those of the library, messages of
    /// another length than was expected, and ranks that have ended.
    fn test(&mut self, ticket: Ticket) -> Result<bool, CommError>;

    /// The ranks whose part in an exchange has not come yet.
    fn missing(&self, ticket: Ticket) -> Vec<usize>;

    /// Looks after the other ranks while nothing is waited for here, as when a device waits for them by itself. Errors: ranks
    /// that are gone or have ended all, where the backend hears of it.
    fn look(&mut self) -> Result<(), CommError> {
        Ok(())
    }

    /// Ends all ranks. Where they are processes this does not return.
    fn abort(&mut self, code: u8, message: &str);

    /// Leaves the others in order, after the last exchange. Errors: those of the library.
    fn finish(&mut self) -> Result<(), CommError>;
}

/// Connects this process with the other ranks of its launcher, with exchanges that may take `timeout` each. `say` hears a
/// failure before all ranks end by it.
///
/// # Errors
/// [`CommError`]: no library that fits the launcher, or one that knows of other ranks than it; other ranks that are not reached.
pub fn connect(place: &Place, timeout: Duration, say: Say) -> Result<Ranks, CommError> {
    if place.world == 1 {
        return Ok(Ranks::new(Box::new(Single), timeout, say));
    }
    let launcher =
        place.launcher.ok_or(CommError::NoLibrary { launcher: "nothing", looked: String::new() })?;
    match launcher {
        Launcher::OpenMpi | Launcher::Mpich => {}
        Launcher::Slurm if place.has_pmix => {}
        Launcher::Slurm => return Err(CommError::NoPmix { world: place.world }),
        Launcher::Torchrun => {
            let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            let comm = Tcp::connect(place, &environment, timeout, say)?;
            return Ok(Ranks::new(Box::new(comm), timeout, say));
        }
    }
    Ok(Ranks::new(Box::new(Mpi::connect(place, launcher, timeout, say)?), timeout, say))
}
