//! The ranks of a run, and what they tell each other beside gradients: what must be the same, what went wrong on one of them,
//! and that somebody asked to stop.
//!
//! Invariant: what a run does next is decided from what all ranks know, so that all do the same. What only one rank meets is
//! either settled with all ([`Team::settle`]) or ends all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use linc_device::comm::{CommError, Ranks, SharedRanks, Single};

use crate::error::TrainError;

/// This process and the other ranks of its run.
#[derive(Clone)]
pub struct Team {
    ranks: SharedRanks,
    rank: usize,
    size: usize,
    timeouts: Timeouts,
    /// All ranks have heard of an error of one of them.
    settled: Rc<Cell<bool>>,
}

/// How long a rank waits for others: for what is done once, such as reading data or writing a checkpoint, and for a step.
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

impl Team {
    /// A process that has no others beside it.
    pub fn alone() -> Team {
        let forever = Duration::MAX;
        let ranks = Ranks::new(Box::new(Single), forever, |_| {});
        Team::new(ranks, Timeouts { init: forever, train: forever })
    }

    /// Of ranks that are connected.
    pub fn new(mut ranks: Ranks, timeouts: Timeouts) -> Team {
        ranks.set_timeout(timeouts.init);
        let (rank, size) = (ranks.rank(), ranks.size());
        Team { ranks: Rc::new(RefCell::new(ranks)), rank, size, timeouts, settled: Rc::default() }
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

    /// Comes back when all ranks have come here, of which one may have work that is not a step's: the others sleep. From then on
    /// others are waited for as long as a step may take.
    ///
    /// # Errors
    /// As [`Team::threads`].
    pub(crate) fn wait(&self, name: &str) -> Result<(), TrainError> {
        if self.is_alone() {
            return Ok(());
        }
        let mut ranks = self.ranks.borrow_mut();
        let world = ranks.world();
        ranks.set_timeout(self.timeouts.init);
        let waited = ranks.idle_barrier(name, &world, 0);
        ranks.set_timeout(self.timeouts.train);
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use linc_device::comm::Local;

    use super::*;

    /// Failures that ranks have said: there is to be none.
    static FAILURES: AtomicUsize = AtomicUsize::new(0);

    fn count_failure(_: &str) {
        FAILURES.fetch_add(1, Ordering::Relaxed);
    }

    /// What ranks, which are threads, come to by `work`.
    fn of_all<T: Send>(size: usize, work: impl Fn(&Team) -> T + Sync) -> Vec<T> {
        let soon = Duration::from_secs(60);
        std::thread::scope(|scope| {
            let start = |comm: Local| {
                let work = &work;
                scope.spawn(move || {
                    let ranks = Ranks::new(Box::new(comm), soon, count_failure);
                    work(&Team::new(ranks, Timeouts { init: soon, train: soon }))
                })
            };
            let threads: Vec<_> = Local::world(size).into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }

    #[test]
    fn ranks_may_be_told_different_numbers_of_threads() {
        let told = [3, 0, 1];
        let threads = of_all(3, |team| {
            let threads = team.threads(told[team.rank()]).unwrap_or_else(|e| panic!("{e}"));
            team.clone().finish().unwrap_or_else(|e| panic!("{e}"));
            threads
        });
        assert_eq!((threads[0], threads[2]), (Some(3), Some(1)));
        assert!(threads[1].is_some_and(|fair| fair > 0));
        assert_eq!(
            (Team::alone().threads(0).ok(), Team::alone().threads(2).ok()),
            (Some(None), Some(Some(2)))
        );
    }

    #[test]
    fn all_ranks_have_the_exit_code_of_the_signal_that_one_got() {
        let signals = [None, Some(143), Some(130)];
        let codes = of_all(3, |team| {
            let code = team.exit_code(signals[team.rank()]).unwrap_or_else(|e| panic!("{e}"));
            let none = team.exit_code(None).unwrap_or_else(|e| panic!("{e}"));
            team.clone().finish().unwrap_or_else(|e| panic!("{e}"));
            (code, none)
        });
        assert_eq!(codes, [(143, 130); 3]);
        assert_eq!(Team::alone().exit_code(Some(143)).ok(), Some(143));
    }

    #[test]
    fn a_run_ends_well_while_a_device_still_holds_the_ranks() {
        let last_words = of_all(2, |team| {
            let held = team.ranks().clone();
            let finished = team.clone().finish();
            // What is dropped before it has finished ends all.
            drop(held);
            finished.map_err(|error| error.to_string())
        });
        assert_eq!(last_words, [Ok(()), Ok(())]);
        assert_eq!(FAILURES.load(Ordering::Relaxed), 0);
    }
}
