//! The question that a text may ask about the attention of its layer: `kind == linear`.
//!
//! The words are words only beside `kind`, and `kind` is one only where the text and the model file do not define it, so that
//! neither takes a name away.

use linc_ir::{AttentionFamily, AttentionKind};

use crate::ast::{BinaryOperator, Expr, ExprKind};

/// What stands for the kind of attention of the layer around it.
pub(crate) const KIND: &str = "kind";

/// `kind == word` or `kind != word`, either side first.
pub(crate) struct Question<'e> {
    /// What the kind is compared with.
    pub(crate) word: &'e Expr,
    /// It is asked by `==`.
    pub(crate) equal: bool,
}

/// The question that an expression is.
pub(crate) fn question(expr: &Expr) -> Option<Question<'_>> {
    let ExprKind::Binary(operator @ (BinaryOperator::Eq | BinaryOperator::Ne), left, right) = &expr.kind
    else {
        return None;
    };
    let is_kind = |side: &Expr| matches!(&side.kind, ExprKind::Name(name) if name == KIND);
    let word = match (is_kind(left), is_kind(right)) {
        (true, _) => right,
        (false, true) => left,
        (false, false) => return None,
    };
    Some(Question { word, equal: *operator == BinaryOperator::Eq })
}

impl Question<'_> {
    /// Whether a layer of this kind is what is asked for; nothing if the word is none.
    pub(crate) fn answer(&self, kind: AttentionKind) -> Option<bool> {
        let ExprKind::Name(word) = &self.word.kind else { return None };
        let is_word = words().iter().any(|known| known == word);
        is_word.then(|| (kind.name() == word || kind.family().name() == word) == self.equal)
    }
}

/// The words: families, and kinds whose names are not those of families.
pub(crate) fn words() -> Vec<&'static str> {
    let families = [AttentionFamily::Softmax, AttentionFamily::Linear].map(AttentionFamily::name);
    let kinds = AttentionKind::ALL.map(AttentionKind::name).into_iter();
    families.into_iter().chain(kinds.filter(|name| !families.contains(name))).collect()
}
