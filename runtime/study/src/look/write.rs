//! What was seen, as files.

use std::path::{Path, PathBuf};

use linc_device::write_entry;
use serde_json::json;

use super::{Head, Looked, files, page, tables};
use crate::error::{StudyError, file};
use crate::results::row;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What a browser shows.
    pub page: PathBuf,
    /// All numbers.
    pub json: PathBuf,
    /// A row for each head.
    pub csv: PathBuf,
    /// Cells of each head's map, with the text of each.
    pub maps: PathBuf,
}

pub(super) fn write(looked: &Looked, folder: &Path) -> Result<Written, StudyError> {
    std::fs::create_dir_all(folder).map_err(file("create", folder))?;
    let [page, json, csv, maps] = files(folder);
    let store = |path: &Path, text: &str| write_entry(path, &[text.as_bytes()]).map_err(file("write", path));
    store(&page, &page::html(looked))?;
    store(&json, &(serde_json::to_string_pretty(looked).unwrap_or_default() + "\n"))?;
    store(&csv, &self::csv(&looked.heads))?;
    let side = looked.maps.first().map_or(0, |map| map.rows.len());
    let of_cells =
        json!({ "cells": side, "tokens": looked.tokens, "labels": looked.labels, "maps": looked.maps });
    store(&maps, &(of_cells.to_string() + "\n"))?;
    Ok(Written { page, json, csv, maps })
}

/// Heads as comma-separated values.
fn csv(heads: &[Head]) -> String {
    let header = row(tables::COLUMNS.iter().map(|(name, _)| (*name).to_owned()));
    let rows = heads.iter().map(|head| row(tables::COLUMNS.iter().map(|(_, cell)| cell(head))));
    std::iter::once(header).chain(rows).collect()
}
