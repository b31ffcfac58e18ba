//! Tokens to syntax tree: recursive descent for statements, precedence climbing for expressions.
//!
//! Nesting is bounded, both in the text and in the depth of the tree (a long chain of operators leans to
//! the left and is as deep as it is long), so that no later walk over the tree can exhaust the stack.

use crate::ast::*;
use crate::diagnostics::{Diagnostic, Source};
use crate::lexer::{KEYWORDS, NOT, Token, TokenKind, lex};
use crate::suggest::did_you_mean;

mod expr;

type Parsed<T> = Result<T, Box<Diagnostic>>;

/// Deepest nesting of brackets, blocks and operators.
const MAX_DEPTH: usize = 64;

/// Syntax only: whether names exist and shapes fit is checked later. The first error ends it.
pub(crate) fn parse(source: &Source) -> Parsed<File> {
    let tokens = lex(source)?;
    let mut parser = Parser {
        path: &source.path,
        text: &source.text,
        tokens,
        at: 0,
        depth: 0,
        stray: Vec::new(),
        open: Vec::new(),
        suspect: None,
    };
    parser.file()
}

struct Parser<'a> {
    path: &'a str,
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Comments found inside a statement; they move before it.
    stray: Vec<String>,
    /// Opening braces not yet closed.
    open: Vec<Span>,
    /// The first braces of one block whose lines are indented differently.
    suspect: Option<(Span, Span)>,
}

impl Parser<'_> {
    // ---- tokens ----

    fn peek(&self) -> &Token {
        &self.tokens[self.at]
    }

    fn kind(&self) -> &TokenKind {
        &self.peek().kind
    }

    fn span(&self) -> Span {
        self.peek().span
    }

    fn previous(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].span
    }

    fn bump(&mut self) {
        let token = &mut self.tokens[self.at];
        self.stray.extend(token.comment.take());
        for trivia in token.lead.drain(..) {
            if let Trivia::Comment(text) = trivia {
                self.stray.push(text);
            }
        }
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    fn is(&self, text: &str) -> bool {
        match self.kind() {
            TokenKind::Word(word) => word == text,
            TokenKind::Symbol(symbol) => *symbol == text,
            TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::End => false,
        }
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.is(text);
        if found {
            self.bump();
        }
        found
    }

    fn fail<T>(&self, expected: &str) -> Parsed<T> {
        let message = format!("expected {expected}, found {}", self.peek().describe());
        let mut error = Diagnostic::new(self.path, self.span(), message);
        let at_end = *self.kind() == TokenKind::End;
        if let Some(open) = self.open.last().filter(|_| at_end || self.is("fn") || self.is("model")) {
            error.message = format!("unclosed block: {}", error.message);
            error = error.label(self.path, *open, "this `{` is never closed");
            if let Some((open, close)) = self.suspect {
                error = error.label(self.path, open, "perhaps this block should end earlier");
                error = error.label(self.path, close, "its `}` is indented differently");
            }
            error = error.help("add the missing `}`".to_string());
        }
        Err(Box::new(error))
    }

    fn expect(&mut self, text: &str, after: &str) -> Parsed<()> {
        if self.accept(text) { Ok(()) } else { self.fail(&format!("`{text}` {after}")) }
    }

    fn name(&mut self, what: &str) -> Parsed<Name> {
        match self.kind() {
            TokenKind::Word(word) if KEYWORDS.contains(&word.as_str()) || word == NOT => {
                let word = word.clone();
                let message = format!("expected {what}, found the keyword `{word}`");
                Err(Box::new(Diagnostic::new(self.path, self.span(), message)))
            }
            TokenKind::Word(word) => {
                let name = Name { text: word.clone(), span: self.span() };
                self.bump();
                Ok(name)
            }
            TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::Symbol(_) | TokenKind::End => {
                self.fail(what)
            }
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= MAX_DEPTH {
            return self.too_deep(self.span());
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn too_deep<T>(&self, span: Span) -> Parsed<T> {
        let message = format!("nested more than {MAX_DEPTH} levels deep");
        let help = "give parts of it a name with `let`".to_string();
        Err(Box::new(Diagnostic::new(self.path, span, message).help(help)))
    }

    /// White space at the start of the line of a token.
    fn indent(&self, span: Span) -> &str {
        let line = self.text[..span.start].rfind('\n').map_or(0, |i| i + 1);
        let rest = &self.text[line..span.start];
        &rest[..rest.len() - rest.trim_start().len()]
    }

    // ---- comments ----

    /// Comments and blank lines before the current token.
    fn lead(&mut self) -> Vec<Trivia> {
        let token = &mut self.tokens[self.at];
        let mut lead: Vec<Trivia> = token.comment.take().map(Trivia::Comment).into_iter().collect();
        lead.append(&mut token.lead);
        lead
    }

    /// Moves comments from inside a statement before it.
    fn adopt(&mut self, lead: &mut Vec<Trivia>) {
        lead.extend(self.stray.drain(..).map(Trivia::Comment));
    }

    /// Comments before a closing brace or the end; blank lines there mean nothing.
    fn tail(&mut self, first: bool) -> Vec<Trivia> {
        let mut tail = self.lead();
        while tail.last() == Some(&Trivia::Blank) {
            tail.pop();
        }
        strip_first_blank(&mut tail, first);
        tail
    }

    // ---- items ----

    fn file(&mut self) -> Parsed<File> {
        let mut items: Vec<Item> = Vec::new();
        loop {
            if *self.kind() == TokenKind::End {
                let tail = self.tail(items.is_empty());
                return Ok(File { items, tail });
            }
            let mut lead = self.lead();
            strip_first_blank(&mut lead, items.is_empty());
            // Definitions are always set apart by a blank line.
            if !items.is_empty() && lead.first() != Some(&Trivia::Blank) {
                lead.insert(0, Trivia::Blank);
            }
            let kind = if self.is("fn") {
                ItemKind::Function(self.function()?)
            } else if self.is("model") {
                ItemKind::Model(self.model()?)
            } else if self.is("}") {
                let error = Diagnostic::new(self.path, self.span(), "this `}` closes nothing");
                return Err(Box::new(error.help("remove it, or add the `{` it belongs to".to_string())));
            } else {
                let help = match self.kind() {
                    TokenKind::Word(word) => did_you_mean(word, ["model", "fn"]),
                    TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::Symbol(_) | TokenKind::End => None,
                };
                let before = (!items.is_empty()).then(|| self.previous());
                return self.fail("`model` or `fn`").map_err(|mut e| {
                    if let Some(end) = before {
                        *e = e.label(self.path, end, "the definition before ends here");
                    }
                    Box::new(e.help(help))
                });
            };
            self.adopt(&mut lead);
            items.push(Item { lead, kind });
        }
    }

    fn function(&mut self) -> Parsed<Function> {
        self.bump();
        let name = self.name("the function's name")?;
        self.expect("(", "after the function's name")?;
        let parameters = self.list(")", |p| p.name("a parameter's name"))?;
        let body = self.block()?;
        Ok(Function { name, parameters, body })
    }

    fn model(&mut self) -> Parsed<Model> {
        self.bump();
        let name = self.name("the model's name")?;
        self.expect("(", "after the model's name")?;
        let input = self.name("the input's name")?;
        self.expect(":", "after the input's name")?;
        self.expect("[", "before the input's axes")?;
        let axes = self.list("]", |p| p.name("an axis' name"))?;
        let element = self.name("the element type `int`")?;
        self.expect(")", "after the input")?;
        let body = self.block()?;
        Ok(Model { name, input, axes, element, body })
    }

    /// Comma-separated items up to `close`; a comma may follow the last.
    fn list<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.accept(close) {
            items.push(item(self)?);
            if !self.is(close) {
                self.expect(",", &format!("or `{close}`"))?;
            }
        }
        Ok(items)
    }

    // ---- statements ----

    fn block(&mut self) -> Parsed<Block> {
        let open = self.span();
        self.expect("{", "before a block")?;
        self.open.push(open);
        let block = self.nested(|p| {
            // Comments of the header stay with the statement that owns the block.
            let header = std::mem::take(&mut p.stray);
            let mut statements: Vec<Statement> = Vec::new();
            while !p.is("}") {
                let first = statements.is_empty();
                statements.push(p.statement(first)?);
            }
            let tail = p.tail(statements.is_empty());
            p.stray = header;
            if p.suspect.is_none() && p.indent(open) != p.indent(p.span()) {
                p.suspect = Some((open, p.span()));
            }
            p.bump();
            Ok(Block { statements, tail })
        })?;
        self.open.pop();
        Ok(block)
    }

    fn statement(&mut self, first: bool) -> Parsed<Statement> {
        let mut lead = self.lead();
        strip_first_blank(&mut lead, first);
        let start = self.span();
        let kind = self.statement_kind()?;
        let span = start.to(self.previous());
        self.adopt(&mut lead);
        let comment = self.tokens[self.at].comment.take();
        Ok(Statement { lead, kind, span, comment })
    }

    fn statement_kind(&mut self) -> Parsed<StatementKind> {
        let TokenKind::Word(word) = self.kind() else {
            return self.fail("a statement");
        };
        match word.as_str() {
            "let" => {
                self.bump();
                let name = self.name("a name after `let`")?;
                self.expect("=", "after the name")?;
                Ok(StatementKind::Let { name, value: self.expression()? })
            }
            "param" => {
                self.bump();
                let name = self.name("the parameter's name")?;
                self.expect("[", "before the parameter's shape")?;
                let shape = self.list("]", Self::expression)?;
                if !self.is("init") {
                    return self.fail("`init` and how the parameter starts").map_err(|e| {
                        let help = "for example `init normal(0.02)`, `init ones`".to_string();
                        Box::new(e.help(help))
                    });
                }
                self.bump();
                let init = self.name("the initial distribution")?;
                let arguments =
                    if self.accept("(") { self.list(")", |p| Ok(p.argument()?.0))? } else { Vec::new() };
                Ok(StatementKind::Param { name, shape, init, arguments })
            }
            "for" => {
                self.bump();
                let variable = self.name("a name for the layer's index")?;
                self.expect("in", "after the layer's index")?;
                if !self.accept("layers") {
                    return self.fail("`layers`: the loop runs over the model's layers");
                }
                Ok(StatementKind::For { variable, body: self.block()? })
            }
            "block" => {
                self.bump();
                let name = self.name("the block's name")?;
                Ok(StatementKind::Block { name, body: self.block()? })
            }
            "if" => self.nested(Self::conditional),
            "return" => {
                self.bump();
                Ok(StatementKind::Return { value: self.expression()? })
            }
            word if KEYWORDS.contains(&word) || word == NOT => self.fail("a statement"),
            word => {
                let help = did_you_mean(word, KEYWORDS);
                let name = self.name("a name")?;
                if !self.is("=") {
                    return self.fail(&format!("`=` after `{}`", name.text)).map_err(|mut e| {
                        if e.help.is_none() {
                            e.help = help;
                        }
                        e
                    });
                }
                self.bump();
                Ok(StatementKind::Assign { name, value: self.expression()? })
            }
        }
    }

    fn conditional(&mut self) -> Parsed<StatementKind> {
        self.bump();
        let condition = self.expression()?;
        let then = self.block()?;
        let otherwise = if !self.accept("else") {
            None
        } else if self.is("if") {
            // `else if` is an else block that holds one `if`.
            let start = self.span();
            let kind = self.nested(Self::conditional)?;
            let span = start.to(self.previous());
            let inner = Statement { lead: Vec::new(), kind, span, comment: None };
            Some(Block { statements: vec![inner], tail: Vec::new() })
        } else {
            Some(self.block()?)
        };
        Ok(StatementKind::If { condition, then, otherwise })
    }
}

fn strip_first_blank(lead: &mut Vec<Trivia>, first: bool) {
    if first && lead.first() == Some(&Trivia::Blank) {
        lead.remove(0);
    }
}
