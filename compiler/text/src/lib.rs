//! What the text forms of graphs and of tile programs share: one set of tokens, each with its position, a reader that
//! takes them one by one, and errors that say where and what was expected.
//!
//! The two grammars differ and live with what they describe; a token that one of them lacks is refused by its parser.

mod lex;
mod tokens;

pub use lex::{Token, TokenKind, is_scope_char, quote};
pub use tokens::Tokens;

/// 1-based line and column, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Lines end with `\n`.
    pub line: usize,
    /// Characters, not bytes.
    pub column: usize,
}

impl Position {
    /// The first character of a text.
    pub const START: Position = Position { line: 1, column: 1 };

    /// An error about what stands here.
    pub fn error(self, message: impl Into<String>) -> SyntaxError {
        SyntaxError { at: self, message: message.into() }
    }
}

/// What a text form does not allow.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {}, column {}: {message}", at.line, at.column)]
pub struct SyntaxError {
    /// Where it was noticed.
    pub at: Position,
    /// What was expected and what was found.
    pub message: String,
}

/// What a step of a parser gives.
pub type Parsed<T> = Result<T, SyntaxError>;
