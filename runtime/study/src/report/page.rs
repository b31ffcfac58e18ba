//! The page: one file that needs no network, and says so to the browser (`Content-Security-Policy`), which then refuses what a
//! mistake might let in.

use std::fmt::Write as _;

use super::chart::Chart;
use super::collect::Collected;
use super::tables::Table;

/// Observable Plot 0.6.17 and the part of D3 7.9 that it needs, with their licences (`assets/LICENSES`).
const D3: &str = include_str!("../../assets/d3.min.js");
const PLOT: &str = include_str!("../../assets/plot.umd.min.js");
const LICENSES: &str = include_str!("../../assets/LICENSES");
const STYLE: &str = include_str!("../../assets/report.css");
const SCRIPT: &str = include_str!("../../assets/report.js");

/// What the page may load: nothing. Script and style stand in it; pictures are data.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// The page as HTML.
pub(super) fn html(collected: &Collected, summary: &[String], charts: &[Chart], tables: &[Table]) -> String {
    let folders: Vec<String> = collected.folders.iter().map(|folder| folder.display().to_string()).collect();
    let title = format!("linc report: {}", folders.join(", "));
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header>\n<h1>{}</h1>\n</header>\n<main id=\"main\">\n",
        escape(&title),
        escape(&title)
    );
    section(&mut page, "summary", "Summary", |page| {
        page.push_str("<ul>\n");
        summary.iter().for_each(|sentence| {
            let _ = writeln!(page, "<li>{}</li>", escape(sentence));
        });
        page.push_str("</ul>\n");
        collected.skipped.iter().for_each(|reason| {
            let _ = writeln!(page, "<p class=\"warning\">{}</p>", escape(reason));
        });
    });
    if !charts.is_empty() {
        section(&mut page, "figures", "Figures", |page| charts.iter().for_each(|chart| figure(page, chart)));
    }
    for table in tables {
        section(&mut page, table.id, table.title, |page| table_html(page, table));
    }
    let configs = collected
        .results
        .iter()
        .zip(&collected.configs)
        .filter_map(|(run, config)| Some((run, config.as_ref()?)));
    // All are in the runs' folders; a page with thousands of them would only be slow.
    let configs: Vec<_> = configs.take(50).collect();
    if !configs.is_empty() {
        section(&mut page, "configs", "Configs", |page| {
            for (run, config) in configs {
                let (name, text) = (escape(&run.name), escape(&config.to_toml()));
                let _ = writeln!(
                    page,
                    "<details><summary>{name}</summary><pre tabindex=\"0\">{text}</pre></details>"
                );
            }
        });
    }
    let data = serde_json::to_string(charts).unwrap_or_default();
    let _ = write!(
        page,
        "</main>\n<footer><p>Written by linc {}. The figures are drawn by Observable Plot and D3.</p>\
         <details><summary>Their licences</summary><pre tabindex=\"0\">{}</pre></details></footer>\n\
         <script type=\"application/json\" id=\"charts\">{}</script>\n\
         <script>{D3}</script>\n<script>{PLOT}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        escape(LICENSES),
        as_data(&data)
    );
    page
}

fn section(page: &mut String, id: &str, title: &str, content: impl FnOnce(&mut String)) {
    let _ = writeln!(
        page,
        "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{}</h2>",
        escape(title)
    );
    content(page);
    page.push_str("</section>\n");
}

/// A place for the drawing; the script puts it and its table there.
fn figure(page: &mut String, chart: &Chart) {
    let id = chart.id;
    let _ = writeln!(
        page,
        "<figure id=\"figure-{id}\" data-chart=\"{id}\"><figcaption><h3>{}</h3><p>{}</p></figcaption></figure>",
        escape(&chart.title),
        escape(&chart.sentence)
    );
}

fn table_html(page: &mut String, table: &Table) {
    let title = escape(table.title);
    let _ = write!(
        page,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table: {title}\">\n<table>\n<thead><tr>"
    );
    table.header.iter().for_each(|cell| {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escape(cell));
    });
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        row.iter().for_each(|cell| {
            let _ = write!(page, "<td>{}</td>", escape(cell));
        });
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
    if table.left_out > 0 {
        let _ = writeln!(page, "<p>{} more are left out.</p>", table.left_out);
    }
}

/// Text as HTML shows it, between tags and within quotes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Nothing that a browser would stumble over.
            control if control.is_control() && control != '\n' && control != '\t' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// JSON within a script element, which nothing in it can end.
pub(super) fn as_data(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
