//! linc-exec
