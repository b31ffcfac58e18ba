//! The device functions that kernels call: the start of every source.

/// Device functions that all kernels call, with all inline PTX of linc. Replaced by a host twin in tests.
pub const DEVICE_PRELUDE: &str = include_str!("prelude/device.cu");
/// Device functions that are plain arithmetic on top of the others.
pub const COMMON_PRELUDE: &str = include_str!("prelude/common.cu");
