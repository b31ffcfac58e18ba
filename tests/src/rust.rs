//! Rust sources as far as the layering and tidiness tests need to understand them: comments and literals removed,
//! paths, and the arms of `match`es. Not a parser; it reads formatted code that compiles.

use std::collections::BTreeSet;

/// The text with comments and the contents of literals replaced by spaces; lines and columns stay.
pub fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match chars[i] {
            '/' if chars.get(i + 1) == Some(&'/') => line_end(&chars, i),
            '/' if chars.get(i + 1) == Some(&'*') => block_comment_end(&chars, i),
            '"' => string_end(&chars, i),
            'r' if starts_raw_string(&chars, i) => raw_string_end(&chars, i),
            '\'' => char_end(&chars, i),
            _ => i,
        };
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

fn line_end(chars: &[char], start: usize) -> usize {
    chars[start..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| start + n)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// `r"` or `r#"`, not the end of a name and not a raw identifier.
fn starts_raw_string(chars: &[char], start: usize) -> bool {
    let in_name = start > 0 && is_name(chars[start - 1]) && chars[start - 1] != 'b';
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    !in_name && chars.get(start + 1 + hashes) == Some(&'"')
}

fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let closes = |i: usize| {
        chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (start + hashes + 2..chars.len()).find(|i| closes(*i)).map_or(chars.len(), |i| i + 1 + hashes)
}

/// The end of a character literal, or `start` if this is a lifetime.
fn char_end(chars: &[char], start: usize) -> usize {
    match chars.get(start + 1) {
        Some('\\') => {
            let close = chars[start + 3..].iter().position(|c| *c == '\'');
            close.map_or(chars.len(), |n| start + 3 + n + 1)
        }
        Some(_) if chars.get(start + 2) == Some(&'\'') => start + 3,
        _ => start,
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// All names in code, without order.
pub fn names(code: &str) -> BTreeSet<&str> {
    code.split(|c| !is_name(c)).filter(|name| !name.is_empty()).collect()
}

/// All paths in code that start with `first`, in full: `use crate::{a::B, c}` gives `crate::a::B` and `crate::c`.
pub fn paths(code: &str, first: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let start = format!("{first}::");
    for (at, _) in code.match_indices(&start) {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| is_name(c) || c == ':') {
            let mut rest = code[at + start.len()..].chars().peekable();
            expand(&mut rest, first, &mut found);
        }
    }
    found
}

/// Reads the continuation of `prefix::`, a name, a group or `*`, and stops behind it.
fn expand(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, prefix: &str, found: &mut BTreeSet<String>) {
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
    if rest.next_if_eq(&'{').is_some() {
        loop {
            while rest.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
            if rest.next_if_eq(&'}').is_some() || rest.peek().is_none() {
                return;
            }
            expand(rest, prefix, found);
            // ` as other`
            while rest.next_if(|c| *c != ',' && *c != '}').is_some() {}
        }
    }
    let mut path = format!("{prefix}::");
    while let Some(c) = rest.next_if(|c| is_name(*c) || *c == '*') {
        path.push(c);
    }
    if rest.next_if_eq(&':').is_some() && rest.next_if_eq(&':').is_some() {
        expand(rest, &path, found);
    } else {
        found.insert(path);
    }
}

/// A `match` and the patterns of its arms.
#[derive(Debug, PartialEq, Eq)]
pub struct Match {
    /// Line of the keyword, from 1.
    pub line: usize,
    /// Patterns, with their guards.
    pub arms: Vec<String>,
}

impl Match {
    /// Variants of the enum `name` that the patterns mention.
    pub fn variants(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for arm in &self.arms {
            found.extend(paths(arm, name));
        }
        found
    }

    /// True if an arm takes everything that is left: `_`, or a name alone.
    pub fn has_wildcard(&self) -> bool {
        let all_names = |arm: &String| arm.chars().all(is_name) && !arm.starts_with(char::is_uppercase);
        self.arms.iter().any(all_names)
    }
}

/// All `match`es in code (as [`code`] returns it), in order.
pub fn matches(code: &str) -> Vec<Match> {
    let starts = code.match_indices("match ").filter(|(at, _)| !code[..*at].ends_with(is_name));
    starts
        .filter_map(|(at, word)| {
            let arms = arms(&code[at + word.len()..])?;
            Some(Match { line: code[..at].matches('\n').count() + 1, arms })
        })
        .collect()
}

/// The patterns of all `matches!` in code (as [`code`] returns it), each with the line of its macro.
pub fn patterns(code: &str) -> Vec<(usize, String)> {
    const MACRO: &str = "matches!(";
    let starts = code.match_indices(MACRO).filter(|(at, _)| !code[..*at].ends_with(is_name));
    starts
        .map(|(at, _)| {
            // Behind the first comma outside of parentheses, up to the one that closes the macro.
            let (mut depth, mut pattern) = (0, None::<String>);
            for c in code[at + MACRO.len()..].chars() {
                depth += nesting(c);
                match &mut pattern {
                    _ if depth < 0 => break,
                    Some(pattern) => pattern.push(c),
                    None if c == ',' && depth == 0 => pattern = Some(String::new()),
                    None => {}
                }
            }
            (code[..at].matches('\n').count() + 1, pattern.unwrap_or_default())
        })
        .collect()
}

/// The patterns behind the scrutinee; `None` if no block follows.
fn arms(rest: &str) -> Option<Vec<String>> {
    let chars: Vec<char> = rest.chars().collect();
    let mut i = open_block(&chars)? + 1;
    let mut arms = vec![];
    loop {
        // A pattern, up to the arrow.
        let mut pattern = String::new();
        let mut depth = 0;
        loop {
            match (*chars.get(i)?, chars.get(i + 1)) {
                ('}', _) if depth == 0 => return Some(arms),
                ('=', Some('>')) if depth == 0 => break,
                (c, _) => {
                    depth += nesting(c);
                    pattern.push(c);
                }
            }
            i += 1;
        }
        arms.push(pattern.split_whitespace().collect::<Vec<_>>().join(" "));
        // Its body: a block, or an expression up to the comma or the end of the match.
        i += 2;
        while chars.get(i).is_some_and(|c| c.is_whitespace()) {
            i += 1;
        }
        let block = chars.get(i) == Some(&'{');
        let mut depth = 0;
        loop {
            match *chars.get(i)? {
                ',' if depth == 0 => break,
                '}' if depth == 0 => return Some(arms),
                c => depth += nesting(c),
            }
            i += 1;
            if block && depth == 0 {
                break;
            }
        }
        while chars.get(i).is_some_and(|c| c.is_whitespace() || *c == ',') {
            i += 1;
        }
    }
}

/// Index of the brace that opens the arms: the first one outside of parentheses and brackets.
fn open_block(chars: &[char]) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in chars.iter().enumerate() {
        match c {
            '{' if depth == 0 => return Some(i),
            ';' => return None,
            c => depth += nesting(*c),
        }
    }
    None
}

fn nesting(c: char) -> i32 {
    match c {
        '(' | '[' | '{' => 1,
        ')' | ']' | '}' => -1,
        _ => 0,
    }
}
