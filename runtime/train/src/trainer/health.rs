//! The health of linear layers, while a model trains: over how many positions and features a query of a linear layer spreads what
//! it takes, and how many chunks of its keys stay in the range of the fast path. A layer whose queries take of everything alike
//! has learned nothing to look for, and one whose keys leave the range computes a chunk token by token.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use linc_data::Batch;
use linc_device::Device;
use linc_driver::{
    AttentionFamily, Entry, HeadWeights, LookedAt, Model, Options, Precision, effective_count, looked_at,
    names,
};
use linc_session::look::{Seen, SeenHead, feed_factors};

use super::Trainer;
use super::programs::sister;
use crate::config::JobConfig;
use crate::error::TrainError;

/// Queries whose weights are computed, of each head: each takes a pass over the keys.
const QUERIES: usize = 16;

/// What a head of a linear layer does with a sequence.
struct HeadHealth {
    /// Means over the queries that were looked at, and over all.
    positions: f64,
    features: Option<f64>,
    /// Chunks of keys within the range, and all of them.
    fast: Option<[usize; 2]>,
}

/// The program that shows what attention reads, and what there is to see in it.
pub(super) struct Health {
    /// Its number.
    pub(super) program: usize,
    attentions: Vec<LookedAt>,
    /// How many heads are looked at at once.
    threads: usize,
    /// The sequence that it will be shown, of one document where documents are kept apart.
    tokens: Vec<i32>,
}

/// What looks at linear layers, and its program.
type Begun = (Health, (Entry, Options));

/// What looks into a sequence of the run's length, and its program, whose number is not known yet; if the config asks for it.
///
/// # Errors
/// It is asked for between records, which would have no place for it, or of a model without linear layers, or that does not compile.
pub(super) fn begin(
    config: &JobConfig,
    model: &Model,
    device: &dyn Device,
) -> Result<Option<Begun>, TrainError> {
    let (freq, log_freq) = (config.metrics.linear_health_freq, config.metrics.log_freq);
    if freq == 0 {
        return Ok(None);
    }
    let setting = ["metrics.linear_health_freq"];
    if !freq.is_multiple_of(log_freq) {
        let message = format!(
            "it is {freq}, but there is a record every {log_freq} steps, which the health of linear layers is a part of"
        );
        let help = format!("a multiple of metrics.log_freq, such as {}", freq.next_multiple_of(log_freq));
        return Err(config.problem(&setting, message, Some(help)).into());
    }
    if model.kinds.iter().all(|kind| kind.family() != AttentionFamily::Linear) {
        let message = "the model has no linear layers, whose health it asks for".to_owned();
        return Err(config
            .problem(&setting, message, Some("leave it out, or raise model.linear_attn_ratio".to_owned()))
            .into());
    }
    let (context, target) = (config.training.seq_len, linc_session::target(device));
    // Queries and keys are read in f32.
    let options = Options { precision: Precision::Float32, target, ..sister(config, 1, context) };
    let attentions = looked_at(model, target)?;
    let health = Health { program: usize::MAX, attentions, threads: device.threads(), tokens: vec![] };
    Ok(Some((health, (Entry::Look { context }, options))))
}

impl Trainer {
    /// Whether linear layers are looked at behind the step that comes.
    fn looks_at_health(&self, step: usize) -> bool {
        self.health.is_some()
            && self.team.is_first()
            && step.is_multiple_of(self.config.metrics.linear_health_freq)
    }

    /// Keeps the first sequence of a step that linear layers are looked at behind; where no token sees another document's, the
    /// longest document in it.
    pub(super) fn keep_for_health(&mut self, batch: &Batch) {
        let looks = self.looks_at_health(self.step + 1);
        if let Some(health) = self.health.as_mut().filter(|_| looks) {
            let sequence = 0..self.config.training.seq_len.min(batch.tokens.len());
            let part = match &batch.positions {
                Some(positions) => longest_document(&positions[sequence]),
                None => sequence,
            };
            health.tokens = batch.tokens[part].to_vec();
        }
    }

    /// The health of each linear layer as the step that was done last has left it, such as `layers.3/effective_positions`: means over
    /// its heads. Nothing where none is due, on other ranks than the first, which wait for it meanwhile, or where `stop` is set
    /// before it is through.
    pub(super) fn health(&mut self, stop: &AtomicBool) -> Result<BTreeMap<String, f64>, TrainError> {
        let found = self.health_of_first(stop)?;
        if self.health.is_some() && self.step.is_multiple_of(self.config.metrics.linear_health_freq) {
            self.team.wait("the health of linear layers")?;
        }
        Ok(found)
    }

    fn health_of_first(&mut self, stop: &AtomicBool) -> Result<BTreeMap<String, f64>, TrainError> {
        let mut found = BTreeMap::new();
        let Some(health) = self.health.as_ref().filter(|_| self.looks_at_health(self.step)) else {
            return Ok(found);
        };
        let (program, x) = (health.program, &mut self.session.executor);
        let context = self.config.training.seq_len;
        let mut filled = health.tokens.clone();
        filled.resize(context, 0);
        x.write_input(program, names::TOKENS, bytemuck::cast_slice(&filled))?;
        x.write_input(program, names::TARGETS, bytemuck::cast_slice(&vec![-1i32; context]))?;
        feed_factors(x, program, &health.attentions, &|_, _| 1.0)?;
        if !x.run_until(program, stop)? {
            return Ok(found);
        }
        let precision = self.config.training.mixed_precision_param;
        let tokens = health.tokens.len();
        for (number, attention) in health.attentions.iter().enumerate() {
            if attention.kind.family() != AttentionFamily::Linear {
                continue;
            }
            self.team.give_sign();
            let seen = Seen::read(x, program, number)?.of_first(tokens, attention);
            let ask = |weights: &dyn HeadWeights, _: &SeenHead| look(attention, weights, tokens, precision);
            let Some(heads) = seen.each_head(attention, health.threads, stop, &ask) else {
                return Ok(BTreeMap::new());
            };
            let own: Vec<usize> = (0..health.attentions.len())
                .filter(|other| health.attentions[*other].layer == attention.layer)
                .collect();
            let name = match own[..] {
                [_] => format!("layers.{}", attention.layer),
                _ => format!("layers.{}.{}", attention.layer, number - own[0]),
            };
            let mean = |of: &dyn Fn(&HeadHealth) -> Option<f64>| {
                let all: Option<Vec<f64>> = heads.iter().map(of).collect();
                all.map(|all| all.iter().sum::<f64>() / heads.len().max(1) as f64)
            };
            let share = |[fast, all]: [usize; 2]| fast as f64 / all.max(1) as f64;
            for (what, value) in [
                ("effective_positions", mean(&|head| Some(head.positions))),
                ("effective_features", mean(&|head| head.features)),
                ("fast_path_rate", mean(&|head| head.fast.map(share))),
            ] {
                // JSON has no infinity, and no NaN: the loss tells of those.
                found.extend(
                    value.filter(|value| value.is_finite()).map(|value| (format!("{name}/{what}"), value)),
                );
            }
        }
        Ok(found)
    }
}

/// The part of a sequence with the longest document; `positions` are those of its tokens in their documents.
pub(super) fn longest_document(positions: &[i32]) -> Range<usize> {
    let mut longest = 0..0;
    let mut start = 0;
    for at in 1..=positions.len() {
        // Within a document each position is the one behind the last.
        if at == positions.len() || positions[at] != positions[at - 1] + 1 {
            if at - start > longest.len() {
                longest = start..at;
            }
            start = at;
        }
    }
    longest
}

fn look(attention: &LookedAt, weights: &dyn HeadWeights, tokens: usize, precision: Precision) -> HeadHealth {
    let count = QUERIES.min(tokens).max(1);
    let mut row = vec![0.0; tokens];
    let (mut positions, mut features) = (0.0, Some(0.0));
    for number in 1..=count {
        // Evenly, the last one among them.
        let query = number * tokens / count - 1;
        weights.rows(query..query + 1, &mut row);
        positions += effective_count(&row);
        features = features.zip(weights.features(query)).map(|(sum, shares)| sum + effective_count(shares));
    }
    HeadHealth {
        positions: positions / count as f64,
        features: features.map(|sum| sum / count as f64),
        fast: attention.fast_chunks(weights, precision),
    }
}
