//! The tests of the program as a user runs it. One program, so that it is linked once.

mod accumulation;
mod bad_input;
mod bench;
mod commands;
mod common;
mod config;
mod cuda;
mod damage;
mod disk;
mod fit;
mod folders;
mod hugging_face;
mod limits;
mod memory;
mod mistakes;
mod optimizers;
mod prompts;
mod readme;
mod requests;
mod resume;
mod serve;
mod signals;
mod sweep;
mod terminal;
mod text;
mod tokenizing;
