//! From one rank to another: what one has and another is to have, and signs of life of one that the others wait for.

use std::ptr::{null, null_mut};

use super::super::{CommError, Exchange, Group};
use super::{IDLE, Ranks};

/// What a rank says of work that others wait for.
const AT_WORK: u8 = 1;
const DONE: u8 = 0;

impl Ranks {
    /// The bytes of one member become those of another: of all members, only these two have a part in it.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn hand_over(
        &mut self,
        name: &str,
        group: &Group,
        (from, to): (usize, usize),
        bytes: &mut [u8],
    ) -> Result<(), CommError> {
        let (me, start, bytes) = (group.place(), bytes.as_mut_ptr(), bytes.len());
        // SAFETY: the slice has the bytes of the message and lives until the exchange is over.
        unsafe {
            match me {
                _ if from == to => Ok(()),
                _ if me == from => {
                    self.exchange(name, group, Exchange::Send { to, bytes }, start, null_mut())
                }
                _ if me == to => self.exchange(name, group, Exchange::Receive { from, bytes }, null(), start),
                _ => Ok(()),
            }
        }
    }

    /// Tells all others, which [attend](Ranks::attend) to this rank now or later, that it is at work still.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn give_sign(&mut self, name: &str) -> Result<(), CommError> {
        self.tell_others(name, AT_WORK)
    }

    /// Ends what others [attend](Ranks::attend) to.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn end_work(&mut self, name: &str) -> Result<(), CommError> {
        self.tell_others(name, DONE)
    }

    /// Waits until a rank says that its work is done, and sleeps meanwhile. The work may take any time, as long as the rank
    /// gives a sign within each time that an exchange may take.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn attend(&mut self, name: &str, rank: usize) -> Result<(), CommError> {
        let (world, before) = (self.world(), self.pace);
        let mut sign = [AT_WORK];
        self.pace = IDLE;
        let mut result = Ok(());
        while result.is_ok() && sign != [DONE] {
            result = self.hand_over(name, &world, (rank, self.rank()), &mut sign);
        }
        self.pace = before;
        result
    }

    fn tell_others(&mut self, name: &str, sign: u8) -> Result<(), CommError> {
        let (world, me) = (self.world(), self.rank());
        (0..self.size())
            .filter(|rank| *rank != me)
            .try_for_each(|rank| self.hand_over(name, &world, (me, rank), &mut [sign]))
    }
}
