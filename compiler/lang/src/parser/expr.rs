//! Expressions: precedence climbing. Each function also returns the depth of the tree it made.

use super::{MAX_DEPTH, Parsed, Parser};
use crate::ast::*;
use crate::lexer::{NOT, TokenKind};

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        Ok(self.binary(0)?.0)
    }

    pub(super) fn argument(&mut self) -> Parsed<(Argument, usize)> {
        let named = matches!(self.kind(), TokenKind::Word(_))
            && self.tokens.get(self.at + 1).is_some_and(|t| t.kind == TokenKind::Symbol("="));
        let name = if named {
            let name = self.name("an argument's name")?;
            self.bump();
            Some(name)
        } else {
            None
        };
        let (value, depth) = self.binary(0)?;
        Ok((Argument { name, value }, depth))
    }

    /// An expression of operators at least as strong as `least`, with the depth of its tree.
    fn binary(&mut self, least: u8) -> Parsed<(Expr, usize)> {
        self.nested(|p| {
            let (mut left, mut depth) = p.prefix()?;
            while let Some(operator) = p.operator().filter(|o| o.precedence() >= least) {
                p.bump();
                let (right, right_depth) = p.binary(operator.precedence() + 1)?;
                let span = left.span.to(right.span);
                depth = p.deeper(depth.max(right_depth), span)?;
                let kind = ExprKind::Binary(operator, Box::new(left), Box::new(right));
                left = Expr { kind, span };
            }
            Ok((left, depth))
        })
    }

    fn deeper(&self, depth: usize, span: Span) -> Parsed<usize> {
        if depth >= MAX_DEPTH { self.too_deep(span) } else { Ok(depth + 1) }
    }

    fn operator(&self) -> Option<BinaryOperator> {
        use BinaryOperator::*;
        let text = match self.kind() {
            TokenKind::Word(word) => word.as_str(),
            TokenKind::Symbol(symbol) => symbol,
            TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::End => return None,
        };
        [Add, Sub, Mul, Div, FloorDiv, MatMul, Eq, Ne, Lt, Le, Gt, Ge, And, Or]
            .into_iter()
            .find(|o| o.symbol() == text)
    }

    fn prefix(&mut self) -> Parsed<(Expr, usize)> {
        let start = self.span();
        let (operator, least) = if self.is("-") {
            (UnaryOperator::Neg, u8::MAX)
        } else if self.is(NOT) {
            (UnaryOperator::Not, BinaryOperator::Eq.precedence())
        } else {
            return self.postfix();
        };
        self.bump();
        let (operand, depth) = self.binary(least)?;
        let span = start.to(operand.span);
        let depth = self.deeper(depth, span)?;
        Ok((Expr { kind: ExprKind::Unary(operator, Box::new(operand)), span }, depth))
    }

    fn postfix(&mut self) -> Parsed<(Expr, usize)> {
        let (mut expr, mut depth) = self.atom()?;
        while self.accept(".") {
            if !self.accept("T") {
                let help = "`x.T` is the transpose of a matrix; nothing else follows a dot".to_string();
                return self.fail("`T` after `.`").map_err(|e| Box::new(e.help(help)));
            }
            let span = expr.span.to(self.previous());
            depth = self.deeper(depth, span)?;
            expr = Expr { kind: ExprKind::Transpose(Box::new(expr)), span };
        }
        Ok((expr, depth))
    }

    fn atom(&mut self) -> Parsed<(Expr, usize)> {
        let start = self.span();
        let kind = match self.kind().clone() {
            TokenKind::Int(value) => ExprKind::Int(value),
            TokenKind::Float(value) => ExprKind::Float(value),
            TokenKind::Word(word) if word == "true" || word == "false" => ExprKind::Bool(word == "true"),
            TokenKind::Word(_) => return self.named(),
            TokenKind::Symbol("(") => {
                self.bump();
                let (inner, depth) = self.binary(0)?;
                self.expect(")", "after the expression")?;
                let span = start.to(self.previous());
                let depth = self.deeper(depth, span)?;
                return Ok((Expr { kind: ExprKind::Paren(Box::new(inner)), span }, depth));
            }
            TokenKind::Symbol("[") => {
                self.bump();
                let mut depth = 0;
                let items = self.list("]", |p| {
                    let (item, d) = p.binary(0)?;
                    depth = depth.max(d);
                    Ok(item)
                })?;
                let span = start.to(self.previous());
                let depth = self.deeper(depth, span)?;
                return Ok((Expr { kind: ExprKind::List(items), span }, depth));
            }
            TokenKind::Symbol(_) | TokenKind::End => return self.fail("an expression"),
        };
        self.bump();
        Ok((Expr { kind, span: start }, 1))
    }

    /// A name or a call.
    fn named(&mut self) -> Parsed<(Expr, usize)> {
        let name = self.name("an expression")?;
        if !self.accept("(") {
            return Ok((Expr { span: name.span, kind: ExprKind::Name(name.text) }, 1));
        }
        let mut depth = 0;
        let arguments = self.list(")", |p| {
            let (argument, d) = p.argument()?;
            depth = depth.max(d);
            Ok(argument)
        })?;
        let span = name.span.to(self.previous());
        let depth = self.deeper(depth, span)?;
        Ok((Expr { kind: ExprKind::Call { function: name, arguments }, span }, depth))
    }
}
