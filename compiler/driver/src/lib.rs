//! linc-driver
