//! Typing of losses: logits, the output head, and what they save.

use super::{Check, Types};
use crate::error::IrError;
use crate::op::Op;
use crate::types::{Shape, TensorType};

impl Check<'_> {
    pub(super) fn loss(&self) -> Types {
        let scalar = TensorType::f32([]);
        match self.op {
            Op::CrossEntropy => {
                self.arity(2..=2)?;
                self.logits(0, 1)?;
                Ok(vec![self.sum_of(0, [])])
            }
            Op::CrossEntropyGrad => {
                self.arity(3..=3)?;
                self.logits(0, 1)?;
                self.same(2, &Shape::default(), "the gradient of the loss")?;
                Ok(vec![self.like(0)])
            }
            Op::LogProbs => {
                self.arity(2..=2)?;
                self.logits(0, 1)?;
                let rows = [self.shape(0).dims()[0]];
                let (chosen, best) = (self.sum_of(0, rows), self.sum_of(0, rows));
                Ok(vec![chosen, best, TensorType::i32(rows)])
            }
            Op::LinearLogProbs { chunk } => {
                self.arity(3..=3)?;
                let (t, v) = self.head()?;
                let logits = self.of(0, [(*chunk).min(t), v]);
                Ok(vec![self.sum_of(0, [t]), self.sum_of(0, [t]), TensorType::i32([t]), logits])
            }
            Op::LinearCrossEntropy { chunk } => {
                self.arity(3..=3)?;
                let (t, v) = self.head()?;
                Ok(vec![scalar, self.of(0, [(*chunk).min(t), v]), TensorType::f32([t + 1])])
            }
            Op::LinearCrossEntropyGrad { chunk } => {
                self.arity(4..=4)?;
                let (t, v) = self.head()?;
                self.same(3, &Shape::default(), "the gradient of the loss")?;
                let (chunk, dw) = (self.of(0, [(*chunk).min(t), v]), self.sum_of(1, self.shape(1).clone()));
                Ok(vec![scalar, self.like(0), dw, chunk, TensorType::f32([t + 1])])
            }
            other => unreachable!("{} is not a loss", other.name()),
        }
    }

    fn logits(&self, logits: usize, targets: usize) -> Result<(), IrError> {
        self.rank(logits, 2, "logits [tokens, vocab]")?;
        self.int(targets)?;
        self.same(targets, &[self.shape(logits).dims()[0]].into(), "the rows of the logits")
    }

    fn head(&self) -> Result<(usize, usize), IrError> {
        self.rank(0, 2, "hidden states [tokens, dim]")?;
        self.rank(1, 2, "an output weight [vocab, dim]")?;
        self.int(2)?;
        let (h, w) = (self.shape(0).dims(), self.shape(1).dims());
        if h[1] != w[1] {
            return self.fail(format!(
                "hidden states are {}, the output weight is {}",
                self.shape(0),
                self.shape(1)
            ));
        }
        self.one_dtype(&[0, 1])?;
        self.same(2, &[h[0]].into(), "the rows of the hidden states")?;
        Ok((h[0], w[0]))
    }
}
