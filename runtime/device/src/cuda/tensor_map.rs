//! What the Tensor Memory Accelerator (TMA) is told of a buffer, as the driver encodes it.

use std::ffi::c_void;

use cudarc::driver::sys::{
    self, CUdeviceptr, CUtensorMap, CUtensorMapDataType as DataType, CUtensorMapFloatOOBfill as Fill,
    CUtensorMapInterleave as Interleave, CUtensorMapL2promotion as Promotion, CUtensorMapSwizzle as Swizzle,
};
use linc_codegen_cuda::TensorMap;
use linc_tile::Elem;

use super::gpu::failed;
use crate::DeviceError;

/// The map of a kernel for a buffer of so many bytes at an address of the GPU. The driver looks at neither.
///
/// # Errors
/// [`DeviceError::Driver`] if it refuses the sizes; [`DeviceError::Unsupported`] if it knows no such maps.
pub(super) fn encode(map: &TensorMap, address: CUdeviceptr, bytes: u64) -> Result<CUtensorMap, DeviceError> {
    // Of CUDA 12, and cudarc panics where a driver lacks a function.
    // SAFETY: the driver's library is there; the symbol is looked at only.
    let known = unsafe { sys::culib().get::<*const c_void>(b"cuTensorMapEncodeTiled\0").is_ok() };
    let unsupported = |why: &str| Err(DeviceError::Unsupported(format!("copies of tiles: {why}")));
    if !known {
        return unsupported("the NVIDIA driver has no cuTensorMapEncodeTiled; install a current one");
    }
    let elem = match map.elem {
        Elem::Bf16 => DataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        Elem::F16 => DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => return unsupported("elements of 16 bits only"),
    };
    let swizzle = match map.columns {
        16 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        _ => return unsupported("boxes of 16, 32 or 64 columns only"),
    };
    let row = map.stride * 2;
    // The last row may be cut off, where no kernel reads.
    let (sizes, strides) = ([map.stride, bytes.div_ceil(row)], [row]);
    if sizes[1] > i32::MAX as u64 {
        return unsupported("more rows than a kernel can count");
    }
    let (extents, steps) = ([map.columns, map.rows], [1, 1]);
    let mut encoded = CUtensorMap { opaque: [0; 16] };
    // SAFETY: the arrays have as many entries as axes, the strides one less; the driver writes to a live map.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut encoded,
            elem,
            2,
            address as *mut c_void,
            sizes.as_ptr(),
            strides.as_ptr(),
            extents.as_ptr(),
            steps.as_ptr(),
            Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    result.result().map_err(failed("encoding a tensor map"))?;
    Ok(encoded)
}
