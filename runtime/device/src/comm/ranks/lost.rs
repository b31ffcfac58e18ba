//! When a device waits for the other ranks by itself: whether they are well, and who is missing where they are not.

use std::convert::Infallible;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::error::ranks as in_words;
use super::super::watchdog::Watchdog;
use super::super::{CommError, Exchange, Group};
use super::{ROLL_CALL, Ranks};

/// Those who wait have an answer within this time, or half of what an exchange may take.
const ANSWER: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(1);

impl Ranks {
    /// What an exchange may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The words of all ranks, in their order.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub(crate) fn gather_words(&mut self, name: &str, words: &str) -> Result<Vec<String>, CommError> {
        let world = self.world();
        let all = self.gather(name, &world, words.as_bytes())?;
        Ok(all.iter().map(|words| String::from_utf8_lossy(words).into_owned()).collect())
    }

    /// Ends the process if a call in which ranks wait for each other takes longer than an exchange may, until this is dropped.
    pub(crate) fn watch(&self, action: &'static str) -> Watchdog {
        let (rank, world, timeout) = (self.rank(), self.size(), self.timeout);
        Watchdog::start(timeout, CommError::Blocked { rank, world, action, timeout }, self.say)
    }

    /// Hears whether another rank has ended all or is gone, in an exchange of this name that goes over no backend.
    ///
    /// # Errors
    /// [`CommError::Aborted`], [`CommError::Gone`].
    pub(crate) fn look(&mut self, name: &str) -> Result<(), CommError> {
        match self.comm.look() {
            Ok(()) => Ok(()),
            Err(error) => self.fail(error.in_exchange(&self.named(name))),
        }
    }

    /// Why an exchange that goes over no backend does not come to its end, or ends by a `message`: the ranks of its group are asked, and
    /// who waits as this one does answers.
    pub(crate) fn why_lost(&mut self, name: &str, group: &Group, message: Option<String>) -> CommError {
        let missing = match self.roll_call(group) {
            Ok(missing) => missing,
            Err(error) => return error.in_exchange(&self.named(name)),
        };
        let (rank, label, timeout, option) = (self.rank(), self.named(name), self.timeout, self.option);
        let group = group.describe(self.size());
        match message {
            Some(message) if missing.is_empty() => CommError::Call { rank, action: label, message },
            Some(message) => {
                let message = format!("{message}; no answer from {}", in_words(&missing));
                CommError::Call { rank, action: label, message }
            }
            None if missing.is_empty() => CommError::Stuck { rank, label, group, timeout, option },
            None => CommError::Missing { rank, label, group, missing, timeout, option },
        }
    }

    /// Ends all ranks by an error of this one. Where they are processes this does not return.
    pub(crate) fn lose(&mut self, error: CommError) -> CommError {
        match self.fail::<Infallible>(error) {
            Err(error) => error,
        }
    }

    /// The members of a group who do not say that they are there.
    fn roll_call(&mut self, group: &Group) -> Result<Vec<usize>, CommError> {
        let all = Group { tag: ROLL_CALL, ..group.clone() };
        // Never freed: answers may come after nobody waits for them any more.
        let mine: &'static [u8; 1] = &[1];
        let answers: &'static mut [u8] = Box::leak(vec![0; group.size()].into_boxed_slice());
        let exchange = Exchange::AllGather { bytes: mine.len() };
        // SAFETY: both live for ever.
        let ticket = unsafe { self.comm.start(&exchange, &all, mine.as_ptr(), answers.as_mut_ptr()) }?;
        let begun = Instant::now();
        while begun.elapsed() < ANSWER.min(self.timeout / 2) {
            match self.comm.test(ticket) {
                Ok(true) => return Ok(vec![]),
                Ok(false) => sleep(PAUSE),
                Err(CommError::Gone { gone, .. }) => return Ok(vec![gone]),
                Err(error) => return Err(error),
            }
        }
        let mut missing = self.comm.missing(ticket);
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }
}
