//! The page of what was seen: figures, the map of each head, tables.

use std::fmt::Write as _;

use serde_json::json;

use super::tables::{self, name, short};
use super::{Looked, Map, figures};
use crate::page::{Page, escape};

const STYLE: &str = include_str!("../../assets/look.css");
const SCRIPT: &str = include_str!("../../assets/look.js");

/// Levels of a cell.
const LEVELS: f64 = 255.0;

pub(super) fn html(looked: &Looked) -> String {
    let mut page = Page::new(&format!("linc look: {}", looked.checkpoint), STYLE);
    let mut warnings = vec![];
    let worst = looked.heads.iter().map(|head| head.error).fold(0.0, f64::max);
    if worst > 1e-3 {
        warnings.push(format!(
            "The weights times the values differ from what the program gave by up to {worst:.1e} of its largest number."
        ));
    }
    page.summary(&tables::sentences(looked), &warnings);
    page.figures("figures", "Layers side by side", &figures::figures(looked));
    page.section("maps", "What each head looks at", |html| maps(html, looked));
    page.table(&tables::attentions(looked));
    page.table(&tables::heads(looked));
    let maps: Vec<_> = looked.maps.iter().map(drawn).collect();
    let data = json!({ "cells": looked.maps.first().map_or(0, |map| map.rows.len()), "labels": looked.labels, "maps": maps });
    page.data("look", &data.to_string());
    page.script(SCRIPT);
    page.finish()
}

/// A map as levels, square roots of the weights' shares of the largest, so that little weights are seen beside large ones.
fn drawn(map: &Map) -> serde_json::Value {
    let largest = map.rows.iter().flatten().copied().fold(0.0, f32::max);
    let level = |weight: &f32| {
        ((f64::from(*weight) / f64::from(largest.max(f32::MIN_POSITIVE))).sqrt() * LEVELS) as u8
    };
    let levels: Vec<u8> = map.rows.iter().flatten().map(level).collect();
    json!({ "attention": map.attention, "head": map.head, "largest": largest, "levels": base64(&levels) })
}

fn maps(html: &mut String, looked: &Looked) {
    let side = looked.maps.first().map_or(0, |map| map.rows.len());
    let per_cell = looked.tokens.div_ceil(side.max(1));
    let each = match per_cell {
        0 | 1 => "Each cell is a pair of tokens.".to_owned(),
        n => format!(
            "Each cell stands for up to {n} queries and {n} keys: the mean over its queries of the weight of its keys."
        ),
    };
    let _ = writeln!(
        html,
        "<p>A row is a query, from the first token at the top, a column a key, from the first at the left; rows sum to 1. {} \
         The darker, the more weight, by its square root beside the largest of the map. Choose a map to see it large, with its \
         tokens.</p>",
        escape(&each)
    );
    let _ = writeln!(
        html,
        "<figure id=\"large\" hidden><figcaption><h3 id=\"large-title\"></h3><p id=\"large-text\"></p></figcaption>\
         <div class=\"large\"><canvas role=\"img\" aria-labelledby=\"large-title\" tabindex=\"0\"></canvas></div>\
         <p id=\"cell\" role=\"status\"></p></figure>"
    );
    for (index, attention) in looked.attentions.iter().enumerate() {
        let layer = name(looked, index);
        let _ = write!(html, "<h3>Layer {layer}: {}</h3>\n<div class=\"maps\">\n", escape(attention.kind));
        for head in tables::heads_of(looked, index) {
            let features =
                head.features.map_or_else(String::new, |features| format!(", {} features", short(features)));
            let _ = writeln!(
                html,
                "<button type=\"button\" class=\"map\" data-map=\"{index}.{head}\" aria-label=\"Layer {layer}, {kind}, head {head}: \
                 {keys} keys, {away} tokens away{features}\"><canvas aria-hidden=\"true\"></canvas><span>head {head}</span></button>",
                head = head.head,
                kind = escape(head.kind),
                keys = short(head.positions),
                away = short(head.distance),
            );
        }
        html.push_str("</div>\n");
    }
}

/// Bytes in the alphabet of RFC 4648, four letters for three of them.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let all = part.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for letter in 0..4 {
            match letter <= part.len() {
                true => text.push(char::from(ALPHABET[(all >> (18 - 6 * letter) & 63) as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[255, 254, 253]), "//79");
    }

    #[test]
    fn levels_are_square_roots() {
        let map = Map { attention: 0, head: 1, rows: vec![vec![1.0, 0.0], vec![0.25, 0.75]] };
        let found = drawn(&map);
        assert_eq!(found["largest"], 1.0);
        assert_eq!(found["levels"], base64(&[255, 0, 127, 220]));
    }
}
