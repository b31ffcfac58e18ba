//! What the workspace's tests share: the tree as text, the shipped models, random models, and the ways to run one: the
//! interpreter as the reference, the CPU, and a GPU that is emulated.

pub mod compiled;
pub mod emulated;
pub mod lockstep;
pub mod models;
pub mod random;
pub mod reference;
pub mod rust;
pub mod tree;
