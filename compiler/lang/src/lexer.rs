//! Text to tokens. Comments and blank lines travel with the token that follows them.

use crate::ast::{Span, Trivia};
use crate::diagnostics::{Diagnostic, Source};

/// Words that are not names.
pub(crate) const KEYWORDS: [&str; 15] = [
    "model", "fn", "param", "init", "let", "for", "in", "if", "else", "block", "return", "true", "false",
    "and", "or",
];

/// `not` is a keyword too; it is apart because only expressions may start with it.
pub(crate) const NOT: &str = "not";

/// The smallest pieces of the language.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TokenKind {
    /// A name or keyword.
    Word(String),
    /// A whole number.
    Int(i64),
    /// A number with a fraction or exponent.
    Float(f64),
    /// An operator or bracket.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

/// A piece with its place and what stood before it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
    /// A comment on the line of the token before, after it.
    pub(crate) comment: Option<String>,
    /// Comments on their own lines and blank lines.
    pub(crate) lead: Vec<Trivia>,
}

impl Token {
    /// For `expected ..., found ...`.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            TokenKind::Word(word) => format!("`{word}`"),
            TokenKind::Int(value) => format!("`{value}`"),
            TokenKind::Float(value) => format!("`{value:?}`"),
            TokenKind::Symbol(symbol) => format!("`{symbol}`"),
            TokenKind::End => "the end of the file".into(),
        }
    }
}

/// Longer symbols first, so that `//` is not read as two `/`.
const SYMBOLS: [&str; 22] = [
    "//", "==", "!=", "<=", ">=", "<", ">", "=", "+", "-", "*", "/", "@", "(", ")", "[", "]", "{", "}", ",",
    ":", ".",
];

/// Splits a text into tokens; the last one is [`TokenKind::End`].
pub(crate) fn lex(source: &Source) -> Result<Vec<Token>, Box<Diagnostic>> {
    let mut lexer = Lexer { source, at: 0, comment: None, lead: Vec::new(), tokens: Vec::new() };
    if source.text.starts_with('\u{feff}') {
        lexer.at = '\u{feff}'.len_utf8();
    }
    loop {
        lexer.space();
        let start = lexer.at;
        let kind = lexer.token()?;
        let done = kind == TokenKind::End;
        let span = Span { start, end: lexer.at };
        let (comment, lead) = (lexer.comment.take(), std::mem::take(&mut lexer.lead));
        lexer.tokens.push(Token { kind, span, comment, lead });
        if done {
            return Ok(lexer.tokens);
        }
    }
}

struct Lexer<'a> {
    source: &'a Source,
    at: usize,
    comment: Option<String>,
    lead: Vec<Trivia>,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source.text[self.at..]
    }

    /// Skips white space and comments and remembers what the formatter needs of them.
    fn space(&mut self) {
        let mut newlines = 0;
        loop {
            match self.rest().chars().next() {
                Some('#') => {
                    let line = self.rest().split('\n').next().unwrap_or_default();
                    self.at += line.len();
                    let text = line[1..].trim_end().to_string();
                    if newlines == 0 && self.lead.is_empty() && !self.tokens.is_empty() {
                        self.comment = Some(text);
                    } else {
                        self.blank(newlines);
                        self.lead.push(Trivia::Comment(text));
                    }
                    newlines = 0;
                }
                Some(c) if c.is_ascii_whitespace() => {
                    newlines += usize::from(c == '\n');
                    self.at += 1;
                }
                Some(_) | None => break,
            }
        }
        self.blank(newlines);
    }

    fn blank(&mut self, newlines: usize) {
        if newlines > 1 && self.lead.last() != Some(&Trivia::Blank) {
            self.lead.push(Trivia::Blank);
        }
    }

    fn token(&mut self) -> Result<TokenKind, Box<Diagnostic>> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(TokenKind::End);
        };
        if first.is_ascii_alphabetic() || first == '_' {
            let word = take(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            self.at += word.len();
            return Ok(TokenKind::Word(word.to_string()));
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            self.at += symbol.len();
            return Ok(TokenKind::Symbol(symbol));
        }
        let span = self.at..self.at + first.len_utf8();
        let shown = if first.is_control() { format!("{first:?}") } else { format!("`{first}`") };
        let help = match first {
            ';' => Some("statements need no separator: remove it".to_string()),
            '\'' | '"' => Some("there are no strings in the language".to_string()),
            '&' => Some("write `and`".to_string()),
            '|' => Some("write `or`".to_string()),
            '!' => Some(format!("write `{NOT}`")),
            _ => None,
        };
        let error = Diagnostic::new(&self.source.path, span, format!("unexpected character {shown}"));
        Err(Box::new(error.help(help)))
    }

    /// `123`, `128_256`, `1.5`, `1e-5`, `1.5e3`.
    fn number(&mut self) -> Result<TokenKind, Box<Diagnostic>> {
        let rest = self.rest();
        let digit = |c: char| c.is_ascii_digit() || c == '_';
        let mut len = take(rest, digit).len();
        let mut float = false;
        if rest[len..].starts_with('.') && rest[len + 1..].starts_with(|c: char| c.is_ascii_digit()) {
            len += 1 + take(&rest[len + 1..], digit).len();
            float = true;
        }
        if rest[len..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
            let exponent = take(&rest[len + 1 + sign..], digit).len();
            if exponent > 0 {
                len += 1 + sign + exponent;
                float = true;
            }
        }
        let tail = take(&rest[len..], |c| c.is_ascii_alphanumeric() || c == '_').len();
        let span = self.at..self.at + len + tail;
        self.at = span.end;
        let text = &rest[..len + tail];
        let digits = text.replace('_', "");
        let fail = |message: String| Err(Box::new(Diagnostic::new(&self.source.path, span.clone(), message)));
        if tail > 0 {
            return fail(format!("`{text}` is not a number, and a name cannot start with a digit"));
        }
        if float {
            match digits.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(TokenKind::Float(value)),
                Ok(_) | Err(_) => fail(format!("the number {text} is too large")),
            }
        } else {
            match digits.parse::<i64>() {
                Ok(value) => Ok(TokenKind::Int(value)),
                Err(_) => fail(format!("the number {text} is too large")),
            }
        }
    }
}

/// The longest start of `text` whose characters all satisfy `keep`.
fn take(text: &str, keep: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !keep(c)).unwrap_or(text.len())]
}
