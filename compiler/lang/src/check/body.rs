//! The walk through one function or the model: scopes, definitions, uses.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, INPUT, RESULT, walk};
use crate::ast::*;
use crate::builtins;
use crate::diagnostics::Diagnostic;
use crate::kind::{self, KIND, Question};
use crate::suggest::did_you_mean;

/// Cycles of definitions through more names than this are reported as uses before the definition.
const MAX_TRAIL: usize = 256;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
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

/// The walk through one function or the model.
pub(super) struct Body<'c, 'a> {
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

impl<'c, 'a> Body<'c, 'a> {
    pub(super) fn new(checker: &'c mut Checker<'a>, block: &'c Block, in_model: bool) -> Self {
        let mut definitions = Vec::new();
        collect_definitions(block, &mut definitions);
        Body {
            checker,
            scopes: vec![Scope::new()],
            bindings: Vec::new(),
            definitions,
            in_model,
            in_layers: false,
            depth: 0,
            reported: BTreeSet::new(),
        }
    }

    /// Counts a name of the current scope as used, if it exists.
    pub(super) fn use_name(&mut self, name: &str) -> bool {
        let ids = self.lookup(name).cloned();
        ids.iter().flatten().for_each(|i| self.bindings[*i].used = true);
        ids.is_some()
    }

    fn error(&mut self, span: Span, message: String, help: Option<String>) {
        self.checker.error(span, message, help);
    }

    fn lookup(&self, name: &str) -> Option<&Vec<usize>> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    /// Introduces a name. Names are never shadowed.
    pub(super) fn declare(&mut self, name: &Name, role: Role) {
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

    pub(super) fn statements(&mut self, block: &Block) {
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
                if let Some(question) = kind::question(expr).filter(|_| !self.defines(KIND)) {
                    return self.kind_question(expr, &question);
                }
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

    /// Whether a name is the text's or the model file's.
    fn defines(&self, name: &str) -> bool {
        self.lookup(name).is_some() || self.checker.outside.names.contains(name)
    }

    /// Checks that a layer is there to be asked for its kind, and that the word is one.
    fn kind_question(&mut self, whole: &Expr, question: &Question<'_>) {
        let one_of = || format!("it is one of {}", kind::words().join(", "));
        if !self.in_layers {
            let message = format!("`{KIND}` is the kind of attention of a layer, and no layer is here");
            let help = "ask inside of `for .. in layers`; a function takes the answer as an argument";
            return self.error(whole.span, message, Some(help.to_string()));
        }
        let ExprKind::Name(word) = &question.word.kind else {
            let message = format!("`{KIND}` is compared with the name of a kind of attention");
            return self.error(question.word.span, message, Some(one_of()));
        };
        if !kind::words().contains(&word.as_str()) {
            let message = format!("there is no kind of attention `{word}`");
            let help = did_you_mean(word, kind::words()).unwrap_or_else(one_of);
            self.error(question.word.span, message, Some(help));
        }
    }

    fn mention(&mut self, name: &str, span: Span, target: Option<&Name>) {
        if self.use_name(name) {
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
            None if name == KIND => {
                let help = format!("compare it: `{KIND} == {}`", kind::words()[1]);
                Diagnostic::new(path, span, format!("`{KIND}` alone has no value")).help(help)
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

    /// Reports what was never used.
    pub(super) fn finish(self) {
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
