//! The figures of what was seen: heads by layer, softmax beside linear.

use super::tables::{heads_of, name};
use super::{Head, Looked};
use crate::page::{Axis, Chart, Drawing, Mark, Place, Scale, Series};

/// A number of a head.
type Of = fn(&Head) -> Option<f64>;

pub(super) fn figures(looked: &Looked) -> Vec<Chart> {
    let chart =
        |id, title: &str, sentence: String, y: &str, of: Of| by_layer(looked, id, title, sentence, y, of);
    let spread = "means over the heads of a layer, from the least to the most of a head";
    let beyond = looked.beyond;
    let charts = [
        chart(
            "entropy",
            "Entropy of the weights",
            format!("How many keys a query spreads its weight over, as nats: {spread}."),
            "entropy, nats",
            |head| Some(head.entropy),
        ),
        chart(
            "distance",
            "Distance of what is looked at",
            format!("{}: {spread}.", "How far back a query looks, weighted"),
            "mean distance, tokens",
            |head| Some(head.distance),
        ),
        chart(
            "beyond",
            &format!("Weight beyond {beyond} tokens"),
            format!("The share of a query's weight on keys more than {beyond} tokens away: {spread}."),
            "share of the weight",
            |head| Some(head.beyond),
        ),
        chart(
            "rank",
            "Effective rank",
            format!("How many directions the matrix of weights has, of at most 128 of its rows: {spread}."),
            "effective rank",
            |head| Some(head.rank),
        ),
        chart(
            "induction",
            "Induction",
            format!(
                "The weight of the token behind a query's own first occurrence, in random tokens that are repeated: {spread}."
            ),
            "share of the weight",
            |head| head.induction,
        ),
    ];
    charts.into_iter().chain([without(looked)]).flatten().collect()
}

fn axes(looked: &Looked, y: &str) -> (Axis, Axis) {
    let axis =
        |label: &str| Axis { label: label.to_owned(), scale: Scale::Linear, order: vec![], zero: false };
    let order = (0..looked.attentions.len()).map(|index| name(looked, index)).collect();
    (Axis { scale: Scale::Words, order, ..axis("layer") }, Axis { zero: true, ..axis(y) })
}

/// A series of each kind, with a mark for each of its layers.
fn series(looked: &Looked, mark: impl Fn(usize) -> Option<Mark>) -> Vec<Series> {
    let mut series: Vec<Series> = vec![];
    for (index, attention) in looked.attentions.iter().enumerate() {
        let Some(mark) = mark(index) else { continue };
        match series.iter_mut().find(|series| series.name == attention.kind) {
            Some(series) => series.lines[0].push(mark),
            None => series.push(Series { name: attention.kind.to_owned(), lines: vec![vec![mark]] }),
        }
    }
    series
}

fn by_layer(
    looked: &Looked,
    id: &'static str,
    title: &str,
    sentence: String,
    y: &str,
    of: Of,
) -> Option<Chart> {
    let mark = |index: usize| {
        let values: Vec<f64> = heads_of(looked, index).map(of).collect::<Option<_>>()?;
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let (low, high) =
            (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
        Some(Mark { x: Place::Word(name(looked, index)), y: mean, low: Some(low), high: Some(high) })
    };
    let series = series(looked, mark);
    let (x, y) = axes(looked, y);
    let chart = Chart { id, title: title.to_owned(), sentence, x, y, drawing: Drawing::Points, series };
    (!chart.series.is_empty()).then_some(chart)
}

/// What the loss rises by without each attention.
fn without(looked: &Looked) -> Option<Chart> {
    let mark = |index: usize| {
        let mean = looked.attentions[index].without.filter(|mean| mean.mean.is_finite())?;
        let end = |sign: f64| mean.half_width.map(|half| mean.mean + sign * half);
        Some(Mark { x: Place::Word(name(looked, index)), y: mean.mean, low: end(-1.0), high: end(1.0) })
    };
    let series = series(looked, mark);
    let (x, y) = axes(looked, "rise of the loss, nats per token");
    let chart = Chart {
        id: "without",
        title: "Loss without an attention".to_owned(),
        sentence: "What the loss of the text rises by when a layer's attention gives nothing, all else as it is; 95 % intervals over \
                   the sequences."
            .to_owned(),
        x,
        y,
        drawing: Drawing::Points,
        series,
    };
    (!chart.series.is_empty()).then_some(chart)
}
