//! The loss of texts: any file or folder, and WikiText as lm-evaluation-harness takes it.

use linc_data::Event;
use serde_json::json;

use super::files;
use crate::error::EvalError;
use crate::sample::{Ask, Continuation, Grade, Sample};
use crate::task::{Chance, Made, Setting, Task};
use crate::tokens::{repeated_pairs, windows};

pub(crate) const TASKS: &[Task] = &[
    Task {
        name: "text",
        version: 1,
        about: "loss, perplexity and bits per byte of any text (--text PATH), over windows; by place, and by whether a pair of tokens occurred before",
        shots: None,
        options: &["stride"],
        metric: "perplexity",
        chance: Chance::None,
        make: any,
    },
    Task {
        name: "wikitext",
        version: 2,
        about: "pages of WikiText-2's test split, de-tokenized, with words and bytes of the page as it is: wikitext2/wiki.test.raw",
        shots: None,
        options: &["stride"],
        metric: "word_perplexity",
        chance: Chance::None,
        make: wikitext,
    },
];

/// A text that is scored, and the one that words and bytes are counted in.
struct Document {
    text: String,
    words: usize,
    bytes: usize,
}

impl Document {
    fn new(text: String, counted: &str) -> Self {
        // As by a split at whitespace, which a blank at either end makes one longer.
        let words = counted.split_whitespace().count()
            + usize::from(counted.starts_with(char::is_whitespace))
            + usize::from(counted.ends_with(char::is_whitespace));
        Self { text, words, bytes: counted.len() }
    }
}

fn any(_: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    let Some(path) = &setting.text else {
        let message = "the task text needs a text";
        return Err(EvalError::request(message, "name a file, a folder or a pattern: --text PATH"));
    };
    let mut tell = |_: Event<'_>| {};
    let tokenizer = setting.tokenizer()?;
    let texts = linc_data::read_texts(path, &setting.text_field, tokenizer, setting.stop, &mut tell)?;
    let documents = texts.into_iter().map(|text| {
        let counted = text.clone();
        Document::new(text, &counted)
    });
    samples(setting, documents.collect())
}

fn wikitext(_: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    let names = ["wikitext2/wiki.test.raw", "wikitext-2-raw/wiki.test.raw", "wiki.test.raw"];
    let path = files::find(setting, &names)?;
    let text = linc_data::read_file(&path)?;
    let documents: Vec<Document> =
        pages(&text).into_iter().map(|page| Document::new(detokenized(&page), &page)).collect();
    if documents.is_empty() {
        let help = "it is to be the raw test split of WikiText-2, whose pages begin with a line = Title =";
        return Err(EvalError::file(&path, "there is no page in it", help));
    }
    samples(setting, documents)
}

/// A sample for each window; a document's words and bytes are shared among its tokens.
fn samples(setting: &Setting<'_>, documents: Vec<Document>) -> Result<Made, EvalError> {
    let tokenizer = setting.tokenizer()?;
    let room = setting.context;
    let stride = setting.stride.unwrap_or(room);
    if stride > room {
        let message = format!("--stride is {stride}, and a window has {room} tokens");
        return Err(EvalError::request(
            message,
            "with a larger --context, or a smaller --stride, no token is left out",
        ));
    }
    let mut samples = vec![];
    let wanted = setting.up_to(documents.len());
    for (index, document) in documents.into_iter().enumerate().take(wanted) {
        let mut ids: Vec<u32> = setting.bos.token(tokenizer, true).into_iter().collect();
        ids.extend(tokenizer.encode_ids(&document.text)?);
        let targets = ids.len().saturating_sub(1).max(1) as f64;
        for (window, (range, from)) in windows(ids.len(), room, stride).into_iter().enumerate() {
            let ids = ids[range.clone()].to_vec();
            let share = (ids.len() - from) as f64 / targets;
            let hits = repeated_pairs(&ids, from);
            let doc = json!({
                "document": index,
                "tokens": [range.start + from, range.end],
                "text": if window == 0 { document.text.as_str() } else { "" },
            });
            samples.push(Sample {
                id: format!("{index}:{window}"),
                group: String::new(),
                doc,
                ask: Ask::Likelihoods(vec![Continuation { ids, from, cut: 0 }]),
                grade: Grade::Text {
                    words: document.words as f64 * share,
                    bytes: document.bytes as f64 * share,
                    hits,
                },
            });
        }
    }
    Ok(samples.into())
}

/// The pages of a split: each begins with a line such as ` = Title = `.
fn pages(text: &str) -> Vec<String> {
    let is_title = |line: &str| {
        let line = line.replace("= = =", "===").replace("= =", "==");
        let line = line.trim();
        line.starts_with("= ") && line.ends_with(" =")
    };
    let mut pages: Vec<Vec<&str>> = vec![vec![]];
    for line in text.split('\n') {
        if is_title(line) {
            pages.push(vec![]);
        }
        pages.last_mut().expect("one at least").push(line);
    }
    let pages = pages.into_iter().map(|lines| lines.join("\n"));
    pages.filter(|page| !page.trim().is_empty()).collect()
}

/// WikiText's text as it was before its tokens were set apart by blanks, in the steps of lm-evaluation-harness.
fn detokenized(page: &str) -> String {
    const BEFORE: [(&str, &str); 10] = [
        ("s '", "s'"),
        (" @-@ ", "-"),
        (" @,@ ", ","),
        (" @.@ ", "."),
        (" : ", ": "),
        (" ; ", "; "),
        (" . ", ". "),
        (" ! ", "! "),
        (" ? ", "? "),
        (" , ", ", "),
    ];
    const AROUND: [(char, char); 5] = [('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')];
    const AFTER: [(&str, &str); 8] = [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" \u{b0} ", "\u{b0}"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ];
    let replaced = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
    let text = BEFORE.iter().fold(page.to_owned(), replaced);
    let text = AROUND.iter().fold(text, |text, (open, close)| tight(&text, *open, *close));
    AFTER.iter().fold(text, replaced)
}

/// Without the blanks at either end of what is between two characters.
fn tight(text: &str, open: char, close: char) -> String {
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(open) {
        let Some((inside, after)) = behind.split_once(close) else { break };
        found.push_str(before);
        found.push(open);
        found.push_str(inside.trim());
        found.push(close);
        rest = after;
    }
    found.push_str(rest);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_with_their_titles() {
        let text = " \n = One = \n \n Text . \n = = Part = = \n More . \n = Two = \n x \n";
        assert_eq!(pages(text), [" = One = \n \n Text . \n = = Part = = \n More . ", " = Two = \n x \n"]);
        assert!(pages(" \n ").is_empty());
    }

    #[test]
    fn text_is_put_together_again() {
        let page = " = A @-@ B = \n It 's 1 @,@ 000 @.@ 5 ( see [ 2 ] ) , \" so \" ; dogs ' tails . \n = = Part = = \n";
        assert_eq!(detokenized(page), " = A-B =\nIt's 1,000.5 (see [2]), \"so\"; dogs' tails.\n== Part ==\n");
        assert_eq!(tight("( a ( b ) c ) ( d", '(', ')'), "(a ( b) c ) ( d");
    }

    #[test]
    fn words_and_bytes_are_those_of_the_page() {
        let document = Document::new("a-b".into(), " a @-@ b \n");
        assert_eq!((document.words, document.bytes), (5, 10), "as a split at blanks counts");
    }
}
