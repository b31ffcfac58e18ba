//! The page for those who judge: the texts of each prompt, without a word on who wrote them.

use std::fmt::Write as _;

use super::{BEST, CRITERIA, Comparison};
use crate::page::{Page, escape};

const STYLE: &str = include_str!("../../assets/compare.css");
const SCRIPT: &str = include_str!("../../assets/compare.js");

/// What a text is called where it is shown in some place.
pub(super) fn label(place: usize) -> String {
    // There are no more models than letters.
    char::from(b'A' + (place % 26) as u8).to_string()
}

pub(super) fn html(comparison: &Comparison) -> String {
    let mut page = Page::new("linc compare", STYLE);
    page.section("how", "How to judge", |html| {
        let _ = write!(
            html,
            "<p>Each prompt was continued by {} models. Their texts are in an order that changes from prompt to prompt. Give each \
             text marks from 1 (bad) to {BEST} (good):</p>\n<ul>\n",
            comparison.writers.len()
        );
        for (name, about) in CRITERIA {
            let _ = writeln!(html, "<li><b>{name}</b>: {about}</li>");
        }
        html.push_str(
            "</ul>\n<p>Keys: <kbd>1</kbd> to <kbd>5</kbd> mark what has the frame and go on to the next; <kbd>←</kbd> \
             <kbd>→</kbd> change a mark, <kbd>Tab</kbd> goes on without one; <kbd>n</kbd> and <kbd>p</kbd> go to the next \
             prompt and back. Marks are kept in this browser until they are saved; the file goes to whoever asked you.</p>\n\
             <div class=\"who\"><label>Your name <input id=\"rater\" autocomplete=\"off\" maxlength=\"80\"></label>\n\
             <button type=\"button\" id=\"save\">Save the marks</button> <span id=\"done\" role=\"status\"></span></div>\n",
        );
    });
    page.section("texts", "Texts", |html| {
        html.push_str(
            "<p class=\"steps\"><button type=\"button\" id=\"before\">Previous (p)</button> <span id=\"where\" role=\"status\">\
             </span> <button type=\"button\" id=\"next\">Next (n)</button></p>\n",
        );
        for number in 0..comparison.prompts.len() {
            prompt(html, comparison, number);
        }
    });
    let data = serde_json::json!({ "study": comparison.study, "criteria": CRITERIA.map(|(name, _)| name) });
    page.data("compare", &data.to_string());
    page.script(SCRIPT);
    page.finish()
}

/// A prompt with the texts of all models.
fn prompt(html: &mut String, comparison: &Comparison, number: usize) {
    let turns = &comparison.prompts[number].turns;
    let _ = writeln!(
        html,
        "<article data-prompt=\"{number}\" aria-labelledby=\"prompt-{number}\">\n<h3 id=\"prompt-{number}\" tabindex=\"-1\">Prompt {}</h3>",
        number + 1
    );
    let said = |html: &mut String, text: &str| {
        let _ = writeln!(html, "<blockquote>{}</blockquote>", escape(text));
    };
    if let [only] = &turns[..] {
        said(html, only);
    }
    for (place, writer) in comparison.order[number].iter().enumerate() {
        let label = label(place);
        let _ = writeln!(
            html,
            "<section class=\"answer\" aria-label=\"Text {label} of prompt {}\">\n<h4>Text {label}</h4>",
            number + 1
        );
        for (turn, text) in comparison.texts[*writer][number].iter().enumerate() {
            if turns.len() > 1 {
                said(html, turns.get(turn).map_or("", String::as_str));
            }
            let text = if text.trim().is_empty() { "(nothing)" } else { text };
            let _ = writeln!(html, "<div class=\"text\">{}</div>", escape(text));
        }
        html.push_str("<div class=\"marks\">\n");
        for (criterion, _) in CRITERIA {
            let name = format!("m-{number}-{label}-{criterion}");
            let _ = write!(
                html,
                "<fieldset data-text=\"{label}\" data-criterion=\"{criterion}\"><legend>{criterion}</legend>"
            );
            for mark in 1..=BEST {
                let _ = write!(
                    html,
                    "<label><input type=\"radio\" name=\"{name}\" value=\"{mark}\"><span>{mark}</span></label>"
                );
            }
            html.push_str("</fieldset>\n");
        }
        html.push_str("</div>\n</section>\n");
    }
    html.push_str("</article>\n");
}
