//! linc-train
