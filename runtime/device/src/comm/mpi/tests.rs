//! Ranks that are processes, over the MPI of this machine, where there is one: this test program is what each runs.

use std::env;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::comm::pattern::{Expected, difference, fill};
use crate::comm::{LOST, Ranks, Starter, connect};

/// Says to this test program that it is a rank, and what it does.
const ROLE: &str = "LINC_TEST_ROLE";
const TIMEOUT: Duration = Duration::from_secs(3);

fn say(message: &str) {
    eprintln!("error: {message}");
}

/// What a rank runs; as a test by itself it does nothing.
#[test]
fn as_a_rank() {
    let Ok(role) = env::var(ROLE) else { return };
    let place = Place::of_process().expect("a launcher has started this");
    // The start waits for processes that start beside others.
    let mut ranks = connect(&place, Duration::from_secs(60), say).unwrap_or_else(|error| {
        say(&error.to_string());
        std::process::exit(2)
    });
    let world = ranks.world();
    ranks.barrier("the start", &world).expect("all start");
    if role == "hangs" {
        ranks.set_timeout(TIMEOUT, "the timeout of this test");
    }
    let is_culprit = ranks.rank() == 1;
    match role.as_str() {
        "hangs" if is_culprit => std::thread::sleep(Duration::from_secs(300)),
        "panics" if is_culprit => panic!("a test's"),
        // Only the culprit receives, more than it has room for, so that nobody else can find it first.
        "overflow" => {
            let length = if is_culprit { 40 } else { 48 };
            ranks.broadcast("the step", &world, 0, &mut vec![1; length]).expect("bytes");
        }
        "differs" => {
            let error = ranks.agree(&[("the config", format!("{}", ranks.rank() == 1))]);
            let error = error.expect_err("a difference").to_string();
            assert!(error.contains("true on rank 1"), "{error}");
        }
        _ => {}
    }
    let length = if role == "length" && is_culprit { 40 } else { 48 };
    ranks.all_reduce("the step", &world, &mut vec![1.0; length]).expect("a sum");
    for part in [1, 1000, 300_000] {
        check(&mut ranks, part);
    }
    ranks.finish().expect("all end");
}

fn check(ranks: &mut Ranks, part: usize) {
    let (world, me, size) = (ranks.world(), ranks.rank(), ranks.size());
    let mut x = vec![0.0; part * size];
    fill(&mut x, me);
    let mut out = vec![0.0; part];
    ranks.reduce_scatter("reduce-scatter", &world, &x, &mut out).expect("a sum");
    assert_eq!(difference(&out, Expected::SumOf { ranks: size }, me * part), None);
    ranks.all_reduce("all-reduce", &world, &mut x).expect("a sum");
    assert_eq!(difference(&x, Expected::SumOf { ranks: size }, 0), None);
    let pair: Vec<Vec<usize>> = (0..size).step_by(2).map(|rank| vec![rank, rank + 1]).collect();
    let group = ranks.divide(&pair).expect("pairs");
    let mine = [me as u8];
    let mut both = [0; 2];
    ranks.all_gather("pairs", &group, &mine, &mut both).expect("bytes");
    assert_eq!(usize::from(both[1 - group.place()]), me ^ 1);
}

/// So many ranks in a role: exit code, what they said, and how long they took.
fn started(ranks: usize, role: &str) -> Option<(Option<i32>, String, Duration)> {
    let starter = match Starter::find() {
        Ok(starter) => starter,
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let program = env::current_exe().expect("a path");
    let arguments = ["comm::mpi::tests::as_a_rank", "--exact", "--nocapture"].map(Into::into);
    let mut command: Command = starter.command(ranks, &program, &arguments);
    let begun = Instant::now();
    let output = command.env(ROLE, role).stdin(Stdio::null()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Some((output.status.code(), said.into_owned(), begun.elapsed()))
}

#[test]
fn exchanges_of_processes_end_in_the_right_bits() {
    for ranks in [2, 4] {
        let Some((code, said, _)) = started(ranks, "well") else { return };
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.matches("1 passed").count(), ranks, "each is a rank: {said}");
    }
}

#[test]
fn what_goes_wrong_in_one_process_ends_all_and_is_named() {
    for (role, words) in [
        ("hangs", "rank 0 waits for rank 1 in the step of all 2 ranks, since 3 seconds"),
        ("panics", "rank 1 has ended before the others"),
        ("length", "they do not run the same exchange"),
        (
            "overflow",
            "rank 1 got more than 20 B from rank 0 in the step, expected 20 B: they do not run the same",
        ),
    ] {
        let Some((code, said, took)) = started(2, role) else { return };
        assert_eq!(code, Some(LOST.into()), "{role}: {said}");
        assert!(said.contains(words), "{role}: {said}");
        assert!(took < Duration::from_secs(120), "{role}: {took:?}");
    }
    let Some((code, said, _)) = started(2, "differs") else { return };
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn long_messages_are_cut() {
    let all = |offset, bytes| pieces(offset, bytes).collect::<Vec<_>>();
    assert_eq!(all(7, 0), [(7, 0)]);
    assert_eq!(all(7, 5), [(7, 5)]);
    assert_eq!(all(1, LONGEST), [(1, LONGEST)]);
    assert_eq!(all(0, 2 * LONGEST + 3), [(0, LONGEST), (LONGEST, LONGEST), (2 * LONGEST, 3)]);
}
