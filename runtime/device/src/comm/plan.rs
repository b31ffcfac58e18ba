//! What a plan exchanges, among the ranks of a device.

use linc_plan::{Movement, Plan};

use super::{Exchange, Group, SharedRanks};
use crate::DeviceError;

impl Exchange {
    /// As a plan has it, with its bytes; nothing for one that adds, which no [`Comm`](super::Comm) does.
    pub(crate) fn of(exchange: &linc_plan::Exchange) -> Option<Exchange> {
        let bytes = exchange.part_bytes as usize;
        match exchange.movement {
            Movement::AllGather => Some(Exchange::AllGather { bytes }),
            Movement::AllToAll => Some(Exchange::AllToAll { bytes }),
            Movement::AllReduce | Movement::ReduceScatter => None,
        }
    }
}

/// The groups of a plan, among these ranks.
///
/// # Errors
/// [`DeviceError::Plan`] for a plan of another rank or another number of ranks.
pub(crate) fn groups_of(plan: &Plan, ranks: Option<&SharedRanks>) -> Result<Vec<Group>, DeviceError> {
    let invalid = |message: String| DeviceError::Plan { plan: plan.name.clone(), message };
    let world = &plan.world;
    if world.groups.is_empty() {
        return Ok(vec![]);
    }
    let ranks = ranks.map(|ranks| ranks.borrow());
    let there = ranks.as_ref().map_or((0, 1), |ranks| (ranks.rank(), ranks.size()));
    if (world.rank, world.size) != there {
        return Err(invalid(format!(
            "it is for rank {} of {}, and this is rank {} of {}",
            world.rank, world.size, there.0, there.1
        )));
    }
    let Some(ranks) = ranks else {
        return Err(invalid("it exchanges with other ranks, and this device has none".into()));
    };
    let group = |(index, group): (usize, &linc_plan::Group)| {
        let number = u16::try_from(index + 1).map_err(|_| invalid("it has too many groups".into()))?;
        ranks.group(&group.members, number).map_err(|error| invalid(error.to_string()))
    };
    world.groups.iter().enumerate().map(group).collect()
}
