//! Memory that steps use while they run: an area for each thread, for the tiles of generated code and packed operands,
//! and one that all threads share, for the packed operand of a matmul.

use std::alloc::{GlobalAlloc, Layout, System};

use super::limits::available;
use crate::DeviceError;

/// Bytes that a program's steps need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Needs {
    /// Of each thread's own area.
    pub(super) own: usize,
    /// Of the shared area.
    pub(super) shared: usize,
}

/// The areas, for the duration of a step.
#[derive(Clone, Copy)]
pub(super) struct Areas<'a> {
    own: &'a [*mut u8],
    shared: *mut u8,
}

impl Areas<'_> {
    /// The area of a thread.
    pub(super) fn of(&self, worker: usize) -> *mut u8 {
        self.own[worker]
    }

    /// The area of all.
    pub(super) fn shared(&self) -> *mut u8 {
        self.shared
    }
}

// SAFETY: threads use their own area, and different parts of the shared one while it is written.
unsafe impl Sync for Areas<'_> {}

/// The owner of the areas.
pub(super) struct Scratch {
    own: Vec<*mut u8>,
    shared: *mut u8,
    bytes: Needs,
}

// SAFETY: the areas belong to this value.
unsafe impl Send for Scratch {}

/// A page: the areas of two threads share no cache line.
const PAGE: usize = 4096;

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_next_multiple_of(PAGE)?, PAGE).ok()
}

/// An area, or null if there are no bytes to allocate or no memory to have.
fn allocate(bytes: usize) -> *mut u8 {
    match layout(bytes) {
        // SAFETY: the size is not 0.
        Some(layout) if bytes > 0 => unsafe { System.alloc_zeroed(layout) },
        Some(_) | None => std::ptr::null_mut(),
    }
}

impl Scratch {
    /// Nothing for each of `threads`.
    pub(super) fn new(threads: usize) -> Scratch {
        Scratch {
            own: vec![std::ptr::null_mut(); threads],
            shared: std::ptr::null_mut(),
            bytes: Needs::default(),
        }
    }

    /// Makes every area at least as long as needed.
    ///
    /// Errors: [`DeviceError::OutOfMemory`]; the areas are empty then.
    pub(super) fn reserve(&mut self, needs: Needs) -> Result<(), DeviceError> {
        let Needs { own, shared } =
            Needs { own: needs.own.max(self.bytes.own), shared: needs.shared.max(self.bytes.shared) };
        if (Needs { own, shared }) == self.bytes {
            return Ok(());
        }
        self.free();
        self.bytes = Needs { own, shared };
        self.own.iter_mut().for_each(|area| *area = allocate(own));
        self.shared = allocate(shared);
        let missing = self.own.iter().any(|area| area.is_null() && own > 0);
        if missing || (self.shared.is_null() && shared > 0) {
            self.free();
            let needed = own.saturating_mul(self.own.len()).saturating_add(shared) as u64;
            return Err(DeviceError::OutOfMemory { needed, available: available() });
        }
        Ok(())
    }

    /// Pointers for one run; none of them may outlive the next `resize`.
    pub(super) fn areas(&self) -> Areas<'_> {
        Areas { own: &self.own, shared: self.shared }
    }

    fn free(&mut self) {
        let sizes = [self.bytes.own, self.bytes.shared];
        let areas = [&mut self.own[..], std::slice::from_mut(&mut self.shared)];
        for (areas, bytes) in areas.into_iter().zip(sizes) {
            for area in areas {
                if let Some(layout) = layout(bytes).filter(|_| !area.is_null()) {
                    // SAFETY: allocated by `allocate` with this layout.
                    unsafe { System.dealloc(*area, layout) };
                }
                *area = std::ptr::null_mut();
            }
        }
        self.bytes = Needs::default();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.free();
    }
}
