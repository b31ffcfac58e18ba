//! Ranks that are processes, each with a device on the made-up driver, which exchange over a made-up NCCL: what comes where, in
//! plain runs and in graphs, and how each failure ends.

use std::cell::RefCell;
use std::env;
use std::net::TcpListener;
use std::process::{Child, Output, Stdio, exit};
use std::rc::Rc;

use linc_plan::{Exchange, Group, Movement, World};

use super::*;
use crate::comm::{Place, Ranks, connect};

/// Says to [`as_a_rank`] what it does.
const ROLE: &str = "LINC_TEST_FAKE_ROLE";
/// What an exchange may take where one is to fail.
const SHORT: Duration = Duration::from_secs(3);

/// Elements of a part, and bytes from one buffer to the next.
const PART: usize = 16;
const ROOM: u64 = 256;

fn say(message: &str) {
    eprintln!("error: {message}");
}

fn fail(error: impl std::fmt::Display) -> ! {
    say(&error.to_string());
    exit(2)
}

/// Adds 3 to the first element of what it sends to all, begins that and a gather within a pair of ranks, adds 3 to something else
/// meanwhile, waits for both, the later one first, and adds 3 to what came.
fn plan(rank: usize, size: usize) -> Plan {
    let buffer = |index: u64| Buffer {
        name: format!("b{index}"),
        space: Space::Persistent,
        offset: index * ROOM,
        bytes: ROOM,
        category: Category::Workspace,
        live: (0, 0),
    };
    let at = |buffer: usize, part: usize| Ref { buffer, offset: (4 * PART * part) as u64 };
    let exchange = |movement, group, from, to| Exchange {
        movement,
        group,
        from,
        to,
        dtype: DType::F32,
        part_bytes: 4 * PART as u64,
    };
    let launch = |buffer: usize| Action::Launch { kernel: 0, args: vec![at(buffer, 0)] };
    let actions = [
        launch(0),
        Action::Start { exchange: exchange(Movement::AllToAll, 0, at(0, 0), at(1, 0)), id: 7 },
        Action::Start { exchange: exchange(Movement::AllGather, 1, at(2, rank % 2), at(2, 0)), id: 3 },
        launch(3),
        Action::Wait { id: 3 },
        Action::Wait { id: 7 },
        launch(1),
    ];
    let step = |action| Step { action, label: "gradients".into(), flops: 0, bytes: 0 };
    let pair = rank / 2 * 2;
    let group = |name: &str, members: Vec<usize>| Group { name: name.into(), members };
    Plan {
        name: "test".into(),
        persistent_bytes: 4 * ROOM,
        scratch_bytes: 0,
        buffers: (0..4).map(buffer).collect(),
        kernels: super::plan().0.kernels,
        steps: actions.into_iter().map(step).collect(),
        bindings: vec![],
        world: World {
            rank,
            size,
            groups: vec![group("all", (0..size).collect()), group("pair", vec![pair, pair + 1])],
        },
    }
}

/// Sums of NCCL's own: of what all ranks have, everywhere and in place, and of parts of it.
fn sums(rank: usize, size: usize) -> Plan {
    let mut plan = plan(rank, size);
    let at = |buffer: usize| Ref { buffer, offset: 0 };
    let exchange = |movement, from, to| Exchange {
        movement,
        group: 0,
        from: at(from),
        to: at(to),
        dtype: DType::F32,
        part_bytes: 4 * PART as u64,
    };
    let actions = [
        Action::Start { exchange: exchange(Movement::ReduceScatter, 0, 3), id: 0 },
        Action::Start { exchange: exchange(Movement::AllReduce, 2, 2), id: 1 },
        Action::Wait { id: 1 },
        Action::Wait { id: 0 },
        Action::Copy { from: at(2), to: at(1), bytes: 4 * PART as u64 },
    ];
    let step = |action| Step { action, label: "gradients".into(), flops: 0, bytes: 0 };
    plan.steps = actions.into_iter().map(step).collect();
    plan.kernels.clear();
    plan
}

fn number(rank: usize, index: usize) -> f32 {
    (rank * 1000 + index) as f32
}

/// A setting of the environment.
type Variable = (&'static str, &'static str);

/// What each rank runs; as a test by itself it does nothing.
#[test]
fn as_a_rank() {
    let Ok(role) = env::var(ROLE) else { return };
    let place = Place::of_process().unwrap_or_else(|error| fail(error));
    let mut ranks = connect(&place, Duration::from_secs(60), say).unwrap_or_else(|error| fail(error));
    let by_gpus = ranks.place_by_gpus().unwrap_or_else(|error| fail(error));
    let gpu = Cuda::number_of_rank(by_gpus).unwrap_or_else(|error| fail(error));
    let mut cuda = Cuda::new(gpu).unwrap_or_else(|error| fail(error));
    if !["exchanges", "adds"].contains(&role.as_str()) {
        ranks.set_timeout(SHORT, "the timeout of this test");
    }
    let ranks = Rc::new(RefCell::new(ranks));
    cuda.connect(ranks.clone()).unwrap_or_else(|error| fail(error));
    assert!(cuda.describe().ends_with(", NCCL 2.32.3"), "{}", cuda.describe());
    let mut plan = plan(place.rank, place.world);
    if let Some(other) = role.strip_prefix("races with ").and_then(|step| step.parse::<usize>().ok()) {
        plan.steps.swap(if other == 0 { 1 } else { 3 }, other);
        // Through the front door, the plan is refused.
        let arena = cuda.allocate(4 * ROOM).expect("memory");
        assert!(matches!(cuda.load(&plan, arena, 4 * ROOM), Err(DeviceError::Plan { .. })));
    }
    let result = match role.as_str() {
        "adds" => add(&mut cuda, &sums(place.rank, place.world)),
        role => run(&mut cuda, &plan, &ranks, role),
    };
    result.unwrap_or_else(|error| fail(error));
    drop(cuda);
    // Those of all and of the pair, which end with the process.
    assert_eq!(count("fake_live"), if place.world == 2 { 1 } else { 2 }, "everything else was given back");
    ranks.borrow_mut().finish().expect("all end");
}

fn run(cuda: &mut Cuda, plan: &Plan, ranks: &Rc<RefCell<Ranks>>, role: &str) -> Result<(), DeviceError> {
    let (rank, size) = (plan.world.rank, plan.world.size);
    let arena = cuda.allocate(4 * ROOM)?;
    let program = cuda.load_kernels(plan, &[super::plan().1], arena, 4 * ROOM)?;
    let own: Vec<f32> = (0..PART * size).map(|index| number(rank, index)).collect();
    write(cuda, arena, 0, &own);
    write(cuda, arena, 2 * ROOM + (4 * PART * (rank % 2)) as u64, &own[..PART]);
    for turn in 1..=4 {
        ranks.borrow_mut().set_context(format!("step {turn}"));
        if rank == 1 && turn == 3 {
            match role {
                "dies" => exit(0),
                "hangs" => std::thread::sleep(Duration::from_secs(300)),
                _ => {}
            }
        }
        cuda.launch(program, 0..plan.steps.len())?;
        cuda.synchronize()?;
        // What one rank finds wrong must not keep the others waiting: it panics, and all end.
        let mut expected: Vec<f32> = (0..size)
            .flat_map(|from| (0..PART).map(move |index| (from, rank * PART + index)))
            .map(|(from, index)| number(from, index) + if index == 0 { 3.0 * turn as f32 } else { 0.0 })
            .collect();
        expected[0] += 3.0;
        assert_eq!(read(cuda, arena, ROOM, PART * size), expected);
        let pair = rank / 2 * 2;
        let expected: Vec<f32> =
            (pair..pair + 2).flat_map(|from| (0..PART).map(move |index| number(from, index))).collect();
        assert_eq!(read(cuda, arena, 2 * ROOM, 2 * PART), expected);
        assert_eq!(read(cuda, arena, 3 * ROOM, 1), [3.0 * turn as f32]);
    }
    assert_eq!(count("fake_graph_launches"), 3, "all but the first run are one graph");
    // By single steps, and with their times.
    for step in 0..plan.steps.len() {
        cuda.launch(program, step..step + 1)?;
    }
    let mut times = vec![Duration::ZERO; plan.steps.len()];
    cuda.profile(program, &mut times)?;
    assert_eq!(read(cuda, arena, 3 * ROOM, 1), [3.0 * 6.0]);
    Ok(())
}

fn add(cuda: &mut Cuda, plan: &Plan) -> Result<(), DeviceError> {
    let (rank, size) = (plan.world.rank, plan.world.size);
    let arena = cuda.allocate(4 * ROOM)?;
    let program = cuda.load(plan, arena, 4 * ROOM)?;
    let own: Vec<f32> = (0..PART * size).map(|index| number(rank, index)).collect();
    let sum = |index: usize| (0..size).map(|rank| number(rank, index)).sum::<f32>();
    for _ in 0..3 {
        write(cuda, arena, 0, &own);
        write(cuda, arena, 2 * ROOM, &own[..PART]);
        cuda.launch(program, 0..plan.steps.len())?;
        cuda.synchronize()?;
        let all: Vec<f32> = (0..PART).map(sum).collect();
        assert_eq!(read(cuda, arena, ROOM, PART), all);
        let part: Vec<f32> = (rank * PART..(rank + 1) * PART).map(sum).collect();
        assert_eq!(read(cuda, arena, 3 * ROOM, PART), part);
    }
    Ok(())
}

/// Processes as ranks of this role, in an environment.
fn start(folder: &Path, ranks: usize, role: &str, environment: &[(&str, &str)]) -> Vec<Child> {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let start = |rank: usize| {
        let mut command = on_the_made_up_driver(folder, "cuda::tests::ranks::as_a_rank");
        command.env(ROLE, role).env("RANK", rank.to_string()).env("WORLD_SIZE", ranks.to_string());
        command.env("MASTER_ADDR", "localhost").env("MASTER_PORT", port.to_string());
        command.env("FAKE_GPUS", "4").env("FAKE_NCCL_FOLDER", folder).env_remove("CUDA_VISIBLE_DEVICES");
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("this program runs")
    };
    (0..ranks).map(start).collect()
}

/// Exit codes and words of ranks, in order.
fn ended(children: Vec<Child>) -> Vec<(Option<i32>, String)> {
    let said = |child: Child| -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
        (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    };
    children.into_iter().map(said).collect()
}

#[test]
fn ranks_exchange_in_plain_runs_and_in_graphs() {
    let Some(folder) = made_up_driver() else { return };
    for (ranks, environment) in [
        (2, vec![]),
        (4, vec![]),
        (2, vec![("FAKE_GPUS", "1"), ("NCCL_MULTI_RANK_GPU_ENABLE", "1")]),
        // A launcher that shows each rank one GPU would number them alike.
        (4, vec![("FAKE_GPUS", "2"), ("NCCL_MULTI_RANK_GPU_ENABLE", "1")]),
    ] {
        for (code, text) in ended(start(folder.path(), ranks, "exchanges", &environment)) {
            assert_eq!(code, Some(0), "{ranks} ranks, {environment:?}: {text}");
        }
    }
}

#[test]
fn nccl_adds_where_it_is_asked_to() {
    let Some(folder) = made_up_driver() else { return };
    for (code, text) in ended(start(folder.path(), 4, "adds", &[])) {
        assert_eq!(code, Some(0), "{text}");
    }
}

#[test]
fn what_is_wrong_with_nccl_or_the_gpus_is_said_by_all_before_anything_runs() {
    let Some(folder) = made_up_driver() else { return };
    let cases: [(&[Variable], &[&str]); 4] = [
        (
            &[("LINC_NCCL", "no/such/libnccl.so.2")],
            &["no/such/libnccl.so.2: no such file", "pip install nvidia-nccl-cu13"],
        ),
        (
            &[("FAKE_NCCL_VERSION", "21000")],
            &["version 2.10.0, which is too old", "pip install nvidia-nccl-cu13"],
        ),
        (&[("FAKE_GPUS", "1")], &["the driver sees 1 GPU", "NCCL_MULTI_RANK_GPU_ENABLE=1"]),
        (
            &[("FAKE_GPUS", "1"), ("NCCL_MULTI_RANK_GPU_ENABLE", "1"), ("FAKE_NCCL_VERSION", "22907")],
            &["2 ranks share a GPU, which NCCL 2.29.7 does not do", "2.30 or later"],
        ),
    ];
    for (environment, words) in cases {
        let all = ended(start(folder.path(), 2, "fails", environment));
        let text: String = all.iter().map(|(_, text)| text.as_str()).collect();
        assert!(words.iter().all(|word| text.contains(word)), "{environment:?}: {text}");
        assert!(all.iter().all(|(code, _)| matches!(code, Some(2 | 3))), "{all:?}");
        assert!(all.iter().any(|(code, _)| *code == Some(2)), "{all:?}");
    }
}

#[test]
fn ranks_that_fail_are_named_with_step_exchange_and_group() {
    let Some(folder) = made_up_driver() else { return };
    let hung = ["rank 0 waits for rank 1 in gradients in step 3 of all 2 ranks", "since 3 seconds"];
    let stuck = ["waits in gradients in step 2 of all 2 ranks", "and so do all others", "NCCL_DEBUG=INFO"];
    let error = ["rank 1: gradients in step 2: remote process exited or there was a network error"];
    let gone = ["rank 0 waits for rank 1 in gradients in step 3, which has ended"];
    let cases: [(&str, &[Variable], &[&str]); 4] = [
        ("hangs", &[], &hung),
        ("dies", &[], &gone),
        ("fails", &[("FAKE_NCCL_HANG", "1 2")], &stuck),
        ("fails", &[("FAKE_NCCL_FAIL", "1 2")], &error),
    ];
    for (role, environment, words) in cases {
        let mut children = start(folder.path(), 2, role, environment);
        let culprit = children.pop().expect("two");
        let first = ended(children).remove(0);
        let mut all = vec![first];
        if role == "hangs" {
            let mut culprit = culprit;
            culprit.kill().expect("a process");
            culprit.wait().expect("it ends");
        } else {
            all.extend(ended(vec![culprit]));
        }
        let text: String = all.iter().map(|(_, text)| text.as_str()).collect();
        assert!(words.iter().all(|word| text.contains(word)), "{role} {environment:?}: {text}");
        assert_eq!(all[0].0, Some(3), "{role} {environment:?}: {text}");
    }
}

#[test]
fn the_made_up_driver_finds_races() {
    let Some(folder) = made_up_driver() else { return };
    // A kernel writes to what is being sent, and one to what has not come yet.
    for role in ["races with 0", "races with 6"] {
        let all = ended(start(folder.path(), 2, role, &[]));
        let text: String = all.iter().map(|(_, text)| text.as_str()).collect();
        assert!(all.iter().any(|(code, _)| *code == Some(86)), "{role}: {all:?}");
        let words = ["fake: race: ", "a kernel on stream 0", "on stream 1", "neither waits for the other"];
        assert!(words.iter().all(|word| text.contains(word)), "{role}: {text}");
    }
}
