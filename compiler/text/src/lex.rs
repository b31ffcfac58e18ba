//! Splits a text into tokens.

use std::iter::Peekable;
use std::str::Chars;

use crate::{Parsed, Position};

/// The kinds of both text forms; a parser refuses those that its grammar lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// A name or keyword, also `inf` and `NaN`.
    Word(String),
    /// A number as written, also `-inf`. Whether it is one is for the parser to say.
    Number(String),
    /// A string literal, without quotes and escapes.
    Text(String),
    /// `%name` or `%name.1`, without the `%`.
    Value(String),
    /// `@scope`, without the `@`, and without quotes where it has some.
    Scope(String),
    /// One of `(){}[]=,:;!<`
    Symbol(char),
    /// `..`
    DotDot,
    /// The end of the text.
    End,
}

impl TokenKind {
    /// The token in an error message.
    pub fn describe(&self) -> String {
        match self {
            TokenKind::Word(text) | TokenKind::Number(text) => format!("`{text}`"),
            TokenKind::Text(text) => format!("the string {text:?}"),
            TokenKind::Value(name) => format!("`%{name}`"),
            TokenKind::Scope(scope) => format!("`@{scope}`"),
            TokenKind::Symbol(c) => format!("`{c}`"),
            TokenKind::DotDot => "`..`".into(),
            TokenKind::End => "the end of the text".into(),
        }
    }
}

/// A token and where it starts.
#[derive(Clone, Debug)]
pub struct Token {
    /// Which token, with its text.
    pub kind: TokenKind,
    /// Its first character.
    pub at: Position,
}

/// True for the characters a scope may have without quotes.
pub fn is_scope_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

/// A text as a string literal, which the lexer reads back.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// All tokens of a text; the last is [`TokenKind::End`].
pub(crate) fn lex(text: &str) -> Parsed<Vec<Token>> {
    let mut lexer = Lexer { chars: text.chars().peekable(), at: Position::START };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let kind = lexer.token()?;
        let end = kind == TokenKind::End;
        tokens.push(Token { kind, at });
        if end {
            return Ok(tokens);
        }
    }
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    at: Position,
}

impl Lexer<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.advance();
        }
        found
    }

    fn take_while(&mut self, out: &mut String, accept: impl Fn(char) -> bool) {
        while let Some(c) = self.peek().filter(|c| accept(*c)) {
            out.push(c);
            self.advance();
        }
    }

    /// Skips white space and `#` comments.
    fn skip_blank(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                self.take_while(&mut String::new(), |c| c != '\n');
            } else if c.is_whitespace() {
                self.advance();
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Parsed<TokenKind> {
        let at = self.at;
        let Some(c) = self.peek() else { return Ok(TokenKind::End) };
        let mut text = String::new();
        match c {
            '(' | ')' | '{' | '}' | '[' | ']' | '=' | ',' | ':' | ';' | '!' | '<' => {
                self.advance();
                Ok(TokenKind::Symbol(c))
            }
            '.' => {
                self.advance();
                if self.eat('.') { Ok(TokenKind::DotDot) } else { Err(at.error("unexpected character '.'")) }
            }
            '"' => Ok(TokenKind::Text(self.string()?)),
            '@' => {
                self.advance();
                if self.peek() == Some('"') {
                    text = self.string()?;
                } else {
                    self.take_while(&mut text, is_scope_char);
                }
                if text.is_empty() {
                    return Err(at.error("`@` is followed by a scope such as `layers.0/attention`"));
                }
                Ok(TokenKind::Scope(text))
            }
            '%' => {
                self.advance();
                self.value(&mut text);
                if text.is_empty() {
                    return Err(at.error("`%` is followed by the name of a value, such as `%x` or `%12`"));
                }
                Ok(TokenKind::Value(text))
            }
            '0'..='9' | '-' => {
                self.number(&mut text);
                Ok(TokenKind::Number(text))
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                self.take_while(&mut text, is_word_char);
                Ok(TokenKind::Word(text))
            }
            c => Err(at.error(format!("unexpected character {c:?}"))),
        }
    }

    /// `%x.1` is one name; in `%lo..%hi` the dots are an operator.
    fn value(&mut self, text: &mut String) {
        self.take_while(text, is_word_char);
        let mut ahead = self.chars.clone();
        if !text.is_empty() && ahead.next() == Some('.') && ahead.next().is_some_and(|c| c.is_ascii_digit()) {
            self.advance();
            text.push('.');
            self.take_while(text, |c| c.is_ascii_digit());
        }
    }

    /// `12`, `-1.5`, `1e-5`, `-inf`.
    fn number(&mut self, text: &mut String) {
        if self.eat('-') {
            text.push('-');
        }
        while let Some(c) = self.peek() {
            let sign_of_exponent = matches!(c, '-' | '+') && text.ends_with(['e', 'E']);
            if !(c.is_ascii_alphanumeric() || c == '.' || sign_of_exponent) {
                return;
            }
            text.push(c);
            self.advance();
        }
    }

    fn string(&mut self) -> Parsed<String> {
        let start = self.at;
        self.advance();
        let mut out = String::new();
        loop {
            let at = self.at;
            match self.advance() {
                None => return Err(start.error("this string has no closing quote")),
                Some('"') => return Ok(out),
                Some('\\') => out.push(self.escape(at)?),
                Some(c) => out.push(c),
            }
        }
    }

    /// The character behind a backslash at `at`.
    fn escape(&mut self, at: Position) -> Parsed<char> {
        match self.advance() {
            Some(c @ ('"' | '\\')) => Ok(c),
            Some('u') => {
                let mut digits = String::new();
                let open = self.eat('{');
                self.take_while(&mut digits, |c| c.is_ascii_hexdigit());
                let close = self.eat('}');
                let c = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                let c = c.filter(|_| open && close);
                c.ok_or_else(|| at.error("`\\u` is followed by a code point in braces such as `{a}`"))
            }
            _ => Err(at.error("a backslash is followed by `\"`, `\\` or `u{...}`")),
        }
    }
}
