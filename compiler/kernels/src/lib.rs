//! linc-kernels
