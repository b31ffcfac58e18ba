//! Memory of the GPU, and pinned memory of the host through which small inputs are copied asynchronously.

use std::sync::Arc;

use cudarc::driver::DriverError;
use cudarc::driver::result as driver;
use cudarc::driver::sys::{CUdeviceptr, CUresult, CUstream};

use super::gpu::{Gpu, failed};
use crate::DeviceError;
use crate::available_memory::{Available, MemorySource};

/// A block of memory on the GPU. The driver aligns it to 256 bytes.
pub(super) struct Memory {
    gpu: Arc<Gpu>,
    start: CUdeviceptr,
    len: u64,
}

impl Memory {
    /// Zeroed memory.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] with both sizes.
    pub(super) fn new(gpu: &Arc<Gpu>, bytes: u64) -> Result<Memory, DeviceError> {
        gpu.bind()?;
        let refused = || DeviceError::OutOfMemory {
            needed: bytes,
            available: gpu.memory().map(|(free, _)| Available { bytes: free, source: MemorySource::Gpu }),
        };
        // The driver gives no block of 0 bytes.
        let size = usize::try_from(bytes.max(1)).map_err(|_| refused())?;
        // SAFETY: the memory is set below, before anything reads it.
        let start = unsafe { driver::malloc_sync(size) }.map_err(|error| match error {
            DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY) => refused(),
            other => failed("allocating memory")(other),
        })?;
        let memory = Memory { gpu: Arc::clone(gpu), start, len: bytes };
        // SAFETY: the range is the new block.
        unsafe { driver::memset_d8_async(start, 0, size, gpu.stream.cu_stream()) }
            .map_err(failed("clearing memory"))?;
        Ok(memory)
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Address of the first byte.
    pub(super) fn start(&self) -> CUdeviceptr {
        self.start
    }

    fn address(&self, offset: u64, len: usize) -> Result<CUdeviceptr, DeviceError> {
        let to = offset.saturating_add(len as u64);
        if to > self.len {
            return Err(DeviceError::OutOfBounds { what: "bytes", from: offset, to, len: self.len });
        }
        Ok(self.start + offset)
    }

    /// Copies bytes in, behind all that was launched before and before all that is launched after. They may change
    /// once this returns.
    pub(super) fn write(&self, offset: u64, bytes: &[u8], staging: &mut Staging) -> Result<(), DeviceError> {
        let to = self.address(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.gpu.bind()?;
        let stream = self.gpu.stream.cu_stream();
        if let Some(staged) = staging.put(bytes)? {
            // SAFETY: the target is inside the block; the staged bytes stay until the stream was waited for.
            return unsafe { driver::memcpy_htod_async(to, staged, stream) }
                .map_err(failed("copying to the GPU"));
        }
        // SAFETY: the target is inside the block; the bytes are borrowed until the stream was waited for.
        unsafe { driver::memcpy_htod_async(to, bytes, stream) }.map_err(failed("copying to the GPU"))?;
        self.gpu.synchronize()
    }

    /// Copies bytes out, after all that was launched before.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let from = self.address(offset, bytes.len())?;
        self.gpu.bind()?;
        // SAFETY: the source is inside the block; the bytes are borrowed until the stream was waited for.
        unsafe { driver::memcpy_dtoh_async(bytes, from, self.gpu.stream.cu_stream()) }
            .map_err(failed("copying from the GPU"))?;
        self.gpu.synchronize()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() && self.gpu.synchronize().is_ok() {
            // SAFETY: allocated in `new`, and nothing that runs uses it any more.
            let _ = unsafe { driver::free_sync(self.start) };
        }
    }
}

/// Zeroed memory of the host that the GPU reads and writes by itself.
pub(super) struct Pinned {
    gpu: Arc<Gpu>,
    start: *mut u8,
    len: usize,
}

impl Pinned {
    /// # Errors
    /// [`DeviceError::Driver`] where the system has none to give.
    pub(super) fn new(gpu: &Arc<Gpu>, len: usize) -> Result<Pinned, DeviceError> {
        gpu.bind()?;
        // SAFETY: the bytes are set here, before they are read.
        let start = unsafe { driver::malloc_host(len, 0) }.map_err(failed("allocating pinned memory"))?;
        let start: *mut u8 = start.cast();
        // SAFETY: the block has as many bytes.
        unsafe { start.write_bytes(0, len) };
        Ok(Pinned { gpu: Arc::clone(gpu), start, len })
    }

    /// The first word, which the GPU may be about to write.
    pub(super) fn word(&self) -> u32 {
        // SAFETY: a block is aligned and has a word; what a copy of the GPU's writes of it is a whole one.
        unsafe { self.start.cast::<u32>().read_volatile() }
    }

    /// Queues that the block's bytes come from the GPU's memory.
    ///
    /// # Safety
    /// As many bytes lie there; the block lives until the stream is through, which is one of this GPU; its context is bound.
    pub(super) unsafe fn copy_from(&self, from: CUdeviceptr, stream: CUstream) -> Result<(), DeviceError> {
        // SAFETY: whoever reads the bytes meanwhile does it as `word` does.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start, self.len) };
        // SAFETY: as the caller vouches.
        unsafe { driver::memcpy_dtoh_async(bytes, from, stream) }.map_err(failed("copying from the GPU"))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() && self.gpu.synchronize().is_ok() {
            // SAFETY: allocated in `new`, and no copy is under way.
            let _ = unsafe { driver::free_host(self.start.cast()) };
        }
    }
}

/// Pinned memory that small inputs are copied to, so that their way to the GPU overlaps with what is running there.
pub(super) struct Staging {
    memory: Pinned,
    /// Bytes in use by copies that may not have happened yet.
    used: usize,
}

/// A batch of tokens and targets, and more.
const STAGING: usize = 4 << 20;

impl Staging {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Staging, DeviceError> {
        Ok(Staging { memory: Pinned::new(gpu, STAGING)?, used: 0 })
    }

    /// Whether so many bytes are written only when the stream was waited for.
    pub(super) fn waits_for(&self, bytes: usize) -> bool {
        bytes > STAGING / 2 || self.used + bytes > STAGING
    }

    /// A copy of bytes in pinned memory that stays until the stream was waited for; nothing for large ones.
    fn put(&mut self, bytes: &[u8]) -> Result<Option<&[u8]>, DeviceError> {
        if bytes.len() > STAGING / 2 {
            return Ok(None);
        }
        if self.used + bytes.len() > STAGING {
            self.memory.gpu.synchronize()?;
            self.used = 0;
        }
        // SAFETY: the range is inside the buffer, and no copy that is under way reads it.
        let staged = unsafe {
            let at = self.memory.start.add(self.used);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
            std::slice::from_raw_parts(at.cast_const(), bytes.len())
        };
        self.used += bytes.len().next_multiple_of(64);
        Ok(Some(staged))
    }
}
