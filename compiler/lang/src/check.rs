//! Names: everything that can be said about them without building.
//!
//! Undefined, duplicate and unused names, cycles of definitions and of calls, misplaced statements. All of it
//! holds for the file as a whole, in both branches of every `if`, so that an architecture that is right for
//! one flavour does not turn out to be misspelt for the next.

use std::collections::{BTreeMap, BTreeSet};

use self::body::{Body, Role};
use crate::ast::*;
use crate::builtins;
use crate::config::STRUCTURAL;
use crate::diagnostics::Diagnostic;

mod body;

/// The name of the model's result.
pub(crate) const RESULT: &str = "logits";

/// The name of the model's input.
pub(crate) const INPUT: &str = "tokens";

/// Names that the model TOML gives.
pub(crate) struct Outside<'a> {
    /// What the text may read without defining it.
    pub(crate) names: BTreeSet<&'a str>,
    /// Path of the TOML, for messages.
    pub(crate) path: &'a str,
    /// Names that the text of the TOML sets, with their places.
    pub(crate) given: Vec<(&'a str, std::ops::Range<usize>)>,
}

/// Checks a file; the result is empty if all is well.
pub(crate) fn check(path: &str, file: &File, outside: &Outside<'_>) -> Vec<Diagnostic> {
    let mut functions = BTreeMap::new();
    let mut errors = Vec::new();
    let mut model: Option<&Model> = None;
    for item in &file.items {
        match &item.kind {
            ItemKind::Function(function) => {
                let name = &function.name;
                if builtins::find(&name.text).is_some() {
                    let message = format!("`{}` is a built-in function", name.text);
                    errors.push(
                        Diagnostic::new(path, name.span, message).help("choose another name".to_string()),
                    );
                } else if let Some(first) = functions.insert(name.text.as_str(), function) {
                    let message = format!("the function `{}` is defined twice", name.text);
                    let error = Diagnostic::new(path, name.span, message);
                    errors.push(error.label(path, first.name.span, "first defined here"));
                }
            }
            ItemKind::Model(second) => match model {
                None => model = Some(second),
                Some(first) => {
                    let error = Diagnostic::new(path, second.name.span, "a file holds one model");
                    errors.push(error.label(path, first.name.span, "the first one is here"));
                }
            },
        }
    }
    let Some(model) = model else {
        let end = file.items.last().map_or(0, |item| match &item.kind {
            ItemKind::Function(f) => f.name.span.end,
            ItemKind::Model(m) => m.name.span.end,
        });
        let help = format!("write `model name({INPUT}: [batch, seq] int) {{ ... }}`");
        errors.push(Diagnostic::new(path, end..end, "the file defines no model").help(help));
        return errors;
    };
    let mut checker = Checker {
        path,
        outside,
        functions: &functions,
        mentioned: BTreeSet::new(),
        called: BTreeSet::new(),
        errors,
        unused: Vec::new(),
    };
    for function in functions.values() {
        checker.function(function);
    }
    checker.model(model);
    checker.functions_used();
    checker.unused_outside();
    // A misspelt name also leaves the right one unused; only the mistake itself is worth reading.
    if checker.errors.is_empty() { checker.unused } else { checker.errors }
}

struct Checker<'a> {
    path: &'a str,
    outside: &'a Outside<'a>,
    functions: &'a BTreeMap<&'a str, &'a Function>,
    /// Outside names that some expression reads.
    mentioned: BTreeSet<String>,
    called: BTreeSet<String>,
    errors: Vec<Diagnostic>,
    /// What is defined or set and never read.
    unused: Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    fn error(&mut self, span: Span, message: String, help: Option<String>) {
        self.errors.push(Diagnostic::new(self.path, span, message).help(help));
    }

    fn function(&mut self, function: &Function) {
        let returns = |s: &Statement| matches!(s.kind, StatementKind::Return { .. });
        if !function.body.statements.last().is_some_and(returns) {
            let message = format!("the function `{}` does not end with `return`", function.name.text);
            self.error(function.name.span, message, None);
        }
        let mut body = Body::new(self, &function.body, false);
        for parameter in &function.parameters {
            body.declare(parameter, Role::Argument);
        }
        body.statements(&function.body);
        body.finish();
    }

    fn model(&mut self, model: &Model) {
        if model.input.text != INPUT {
            let message = format!("the model's input must be called `{INPUT}`, found `{}`", model.input.text);
            self.error(model.input.span, message, None);
        }
        if model.axes.len() != 2 || model.element.text != "int" {
            let message = "the model's input must be `[batch, seq] int`".to_string();
            self.error(model.input.span.to(model.element.span), message, None);
        }
        let mut body = Body::new(self, &model.body, true);
        body.declare(&model.input, Role::Given);
        for axis in &model.axes {
            body.declare(axis, Role::Given);
        }
        body.statements(&model.body);
        let defined = body.use_name(RESULT);
        body.finish();
        if !defined {
            let message = format!("the model does not define `{RESULT}`");
            let help = format!("bind its result at the end: `{RESULT} = ...`");
            self.error(model.name.span, message, Some(help));
        }
    }

    fn functions_used(&mut self) {
        if let Some(cycle) = self.call_cycle() {
            let names: Vec<&str> = cycle.iter().map(|n| n.text.as_str()).collect();
            let message = match names.as_slice() {
                [one] => format!("cycle: the function `{one}` calls itself"),
                _ => format!("cycle of calls: {} -> {}", names.join(" -> "), names[0]),
            };
            let mut error = Diagnostic::new(self.path, cycle[0].span, message);
            for call in &cycle[1..] {
                error = error.label(self.path, call.span, "and this call");
            }
            let help = "functions are expanded where they are called, so they cannot recurse";
            self.errors.push(error.help(help.to_string()));
        }
        for (name, function) in self.functions {
            if !self.called.contains(*name) && !name.starts_with('_') {
                let message = format!("the function `{name}` is never called");
                self.unused.push(Diagnostic::new(self.path, function.name.span, message));
            }
        }
    }

    /// Names at the call sites of a cycle of calls, if there is one.
    fn call_cycle(&self) -> Option<Vec<&'a Name>> {
        let mut calls: BTreeMap<&str, Vec<&'a Name>> = BTreeMap::new();
        for (name, function) in self.functions {
            let callees = calls.entry(name).or_default();
            expressions(&function.body, &mut |e| match &e.kind {
                ExprKind::Call { function, .. } if self.functions.contains_key(function.text.as_str()) => {
                    callees.push(function);
                }
                _ => {}
            });
        }
        // Take away functions that call none that is left; what stays calls in circles.
        let mut callers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (caller, callees) in &calls {
            callees.iter().for_each(|c| callers.entry(&c.text).or_default().push(caller));
        }
        let mut open: BTreeMap<&str, usize> = calls.iter().map(|(name, c)| (*name, c.len())).collect();
        let mut leaves: Vec<&str> = open.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name).collect();
        while let Some(leaf) = leaves.pop() {
            calls.remove(leaf);
            for caller in callers.get(leaf).into_iter().flatten() {
                if let Some(count) = open.get_mut(caller) {
                    *count -= 1;
                    if *count == 0 {
                        leaves.push(caller);
                    }
                }
            }
        }
        let mut trail: Vec<&'a Name> = Vec::new();
        let mut at = *calls.keys().next()?;
        loop {
            let call = *calls.get(at)?.iter().find(|c| calls.contains_key(c.text.as_str()))?;
            if let Some(start) = trail.iter().position(|n| n.text == call.text) {
                return Some(trail.split_off(start));
            }
            trail.push(call);
            at = &call.text;
        }
    }

    /// A number that is set and has no effect would mislead.
    fn unused_outside(&mut self) {
        for (name, span) in &self.outside.given {
            if !self.mentioned.contains(*name) && !STRUCTURAL.contains(name) {
                let message = format!("`{name}` is set, but {} does not read it", self.path);
                let error = Diagnostic::new(self.outside.path, span.clone(), message);
                self.unused.push(error);
            }
        }
    }
}

/// Calls `visit` on every expression of a block, inner blocks included.
fn expressions<'e>(block: &'e Block, visit: &mut dyn FnMut(&'e Expr)) {
    for statement in &block.statements {
        match &statement.kind {
            StatementKind::Let { value, .. }
            | StatementKind::Assign { value, .. }
            | StatementKind::Return { value } => walk(value, visit),
            StatementKind::Param { shape, arguments, .. } => {
                shape.iter().for_each(|e| walk(e, visit));
                arguments.iter().for_each(|a| walk(&a.value, visit));
            }
            StatementKind::For { body, .. } | StatementKind::Block { body, .. } => expressions(body, visit),
            StatementKind::If { condition, then, otherwise } => {
                walk(condition, visit);
                expressions(then, visit);
                otherwise.iter().for_each(|b| expressions(b, visit));
            }
        }
    }
}

/// Calls `visit` on an expression and all within it.
pub(crate) fn walk<'e>(expr: &'e Expr, visit: &mut dyn FnMut(&'e Expr)) {
    visit(expr);
    match &expr.kind {
        ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_) | ExprKind::Name(_) => {}
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) | ExprKind::Transpose(inner) => walk(inner, visit),
        ExprKind::List(items) => items.iter().for_each(|e| walk(e, visit)),
        ExprKind::Binary(_, left, right) => {
            walk(left, visit);
            walk(right, visit);
        }
        ExprKind::Call { arguments, .. } => arguments.iter().for_each(|a| walk(&a.value, visit)),
    }
}
