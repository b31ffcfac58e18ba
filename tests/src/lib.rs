//! What the workspace's tests share: the tree as text, the shipped models, and the interpreter as a reference.

pub mod models;
pub mod reference;
pub mod rust;
pub mod tree;
