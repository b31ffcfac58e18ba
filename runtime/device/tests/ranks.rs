//! Plans whose steps exchange with other ranks, which are threads here, each with a device of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use linc_device::comm::{Local, Ranks};
use linc_device::cpu::{Cpu, CpuOptions};
use linc_device::{Device, DeviceError};
use linc_plan::{Action, Buffer, Category, DType, Exchange, Group, Movement, Plan, Ref, Space, Step, World};

/// Elements of a part.
const PART: usize = 700;
const SIZE: usize = 4;
const SOON: Duration = Duration::from_secs(60);

/// What each rank sends, what it receives of all, and of its pair.
fn buffers() -> Vec<Buffer> {
    let whole = (4 * PART * SIZE) as u64;
    let place = whole.next_multiple_of(64);
    let buffer = |index: u64| Buffer {
        name: format!("b{index}"),
        space: Space::Persistent,
        offset: index * place,
        bytes: whole,
        category: Category::Inputs,
        live: (0, 0),
    };
    (0..3).map(buffer).collect()
}

fn plan(rank: usize, size: usize) -> Plan {
    let at = |buffer: usize, part: usize| Ref { buffer, offset: (4 * PART * part) as u64 };
    let exchange = |movement, group, from, to| Exchange {
        movement,
        group,
        from,
        to,
        dtype: DType::F32,
        part_bytes: 4 * PART as u64,
    };
    // Two at once: what begins later is waited for first.
    let actions = [
        Action::Start { exchange: exchange(Movement::AllToAll, 0, at(0, 0), at(1, 0)), id: 7 },
        Action::Start { exchange: exchange(Movement::AllGather, 1, at(2, rank % 2), at(2, 0)), id: 3 },
        Action::Wait { id: 3 },
        Action::Wait { id: 7 },
    ];
    let step = |action| Step { action, label: "gradients".into(), flops: 0, bytes: 0 };
    let pair = rank / 2 * 2;
    let groups = vec![
        Group { name: "all".into(), members: (0..size).collect() },
        Group { name: "pair".into(), members: vec![pair, pair + 1] },
    ];
    let buffers = buffers();
    Plan {
        name: "test".into(),
        persistent_bytes: buffers.iter().map(|b| b.offset + b.bytes).max().unwrap_or(0).next_multiple_of(64),
        scratch_bytes: 0,
        steps: actions.into_iter().map(step).collect(),
        buffers,
        kernels: vec![],
        bindings: vec![],
        world: World { rank, size, groups },
    }
}

fn number(rank: usize, index: usize) -> f32 {
    (rank * 100_000 + index) as f32
}

/// Runs a rank's plan as often as asked; what it then has in its second and third buffer.
fn run(device: &mut Cpu, plan: &Plan, times: usize) -> Result<[Vec<f32>; 2], DeviceError> {
    let arena = device.allocate(plan.persistent_bytes)?;
    let program = device.load(plan, arena, plan.persistent_bytes)?;
    let (rank, bytes) =
        (plan.world.rank, |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let sent: Vec<f32> = (0..PART * SIZE).map(|index| number(rank, index)).collect();
    device.write(arena, plan.buffers[0].offset, &bytes(&sent))?;
    let own = plan.buffers[2].offset + (4 * PART * (rank % 2)) as u64;
    device.write(arena, own, &bytes(&sent[..PART]))?;
    for _ in 0..times {
        device.launch(program, 0..plan.steps.len())?;
    }
    let read = |buffer: usize, count: usize| {
        let mut bytes = vec![0; 4 * count];
        device.read(arena, plan.buffers[buffer].offset, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
    };
    Ok([read(1, PART * SIZE)?, read(2, 2 * PART)?])
}

/// What each rank comes to, in order; `times` says how often a rank runs its plan.
fn world(times: impl Fn(usize) -> usize + Sync) -> Vec<Result<[Vec<f32>; 2], DeviceError>> {
    let times = &times;
    std::thread::scope(|scope| {
        let start = |(rank, comm): (usize, Local)| {
            scope.spawn(move || {
                let ranks = Rc::new(RefCell::new(Ranks::new(Box::new(comm), SOON, |_| {})));
                let mut device = Cpu::new(CpuOptions { threads: Some(1), level: None })?;
                device.connect(Rc::clone(&ranks))?;
                let result = run(&mut device, &plan(rank, SIZE), times(rank));
                drop(device);
                let mut ranks = Rc::into_inner(ranks).expect("nobody else has them").into_inner();
                // A rank that stops before the others is dropped without a word, as a process that ends.
                if times(rank) == times(0) && result.is_ok() {
                    let _ = ranks.finish();
                }
                result
            })
        };
        let threads: Vec<_> = Local::world(SIZE).into_iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

#[test]
fn steps_of_a_plan_exchange_with_other_ranks() {
    for (rank, result) in world(|_| 3).into_iter().enumerate() {
        let [all, pair] = result.expect("it runs");
        let expected = (0..SIZE).flat_map(|from| (0..PART).map(move |i| number(from, rank * PART + i)));
        assert_eq!(all, expected.collect::<Vec<_>>(), "rank {rank}");
        let first = rank / 2 * 2;
        let expected = (first..first + 2).flat_map(|from| (0..PART).map(move |i| number(from, i)));
        assert_eq!(pair, expected.collect::<Vec<_>>(), "rank {rank}");
    }
}

#[test]
fn a_rank_that_ends_between_two_runs_is_named_by_its_exchange() {
    let results = world(|rank| if rank == 2 { 1 } else { 2 });
    for (rank, result) in results.into_iter().enumerate().filter(|(rank, _)| *rank != 2) {
        let error = result.expect_err("rank 2 is gone");
        assert!(matches!(error, DeviceError::Ranks(_)), "{error}");
        assert!(error.to_string().contains("rank 2"), "rank {rank}: {error}");
    }
}

#[test]
fn a_plan_for_other_ranks_is_refused() {
    let mut device = Cpu::new(CpuOptions { threads: Some(1), level: None }).expect("a CPU");
    let error = run(&mut device, &plan(1, SIZE), 1).expect_err("it has no others");
    assert!(error.to_string().contains("it is for rank 1 of 4, and this is rank 0 of 1"), "{error}");
    // All connect, since ranks tell each other what machine they are on, and none ends before.
    let connected = std::sync::Barrier::new(SIZE);
    std::thread::scope(|scope| {
        for (rank, comm) in Local::world(SIZE).into_iter().enumerate() {
            let connected = &connected;
            scope.spawn(move || {
                let mut device = Cpu::new(CpuOptions { threads: Some(1), level: None }).expect("a CPU");
                let ranks = Rc::new(RefCell::new(Ranks::new(Box::new(comm), SOON, |_| {})));
                let result = device.connect(ranks);
                connected.wait();
                result.expect("ranks");
                if rank == 2 {
                    let error = run(&mut device, &plan(3, SIZE), 1).expect_err("another rank's");
                    let text = error.to_string();
                    assert!(text.contains("rank 3 of 4, and this is rank 2 of 4"), "{text}");
                }
            });
        }
    });
}
