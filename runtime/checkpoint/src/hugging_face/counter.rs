//! How far an import or an export is, told while tensors are read, and whether to go on.

use std::cell::{Cell, RefCell};

/// Hears how many bytes of how many are done, and says whether to go on.
pub type Tell<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// Bytes that are read and written, of how many there are.
pub(super) struct Counter<'a> {
    done: Cell<u64>,
    total: u64,
    tell: RefCell<&'a mut Tell<'a>>,
}

impl<'a> Counter<'a> {
    pub(super) fn new(total: u64, tell: &'a mut Tell<'a>) -> Self {
        Counter { done: Cell::new(0), total, tell: RefCell::new(tell) }
    }

    /// The bytes, once they are counted.
    ///
    /// # Errors
    /// Whoever was told does not want to go on.
    pub(super) fn count(&self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        self.done.set(self.done.get() + bytes.len() as u64);
        match (self.tell.borrow_mut())(self.done.get(), self.total) {
            true => Ok(bytes),
            false => Err("stopped before it was done".to_owned()),
        }
    }
}
