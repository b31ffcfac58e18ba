//! The ranks of a run, and what they tell each other beside gradients: what must be the same, what went wrong on one of them,
//! and that somebody asked to stop.
//!
//! Invariant: what a run does next is decided from what all ranks know, so that all do the same. What only one rank meets is
//! either settled with all ([`Team::settle`]) or ends all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use linc_device::comm::{CommError, Ranks, SharedRanks, Single};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::TrainError;

/// This process and the other ranks of its run.
#[derive(Clone)]
pub struct Team {
    ranks: SharedRanks,
    rank: usize,
    size: usize,
    timeouts: Timeouts,
    /// When this rank has last told the others that it is at work.
    signed: Rc<Cell<Instant>>,
    /// All ranks have heard of an error of one of them.
    settled: Rc<Cell<bool>>,
}

/// How long a rank waits for a sign of others: in what is done once, such as reading data or writing a checkpoint, and in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `comm.init_timeout_seconds`
    pub init: Duration,
    /// `comm.train_timeout_seconds`
    pub train: Duration,
}

/// What a rank says of a piece of work.
const WELL: u8 = 0;
const FAILED: u8 = 1;
const INTERRUPTED: u8 = 2;

/// Signs of life within the time that others wait for one.
const SIGNS: u32 = 10;
/// The longest time between two of them.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// The options that set what is waited for.
const INIT_OPTION: &str = "--comm.init_timeout_seconds";
const TRAIN_OPTION: &str = "--comm.train_timeout_seconds";

impl Team {
    /// A process that has no others beside it.
    pub fn alone() -> Team {
        let forever = Duration::MAX;
        let ranks = Ranks::new(Box::new(Single), forever, |_| {});
        Team::new(ranks, Timeouts { init: forever, train: forever })
    }

    /// Of ranks that are connected.
    pub fn new(mut ranks: Ranks, timeouts: Timeouts) -> Team {
        ranks.set_timeout(timeouts.init, INIT_OPTION);
        let (rank, size) = (ranks.rank(), ranks.size());
        let signed = Rc::new(Cell::new(Instant::now()));
        Team { ranks: Rc::new(RefCell::new(ranks)), rank, size, timeouts, signed, settled: Rc::default() }
    }

    /// This process among all, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this is the rank that writes and speaks.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Whether nobody else has a part in the run.
    pub fn is_alone(&self) -> bool {
        self.size == 1
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        self.ranks.borrow().describe()
    }

    /// The exchanges themselves.
    pub fn ranks(&self) -> &SharedRanks {
        &self.ranks
    }

    /// Threads for this rank, which is told how many, or 0 for its share of the cores; nothing where it may take all of them.
    /// Ranks may be told different numbers, so all ask the others, whatever they are told.
    ///
    /// # Errors
    /// [`TrainError::Ranks`], as all that is exchanged.
    pub fn threads(&self, told: usize) -> Result<Option<usize>, TrainError> {
        if self.is_alone() {
            return Ok((told > 0).then_some(told));
        }
        let fair = self.ranks.borrow_mut().fair_threads()?;
        Ok(Some(if told > 0 { told } else { fair }))
    }

    /// How many of the ranks before this one choose among the same GPUs of the same machine.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub fn place_by_gpus(&self) -> Result<usize, TrainError> {
        Ok(self.ranks.borrow_mut().place_by_gpus()?)
    }

    /// A piece of work that each rank did by itself: it is well where it is on all ranks. Else all get an error: that of the
    /// first rank that has one.
    ///
    /// # Errors
    /// Its own, [`TrainError::OfRank`], or [`TrainError::Interrupted`] where somebody asked any of them to stop.
    pub fn settle<T>(&self, name: &str, result: Result<T, TrainError>) -> Result<T, TrainError> {
        if self.is_alone() {
            return result;
        }
        let said = match &result {
            Ok(_) => vec![WELL],
            Err(error) if error.is_interrupt() => vec![INTERRUPTED],
            Err(error) => {
                // Errors of settings begin with a place, or say `error:` themselves.
                let error = error.to_string();
                [&[FAILED], error.strip_prefix("error: ").unwrap_or(&error).as_bytes()].concat()
            }
        };
        let all = self.gather(name, &said)?;
        let word = |said: &Vec<u8>| said.first().copied().unwrap_or(WELL);
        if let Some(rank) = all.iter().position(|said| word(said) == FAILED) {
            self.settled.set(true);
            return match result {
                Err(error) if rank == self.rank => Err(error),
                _ => {
                    let message = String::from_utf8_lossy(&all[rank][1..]).into_owned();
                    Err(TrainError::OfRank { rank, message })
                }
            };
        }
        if all.iter().any(|said| word(said) == INTERRUPTED) {
            self.settled.set(true);
            return Err(TrainError::Interrupted);
        }
        result
    }

    /// Compares facts, each with its name, over all ranks.
    ///
    /// # Errors
    /// [`CommError::Differ`] on all ranks alike.
    pub fn agree(&self, facts: &[(&str, String)]) -> Result<(), TrainError> {
        let agreed = self.ranks.borrow_mut().agree(facts);
        if matches!(agreed, Err(CommError::Differ(_))) {
            self.settled.set(true);
        }
        Ok(agreed?)
    }

    /// What the first rank says, on all.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub(crate) fn of_first(&self, name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, TrainError> {
        if self.is_alone() {
            return Ok(bytes);
        }
        let said = if self.is_first() { &bytes[..] } else { &[] };
        Ok(self.gather(name, said)?.swap_remove(0))
    }

    /// What all say, in the order of the ranks.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub(crate) fn gather(&self, name: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        let mut ranks = self.ranks.borrow_mut();
        let world = ranks.world();
        Ok(ranks.gather(name, &world, bytes)?)
    }

    /// As [`Team::gather`], of numbers.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub(crate) fn gather_numbers<T: bytemuck::Pod>(
        &self,
        name: &str,
        numbers: &[T],
    ) -> Result<Vec<Vec<T>>, TrainError> {
        let of_rank =
            |bytes: Vec<u8>| bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect();
        Ok(self.gather(name, bytemuck::cast_slice(numbers))?.into_iter().map(of_rank).collect())
    }

    /// As [`Team::gather`], of values.
    ///
    /// # Errors
    /// As [`Team::threads`], and [`TrainError::OfRank`] for what is none.
    pub(crate) fn gather_values<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<Vec<T>, TrainError> {
        let of_rank = |(rank, bytes): (usize, Vec<u8>)| {
            // All are this program, of one version.
            serde_json::from_slice(&bytes)
                .map_err(|error| TrainError::OfRank { rank, message: format!("{name}: {error}") })
        };
        let all = self.gather(name, &serde_json::to_vec(value).unwrap_or_default())?;
        all.into_iter().enumerate().map(of_rank).collect()
    }

    /// The bytes of a rank become those of the first; the others have no part in it.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub(crate) fn hand_to_first(&self, name: &str, rank: usize, bytes: &mut [u8]) -> Result<(), TrainError> {
        let mut ranks = self.ranks.borrow_mut();
        let world = ranks.world();
        Ok(ranks.hand_over(name, &world, (rank, 0), bytes)?)
    }

    /// Whether any rank says yes.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub(crate) fn any(&self, name: &str, mine: bool) -> Result<bool, TrainError> {
        if self.is_alone() {
            return Ok(mine);
        }
        Ok(self.gather(name, &[u8::from(mine)])?.iter().any(|said| said.as_slice() != [0]))
    }

    /// A piece of work of the first rank alone, for which the others wait as long as it gives signs of life
    /// ([`Team::give_sign`]): nothing on those. All have its error.
    ///
    /// # Errors
    /// As [`Team::settle`].
    pub(crate) fn of_first_alone<T>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T, TrainError>,
    ) -> Result<Option<T>, TrainError> {
        let result = self.is_first().then(work).transpose();
        self.attend_to_first(name)?;
        self.settle(name, result)
    }

    /// Of the first rank, in work that the others wait for before they hear anything else of it: that it is at it still. Costs
    /// next to nothing, and may be called often.
    pub(crate) fn give_sign(&self) {
        let pause = (self.timeouts.init / SIGNS).min(LONGEST_SILENCE);
        if self.is_first() && !self.is_alone() && self.signed.get().elapsed() >= pause {
            self.signed.set(Instant::now());
            // What ends ranks has been said, and whoever exchanges with them next hears of it.
            let _ = self.ranks.borrow_mut().give_sign("work of rank 0");
        }
    }

    /// The first rank ends its work, and the others wait for that, asleep.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub(crate) fn attend_to_first(&self, name: &str) -> Result<(), TrainError> {
        if self.is_alone() {
            return Ok(());
        }
        let mut ranks = self.ranks.borrow_mut();
        Ok(if self.is_first() { ranks.end_work(name) } else { ranks.attend(name, 0) }?)
    }

    /// From now on others are waited for as long as what is done once may take, until [`Team::wait`].
    pub(crate) fn be_patient(&self) {
        self.ranks.borrow_mut().set_timeout(self.timeouts.init, INIT_OPTION);
    }

    /// Comes back when all ranks have come here, of which the first may have work that is not a step's: the others sleep, as long
    /// as it gives signs of life. From then on others are waited for as long as a step may take.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub(crate) fn wait(&self, name: &str) -> Result<(), TrainError> {
        if self.is_alone() {
            return Ok(());
        }
        self.be_patient();
        self.attend_to_first(name)?;
        let mut ranks = self.ranks.borrow_mut();
        let world = ranks.world();
        let waited = ranks.idle_barrier(name, &world, 0);
        ranks.set_timeout(self.timeouts.train, TRAIN_OPTION);
        Ok(waited?)
    }

    /// Whether all ranks end by this error, each by itself: else it has to be told to them.
    pub fn share(&self, error: &TrainError) -> bool {
        self.is_alone() || self.settled.get() || error.is_shared()
    }

    /// Ends all ranks by an error of this one. Where they are processes this does not return.
    pub fn abort(&self, code: u8, message: &str) {
        self.ranks.borrow_mut().abort(code, message);
    }

    /// The exit code of a run that was asked to stop: that of the signal which the first rank that got one got, on all of them.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub fn exit_code(&self, mine: Option<u8>) -> Result<u8, TrainError> {
        // Of a request that came by no signal.
        const INTERRUPT: u8 = 130;
        let all = match self.is_alone() {
            true => vec![Vec::from_iter(mine)],
            false => self.gather("the exit code", &Vec::from_iter(mine))?,
        };
        Ok(all.into_iter().flatten().next().unwrap_or(INTERRUPT))
    }

    /// Leaves in order, when all ranks do.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub fn finish(self) -> Result<(), TrainError> {
        self.wait("the end")?;
        // A device may hold them too, and exchanges nothing any more.
        Ok(self.ranks.borrow_mut().finish()?)
    }
}

#[cfg(test)]
mod tests;
