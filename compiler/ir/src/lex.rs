//! Splits the text form of a graph into tokens, each with its position.

use crate::error::IrError;
use crate::text::is_scope_char;

/// 1-based line and column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    /// An error at this place.
    pub(crate) fn error(self, message: impl Into<String>) -> IrError {
        IrError::Parse { line: self.line, column: self.column, message: message.into() }
    }
}

/// What a token is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    /// A name or keyword.
    Word(String),
    /// A number as written, also `inf`, `-inf` and `NaN`.
    Number(String),
    /// A string literal, unescaped.
    Text(String),
    /// `%node.port`
    Value(usize, u32),
    /// `@scope`
    Scope(String),
    /// One of `(){}[]=,:!`
    Symbol(char),
    /// The end of the text.
    End,
}

impl Kind {
    /// The token in an error message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Kind::Word(w) => format!("`{w}`"),
            Kind::Number(n) => format!("`{n}`"),
            Kind::Text(t) => format!("the string {t:?}"),
            Kind::Value(n, 0) => format!("`%{n}`"),
            Kind::Value(n, port) => format!("`%{n}.{port}`"),
            Kind::Scope(s) => format!("`@{s}`"),
            Kind::Symbol(c) => format!("`{c}`"),
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
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, IrError> {
    let mut lexer = Lexer { chars: text.chars().peekable(), at: Position { line: 1, column: 1 } };
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
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    at: Position,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> String {
        let mut out = String::new();
        while let Some(c) = self.chars.peek().copied().filter(|c| accept(*c)) {
            out.push(c);
            self.next();
        }
        out
    }

    /// Skips white space and `#` comments.
    fn skip_blank(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if self.chars.peek() != Some(&'#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Kind, IrError> {
        let at = self.at;
        let Some(c) = self.chars.peek().copied() else { return Ok(Kind::End) };
        match c {
            '(' | ')' | '{' | '}' | '[' | ']' | '=' | ',' | ':' | '!' => {
                self.next();
                Ok(Kind::Symbol(c))
            }
            '"' => Ok(Kind::Text(self.string()?)),
            '@' => {
                self.next();
                let scope = match self.chars.peek() {
                    Some('"') => self.string()?,
                    _ => self.take_while(is_scope_char),
                };
                if scope.is_empty() {
                    return Err(at.error("`@` is followed by a scope such as `layers.0/attention`"));
                }
                Ok(Kind::Scope(scope))
            }
            '%' => {
                self.next();
                let digits = self.take_while(|c| c.is_ascii_digit() || c == '.');
                let (node, port) = digits.split_once('.').unwrap_or((&digits, "0"));
                match (node.parse(), port.parse()) {
                    (Ok(node), Ok(port)) => Ok(Kind::Value(node, port)),
                    _ => Err(at.error(format!("`%{digits}` is not a value such as `%3` or `%3.1`"))),
                }
            }
            '0'..='9' | '-' | '+' => Ok(Kind::Number(
                self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+')),
            )),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                Ok(if matches!(word.as_str(), "inf" | "NaN") { Kind::Number(word) } else { Kind::Word(word) })
            }
            c => Err(at.error(format!("unexpected character {c:?}"))),
        }
    }

    fn string(&mut self) -> Result<String, IrError> {
        let start = self.at;
        self.next();
        let mut out = String::new();
        loop {
            let at = self.at;
            match self.next() {
                None => return Err(start.error("this string has no closing quote")),
                Some('"') => return Ok(out),
                Some('\\') => out.push(self.escape(at)?),
                Some(c) => out.push(c),
            }
        }
    }

    /// The character behind a backslash at `at`.
    fn escape(&mut self, at: Position) -> Result<char, IrError> {
        match self.next() {
            Some(c @ ('"' | '\\')) => Ok(c),
            Some('u') => {
                let open = self.chars.next_if_eq(&'{').is_some();
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                let close = self.chars.next_if_eq(&'}').is_some();
                self.at.column += usize::from(open) + usize::from(close);
                let c = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                let c = c.filter(|_| open && close);
                c.ok_or_else(|| at.error("`\\u` is followed by a code point in braces such as `{a}`"))
            }
            _ => Err(at.error("a backslash is followed by `\"`, `\\` or `u{...}`")),
        }
    }
}
