//! Times of single steps, by events that the GPU records.

use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::gpu::Gpu;
use crate::DeviceError;

/// Events, one more than the longest program that was timed has steps.
pub(super) struct Events {
    gpu: Arc<Gpu>,
    events: Vec<Event>,
}

impl Events {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Events {
        Events { gpu: Arc::clone(gpu), events: vec![] }
    }

    /// Queues a step for each time and adds to it how long the GPU took, from the end of the step before. `wait` comes back when
    /// all is done.
    pub(super) fn time(
        &mut self,
        times: &mut [Duration],
        queue: &mut dyn FnMut(usize) -> Result<(), DeviceError>,
        wait: &dyn Fn() -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.gpu.bind()?;
        while self.events.len() <= times.len() {
            self.events.push(Event::new(&self.gpu, true)?);
        }
        self.record(0)?;
        for step in 0..times.len() {
            queue(step)?;
            self.record(step + 1)?;
        }
        wait()?;
        for (time, ends) in times.iter_mut().zip(self.events.windows(2)) {
            let taken = ends[1].milliseconds_since(&ends[0]).unwrap_or(0.0);
            *time += Duration::from_secs_f64(f64::from(taken.max(0.0)) / 1e3);
        }
        Ok(())
    }

    fn record(&self, index: usize) -> Result<(), DeviceError> {
        // SAFETY: the stream is of this GPU.
        unsafe { self.events[index].record(self.gpu.stream.cu_stream()) }
    }
}
