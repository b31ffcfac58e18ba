//! One GPU through the driver: what it is, its context and the one stream that everything runs on.
//!
//! The driver's library is looked for when a GPU is asked for, not when linc is built or starts; where it is missing,
//! functions of cudarc panic, so nothing of cudarc is called before [`Gpu::open`] has seen it.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, CudaStream, DriverError};

use super::gpus::{ARCH_VARIABLE, Target};
use crate::DeviceError;

/// An open GPU.
pub(super) struct Gpu {
    pub(super) context: Arc<CudaContext>,
    /// In order, and independent of the default stream.
    pub(super) stream: Arc<CudaStream>,
    pub(super) name: String,
    pub(super) capability: (i32, i32),
    /// CUDA version that the driver supports, major and minor.
    pub(super) driver: (i32, i32),
    /// Which code it gets.
    pub(super) target: Target,
    /// Bytes of shared memory that a block may have.
    pub(super) shared_bytes: u32,
    pub(super) multiprocessors: u32,
    /// Highest clock, Hz.
    pub(super) clock: f64,
    elapsed: Elapsed,
}

/// The driver's `cuEventElapsedTime`. cudarc calls its second version, which drivers before CUDA 12.8 lack.
type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> i32;

/// Whether there is a driver at all.
pub fn has_driver() -> bool {
    // SAFETY: the initialisers of the driver's library have no requirements.
    unsafe { sys::is_culib_present() }
}

/// What the driver refuses.
pub(super) fn failed(action: &'static str) -> impl Fn(DriverError) -> DeviceError {
    move |error| {
        let text = |text: Result<&std::ffi::CStr, DriverError>| {
            text.map_or_else(|_| "?".to_string(), |t| t.to_string_lossy().into_owned())
        };
        let (name, message) = (text(error.error_name()), text(error.error_string()));
        DeviceError::Driver { action, message: format!("{message} ({name})") }
    }
}

impl Gpu {
    /// Opens a GPU by its number.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] if there is no driver, no such GPU, or one that is too old.
    pub(super) fn open(number: usize) -> Result<Gpu, DeviceError> {
        let unsupported = |message: String| Err(DeviceError::Unsupported(message));
        if !has_driver() {
            return unsupported(
                "there is no NVIDIA driver: libcuda.so.1 was not found\n  help: install the driver (inside a container, start it with its GPUs), or choose the device cpu"
                    .into(),
            );
        }
        let mut version = 0;
        // SAFETY: the pointer is to a live integer.
        let _ = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        let driver = (version / 1000, version % 1000 / 10);
        let count = Gpu::count()?;
        if number >= count {
            let have = match count {
                0 => "no GPU (CUDA_VISIBLE_DEVICES may hide them)".to_string(),
                1 => "one GPU, cuda:0".to_string(),
                _ => format!("{count} GPUs, cuda:0 to cuda:{}", count - 1),
            };
            return unsupported(format!("there is no cuda:{number}: the driver sees {have}"));
        }
        let context = CudaContext::new(number).map_err(failed("opening the GPU"))?;
        let attribute =
            |which| context.attribute(which).map(|v| v.max(0) as u32).map_err(failed("asking the GPU"));
        let capability = context.compute_capability().map_err(failed("asking the GPU"))?;
        let shared_bytes = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let named = std::env::var(ARCH_VARIABLE).ok();
        let target = Target::for_capability(capability, shared_bytes)?
            .with_kernels_of(named.as_deref(), shared_bytes)?;
        let Some(elapsed) = elapsed() else {
            return unsupported("the NVIDIA driver has no cuEventElapsedTime; install a current one".into());
        };
        Ok(Gpu {
            name: context.name().map_err(failed("asking the GPU"))?,
            capability,
            driver,
            target,
            shared_bytes,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            clock: 1e3 * f64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?),
            stream: context.new_stream().map_err(failed("creating a stream"))?,
            context,
            elapsed,
        })
    }

    /// How many GPUs the driver shows. It is there.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] if it does not start.
    pub(super) fn count() -> Result<usize, DeviceError> {
        match CudaContext::device_count() {
            Ok(count) => Ok(count as usize),
            Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
            Err(error) => Err(failed("starting the driver")(error)),
        }
    }

    /// Makes the context the one of this thread, which calls below the safe ones of cudarc need.
    pub(super) fn bind(&self) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(failed("binding the context"))
    }

    /// Waits for the stream; errors of kernels show here.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        self.stream.synchronize().map_err(failed("running kernels"))
    }

    /// Whether all that was queued in a stream of this GPU is done; errors of kernels show here.
    pub(super) fn is_idle(&self, stream: &CudaStream) -> Result<bool, DeviceError> {
        // SAFETY: the stream is live.
        match unsafe { sys::cuStreamQuery(stream.cu_stream()) } {
            CUresult::CUDA_SUCCESS => Ok(true),
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => Err(failed("running kernels")(DriverError(other))),
        }
    }

    /// Free and all memory, in bytes.
    pub(super) fn memory(&self) -> Option<(u64, u64)> {
        self.context.mem_get_info().ok().map(|(free, total)| (free as u64, total as u64))
    }

    /// Whether code of a CUDA version runs on this driver, which needs the same major version or a later one.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] with both versions and what to do.
    pub(super) fn accepts(&self, code: (i32, i32), what: &str) -> Result<(), DeviceError> {
        version_fits(self.driver, code, what)
    }

    /// Milliseconds between two events that have happened.
    ///
    /// # Safety
    /// Both events are live and recorded on this GPU.
    pub(super) unsafe fn milliseconds(&self, from: sys::CUevent, to: sys::CUevent) -> Option<f32> {
        let mut time = 0f32;
        // SAFETY: as the caller promises; the pointer is to a live number.
        (unsafe { (self.elapsed)(&raw mut time, from, to) } == 0).then_some(time)
    }
}

fn version_fits(driver: (i32, i32), code: (i32, i32), what: &str) -> Result<(), DeviceError> {
    if code.0 <= driver.0 {
        return Ok(());
    }
    let ((d, e), (c, f)) = (driver, code);
    Err(DeviceError::Unsupported(format!(
        "{what} is of CUDA {c}.{f}, the NVIDIA driver supports CUDA {d}.{e}\n  help: update the driver, or install {what} of CUDA {d} (pip install nvidia-cuda-nvrtc-cu{d} nvidia-cublas-cu{d})"
    )))
}

fn elapsed() -> Option<Elapsed> {
    // SAFETY: the library is there, or `open` had returned; the type is that of the driver's header.
    unsafe { sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0").ok().map(|f| *f) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_a_later_major_version_is_refused() {
        assert!(version_fits((13, 0), (13, 5), "NVRTC").is_ok());
        assert!(version_fits((13, 0), (12, 9), "NVRTC").is_ok());
        let message = version_fits((12, 4), (13, 0), "NVRTC").expect_err("too new").to_string();
        for expected in ["CUDA 13.0", "CUDA 12.4", "update the driver", "nvidia-cuda-nvrtc-cu12"] {
            assert!(message.contains(expected), "{message}");
        }
    }
}
