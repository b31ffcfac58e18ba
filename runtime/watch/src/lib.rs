//! Shows how runs go: curves, numbers and alerts of one or several, in a terminal or as text.
//!
//! [`Watched`] reads what runs have written, [`text`] says it once, and [`screen`] draws it again and again until a key ends
//! it.
//!
//! Invariants: nothing is written, and no run is asked for anything: what is shown stands in its folder (`metrics.jsonl`,
//! `alerts.jsonl`, `config.toml`, the newest checkpoint's `state.json`). So a run may be going on, be finished, or be on
//! another machine that shares the disk. A file that grows is read on from where it was; one that was replaced, as by a run
//! that goes on from an earlier checkpoint, is read anew.
//!
//! To add a curve: a variant of `Curve` in `curve.rs`.

mod curve;
mod error;
mod lines;
mod run;
mod screen;
mod text;
mod view;
mod watched;

pub use error::WatchError;
pub use screen::screen;
pub use text::text;
pub use watched::Watched;
