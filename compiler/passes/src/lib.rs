//! linc-passes
