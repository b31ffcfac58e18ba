//! The page of a report.

use std::fmt::Write as _;

use super::collect::Collected;
use crate::page::{Chart, Page, Table, escape};

/// Configs in the page, at most: all are in the runs' folders, and a page with thousands of them would only be slow.
const CONFIGS: usize = 50;

/// The page as HTML.
pub(super) fn html(collected: &Collected, summary: &[String], charts: &[Chart], tables: &[Table]) -> String {
    let folders: Vec<String> = collected.folders.iter().map(|folder| folder.display().to_string()).collect();
    let mut page = Page::new(&format!("linc report: {}", folders.join(", ")), "");
    page.summary(summary, &collected.skipped);
    page.figures("figures", "Figures", charts);
    tables.iter().for_each(|table| page.table(table));
    let configs = collected
        .results
        .iter()
        .zip(&collected.configs)
        .filter_map(|(run, config)| Some((run, config.as_ref()?)));
    let configs: Vec<_> = configs.take(CONFIGS).collect();
    if !configs.is_empty() {
        page.section("configs", "Configs", |html| {
            for (run, config) in configs {
                let (name, text) = (escape(&run.name), escape(&config.to_toml()));
                let _ = writeln!(
                    html,
                    "<details><summary>{name}</summary><pre tabindex=\"0\">{text}</pre></details>"
                );
            }
        });
    }
    page.finish()
}
