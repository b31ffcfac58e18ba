//! linc-plan
