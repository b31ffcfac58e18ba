//! Times of single steps, by events that the GPU records.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::result as driver;
use cudarc::driver::sys::{CUevent, CUevent_flags};

use super::gpu::{Gpu, failed};
use crate::DeviceError;

/// Events, one more than the longest program that was timed has steps.
pub(super) struct Events {
    gpu: Arc<Gpu>,
    events: Vec<CUevent>,
}

impl Events {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Events {
        Events { gpu: Arc::clone(gpu), events: vec![] }
    }

    /// Queues a step for each time and adds to it how long the GPU took, from the end of the step before.
    pub(super) fn time(
        &mut self,
        times: &mut [Duration],
        queue: &mut dyn FnMut(usize) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.gpu.bind()?;
        while self.events.len() <= times.len() {
            let event = driver::event::create(CUevent_flags::CU_EVENT_DEFAULT);
            self.events.push(event.map_err(failed("creating an event"))?);
        }
        self.record(0)?;
        for step in 0..times.len() {
            queue(step)?;
            self.record(step + 1)?;
        }
        self.gpu.synchronize()?;
        for (time, ends) in times.iter_mut().zip(self.events.windows(2)) {
            // SAFETY: both events were recorded above, and have happened.
            let taken = unsafe { self.gpu.milliseconds(ends[0], ends[1]) }.unwrap_or(0.0);
            *time += Duration::from_secs_f64(f64::from(taken.max(0.0)) / 1e3);
        }
        Ok(())
    }

    fn record(&self, index: usize) -> Result<(), DeviceError> {
        // SAFETY: event and stream are of this GPU, whose context is bound.
        unsafe { driver::event::record(self.events[index], self.gpu.stream.cu_stream()) }
            .map_err(failed("recording an event"))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            for event in &self.events {
                // SAFETY: created by this value, and waited for by nobody.
                let _ = unsafe { driver::event::destroy(*event) };
            }
        }
    }
}
