//! A point in the work of a stream: other streams wait for it, and two of them say how long what lies between took.

use std::sync::Arc;

use cudarc::driver::result as driver;
use cudarc::driver::sys::{CUevent, CUevent_flags, CUevent_wait_flags, CUstream};

use super::gpu::{Gpu, failed};
use crate::DeviceError;

/// An event of a GPU, whose context is bound whenever something but its end is asked of it.
pub(super) struct Event {
    gpu: Arc<Gpu>,
    event: CUevent,
}

impl Event {
    /// One whose time is taken, or one that streams only wait for, which costs less.
    pub(super) fn new(gpu: &Arc<Gpu>, is_timed: bool) -> Result<Event, DeviceError> {
        let flags =
            if is_timed { CUevent_flags::CU_EVENT_DEFAULT } else { CUevent_flags::CU_EVENT_DISABLE_TIMING };
        let event = driver::event::create(flags).map_err(failed("creating an event"))?;
        Ok(Event { gpu: Arc::clone(gpu), event })
    }

    /// Happens when all that was queued in the stream so far is done.
    ///
    /// # Safety
    /// The stream is one of this GPU.
    pub(super) unsafe fn record(&self, stream: CUstream) -> Result<(), DeviceError> {
        // SAFETY: the event is live; the stream is as the caller vouches.
        unsafe { driver::event::record(self.event, stream) }.map_err(failed("recording an event"))
    }

    /// What is queued in the stream from now on waits until it has happened as often as it was recorded.
    ///
    /// # Safety
    /// The stream is one of this GPU.
    pub(super) unsafe fn hold(&self, stream: CUstream) -> Result<(), DeviceError> {
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the event is live; the stream is as the caller vouches.
        unsafe { driver::stream::wait_event(stream, self.event, flags) }
            .map_err(failed("waiting for an event"))
    }

    /// Milliseconds from another event to this one, where both have happened.
    pub(super) fn milliseconds_since(&self, earlier: &Event) -> Option<f32> {
        // SAFETY: both events are live, and of this GPU.
        unsafe { self.gpu.milliseconds(earlier.event, self.event) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: created by this value; a stream that still waits for it goes on when it has happened.
            let _ = unsafe { driver::event::destroy(self.event) };
        }
    }
}
