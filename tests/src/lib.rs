//! What the workspace's tests share: the tree as text, the shipped models, random models, and two ways to run one: the
//! interpreter as the reference, and a device.

pub mod compiled;
pub mod models;
pub mod random;
pub mod reference;
pub mod rust;
pub mod tree;
