//! linc-tests
