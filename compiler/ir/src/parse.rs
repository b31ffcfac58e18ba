//! Reads the text form of a graph that [`mod@crate::text`] prints.
//!
//! The grammar, with `#` comments and free white space:
//!
//! ```text
//! graph  = "graph" STRING "{" { node | output | update } "}"
//! node   = "%" NUMBER ":" type { "," type } "=" NAME "(" [ value { "," value } ] ")"
//!          [ "{" key "=" attribute { "," key "=" attribute } "}" ] [ "@" SCOPE ] [ "!" "recompute" ]
//! output = "output" STRING "=" value
//! update = "update" value "=" value
//! ```
//!
//! A value is defined before it is read, so the text is in topological order. Node numbers are labels: any
//! distinct numbers will do. Every parsed graph is well-formed in the sense of [`mod@crate::verify`].

use std::collections::BTreeMap;

use crate::attributes::{Attribute, Attributes, Entry};
use crate::error::IrError;
use crate::graph::{Graph, Node, NodeId, Value};
use crate::infer::infer;
use crate::lex::{Kind, Position, Token, lex};
use crate::limits::MAX_ELEMENTS;
use crate::scope::Scope;
use crate::types::{DType, Shape, TensorType};
use crate::verify::{Place, check, types};

/// Deepest nesting of attribute values; fused steps need two levels.
const MAX_DEPTH: usize = 8;

/// Parses a graph and verifies it.
///
/// # Errors
/// [`IrError::Parse`] with line and column of what does not fit, be it syntax, types or a rule of [`mod@crate::verify`].
pub fn parse(text: &str) -> Result<Graph, IrError> {
    let tokens = lex(text)?;
    let mut parser = Parser {
        tokens: &tokens,
        next: 0,
        graph: Graph::default(),
        ids: BTreeMap::new(),
        places: BTreeMap::new(),
    };
    parser.graph()?;
    match check(&parser.graph) {
        Ok(()) => Ok(parser.graph),
        Err((place, error)) => {
            let at = parser.places.get(&place).copied().unwrap_or(tokens[0].at);
            Err(at.error(error.to_string()))
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    graph: Graph,
    /// Nodes by their number in the text.
    ids: BTreeMap<usize, NodeId>,
    /// Where nodes, outputs and updates were written.
    places: BTreeMap<Place, Position>,
}

impl Parser<'_> {
    /// The next token; the last one, [`Kind::End`], repeats.
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn at(&self) -> Position {
        self.peek().at
    }

    fn expected<T>(&self, what: &str) -> Result<T, IrError> {
        let token = self.peek();
        Err(token.at.error(format!("expected {what}, found {}", token.kind.describe())))
    }

    fn is_symbol(&self, c: char) -> bool {
        self.peek().kind == Kind::Symbol(c)
    }

    /// Takes the symbol if it is next.
    fn accept(&mut self, c: char) -> bool {
        let found = self.is_symbol(c);
        self.next += usize::from(found);
        found
    }

    fn symbol(&mut self, c: char) -> Result<(), IrError> {
        if self.accept(c) { Ok(()) } else { self.expected(&format!("`{c}`")) }
    }

    fn text(&mut self, what: &str) -> Result<String, IrError> {
        match self.peek().kind.clone() {
            Kind::Text(text) => {
                self.next += 1;
                Ok(text)
            }
            _ => self.expected(what),
        }
    }

    fn word(&mut self, what: &str) -> Result<String, IrError> {
        match self.peek().kind.clone() {
            Kind::Word(word) => {
                self.next += 1;
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    /// Items separated by commas up to the closing symbol, which is taken.
    fn separated<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T, IrError>,
    ) -> Result<Vec<T>, IrError> {
        let mut items = Vec::new();
        if self.accept(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.accept(close) {
                return Ok(items);
            }
            if !self.accept(',') {
                return self.expected(&format!("`,` or `{close}`"));
            }
        }
    }

    fn graph(&mut self) -> Result<(), IrError> {
        match self.peek().kind.clone() {
            Kind::Word(word) if word == "graph" => self.next += 1,
            _ => return self.expected("`graph \"name\" {`"),
        }
        self.graph.name = self.text("the name of the graph as a string")?;
        self.symbol('{')?;
        loop {
            let at = self.at();
            match self.peek().kind.clone() {
                Kind::Symbol('}') => {
                    self.next += 1;
                    break;
                }
                Kind::Value(number, 0) => {
                    self.next += 1;
                    self.node(at, number)?;
                }
                Kind::Word(word) if word == "output" => {
                    self.next += 1;
                    let name = self.text("the name of the output as a string")?;
                    self.symbol('=')?;
                    let value = self.value()?;
                    self.places.insert(Place::Output(self.graph.outputs.len()), at);
                    self.graph.outputs.push((name, value));
                }
                Kind::Word(word) if word == "update" => {
                    self.next += 1;
                    let leaf = self.value()?;
                    self.symbol('=')?;
                    let value = self.value()?;
                    self.places.insert(Place::Update(self.graph.updates.len()), at);
                    self.graph.updates.push((leaf.node, value));
                }
                _ => return self.expected("a node such as `%0: f32[2] = ...`, `output`, `update` or `}`"),
            }
        }
        if self.peek().kind == Kind::End { Ok(()) } else { self.expected("the end of the text") }
    }

    fn node(&mut self, at: Position, number: usize) -> Result<(), IrError> {
        self.symbol(':')?;
        let mut annotated = vec![self.tensor_type()?];
        while self.accept(',') {
            annotated.push(self.tensor_type()?);
        }
        self.symbol('=')?;
        let op_at = self.at();
        let name = self.word("the name of an operation")?;
        self.symbol('(')?;
        let operands = self.separated(')', Self::value)?;
        let entries = if self.accept('{') { self.separated('}', Self::named_attribute)? } else { vec![] };
        let mut attributes = Attributes::new(op_at, &name, entries)?;
        let op = attributes.op(&annotated)?;
        attributes.finish()?;

        let scope = match self.peek().kind.clone() {
            Kind::Scope(scope) => {
                self.next += 1;
                Scope::read(&scope)
            }
            _ => Scope::default(),
        };
        let recompute = self.accept('!');
        if recompute && self.word("`recompute`")? != "recompute" {
            self.next -= 1;
            return self.expected("`recompute`");
        }

        let operand_types: Vec<&TensorType> = operands.iter().map(|v| self.graph.ty(*v)).collect();
        let inferred = infer(&op, &operand_types).map_err(|e| op_at.error(e.to_string()))?;
        if inferred != annotated {
            return Err(at.error(format!(
                "the results of {name} are {}, but {} is written",
                types(&inferred),
                types(&annotated)
            )));
        }
        let id = self.graph.insert(Node { op, types: annotated, scope, recompute }, &operands);
        if self.ids.insert(number, id).is_some() {
            return Err(at.error(format!("`%{number}` is defined twice")));
        }
        self.places.insert(Place::Node(id), at);
        Ok(())
    }

    /// A value that exists.
    fn value(&mut self) -> Result<Value, IrError> {
        let Kind::Value(number, port) = self.peek().kind else {
            return self.expected("a value such as `%3` or `%3.1`");
        };
        let at = self.take().at;
        let Some(node) = self.ids.get(&number).copied() else {
            return Err(at.error(format!("`%{number}` is not defined above")));
        };
        let results = self.graph.node(node).types.len();
        if port as usize >= results {
            return Err(at.error(format!("`%{number}` has {results} results, there is no `.{port}`")));
        }
        Ok(Value { node, port })
    }

    fn tensor_type(&mut self) -> Result<TensorType, IrError> {
        let at = self.at();
        let name = self.word("a type such as `f32[2, 3]`")?;
        let Some(dtype) = DType::from_name(&name) else {
            return Err(at.error(format!("`{name}` is not an element type (f32, f64, bf16, f16, i32)")));
        };
        self.symbol('[')?;
        let dims = self.separated(']', Self::size)?;
        Ok(TensorType { dtype, shape: Shape(dims) })
    }

    fn size(&mut self) -> Result<usize, IrError> {
        match &self.peek().kind {
            Kind::Number(n) => match n.parse() {
                Ok(size) if size > 0 && size <= MAX_ELEMENTS => {
                    self.next += 1;
                    Ok(size)
                }
                _ => self.expected("the size of an axis, at least 1"),
            },
            _ => self.expected("the size of an axis"),
        }
    }

    fn named_attribute(&mut self) -> Result<Entry, IrError> {
        let at = self.at();
        let key = self.word("the name of an attribute")?;
        self.symbol('=')?;
        let value = self.attribute(0)?;
        Ok(Entry { at, key, value })
    }

    fn attribute(&mut self, depth: usize) -> Result<Attribute, IrError> {
        let token = self.take();
        if depth > MAX_DEPTH {
            return Err(token.at.error(format!("attributes are nested deeper than {MAX_DEPTH}")));
        }
        match token.kind {
            Kind::Number(n) => Ok(Attribute::Number(n)),
            Kind::Text(t) => Ok(Attribute::Text(t)),
            Kind::Symbol('[') => Ok(Attribute::List(self.separated(']', |p| {
                let at = p.at();
                Ok((at, p.attribute(depth + 1)?))
            })?)),
            Kind::Word(name) if self.is_symbol('(') => {
                self.next += 1;
                let arguments = self.separated(')', |p| p.argument(depth + 1))?;
                Ok(Attribute::Call(name, arguments))
            }
            Kind::Word(name) => Ok(Attribute::Call(name, vec![])),
            Kind::Value(..) | Kind::Scope(_) | Kind::Symbol(_) | Kind::End => {
                self.next -= 1;
                self.expected("a number, a string, a name or a list")
            }
        }
    }

    /// An argument of a call, `key = value` or `value` (which gets its position as key).
    fn argument(&mut self, depth: usize) -> Result<Entry, IrError> {
        let at = self.at();
        let named = matches!(&self.peek().kind, Kind::Word(_))
            && self.tokens.get(self.next + 1).is_some_and(|t| t.kind == Kind::Symbol('='));
        let key = if named { self.word("a name")? } else { String::new() };
        if named {
            self.symbol('=')?;
        }
        Ok(Entry { at, key, value: self.attribute(depth)? })
    }
}
