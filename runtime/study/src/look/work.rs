//! The work of looking: each sequence through the program, each head through its weights, and losses without some of them.

use std::sync::atomic::AtomicBool;

use linc_driver::{HeadWeights, LookedAt};
use linc_session::look::Seen;

use super::head::{self, Lens, Numbers, Through};
use super::program::Program;
use super::{Attention, Head, Look, Map, Tell, Without, sequences};
use crate::error::StudyError;
use crate::statistics::Mean;

/// Draws of repeated tokens.
const DRAWS: u64 = 4;

/// Pieces of work: a sequence through an attention, or a run of the program.
fn total(program: &Program, sequences: usize, asked: &Look) -> usize {
    let attentions = program.attentions.len();
    let heads: usize = program.attentions.iter().map(|attention| attention.heads).sum();
    let without = match asked.without {
        Without::Nothing => 0,
        Without::Attentions => attentions,
        Without::Heads => attentions + heads,
    };
    sequences * (attentions + 1 + without) + DRAWS as usize * attentions
}

/// Heads, with the maps of the first sequence.
type Found = (Vec<Head>, Vec<Map>, Vec<f64>);

/// The work, and how far it is.
pub(super) struct Looking<'a, 't> {
    asked: &'a Look,
    stop: &'a AtomicBool,
    tell: &'a mut Tell<'t>,
    done: usize,
    total: usize,
}

/// All of an attention, or of a head, is left as it is.
fn as_it_is(_: usize, _: usize) -> f32 {
    1.0
}

impl<'a, 't> Looking<'a, 't> {
    /// Nothing is done yet.
    pub(super) fn new(
        asked: &'a Look,
        program: &Program,
        sequences: usize,
        stop: &'a AtomicBool,
        tell: &'a mut Tell<'t>,
    ) -> Self {
        Looking { asked, stop, tell, done: 0, total: total(program, sequences, asked) }
    }

    fn step(&mut self, what: &str) {
        self.done += 1;
        (self.tell)(what, self.done, self.total);
    }

    /// Heads with their means over the sequences, the maps of the first, and the mean loss of each.
    pub(super) fn heads(
        &mut self,
        program: &mut Program,
        sequences: &[&[u32]],
    ) -> Result<Option<Found>, StudyError> {
        let mut sums: Vec<Vec<Vec<Numbers>>> = vec![vec![]; program.attentions.len()];
        let (mut maps, mut losses) = (vec![], vec![]);
        for (number, ids) in sequences.iter().enumerate() {
            let Some(costs) = program.run(ids, &as_it_is, self.stop)? else { return Ok(None) };
            losses.push(mean_cost(&costs));
            self.step("losses");
            let cells = (number == 0).then_some(self.asked.cells);
            let lens = Lens { tokens: ids.len(), beyond: self.asked.beyond, cells };
            for (index, sums) in sums.iter_mut().enumerate() {
                let seen = program.seen(index)?;
                let attention = &program.attentions[index];
                let found = self
                    .each_head(attention, &seen, &|weights, through| head::numbers(weights, through, lens));
                let Some(found) = found else { return Ok(None) };
                let (numbers, cells): (Vec<_>, Vec<_>) = found.into_iter().unzip();
                sums.push(numbers);
                maps.extend(cells.into_iter().enumerate().filter_map(|(head, cells)| {
                    let cells = cells?;
                    let row = |row: &[f64]| row.iter().map(|weight| *weight as f32).collect();
                    let rows = cells.weights.chunks_exact(cells.side).map(row).collect();
                    Some(Map { attention: index, head, rows })
                }));
                self.step("attention");
            }
        }
        let mut heads = vec![];
        for (index, (attention, sums)) in program.attentions.iter().zip(&sums).enumerate() {
            for head in 0..attention.heads {
                let all: Vec<Numbers> = sums.iter().map(|numbers| numbers[head]).collect();
                heads.push(mean_head(attention, index, head, &all));
            }
        }
        Ok(Some((heads, maps, losses)))
    }

    /// What is asked of each head of an attention, on all threads; nothing if `stop` was set.
    fn each_head<T: Send>(
        &self,
        attention: &LookedAt,
        seen: &Seen,
        ask: &(dyn Fn(&dyn HeadWeights, Through<'_>) -> T + Sync),
    ) -> Option<Vec<T>> {
        seen.each_head(attention, self.asked.threads, self.stop, &|weights, rows| {
            let (values, output) = (&rows.values, &rows.output);
            ask(weights, Through { values, output, head_dim: attention.head_dim })
        })
    }

    /// Fills in what heads do with repeated tokens; false if `stop` was set.
    pub(super) fn repeated(
        &mut self,
        program: &mut Program,
        period: usize,
        heads: &mut [Head],
    ) -> Result<bool, StudyError> {
        let vocab = program.vocab();
        for draw in 0..DRAWS {
            let ids = sequences::repeated(period, vocab, self.asked.seed.wrapping_add(draw));
            if program.run(&ids, &as_it_is, self.stop)?.is_none() {
                return Ok(false);
            }
            for index in 0..program.attentions.len() {
                let seen = program.seen(index)?;
                let seq = program.seq;
                let ask = |weights: &dyn HeadWeights, _: Through<'_>| head::repeated(weights, seq, period);
                let Some(found) = self.each_head(&program.attentions[index], &seen, &ask) else {
                    return Ok(false);
                };
                let of = heads.iter_mut().filter(|head| head.attention == index);
                for (head, [induction, duplicate]) in of.zip(found) {
                    let share = 1.0 / DRAWS as f64;
                    *head.induction.get_or_insert(0.0) += share * induction;
                    *head.duplicate.get_or_insert(0.0) += share * duplicate;
                }
                self.step("repeated tokens");
            }
        }
        Ok(true)
    }

    /// What the losses of the sequences, `whole`, rise by without an attention or a head. What they would rise by with another
    /// kind of attention in a layer belongs beside these. False if `stop` was set.
    pub(super) fn without(
        &mut self,
        program: &mut Program,
        sequences: &[&[u32]],
        whole: &[f64],
        attentions: &mut [Attention],
        heads: &mut [Head],
    ) -> Result<bool, StudyError> {
        let rise = |without: &[f64]| {
            let pairs = without.iter().zip(whole);
            Mean::of(&pairs.map(|(without, whole)| without - whole).collect::<Vec<_>>())
        };
        if self.asked.without != Without::Nothing {
            for (index, attention) in attentions.iter_mut().enumerate() {
                let factor = |of: usize, _: usize| if of == index { 0.0 } else { 1.0 };
                let Some(losses) = self.losses(program, sequences, &factor)? else { return Ok(false) };
                attention.without = rise(&losses);
            }
        }
        if self.asked.without == Without::Heads {
            for head in heads {
                let (index, number) = (head.attention, head.head);
                let factor = |of: usize, one: usize| if (of, one) == (index, number) { 0.0 } else { 1.0 };
                let Some(losses) = self.losses(program, sequences, &factor)? else { return Ok(false) };
                head.without = rise(&losses);
            }
        }
        Ok(true)
    }

    /// The mean loss of each sequence; nothing if `stop` was set.
    fn losses(
        &mut self,
        program: &mut Program,
        sequences: &[&[u32]],
        factor: &dyn Fn(usize, usize) -> f32,
    ) -> Result<Option<Vec<f64>>, StudyError> {
        let mut losses = vec![];
        for ids in sequences {
            let Some(costs) = program.run(ids, factor, self.stop)? else { return Ok(None) };
            losses.push(mean_cost(&costs));
            self.step("losses");
        }
        Ok(Some(losses))
    }
}

fn mean_cost(costs: &[f64]) -> f64 {
    costs.iter().sum::<f64>() / costs.len().max(1) as f64
}

fn mean_head(attention: &LookedAt, index: usize, head: usize, all: &[Numbers]) -> Head {
    let count = all.len().max(1) as f64;
    let mean = |of: fn(&Numbers) -> f64| all.iter().map(of).sum::<f64>() / count;
    let most = |of: fn(&Numbers) -> f64| all.iter().map(of).fold(0.0, f64::max);
    let features: Option<Vec<f64>> = all.iter().map(|numbers| numbers.features).collect();
    Head {
        layer: attention.layer,
        attention: index,
        kind: attention.kind.label(),
        head,
        entropy: mean(|n| n.entropy),
        distance: mean(|n| n.distance),
        beyond: mean(|n| n.beyond),
        first: mean(|n| n.first),
        previous: mean(|n| n.previous),
        positions: mean(|n| n.positions),
        features: features.map(|features| features.iter().sum::<f64>() / count),
        rank: mean(|n| n.rank),
        induction: None,
        duplicate: None,
        without: None,
        error: most(|n| n.error),
        sum_error: most(|n| n.sum_error),
    }
}
