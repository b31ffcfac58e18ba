//! linc-device
