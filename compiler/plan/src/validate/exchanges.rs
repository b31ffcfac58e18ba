//! Rules 7 to 9: the ranks of one plan, and its exchanges while they are under way.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invalid, gemm_extents, reference, rule};
use crate::{Action, DType, Exchange, Movement, Plan, Ref, Space, Step};

/// Rule 7.
pub(super) fn world(plan: &Plan) -> Result<(), Invalid> {
    let world = &plan.world;
    let what = || "the world".to_string();
    rule(world.rank < world.size, what, || format!("rank {} of {} ranks", world.rank, world.size))?;
    let mut seen = BTreeSet::new();
    for (index, group) in world.groups.iter().enumerate() {
        let what = || format!("group {index} ({})", group.name);
        let ascend = group.members.is_sorted_by(|a, b| a < b);
        rule(ascend, what, || format!("members {:?} are not ascending", group.members))?;
        let inside = group.members.last().is_some_and(|last| *last < world.size);
        rule(inside, what, || format!("members {:?} of {} ranks", group.members, world.size))?;
        let has_rank = group.members.binary_search(&world.rank).is_ok();
        rule(has_rank, what, || format!("rank {} is not among {:?}", world.rank, group.members))?;
        rule(seen.insert(group), what, || "two groups have this name and these members".into())?;
    }
    Ok(())
}

/// An exchange that was started and not waited for.
struct Open<'p> {
    exchange: &'p Exchange,
    started: usize,
}

/// Rules 8 and 9.
pub(super) fn exchanges(plan: &Plan) -> Result<(), Invalid> {
    let mut open: BTreeMap<usize, Open<'_>> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let what = || format!("step {index} ({})", step.label);
        for (id, Open { exchange, started }) in &open {
            undisturbed(plan, step, exchange).map_err(|message| Invalid {
                what: what(),
                message: format!(
                    "{message} exchange {id}, which step {started} began and nobody waited for yet"
                ),
            })?;
        }
        match &step.action {
            Action::Start { exchange, id } => {
                rule(used.insert(*id), what, || format!("another exchange is {id}"))?;
                places(plan, exchange, what)?;
                open.insert(*id, Open { exchange, started: index });
            }
            Action::Wait { id } => {
                let ended = open.remove(id);
                rule(ended.is_some(), what, || format!("waits for exchange {id}, which is not under way"))?;
                let Some(Open { exchange, started }) = ended else { continue };
                for at in [exchange.from, exchange.to] {
                    let b = &plan.buffers[at.buffer];
                    let lives = b.space == Space::Persistent || (b.live.0 <= started && index <= b.live.1);
                    rule(lives, what, || {
                        let (buffer, name, live) = (at.buffer, &b.name, b.live);
                        format!(
                            "exchange {id} has buffer {buffer} ({name}) since step {started}, and it lives {live:?}"
                        )
                    })?;
                }
            }
            Action::Launch { .. } | Action::Gemm(_) | Action::Copy { .. } => {}
        }
    }
    match open.first_key_value() {
        None => Ok(()),
        Some((id, Open { started, .. })) => {
            let message = "nobody waits for it".to_string();
            Err(Invalid { what: format!("exchange {id}, which step {started} began"), message })
        }
    }
}

/// Sizes and places of one exchange.
fn places(plan: &Plan, exchange: &Exchange, what: impl Fn() -> String + Copy) -> Result<(), Invalid> {
    let Exchange { movement, group, from, to, dtype, part_bytes } = *exchange;
    let groups = &plan.world.groups;
    rule(group < groups.len(), what, || format!("there is no group {group}"))?;
    let members = &groups[group].members;
    let whole = part_bytes > 0 && part_bytes.is_multiple_of(dtype.bytes());
    rule(whole, what, || format!("{part_bytes} bytes are no elements of {}", dtype.name()))?;
    let adds_floats = !movement.adds() || dtype == DType::F32;
    rule(adds_floats, what, || format!("{} of {}", movement.name(), dtype.name()))?;
    let extents = exchange.extents(members.len());
    let (sent, received) = (extents.map(|e| e.0), extents.map(|e| e.1));
    reference(plan, &from, sent, what)?;
    reference(plan, &to, received, what)?;
    for at in [from, to] {
        let aligned = at.offset.is_multiple_of(dtype.bytes());
        rule(aligned, what, || format!("offset {} is not one of {} elements", at.offset, dtype.name()))?;
    }
    let Some((sent, received)) = extents else { return Ok(()) };
    let place = members.binary_search(&plan.world.rank).unwrap_or(0) as u64;
    let own_place = match movement {
        Movement::AllGather => from.offset == to.offset + place * part_bytes,
        Movement::AllReduce => from.offset == to.offset,
        Movement::AllToAll | Movement::ReduceScatter => false,
    };
    let apart = !overlaps((from, sent), (to, received));
    rule(apart || own_place, what, || "what is sent overlaps what is received".into())
}

fn overlaps((a, a_bytes): (Ref, u64), (b, b_bytes): (Ref, u64)) -> bool {
    let before = |x: u64, bytes: u64, y: u64| x.saturating_add(bytes) <= y;
    a.buffer == b.buffer && !before(a.offset, a_bytes, b.offset) && !before(b.offset, b_bytes, a.offset)
}

/// Rule 9 for one step during one exchange.
fn undisturbed(plan: &Plan, step: &Step, exchange: &Exchange) -> Result<(), String> {
    let Some((sent, received)) = exchange.extents(plan.members(exchange)) else { return Ok(()) };
    let (reads, writes) = touched(plan, step);
    if reads.iter().chain(&writes).any(|range| overlaps(*range, (exchange.to, received))) {
        return Err("touches what comes in".into());
    }
    if writes.iter().any(|range| overlaps(*range, (exchange.from, sent))) {
        return Err("writes what goes out in".into());
    }
    Ok(())
}

type Ranges = Vec<(Ref, u64)>;

/// What a step reads, and what it writes: of an argument of a kernel all up to the end of its buffer, since a plan does not
/// know how far it reaches.
fn touched(plan: &Plan, step: &Step) -> (Ranges, Ranges) {
    let to_end = |at: &Ref| (*at, plan.buffers[at.buffer].bytes - at.offset);
    match &step.action {
        Action::Launch { kernel, args } => {
            let written = &plan.kernels[*kernel].written;
            let is_written = |index: usize| written.get(index).copied().unwrap_or(true);
            let writes = args.iter().enumerate().filter(|(index, _)| is_written(*index));
            (args.iter().map(to_end).collect(), writes.map(|(_, at)| to_end(at)).collect())
        }
        Action::Gemm(gemm) => {
            let [a, b, c] = gemm_extents(gemm).map(|(at, bytes)| (at, bytes.unwrap_or(u64::MAX)));
            (vec![a, b, c], vec![c])
        }
        Action::Copy { from, to, bytes } => (vec![(*from, *bytes)], vec![(*to, *bytes)]),
        Action::Start { exchange, .. } => {
            let (sent, received) = exchange.extents(plan.members(exchange)).unwrap_or((u64::MAX, u64::MAX));
            (vec![(exchange.from, sent)], vec![(exchange.to, received)])
        }
        Action::Wait { .. } => (vec![], vec![]),
    }
}
