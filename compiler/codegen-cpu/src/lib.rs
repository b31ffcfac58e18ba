//! linc-codegen-cpu
