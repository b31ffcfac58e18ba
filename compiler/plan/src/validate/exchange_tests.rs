//! Exchanges of one plan, and the plans of several ranks, each with every mistake.

use super::*;
use crate::{Binding, Buffer, Category, Exchange, Group, Init, Kernel, Movement, Role, Shard, Step, World};

const PART: u64 = 64;

fn at(buffer: usize, offset: u64) -> Ref {
    Ref { buffer, offset }
}

fn step(action: Action, op: &str) -> Step {
    Step { action, label: op.into(), flops: 0, bytes: 0 }
}

fn exchange(movement: Movement, group: usize, from: Ref, to: Ref) -> Exchange {
    Exchange { movement, group, from, to, dtype: DType::F32, part_bytes: PART }
}

/// Rank `rank` of four, two by two: what comes from its neighbour goes to those across, and is gathered. A kernel that has nothing to
/// do with it runs meanwhile.
fn plan(rank: usize) -> Plan {
    let buffer = |name: &str, space, offset, parts: u64, live| Buffer {
        name: name.into(),
        space,
        offset,
        bytes: parts * PART,
        category: Category::Workspace,
        live,
    };
    let (row, column) = (rank / 2, rank % 2);
    let group = |name: &str, members: [usize; 2]| Group { name: name.into(), members: members.into() };
    let own = row as u64 * PART;
    Plan {
        name: format!("p{rank}"),
        persistent_bytes: 2 * PART,
        scratch_bytes: 5 * PART,
        buffers: vec![
            buffer("w", Space::Persistent, 0, 2, (0, 0)),
            buffer("x", Space::Scratch, 0, 2, (0, 3)),
            buffer("y", Space::Scratch, 2 * PART, 2, (0, 3)),
            buffer("z", Space::Scratch, 4 * PART, 1, (0, 4)),
        ],
        kernels: vec![Kernel {
            name: "k".into(),
            family: "k".into(),
            text: String::new(),
            grid: [1, 1, 1],
            written: vec![false, true],
        }],
        steps: vec![
            step(
                Action::Start { exchange: exchange(Movement::AllToAll, 0, at(1, 0), at(2, 0)), id: 7 },
                "sums",
            ),
            step(Action::Launch { kernel: 0, args: vec![at(1, 0), at(3, 0)] }, "kernel"),
            step(Action::Wait { id: 7 }, "sums"),
            step(Action::Copy { from: at(2, 0), to: at(0, own), bytes: PART }, "copy"),
            step(
                Action::Start { exchange: exchange(Movement::AllGather, 1, at(0, own), at(0, 0)), id: 2 },
                "gather",
            ),
            step(Action::Wait { id: 2 }, "gather"),
        ],
        bindings: vec![
            Binding {
                name: "w".into(),
                role: Role::Param,
                dtype: DType::F32,
                shape: vec![32],
                at: at(0, 0),
                init: Init::Ones,
                shard: None,
            },
            Binding {
                name: "half".into(),
                role: Role::Table,
                dtype: DType::F32,
                shape: vec![2, 16],
                at: at(0, 0),
                init: Init::Ones,
                shard: Some(Shard { start: 16 * column, len: 16, of: 32 }),
            },
        ],
        world: World {
            rank,
            size: 4,
            groups: vec![group("inner", [2 * row, 2 * row + 1]), group("outer", [column, column + 2])],
        },
    }
}

fn exchange_at(plan: &mut Plan, step: usize) -> &mut Exchange {
    match &mut plan.steps[step].action {
        Action::Start { exchange, .. } => exchange,
        other => panic!("{other:?} starts no exchange"),
    }
}

#[test]
fn a_plan_with_exchanges_passes() {
    for rank in 0..4 {
        validate(&plan(rank)).unwrap_or_else(|e| panic!("{e}"));
    }
    let plan = plan(3);
    assert_eq!(plan.bytes_sent(), [PART, PART]);
    assert_eq!(plan.work_name(&plan.steps[0]), "all_to_all_16_f32x2");
    assert_eq!(plan.work_name(&plan.steps[5]), "wait");
    assert_eq!(plan.first_write(|role| *role == Role::Param), 3);
    assert_eq!((plan.bindings[1].numel(), plan.bindings[1].bytes()), (16, 64));
}

#[test]
fn what_one_plan_says_of_exchanges_is_checked() {
    let broken = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan(1);
        change(&mut plan);
        validate(&plan).expect_err("the change breaks a rule").to_string()
    };
    let check = |change: &dyn Fn(&mut Plan), expected: &str| {
        let found = broken(change);
        assert!(found.contains(expected), "{found}, expected {expected}");
    };
    check(&|p| p.world.rank = 4, "rank 4 of 4 ranks");
    check(&|p| p.world.groups[0].members = vec![1, 0], "are not ascending");
    check(&|p| p.world.groups[0].members = vec![1, 4], "[1, 4] of 4 ranks");
    check(&|p| p.world.groups[0].members = vec![], "[] of 4 ranks");
    check(&|p| p.world.groups[0].members = vec![0, 2], "rank 1 is not among [0, 2]");
    check(&|p| p.world.groups.push(p.world.groups[0].clone()), "two groups have this name");
    check(&|p| exchange_at(p, 0).group = 2, "there is no group 2");
    check(&|p| exchange_at(p, 0).part_bytes = 62, "62 bytes are no elements of f32");
    check(&|p| exchange_at(p, 0).part_bytes = 0, "0 bytes are no elements of f32");
    check(&|p| exchange_at(p, 0).part_bytes = 68, "136 bytes at 0 of buffer 1");
    check(&|p| exchange_at(p, 0).part_bytes = u64::MAX - 3, "at 0 of buffer 1");
    check(&|p| exchange_at(p, 0).from = at(1, 4), "128 bytes at 4 of buffer 1");
    check(&|p| exchange_at(p, 0).to = at(3, 0), "128 bytes at 0 of buffer 3");
    check(&|p| exchange_at(p, 4).from = at(0, 2), "offset 2 is not one of f32 elements");
    check(&|p| exchange_at(p, 0).to = at(1, 0), "what is sent overlaps what is received");
    check(&|p| exchange_at(p, 4).from = at(0, PART), "what is sent overlaps what is received");
    check(
        &|p| {
            let exchange = exchange_at(p, 4).clone();
            p.steps[4].action = Action::Start { exchange, id: 7 };
        },
        "another exchange is 7",
    );
    check(&|p| p.steps[5].action = Action::Wait { id: 7 }, "waits for exchange 7, which is not under way");
    check(&|p| drop(p.steps.pop()), "exchange 2, which step 4 began: nobody waits for it");
    check(&|p| p.buffers[1].live = (0, 1), "has buffer 1 (x) since step 0, and it lives (0, 1)");
    check(&|p| p.buffers[2].live = (1, 3), "uses buffer 2 (y), which lives (1, 3)");
    let launch =
        |p: &mut Plan, args: [Ref; 2]| p.steps[1].action = Action::Launch { kernel: 0, args: args.into() };
    check(&|p| launch(p, [at(2, 0), at(3, 0)]), "touches what comes in exchange 7, which step 0 began");
    check(&|p| launch(p, [at(0, 0), at(2, 64)]), "touches what comes in exchange 7");
    check(&|p| launch(p, [at(0, 0), at(1, 64)]), "writes what goes out in exchange 7");
    let copy = |from, to| Action::Copy { from, to, bytes: 4 };
    check(&|p| p.steps[1].action = copy(at(1, 0), at(1, 64)), "writes what goes out in exchange 7");
    check(&|p| p.steps[1].action = copy(at(2, 0), at(3, 0)), "touches what comes in exchange 7");
    check(
        &|p| {
            let exchange = exchange(Movement::AllGather, 1, at(3, 0), at(1, 0));
            p.steps[1].action = Action::Start { exchange, id: 1 };
        },
        "writes what goes out in exchange 7",
    );
    check(
        &|p| p.bindings[1].shard = Some(Shard { start: 17, len: 16, of: 32 }),
        "17 to 17+16 of 32 are no shard",
    );
    check(&|p| p.bindings[1].shard = Some(Shard { start: 0, len: 0, of: 32 }), "0 to 0+0 of 32 are no shard");
    check(&|p| p.bindings[1].shard = Some(Shard { start: 0, len: 16, of: 16 }), "are no shard of [2, 16]");
    check(&|p| p.bindings[1].at = at(0, 68), "64 bytes at 68 of buffer 0");
}

fn together(change: &dyn Fn(&mut Vec<Plan>)) -> Result<(), String> {
    let mut plans: Vec<Plan> = (0..4).map(plan).collect();
    change(&mut plans);
    validate_ranks(&plans).map_err(|e| e.to_string())
}

#[test]
fn plans_that_fit_pass_together() {
    together(&|_| {}).unwrap_or_else(|e| panic!("{e}"));
    // Some ranks of the world are enough to look at.
    together(&|plans| plans.truncate(3)).unwrap_or_else(|e| panic!("{e}"));
    together(&|plans| plans.truncate(1)).unwrap_or_else(|e| panic!("{e}"));
    together(&|plans| drop(plans.remove(2))).unwrap_or_else(|e| panic!("{e}"));
    together(&Vec::clear).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn plans_that_do_not_fit_are_found() {
    let check = |change: &dyn Fn(&mut Vec<Plan>), expected: &str| {
        let found = together(change).expect_err("the change breaks a rule");
        assert!(found.contains(expected), "{found}, expected {expected}");
    };
    check(&|plans| plans[2].world.size = 5, "is for a world of 5 ranks, another for one of 4");
    check(&|plans| plans[2] = plan(1), "is the second for rank 1");
    check(
        &|plans| exchange_at(&mut plans[3], 0).part_bytes = 32,
        "exchange 0 of inner [2, 3]: rank 2 has all_to_all_16_f32x2 at step 0 (sums), rank 3 has all_to_all_8_f32x2",
    );
    check(&|plans| exchange_at(&mut plans[0], 0).dtype = DType::I32, "all_to_all_16_i32x2 at step 0");
    check(
        &|plans| exchange_at(&mut plans[1], 0).movement = Movement::AllGather,
        "rank 1 has all_gather_16_f32x2 at step 0",
    );
    check(
        &|plans| plans[2].steps.truncate(4),
        "exchange 0 of outer [0, 2]: rank 0 has all_gather_16_f32x2 at step 4 (gather), rank 2 has nothing",
    );
    check(&|plans| plans[0].world.groups[1].name = "other".into(), "rank 2 has nothing");
    // Each group has the same exchanges, but two ranks begin with the one and two with the other.
    check(
        &|plans| {
            for rank in [1, 2] {
                plans[rank].steps.rotate_left(4);
            }
        },
        "the ranks: wait for each other: rank 0 at step 0 (sums) for inner [0, 1], rank 1 at step 0 (gather)",
    );
    check(&|plans| plans[3].bindings[0].shape = vec![4, 8], "is f32 [32] on rank 0, f32 [4, 8] on rank 3");
    check(
        &|plans| plans[1].bindings[1].shard = None,
        "a shard of f32 [2, 16] on rank 0, f32 [2, 16] on rank 1",
    );
    let shard = |plans: &mut Vec<Plan>, rank: usize, start, len| {
        plans[rank].bindings[1].shard = Some(Shard { start, len, of: 32 });
    };
    check(&|plans| shard(plans, 1, 12, 16), "from 12 on of rank 1 are partly another's");
    check(
        &|plans| {
            shard(plans, 1, 20, 12);
            shard(plans, 3, 20, 12);
        },
        "nobody has the elements from 16 to 20",
    );
    check(
        &|plans| {
            shard(plans, 1, 16, 12);
            shard(plans, 3, 16, 12);
        },
        "nobody has the elements from 28 on",
    );
    // All elements are there, but rank 2 exchanges with nobody who has the second half.
    check(
        &|plans| shard(plans, 3, 0, 16),
        "tensor half: the shards that rank 2 has in reach, in its groups, are not all of it",
    );
    check(&|plans| drop(plans[2].bindings.remove(0)), "tensor w: is on rank 0, not on rank 2");
    // The same groups in another order: a device would wait for messages with another tag.
    check(
        &|plans| {
            plans[3].world.groups.swap(0, 1);
            for step in [0, 4] {
                let exchange = exchange_at(&mut plans[3], step);
                exchange.group = 1 - exchange.group;
            }
        },
        "group outer [1, 3]: is number 1 of rank 1, number 0 of rank 3",
    );
}
