//! The stable text form of a syntax tree.

use crate::ast::*;

/// A file as text, ending in a newline.
pub(crate) fn file(file: &File) -> String {
    let mut printer = Printer { out: String::new(), level: 0 };
    for item in &file.items {
        printer.trivia(&item.lead);
        match &item.kind {
            ItemKind::Function(function) => {
                let parameters: Vec<&str> = function.parameters.iter().map(|p| p.text.as_str()).collect();
                printer.line_start();
                printer.out += &format!("fn {}({}) ", function.name.text, parameters.join(", "));
                printer.block(&function.body);
            }
            ItemKind::Model(model) => {
                let axes: Vec<&str> = model.axes.iter().map(|a| a.text.as_str()).collect();
                let (name, input, element) = (&model.name.text, &model.input.text, &model.element.text);
                printer.line_start();
                printer.out += &format!("model {name}({input}: [{}] {element}) ", axes.join(", "));
                printer.block(&model.body);
            }
        }
        printer.out.push('\n');
    }
    printer.trivia(&file.tail);
    printer.out
}

/// An expression as text, on one line.
pub(crate) fn expr(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Int(value) => value.to_string(),
        ExprKind::Float(value) => format!("{value:?}"),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Name(name) => name.clone(),
        ExprKind::Paren(inner) => format!("({})", self::expr(inner)),
        ExprKind::List(items) => exprs(items),
        ExprKind::Unary(UnaryOperator::Neg, operand) => format!("-{}", self::expr(operand)),
        ExprKind::Unary(UnaryOperator::Not, operand) => format!("not {}", self::expr(operand)),
        ExprKind::Binary(operator, left, right) => {
            format!("{} {} {}", self::expr(left), operator.symbol(), self::expr(right))
        }
        ExprKind::Transpose(operand) => format!("{}.T", self::expr(operand)),
        ExprKind::Call { function, arguments } => format!("{}{}", function.text, self::arguments(arguments)),
    }
}

/// `[a, b]`
pub(crate) fn exprs(items: &[Expr]) -> String {
    format!("[{}]", items.iter().map(expr).collect::<Vec<_>>().join(", "))
}

fn arguments(arguments: &[Argument]) -> String {
    let text = |a: &Argument| match &a.name {
        Some(name) => format!("{} = {}", name.text, expr(&a.value)),
        None => expr(&a.value),
    };
    format!("({})", arguments.iter().map(text).collect::<Vec<_>>().join(", "))
}

struct Printer {
    out: String,
    level: usize,
}

impl Printer {
    fn line_start(&mut self) {
        for _ in 0..self.level {
            self.out += "  ";
        }
    }

    fn trivia(&mut self, trivia: &[Trivia]) {
        for piece in trivia {
            match piece {
                Trivia::Blank => self.out.push('\n'),
                Trivia::Comment(text) => {
                    self.line_start();
                    self.out += &format!("#{text}\n");
                }
            }
        }
    }

    /// `{ ... }` without the line break after it.
    fn block(&mut self, block: &Block) {
        if block.statements.is_empty() && block.tail.is_empty() {
            self.out += "{}";
            return;
        }
        self.out += "{\n";
        self.level += 1;
        for statement in &block.statements {
            self.statement(statement);
        }
        self.trivia(&block.tail);
        self.level -= 1;
        self.line_start();
        self.out.push('}');
    }

    fn statement(&mut self, statement: &Statement) {
        self.trivia(&statement.lead);
        self.line_start();
        self.statement_kind(&statement.kind);
        if let Some(comment) = &statement.comment {
            self.out += &format!("  #{comment}");
        }
        self.out.push('\n');
    }

    fn statement_kind(&mut self, kind: &StatementKind) {
        match kind {
            StatementKind::Let { name, value } => {
                self.out += &format!("let {} = {}", name.text, expr(value));
            }
            StatementKind::Assign { name, value } => {
                self.out += &format!("{} = {}", name.text, expr(value));
            }
            StatementKind::Param { name, shape, init, arguments } => {
                self.out += &format!("param {} {} init {}", name.text, exprs(shape), init.text);
                if !arguments.is_empty() {
                    self.out += &self::arguments(arguments);
                }
            }
            StatementKind::For { variable, body } => {
                self.out += &format!("for {} in layers ", variable.text);
                self.block(body);
            }
            StatementKind::Block { name, body } => {
                self.out += &format!("block {} ", name.text);
                self.block(body);
            }
            StatementKind::If { condition, then, otherwise } => {
                self.out += &format!("if {} ", expr(condition));
                self.block(then);
                if let Some(otherwise) = otherwise {
                    self.out += " else ";
                    match otherwise.statements.as_slice() {
                        [inner] if is_else_if(inner) && otherwise.tail.is_empty() => {
                            self.statement_kind(&inner.kind);
                        }
                        _ => self.block(otherwise),
                    }
                }
            }
            StatementKind::Return { value } => self.out += &format!("return {}", expr(value)),
        }
    }
}

/// An `if` alone in an else block, without comments, is written `else if`.
fn is_else_if(statement: &Statement) -> bool {
    matches!(statement.kind, StatementKind::If { .. })
        && statement.lead.is_empty()
        && statement.comment.is_none()
}
