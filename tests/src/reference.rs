//! The interpreter as a reference: random bindings for a graph, and the distance of two results.
