//! A page: one file that needs no network, and says so to the browser (`Content-Security-Policy`), which then refuses what a
//! mistake might let in. Text in it is escaped, whoever wrote it; data come as JSON without a character that could end their
//! element.

mod chart;
mod table;

use std::fmt::Write as _;

pub(crate) use chart::{Axis, Chart, Drawing, Mark, Place, Scale, Series};
pub(crate) use table::{Table, dash, markdown};

/// Observable Plot 0.6.17 and the part of D3 7.9 that it needs, with their licences (`assets/LICENSES`).
const D3: &str = include_str!("../../assets/d3.min.js");
const PLOT: &str = include_str!("../../assets/plot.umd.min.js");
const LICENSES: &str = include_str!("../../assets/LICENSES");
const STYLE: &str = include_str!("../../assets/report.css");
const SCRIPT: &str = include_str!("../../assets/report.js");

/// What a page may load: nothing. Script and style stand in it; pictures are data.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// A page that is being written.
pub(crate) struct Page {
    html: String,
    charts: Vec<Chart>,
    /// Its own data and scripts, behind the content.
    scripts: String,
}

impl Page {
    /// A page with a title, and a style of its own beside that of all.
    pub(crate) fn new(title: &str, style: &str) -> Page {
        let title = escape(title);
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header>\n<h1>{title}</h1>\n</header>\n<main id=\"main\">\n"
        );
        Page { html, charts: vec![], scripts: String::new() }
    }

    /// A part of the page with a heading; `content` writes HTML.
    pub(crate) fn section(&mut self, id: &str, title: &str, content: impl FnOnce(&mut String)) {
        let _ = writeln!(
            self.html,
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{}</h2>",
            escape(title)
        );
        content(&mut self.html);
        self.html.push_str("</section>\n");
    }

    /// What the page says first, and what it warns of.
    pub(crate) fn summary(&mut self, sentences: &[String], warnings: &[String]) {
        self.section("summary", "Summary", |html| {
            html.push_str("<ul>\n");
            sentences.iter().for_each(|sentence| {
                let _ = writeln!(html, "<li>{}</li>", escape(sentence));
            });
            html.push_str("</ul>\n");
            warnings.iter().for_each(|warning| {
                let _ = writeln!(html, "<p class=\"warning\">{}</p>", escape(warning));
            });
        });
    }

    /// Charts under a heading, if there are any; the page's script draws each with its data as a table.
    pub(crate) fn figures(&mut self, id: &str, title: &str, charts: &[Chart]) {
        if charts.is_empty() {
            return;
        }
        self.section(id, title, |html| charts.iter().for_each(|chart| figure(html, chart)));
        self.charts.extend_from_slice(charts);
    }

    /// A table under its title.
    pub(crate) fn table(&mut self, table: &Table) {
        self.section(table.id, table.title, |html| table.html(html));
    }

    /// Data that a script of the page reads.
    pub(crate) fn data(&mut self, id: &str, json: &str) {
        let json = as_data(json);
        let _ = writeln!(self.scripts, "<script type=\"application/json\" id=\"{id}\">{json}</script>");
    }

    /// A script, which runs when all of the page is there.
    pub(crate) fn script(&mut self, script: &str) {
        let _ = writeln!(self.scripts, "<script>\n{script}</script>");
    }

    /// The page as HTML.
    pub(crate) fn finish(mut self) -> String {
        let mut scripts = String::new();
        let mut words = "</p>".to_owned();
        if !self.charts.is_empty() {
            let data = as_data(&serde_json::to_string(&self.charts).unwrap_or_default());
            let _ = write!(
                scripts,
                "<script type=\"application/json\" id=\"charts\">{data}</script>\n\
                 <script>{D3}</script>\n<script>{PLOT}</script>\n<script>\n{SCRIPT}</script>\n"
            );
            let licences = escape(LICENSES);
            words = format!(
                " The figures are drawn by Observable Plot and D3.</p>\
                 <details><summary>Their licences</summary><pre tabindex=\"0\">{licences}</pre></details>"
            );
        }
        let _ = write!(
            self.html,
            "</main>\n<footer><p>Written by linc {}.{words}</footer>\n{}{scripts}</body>\n</html>\n",
            env!("CARGO_PKG_VERSION"),
            self.scripts
        );
        self.html
    }
}

/// A place for the drawing; the script puts it and its table there.
fn figure(html: &mut String, chart: &Chart) {
    let id = chart.id;
    let _ = writeln!(
        html,
        "<figure id=\"figure-{id}\" data-chart=\"{id}\"><figcaption><h3>{}</h3><p>{}</p></figcaption></figure>",
        escape(&chart.title),
        escape(&chart.sentence)
    );
}

/// Text as HTML shows it, between tags and within quotes.
pub(crate) fn escape(text: &str) -> String {
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
fn as_data(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
