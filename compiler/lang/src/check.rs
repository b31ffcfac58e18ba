//! Names: everything that can be said about them without building.
//!
//! Undefined, duplicate and unused names, cycles of definitions and of calls, misplaced statements. All of it
//! holds for the file as a whole, in both branches of every `if`, so that an architecture that is right for
//! one flavour does not turn out to be misspelt for the next.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::*;
use crate::builtins;
use crate::config::STRUCTURAL;
use crate::diagnostics::Diagnostic;
use crate::suggest::did_you_mean;

/// The name of the model's result.
pub(crate) const RESULT: &str = "logits";

/// The name of the model's input.
pub(crate) const INPUT: &str = "tokens";

/// Cycles of definitions through more names than this are reported as uses before the definition.
const MAX_TRAIL: usize = 256;

/// Names that the model TOML gives.
pub(crate) struct Outside<'a> {
    /// All names.
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

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Bound by `=`; may be rebound.
    Variable,
    /// Bound by `let`.
    Constant,
    /// A parameter of the model.
    Param,
    /// A parameter of a function.
    Argument,
    /// The model's input, its axes, a layer index: need not be used.
    Given,
}

struct Binding {
    name: String,
    span: Span,
    role: Role,
    used: bool,
}

/// Names of a scope; after an `if`, one name may stand for a binding of either branch.
type Scope = BTreeMap<String, Vec<usize>>;

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

/// The walk through one function or the model.
struct Body<'c, 'a> {
    checker: &'c mut Checker<'a>,
    scopes: Vec<Scope>,
    bindings: Vec<Binding>,
    /// Every definition of the body: name, place, names its value mentions. For cycles.
    definitions: Vec<(&'c Name, Vec<&'c str>)>,
    in_model: bool,
    in_layers: bool,
    /// Blocks around the current statement, within the body.
    depth: usize,
    /// Undefined names that have been reported.
    reported: BTreeSet<String>,
}

impl<'a> Checker<'a> {
    fn error(&mut self, span: Span, message: String, help: Option<String>) {
        self.errors.push(Diagnostic::new(self.path, span, message).help(help));
    }

    fn body<'c>(&'c mut self, block: &'c Block, in_model: bool) -> Body<'c, 'a> {
        let mut definitions = Vec::new();
        collect_definitions(block, &mut definitions);
        Body {
            checker: self,
            scopes: vec![Scope::new()],
            bindings: Vec::new(),
            definitions,
            in_model,
            in_layers: false,
            depth: 0,
            reported: BTreeSet::new(),
        }
    }

    fn function(&mut self, function: &Function) {
        let returns = |s: &Statement| matches!(s.kind, StatementKind::Return { .. });
        if !function.body.statements.last().is_some_and(returns) {
            let message = format!("the function `{}` does not end with `return`", function.name.text);
            self.error(function.name.span, message, None);
        }
        let mut body = self.body(&function.body, false);
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
        let mut body = self.body(&model.body, true);
        body.declare(&model.input, Role::Given);
        for axis in &model.axes {
            body.declare(axis, Role::Given);
        }
        body.statements(&model.body);
        let result = body.scopes[0].get(RESULT).cloned();
        match result {
            Some(ids) => ids.iter().for_each(|i| body.bindings[*i].used = true),
            None => {
                let message = format!("the model does not define `{RESULT}`");
                let help = format!("bind its result at the end: `{RESULT} = ...`");
                body.checker.error(model.name.span, message, Some(help));
            }
        }
        body.finish();
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

impl Body<'_, '_> {
    fn error(&mut self, span: Span, message: String, help: Option<String>) {
        self.checker.error(span, message, help);
    }

    fn lookup(&self, name: &str) -> Option<&Vec<usize>> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    /// Introduces a name. Names are never shadowed.
    fn declare(&mut self, name: &Name, role: Role) {
        if let Some(first) = self.lookup(&name.text).map(|ids| self.bindings[ids[0]].span) {
            let message = format!("`{}` is already defined", name.text);
            let path = self.checker.path;
            let error = Diagnostic::new(path, name.span, message).label(path, first, "first defined here");
            self.checker.errors.push(error);
            return;
        }
        if self.checker.outside.names.contains(name.text.as_str()) {
            let message = format!("`{}` is already a number of the model", name.text);
            self.error(name.span, message, Some("choose another name".to_string()));
            return;
        }
        let id = self.bindings.len();
        self.bindings.push(Binding { name: name.text.clone(), span: name.span, role, used: false });
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.text.clone(), vec![id]);
        }
    }

    fn assign(&mut self, name: &Name) {
        let Some(ids) = self.lookup(&name.text) else {
            return self.declare(name, Role::Variable);
        };
        let Some(fixed) = ids.iter().map(|i| &self.bindings[*i]).find(|b| b.role != Role::Variable) else {
            return;
        };
        let what = match fixed.role {
            Role::Constant => "is defined by `let` and keeps its value",
            Role::Param => "is a parameter",
            Role::Argument | Role::Given | Role::Variable => "cannot be rebound",
        };
        let path = self.checker.path;
        let error = Diagnostic::new(path, name.span, format!("`{}` {what}", name.text))
            .label(path, fixed.span, "defined here")
            .help("choose another name".to_string());
        self.checker.errors.push(error);
    }

    fn scoped(&mut self, body: impl FnOnce(&mut Self)) {
        self.scopes.push(Scope::new());
        self.depth += 1;
        body(self);
        self.depth -= 1;
        self.scopes.pop();
    }

    fn statements(&mut self, block: &Block) {
        let last = block.statements.len().saturating_sub(1);
        for (i, statement) in block.statements.iter().enumerate() {
            let misplaced = match &statement.kind {
                StatementKind::Return { .. } if self.in_model => {
                    Some(format!("`return` belongs to functions; a model binds `{RESULT}`"))
                }
                StatementKind::Return { .. } if self.depth > 0 || i < last => {
                    Some("`return` must be the last statement of its function".to_string())
                }
                StatementKind::Param { .. } | StatementKind::For { .. } | StatementKind::Block { .. }
                    if !self.in_model =>
                {
                    Some("a function holds no parameters, layers or blocks".to_string())
                }
                StatementKind::For { .. } if self.in_layers => Some("layers cannot be nested".to_string()),
                _ => None,
            };
            match misplaced {
                Some(message) => self.error(statement.span, message, None),
                None => self.statement(&statement.kind),
            }
        }
    }

    fn statement(&mut self, kind: &StatementKind) {
        match kind {
            StatementKind::Let { name, value } => {
                self.expr(value, Some(name));
                self.declare(name, Role::Constant);
            }
            StatementKind::Assign { name, value } => {
                self.expr(value, Some(name));
                self.assign(name);
            }
            StatementKind::Param { name, shape, init: _, arguments } => {
                shape.iter().for_each(|e| self.expr(e, None));
                arguments.iter().for_each(|a| self.expr(&a.value, None));
                self.declare(name, Role::Param);
            }
            StatementKind::For { variable, body } => self.scoped(|s| {
                s.in_layers = true;
                s.declare(variable, Role::Given);
                s.statements(body);
                s.in_layers = false;
            }),
            StatementKind::Block { name: _, body } => self.scoped(|s| s.statements(body)),
            StatementKind::If { condition, then, otherwise } => {
                self.expr(condition, None);
                self.depth += 1;
                // The branches bind into the scope around them, each as if the other were not there.
                let before = self.scopes.last().cloned().unwrap_or_default();
                self.statements(then);
                let mut merged = match self.scopes.last_mut() {
                    Some(scope) => std::mem::replace(scope, before.clone()),
                    None => Scope::new(),
                };
                if let Some(otherwise) = otherwise {
                    self.statements(otherwise);
                }
                self.depth -= 1;
                for (name, ids) in self.scopes.last().into_iter().flatten() {
                    if !before.contains_key(name) {
                        merged.entry(name.clone()).or_default().extend(ids);
                    }
                }
                if let Some(scope) = self.scopes.last_mut() {
                    *scope = merged;
                }
            }
            StatementKind::Return { value } => self.expr(value, None),
        }
    }

    /// Checks the names of an expression; `target` is what it defines.
    fn expr(&mut self, expr: &Expr, target: Option<&Name>) {
        match &expr.kind {
            ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_) => {}
            ExprKind::Name(name) => self.mention(name, expr.span, target),
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) | ExprKind::Transpose(inner) => {
                self.expr(inner, target);
            }
            ExprKind::List(items) => items.iter().for_each(|e| self.expr(e, target)),
            ExprKind::Binary(_, left, right) => {
                self.expr(left, target);
                self.expr(right, target);
            }
            ExprKind::Call { function, arguments } => {
                let name = function.text.as_str();
                if self.checker.functions.contains_key(name) {
                    self.checker.called.insert(name.to_string());
                } else if builtins::find(name).is_none() {
                    let own = self.checker.functions.keys().copied();
                    let help = did_you_mean(name, builtins::names().chain(own));
                    self.error(function.span, format!("undefined function `{name}`"), help);
                }
                arguments.iter().for_each(|a| self.expr(&a.value, target));
            }
        }
    }

    fn mention(&mut self, name: &str, span: Span, target: Option<&Name>) {
        if let Some(ids) = self.lookup(name).cloned() {
            ids.iter().for_each(|i| self.bindings[*i].used = true);
            return;
        }
        if self.checker.outside.names.contains(name) {
            self.checker.mentioned.insert(name.to_string());
            return;
        }
        // Once is enough.
        if !self.reported.insert(name.to_string()) {
            return;
        }
        let path = self.checker.path;
        if let Some(cycle) = target.and_then(|t| self.cycle(name, &t.text)) {
            let mut error = match cycle.as_slice() {
                [] => Diagnostic::new(path, span, format!("cycle: `{name}` is defined in terms of itself")),
                [_, ..] => {
                    let trail: Vec<&str> = cycle.iter().map(|n| n.text.as_str()).collect();
                    let first = target.map_or(name, |t| &t.text);
                    let message =
                        format!("cycle of definitions: {first} -> {} -> {first}", trail.join(" -> "));
                    Diagnostic::new(path, span, message)
                }
            };
            let steps: Vec<String> = cycle.iter().map(|step| step.text.clone()).collect();
            for step in cycle {
                error = error.label(path, step.span, format!("`{}` is defined here", step.text));
            }
            self.reported.extend(steps);
            self.checker.errors.push(error);
            return;
        }
        // A definition may exist, only not here: further down, or inside a block that has ended.
        let start = span.start;
        let elsewhere = self.definitions.iter().map(|(n, _)| *n).find(|n| n.text == name);
        let error = match elsewhere {
            Some(other) if other.span.start >= start => {
                let message = format!("`{name}` is used before it is defined");
                Diagnostic::new(path, span, message).label(path, other.span, "defined only here")
            }
            Some(other) => {
                let message = format!("undefined name `{name}`");
                Diagnostic::new(path, span, message).label(
                    path,
                    other.span,
                    "this one is visible only in its own block",
                )
            }
            None => {
                let visible = self.scopes.iter().flat_map(|s| s.keys().map(String::as_str));
                let outside = self.checker.outside.names.iter().copied();
                let help = did_you_mean(name, visible.chain(outside)).unwrap_or_else(|| {
                    format!("define it, or give its value under [constants] in {}", self.checker.outside.path)
                });
                Diagnostic::new(path, span, format!("undefined name `{name}`")).help(help)
            }
        };
        self.checker.errors.push(error);
    }

    /// The definitions that lead from `name` back to `target`, if the one needs the other.
    fn cycle(&self, name: &str, target: &str) -> Option<Vec<&Name>> {
        if name == target {
            return Some(Vec::new());
        }
        let mut seen = BTreeSet::from([name]);
        let mut trails: Vec<Vec<usize>> = (0..self.definitions.len())
            .filter(|i| self.definitions[*i].0.text == name)
            .map(|i| vec![i])
            .collect();
        while let Some(trail) = trails.pop() {
            let (_, needs) = &self.definitions[*trail.last()?];
            if seen.len() > MAX_TRAIL {
                return None;
            }
            if needs.contains(&target) {
                return Some(trail.iter().map(|i| self.definitions[*i].0).collect());
            }
            for need in needs {
                if self.lookup(need).is_none() && seen.insert(need) {
                    for (i, (definition, _)) in self.definitions.iter().enumerate() {
                        if definition.text == *need {
                            trails.push(trail.iter().copied().chain([i]).collect());
                        }
                    }
                }
            }
        }
        None
    }

    fn finish(self) {
        for binding in self.bindings {
            let needed = binding.role != Role::Given || binding.name == INPUT;
            if needed && !binding.used && !binding.name.starts_with('_') {
                let what = match binding.role {
                    Role::Param => "parameter ",
                    Role::Variable | Role::Constant | Role::Argument | Role::Given => "",
                };
                let message = format!("{what}`{}` is never used", binding.name);
                let help = format!("remove it, or call it `_{}` to keep it", binding.name);
                let help = (binding.role != Role::Param && binding.role != Role::Given).then_some(help);
                let error = Diagnostic::new(self.checker.path, binding.span, message);
                self.checker.unused.push(error.help(help));
            }
        }
    }
}

fn collect_definitions<'c>(block: &'c Block, into: &mut Vec<(&'c Name, Vec<&'c str>)>) {
    for statement in &block.statements {
        match &statement.kind {
            StatementKind::Let { name, value } | StatementKind::Assign { name, value } => {
                let mut names = Vec::new();
                walk(value, &mut |e| {
                    if let ExprKind::Name(name) = &e.kind {
                        names.push(name.as_str());
                    }
                });
                into.push((name, names));
            }
            StatementKind::Param { name, .. } => into.push((name, Vec::new())),
            StatementKind::For { body, .. } | StatementKind::Block { body, .. } => {
                collect_definitions(body, into);
            }
            StatementKind::If { then, otherwise, .. } => {
                collect_definitions(then, into);
                otherwise.iter().for_each(|b| collect_definitions(b, into));
            }
            StatementKind::Return { .. } => {}
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
