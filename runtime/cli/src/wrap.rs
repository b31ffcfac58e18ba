//! Text in lines that fit a terminal.

use console::measure_text_width;
use linc_infer::visible;

/// What lines of a quotation begin with.
const BAR: &str = "    | ";
/// In less room than this no text can be read, and none is wrapped.
const NARROW: usize = 10;
/// Columns by which what is left of a line stands further in.
const HANGING: usize = 2;

/// A time and a text in lines of at most `width` columns, but for words that are longer. What is a line of the text by itself
/// stays one, without the time from the second on.
pub(crate) fn with_time(time: &str, text: &str, width: usize) -> String {
    let indent = " ".repeat(time.len());
    let starts = std::iter::once(time).chain(std::iter::repeat(indent.as_str()));
    text.split('\n')
        .zip(starts)
        .map(|(line, start)| wrapped_line(&format!("{start} "), line, start.len() + 1, width))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A text whose lines are at most `width` columns, if there is an end to them. What does not fit stands below, further in.
pub(crate) fn wrapped(text: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| *width > NARROW) else { return text.to_owned() };
    let line = |line: &str| {
        let words = line.trim_start();
        let start = &line[..line.len() - words.len()];
        wrapped_line(start, words, start.len() + HANGING, width)
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A line that begins with `start` and goes on, where it is too long, below in column `indent`.
fn wrapped_line(start: &str, text: &str, indent: usize, width: usize) -> String {
    // Spaces within a text that fits are kept: fields of a record are two of them apart.
    if measure_text_width(text) + measure_text_width(start) <= width {
        return format!("{start}{text}");
    }
    let mut lines = vec![start.to_owned()];
    let mut is_begun = false;
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| measure_text_width(line));
        match lines.last_mut() {
            Some(line) if !is_begun => line.push_str(word),
            Some(line) if last + 1 + measure_text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(format!("{:indent$}{word}", "")),
        }
        is_begun = true;
    }
    lines.join("\n")
}

/// A text as a quotation, in lines that fit `width` columns, if there is an end to them. What cannot be printed is written
/// as an escape.
pub(crate) fn indented(text: &str, width: Option<usize>) -> String {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(BAR.len() + 1));
    let room = if room < NARROW { usize::MAX } else { room };
    let text = visible(text);
    let lines = text.lines().flat_map(|line| pieces(line, room));
    lines.map(|line| format!("{BAR}{line}")).collect::<Vec<_>>().join("\n")
}

/// A line in pieces of at most `room` columns, which end behind a word where one does.
fn pieces(line: &str, room: usize) -> Vec<&str> {
    let (mut pieces, mut rest) = (vec![], line);
    while measure_text_width(rest) > room {
        let mut columns = 0;
        let fits = |(_, c): &(usize, char)| {
            columns += measure_text_width(c.encode_utf8(&mut [0; 4]));
            columns <= room
        };
        let end = rest
            .char_indices()
            .take_while(fits)
            .map(|(at, c)| at + c.len_utf8())
            .last()
            .unwrap_or(rest.len());
        // The space at the end of a piece is not seen, so it may be one too many.
        let behind =
            rest[..end].len() + rest[end..].chars().next().filter(|c| *c == ' ').map_or(0, |c| c.len_utf8());
        let cut = rest[..behind].rfind(' ').map_or(end, |space| space + 1);
        pieces.push(rest[..cut].trim_end_matches(' '));
        rest = &rest[cut..];
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_wrapped_where_there_is_an_end_of_the_line() {
        let text = "One day a fox went out.\n\nIt  was\u{e9}\u{b} cold";
        assert_eq!(
            indented(text, None),
            "    | One day a fox went out.\n    | \n    | It  was\u{e9}\\u{b} cold"
        );
        let narrow = "    | One day a\n    | fox went\n    | out.\n    | \n    | It\n    | was\u{e9}\\u{b}\n    | cold";
        assert_eq!(indented(text, Some(17)), narrow);
        let long = indented(&"x".repeat(30), Some(17));
        assert!(long.lines().all(|line| line.len() <= 16) && long.matches('x').count() == 30, "{long}");
        assert_eq!(indented("ab", Some(0)), "    | ab", "a terminal that tells no width");
    }

    #[test]
    fn long_messages_are_wrapped_between_words() {
        assert_eq!(with_time("12:34:56", "step:  4  loss:  6.2", 40), "12:34:56 step:  4  loss:  6.2");
        let text = "Going on with the run in outputs/a_folder_with_a_long_name, which has 4 steps";
        let lines = "12:34:56 Going on with the run in\n         outputs/a_folder_with_a_long_name,\n         which has 4 steps";
        assert_eq!(with_time("12:34:56", text, 36), lines);
        let config = "Running with config:\n[job]\ndescription = \"two  spaces\"";
        let lines = "12:34:56 Running with config:\n         [job]\n         description = \"two  spaces\"";
        assert_eq!(with_time("12:34:56", config, 40), lines);
    }

    #[test]
    fn texts_hang_below_their_first_line() {
        let text = "  --training.steps (an integer; default 10000)\n      How many\nLayers";
        assert_eq!(wrapped(text, None), text);
        let narrow = "  --training.steps\n    (an integer;\n    default 10000)\n      How many\nLayers";
        assert_eq!(wrapped(text, Some(20)), narrow);
        assert_eq!(wrapped(text, Some(3)), text, "nobody reads that");
    }
}
