//! Typing of attention: heads, rope tables, the abstract operation. Kinds have rules of their own.

use super::{Check, Types};
use crate::error::IrError;
use crate::op::Op;

/// Sizes of q `[b, n, h, d]` and of k and v `[b, n, g, d]`.
#[derive(Clone, Copy)]
pub(crate) struct HeadSizes {
    pub(crate) b: usize,
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) g: usize,
    pub(crate) d: usize,
}

impl Check<'_> {
    /// Checks q [B,N,H,D], k and v [B,M,G,D] and returns their sizes.
    fn heads(&self) -> Result<HeadSizes, IrError> {
        for i in 0..3 {
            self.rank(i, 4, "[batch, seq, heads, head_dim]")?;
            self.float(i)?;
        }
        let (q, k) = (self.shape(0).dims(), self.shape(1).dims());
        self.same(2, self.shape(1), "k")?;
        self.one_dtype(&[0, 1, 2])?;
        if q[0] != k[0] || q[1] != k[1] || q[3] != k[3] {
            return self.fail(format!(
                "q is {} and k is {}: batch, seq and head_dim must agree",
                self.shape(0),
                self.shape(1)
            ));
        }
        if k[2] == 0 || q[2] % k[2] != 0 {
            return self.fail(format!("{} query heads are not a multiple of {} key/value heads", q[2], k[2]));
        }
        Ok(HeadSizes { b: q[0], n: q[1], h: q[2], g: k[2], d: q[3] })
    }

    pub(super) fn rope_table(&self, table: usize, x: usize) -> Result<(), IrError> {
        self.rank(table, 3, "a rope table [len, head_dim/2, 2]")?;
        self.float(table)?;
        let (t, x) = (self.shape(table).dims(), self.shape(x).dims());
        if t[2] != 2 || t[1] * 2 != x[3] || t[0] < x[1] {
            return self.fail(format!(
                "rope table {} does not cover {} positions of {} features",
                self.shape(table),
                x[1],
                x[3]
            ));
        }
        Ok(())
    }

    /// Operand `i`, if it is there: the position of each token in its document.
    pub(crate) fn documents(&self, i: usize, heads: HeadSizes, causal: bool) -> Result<(), IrError> {
        if i >= self.operands.len() {
            return Ok(());
        }
        if !causal {
            return self.fail("only causal attention keeps documents apart");
        }
        self.int(i)?;
        self.same(i, &[heads.b, heads.n].into(), "the batch of tokens")
    }

    pub(super) fn attention(&self) -> Types {
        if self.operands.len() < 3 {
            return self.fail("needs q, k and v");
        }
        let heads = self.heads()?;
        match self.op {
            Op::Attention(spec) => {
                let table = usize::from(spec.rope);
                self.arity(3 + table..=4 + table)?;
                if spec.rope {
                    self.rope_table(3, 0)?;
                }
                self.documents(3 + table, heads, spec.causal)?;
                Ok(vec![self.like(0)])
            }
            Op::AttentionGrad(spec) => {
                let table = usize::from(spec.rope);
                self.arity(5 + table..=6 + table)?;
                self.same(3, self.shape(0), "q")?;
                self.same(4, self.shape(0), "q")?;
                self.one_dtype(&[0, 3, 4])?;
                if spec.rope {
                    self.rope_table(5, 0)?;
                }
                self.documents(5 + table, heads, spec.causal)?;
                Ok(vec![self.like(0), self.like(1), self.like(2)])
            }
            Op::Kind(op) => op.results(self, heads),
            other => unreachable!("{} is not attention", other.name()),
        }
    }
}
