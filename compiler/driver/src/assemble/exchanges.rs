//! The exchanges of a plan: each is begun by a step, and waited for by another.

use std::collections::HashMap;

use linc_kernels::{Exchange, Movement};
use linc_plan as plan;

use super::dtype;

/// What was exchanged so far.
#[derive(Default)]
pub(super) struct Exchanges {
    /// Each once, however often it exchanges.
    pub(super) groups: Vec<plan::Group>,
    begun: usize,
    /// Those that are not waited for yet, by the positions of their nodes in the order.
    under_way: HashMap<usize, (usize, plan::Label)>,
}

impl Exchanges {
    /// The action that begins an exchange.
    pub(super) fn start(&mut self, exchange: &Exchange, from: plan::Ref, to: plan::Ref) -> plan::Action {
        let group = &exchange.group;
        let members = plan::Group { name: group.name.clone(), members: group.members().collect() };
        let known = self.groups.iter().position(|other| *other == members);
        let group = known.unwrap_or_else(|| {
            self.groups.push(members);
            self.groups.len() - 1
        });
        let id = self.begun;
        self.begun += 1;
        let exchange = plan::Exchange {
            movement: match exchange.movement {
                Movement::AllGather => plan::Movement::AllGather,
                Movement::AllToAll => plan::Movement::AllToAll,
                Movement::AllReduce => plan::Movement::AllReduce,
                Movement::ReduceScatter => plan::Movement::ReduceScatter,
            },
            group,
            from,
            to,
            dtype: dtype(exchange.to.dtype),
            part_bytes: (exchange.part * exchange.to.dtype.bytes()) as u64,
        };
        plan::Action::Start { exchange, id }
    }

    /// Remembers an action that begins the exchange of the node at a position; others are nothing to it.
    pub(super) fn put_off(&mut self, at: usize, action: &plan::Action, label: &plan::Label) {
        if let plan::Action::Start { id, .. } = action {
            self.under_way.insert(at, (*id, label.clone()));
        }
    }

    /// The step that waits for the exchange of the node at a position, if it has one that nobody waits for yet.
    pub(super) fn wait(&mut self, at: usize) -> Option<plan::Step> {
        let (id, label) = self.under_way.remove(&at)?;
        Some(plan::Step { action: plan::Action::Wait { id }, label, flops: 0, bytes: 0 })
    }
}
