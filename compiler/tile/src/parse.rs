//! Reads the text form of kernels (grammar: [`crate::text`]). Any text gives a verified kernel or an error with line
//! and column; nothing a text holds makes this panic, recurse deeply or allocate more than in proportion to its length.

use std::collections::BTreeMap;

use crate::error::TileError;
use crate::ir::{Elem, Kernel, Mode, Param, Region, TileType, ValueId};
use crate::lex::{Kind, Position, Token, lex};
use crate::verify::{MAX_DEPTH, check};

mod op;

/// Reads one kernel. Errors are [`TileError::Parse`], also for a kernel that breaks a rule of [`mod@crate::verify`].
pub fn parse(text: &str) -> Result<Kernel, TileError> {
    let mut kernels = parse_all(text)?;
    match (kernels.pop(), kernels.is_empty()) {
        (Some(kernel), true) => Ok(kernel),
        (found, _) => {
            let found = if found.is_none() { "none" } else { "several" };
            Err(Position { line: 1, column: 1 }
                .error(format!("one kernel was expected, the text has {found}")))
        }
    }
}

/// Reads a text of any number of kernels.
pub fn parse_all(text: &str) -> Result<Vec<Kernel>, TileError> {
    let tokens = lex(text)?;
    let mut next = 0;
    let mut kernels = Vec::new();
    while tokens[next].kind != Kind::End {
        let mut parser = Parser {
            tokens: &tokens,
            next,
            kernel: Kernel {
                name: String::new(),
                params: vec![],
                grid: [1; 3],
                types: vec![],
                names: vec![],
                body: vec![],
            },
            values: BTreeMap::new(),
            definitions: vec![],
            stmts: vec![],
        };
        let start = tokens[next].at;
        parser.kernel()?;
        if let Err(fault) = check(&parser.kernel) {
            let at = fault.stmt.and_then(|i| parser.stmts.get(i)).copied().unwrap_or(start);
            return Err(at.error(fault.message));
        }
        next = parser.next;
        kernels.push(parser.kernel);
    }
    Ok(kernels)
}

/// Where a value is defined, and whether it can be used here.
struct Definition {
    at: Position,
    visible: bool,
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    kernel: Kernel,
    values: BTreeMap<String, ValueId>,
    /// By id.
    definitions: Vec<Definition>,
    /// Where each statement starts, an outer one before those in its regions.
    stmts: Vec<Position>,
}

type Parsed<T> = Result<T, TileError>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        // The last token is `End`, and nothing moves past it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn expected<T>(&self, what: &str) -> Parsed<T> {
        let token = self.peek();
        Err(token.at.error(format!("{what} was expected, found {}", token.kind.describe())))
    }

    fn eat(&mut self, symbol: char) -> bool {
        let found = self.peek().kind == Kind::Symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn symbol(&mut self, symbol: char) -> Parsed<()> {
        if self.eat(symbol) { Ok(()) } else { self.expected(&format!("`{symbol}`")) }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(&self.peek().kind, Kind::Word(w) if w == word);
        if found {
            self.advance();
        }
        found
    }

    fn keyword(&mut self, word: &str) -> Parsed<()> {
        if self.eat_word(word) { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    fn word(&mut self, what: &str) -> Parsed<String> {
        match &self.peek().kind {
            Kind::Word(word) => {
                let word = word.clone();
                self.advance();
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    /// An integer of the type that the caller stores it in.
    fn int<T: std::str::FromStr>(&mut self, what: &str) -> Parsed<T> {
        let parsed = match &self.peek().kind {
            Kind::Number(text) => text.parse().ok(),
            _ => None,
        };
        match parsed {
            Some(value) => {
                self.advance();
                Ok(value)
            }
            None => self.expected(what),
        }
    }

    fn float(&mut self) -> Parsed<f64> {
        let parsed = match &self.peek().kind {
            Kind::Word(word) if word == "inf" || word == "NaN" => word.parse().ok(),
            // `parse` also knows words such as `-infinity`; the text form has one word for each value.
            Kind::Number(text) if text == "-inf" => Some(f64::NEG_INFINITY),
            Kind::Number(text) if text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) => {
                text.parse().ok()
            }
            _ => None,
        };
        match parsed {
            Some(value) => {
                self.advance();
                Ok(value)
            }
            None => self.expected("a number"),
        }
    }

    fn kernel(&mut self) -> Parsed<()> {
        self.keyword("kernel")?;
        self.kernel.name = self.word("the kernel's name")?;
        self.symbol('(')?;
        while !self.eat(')') {
            if !self.kernel.params.is_empty() {
                self.symbol(',')?;
            }
            let name = self.word("a parameter's name")?;
            self.symbol(':')?;
            let mode = self.named("`read`, `write` or `readwrite`", Mode::from_name)?;
            let elem = self.elem()?;
            self.kernel.params.push(Param { name, elem, mode });
        }
        self.keyword("grid")?;
        for (axis, open) in ['(', ',', ','].into_iter().enumerate() {
            self.symbol(open)?;
            self.kernel.grid[axis] = self.int("a number of programs")?;
        }
        self.symbol(')')?;
        let start = self.peek().at;
        let body = self.region(vec![], 0)?;
        if !body.yields.is_empty() {
            return Err(start.error("the body of a kernel does not yield values"));
        }
        self.kernel.body = body.body;
        Ok(())
    }

    /// A word of a closed set.
    fn named<T>(&mut self, what: &str, from_name: impl Fn(&str) -> Option<T>) -> Parsed<T> {
        let found = match &self.peek().kind {
            Kind::Word(word) => from_name(word),
            _ => None,
        };
        match found {
            Some(value) => {
                self.advance();
                Ok(value)
            }
            None => self.expected(what),
        }
    }

    fn elem(&mut self) -> Parsed<Elem> {
        self.named("an element type (`f32`, `bf16`, `f16`, `i32`, `index`, `bool`)", Elem::from_name)
    }

    fn ty(&mut self) -> Parsed<TileType> {
        let elem = self.elem()?;
        let mut shape = vec![];
        if self.eat('[') {
            shape.push(self.int("a number of elements")?);
            while !self.eat(']') {
                self.symbol(',')?;
                shape.push(self.int("a number of elements")?);
            }
        }
        Ok(TileType { elem, shape })
    }

    /// `{ ... }`, with arguments that are already defined.
    fn region(&mut self, args: Vec<ValueId>, depth: usize) -> Parsed<Region> {
        if depth > MAX_DEPTH {
            return Err(self.peek().at.error(format!("regions are nested deeper than {MAX_DEPTH}")));
        }
        self.symbol('{')?;
        let mut region = Region { args, body: vec![], yields: vec![] };
        loop {
            if self.eat('}') {
                break;
            }
            if self.eat_word("yield") {
                region.yields = self.value_list()?;
                self.symbol('}')?;
                break;
            }
            if !matches!(self.peek().kind, Kind::Word(_) | Kind::Value(_)) {
                return self.expected("a statement or `}`");
            }
            let stmt = self.stmt(depth)?;
            region.body.push(stmt);
        }
        for stmt in &region.body {
            self.set_visible(&stmt.results, false);
        }
        self.set_visible(&region.args, false);
        Ok(region)
    }

    fn value_list(&mut self) -> Parsed<Vec<ValueId>> {
        let mut values = vec![self.value()?];
        while self.eat(',') {
            values.push(self.value()?);
        }
        Ok(values)
    }

    /// A value that is defined here.
    fn value(&mut self) -> Parsed<ValueId> {
        let Kind::Value(name) = &self.peek().kind else { return self.expected("a value such as `%x`") };
        let Some(&id) = self.values.get(name) else {
            return Err(self.peek().at.error(format!("`%{name}` is not defined before its use")));
        };
        let definition = &self.definitions[id.0 as usize];
        if !definition.visible {
            let line = definition.at.line;
            return Err(self.peek().at.error(format!(
                "`%{name}` of line {line} cannot be used here: its region has ended, or it is the result of the \
                 operation being read"
            )));
        }
        self.advance();
        Ok(id)
    }

    /// A new name, not yet visible, with a type that the caller sets.
    fn definition(&mut self) -> Parsed<ValueId> {
        let Kind::Value(name) = &self.peek().kind else { return self.expected("a new value such as `%x`") };
        let (name, at) = (name.clone(), self.peek().at);
        if let Some(earlier) = self.values.get(&name) {
            let line = self.definitions[earlier.0 as usize].at.line;
            return Err(
                at.error(format!("`%{name}` is already defined in line {line}; values are assigned once"))
            );
        }
        self.advance();
        let hint = name.split('.').next().unwrap_or_default();
        let numbered = hint.starts_with(|c: char| c.is_ascii_digit());
        self.kernel.names.push(if numbered { String::new() } else { hint.to_string() });
        self.kernel.types.push(TileType::scalar(Elem::Index));
        self.definitions.push(Definition { at, visible: false });
        let id = ValueId(self.kernel.types.len() as u32 - 1);
        self.values.insert(name, id);
        Ok(id)
    }

    fn set_visible(&mut self, values: &[ValueId], visible: bool) {
        for value in values {
            self.definitions[value.0 as usize].visible = visible;
        }
    }
}
