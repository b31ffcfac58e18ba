//! The plans of several ranks together: whether what they exchange fits, so that no rank waits for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Invalid, rule};
use crate::{Binding, Exchange, Group, Plan, Shard};

/// Checks plans of ranks of one world, all of them or some, each valid by itself:
///
/// 1. They are of different ranks of one world.
/// 2. A group that one member exchanges in is a group of the others, too, of the same number, by which a device tells its messages
///    apart, and all have the same exchanges of it: movements, types and sizes, in the same order.
/// 3. Each rank begins an exchange when the one before it is over, and all come to their ends: then it is the same for a machine
///    that works at several exchanges at once.
/// 4. All ranks have a persistent tensor, of the same type and shape, or some have shards of it. Those are equal or apart; and for each
///    rank there is a group that it is in, or the world, of which the shards are apart and all of the tensor.
///
/// # Errors
/// The first rule that is broken, with the ranks and steps.
pub fn validate_ranks(plans: &[Plan]) -> Result<(), Invalid> {
    let plans = by_rank(plans)?;
    for (rank, plan) in &plans {
        for group in used_groups(plan) {
            let others = group.members.iter().filter_map(|member| plans.get(member));
            for other in others {
                same_exchanges(group, (*rank, plan), other)?;
                same_number(group, (*rank, plan), other)?;
            }
        }
    }
    all_end(&plans)?;
    tensors(&plans)
}

type Plans<'p> = BTreeMap<usize, &'p Plan>;

/// Rule 1.
fn by_rank(plans: &[Plan]) -> Result<Plans<'_>, Invalid> {
    let mut found = Plans::new();
    for plan in plans {
        let what = || format!("the plan {}", plan.name);
        let (size, first) = (plan.world.size, plans[0].world.size);
        rule(size == first, what, || format!("is for a world of {size} ranks, another for one of {first}"))?;
        let before = found.insert(plan.world.rank, plan);
        rule(before.is_none(), what, || format!("is the second for rank {}", plan.world.rank))?;
    }
    Ok(found)
}

/// Groups with exchanges.
fn used_groups(plan: &Plan) -> BTreeSet<&Group> {
    plan.exchanges().filter_map(|(_, exchange)| plan.world.groups.get(exchange.group)).collect()
}

/// The exchanges of one group, each with its step.
fn of_group<'p>(plan: &'p Plan, group: &Group) -> Vec<(usize, &'p Exchange)> {
    plan.exchanges().filter(|(_, exchange)| plan.world.groups.get(exchange.group) == Some(group)).collect()
}

fn described(plan: &Plan, found: Option<&(usize, &Exchange)>) -> String {
    found.map_or("nothing".to_string(), |(step, exchange)| {
        let name = exchange.name(plan.members(exchange));
        format!("{name} at step {step} ({})", plan.steps[*step].label)
    })
}

/// Rule 2.
fn same_exchanges(group: &Group, (rank, plan): (usize, &Plan), other: &Plan) -> Result<(), Invalid> {
    let (mine, theirs) = (of_group(plan, group), of_group(other, group));
    let kind = |found: Option<&(usize, &Exchange)>| {
        found.map(|(_, exchange)| (exchange.movement, exchange.dtype, exchange.part_bytes))
    };
    for number in 0..mine.len().max(theirs.len()) {
        let (a, b) = (mine.get(number), theirs.get(number));
        let what = || format!("exchange {number} of {} {:?}", group.name, group.members);
        rule(kind(a) == kind(b), what, || {
            let (a, b) = (described(plan, a), described(other, b));
            format!("rank {rank} has {a}, rank {} has {b}", other.world.rank)
        })?;
    }
    Ok(())
}

/// Rule 2: numbers of a group.
fn same_number(group: &Group, (rank, plan): (usize, &Plan), other: &Plan) -> Result<(), Invalid> {
    let number = |plan: &Plan| plan.world.groups.iter().position(|known| known == group);
    rule(
        number(plan) == number(other),
        || format!("group {} {:?}", group.name, group.members),
        || {
            let [mine, theirs] = [number(plan), number(other)]
                .map(|number| number.map_or("none".into(), |number| format!("number {number}")));
            format!("is {mine} of rank {rank}, {theirs} of rank {}", other.world.rank)
        },
    )
}

/// Rule 3. Ranks whose plans are not here come to everything in time.
fn all_end(plans: &Plans<'_>) -> Result<(), Invalid> {
    let queue = |plan: &&Plan| plan.exchanges().map(|(step, exchange)| (step, exchange.group)).collect();
    let mut waiting: BTreeMap<usize, VecDeque<(usize, usize)>> =
        plans.iter().map(|(rank, plan)| (*rank, queue(plan))).collect();
    // Whoever may be able to go on.
    let mut ready: VecDeque<usize> = plans.keys().copied().collect();
    while let Some(rank) = ready.pop_front() {
        let Some((_, group)) = waiting[&rank].front() else { continue };
        let group = &plans[&rank].world.groups[*group];
        let members: Vec<usize> = group.members.iter().copied().filter(|m| plans.contains_key(m)).collect();
        let at_it = |member: &usize| {
            let next = waiting[member].front();
            next.is_some_and(|(_, index)| plans[member].world.groups[*index] == *group)
        };
        if members.iter().all(at_it) {
            for member in members {
                if let Some(queue) = waiting.get_mut(&member) {
                    queue.pop_front();
                }
                ready.push_back(member);
            }
        }
    }
    let stuck: Vec<String> = waiting
        .iter()
        .filter_map(|(rank, queue)| {
            let (step, group) = queue.front()?;
            let (plan, group) = (plans[rank], &plans[rank].world.groups[*group]);
            let label = &plan.steps[*step].label;
            Some(format!("rank {rank} at step {step} ({label}) for {} {:?}", group.name, group.members))
        })
        .collect();
    rule(stuck.is_empty(), || "the ranks".into(), || format!("wait for each other: {}", stuck.join(", ")))
}

/// Whether the members of a group of this rank's, or of the world, have all of a tensor between them, each element once. Those whose
/// plans are not here may have what is missing.
fn has_whole(plans: &Plans<'_>, plan: &Plan, shards: &[(Shard, usize)]) -> bool {
    let world = (0..plan.world.size).collect();
    let mut groups = plan.world.groups.iter().map(|group| &group.members).chain([&world]);
    groups.any(|members| {
        let mut parts: Vec<Shard> =
            shards.iter().filter(|(_, rank)| members.contains(rank)).map(|(shard, _)| *shard).collect();
        parts.sort_by_key(|shard| shard.start);
        let apart = parts.windows(2).all(|pair| pair[0].start + pair[0].len <= pair[1].start);
        let elements: usize = parts.iter().map(|shard| shard.len).sum();
        let all_here = members.iter().all(|member| plans.contains_key(member));
        apart && (!all_here || parts.first().is_some_and(|first| elements == first.of))
    })
}

/// Rule 4.
fn tensors(plans: &Plans<'_>) -> Result<(), Invalid> {
    let mut known: BTreeMap<&str, Vec<(usize, &Binding)>> = BTreeMap::new();
    for (rank, plan) in plans {
        for binding in plan.bindings.iter().filter(|binding| binding.role.is_persistent()) {
            known.entry(&binding.name).or_default().push((*rank, binding));
        }
    }
    let size = plans.values().next().map_or(0, |plan| plan.world.size);
    for (name, found) in known {
        let what = || format!("tensor {name}");
        let (first_rank, first) = found[0];
        for (rank, binding) in &found {
            let alike =
                (binding.dtype, &binding.shape, &binding.role) == (first.dtype, &first.shape, &first.role);
            rule(alike && binding.shard.is_some() == first.shard.is_some(), what, || {
                let kind = |b: &Binding| {
                    let part = if b.shard.is_some() { "a shard of " } else { "" };
                    format!("{part}{} {:?}", b.dtype.name(), b.shape)
                };
                format!("is {} on rank {first_rank}, {} on rank {rank}", kind(first), kind(binding))
            })?;
        }
        let mut shards: Vec<(Shard, usize)> =
            found.iter().filter_map(|(rank, binding)| Some((binding.shard?, *rank))).collect();
        if shards.is_empty() {
            let missing = plans.keys().find(|rank| found.iter().all(|(has, _)| has != *rank));
            rule(missing.is_none(), what, || {
                format!("is on rank {first_rank}, not on rank {}", missing.copied().unwrap_or_default())
            })?;
            continue;
        }
        shards.sort_by_key(|(shard, rank)| (shard.start, shard.len, *rank));
        let holders = shards.clone();
        shards.dedup_by_key(|(shard, _)| *shard);
        let mut end = 0;
        for (shard, rank) in &shards {
            rule(end <= shard.start, what, || {
                format!(
                    "the {} elements from {} on of rank {rank} are partly another's",
                    shard.len, shard.start
                )
            })?;
            let covers = plans.len() < size || end == shard.start;
            rule(covers, what, || format!("nobody has the elements from {end} to {}", shard.start))?;
            end = shard.start + shard.len;
        }
        let covers = plans.len() < size || end == shards[0].0.of;
        rule(covers, what, || format!("nobody has the elements from {end} on"))?;
        for (rank, plan) in plans {
            rule(has_whole(plans, plan, &holders), what, || {
                format!("the shards that rank {rank} has in reach, in its groups, are not all of it")
            })?;
        }
    }
    Ok(())
}
