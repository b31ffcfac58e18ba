//! Splits the text form of a kernel into tokens, each with its position.

use crate::error::TileError;

/// 1-based line and column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    /// An error at this place.
    pub(crate) fn error(self, message: impl Into<String>) -> TileError {
        TileError::Parse { line: self.line, column: self.column, message: message.into() }
    }
}

/// What a token is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A name or keyword, also `inf` and `NaN`.
    Word(String),
    /// `%name`, without the `%`.
    Value(String),
    /// A number as written, also `-inf`.
    Number(String),
    /// One of `(){}[]=,;:<`
    Symbol(char),
    /// `..`
    DotDot,
    /// The end of the text.
    End,
}

impl Kind {
    /// The token in an error message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Kind::Word(word) | Kind::Number(word) => format!("`{word}`"),
            Kind::Value(name) => format!("`%{name}`"),
            Kind::Symbol(c) => format!("`{c}`"),
            Kind::DotDot => "`..`".into(),
            Kind::End => "the end of the text".into(),
        }
    }
}

/// A token and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) at: Position,
}

/// Splits the text. The last token is [`Kind::End`].
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, TileError> {
    let mut lexer = Lexer { chars: text.chars(), at: Position { line: 1, column: 1 } };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let kind = lexer.token()?;
        let end = kind == Kind::End;
        tokens.push(Token { kind, at });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    chars: std::str::Chars<'a>,
    at: Position,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.clone().next()
    }

    fn peek_second(&self) -> Option<char> {
        self.chars.clone().nth(1)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, out: &mut String, accept: impl Fn(char) -> bool) {
        while let Some(c) = self.peek().filter(|c| accept(*c)) {
            out.push(c);
            self.next();
        }
    }

    /// Skips white space and `#` comments.
    fn skip_blank(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                self.take_while(&mut String::new(), |c| c != '\n');
            } else if c.is_whitespace() {
                self.next();
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Result<Kind, TileError> {
        let at = self.at;
        let Some(c) = self.peek() else { return Ok(Kind::End) };
        let mut text = String::new();
        match c {
            '(' | ')' | '{' | '}' | '[' | ']' | '=' | ',' | ';' | ':' | '<' => {
                self.next();
                Ok(Kind::Symbol(c))
            }
            '.' if self.peek_second() == Some('.') => {
                self.next();
                self.next();
                Ok(Kind::DotDot)
            }
            '%' => {
                self.next();
                self.take_while(&mut text, |c| c.is_ascii_alphanumeric() || c == '_');
                if text.is_empty() {
                    return Err(at.error("`%` is followed by the name of a value, such as `%x` or `%12`"));
                }
                // `%x.1` is one name; in `%lo..%hi` the dots are an operator.
                if self.peek() == Some('.') && self.peek_second().is_some_and(|c| c.is_ascii_digit()) {
                    text.push('.');
                    self.next();
                    self.take_while(&mut text, |c| c.is_ascii_digit());
                }
                Ok(Kind::Value(text))
            }
            '0'..='9' | '-' => {
                self.number(&mut text);
                Ok(Kind::Number(text))
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                self.take_while(&mut text, |c| c.is_ascii_alphanumeric() || c == '_');
                Ok(Kind::Word(text))
            }
            c => Err(at.error(format!("unexpected character {c:?}"))),
        }
    }

    /// A number as written: `12`, `-1.5`, `1e-5`, `-inf`. Whether it is one is for the parser to say.
    fn number(&mut self, text: &mut String) {
        if self.peek() == Some('-') {
            text.push('-');
            self.next();
        }
        while let Some(c) = self.peek() {
            let sign_of_exponent = matches!(c, '-' | '+') && text.ends_with(['e', 'E']);
            if !(c.is_ascii_alphanumeric() || c == '.' || sign_of_exponent) {
                return;
            }
            text.push(c);
            self.next();
        }
    }
}
