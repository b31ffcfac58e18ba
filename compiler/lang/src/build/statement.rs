//! Statements: names are bound, branches taken, layers and blocks entered.

use std::collections::BTreeMap;

use linc_ir::Scope;

use super::{Builder, Built, Part};
use crate::ast::*;
use crate::config::Number;
use crate::value::Value;

impl Builder<'_> {
    pub(super) fn bind(&mut self, name: &str, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_string(), value);
        }
    }

    pub(crate) fn block(&mut self, block: &Block) -> Built<Option<Value>> {
        for statement in &block.statements {
            if let Some(value) = self.guarded(statement.span, |b| b.statement(statement))? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Runs a statement; a value is a function's result.
    fn statement(&mut self, statement: &Statement) -> Built<Option<Value>> {
        match &statement.kind {
            StatementKind::Let { name, value } => {
                let value = self.eval(value)?;
                self.bind(&name.text, value);
            }
            StatementKind::Assign { name, value } => {
                let value = self.eval(value)?;
                match self.scopes.iter_mut().rev().find_map(|scope| scope.get_mut(&name.text)) {
                    Some(slot) => *slot = value,
                    None => self.bind(&name.text, value),
                }
            }
            StatementKind::Param { name, shape, init, arguments } => {
                self.param(name, shape, init, arguments)?;
            }
            StatementKind::For { variable, body } => {
                for layer in 0..self.count("n_layers") {
                    self.layer = Some(layer);
                    self.enter(Part::Layer(layer), |b| {
                        b.bind(&variable.text, Value::Number(Number::Int(layer as i64)));
                        b.block(body)
                    })?;
                }
                self.layer = None;
            }
            StatementKind::Block { name, body } => {
                self.enter(Part::Block(name.text.clone()), |b| b.block(body))?;
            }
            StatementKind::If { condition, then, otherwise } => match self.eval(condition)? {
                Value::Number(Number::Bool(true)) => {
                    self.block(then)?;
                }
                Value::Number(Number::Bool(false)) => {
                    if let Some(otherwise) = otherwise {
                        self.block(otherwise)?;
                    }
                }
                other => {
                    let message = format!("a condition must be true or false, found {}", other.describe());
                    let error = self.error(condition.span, message);
                    return Err(self.blame(error, condition));
                }
            },
            StatementKind::Return { value } => return self.eval(value).map(Some),
        }
        Ok(None)
    }

    /// Runs `body` in a scope of names, of checkpoint names and of the graph.
    fn enter(&mut self, part: Part, body: impl FnOnce(&mut Self) -> Built<Option<Value>>) -> Built<()> {
        self.prefix.push(part);
        self.scopes.push(BTreeMap::new());
        let blocks = self.prefix.iter().filter_map(|part| match part {
            Part::Layer(_) => None,
            Part::Block(name) => Some(name.as_str()),
        });
        let path = blocks.collect::<Vec<_>>().join("/");
        let outer = self.graph.set_scope(Scope { layer: self.layer, path });
        let result = body(self);
        self.graph.set_scope(outer);
        self.scopes.pop();
        self.prefix.pop();
        result.map(|_| ())
    }
}
