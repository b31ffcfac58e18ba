//! What a plan exchanges with other ranks: begun and waited for by the thread that runs the steps, the only one that MPI is
//! asked to serve.

use std::collections::HashMap;

use crate::DeviceError;
use crate::comm::{Exchange, Group, SharedRanks, Ticket};

/// An exchange of a plan, ready to start.
pub(super) struct Started {
    id: usize,
    exchange: Exchange,
    group: Group,
    /// For errors.
    name: String,
}

impl Started {
    /// Exchange number `id` of a plan, in a group that this rank is in.
    ///
    /// # Errors
    /// [`DeviceError::Plan`] for one that a library is to add up.
    pub(super) fn new(
        exchange: &linc_plan::Exchange,
        id: usize,
        group: &Group,
        name: &str,
    ) -> Result<Started, DeviceError> {
        let moved = Exchange::of(exchange)
            .ok_or_else(|| invalid(name, "no library of CPUs adds up what ranks exchange"))?;
        Ok(Started { id, exchange: moved, group: group.clone(), name: name.to_owned() })
    }
}

/// The other ranks, and the exchanges with them that are begun and not over.
#[derive(Default)]
pub(super) struct Exchanges {
    ranks: Option<SharedRanks>,
    begun: HashMap<usize, (Ticket, Group, String)>,
}

impl Exchanges {
    /// From now on exchanges are with these.
    pub(super) fn connect(&mut self, ranks: SharedRanks) {
        self.ranks = Some(ranks);
    }

    /// These.
    pub(super) fn ranks(&self) -> Option<&SharedRanks> {
        self.ranks.as_ref()
    }

    /// Whether an exchange is begun and not over: then others may touch its places at any time.
    pub(super) fn is_under_way(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Begins an exchange.
    ///
    /// # Errors
    /// [`DeviceError::Ranks`]; [`DeviceError::Plan`] where there are no ranks.
    ///
    /// # Safety
    /// Both places have the bytes of the exchange, which nobody else touches until it is waited for.
    pub(super) unsafe fn start(
        &mut self,
        started: &Started,
        from: *const u8,
        to: *mut u8,
    ) -> Result<(), DeviceError> {
        let Started { id, exchange, group, name } = started;
        let Some(ranks) = &self.ranks else {
            return Err(invalid(name, "it is to be exchanged, and this device has no other ranks"));
        };
        // SAFETY: as the caller vouches.
        let ticket = unsafe { ranks.borrow_mut().start(name, group, *exchange, from, to) };
        let ticket = ticket.map_err(|error| DeviceError::Ranks(Box::new(error)))?;
        self.begun.insert(*id, (ticket, group.clone(), name.clone()));
        Ok(())
    }

    /// Comes back when an exchange is over.
    ///
    /// # Errors
    /// [`DeviceError::Ranks`]; [`DeviceError::Plan`] for one that was not begun.
    pub(super) fn wait(&mut self, id: usize) -> Result<(), DeviceError> {
        let (Some(ranks), Some((ticket, group, name))) = (&self.ranks, self.begun.remove(&id)) else {
            return Err(invalid("a plan", &format!("it waits for exchange {id}, which it has not begun")));
        };
        let waited = ranks.borrow_mut().wait(&name, &group, ticket);
        waited.map_err(|error| DeviceError::Ranks(Box::new(error)))
    }
}

fn invalid(plan: &str, message: &str) -> DeviceError {
    DeviceError::Plan { plan: plan.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::comm::{Ranks, Single};

    #[test]
    fn what_was_not_begun_is_an_error() {
        let mut exchanges = Exchanges::default();
        let error = exchanges.wait(3).expect_err("nothing was begun").to_string();
        assert!(error.contains("exchange 3"), "{error}");
        let group = Ranks::new(Box::new(Single), Duration::MAX, |_| {}).world();
        let exchange = Exchange::AllGather { bytes: 8 };
        let started = Started { id: 0, exchange, group, name: "the sums".into() };
        let mut place = [0u8; 8];
        let to = place.as_mut_ptr();
        // SAFETY: the place has the bytes of the exchange, which does not even start.
        let error = unsafe { exchanges.start(&started, to, to) }.expect_err("no ranks").to_string();
        assert!(error.contains("the sums"), "{error}");
    }
}
