//! How two views of one parameter relate: equal, disjoint, or unknown. Offsets are compared as sums of products of
//! values, so that `x` and `x + 32` differ by a constant.

use std::collections::BTreeMap;

use linc_tile::{Binary, Elem, Kernel, Op, Stmt, ValueId};

/// Σ coefficient·value + constant.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Affine {
    terms: BTreeMap<ValueId, i64>,
    constant: i64,
}

impl Affine {
    fn scaled_sum(&self, other: &Affine, factor: i64) -> Affine {
        let mut sum = self.clone();
        sum.constant = sum.constant.wrapping_add(other.constant.wrapping_mul(factor));
        for (value, coefficient) in &other.terms {
            let entry = sum.terms.entry(*value).or_default();
            *entry = entry.wrapping_add(coefficient.wrapping_mul(factor));
        }
        sum.terms.retain(|_, c| *c != 0);
        sum
    }
}

/// Relation of two views.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relation {
    /// Element for element the same addresses.
    Same,
    /// No address in common.
    Disjoint,
    /// Neither is known.
    Unknown,
}

/// Affine forms of the Index scalars of a kernel.
pub(crate) struct Offsets {
    forms: BTreeMap<ValueId, Affine>,
}

impl Offsets {
    /// Collects the forms of all Index scalars that are sums and constant multiples of others.
    pub(crate) fn of(kernel: &Kernel) -> Self {
        let mut offsets = Offsets { forms: BTreeMap::new() };
        offsets.collect(kernel, &kernel.body);
        offsets
    }

    fn form(&self, value: ValueId) -> Affine {
        self.forms
            .get(&value)
            .cloned()
            .unwrap_or_else(|| Affine { terms: BTreeMap::from([(value, 1)]), constant: 0 })
    }

    fn collect(&mut self, kernel: &Kernel, body: &[Stmt]) {
        for stmt in body {
            match &stmt.op {
                Op::ConstI(c) => {
                    self.forms.insert(stmt.results[0], Affine { terms: BTreeMap::new(), constant: *c });
                }
                Op::Binary(op, a, b) => {
                    if kernel.ty(stmt.results[0]).elem != Elem::Index {
                        continue;
                    }
                    let (fa, fb) = (self.form(*a), self.form(*b));
                    let form = match op {
                        Binary::Add => Some(fa.scaled_sum(&fb, 1)),
                        Binary::Sub => Some(fa.scaled_sum(&fb, -1)),
                        Binary::Mul if fb.terms.is_empty() => {
                            Some(Affine::default().scaled_sum(&fa, fb.constant))
                        }
                        Binary::Mul if fa.terms.is_empty() => {
                            Some(Affine::default().scaled_sum(&fb, fa.constant))
                        }
                        Binary::Mul
                        | Binary::Div
                        | Binary::Rem
                        | Binary::Min
                        | Binary::Max
                        | Binary::And
                        | Binary::Or => None,
                    };
                    if let Some(form) = form {
                        self.forms.insert(stmt.results[0], form);
                    }
                }
                Op::For { body, .. } => self.collect(kernel, &body.body),
                Op::If { then, otherwise, .. } => {
                    self.collect(kernel, &then.body);
                    self.collect(kernel, &otherwise.body);
                }
                Op::ConstF(_)
                | Op::ProgramId(_)
                | Op::Unary(..)
                | Op::Fma(..)
                | Op::Compare(..)
                | Op::Select(..)
                | Op::Cast(_)
                | Op::Splat(_)
                | Op::Expand { .. }
                | Op::Iota { .. }
                | Op::Load(_)
                | Op::Store(..)
                | Op::Scatter { .. }
                | Op::Dot { .. }
                | Op::Reduce { .. }
                | Op::Scan { .. }
                | Op::Transpose(_) => {}
            }
        }
    }

    /// Compares two views of one parameter: offset and strides of each, with the `[rows, cols]` of both.
    pub(crate) fn relation(
        &self,
        a: (ValueId, [i64; 2]),
        b: (ValueId, [i64; 2]),
        shape: [usize; 2],
    ) -> Relation {
        let difference = self.form(b.0).scaled_sum(&self.form(a.0), -1);
        let [rows, cols] = shape;
        let same_strides = (rows <= 1 || a.1[0] == b.1[0]) && (cols <= 1 || a.1[1] == b.1[1]);
        if !same_strides || !difference.terms.is_empty() {
            return Relation::Unknown;
        }
        let distance = difference.constant.unsigned_abs() as usize;
        if distance == 0 {
            return Relation::Same;
        }
        let row_stride = a.1[0].unsigned_abs() as usize;
        let beside = distance >= cols && (rows <= 1 || distance + cols <= row_stride);
        let beyond = distance >= rows.saturating_sub(1) * row_stride + cols;
        if a.1[1] == 1 && (beside || beyond) { Relation::Disjoint } else { Relation::Unknown }
    }

    /// Two Index scalars that are certainly equal.
    pub(crate) fn equal(&self, a: ValueId, b: ValueId) -> bool {
        a == b || self.form(a) == self.form(b)
    }

    /// The value of an Index scalar that is a constant.
    pub(crate) fn constant(&self, value: ValueId) -> Option<i64> {
        let form = self.form(value);
        form.terms.is_empty().then_some(form.constant)
    }
}
