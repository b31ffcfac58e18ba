//! A report on runs and measurements: one HTML file that needs no network, with charts, their data, and what they show in plain
//! words.
//!
//! Names of runs and what they said are whatever somebody wrote: text in the page is escaped, and data come as JSON without
//! a character that could end their element. What a sentence says follows from the numbers beside it; a difference
//! whose interval holds zero is not called one.

mod collect;
mod figures;
mod page;
mod summary;
mod tables;

use std::path::{Path, PathBuf};

use linc_device::write_entry;

use crate::cost;
use crate::error::{StudyError, file};
use crate::page::markdown;
use crate::results::{csv, points};

pub use collect::Collected;

/// What [`write`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The HTML file.
    pub page: PathBuf,
    /// Its table of points, for spreadsheets.
    pub csv: PathBuf,
    /// The same for documents.
    pub markdown: PathBuf,
    /// What the page says first.
    pub summary: Vec<String>,
}

/// Reports on the runs in some folders: of sweeps, of runs, or with runs in them. `out` is the page's file; beside the first
/// folder's contents if it is not given.
///
/// # Errors
/// No run in a folder, or files that cannot be read or written.
pub fn write(folders: &[PathBuf], out: Option<&Path>) -> Result<Written, StudyError> {
    if let Some(path) = out.filter(|path| path.extension().is_none_or(|extension| extension != "html")) {
        return Err(StudyError::Nothing {
            message: format!("{} is no name for a page", path.display()),
            help: "a page ends in .html; its tables go beside it".to_owned(),
        });
    }
    let collected = Collected::read(folders)?;
    let points = points(collected.metric, &collected.results);
    let page = match out {
        Some(path) => path.to_path_buf(),
        None => {
            folders.first().map_or_else(|| PathBuf::from("report.html"), |folder| folder.join("report.html"))
        }
    };
    let (mut summary, mut figures, mut tables) = (vec![], vec![], vec![]);
    if !collected.results.is_empty() {
        summary = summary::sentences(&collected, &points);
        figures = figures::figures(&collected, &points);
        tables = tables::tables(&collected, &points);
    }
    if let Some(measured) = &collected.cost {
        summary.extend(cost::sentences(measured));
        figures.extend(cost::page_figures(measured));
        tables.extend(cost::page_tables(measured));
    }
    let html = page::html(&collected, &summary, &figures, &tables);
    let store = |path: &Path, text: &str| write_entry(path, &[text.as_bytes()]).map_err(file("write", path));
    store(&page, &html)?;
    let (csv_path, tables_path) = (page.with_extension("points.csv"), page.with_extension("tables.md"));
    store(&csv_path, &csv(collected.metric, &points))?;
    store(&tables_path, &markdown(&summary, &tables))?;
    Ok(Written { page, csv: csv_path, markdown: tables_path, summary })
}

#[cfg(test)]
mod tests;
