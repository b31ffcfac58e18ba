//! Which source gives the next sample: the one that is farthest behind its share of all samples so far. So shares are
//! kept as closely as whole samples allow at any time, and no chance has to be kept for a resumed run.

use super::TextSource;
use super::documents::Apart;
use super::sampler::{Sampler, Spot};
use crate::error::DataError;
use crate::part::Turn;
use crate::tokens::Tokens;
use crate::{Batch, DataState, Part, SourceState};

/// One source or several.
#[derive(Debug)]
pub(super) struct Mix {
    sources: Vec<Source>,
    /// Where documents are kept apart.
    apart: Option<Apart>,
    turn: Turn,
}

#[derive(Debug)]
struct Source {
    name: String,
    weight: f64,
    /// Of all samples; the shares add up to 1.
    share: f64,
    sampler: Sampler,
}

impl Mix {
    pub(super) fn new(
        sources: Vec<TextSource>,
        apart: Option<Apart>,
        sampler: impl Fn(Tokens) -> Sampler,
    ) -> Self {
        // Of weights that are large each, the sum may be no number any more.
        let largest = sources.iter().map(|source| source.weight).fold(0.0, f64::max);
        let all: f64 = sources.iter().map(|source| source.weight / largest).sum();
        let source = |TextSource { name, tokens, weight }| {
            let sampler = sampler(tokens);
            Source { name, weight, share: weight / largest / all, sampler }
        };
        Self { sources: sources.into_iter().map(source).collect(), apart, turn: Turn::new(Part::WHOLE) }
    }

    /// Where each source is.
    pub(super) fn spots(&self) -> Vec<Spot> {
        self.sources.iter().map(|source| source.sampler.spot()).collect()
    }

    /// From now on the batches of one rank among several.
    pub(super) fn share(&mut self, part: Part) {
        self.turn = Turn::new(part);
    }

    /// Goes to the places of sources between two steps.
    pub(super) fn go_to(&mut self, spots: &[Spot]) {
        self.turn.begin();
        self.sources.iter_mut().zip(spots).for_each(|(source, spot)| source.sampler.go_to(*spot));
    }

    /// Number of the source of the next sample.
    fn next_source(&self) -> usize {
        let taken: u64 = self.sources.iter().map(|source| source.sampler.spot().taken).sum();
        let lack = |source: &Source| source.share * (taken + 1) as f64 - source.sampler.spot().taken as f64;
        let lacks = self.sources.iter().map(lack).enumerate();
        // Of several that are equally far behind, the first.
        lacks.fold((0, f64::NEG_INFINITY), |most, next| if next.1 > most.1 { next } else { most }).0
    }

    /// Goes over samples without reading them.
    fn pass(&mut self, samples: usize) {
        for _ in 0..samples {
            let source = self.next_source();
            self.sources[source].sampler.pass();
        }
    }

    /// # Errors
    /// A shard cannot be read; sources are then somewhere.
    pub(super) fn next_batch(&mut self, batch_size: usize, seq_len: usize) -> Result<Batch, DataError> {
        self.pass(self.turn.before() * batch_size);
        let mut batch = Batch::ignored(batch_size, seq_len);
        let mut sample = vec![0; seq_len + 1];
        let mut starts = Vec::new();
        batch.positions = self.apart.map(|_| vec![0; batch_size * seq_len]);
        for row in 0..batch_size {
            let source = self.next_source();
            self.sources[source]
                .sampler
                .next_sample(&mut sample, self.apart.is_some().then_some(&mut starts))?;
            let range = row * seq_len..(row + 1) * seq_len;
            batch.tokens[range.clone()].copy_from_slice(&sample[..seq_len]);
            batch.targets[range.clone()].copy_from_slice(&sample[1..]);
            if let (Some(apart), Some(positions)) = (self.apart, &mut batch.positions) {
                apart.mark(&starts, &mut positions[range.clone()], &mut batch.targets[range]);
            }
        }
        let after = self.turn.after() * batch_size;
        self.pass(after);
        Ok(batch)
    }

    /// A state with what it is of, at the start.
    pub(super) fn state(&self, state: DataState) -> DataState {
        let states = self.sources.iter().map(|source| SourceState {
            name: source.name.clone(),
            weight: source.weight,
            size: source.sampler.tokens().len(),
            checksum: source.sampler.tokens().checksum(),
            epoch: 0,
            index: 0,
            taken: 0,
        });
        let states: Vec<SourceState> = states.collect();
        match &states[..] {
            [only] => DataState { checksum: only.checksum, ..state },
            _ => {
                let mut checksum = crc32fast::Hasher::new();
                states.iter().for_each(|source| checksum.update(&source.checksum.to_le_bytes()));
                DataState { checksum: checksum.finalize(), sources: states, ..state }
            }
        }
    }

    /// The places of a state that is one of these sources.
    ///
    /// # Errors
    /// A place that its source does not have.
    pub(super) fn spots_of(&self, state: &DataState) -> Result<Vec<Spot>, DataError> {
        let spots: Vec<Spot> = match &state.sources[..] {
            // How many samples were taken is of no use to a single source.
            [] => vec![Spot { epoch: state.epoch, index: state.index, taken: 0 }],
            sources => {
                let spot = |s: &SourceState| Spot { epoch: s.epoch, index: s.index, taken: s.taken };
                sources.iter().map(spot).collect()
            }
        };
        for (source, spot) in self.sources.iter().zip(&spots) {
            source.sampler.check(*spot)?;
        }
        Ok(spots)
    }
}

/// A state of [`Mix::state`], at other places.
pub(super) fn state_at(mut state: DataState, spots: &[Spot]) -> DataState {
    match (&mut state.sources[..], spots) {
        ([], [only]) => (state.epoch, state.index) = (only.epoch, only.index),
        (sources, spots) => sources.iter_mut().zip(spots).for_each(|(source, spot)| {
            (source.epoch, source.index, source.taken) = (spot.epoch, spot.index, spot.taken);
        }),
    }
    state
}
