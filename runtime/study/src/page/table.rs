//! A table for people: in a page, and in documents.

use std::fmt::Write as _;

use super::escape;

/// Rows of one table in a page, at most.
const ROWS: usize = 1000;

/// A table for people.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    /// Its name in links.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Rows that are left out.
    pub(crate) left_out: usize,
}

impl Table {
    /// A table of so many rows as a page can have.
    pub(crate) fn new(
        id: &'static str,
        title: &'static str,
        header: &[&str],
        rows: Vec<Vec<String>>,
    ) -> Table {
        let left_out = rows.len().saturating_sub(ROWS);
        let header = header.iter().map(|word| (*word).to_owned()).collect();
        Table { id, title, header, rows: rows.into_iter().take(ROWS).collect(), left_out }
    }

    pub(super) fn html(&self, page: &mut String) {
        let title = escape(self.title);
        let _ = write!(
            page,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table: {title}\">\n<table>\n<thead><tr>"
        );
        self.header.iter().for_each(|cell| {
            let _ = write!(page, "<th scope=\"col\">{}</th>", escape(cell));
        });
        page.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            page.push_str("<tr>");
            row.iter().for_each(|cell| {
                let _ = write!(page, "<td>{}</td>", escape(cell));
            });
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody>\n</table>\n</div>\n");
        if self.left_out > 0 {
            let _ = writeln!(page, "<p>{} more are left out.</p>", self.left_out);
        }
    }
}

/// What is not known.
pub(crate) fn dash() -> String {
    "-".to_owned()
}

/// What a page says and lists, for documents: in it a bar ends no cell.
pub(crate) fn markdown(summary: &[String], tables: &[Table]) -> String {
    let cell = |text: &String| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
    };
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text: String =
        summary.iter().map(|sentence| format!("- {}\n", sentence.replace('\n', " "))).collect();
    for table in tables {
        text.push_str(&format!("\n## {}\n\n", table.title));
        text.push_str(&row(table.header.iter().map(cell).collect()));
        text.push_str(&row(table.header.iter().map(|_| "---".to_owned()).collect()));
        table.rows.iter().for_each(|cells| text.push_str(&row(cells.iter().map(cell).collect())));
        if table.left_out > 0 {
            text.push_str(&format!("\n{} more are left out.\n", table.left_out));
        }
    }
    text
}
