//! Reads the text form of kernels (grammar: [`crate::text`]). Any text gives a verified kernel or an error with line
//! and column; nothing a text holds makes this panic, recurse deeply or allocate more than in proportion to its length.

use std::collections::BTreeMap;

use linc_text::{Parsed, Position, TokenKind, Tokens};

use crate::error::TileError;
use crate::ir::{Elem, Kernel, Mode, Param, Region, TileType, ValueId};
use crate::verify::{MAX_DEPTH, check};

mod op;

/// Reads one kernel. Errors are [`TileError::Parse`], also for a kernel that breaks a rule of [`mod@crate::verify`].
pub fn parse(text: &str) -> Result<Kernel, TileError> {
    let mut kernels = parse_all(text)?;
    match (kernels.pop(), kernels.is_empty()) {
        (Some(kernel), true) => Ok(kernel),
        (found, _) => {
            let found = if found.is_none() { "none" } else { "several" };
            Err(Position::START.error(format!("expected one kernel, the text has {found}")).into())
        }
    }
}

/// Reads a text of any number of kernels.
pub fn parse_all(text: &str) -> Result<Vec<Kernel>, TileError> {
    Ok(read(text)?)
}

fn read(text: &str) -> Parsed<Vec<Kernel>> {
    let mut tokens = Tokens::new(text)?;
    let mut kernels = Vec::new();
    while *tokens.peek() != TokenKind::End {
        let start = tokens.at();
        let mut parser = Parser {
            tokens: &mut tokens,
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
        parser.kernel()?;
        if let Err(fault) = check(&parser.kernel) {
            let at = fault.stmt.and_then(|i| parser.stmts.get(i)).copied().unwrap_or(start);
            return Err(at.error(fault.message));
        }
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
    tokens: &'a mut Tokens,
    kernel: Kernel,
    values: BTreeMap<String, ValueId>,
    /// By id.
    definitions: Vec<Definition>,
    /// Where each statement starts, an outer one before those in its regions.
    stmts: Vec<Position>,
}

impl Parser<'_> {
    fn float(&mut self) -> Parsed<f64> {
        self.tokens.take("a number", |kind| match kind {
            TokenKind::Word(word) if word == "inf" || word == "NaN" => word.parse().ok(),
            // `parse` also knows words such as `-infinity`; the text form has one word for each value.
            TokenKind::Number(text) if text == "-inf" => Some(f64::NEG_INFINITY),
            TokenKind::Number(text)
                if text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) =>
            {
                text.parse().ok()
            }
            _ => None,
        })
    }

    fn kernel(&mut self) -> Parsed<()> {
        self.tokens.keyword("kernel")?;
        self.kernel.name = self.tokens.word("the kernel's name")?;
        self.tokens.symbol('(')?;
        while !self.tokens.eat(')') {
            if !self.kernel.params.is_empty() {
                self.tokens.symbol(',')?;
            }
            let name = self.tokens.word("a parameter's name")?;
            self.tokens.symbol(':')?;
            let mode = self.tokens.named("`read`, `write` or `readwrite`", Mode::from_name)?;
            let elem = self.elem()?;
            self.kernel.params.push(Param { name, elem, mode });
        }
        self.tokens.keyword("grid")?;
        for (axis, open) in ['(', ',', ','].into_iter().enumerate() {
            self.tokens.symbol(open)?;
            self.kernel.grid[axis] = self.tokens.number("a number of programs")?;
        }
        self.tokens.symbol(')')?;
        let start = self.tokens.at();
        let body = self.region(vec![], 0)?;
        if !body.yields.is_empty() {
            return Err(start.error("the body of a kernel does not yield values"));
        }
        self.kernel.body = body.body;
        Ok(())
    }

    fn elem(&mut self) -> Parsed<Elem> {
        self.tokens.named("an element type (`f32`, `bf16`, `f16`, `i32`, `index`, `bool`)", Elem::from_name)
    }

    fn ty(&mut self) -> Parsed<TileType> {
        let elem = self.elem()?;
        let mut shape = vec![];
        if self.tokens.eat('[') {
            shape.push(self.tokens.number("a number of elements")?);
            while !self.tokens.eat(']') {
                self.tokens.symbol(',')?;
                shape.push(self.tokens.number("a number of elements")?);
            }
        }
        Ok(TileType { elem, shape })
    }

    /// `{ ... }`, with arguments that are already defined.
    fn region(&mut self, args: Vec<ValueId>, depth: usize) -> Parsed<Region> {
        if depth > MAX_DEPTH {
            return Err(self.tokens.at().error(format!("regions are nested deeper than {MAX_DEPTH}")));
        }
        self.tokens.symbol('{')?;
        let mut region = Region { args, body: vec![], yields: vec![] };
        loop {
            if self.tokens.eat('}') {
                break;
            }
            if self.tokens.eat_word("yield") {
                region.yields = self.value_list()?;
                self.tokens.symbol('}')?;
                break;
            }
            if !matches!(self.tokens.peek(), TokenKind::Word(_) | TokenKind::Value(_)) {
                return self.tokens.expected("a statement or `}`");
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
        while self.tokens.eat(',') {
            values.push(self.value()?);
        }
        Ok(values)
    }

    /// A value that is defined here.
    fn value(&mut self) -> Parsed<ValueId> {
        let TokenKind::Value(name) = self.tokens.peek() else {
            return self.tokens.expected("a value such as `%x`");
        };
        let Some(&id) = self.values.get(name) else {
            return Err(self.tokens.at().error(format!("`%{name}` is not defined before its use")));
        };
        let definition = &self.definitions[id.0 as usize];
        if !definition.visible {
            let line = definition.at.line;
            return Err(self.tokens.at().error(format!(
                "`%{name}` of line {line} cannot be used here: its region has ended, or it is the result of the \
                 operation being read"
            )));
        }
        self.tokens.advance();
        Ok(id)
    }

    /// A new name, not yet visible, with a type that the caller sets.
    fn definition(&mut self) -> Parsed<ValueId> {
        let TokenKind::Value(name) = self.tokens.peek() else {
            return self.tokens.expected("a new value such as `%x`");
        };
        let (name, at) = (name.clone(), self.tokens.at());
        if let Some(earlier) = self.values.get(&name) {
            let line = self.definitions[earlier.0 as usize].at.line;
            return Err(
                at.error(format!("`%{name}` is already defined in line {line}; values are assigned once"))
            );
        }
        self.tokens.advance();
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
