//! Studies: many runs of one model that differ in a few settings, what they show together, and what is inside of a model.
//!
//! [`sweep`] reads what is to be varied, makes a run of each point, and carries the runs out, each in a process of its
//! own. [`results`] reads what runs wrote, whoever started them; [`report`] makes a page of it. [`place`] chooses the layers of a
//! trained softmax model that become linear. [`compare`] puts texts of models side by side for people to judge, [`cost`] says what
//! measurements over length and share of linear layers come to. [`look`] shows what each head of a trained model looks at,
//! and [`profile`] where the time of its steps goes.
//!
//! Invariants: all runs of a sweep start from the same weights and see the same batches, but for what the sweep varies,
//! since both are functions of the config and its seed. What a run was told stands in the sweep's folder before it
//! starts; how it ended stands there once it has. So a sweep that was killed goes on where it was, and a run that is
//! finished is not done again. A run is told nothing that its config does not say: `linc train` on that config gives the
//! same bits.
//!
//! A placement is a function of the checkpoint, the sequences and the seed; each score of a layer, and each comparison, has its
//! interval over sequences, and what placements are compared on, none of them was chosen by.
//!
//! To add a way of choosing points: a word in `sweep/settings.rs`, an arm in `sweep/points.rs`.

pub mod compare;
pub mod cost;
mod draw;
mod error;
pub mod look;
mod page;
pub mod place;
pub mod profile;
pub mod report;
pub mod results;
pub mod statistics;
pub mod sweep;

pub use error::StudyError;
