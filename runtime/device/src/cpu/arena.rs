//! Zeroed memory that the system commits when it is first touched.

use std::alloc::{GlobalAlloc, Layout, System};

use super::limits::available;
use crate::DeviceError;

/// Large arenas begin at a large page, so that the system can map them with such pages.
const PAGE: usize = 2 << 20;

/// One block of memory.
pub(super) struct Memory {
    start: *mut u8,
    len: usize,
    block: *mut u8,
    layout: Layout,
}

// SAFETY: the memory has one owner; access is through methods that borrow it.
unsafe impl Send for Memory {}

impl Memory {
    /// Zeroed bytes. Errors: more than the system has left, or than an address can hold.
    pub(super) fn new(bytes: u64) -> Result<Memory, DeviceError> {
        let available = available();
        let refused = || DeviceError::OutOfMemory { needed: bytes, available: available.clone() };
        if available.as_ref().is_some_and(|a| bytes > a.bytes) {
            return Err(refused());
        }
        let len = usize::try_from(bytes).map_err(|_| refused())?;
        // The system's allocator returns untouched pages only for small alignments, so the rest is done here.
        let size = len.checked_add(PAGE).ok_or_else(refused)?;
        let layout = Layout::from_size_align(size, 16).map_err(|_| refused())?;
        // SAFETY: the layout's size is not 0.
        let block = unsafe { System.alloc_zeroed(layout) };
        if block.is_null() {
            return Err(refused());
        }
        // SAFETY: the offset is below PAGE, and the block has that many bytes more than `len`.
        let start = unsafe { block.add(block.align_offset(PAGE)) };
        large_pages(start, len);
        Ok(Memory { start, len, block, layout })
    }

    /// First byte, aligned to a large page.
    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn range(&self, offset: u64, len: usize) -> Result<usize, DeviceError> {
        let to = offset.saturating_add(len as u64);
        if to > self.len as u64 {
            return Err(DeviceError::OutOfBounds { what: "bytes", from: offset, to, len: self.len as u64 });
        }
        Ok(offset as usize)
    }

    /// The whole arena, for copies and the clearing of parts.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block is initialised and longer than `len` from here; the borrow keeps others from it.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    /// Copies bytes in.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let at = self.range(offset, bytes.len())?;
        // SAFETY: the range is within the block, which nobody else borrows.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at), bytes.len()) };
        Ok(())
    }

    /// Copies bytes out.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let at = self.range(offset, bytes.len())?;
        // SAFETY: the range is within the block, which is initialised.
        unsafe { std::ptr::copy_nonoverlapping(self.start.add(at), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { System.dealloc(self.block, self.layout) };
    }
}

/// Asks for large pages where that saves table walks.
fn large_pages(start: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    if len >= 2 * PAGE {
        // SAFETY: the range is this block's; the advice changes no contents, and a refusal is harmless.
        unsafe { libc::madvise(start.cast(), len / PAGE * PAGE, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_checked() {
        let mut memory = Memory::new(1000).expect("little memory");
        let mut bytes = [1; 8];
        memory.read(992, &mut bytes).expect("inside");
        assert_eq!(bytes, [0; 8]);
        memory.write(100, &[7; 8]).expect("inside");
        assert_eq!((memory.bytes().len(), memory.bytes()[107]), (1000, 7));
        memory.read(101, &mut bytes).expect("inside");
        assert_eq!(bytes, [7, 7, 7, 7, 7, 7, 7, 0]);
        assert!(matches!(memory.read(993, &mut bytes), Err(DeviceError::OutOfBounds { to: 1001, .. })));
        assert!(memory.write(u64::MAX, &[0]).is_err());
        assert!(memory.start().is_null() || (memory.start() as usize).is_multiple_of(64));
    }

    #[test]
    fn too_much_is_refused_with_numbers() {
        let Err(DeviceError::OutOfMemory { needed, .. }) = Memory::new(1 << 60) else {
            panic!("an exbibyte was allocated");
        };
        assert_eq!(needed, 1 << 60);
    }

    #[test]
    fn nothing_is_allowed() {
        let mut memory = Memory::new(0).expect("nothing");
        assert_eq!((memory.len(), memory.bytes().len()), (0, 0));
    }
}
