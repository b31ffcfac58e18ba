//! What to do about a line that is no TOML: what people write who think of YAML, Python or a shell, and how TOML has it.
//!
//! A remedy is shown only if the line that it proposes is TOML, so that none leads from one error to the next.

use toml::de::DeTable;

/// Advice for the line of a text in which the parser gave up: the remedy of one of the usual mistakes, or what lines are.
pub(crate) fn help(text: &str, at: usize) -> String {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next().unwrap_or("");
    if let Some(help) = said_twice(&text[..start], line) {
        return help.to_owned();
    }
    let line = line.trim();
    if line.starts_with('{') || (line.starts_with('<') && line.ends_with('>')) {
        return "a config is TOML: [section] on a line, and below it lines of `key = value`".to_owned();
    }
    let mut remedies = remedies(line).into_iter();
    match remedies.find(|(_, mended)| is_toml(mended)) {
        Some((words, mended)) => format!("{words}: `{}`", mended.replace('\n', "` and below it `")),
        None => "a line is [section], key = value, or a comment behind #".to_owned(),
    }
}

fn is_toml(line: &str) -> bool {
    DeTable::parse(line).is_ok()
}

/// What is right by itself was said before: a key twice, or a section.
fn said_twice(before: &str, line: &str) -> Option<&'static str> {
    let is_right = is_toml(line) && !line.trim().is_empty() && is_toml(before);
    if !is_right || is_toml(&format!("{before}{line}")) {
        return None;
    }
    let help = match line.trim_start().starts_with('[') {
        true => "this section stands above already: move its lines there",
        false => "this key is set above already: keep one of the lines",
    };
    Some(help)
}

/// What may have been meant by a line: why it is wrong, and how it is right.
fn remedies(line: &str) -> Vec<(&'static str, String)> {
    let mut remedies = Vec::new();
    let mut add = |words: &'static str, mended: String| remedies.push((words, mended));
    for mark in ["//", "--", ";", "/*"] {
        if let Some(rest) = line.strip_prefix(mark) {
            add("write a comment with #", format!("# {}", rest.trim_end_matches("*/").trim()));
        }
    }
    let straight = line.replace(['“', '”', '„', '‘', '’'], "\"");
    if straight != line {
        add("use straight quotes", straight);
    }
    if let Some(section) = line.strip_prefix('[') {
        in_section(section, &mut add);
        return remedies;
    }
    if let Some((key, value)) = line.split_once('=') {
        in_value(key.trim(), value.trim(), &mut add);
        return remedies;
    }
    let between = "write = between key and value";
    match line.split_once(':') {
        Some((section, "")) => add("write a section in brackets", format!("[{}]", section.trim())),
        Some((key, value)) => with_value(key.trim(), value.trim(), between, &mut add),
        None => {
            if let Some((key, value)) = line.split_once(char::is_whitespace) {
                with_value(key, value.trim(), between, &mut add);
            }
        }
    }
    remedies
}

type Add<'a> = dyn FnMut(&'static str, String) + 'a;

/// The rest of a line behind its first bracket.
fn in_section(section: &str, add: &mut Add<'_>) {
    let end = section.find(']').unwrap_or(section.len());
    let (name, rest) = section.split_at(end);
    let name = name.trim();
    match rest.strip_prefix(']').map(str::trim) {
        None => add("write a section in brackets", format!("[{name}]")),
        Some("") => {}
        Some(rest) => add("write the settings of a section below it", format!("[{name}]\n{rest}")),
    }
    add(
        "names are lower case, with _ between words",
        format!("[{}]", name.replace([' ', '-'], "_").to_lowercase()),
    );
}

/// A value as it is, or as [`in_value`] mends it, behind the key.
fn with_value(key: &str, value: &str, words: &'static str, add: &mut Add<'_>) {
    add(words, format!("{key} = {value}"));
    in_value(key, value, &mut |_, mended| add(words, mended));
}

/// A value that is not one. The first remedy of which TOML can be made counts.
fn in_value(key: &str, value: &str, add: &mut Add<'_>) {
    // A comment is no part of the value, but a number sign may be one of an unfinished string.
    let value =
        if value.starts_with(['"', '\'']) { value } else { value.split('#').next().unwrap_or("").trim() };
    let mut set = |words, value: &str| add(words, format!("{key} = {value}"));
    let small = value.to_lowercase();
    match small.as_str() {
        "" => {
            return add(
                "write a value after =, or leave the line out to get the default",
                format!("# {key} ="),
            );
        }
        "true" | "false" => return set("true and false are lower case", &small),
        "yes" | "on" => return set("write true or false", "true"),
        "no" | "off" => return set("write true or false", "false"),
        "none" | "null" | "nil" => {
            return add("leave the line out to get the default", format!("# {key} = {value}"));
        }
        _ => {}
    }
    let bare = value.trim_end_matches([',', ';']);
    if bare != value {
        set("end the line after the value", bare);
        in_value(key, bare, &mut |_, mended| {
            add("end the line after the value, and put text in quotes", mended)
        });
        return;
    }
    if let Some(first) =
        value.split_whitespace().next().filter(|first| *first != value && value.contains('='))
    {
        let next = value[first.len()..].trim_start();
        set("write each setting on a line of its own", &format!("{first}\n{next}"));
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = value.strip_prefix(['-', '+']).unwrap_or(value);
    let sign = &value[..value.len() - unsigned.len()];
    if unsigned.split([',', ' ', '\'', '.']).all(digits) && unsigned.contains([',', ' ', '\'']) {
        set("group the digits of a number with _ only", &value.replace([',', ' ', '\''], "_"));
    }
    if let Some((whole, fraction)) = unsigned.split_once('.').filter(|(w, f)| w.is_empty() || f.is_empty()) {
        let or_zero = |text: &str| if text.is_empty() { "0".to_owned() } else { text.to_owned() };
        set(
            "write digits on both sides of the point",
            &format!("{sign}{}.{}", or_zero(whole), or_zero(fraction)),
        );
    }
    let trimmed = unsigned.trim_start_matches('0');
    if trimmed != unsigned && digits(unsigned) {
        set(
            "write a number without leading zeros",
            &format!("{sign}{}", if trimmed.is_empty() { "0" } else { trimmed }),
        );
    }
    in_text(value, &mut set);
}

/// A text that lacks quotes, or has characters that they give a meaning to.
fn in_text(value: &str, set: &mut dyn FnMut(&'static str, &str)) {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = value[1..].trim_end_matches(quote);
            if value.contains('\\') {
                set(r"\ begins an escape in double quotes, use single ones", &format!("'{inner}'"));
            }
            set("end a text with the quote that begins it", &format!("{quote}{inner}{quote}"));
            set(
                "put one pair of quotes around the whole text",
                &format!("\"{}\"", inner.replace(['"', '\''], "")),
            );
        }
        Some('[') => {
            let inner = value[1..].trim_end_matches(']');
            set("end a list with ]", &format!("[{inner}]"));
            let words = inner
                .split(',')
                .map(|word| word.trim().trim_matches(['"', '\'']))
                .filter(|word| !word.is_empty());
            let quoted: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
            set("put each text of a list in quotes", &format!("[{}]", quoted.join(", ")));
        }
        Some(_) if !value.contains('"') => set("put text in quotes", &quoted(value)),
        Some(_) => set("put text in quotes", &format!("'{value}'")),
        None => {}
    }
}

/// In quotes that mean nothing else by what is in them.
fn quoted(value: &str) -> String {
    if value.contains('\\') { format!("'{value}'") } else { format!("\"{value}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a text.
    fn advice(text: &str) -> String {
        let error = DeTable::parse(text).expect_err(text);
        help(text, error.span().map_or(text.len(), |span| span.start))
    }

    #[test]
    fn lines_of_other_languages_are_told_how_toml_has_them() {
        for (text, said) in [
            ("[model]\nflavor = nano", "put text in quotes: `flavor = \"nano\"`"),
            ("[model]\nflavor = nano # small", "put text in quotes: `flavor = \"nano\"`"),
            (
                "[training]\ndataset_path = ./books/*.txt",
                "put text in quotes: `dataset_path = \"./books/*.txt\"`",
            ),
            ("[model]\nlinear_attn_ratio = 1/2\n", "put text in quotes: `linear_attn_ratio = \"1/2\"`"),
            ("[model]\nflavor: nano", "write = between key and value: `flavor = \"nano\"`"),
            ("[training]\nsteps: 5", "write = between key and value: `steps = 5`"),
            ("[training]\nsteps 5", "write = between key and value: `steps = 5`"),
            ("training:\n  steps: 5", "write a section in brackets: `[training]`"),
            ("[training\nsteps = 5", "write a section in brackets: `[training]`"),
            ("[lr scheduler]", "names are lower case, with _ between words: `[lr_scheduler]`"),
            (
                "[training] steps = 5",
                "write the settings of a section below it: `[training]` and below it `steps = 5`",
            ),
            ("[training]\nshuffle = True", "true and false are lower case: `shuffle = true`"),
            ("[training]\nshuffle = no", "write true or false: `shuffle = false`"),
            ("[training]\nsteps = None", "leave the line out to get the default: `# steps = None`"),
            ("[training]\nsteps =\n", "leave the line out to get the default"),
            ("[training]\nsteps = 5,", "end the line after the value: `steps = 5`"),
            ("[training]\nsteps = 5;", "end the line after the value: `steps = 5`"),
            (
                "[model]\nflavor = nano,",
                "end the line after the value, and put text in quotes: `flavor = \"nano\"`",
            ),
            ("[training]\nsteps = 1,000", "group the digits of a number with _ only: `steps = 1_000`"),
            (
                "[training]\nsteps = 5 seq_len = 4",
                "a line of its own: `steps = 5` and below it `seq_len = 4`",
            ),
            ("[training]\nsteps = 05", "without leading zeros: `steps = 5`"),
            ("[optimizer]\nlr = -.5", "both sides of the point: `lr = -0.5`"),
            ("[optimizer]\nlr = 5.", "both sides of the point: `lr = 5.0`"),
            ("[model]\nname = \"llama3\n", "end a text with the quote that begins it: `name = \"llama3\"`"),
            ("[model]\nname = “llama3”\n", "use straight quotes: `name = \"llama3\"`"),
            ("[training]\ndataset_path = \"C:\\data\"", "use single ones: `dataset_path = 'C:\\data'`"),
            ("[training]\ndataset_path = C:\\data", "put text in quotes: `dataset_path = 'C:\\data'`"),
            ("[compile]\ndisable_passes = [fusion, cse]", "`disable_passes = [\"fusion\", \"cse\"]`"),
            ("[model]\nlinear_attn_placement = [0, 2", "end a list with ]: `linear_attn_placement = [0, 2]`"),
            ("// what it is for\n[training]", "write a comment with #: `# what it is for`"),
            ("{\"training\": {\"steps\": 5}}", "a config is TOML"),
            (
                "First Citizen:\nBefore we proceed any further, hear me speak.\n",
                "a line is [section], key = value",
            ),
            ("[training]\nsteps = 5\nsteps = 6\n", "this key is set above already"),
            ("[training]\nsteps = 5\n[model]\n[training]\n", "this section stands above already"),
        ] {
            let advice = advice(text);
            assert!(advice.contains(said), "{text}: {advice}");
        }
    }

    #[test]
    fn every_place_of_every_text_has_advice() {
        for text in [
            "  é = \t中\r\n   [ü",
            "a = 1\n   a = “é”\n",
            "\u{feff}= é",
            "   é: 🦊, \n",
            "[é]\n  [é]\n",
            "a=[é,\n🦊",
        ] {
            for at in 0..=text.len() + 2 {
                assert!(!help(text, at).is_empty(), "{text} at {at}");
            }
        }
    }

    #[test]
    fn nothing_is_proposed_that_is_no_toml() {
        for text in [
            "= = =",
            "[a]]",
            "a = {b = }",
            "a = \"\"\"x",
            "\"",
            "a = 'b'c'",
            "é",
            "a = [[",
            "\u{7f}",
            "a.=1",
            "a = \\",
        ] {
            if let Some((_, proposed)) = advice(text).split_once(": `") {
                let line = proposed.trim_end_matches('`').replace("` and below it `", "\n");
                assert!(is_toml(&line), "{text}: {line}");
            }
        }
    }
}
