//! What a share of linear layers costs: what the measurements of `linc bench cost` show. How times and memory grow with the length,
//! beside what theory and the plan say; from which length on linear layers are faster; what limits each point.

mod figures;
mod fits;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use linc_bench::{CostReport, CostRow, Work};
use linc_device::write_entry;
use serde_json::json;

use crate::error::{StudyError, file};
use crate::page::{Chart, Table};
use crate::results::row;

pub use fits::{Crossover, Fit, Quantity, Wins, crossovers, fits};

/// The file of a measurement, by which a report finds it.
pub const FILE: &str = "cost.json";
/// Name of what is written until a measurement is whole.
const PART: &str = "cost.part";

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// All numbers.
    pub json: PathBuf,
    /// A row for each point.
    pub csv: PathBuf,
}

/// Writes a measurement, with what it shows, into a folder.
///
/// # Errors
/// Files that cannot be written.
pub fn write(report: &CostReport, folder: &Path) -> Result<Written, StudyError> {
    let written = store(report, folder, "cost")?;
    // Nobody needs its part now; one that is left says no more than the whole.
    for end in ["json", "csv"] {
        let _ = fs::remove_file(folder.join(format!("{PART}.{end}")));
    }
    Ok(written)
}

/// Writes the points that there are so far, beside what an earlier measurement left, which stays until this one is whole.
///
/// # Errors
/// Files that cannot be written.
pub fn keep(report: &CostReport, folder: &Path) -> Result<Written, StudyError> {
    store(report, folder, PART)
}

fn store(report: &CostReport, folder: &Path, name: &str) -> Result<Written, StudyError> {
    fs::create_dir_all(folder).map_err(file("create", folder))?;
    let [json, csv] = ["json", "csv"].map(|end| folder.join(format!("{name}.{end}")));
    let store =
        |path: &Path, text: String| write_entry(path, &[text.as_bytes()]).map_err(file("write", path));
    store(&json, serde_json::to_string_pretty(&shown(report)).unwrap_or_default() + "\n")?;
    store(&csv, self::csv(report))?;
    Ok(Written { json, csv })
}

/// A measurement with what it shows, as one object.
pub fn shown(report: &CostReport) -> serde_json::Value {
    json!({
        "tool": "linc",
        "bench": "cost",
        "measured": report,
        "exponents": fits(report),
        "crossovers": crossovers(report),
    })
}

/// Reads a measurement that [`write`] wrote.
///
/// # Errors
/// The file cannot be read, or is none.
pub fn read(folder: &Path) -> Result<CostReport, StudyError> {
    let path = folder.join(FILE);
    let text = fs::read(&path).map_err(file("read", &path))?;
    let damaged = |message: String| StudyError::Nothing {
        message: format!("{} is no measurement of linc bench cost: {message}", path.display()),
        help: "measure again, or remove the file".to_owned(),
    };
    let mut json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let measured = json.get_mut("measured").map(serde_json::Value::take).unwrap_or_default();
    serde_json::from_value(measured).map_err(|error| damaged(error.to_string()))
}

/// Points as comma-separated values.
fn csv(report: &CostReport) -> String {
    let header = [
        "work",
        "ratio",
        "layers",
        "length",
        "batch",
        "ms",
        "ms_min",
        "ms_max",
        "runs",
        "tokens_per_second",
        "attention_ms",
        "flops",
        "attention_flops",
        "arena_bytes",
        "resident_bytes",
        "cache_bytes",
        "state_bytes",
        "limit",
        "limit_share",
        "error",
    ];
    let mut text = row(header.iter().map(|name| (*name).to_owned()));
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for point in &report.rows {
        let CostRow { ms, bounds, .. } = point;
        let limit = bounds.as_ref().and_then(|bounds| Some((bounds.main()?, bounds)));
        let cells = [
            point.work.name().to_owned(),
            point.ratio.to_string(),
            point.layers.clone(),
            point.length.to_string(),
            report.batch.to_string(),
            number(ms.map(|ms| ms.median)),
            number(ms.map(|ms| ms.min)),
            number(ms.map(|ms| ms.max)),
            ms.map_or_else(String::new, |ms| ms.runs.to_string()),
            number(point.tokens_per_s),
            number(point.attention_ms),
            point.flops.to_string(),
            point.attention_flops.to_string(),
            point.bytes.to_string(),
            point.resident_bytes.map_or_else(String::new, |bytes| bytes.to_string()),
            point.cache_bytes.to_string(),
            point.state_bytes.to_string(),
            limit.map_or_else(String::new, |(limit, _)| limit.name().to_owned()),
            number(limit.map(|(limit, bounds)| bounds.share(limit))),
            point.error.clone().unwrap_or_default(),
        ];
        text.push_str(&row(cells.into_iter()));
    }
    text
}

/// The shares of linear layers that were measured, ascending.
pub(crate) fn ratios(report: &CostReport) -> Vec<f64> {
    let mut ratios: Vec<f64> = report.rows.iter().map(|row| row.ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.dedup();
    ratios
}

/// The points of some work at a ratio that were measured, by length.
fn measured(report: &CostReport, work: Work, ratio: f64) -> Vec<&CostRow> {
    let mut rows: Vec<&CostRow> =
        report.rows.iter().filter(|row| row.work == work && row.ratio == ratio && row.ms.is_some()).collect();
    rows.sort_by_key(|row| row.length);
    rows
}

/// What it shows, in sentences.
pub fn sentences(report: &CostReport) -> Vec<String> {
    tables::sentences(report)
}

/// A title with headings and rows.
pub type Titled = (&'static str, Vec<String>, Vec<Vec<String>>);

/// What was measured and what it shows, as tables for a terminal.
pub fn tables(report: &CostReport) -> Vec<Titled> {
    page_tables(report).into_iter().map(|table| (table.title, table.header, table.rows)).collect()
}

pub(crate) fn page_tables(report: &CostReport) -> Vec<Table> {
    tables::tables(report)
}

pub(crate) fn page_figures(report: &CostReport) -> Vec<Chart> {
    figures::figures(report)
}

#[cfg(test)]
mod tests;
