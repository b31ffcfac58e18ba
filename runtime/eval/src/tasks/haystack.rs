//! Long texts to hide something in: sentences of real books, filled up to a number of tokens.

use std::fs;
use std::path::{Path, PathBuf};

use linc_data::Tokenizer;

use super::files::find;
use crate::error::EvalError;
use crate::task::Setting;

/// Sentences, each with its number of tokens.
pub(crate) struct Haystack<'a> {
    tokenizer: &'a Tokenizer,
    sentences: Vec<(String, usize)>,
}

impl<'a> Haystack<'a> {
    /// The first sentences of the books in the data folder, enough for `tokens` several times over where there are so many.
    ///
    /// # Errors
    /// There are no books.
    pub(crate) fn books(setting: &'a Setting<'_>, tokens: usize) -> Result<Self, EvalError> {
        let tokenizer = setting.tokenizer()?;
        let folder = find(setting, &["books"])?;
        let mut files = vec![];
        text_files(&folder, &mut files)?;
        files.sort();
        let (mut sentences, mut count) = (vec![], 0);
        for file in files {
            // What is no UTF-8 is no book for this.
            let Ok(text) = linc_data::read_file(&file) else { continue };
            for sentence in split(&text) {
                let tokens = tokenizer.encode_ids(&sentence)?.len();
                count += tokens;
                sentences.push((sentence, tokens));
            }
            if count > 4 * tokens {
                break;
            }
        }
        match sentences.is_empty() {
            false => Ok(Haystack { tokenizer, sentences }),
            true => {
                let help = "put books as .txt files into it, in folders at any depth";
                Err(EvalError::file(&folder, "there is no text in it", help))
            }
        }
    }

    /// One sentence, again and again.
    ///
    /// # Errors
    /// The tokenizer has no tokens for it.
    pub(crate) fn of(tokenizer: &'a Tokenizer, sentences: &[&str]) -> Result<Self, EvalError> {
        let counted = |sentence: &&str| {
            let sentence = format!("{sentence} ");
            let tokens = tokenizer.encode_ids(&sentence)?.len();
            Ok::<_, EvalError>((sentence, tokens))
        };
        let sentences = sentences.iter().map(counted).collect::<Result<_, _>>()?;
        Ok(Haystack { tokenizer, sentences })
    }

    /// A text of at most `room` tokens: `around` makes it of a body of sentences, from number `start` on, in which `hidden`
    /// are at their depths, shares of the body. Nothing if there is no room for any sentence.
    ///
    /// # Errors
    /// The tokenizer has no tokens for it.
    pub(crate) fn fill(
        &self,
        room: usize,
        start: usize,
        hidden: &[(f64, String)],
        around: &dyn Fn(&str) -> String,
    ) -> Result<Option<String>, EvalError> {
        let bare = self.text(start, 0, hidden);
        let fixed = self.tokenizer.encode_ids(&around(&bare))?.len();
        let Some(mut left) = room.checked_sub(fixed) else { return Ok(None) };
        let all = self.sentences.len();
        let mut count = 0;
        while let Some(rest) = left.checked_sub(self.sentences[(start + count) % all].1.max(1)) {
            left = rest;
            count += 1;
        }
        // Tokens of the whole may be a few more than those of its parts.
        while count > 0 {
            let text = around(&self.text(start, count, hidden));
            if self.tokenizer.encode_ids(&text)?.len() <= room {
                return Ok(Some(text));
            }
            count -= 1;
        }
        Ok(None)
    }

    fn text(&self, start: usize, count: usize, hidden: &[(f64, String)]) -> String {
        let mut text = String::new();
        let mut hidden: Vec<(usize, &str)> = hidden
            .iter()
            .map(|(depth, what)| ((depth * count as f64).round() as usize, what.as_str()))
            .collect();
        hidden.sort_by_key(|(at, _)| *at);
        let mut next = hidden.into_iter().peekable();
        for at in 0..=count {
            while let Some((_, what)) = next.next_if(|(place, _)| *place <= at) {
                text.push_str(what);
                text.push(' ');
            }
            if at < count {
                text.push_str(&self.sentences[(start + at) % self.sentences.len()].0);
            }
        }
        text.trim_end().to_owned()
    }

    /// Number of its sentences.
    pub(crate) fn len(&self) -> usize {
        self.sentences.len()
    }
}

fn text_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), EvalError> {
    for entry in fs::read_dir(folder).map_err(EvalError::unreadable(folder))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            text_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            found.push(path);
        }
    }
    Ok(())
}

/// Sentences with the blank behind them; line breaks are blanks.
fn split(text: &str) -> Vec<String> {
    let (mut found, mut sentence) = (vec![], String::new());
    for word in text.split_whitespace() {
        sentence.push_str(word);
        sentence.push(' ');
        // A title, such as Mr., ends no sentence.
        let is_title = word.len() <= 3 && word.starts_with(char::is_uppercase);
        if word.ends_with(['.', '!', '?']) && !is_title {
            found.push(std::mem::take(&mut sentence));
        }
    }
    if !sentence.is_empty() {
        found.push(sentence);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fill_their_room_and_hide_things_at_their_depths() {
        let bytes = Tokenizer::bytes();
        let hay = Haystack::of(&bytes, &["Nothing here.", "Nor here."]).expect("bytes");
        for room in [60, 200, 1000] {
            let hidden = [(0.0, "FIRST".to_owned()), (1.0, "LAST".to_owned()), (0.5, "MIDDLE".to_owned())];
            let text = hay.fill(room, 1, &hidden, &|body| format!("<{body}>")).expect("bytes").expect("room");
            assert!(text.len() <= room && text.len() + 20 > room, "{} of {room}", text.len());
            assert!(text.starts_with("<FIRST Nor here. ") && text.ends_with("LAST>"), "{text}");
            let at = text.find("MIDDLE").expect("there") as f64 / text.len() as f64;
            assert!((at - 0.5).abs() < 0.2, "{at}");
        }
        assert_eq!(hay.fill(8, 0, &[], &|body| format!("long before it {body}")).expect("bytes"), None);
        assert_eq!(split("One is. Mr. Two\n\nthree! x"), ["One is. ", "Mr. Two three! ", "x "]);
    }
}
