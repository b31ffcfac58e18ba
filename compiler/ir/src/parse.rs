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

use linc_text::{Parsed, Position, TokenKind, Tokens};

use crate::attributes::{Attribute, Attributes, Entry};
use crate::error::IrError;
use crate::graph::{Graph, Node, NodeId, Value};
use crate::infer::infer;
use crate::limits::MAX_ELEMENTS;
use crate::scope::Scope;
use crate::types::{DType, Shape, TensorType};
use crate::verify::{Subject, check, types};

/// Deepest nesting of attribute values; fused steps need two levels.
const MAX_DEPTH: usize = 8;

/// Parses a graph and verifies it.
///
/// # Errors
/// [`IrError::Parse`] with line and column of what does not fit, be it syntax, types or a rule of [`mod@crate::verify`].
pub fn parse(text: &str) -> Result<Graph, IrError> {
    Ok(read(text)?)
}

fn read(text: &str) -> Parsed<Graph> {
    let mut parser = Parser {
        tokens: Tokens::new(text)?,
        graph: Graph::default(),
        ids: BTreeMap::new(),
        places: BTreeMap::new(),
    };
    let start = parser.tokens.at();
    parser.graph()?;
    match check(&parser.graph) {
        Ok(()) => Ok(parser.graph),
        Err((place, error)) => {
            let at = parser.places.get(&place).copied().unwrap_or(start);
            Err(at.error(error.to_string()))
        }
    }
}

struct Parser {
    tokens: Tokens,
    graph: Graph,
    /// Nodes by their number in the text.
    ids: BTreeMap<usize, NodeId>,
    /// Where nodes, outputs and updates were written.
    places: BTreeMap<Subject, Position>,
}

impl Parser {
    /// Items separated by commas up to the closing symbol, which is taken.
    fn separated<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        if self.tokens.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.tokens.eat(close) {
                return Ok(items);
            }
            if !self.tokens.eat(',') {
                return self.tokens.expected(&format!("`,` or `{close}`"));
            }
        }
    }

    fn graph(&mut self) -> Parsed<()> {
        if !self.tokens.eat_word("graph") {
            return self.tokens.expected("`graph \"name\" {`");
        }
        self.graph.name = self.tokens.text("the name of the graph as a string")?;
        self.tokens.symbol('{')?;
        loop {
            let at = self.tokens.at();
            if self.tokens.eat('}') {
                break;
            }
            if self.tokens.eat_word("output") {
                let name = self.tokens.text("the name of the output as a string")?;
                self.tokens.symbol('=')?;
                let value = self.value()?;
                self.places.insert(Subject::Output(self.graph.outputs.len()), at);
                self.graph.outputs.push((name, value));
            } else if self.tokens.eat_word("update") {
                let leaf = self.value()?;
                self.tokens.symbol('=')?;
                let value = self.value()?;
                self.places.insert(Subject::Update(self.graph.updates.len()), at);
                self.graph.updates.push((leaf.node, value));
            } else {
                let number = self
                    .tokens
                    .take("a node such as `%0: f32[2] = ...`, `output`, `update` or `}`", node_number)?;
                self.node(at, number)?;
            }
        }
        if *self.tokens.peek() == TokenKind::End {
            Ok(())
        } else {
            self.tokens.expected("the end of the text")
        }
    }

    fn node(&mut self, at: Position, number: usize) -> Parsed<()> {
        self.tokens.symbol(':')?;
        let mut annotated = vec![self.tensor_type()?];
        while self.tokens.eat(',') {
            annotated.push(self.tensor_type()?);
        }
        self.tokens.symbol('=')?;
        let op_at = self.tokens.at();
        let name = self.tokens.word("the name of an operation")?;
        self.tokens.symbol('(')?;
        let operands = self.separated(')', Self::value)?;
        let entries = if self.tokens.eat('{') { self.separated('}', Self::named_attribute)? } else { vec![] };
        let mut attributes = Attributes::new(op_at, &name, entries)?;
        let op = attributes.op(&annotated)?;
        attributes.finish()?;

        let scope = match self.tokens.peek().clone() {
            TokenKind::Scope(scope) => {
                self.tokens.advance();
                Scope::read(&scope)
            }
            _ => Scope::default(),
        };
        let recompute = self.tokens.eat('!');
        if recompute {
            self.tokens.keyword("recompute")?;
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
        self.places.insert(Subject::Node(id), at);
        Ok(())
    }

    /// A value that exists.
    fn value(&mut self) -> Parsed<Value> {
        let at = self.tokens.at();
        let (number, port) = self.tokens.take("a value such as `%3` or `%3.1`", numbers)?;
        let Some(node) = self.ids.get(&number).copied() else {
            return Err(at.error(format!("`%{number}` is not defined above")));
        };
        let results = self.graph.node(node).types.len();
        if port as usize >= results {
            return Err(at.error(format!("`%{number}` has {results} results, there is no `.{port}`")));
        }
        Ok(Value { node, port })
    }

    fn tensor_type(&mut self) -> Parsed<TensorType> {
        let at = self.tokens.at();
        let name = self.tokens.word("a type such as `f32[2, 3]`")?;
        let Some(dtype) = DType::from_name(&name) else {
            return Err(at.error(format!("`{name}` is not an element type (f32, f64, bf16, f16, i32)")));
        };
        self.tokens.symbol('[')?;
        let dims = self.separated(']', Self::size)?;
        Ok(TensorType { dtype, shape: Shape(dims) })
    }

    fn size(&mut self) -> Parsed<usize> {
        self.tokens.take("the size of an axis, at least 1", |kind| match kind {
            TokenKind::Number(n) => n.parse().ok().filter(|size| (1..=MAX_ELEMENTS).contains(size)),
            _ => None,
        })
    }

    fn named_attribute(&mut self) -> Parsed<Entry> {
        let at = self.tokens.at();
        let key = self.tokens.word("the name of an attribute")?;
        self.tokens.symbol('=')?;
        let value = self.attribute(0)?;
        Ok(Entry { at, key, value })
    }

    fn attribute(&mut self, depth: usize) -> Parsed<Attribute> {
        if depth > MAX_DEPTH {
            return Err(self.tokens.at().error(format!("attributes are nested deeper than {MAX_DEPTH}")));
        }
        if self.tokens.eat('[') {
            return Ok(Attribute::List(self.separated(']', |p| {
                let at = p.tokens.at();
                Ok((at, p.attribute(depth + 1)?))
            })?));
        }
        let attribute = self.tokens.take("a number, a string, a name or a list", |kind| match kind {
            TokenKind::Number(n) => Some(Attribute::Number(n.clone())),
            TokenKind::Word(word) if matches!(word.as_str(), "inf" | "NaN") => {
                Some(Attribute::Number(word.clone()))
            }
            TokenKind::Word(name) => Some(Attribute::Call(name.clone(), vec![])),
            TokenKind::Text(text) => Some(Attribute::Text(text.clone())),
            _ => None,
        })?;
        match attribute {
            Attribute::Call(name, _) if self.tokens.eat('(') => {
                Ok(Attribute::Call(name, self.separated(')', |p| p.argument(depth + 1))?))
            }
            other => Ok(other),
        }
    }

    /// An argument of a call, `key = value` or `value` (which gets its position as key).
    fn argument(&mut self, depth: usize) -> Parsed<Entry> {
        let at = self.tokens.at();
        let named = matches!(self.tokens.peek(), TokenKind::Word(_))
            && *self.tokens.peek_second() == TokenKind::Symbol('=');
        let key = if named { self.tokens.word("a name")? } else { String::new() };
        if named {
            self.tokens.symbol('=')?;
        }
        Ok(Entry { at, key, value: self.attribute(depth)? })
    }
}

/// The number of a value and that of its result: `%3.1`, or `%3` for the first result.
fn numbers(kind: &TokenKind) -> Option<(usize, u32)> {
    let TokenKind::Value(name) = kind else { return None };
    let (node, port) = name.split_once('.').unwrap_or((name, "0"));
    Some((node.parse().ok()?, port.parse().ok()?))
}

fn node_number(kind: &TokenKind) -> Option<usize> {
    numbers(kind).filter(|(_, port)| *port == 0).map(|(number, _)| number)
}
