//! Statements of the text form: one function for each shape of operation.

use linc_text::{Parsed, TokenKind};

use super::Parser;
use crate::ir::{Axis, Binary, Compare, Elem, Op, ParamId, Reduction, Stmt, TileType, Unary, ValueId, View};

impl Parser<'_> {
    /// `%a: type, %b: type = op`, or an operation without results.
    pub(super) fn stmt(&mut self, depth: usize) -> Parsed<Stmt> {
        self.stmts.push(self.tokens.at());
        let mut results = vec![];
        if matches!(self.tokens.peek(), TokenKind::Value(_)) {
            loop {
                let result = self.definition()?;
                self.tokens.symbol(':')?;
                let ty = self.ty()?;
                self.kernel.types[result.0 as usize] = ty;
                results.push(result);
                if !self.tokens.eat(',') {
                    break;
                }
            }
            self.tokens.symbol('=')?;
        }
        let op = self.op(&results, depth)?;
        self.set_visible(&results, true);
        Ok(Stmt { results, op })
    }

    fn op(&mut self, results: &[ValueId], depth: usize) -> Parsed<Op> {
        let at = self.tokens.at();
        let word = self.tokens.word("an operation")?;
        if let Some(op) = Unary::from_name(&word) {
            return Ok(Op::Unary(op, self.value()?));
        }
        if let Some(op) = Binary::from_name(&word) {
            let (a, b) = self.two_values()?;
            return Ok(Op::Binary(op, a, b));
        }
        if let Some(op) = Compare::from_name(&word) {
            let (a, b) = self.two_values()?;
            return Ok(Op::Compare(op, a, b));
        }
        if let Some(op) = Reduction::from_name(&word) {
            let value = self.value()?;
            return Ok(Op::Reduce { op, axis: self.axis()?, value });
        }
        Ok(match word.as_str() {
            "const" => self.constant(results)?,
            "program_id" => Op::ProgramId(self.tokens.number("a grid axis (0, 1 or 2)")?),
            "fma" => {
                let (a, b, c) = self.three_values()?;
                Op::Fma(a, b, c)
            }
            "select" => {
                let (cond, a, b) = self.three_values()?;
                Op::Select(cond, a, b)
            }
            "cast" => Op::Cast(self.value()?),
            "splat" => Op::Splat(self.value()?),
            "transpose" => Op::Transpose(self.value()?),
            "expand" => {
                let vector = self.value()?;
                Op::Expand { vector, axis: self.axis()? }
            }
            "iota" => Op::Iota { axis: self.axis()? },
            "scan" => {
                let value = self.value()?;
                let axis = self.axis()?;
                Op::Scan { axis, reverse: self.tokens.eat_word("reverse"), value }
            }
            "load" => Op::Load(self.view()?),
            "store" => {
                let view = self.view()?;
                self.tokens.symbol(',')?;
                Op::Store(view, self.value()?)
            }
            "scatter" => {
                let to = self.view()?;
                self.tokens.symbol(',')?;
                let value = self.value()?;
                self.tokens.keyword("at")?;
                Op::Scatter { to, places: self.value()?, value }
            }
            "dot" => self.dot()?,
            "for" => self.for_loop(depth)?,
            "if" => self.if_else(depth)?,
            _ => return Err(at.error(format!("`{word}` is not an operation"))),
        })
    }

    fn two_values(&mut self) -> Parsed<(ValueId, ValueId)> {
        let a = self.value()?;
        self.tokens.symbol(',')?;
        Ok((a, self.value()?))
    }

    fn three_values(&mut self) -> Parsed<(ValueId, ValueId, ValueId)> {
        let (a, b) = self.two_values()?;
        self.tokens.symbol(',')?;
        Ok((a, b, self.value()?))
    }

    fn axis(&mut self) -> Parsed<usize> {
        self.tokens.keyword("axis")?;
        self.tokens.number("an axis (0 or 1)")
    }

    /// A number; the declared type of the result says of which kind.
    fn constant(&mut self, results: &[ValueId]) -> Parsed<Op> {
        let elem = results.first().map(|r| self.kernel.ty(*r).elem);
        match elem {
            Some(Elem::I32 | Elem::Index) => Ok(Op::ConstI(self.tokens.number("an integer")?)),
            Some(Elem::F32 | Elem::Bf16 | Elem::F16 | Elem::Bool) | None => Ok(Op::ConstF(self.float()?)),
        }
    }

    /// `param[%offset; stride < %bound, stride]`
    fn view(&mut self) -> Parsed<View> {
        let at = self.tokens.at();
        let name = self.tokens.word("a parameter")?;
        let Some(param) = self.kernel.params.iter().position(|p| p.name == name) else {
            let known: Vec<&str> = self.kernel.params.iter().map(|p| p.name.as_str()).collect();
            return Err(
                at.error(format!("`{name}` is not a parameter of this kernel; it has {}", known.join(", ")))
            );
        };
        self.tokens.symbol('[')?;
        let offset = self.value()?;
        let mut axes = vec![];
        while !self.tokens.eat(']') {
            self.tokens.symbol(if axes.is_empty() { ';' } else { ',' })?;
            let stride = self.tokens.number("a stride")?;
            let bound = if self.tokens.eat('<') { Some(self.value()?) } else { None };
            axes.push(Axis { stride, bound });
        }
        Ok(View { param: ParamId(param as u32), offset, axes })
    }

    /// `[trans] %a, [trans] %b [, acc %c]`
    fn dot(&mut self) -> Parsed<Op> {
        let trans_a = self.tokens.eat_word("trans");
        let a = self.value()?;
        self.tokens.symbol(',')?;
        let trans_b = self.tokens.eat_word("trans");
        let b = self.value()?;
        let acc = if self.tokens.eat(',') {
            self.tokens.keyword("acc")?;
            Some(self.value()?)
        } else {
            None
        };
        Ok(Op::Dot { a, b, acc, trans_a, trans_b })
    }

    /// `%i in %lower..%upper step %step [carry(%a = %init, ...)] { ... }`
    fn for_loop(&mut self, depth: usize) -> Parsed<Op> {
        let counter = self.definition()?;
        self.tokens.keyword("in")?;
        let lower = self.value()?;
        self.tokens.take("`..`", |kind| (*kind == TokenKind::DotDot).then_some(()))?;
        let upper = self.value()?;
        self.tokens.keyword("step")?;
        let step = self.value()?;
        let (mut args, mut init) = (vec![counter], vec![]);
        if self.tokens.eat_word("carry") {
            self.tokens.symbol('(')?;
            loop {
                let arg = self.definition()?;
                self.tokens.symbol('=')?;
                let value = self.value()?;
                let ty: TileType = self.kernel.ty(value).clone();
                self.kernel.types[arg.0 as usize] = ty;
                args.push(arg);
                init.push(value);
                if !self.tokens.eat(',') {
                    break;
                }
            }
            self.tokens.symbol(')')?;
        }
        self.set_visible(&args, true);
        let body = self.region(args, depth + 1)?;
        Ok(Op::For { lower, upper, step, init, body })
    }

    /// `%cond { ... } [else { ... }]`
    fn if_else(&mut self, depth: usize) -> Parsed<Op> {
        let cond = self.value()?;
        let then = self.region(vec![], depth + 1)?;
        let otherwise =
            if self.tokens.eat_word("else") { self.region(vec![], depth + 1)? } else { Default::default() };
        Ok(Op::If { cond, then, otherwise })
    }
}
