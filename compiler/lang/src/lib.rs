//! The `.linc` language: from the text of an architecture and of a model TOML to a [`linc_ir::Graph`].
//!
//! ```text
//! Source (.linc) ─ lexer ─ parser ─▶ Architecture (spanned AST) ─┐
//! Source (.toml) ─ config ─────────▶ ModelConfig ────────────────┴─ check ─ build ─▶ BuiltModel (graph)
//! ```
//!
//! The language reference is the crate's `README.md`. Invariants: nothing here reads a file, so every text
//! comes in as a [`Source`]; no text, however broken, leads to a panic; each error is a [`Diagnostic`] that
//! points at the text it is about.

pub mod ast;
mod build;
mod builtins;
mod check;
pub mod config;
pub mod diagnostics;
mod eval;
mod format;
mod kind;
mod lexer;
mod number;
mod parser;
mod suggest;
mod value;

pub use build::{BuildShape, BuiltModel, Origins, build};
pub use config::{LinearAttentionOptions, ModelConfig};
pub use diagnostics::{Diagnostic, Diagnostics, Label, Source};

/// The names of the built-in functions, in the order of the README.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    builtins::names()
}

/// A parsed `.linc` file.
#[derive(Clone, Debug)]
pub struct Architecture {
    source: Source,
    file: ast::File,
}

impl Architecture {
    /// Parses a `.linc` text. Names and shapes are checked later, by [`build`].
    ///
    /// # Errors
    /// The first syntax error.
    pub fn parse(source: &Source) -> Result<Self, Diagnostics> {
        match parser::parse(source) {
            Ok(file) => Ok(Architecture { source: source.clone(), file }),
            Err(error) => Err(Diagnostics::new(vec![*error], vec![source.clone()])),
        }
    }

    /// The stable text form: one statement a line, two spaces a level, comments kept.
    /// Parsing it gives an equal tree, formatting it again the same text.
    pub fn format(&self) -> String {
        format::file(&self.file)
    }

    /// The syntax tree.
    pub fn ast(&self) -> &ast::File {
        &self.file
    }

    /// The text this was parsed from.
    pub fn source(&self) -> &Source {
        &self.source
    }
}
