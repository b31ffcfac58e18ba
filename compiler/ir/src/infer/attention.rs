//! Typing of attention: heads, rope tables, caches, saved statistics and states.

use super::{Check, Types};
use crate::error::IrError;
use crate::op::{LinearForm, LinearSpec, Op};
use crate::types::TensorType;

impl Check<'_> {
    /// Checks q [B,N,H,D], k and v [B,M,G,D] and returns (B, N, H, G, D).
    fn heads(&self) -> Result<(usize, usize, usize, usize, usize), IrError> {
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
        Ok((q[0], q[1], q[2], k[2], q[3]))
    }

    pub(super) fn rope_table(&self, table: usize, x: usize) -> Result<(), IrError> {
        self.rank(table, 3, "a rope table [len, head_dim/2, 2]")?;
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

    pub(super) fn attention(&self) -> Types {
        let (b, n, h, g, d) = {
            if self.operands.len() < 3 {
                return self.fail("needs q, k and v");
            }
            self.heads()?
        };
        match self.op {
            Op::Attention(spec) => {
                self.arity(3 + usize::from(spec.rope)..=3 + usize::from(spec.rope))?;
                if spec.rope {
                    self.rope_table(3, 0)?;
                }
                Ok(vec![self.like(0)])
            }
            Op::AttentionGrad(spec) => {
                self.arity(5 + usize::from(spec.rope)..=5 + usize::from(spec.rope))?;
                self.same(3, self.shape(0), "q")?;
                self.same(4, self.shape(0), "q")?;
                self.one_dtype(&[0, 3, 4])?;
                if spec.rope {
                    self.rope_table(5, 0)?;
                }
                Ok(vec![self.like(0), self.like(1), self.like(2)])
            }
            Op::SoftmaxAttention { .. } => {
                self.arity(3..=3)?;
                Ok(vec![self.like(0), TensorType::f32([b, h, n])])
            }
            Op::SoftmaxAttentionGrad { .. } => {
                self.arity(6..=6)?;
                self.same(3, self.shape(0), "q")?;
                self.same(4, &[b, h, n].into(), "the row logsumexp")?;
                self.same(5, self.shape(0), "q")?;
                self.one_dtype(&[0, 3, 5])?;
                self.full(4)?;
                Ok(vec![self.like(0), self.like(1), self.like(2), TensorType::f32([b, h, n])])
            }
            Op::LinearAttention(spec) => {
                self.arity(3..=3)?;
                self.form(spec)?;
                let s = spec.saved_states(n);
                Ok(vec![self.like(0), TensorType::f32([b, g, s, d]), TensorType::f32([b, g, s, d, d])])
            }
            Op::LinearAttentionGrad(spec) => {
                self.arity(7..=7)?;
                self.form(spec)?;
                let s = spec.saved_states(n);
                self.same(3, self.shape(0), "q")?;
                self.same(4, &[b, g, s, d].into(), "the key logsumexp")?;
                self.same(5, &[b, g, s, d, d].into(), "the state")?;
                self.same(6, self.shape(0), "q")?;
                self.one_dtype(&[0, 3, 6])?;
                self.full(4)?;
                self.full(5)?;
                let mut results = vec![self.like(0), self.like(1), self.like(2)];
                if spec.form == LinearForm::Chunked {
                    results.push(TensorType::f32([b, h, n]));
                    results.push(TensorType::f32([b, g, s, d, d]));
                    results.push(TensorType::f32([b, g, s, d]));
                    results.push(TensorType::f32([b, n, g, d]));
                }
                Ok(results)
            }
            Op::SoftmaxDecode { range, .. } => {
                self.arity(6..=6)?;
                self.rank(3, 4, "a cache [batch, len, kv_heads, head_dim]")?;
                let len = self.shape(3).dims()[1];
                self.same(3, &[b, len.max(n), g, d].into(), "the cache")?;
                self.same(4, &[b, len, g, d].into(), "the cache")?;
                self.one_dtype(&[3, 4])?;
                self.position(5)?;
                let mut results = vec![self.like(0), self.like(3), self.like(4)];
                if let Some(range) = range {
                    if n != 1 {
                        return self.fail(format!("only one token's work is split, q has {n}"));
                    }
                    let parts = len.div_ceil(*range);
                    results.extend([
                        TensorType::f32([b, g, parts, h / g]),
                        TensorType::f32([b, g, parts, h / g]),
                    ]);
                    results.push(TensorType::f32([b, g, parts, h / g, d]));
                }
                Ok(results)
            }
            Op::LinearDecode(spec) => {
                self.arity(7..=7)?;
                if !spec.causal {
                    return self.fail("only causal attention decodes");
                }
                self.same(3, &[b, g, d].into(), "the running maximum")?;
                self.same(4, &[b, g, d].into(), "the running sum")?;
                self.same(5, &[b, g, d, d].into(), "the state")?;
                (3..6).try_for_each(|i| self.full(i))?;
                self.position(6)?;
                let mut results = vec![self.like(0), self.like(3), self.like(4), self.like(5)];
                if spec.form == LinearForm::Chunked {
                    let s = spec.saved_states(n);
                    results.push(TensorType::f32([b, g, s, d]));
                    results.push(TensorType::f32([b, g, s, d, d]));
                }
                Ok(results)
            }
            other => unreachable!("{} is not attention", other.name()),
        }
    }

    fn form(&self, spec: &LinearSpec) -> Result<(), IrError> {
        if spec.form == LinearForm::Chunked && !spec.causal {
            return self.fail("only causal attention has a chunked form");
        }
        Ok(())
    }
}

impl LinearSpec {
    /// Number S of states kept for the backward of a sequence of `n` tokens.
    pub fn saved_states(&self, n: usize) -> usize {
        if self.causal { n.div_ceil(self.chunk) } else { 1 }
    }
}
