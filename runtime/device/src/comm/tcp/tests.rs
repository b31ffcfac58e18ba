//! Ranks over TCP, which are threads here: that they meet, what they exchange, and how each failure ends.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;

use super::*;
use crate::comm::tests::check_exchanges;
use crate::comm::{Launcher, Ranks};

const SOON: Duration = Duration::from_secs(30);

/// A port that nobody listened at when it was asked for.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn place(rank: usize, world: usize) -> Place {
    Place { rank, world, launcher: Some(Launcher::Torchrun), has_pmix: false }
}

fn connected(rank: usize, world: usize, variables: &[(&str, String)]) -> Result<Tcp, CommError> {
    let environment =
        |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone());
    Tcp::of_threads(&place(rank, world), &environment, SOON)
}

fn variables(port: u16) -> Vec<(&'static str, String)> {
    vec![("MASTER_ADDR", "localhost".into()), ("MASTER_PORT", port.to_string())]
}

/// What each rank comes to, in order; nothing where it panics. Ranks start one after the other, the first last.
fn world<T: Send>(
    size: usize,
    variables: &[(&str, String)],
    timeout: Duration,
    work: impl Fn(Ranks) -> Result<T, CommError> + Sync,
) -> Vec<Option<Result<T, CommError>>> {
    std::thread::scope(|scope| {
        let work = &work;
        let start = |rank: usize| {
            scope.spawn(move || {
                sleep(Duration::from_millis(20 * (size - rank) as u64));
                let comm = connected(rank, size, variables)?;
                work(Ranks::new(Box::new(comm), timeout, |_| {}))
            })
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

#[test]
fn all_exchanges_end_in_the_right_bits() {
    for size in [2, 3, 5] {
        // The last parts are longer than what the system keeps for who does not read.
        for part in [3, 1500, 400_000] {
            let results = world(size, &variables(free_port()), SOON, |ranks| check_exchanges(ranks, part));
            assert!(results.iter().all(|result| matches!(result, Some(Ok(())))), "{results:?}");
        }
    }
}

#[test]
fn exchanges_of_several_groups_may_be_under_way_at_once() {
    let results = world(4, &variables(free_port()), SOON, |mut ranks| {
        let (all, me) = (ranks.world(), ranks.rank());
        let pairs = ranks.divide(&[vec![0, 1], vec![2, 3]])?;
        let (mut whole, mut pair) = ([0u8; 4], [0u8; 2]);
        let (mine, own) = ([me as u8], [10 + me as u8]);
        let (exchange, to) = (Exchange::AllGather { bytes: 1 }, whole.as_mut_ptr());
        // SAFETY: all places live until both are waited for, and nobody touches them.
        unsafe {
            let first = ranks.start("all", &all, exchange, mine.as_ptr(), to)?;
            let second = ranks.start("pair", &pairs, exchange, own.as_ptr(), pair.as_mut_ptr())?;
            // Half of the ranks wait in the other order.
            if me % 2 == 0 {
                ranks.wait("pair", &pairs, second)?;
                ranks.wait("all", &all, first)?;
            } else {
                ranks.wait("all", &all, first)?;
                ranks.wait("pair", &pairs, second)?;
            }
        }
        ranks.finish()?;
        let base = me as u8 / 2 * 2 + 10;
        Ok(whole == [0, 1, 2, 3] && pair == [base, base + 1])
    });
    assert!(results.iter().all(|result| matches!(result, Some(Ok(true)))), "{results:?}");
}

#[test]
fn a_store_of_the_launcher_and_strangers_are_passed_over() {
    let port = free_port();
    let store = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let strangers = AtomicUsize::new(0);
    let mut variables = variables(port);
    variables.push(("TORCHELASTIC_USE_AGENT_STORE", "True".into()));
    std::thread::scope(|scope| {
        // Somebody who connects to each port, and says what is no hello.
        scope.spawn(|| {
            let begun = Instant::now();
            while strangers.load(Ordering::Relaxed) == 0 && begun.elapsed() < SOON {
                for step in 1..16 {
                    if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port + step)) {
                        let _ = io::Write::write_all(&mut stream, &[0xff; 64]);
                        strangers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        let results = world(3, &variables, SOON, |ranks| check_exchanges(ranks, 10));
        strangers.fetch_add(1, Ordering::Relaxed);
        assert!(results.iter().all(|result| matches!(result, Some(Ok(())))), "{results:?}");
    });
    // Nobody has spoken to the store.
    store.set_nonblocking(true).expect("a listener");
    assert!(store.accept().is_err());
}

#[test]
fn who_says_nothing_holds_nobody_up_and_a_rank_that_was_cut_off_comes_again() {
    let port = free_port();
    let variables = &variables(port);
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let join = |rank| {
            scope.spawn(move || {
                let mut ranks = Ranks::new(Box::new(connected(rank, 3, variables)?), SOON, |_| {});
                let world = ranks.world();
                ranks.barrier("the start", &world)?;
                ranks.finish()
            })
        };
        let first = join(0);
        // One after the other they would have more time than the ranks.
        let mut silent = vec![];
        while silent.len() < 40 && begun.elapsed() < SOON {
            silent.extend(std::net::TcpStream::connect(("127.0.0.1", port)));
        }
        // A rank 1 that is heard, and is gone before it is told of the others.
        let mut gone = silent.pop().expect("rank 0 listens");
        io::Write::write_all(&mut gone, &[1, 0, 0, 0, 1, 0]).expect("heard");
        drop(gone);
        let joined = [first, join(1), join(2)].map(|rank| rank.join().expect("no panic"));
        assert!(joined.iter().all(Result::is_ok), "{joined:?}");
    });
}

#[test]
fn the_last_port_has_others_below_it() {
    let environment = |name: &str| match name {
        "MASTER_PORT" => Some("65535".to_owned()),
        "TORCHELASTIC_USE_AGENT_STORE" => Some("True".to_owned()),
        _ => Some("127.0.0.1".to_owned()),
    };
    let soon = Duration::from_millis(100);
    let error = Tcp::of_threads(&place(1, 2), &environment, soon).err().expect("alone").to_string();
    assert!(error.contains("ports 65519 to 65534, within 0.1 seconds"), "{error}");
}

#[test]
fn why_a_rank_has_ended_is_heard_by_one_that_sends_to_it() {
    let results = world(2, &variables(free_port()), SOON, |mut ranks| {
        let world = ranks.world();
        let begun = ranks.barrier("the start", &world);
        if ranks.rank() == 1 {
            // The other is likely to be at it by then.
            sleep(Duration::from_millis(200));
            ranks.abort(2, "the disk is full");
            return Ok(String::new());
        }
        // More than the connection takes at once.
        let mut bytes = vec![7; 64 << 20];
        let sent = begun.and_then(|()| ranks.hand_over("the states", &world, (0, 1), &mut bytes));
        Ok(sent.expect_err("rank 1 has ended").to_string())
    });
    let said = results[0].as_ref().and_then(|result| result.as_ref().ok()).expect("an error");
    assert!(said.contains("rank 1 has ended all ranks: the disk is full"), "{said}");
}

#[test]
fn ranks_that_do_not_come_are_named() {
    let port = free_port();
    let environment = |name: &str| match name {
        "MASTER_ADDR" => Some("127.0.0.1".to_owned()),
        "MASTER_PORT" => Some(port.to_string()),
        _ => None,
    };
    let soon = Duration::from_millis(300);
    let refused =
        |rank| Tcp::of_threads(&place(rank, 3), &environment, soon).err().expect("alone").to_string();
    let error = refused(0);
    assert!(error.contains("rank 0 waits for ranks 1 and 2 in the start of all 3 ranks"), "{error}");
    let error = refused(1);
    assert!(error.contains("rank 1 cannot reach rank 0 at 127.0.0.1") && error.contains("help: "), "{error}");
}

#[test]
fn what_is_no_address_is_refused() {
    for (port, words) in [(None, "MASTER_PORT is not set"), (Some("tcp://10.0.0.1:29500"), "a port from 1")] {
        let environment = |name: &str| match name {
            "MASTER_PORT" => port.map(str::to_owned),
            _ => Some("localhost".to_owned()),
        };
        let error = Tcp::of_threads(&place(0, 2), &environment, SOON).err().expect("refused").to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_rank_that_is_gone_and_one_that_ends_all_are_named() {
    for (aborts, words) in [(false, "rank 1"), (true, "rank 1 has ended all ranks: the disk is full")] {
        let results = world(3, &variables(free_port()), SOON, |mut ranks| {
            let world = ranks.world();
            let begun = ranks.barrier("the start", &world);
            if ranks.rank() == 1 {
                if aborts {
                    ranks.abort(2, "the disk is full");
                    return Ok(String::new());
                }
                panic!("a test's");
            }
            // It may be over with the others before they are through the start.
            let result = begun.and_then(|()| ranks.all_reduce("the step", &world, &mut [1.0; 64]));
            let error = result.expect_err("no rank 1");
            Ok(error.to_string())
        });
        for rank in [0, 2] {
            let said = results[rank].as_ref().and_then(|result| result.as_ref().ok()).expect("an error");
            assert!(said.contains(words), "{said}");
        }
    }
}

#[test]
fn a_rank_that_hangs_and_ranks_that_do_something_else_are_named() {
    let ended = AtomicUsize::new(0);
    let results = world(3, &variables(free_port()), Duration::from_secs(3), |mut ranks| {
        let world = ranks.world();
        if ranks.rank() == 2 {
            while ended.load(Ordering::Relaxed) == 0 {
                sleep(Duration::from_millis(5));
            }
        }
        let error = ranks.barrier("the step", &world).expect_err("rank 2 hangs");
        ended.fetch_add(1, Ordering::Relaxed);
        Ok(error.to_string())
    });
    let said: Vec<String> = results.into_iter().filter_map(|result| result?.ok()).collect();
    assert!(said[..2].iter().any(|said| said.contains("waits for rank 2 in the step of all 3")), "{said:?}");
    let results = world(2, &variables(free_port()), SOON, |mut ranks| {
        let world = ranks.world();
        let part = if ranks.rank() == 0 { 40 } else { 48 };
        let result = ranks.all_gather("norms", &world, &vec![1; part], &mut vec![0; 2 * part]);
        Ok(result.expect_err("another length").to_string())
    });
    let said: Vec<String> = results.into_iter().filter_map(|result| result?.ok()).collect();
    assert!(said.iter().any(|said| said.contains("in norms, expected")), "{said:?}");
}
