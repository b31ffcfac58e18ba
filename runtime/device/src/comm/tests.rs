//! Exchanges of threads as ranks: bits, bytes on the wire, and every way in which one of them fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::error::ranks as ranks_in_words;
use super::pattern::{Expected, difference, fill};
use super::*;

const SOON: Duration = Duration::from_secs(30);

fn quiet(_: &str) {}

/// What each rank comes to, in order; nothing where it panics.
fn world<T: Send>(
    size: usize,
    timeout: Duration,
    work: impl Fn(Ranks) -> Result<T, CommError> + Sync,
) -> Vec<Option<Result<T, CommError>>> {
    let work = &work;
    std::thread::scope(|scope| {
        let start = |comm: Local| scope.spawn(move || work(Ranks::new(Box::new(comm), timeout, quiet)));
        let threads: Vec<_> = Local::world(size).into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

fn all_well<T: Send>(size: usize, work: impl Fn(Ranks) -> Result<T, CommError> + Sync) -> Vec<T> {
    let results = world(size, SOON, work);
    results.into_iter().map(|result| result.expect("no panic").expect("no error")).collect()
}

fn numbers(rank: usize, count: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    fill(&mut numbers, rank);
    numbers
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn all_exchanges_end_in_the_right_bits_and_send_what_the_formulas_say() {
    for size in [1, 2, 3, 4, 7] {
        all_well(size, |ranks| check_exchanges(ranks, 1500));
    }
}

/// Runs each exchange of parts of so many numbers, and looks at all bits and the bytes that were sent.
pub(super) fn check_exchanges(mut ranks: Ranks, part: usize) -> Result<(), CommError> {
    let (world, me) = (ranks.world(), ranks.rank());
    let sent = |ranks: &Ranks, before: u64| (ranks.bytes_sent() - before) as usize;
    let size = ranks.size();
    let moved = 4 * part * (size - 1);

    let before = ranks.bytes_sent();
    let from = bytes(&numbers(me, size * part));
    let mut to = vec![0; from.len()];
    ranks.all_to_all("all-to-all", &world, &from, &mut to)?;
    assert_eq!(sent(&ranks, before), moved);
    for (rank, part_of) in floats(&to).chunks(part).enumerate() {
        assert_eq!(difference(part_of, Expected::Of { rank }, me * part), None);
    }

    let before = ranks.bytes_sent();
    ranks.all_gather("all-gather", &world, &bytes(&numbers(me, part)), &mut to)?;
    assert_eq!(sent(&ranks, before), moved);
    for (rank, part_of) in floats(&to).chunks(part).enumerate() {
        assert_eq!(difference(part_of, Expected::Of { rank }, 0), None);
    }

    let before = ranks.bytes_sent();
    let mut out = vec![0.0; part];
    ranks.reduce_scatter("reduce-scatter", &world, &numbers(me, size * part), &mut out)?;
    assert_eq!(sent(&ranks, before), moved);
    assert_eq!(difference(&out, Expected::SumOf { ranks: size }, me * part), None);

    let before = ranks.bytes_sent();
    let mut x = numbers(me, size * part);
    ranks.all_reduce("all-reduce", &world, &mut x)?;
    assert_eq!(sent(&ranks, before), 2 * moved);
    assert_eq!(difference(&x, Expected::SumOf { ranks: size }, 0), None);

    let before = ranks.bytes_sent();
    let root = size / 2;
    let mut x = bytes(&numbers(me, size * part));
    ranks.broadcast("broadcast", &world, root, &mut x)?;
    assert_eq!(sent(&ranks, before), if me == root { 2 * moved } else { moved });
    assert_eq!(difference(&floats(&x), Expected::Of { rank: root }, 0), None);

    let before = ranks.bytes_sent();
    let (right, left) = ((me + 1) % size, (me + size - 1) % size);
    let mut got = vec![0; 4 * part];
    let mine = bytes(&numbers(me, part));
    ranks.send_receive("ring", &world, (right, &mine), (left, &mut got))?;
    assert_eq!(sent(&ranks, before), if size == 1 { 0 } else { 4 * part });
    assert_eq!(difference(&floats(&got), Expected::Of { rank: left }, 0), None);
    ranks.finish()
}

#[test]
fn lengths_that_the_ranks_do_not_divide_are_padded() {
    for (size, count) in [(3, 1000), (4, 5), (4, 3), (3, 0), (2, 1)] {
        all_well(size, |mut ranks| {
            let (world, me) = (ranks.world(), ranks.rank());
            let mut x = numbers(me, count);
            ranks.all_reduce("sum", &world, &mut x)?;
            assert_eq!(difference(&x, Expected::SumOf { ranks: size }, 0), None, "{size} ranks, {count}");
            let mut x = bytes(&numbers(me, count))[..(4 * count).saturating_sub(1)].to_vec();
            ranks.broadcast("broadcast", &world, 1, &mut x)?;
            assert_eq!(x, bytes(&numbers(1, count))[..x.len()]);
            let all = ranks.gather("gather", &world, &vec![me as u8; 3 * me])?;
            assert_eq!(all, (0..size).map(|rank| vec![rank as u8; 3 * rank]).collect::<Vec<_>>());
            ranks.finish()
        });
    }
}

/// Leaves in the order of a batch: each rank sums its own, then all sum over ranks.
#[test]
fn sums_do_not_depend_on_how_many_ranks_share_them() {
    for (leaves, counts) in [(8, vec![1, 2, 4, 8]), (12, vec![3, 6, 12]), (16, vec![1, 2, 4, 8, 16])] {
        let count = 3000;
        let sums = counts.iter().map(|size| {
            let mut all = all_well(*size, |mut ranks| {
                let own = leaves / ranks.size();
                let first = ranks.rank() * own;
                let parts: Vec<f32> = (first..first + own).flat_map(|leaf| numbers(leaf, count)).collect();
                let mut x = vec![0.0; count];
                sum_parts(&parts, &mut x);
                let world = ranks.world();
                ranks.all_reduce("gradients", &world, &mut x)?;
                ranks.finish()?;
                Ok(bytes(&x))
            });
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "ranks have other sums");
            all.remove(0)
        });
        let sums: Vec<Vec<u8>> = sums.collect();
        assert!(sums.windows(2).all(|pair| pair[0] == pair[1]), "{leaves} leaves on {counts:?} ranks");
        // The order shows in the bits: without it this test would say nothing.
        let parts: Vec<Vec<f32>> = (0..leaves).map(|leaf| numbers(leaf, count)).collect();
        let in_turn: Vec<f32> =
            (0..count).map(|i| parts.iter().fold(0.0, |sum, part| sum + part[i])).collect();
        assert_ne!(sums[0], bytes(&in_turn));
    }
}

#[test]
fn a_sum_of_parts_pairs_neighbours() {
    let big = 2.0_f32.powi(24);
    let sum = |parts: &[f32]| {
        let mut out = [0.0];
        sum_parts(parts, &mut out);
        out[0]
    };
    // One after the other, each 1 would be lost beside the large number.
    assert_eq!(sum(&[big, 0.0, 1.0, 1.0]), big + 2.0);
    assert_eq!(sum(&[big, 1.0, 1.0, 0.0]), big);
    // Beyond the largest power of two: a tree of its own.
    assert_eq!(sum(&[0.0, big, 0.0, 0.0, 1.0, 1.0]), big + 2.0);
    assert_eq!(sum(&[7.0]), 7.0);
    sum_parts(&[], &mut []);
}

#[test]
fn groups_exchange_by_themselves() {
    all_well(6, |mut ranks| {
        let me = ranks.rank();
        let rows = ranks.divide(&[vec![0, 1, 2], vec![3, 4, 5]])?;
        let columns = ranks.divide(&[vec![3, 0], vec![1, 4], vec![2, 5]])?;
        assert_eq!((rows.place(), columns.place()), (me % 3, me / 3));
        assert_eq!(columns.members(), [me % 3, me % 3 + 3]);
        // A rank of another group sends to the same one beside it: what comes must be of the right group.
        for group in [&rows, &columns, &rows] {
            let mut x = numbers(me, 10);
            ranks.all_reduce("sum", group, &mut x)?;
            let parts: Vec<f32> = group.members().iter().flat_map(|rank| numbers(*rank, 10)).collect();
            let mut expected = vec![0.0; 10];
            sum_parts(&parts, &mut expected);
            assert_eq!(x, expected);
        }
        ranks.finish()
    });
}

#[test]
fn exchanges_that_are_under_way_at_once_may_be_waited_for_in_any_order() {
    all_well(3, |mut ranks| {
        let (world, me) = (ranks.world(), ranks.rank() as u8);
        let sent = [[me; 4], [10 + me; 4]];
        let mut got = [[0u8; 12]; 2];
        let exchange = Exchange::AllGather { bytes: 4 };
        let mut tickets = vec![];
        for (name, (from, to)) in ["first", "second"].into_iter().zip(sent.iter().zip(&mut got)) {
            // SAFETY: both live, untouched, until both exchanges are over.
            tickets.push(unsafe { ranks.start(name, &world, exchange, from.as_ptr(), to.as_mut_ptr()) }?);
        }
        ranks.wait("second", &world, tickets[1])?;
        ranks.wait("first", &world, tickets[0])?;
        for (number, got) in got.iter().enumerate() {
            let expected: Vec<u8> = (0..3).flat_map(|rank| [10 * number as u8 + rank; 4]).collect();
            assert_eq!(got[..], expected);
        }
        ranks.finish()
    });
}

#[test]
fn groups_that_cannot_be_are_refused_by_all() {
    for (groups, word) in [
        (vec![vec![0, 1]], "rank 2 must"),
        (vec![vec![0, 1], vec![1, 2]], "rank 1 must"),
        (vec![vec![0, 1, 2, 3]], "rank 3, of 3"),
    ] {
        all_well(3, |mut ranks| {
            let error = ranks.divide(&groups).expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
            ranks.finish()
        });
    }
    all_well(2, |mut ranks| {
        let one = vec![vec![0, 1]];
        let two = vec![vec![0], vec![1]];
        let error = ranks.divide(if ranks.rank() == 0 { &one } else { &two }).expect_err("refused");
        assert!(error.to_string().contains("[[0], [1]] on rank 1"), "{error}");
        ranks.finish()
    });
    // Tags of messages go as far as MPI promises, and 0 is that of all ranks.
    all_well(2, |mut ranks| {
        assert!(ranks.group(&[0, 1], 1).is_ok() && ranks.group(&[0, 1], 32_766).is_ok());
        for number in [0, 32_767, u16::MAX] {
            let error = ranks.group(&[0, 1], number).expect_err("refused").to_string();
            assert!(error.contains(&format!("group {number} has no number from 1 to 32766")), "{error}");
        }
        ranks.finish()
    });
}

#[test]
fn a_handshake_names_who_differs() {
    let errors = all_well(3, |mut ranks| {
        let version = if ranks.rank() == 1 { "0.2" } else { "0.1" };
        let same = ranks.agree(&[("linc's version", "0.1".into())]);
        let error = ranks.agree(&[("linc's version", version.into()), ("the command", "train".into())]);
        ranks.finish()?;
        Ok((same, error))
    });
    for (same, error) in errors {
        assert_eq!(same, Ok(()));
        let error = error.expect_err("a difference");
        assert!(matches!(error, CommError::Differ(_)));
        assert!(
            error.to_string().contains("linc's version is 0.1 on ranks 0 and 2, but 0.2 on rank 1\n"),
            "{error}"
        );
    }
}

/// What a rank does wrong, at the exchange of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Late,
    Hangs,
    Panics,
    Returns,
    Refuses,
    OtherLength,
}

/// Three exchanges, in one of which rank `culprit` does something wrong.
fn faulty(
    mut ranks: Ranks,
    fault: Fault,
    culprit: usize,
    at: usize,
    hang: &dyn Fn(),
) -> Result<(), CommError> {
    let world = ranks.world();
    for number in 0..3 {
        let mut count = 8 * ranks.size();
        if (ranks.rank(), number) == (culprit, at) {
            match fault {
                Fault::Late => std::thread::sleep(Duration::from_millis(30)),
                Fault::Hangs => hang(),
                Fault::Panics => std::panic::resume_unwind(Box::new("a test's")),
                Fault::Returns => return Ok(()),
                Fault::Refuses => {
                    ranks.abort(2, "the disk is full");
                    return Ok(());
                }
                Fault::OtherLength => count += ranks.size(),
            }
        }
        ranks.all_reduce(&format!("step {number}"), &world, &mut numbers(ranks.rank(), count))?;
    }
    ranks.finish()
}

#[test]
fn whatever_one_rank_does_all_end_in_time_and_say_who() {
    for size in [2, 4] {
        for fault in [Fault::Late, Fault::Panics, Fault::Returns, Fault::Refuses, Fault::OtherLength] {
            for (culprit, at) in [(0, 0), (size - 1, 1), (1, 2)] {
                all_end_by(fault, size, (culprit, at), SOON);
            }
        }
    }
}

#[test]
fn a_rank_that_hangs_is_named_by_the_others_at_the_deadline() {
    // Long enough for the others to come to the exchange on a busy machine; all cases wait for it at once.
    let deadline = Duration::from_secs(3);
    std::thread::scope(|scope| {
        for size in [2, 4] {
            for case in [(0, 0), (size - 1, 1), (1, 2)] {
                scope.spawn(move || all_end_by(Fault::Hangs, size, case, deadline));
            }
        }
    });
}

/// Checks what all say of a rank that does something wrong at the exchange of a number.
fn all_end_by(fault: Fault, size: usize, (culprit, at): (usize, usize), timeout: Duration) {
    let case = format!("{fault:?} of rank {culprit} of {size} in exchange {at}");
    let begun = Instant::now();
    let ended = AtomicUsize::new(0);
    // Until the others have ended, however long that takes them.
    let hang = || {
        while ended.load(Ordering::Relaxed) < size - 1 && begun.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let results = world(size, timeout, |ranks| {
        let result = faulty(ranks, fault, culprit, at, &hang);
        ended.fetch_add(1, Ordering::Relaxed);
        result
    });
    assert!(begun.elapsed() < SOON, "{case}");
    let others: Vec<String> = results
        .iter()
        .enumerate()
        .filter(|(rank, _)| *rank != culprit)
        .map(|(_, result)| match result {
            Some(Ok(())) => String::new(),
            Some(Err(error)) => error.to_string(),
            None => panic!("{case}: another rank panics"),
        })
        .collect();
    let (name, step) = (format!("rank {culprit}"), format!("step {at}"));
    for other in &others {
        let says = match fault {
            Fault::Late => other.is_empty(),
            Fault::Hangs => other.contains(&format!("waits for {name} in {step} of all {size} ranks")),
            Fault::Panics | Fault::Returns => other.contains(&name),
            Fault::Refuses => other.contains(&format!("{name} has ended all ranks: the disk is full")),
            // Whoever looks first says it; the culprit finds others to be wrong.
            Fault::OtherLength => other.contains("expected ") && other.contains(&step),
        };
        assert!(says, "{case}: {other}");
    }
}

#[test]
fn what_one_rank_has_another_gets_and_no_others() {
    let parts = all_well(3, |mut ranks| {
        let (world, me) = (ranks.world(), ranks.rank());
        let mut bytes = vec![me as u8; 100_000];
        for (from, to) in [(2, 0), (1, 1), (0, 1)] {
            ranks.hand_over("the part", &world, (from, to), &mut bytes)?;
        }
        let sent = ranks.bytes_sent();
        ranks.finish()?;
        Ok((bytes, sent))
    });
    let expected = [(2, 100_000), (2, 0), (2, 100_000)].map(|(byte, sent)| (vec![byte; 100_000], sent));
    assert!(parts == expected);
}

#[test]
fn what_does_not_fit_an_exchange_is_an_error_and_no_access() {
    let results = world(2, SOON, |mut ranks| {
        let world = ranks.world();
        let result = ranks.all_gather("norms", &world, &[1, 2, 3], &mut [0; 5]);
        assert!(result.is_err());
        result
    });
    let errors: Vec<String> = results.into_iter().filter_map(|r| Some(r?.err()?.to_string())).collect();
    assert!(
        errors.iter().any(|error| error.contains("norms of all 2 ranks: 3 bytes to 5, expected 3 to 6")),
        "{errors:?}"
    );
}

#[test]
fn launchers_that_linc_cannot_use_are_refused_with_what_to_type() {
    let place = |launcher, has_pmix| Place { rank: 1, world: 4, launcher: Some(launcher), has_pmix };
    let refused = |place: &Place| connect(place, SOON, quiet).err().expect("refused").to_string();
    assert!(refused(&place(Launcher::Slurm, false)).contains("srun --mpi=pmix"));
    let mut alone = connect(&Place::ALONE, SOON, quiet).expect("one rank");
    assert_eq!((alone.rank(), alone.size()), (0, 1));
    alone.finish().expect("it ends");
}

#[test]
fn many_ranks_are_not_all_listed() {
    assert_eq!(ranks_in_words(&[3]), "rank 3");
    assert_eq!(ranks_in_words(&[0, 2, 5]), "ranks 0, 2 and 5");
    assert_eq!(ranks_in_words(&(0..20).collect::<Vec<_>>()), "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 12 more");
}

mod schedules;
