//! linc-lang
