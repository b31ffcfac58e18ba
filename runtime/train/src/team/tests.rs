//! Ranks, which are threads here, that come to the same and wait for each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;

use linc_device::comm::Local;

use super::*;

/// Failures that ranks have said: there is to be none.
static FAILURES: AtomicUsize = AtomicUsize::new(0);

fn count_failure(_: &str) {
    FAILURES.fetch_add(1, Ordering::Relaxed);
}

const SOON: Duration = Duration::from_secs(60);

/// What ranks, which are threads, come to by `work`.
fn of_all<T: Send>(size: usize, work: impl Fn(&Team) -> T + Sync) -> Vec<T> {
    within(SOON, |_| {}, size, work)
}

/// As [`of_all`], where others are waited for so long, and failures are said.
fn within<T: Send>(soon: Duration, say: fn(&str), size: usize, work: impl Fn(&Team) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |comm: Local| {
            let work = &work;
            scope.spawn(move || {
                let ranks = Ranks::new(Box::new(comm), soon, say);
                work(&Team::new(ranks, Timeouts { init: soon, train: soon }))
            })
        };
        let threads: Vec<_> = Local::world(size).into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

#[test]
fn ranks_may_be_told_different_numbers_of_threads() {
    let told = [3, 0, 1];
    let threads = of_all(3, |team| {
        let threads = team.threads(told[team.rank()]).unwrap_or_else(|e| panic!("{e}"));
        team.clone().finish().unwrap_or_else(|e| panic!("{e}"));
        threads
    });
    assert_eq!((threads[0], threads[2]), (Some(3), Some(1)));
    assert!(threads[1].is_some_and(|fair| fair > 0));
    assert_eq!((Team::alone().threads(0).ok(), Team::alone().threads(2).ok()), (Some(None), Some(Some(2))));
}

#[test]
fn all_ranks_have_the_exit_code_of_the_signal_that_one_got() {
    let signals = [None, Some(143), Some(130)];
    let codes = of_all(3, |team| {
        let code = team.exit_code(signals[team.rank()]).unwrap_or_else(|e| panic!("{e}"));
        let none = team.exit_code(None).unwrap_or_else(|e| panic!("{e}"));
        team.clone().finish().unwrap_or_else(|e| panic!("{e}"));
        (code, none)
    });
    assert_eq!(codes, [(143, 130); 3]);
    assert_eq!(Team::alone().exit_code(Some(143)).ok(), Some(143));
}

#[test]
fn a_run_ends_well_while_a_device_still_holds_the_ranks() {
    let last_words = within(SOON, count_failure, 2, |team| {
        let held = team.ranks().clone();
        let finished = team.clone().finish();
        // What is dropped before it has finished ends all.
        drop(held);
        finished.map_err(|error| error.to_string())
    });
    assert_eq!(last_words, [Ok(()), Ok(())]);
    assert_eq!(FAILURES.load(Ordering::Relaxed), 0);
}

#[test]
fn work_of_the_first_rank_may_take_longer_than_a_timeout_while_it_gives_signs() {
    let timeout = Duration::from_secs(2);
    let all = within(
        timeout,
        |_| {},
        3,
        |team| {
            let done = team.of_first_alone("the work", || {
                let begun = Instant::now();
                while begun.elapsed() < timeout * 3 / 2 {
                    sleep(Duration::from_millis(5));
                    team.give_sign();
                }
                Ok(7)
            });
            // Signs that nobody waits for yet are heard when somebody does.
            team.give_sign();
            team.wait("all").unwrap_or_else(|e| panic!("{e}"));
            let finished = team.clone().finish();
            (done.map_err(|e| e.to_string()), finished.map_err(|e| e.to_string()))
        },
    );
    assert_eq!(all, [(Ok(Some(7)), Ok(())), (Ok(None), Ok(())), (Ok(None), Ok(()))]);
}

#[test]
fn what_is_handed_over_is_sent_when_the_first_rank_is_ready_for_it() {
    let timeout = Duration::from_secs(2);
    let all = within(
        timeout,
        |_| {},
        2,
        |team| {
            let (begun, mut bytes) = (Instant::now(), [team.rank() as u8; 1 << 16]);
            // A slow disk has what comes before it.
            while team.is_first() && begun.elapsed() < timeout * 3 / 2 {
                sleep(Duration::from_millis(5));
                team.give_sign();
            }
            let handed = team.attend_to_first("m").and_then(|()| team.hand_to_first("m", 1, &mut bytes));
            let finished = team.clone().finish();
            (handed.map(|()| bytes[0]).map_err(|e| e.to_string()), finished.map_err(|e| e.to_string()))
        },
    );
    assert_eq!(all, [(Ok(1), Ok(())), (Ok(1), Ok(()))]);
}

#[test]
fn a_first_rank_that_gives_no_sign_is_named_with_the_option_that_lets_it_take_longer() {
    let timeout = Duration::from_millis(300);
    let ended = AtomicUsize::new(0);
    let words = within(
        timeout,
        |_| {},
        2,
        |team| {
            let silent = || {
                // Until the other has given it up, however busy the machine is.
                while ended.load(Ordering::Relaxed) == 0 {
                    sleep(Duration::from_millis(5));
                }
                Ok(())
            };
            let result = team.of_first_alone("reading the data", silent);
            ended.fetch_add(1, Ordering::Relaxed);
            result.map_err(|error| error.to_string())
        },
    );
    for said in words {
        let said = said.expect_err("nobody may wait for ever");
        let wanted = ["rank 1 waits for rank 0 in reading the data", "raise --comm.init_timeout_seconds"];
        assert!(wanted.iter().all(|words| said.contains(words)), "{said}");
    }
}

#[test]
fn an_error_in_work_of_the_first_rank_is_that_of_all() {
    let words = of_all(3, |team| {
        let result =
            team.of_first_alone("the work", || Err::<(), _>(TrainError::Start("a wrong word".into())));
        team.clone().finish().unwrap_or_else(|e| panic!("{e}"));
        result.map_err(|error| error.to_string())
    });
    assert_eq!(words[0], Err("a wrong word".to_owned()));
    assert!(words[1..].iter().all(|said| *said == Err("rank 0: a wrong word".to_owned())), "{words:?}");
}
