//! A chart as data: what the page draws, and what its table says.

use serde::Serialize;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors.
    Log,
    /// Words, in their order.
    Words,
}

/// What is measured along one side of a chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Axis {
    /// What is measured, with its unit.
    pub(super) label: String,
    pub(super) scale: Scale,
    /// Whether it begins at zero: amounts that are compared by their size.
    pub(super) zero: bool,
}

/// A place along the horizontal axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Place {
    Number(f64),
    Word(String),
}

/// A point of a series; the ends of its interval, if it has one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Mark {
    pub(super) x: Place,
    pub(super) y: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) high: Option<f64>,
}

/// Marks of one colour.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Series {
    pub(super) name: String,
    /// Several lines of one colour: a seed each.
    pub(super) lines: Vec<Vec<Mark>>,
}

/// What is drawn of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Drawing {
    /// Lines alone, for many points.
    Curves,
    /// Points with their intervals, joined by lines.
    Points,
}

/// A figure of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Chart {
    /// Its name in links and files.
    pub(super) id: &'static str,
    pub(super) title: String,
    /// What it shows, in one sentence.
    pub(super) sentence: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) drawing: Drawing,
    pub(super) series: Vec<Series>,
}
