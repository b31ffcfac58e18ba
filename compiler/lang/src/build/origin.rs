//! Where in the text the nodes of a graph come from, for errors that are found after building.

use std::collections::BTreeMap;

use linc_ir::NodeId;

use crate::ast::Span;
use crate::diagnostics::{Diagnostic, Diagnostics, Source};

/// Calls around a place that an error shows, the innermost ones.
const SHOWN_CALLS: usize = 3;

/// The expression behind each node of a built graph.
#[derive(Clone, Debug)]
pub struct Origins {
    source: Source,
    /// Each expression with the calls around it, outermost first.
    places: BTreeMap<NodeId, (Span, Vec<Span>)>,
}

impl Origins {
    pub(super) fn new(source: Source) -> Self {
        Origins { source, places: BTreeMap::new() }
    }

    pub(super) fn record(&mut self, node: NodeId, span: Span, calls: &[Span]) {
        let shown = &calls[calls.len().saturating_sub(SHOWN_CALLS)..];
        self.places.insert(node, (span, shown.to_vec()));
    }

    /// The same for a graph that was made of this one: `sources` has the node that each of its nodes stands for.
    #[must_use]
    pub fn through(&self, sources: &BTreeMap<NodeId, NodeId>) -> Self {
        let place = |(new, old): (&NodeId, &NodeId)| Some((*new, self.places.get(old)?.clone()));
        Origins { source: self.source.clone(), places: sources.iter().filter_map(place).collect() }
    }

    /// An error at the expression that a node was built for.
    pub fn error(&self, node: NodeId, message: &str, help: &str) -> Diagnostics {
        let error = match self.places.get(&node) {
            Some((span, calls)) => diagnostic(&self.source.path, *span, calls, message),
            None => Diagnostic::nowhere(message),
        };
        Diagnostics::new(vec![error.help(help.to_string())], vec![self.source.clone()])
    }
}

/// An error at a place, with the calls that led there.
pub(super) fn diagnostic(path: &str, span: Span, calls: &[Span], message: impl Into<String>) -> Diagnostic {
    let mut error = Diagnostic::new(path, span, message);
    for call in calls.iter().rev().take(SHOWN_CALLS) {
        error = error.label(path, *call, "in this call");
    }
    error
}
