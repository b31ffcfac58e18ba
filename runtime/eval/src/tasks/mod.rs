//! The tasks by what they ask.

pub(crate) mod choices;
pub(crate) mod files;
pub(crate) mod gsm8k;
mod haystack;
pub(crate) mod humaneval;
pub(crate) mod needle;
pub(crate) mod recall;
pub(crate) mod requests;
pub(crate) mod ruler;
pub(crate) mod text;
