//! A model on a device: which of its programs are there, with which tile sizes, and their inputs and outputs by name.
//!
//! Invariants: programs of one session share one arena, whose size is known before anything is allocated; measured tile
//! sizes change the order of sums, so whoever asks for them records them; files that the compiler makes replace those that
//! it wrote before and no others.

pub mod autotune;
mod error;
pub mod look;
pub mod output;
mod session;

pub use error::SessionError;
pub use session::{SMALLER, Session, memory_parts, memory_table, target};
