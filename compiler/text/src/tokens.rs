//! Takes the tokens of a text one by one. What does not fit is not taken, so that errors point at it.

use std::str::FromStr;

use crate::lex::{Token, TokenKind, lex};
use crate::{Parsed, Position};

/// The tokens of a text and how far they have been taken.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The last is [`TokenKind::End`].
    tokens: Vec<Token>,
    next: usize,
}

impl Tokens {
    /// Splits a text.
    ///
    /// # Errors
    /// The first character that begins no token, or a string that does not end.
    pub fn new(text: &str) -> Parsed<Tokens> {
        Ok(Tokens { tokens: lex(text)?, next: 0 })
    }

    fn ahead(&self, count: usize) -> &Token {
        &self.tokens[(self.next + count).min(self.tokens.len() - 1)]
    }

    /// The next token, which is not taken; at the end of the text, [`TokenKind::End`] for ever.
    pub fn peek(&self) -> &TokenKind {
        &self.ahead(0).kind
    }

    /// The token behind the next one.
    pub fn peek_second(&self) -> &TokenKind {
        &self.ahead(1).kind
    }

    /// Where the next token starts.
    pub fn at(&self) -> Position {
        self.ahead(0).at
    }

    /// Takes the next token.
    pub fn advance(&mut self) -> Token {
        let token = self.ahead(0).clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    /// The error that something else is next.
    ///
    /// # Errors
    /// Always, with `expected`, the next token and its position.
    pub fn expected<T>(&self, expected: &str) -> Parsed<T> {
        Err(self.at().error(format!("expected {expected}, found {}", self.peek().describe())))
    }

    /// Takes the next token if `read` makes something of it.
    ///
    /// # Errors
    /// It makes nothing of it; `expected` says what would have done.
    pub fn take<T>(&mut self, expected: &str, read: impl Fn(&TokenKind) -> Option<T>) -> Parsed<T> {
        match read(self.peek()) {
            Some(value) => {
                self.advance();
                Ok(value)
            }
            None => self.expected(expected),
        }
    }

    /// Whether the next token is this one, which is taken then.
    pub fn eat(&mut self, symbol: char) -> bool {
        self.take("", |kind| (*kind == TokenKind::Symbol(symbol)).then_some(())).is_ok()
    }

    /// Whether the next token is this word, which is taken then.
    pub fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Word(found) if found == word);
        if found {
            self.advance();
        }
        found
    }

    /// Takes one of `(){}[]=,:;!<`.
    ///
    /// # Errors
    /// Something else is next.
    pub fn symbol(&mut self, symbol: char) -> Parsed<()> {
        if self.eat(symbol) { Ok(()) } else { self.expected(&format!("`{symbol}`")) }
    }

    /// Takes this word.
    ///
    /// # Errors
    /// Something else is next.
    pub fn keyword(&mut self, word: &str) -> Parsed<()> {
        if self.eat_word(word) { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    /// Takes any word.
    ///
    /// # Errors
    /// No word is next; `expected` says what the word is for.
    pub fn word(&mut self, expected: &str) -> Parsed<String> {
        self.named(expected, |word| Some(word.to_string()))
    }

    /// Takes a word of a closed set.
    ///
    /// # Errors
    /// No word is next, or one that `from_name` does not know.
    pub fn named<T>(&mut self, expected: &str, from_name: impl Fn(&str) -> Option<T>) -> Parsed<T> {
        self.take(expected, |kind| match kind {
            TokenKind::Word(word) => from_name(word),
            _ => None,
        })
    }

    /// Takes a string.
    ///
    /// # Errors
    /// No string is next.
    pub fn text(&mut self, expected: &str) -> Parsed<String> {
        self.take(expected, |kind| match kind {
            TokenKind::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// Takes a number, in the type that the caller stores it in.
    ///
    /// # Errors
    /// No number is next, or none of that type.
    pub fn number<T: FromStr>(&mut self, expected: &str) -> Parsed<T> {
        self.take(expected, |kind| match kind {
            TokenKind::Number(text) => text.parse().ok(),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quote;

    #[test]
    fn tokens_have_their_kinds_and_places() {
        let mut tokens = Tokens::new("a # no\n  %x.1..%lo -1e-5;@a/b.0 @\"c d\" NaN").expect("tokens");
        let mut found = vec![];
        while *tokens.peek() != TokenKind::End {
            let token = tokens.advance();
            found.push((token.kind.describe(), token.at.line, token.at.column));
        }
        let expected = [
            ("`a`", 1, 1),
            ("`%x.1`", 2, 3),
            ("`..`", 2, 7),
            ("`%lo`", 2, 9),
            ("`-1e-5`", 2, 13),
            ("`;`", 2, 18),
            ("`@a/b.0`", 2, 19),
            ("`@c d`", 2, 26),
            ("`NaN`", 2, 33),
        ];
        assert_eq!(found, expected.map(|(text, line, column)| (text.to_string(), line, column)));
        assert_eq!(tokens.advance().kind, TokenKind::End);
        assert_eq!(tokens.advance().kind, TokenKind::End, "nothing moves past the end");
    }

    #[test]
    fn strings_come_back() {
        for text in ["", "a \"b\" \\ c", "line\nbreak\u{7f}", "ü → \u{1F600}"] {
            let mut tokens = Tokens::new(&quote(text)).expect("a string");
            assert_eq!(tokens.text("a string").expect("a string"), text);
        }
    }

    #[test]
    fn what_does_not_fit_stays_and_is_named() {
        let mut tokens = Tokens::new("dot 1.5 ]").expect("tokens");
        assert!(!tokens.eat_word("do"));
        let error = tokens.symbol('[').expect_err("a word is next");
        assert_eq!(error.to_string(), "line 1, column 1: expected `[`, found `dot`");
        tokens.keyword("dot").expect("it is still there");
        assert!(tokens.number::<usize>("a size").is_err());
        assert_eq!(tokens.number::<f64>("a number"), Ok(1.5));
        assert_eq!(tokens.peek_second(), &TokenKind::End);
        assert!(tokens.eat(']'));
    }
}
