//! The rounds of one exchange over operands of one size.

use std::time::Instant;

use linc_device::comm::pattern::{Expected, difference, fill};
use linc_device::comm::{CommError, Group, Ranks};

use super::{Pattern, Tell, Times, Timing};
use crate::BenchError;

/// What comes of the rounds of a case, on all ranks alike but for `wrong`.
pub(super) struct Measured {
    /// Of the slowest rank.
    pub(super) ms: Times,
    /// Bytes of the rank that sent most, in one run.
    pub(super) sent: u64,
    /// The first number of this rank that has other bits than it should.
    pub(super) wrong: Option<usize>,
}

/// Operands of one size.
pub(super) struct Case {
    timing: Timing,
    group: Group,
    takes_part: bool,
    /// Numbers of a part.
    part: usize,
    /// What this rank has: the numbers of its pattern.
    source: Vec<f32>,
    /// What it gets, or changes.
    other: Vec<f32>,
}

impl Case {
    pub(super) fn new(timing: Timing, group: Group, takes_part: bool, part: usize) -> Case {
        let whole = if takes_part { part * group.size() } else { 0 };
        let mut source = vec![0.0; whole];
        fill(&mut source, group.place());
        let other = source.clone();
        Case { timing, group, takes_part, part, source, other }
    }

    /// Measures an exchange, or without one a copy in memory.
    pub(super) fn run(
        &mut self,
        ranks: &mut Ranks,
        tell: &mut Tell<'_>,
        pattern: Option<Pattern>,
    ) -> Result<Measured, BenchError> {
        let Timing { warmup, rounds } = self.timing;
        let (mut seconds, mut sent) = (vec![], 0);
        for round in 0..warmup + rounds {
            self.meet(ranks)?;
            if !self.takes_part {
                continue;
            }
            // What a sum has changed.
            self.other.copy_from_slice(&self.source);
            ranks.barrier("a round of the benchmark", &self.group)?;
            let before = ranks.bytes_sent();
            let begun = Instant::now();
            match pattern {
                Some(pattern) => self.exchange(pattern, ranks)?,
                None => self.other.copy_from_slice(&self.source),
            }
            if round >= warmup {
                seconds.push(begun.elapsed().as_secs_f64());
            }
            sent = ranks.bytes_sent() - before;
            self.timing.tell(round + 1, tell);
        }
        let wrong = pattern.filter(|_| self.takes_part).and_then(|pattern| self.wrong(pattern));
        self.meet(ranks)?;
        // All ranks are told all, so that the report is the same.
        let mine: Vec<u8> =
            [sent as f64].iter().chain(&seconds).flat_map(|number| number.to_le_bytes()).collect();
        let world = ranks.world();
        let all: Vec<Vec<f64>> =
            ranks.gather("the times", &world, &mine)?.iter().map(|b| numbers(b)).collect();
        let largest =
            |at: usize| all.iter().filter_map(|numbers| numbers.get(at)).fold(0.0, |a: f64, b| a.max(*b));
        let slowest = (1..=rounds).map(largest).collect();
        Ok(Measured { ms: Times::of(slowest), sent: largest(0) as u64, wrong })
    }

    /// Where ranks take no part, all ranks meet: however many rounds there are, nobody waits longer than for one of them.
    fn meet(&self, ranks: &mut Ranks) -> Result<(), CommError> {
        /// The barrier of a round and two exchanges, of sums and broadcasts; what lies between them may take as long again.
        const EXCHANGES: u32 = 6;
        let world = ranks.world();
        if !self.takes_part {
            return ranks.idle_barrier("the end of a round of the others", &world, EXCHANGES);
        }
        if self.group.size() == world.size() { Ok(()) } else { ranks.barrier("the start of a round", &world) }
    }

    fn exchange(&mut self, pattern: Pattern, ranks: &mut Ranks) -> Result<(), CommError> {
        let Case { group, part, source, other, .. } = self;
        let (name, me, size) = (pattern.name(), group.place(), group.size());
        let mine = me * *part..(me + 1) * *part;
        match pattern {
            Pattern::AllToAll => {
                ranks.all_to_all(name, group, bytemuck::cast_slice(source), bytemuck::cast_slice_mut(other))
            }
            Pattern::AllGather => {
                let part = bytemuck::cast_slice(&source[mine]);
                ranks.all_gather(name, group, part, bytemuck::cast_slice_mut(other))
            }
            Pattern::ReduceScatter => ranks.reduce_scatter(name, group, source, &mut other[mine]),
            Pattern::AllReduce => ranks.all_reduce(name, group, other),
            Pattern::Broadcast => ranks.broadcast(name, group, 0, bytemuck::cast_slice_mut(other)),
            Pattern::SendReceive => {
                let to = ((me + 1) % size, bytemuck::cast_slice(&source[..]));
                let from = ((me + size - 1) % size, bytemuck::cast_slice_mut(other));
                ranks.send_receive(name, group, to, from)
            }
        }
    }

    /// The first place of the last result that has other bits than it should.
    fn wrong(&self, pattern: Pattern) -> Option<usize> {
        let (me, size, part) = (self.group.place(), self.group.size(), self.part);
        let mine = me * part..(me + 1) * part;
        let of = |rank, found, first| difference(found, Expected::Of { rank }, first);
        let sum = |found, first| difference(found, Expected::SumOf { ranks: size }, first);
        let parts = self.other.chunks(part).enumerate();
        match pattern {
            // Groups begin with rank 0, so that places in the group are ranks.
            Pattern::AllToAll => {
                let mut parts = parts;
                parts.find_map(|(rank, found)| Some(rank * part + of(rank, found, me * part)?))
            }
            Pattern::AllGather => {
                let mut parts = parts;
                parts.find_map(|(rank, found)| Some(rank * part + of(rank, found, rank * part)?))
            }
            Pattern::ReduceScatter => sum(&self.other[mine], me * part),
            Pattern::AllReduce => sum(&self.other, 0),
            Pattern::Broadcast => of(0, &self.other, 0),
            Pattern::SendReceive => of((me + size - 1) % size, &self.other, 0),
        }
    }
}

fn numbers(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).filter_map(|number| Some(f64::from_le_bytes(number.try_into().ok()?))).collect()
}
