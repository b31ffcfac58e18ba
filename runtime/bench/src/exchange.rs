//! Exchanges between ranks, over sizes and numbers of ranks: times, bytes on the wire, and the speed beside that of a copy in
//! memory. The bits of each result are checked, and the bytes that were sent are those of the formula.

mod case;

use case::{Case, Measured};
use linc_device::available_memory;
use linc_device::comm::Ranks;
use linc_device::process::machine;
use linc_device::words::{bytes, count};
use serde::Serialize;

use super::{Tell, Times, Timing, Told};
use crate::BenchError;

/// Bytes of a number.
const ELEMENT: usize = size_of::<f32>();

/// What ranks do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Part i of rank j becomes part j of rank i.
    AllToAll,
    /// The parts of all ranks, on all.
    AllGather,
    /// Each rank has the sum of one part.
    ReduceScatter,
    /// All ranks have the sum.
    AllReduce,
    /// What one rank has, on all.
    Broadcast,
    /// Each sends to the next in a ring.
    SendReceive,
}

impl Pattern {
    /// All, in the order of rows.
    pub const ALL: [Pattern; 6] = [
        Pattern::AllToAll,
        Pattern::AllGather,
        Pattern::ReduceScatter,
        Pattern::AllReduce,
        Pattern::Broadcast,
        Pattern::SendReceive,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::AllToAll => "all-to-all",
            Pattern::AllGather => "all-gather",
            Pattern::ReduceScatter => "reduce-scatter",
            Pattern::AllReduce => "all-reduce",
            Pattern::Broadcast => "broadcast",
            Pattern::SendReceive => "send-receive",
        }
    }

    /// Bytes that the rank that sends most sends, of operands of `part` bytes times the ranks.
    pub fn wire_bytes(self, ranks: usize, part: usize) -> usize {
        let others = ranks.saturating_sub(1) * part;
        match self {
            Pattern::AllToAll | Pattern::AllGather | Pattern::ReduceScatter => others,
            Pattern::AllReduce | Pattern::Broadcast => 2 * others,
            Pattern::SendReceive if ranks == 1 => 0,
            Pattern::SendReceive => ranks * part,
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct ExchangeBench {
    /// Which exchanges.
    pub patterns: Vec<Pattern>,
    /// Bytes of the whole operand of a rank, cut to a number for each rank.
    pub sizes: Vec<u64>,
    /// Over how many of the ranks, the first ones; powers of two and all, if empty.
    pub ranks: Vec<usize>,
    /// How many runs warm up, and how many are timed.
    pub timing: Timing,
}

/// One exchange of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExchangeRow {
    /// What was measured.
    pub exchange: Pattern,
    /// Over how many ranks.
    pub ranks: usize,
    /// The whole operand of a rank.
    pub bytes: usize,
    /// What a rank sends to others; of a broadcast, the root.
    pub wire_bytes: usize,
    /// Of the slowest rank in each run.
    pub ms: Times,
    /// Sent bytes per second in 10^9; nothing for one rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbytes: Option<f64>,
    /// Of the bytes per second that as many ranks copy in memory at once, each as many as the operand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

/// A copy of so many bytes in memory, by all ranks at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RanksCopy {
    /// How many ranks.
    pub ranks: usize,
    /// Of a rank.
    pub bytes: usize,
    /// Of the slowest rank in each run.
    pub ms: Times,
    /// Bytes per second of a rank in 10^9.
    pub gbytes: f64,
}

/// All rows; the same on all ranks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExchangeReport {
    /// Library and ranks.
    pub backend: String,
    /// The yardsticks.
    pub copies: Vec<RanksCopy>,
    /// One per number of ranks, size and exchange.
    pub rows: Vec<ExchangeRow>,
}

/// Numbers of ranks to measure where none are named: powers of two, and all.
fn steps(world: usize) -> Vec<usize> {
    let mut steps: Vec<usize> =
        std::iter::successors(Some(2), |step| Some(step * 2)).take_while(|step| *step < world).collect();
    steps.push(world);
    steps
}

/// Measures exchanges; all ranks call it with the same.
///
/// # Errors
/// [`BenchError::Request`] on all ranks alike for what cannot be measured; [`BenchError::Ranks`] where an exchange fails, which
/// ends all ranks, as a wrong bit does.
pub fn exchange(
    bench: &ExchangeBench,
    ranks: &mut Ranks,
    tell: &mut Tell<'_>,
) -> Result<ExchangeReport, BenchError> {
    let world = ranks.size();
    let over = if bench.ranks.is_empty() { steps(world) } else { bench.ranks.clone() };
    for used in &over {
        if *used == 0 || *used > world {
            return Err(BenchError::Request(format!(
                "--ranks is {used}; expected 1 to {world}, the ranks that were started\n  help: linc launch -n {used} bench exchange starts more"
            )));
        }
        let least = (ELEMENT * used) as u64;
        if let Some(size) = bench.sizes.iter().find(|size| **size < least) {
            return Err(BenchError::Request(format!(
                "--size has {}; expected at least {}, a number for each of {}",
                bytes(*size),
                bytes(least),
                count(*used, "rank")
            )));
        }
    }
    check_memory(bench, ranks)?;
    let mut report = ExchangeReport { backend: ranks.describe(), copies: vec![], rows: vec![] };
    for used in over {
        let group = match used == world {
            true => ranks.world(),
            false => ranks.divide(&[(0..used).collect(), (used..world).collect()])?,
        };
        // The others meet these between rounds, so that they take no time from one.
        let takes_part = ranks.rank() < used;
        for size in &bench.sizes {
            let part = *size as usize / ELEMENT / used;
            let mut case = Case::new(bench.timing, group.clone(), takes_part, part);
            tell(Told::Case(&format!(
                "{} over {}",
                bytes((part * used * ELEMENT) as u64),
                count(used, "rank")
            )));
            let Measured { ms, .. } = case.run(ranks, tell, None)?;
            let whole = part * used * ELEMENT;
            let copy = RanksCopy { ranks: used, bytes: whole, gbytes: ms.giga(whole as u64), ms };
            for pattern in &bench.patterns {
                let Measured { ms, sent, wrong } = case.run(ranks, tell, Some(*pattern))?;
                let wire_bytes = pattern.wire_bytes(used, part * ELEMENT);
                let wrong = wrong.map(|at| format!("number {at} of rank {} is wrong", ranks.rank()));
                let other = (sent != wire_bytes as u64)
                    .then(|| format!("ranks sent {sent} bytes at most, expected {wire_bytes}"));
                if let Some(error) = wrong.or(other) {
                    let message = format!("{} of {whole} bytes over {used} ranks: {error}", pattern.name());
                    ranks.abort(linc_device::comm::LOST, &message);
                    return Err(BenchError::Request(message));
                }
                let gbytes = (wire_bytes > 0).then(|| ms.giga(wire_bytes as u64));
                let share = gbytes.map(|gbytes| gbytes / copy.gbytes);
                report.rows.push(ExchangeRow {
                    exchange: *pattern,
                    ranks: used,
                    bytes: whole,
                    wire_bytes,
                    ms,
                    gbytes,
                    share,
                });
            }
            report.copies.push(copy);
        }
    }
    Ok(report)
}

/// Refuses operands that the memory of a machine has no room for, beside those of its other ranks.
fn check_memory(bench: &ExchangeBench, ranks: &mut Ranks) -> Result<(), BenchError> {
    // What is sent, what is got, what sums are taken of, and a copy whose length the ranks divide.
    const OPERANDS: u64 = 4;
    let world = ranks.world();
    let machine = machine().into_bytes();
    let here =
        ranks.gather("the machines", &world, &machine)?.iter().filter(|other| **other == machine).count();
    let largest = bench.sizes.iter().copied().max().unwrap_or(0);
    let needed = largest.saturating_mul(OPERANDS).saturating_mul(here as u64);
    let available = available_memory::of_machine();
    let lacks = available.as_ref().is_some_and(|available| needed > available.bytes);
    let mine = if lacks { available_memory::shortage(needed, available.as_ref()) } else { String::new() };
    let all = ranks.gather("the memory", &world, mine.as_bytes())?;
    match all.iter().position(|lack| !lack.is_empty()) {
        None => Ok(()),
        Some(rank) => Err(BenchError::Request(format!(
            "the machine of rank {rank}: {}\n  help: give smaller operands with --size",
            String::from_utf8_lossy(&all[rank])
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use linc_device::comm::Local;

    use super::*;

    fn on_threads(size: usize, bench: &ExchangeBench) -> Vec<Result<ExchangeReport, BenchError>> {
        told_on_threads(size, bench, Duration::from_secs(60), &|_| {})
    }

    fn told_on_threads(
        size: usize,
        bench: &ExchangeBench,
        timeout: Duration,
        told: &(dyn Fn(Told<'_>) + Sync),
    ) -> Vec<Result<ExchangeReport, BenchError>> {
        std::thread::scope(|scope| {
            let start = |comm: Local| {
                scope.spawn(move || {
                    let mut ranks = Ranks::new(Box::new(comm), timeout, |_| {});
                    let report = exchange(bench, &mut ranks, &mut |what| told(what));
                    ranks.finish().expect("all end");
                    report
                })
            };
            let threads: Vec<_> = Local::world(size).into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }

    #[test]
    fn rows_for_all_ranks_sizes_and_exchanges() {
        let timing = Timing { warmup: 1, rounds: 2 };
        let bench = ExchangeBench {
            patterns: Pattern::ALL.to_vec(),
            sizes: vec![100, 10_000],
            ranks: vec![],
            timing,
        };
        for (size, steps) in [(1, vec![1]), (3, vec![2, 3]), (4, vec![2, 4])] {
            let reports: Vec<ExchangeReport> =
                on_threads(size, &bench).into_iter().map(|report| report.expect("a report")).collect();
            assert!(reports.windows(2).all(|pair| pair[0] == pair[1]), "ranks have other reports");
            let rows = &reports[0].rows;
            let ranks: Vec<usize> = steps.iter().flat_map(|ranks| [*ranks; 12]).collect();
            assert_eq!(rows.iter().map(|row| row.ranks).collect::<Vec<_>>(), ranks);
            for row in rows {
                // A number for each rank, as close to the size as that allows.
                let unit = ELEMENT * row.ranks;
                assert!([100, 10_000].iter().any(|size| size / unit * unit == row.bytes), "{row:?}");
                assert_eq!(row.ms.runs, 2);
                assert_eq!(row.share.is_some(), row.ranks > 1);
            }
            let of = |pattern| rows.iter().rev().find(|row| row.exchange == pattern).expect("a row");
            let sum = of(Pattern::AllReduce);
            assert_eq!(sum.wire_bytes * size, 2 * (size - 1) * sum.bytes);
            assert_eq!(of(Pattern::AllGather).wire_bytes * 2, sum.wire_bytes);
        }
    }

    #[test]
    fn ranks_that_take_no_part_wait_for_all_rounds_of_the_others() {
        let bench = ExchangeBench {
            patterns: vec![Pattern::AllReduce],
            sizes: vec![4096],
            ranks: vec![2],
            timing: Timing { warmup: 2, rounds: 28 },
        };
        // Each round is far from the deadline of an exchange, and all together are beyond it.
        let (timeout, round) = (Duration::from_secs(2), Duration::from_millis(90));
        let (begun, runs) = (Instant::now(), std::sync::atomic::AtomicUsize::new(0));
        let reports = told_on_threads(4, &bench, timeout, &|what| {
            // The copy alone, of both ranks, or the test would take twice as long.
            let is_copy = || runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 * 30;
            if matches!(what, Told::Runs { .. }) && is_copy() {
                std::thread::sleep(round);
            }
        });
        assert!(begun.elapsed() > timeout, "this shows nothing");
        for report in reports {
            let report = report.expect("a report");
            assert_eq!((report.rows.len(), report.rows[0].ranks, report.rows[0].ms.runs), (1, 2, 28));
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused_by_all_alike() {
        let timing = Timing { warmup: 0, rounds: 1 };
        let bench = |sizes: &[u64], ranks: &[usize]| ExchangeBench {
            patterns: vec![Pattern::AllReduce],
            sizes: sizes.to_vec(),
            ranks: ranks.to_vec(),
            timing,
        };
        for (bench, words) in [
            (bench(&[4096], &[3]), ["--ranks is 3", "1 to 2"]),
            (bench(&[4096], &[0]), ["--ranks is 0", "1 to 2"]),
            (bench(&[4096, 7], &[]), ["--size has 7 B", "at least 8 B"]),
        ] {
            for result in on_threads(2, &bench) {
                let error = result.expect_err("refused").to_string();
                assert!(words.iter().all(|word| error.contains(word)), "{error}");
            }
        }
    }
}
