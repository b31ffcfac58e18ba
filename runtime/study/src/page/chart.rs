//! A chart as data: what the page draws, and what its table says.

use serde::Serialize;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors.
    Log,
    /// Words, in their order.
    Words,
}

/// What is measured along one side of a chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Axis {
    /// What is measured, with its unit.
    pub(crate) label: String,
    pub(crate) scale: Scale,
    /// Words in their order; that of the marks if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) order: Vec<String>,
    /// Whether it begins at zero: amounts that are compared by their size.
    pub(crate) zero: bool,
}

/// A place along the horizontal axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Place {
    Number(f64),
    Word(String),
}

/// A point of a series; the ends of its interval, if it has one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Mark {
    pub(crate) x: Place,
    pub(crate) y: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) high: Option<f64>,
}

/// Marks of one colour.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Several lines of one colour: a seed each.
    pub(crate) lines: Vec<Vec<Mark>>,
}

/// What is drawn of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Drawing {
    /// Lines alone, for many points.
    Curves,
    /// Points with their intervals, joined by lines.
    Points,
}

/// A figure of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Chart {
    /// Its name in links and files.
    pub(crate) id: &'static str,
    pub(crate) title: String,
    /// What it shows, in one sentence.
    pub(crate) sentence: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) drawing: Drawing,
    pub(crate) series: Vec<Series>,
}
