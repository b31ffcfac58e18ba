//! What was seen, as tables and sentences.

use super::{Attention, Head, Looked};
use crate::page::{Table, dash};
use crate::statistics::Mean;

/// A cell of a head's row.
type Cell = fn(&Head) -> String;

/// Name and contents of each column of the file of heads.
pub(super) const COLUMNS: [(&str, Cell); 18] = [
    ("layer", |head| head.layer.to_string()),
    ("attention", |head| head.attention.to_string()),
    ("kind", |head| head.kind.to_owned()),
    ("head", |head| head.head.to_string()),
    ("entropy_nats", |head| head.entropy.to_string()),
    ("mean_distance", |head| head.distance.to_string()),
    ("share_beyond", |head| head.beyond.to_string()),
    ("first_token", |head| head.first.to_string()),
    ("previous_token", |head| head.previous.to_string()),
    ("effective_positions", |head| head.positions.to_string()),
    ("effective_features", |head| written(head.features)),
    ("effective_rank", |head| head.rank.to_string()),
    ("induction", |head| written(head.induction)),
    ("duplicate", |head| written(head.duplicate)),
    ("loss_rise_without", |head| written(head.without.map(|mean| mean.mean))),
    ("loss_rise_half_width", |head| written(head.without.and_then(|mean| mean.half_width))),
    ("output_error", |head| head.error.to_string()),
    ("sum_error", |head| head.sum_error.to_string()),
];

fn written(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A number in as few digits as tell it from others.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        large if large >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A change of the loss, which may be small.
fn rise(mean: Mean) -> String {
    match mean.half_width {
        Some(half) => format!("{:+.4} ± {half:.4}", mean.mean),
        None => format!("{:+.4}", mean.mean),
    }
}

/// The heads of an attention.
pub(super) fn heads_of(looked: &Looked, index: usize) -> impl Iterator<Item = &Head> {
    looked.heads.iter().filter(move |head| head.attention == index)
}

/// `3`, or `3.1` where layers have several attentions.
pub(super) fn name(looked: &Looked, index: usize) -> String {
    let layer = looked.attentions[index].layer;
    let before = looked.attentions[..index].iter().filter(|other| other.layer == layer).count();
    let all = looked.attentions.iter().filter(|other| other.layer == layer).count();
    if all > 1 { format!("{layer}.{before}") } else { layer.to_string() }
}

fn mean(looked: &Looked, index: usize, of: fn(&Head) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = heads_of(looked, index).map(of).collect();
    Mean::of(&values?).map(|mean| mean.mean)
}

/// The largest of the heads.
fn most(looked: &Looked, index: usize, of: fn(&Head) -> Option<f64>) -> Option<f64> {
    heads_of(looked, index).map(of).collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max)
}

/// A row for each attention, of means over its heads.
pub(super) fn attentions(looked: &Looked) -> Table {
    let beyond = format!("beyond {}", looked.beyond);
    let header = [
        "layer",
        "kind",
        "heads",
        "entropy",
        "distance",
        &beyond,
        "first",
        "positions",
        "features",
        "rank",
        "induction, most",
        "loss without",
    ];
    let row = |(index, attention): (usize, &Attention)| {
        let mean = |of: fn(&Head) -> Option<f64>| mean(looked, index, of).map_or_else(dash, short);
        vec![
            name(looked, index),
            attention.kind.to_owned(),
            attention.heads.to_string(),
            mean(|head| Some(head.entropy)),
            mean(|head| Some(head.distance)),
            mean(|head| Some(head.beyond)),
            mean(|head| Some(head.first)),
            mean(|head| Some(head.positions)),
            mean(|head| head.features),
            mean(|head| Some(head.rank)),
            most(looked, index, |head| head.induction).map_or_else(dash, short),
            attention.without.map_or_else(dash, rise),
        ]
    };
    Table::new("attentions", "Layers", &header, looked.attentions.iter().enumerate().map(row).collect())
}

/// A row for each head.
pub(super) fn heads(looked: &Looked) -> Table {
    let beyond = format!("beyond {}", looked.beyond);
    let header = [
        "layer",
        "kind",
        "head",
        "entropy",
        "distance",
        &beyond,
        "first",
        "previous",
        "positions",
        "features",
        "rank",
        "induction",
        "duplicate",
        "loss without",
    ];
    let row = |head: &Head| {
        let some = |value: Option<f64>| value.map_or_else(dash, short);
        vec![
            name(looked, head.attention),
            head.kind.to_owned(),
            head.head.to_string(),
            short(head.entropy),
            short(head.distance),
            short(head.beyond),
            short(head.first),
            short(head.previous),
            short(head.positions),
            some(head.features),
            short(head.rank),
            some(head.induction),
            some(head.duplicate),
            head.without.map_or_else(dash, rise),
        ]
    };
    Table::new("heads", "Heads", &header, looked.heads.iter().map(row).collect())
}

/// What the numbers show, and no more.
pub(super) fn sentences(looked: &Looked) -> Vec<String> {
    let mut said = vec![format!(
        "{}, layers {}: {} of {} tokens, at a mean loss of {:.4} nats per token.",
        looked.model,
        looked.layers,
        linc_device::words::count(looked.sequences, "sequence"),
        looked.tokens,
        looked.loss
    )];
    for (is_linear, word) in [(false, "softmax"), (true, "linear")] {
        let heads: Vec<&Head> = looked
            .heads
            .iter()
            .filter(|head| looked.attentions[head.attention].is_linear == is_linear)
            .collect();
        if heads.is_empty() {
            continue;
        }
        let mean = |of: fn(&Head) -> f64| heads.iter().map(|head| of(head)).sum::<f64>() / heads.len() as f64;
        said.push(format!(
            "A query of the {word} layers looks at {} keys, {} tokens away, with {:.1} % of its weight beyond {} tokens; the \
             effective rank of its matrix is {} (means over {}).",
            short(mean(|head| head.positions)),
            short(mean(|head| head.distance)),
            100.0 * mean(|head| head.beyond),
            looked.beyond,
            short(mean(|head| head.rank)),
            linc_device::words::count(heads.len(), "head"),
        ));
    }
    let by = |of: fn(&Head) -> Option<f64>| {
        looked.heads.iter().filter_map(|head| Some((head, of(head)?))).max_by(|a, b| a.1.total_cmp(&b.1))
    };
    if let Some((head, score)) = by(|head| head.induction) {
        said.push(format!(
            "The strongest induction head is head {} of layer {} ({}): on {} random tokens that are repeated it gives {:.1} % of \
             its weight to what came behind a token the first time.",
            head.head,
            name(looked, head.attention),
            head.kind,
            looked.period,
            100.0 * score
        ));
    }
    let without = looked.attentions.iter().enumerate().filter_map(|(index, a)| Some((index, a, a.without?)));
    if let Some((index, attention, mean)) = without.clone().max_by(|a, b| a.2.mean.total_cmp(&b.2.mean)) {
        said.push(format!(
            "The loss rises most without the attention of layer {} ({}): by {} nats per token.",
            name(looked, index),
            attention.kind,
            rise(mean).trim_start_matches('+')
        ));
    }
    let idle: Vec<String> = without
        .filter(|(_, _, mean)| mean.half_width.is_some_and(|half| mean.mean.abs() <= half))
        .map(|(index, ..)| name(looked, index))
        .collect();
    if !idle.is_empty() {
        said.push(format!(
            "These sequences show no change of the loss without the attention of layer {}.",
            idle.join(", ")
        ));
    }
    said
}
