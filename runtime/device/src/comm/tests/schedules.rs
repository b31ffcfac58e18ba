//! Faults of a random rank at a random place of a random sequence of exchanges: all ranks end in time, and all know who it was.

use proptest::prelude::*;

use super::*;

/// What ranks do together, by its number.
const EXCHANGES: usize = 5;

/// A run of exchanges, and what one rank does wrong in it.
#[derive(Clone, Debug)]
struct Schedule {
    size: usize,
    exchanges: Vec<usize>,
    fault: Fault,
    culprit: usize,
    at: usize,
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let faults = prop::sample::select(vec![
        Fault::Late,
        Fault::Hangs,
        Fault::Panics,
        Fault::Returns,
        Fault::Refuses,
        Fault::OtherLength,
    ]);
    let exchanges = prop::collection::vec(0..EXCHANGES, 1..7);
    (2usize..6, exchanges, faults, any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(
        |(size, exchanges, fault, culprit, at)| {
            let (culprit, at) = (culprit.index(size), at.index(exchanges.len()));
            Schedule { size, exchanges, fault, culprit, at }
        },
    )
}

/// Whether the rank goes on.
fn misbehave(ranks: &mut Ranks, fault: Fault, hang: Duration) -> bool {
    match fault {
        Fault::Late => std::thread::sleep(Duration::from_millis(10)),
        Fault::Hangs => std::thread::sleep(hang),
        Fault::Panics => std::panic::resume_unwind(Box::new("a test's")),
        Fault::Returns => return false,
        Fault::Refuses => {
            ranks.abort(2, "the disk is full");
            return false;
        }
        Fault::OtherLength => {}
    }
    true
}

fn run(mut ranks: Ranks, schedule: &Schedule, hang: Duration) -> Result<(), CommError> {
    let (world, me, size) = (ranks.world(), ranks.rank(), ranks.size());
    for (number, exchange) in schedule.exchanges.iter().enumerate() {
        let name = format!("step {number}");
        let mut part = 8;
        if (me, number) == (schedule.culprit, schedule.at) {
            if !misbehave(&mut ranks, schedule.fault, hang) {
                return Ok(());
            }
            part += usize::from(schedule.fault == Fault::OtherLength);
        }
        let mine = numbers(me, part * size);
        match exchange {
            0 => ranks.all_reduce(&name, &world, &mut mine.clone())?,
            1 => ranks.reduce_scatter(&name, &world, &mine, &mut vec![0.0; part])?,
            2 => {
                let all = ranks.gather(&name, &world, &bytes(&mine[..part]))?;
                assert_eq!(all[me], bytes(&mine[..part]));
            }
            3 => ranks.barrier(&name, &world)?,
            _ => ranks.all_to_all(&name, &world, &bytes(&mine), &mut vec![0; 4 * part * size])?,
        }
    }
    ranks.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_end_and_know_who(schedule in schedules()) {
        // A deadline of seconds: on a machine at its limit a rank that is well may take as long as a tenth of one.
        let hang = Duration::from_secs(3);
        let timeout = if schedule.fault == Fault::Hangs { hang / 2 } else { SOON };
        let begun = Instant::now();
        let results = world(schedule.size, timeout, |ranks| run(ranks, &schedule, hang));
        prop_assert!(begun.elapsed() < SOON);
        // Bytes of any number are gathered, and a barrier has none: there another length is no fault.
        let is_fault = match schedule.fault {
            Fault::Late => false,
            Fault::OtherLength => !matches!(schedule.exchanges[schedule.at], 2 | 3),
            _ => true,
        };
        let culprit = format!("rank {}", schedule.culprit);
        for (rank, result) in results.iter().enumerate().filter(|(rank, _)| *rank != schedule.culprit) {
            let Some(result) = result else { panic!("rank {rank} panics: {schedule:?}") };
            if !is_fault {
                prop_assert!(result.is_ok(), "rank {}: {:?}", rank, result);
                continue;
            }
            let Err(error) = result else { panic!("rank {rank} sees nothing: {schedule:?}") };
            let error = error.to_string();
            // Of two lengths, nobody knows which is right.
            let is_named = error.contains(&culprit) || schedule.fault == Fault::OtherLength;
            prop_assert!(is_named && error.contains("rank"), "rank {}: {}", rank, error);
        }
    }
}
