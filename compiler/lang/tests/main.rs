//! The tests of the language. One program, so that it is linked once.

mod common;
mod fuzz;
mod language;
mod linc_errors;
mod llama3;
mod round_trip;
mod toml_errors;
