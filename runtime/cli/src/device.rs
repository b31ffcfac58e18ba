//! The device that a command was asked to run on.

use linc_bench::{BenchError, Open};
use linc_device::{Choice, Device, DeviceError};

use crate::log;
use crate::progress::Progress;

/// Opens it, with a bar for the kernels that it compiles, on so many threads, or all for 0; says why it is the CPU, and what is not
/// as it was asked for.
pub(crate) fn device(
    choice: &Choice,
    threads: usize,
    bar: &Progress,
) -> Result<Box<dyn Device>, DeviceError> {
    open(choice, threads, bar, true)
}

/// Opens the device again and again; says once what there is to say. It stops compiling where it is not to go on.
pub(crate) fn opener(
    choice: Choice,
    threads: usize,
    bar: Progress,
    goes_on: impl Fn() -> bool + Copy + 'static,
) -> Box<Open<'static>> {
    let mut said = false;
    Box::new(move || -> Result<Box<dyn Device>, BenchError> {
        let is_first = !std::mem::replace(&mut said, true);
        let mut device = open(&choice, threads, &bar, is_first)?;
        let mut kernels = bar.of_kernels();
        device.watch(Box::new(move |done, total| kernels(done, total) && goes_on()));
        Ok(device)
    })
}

fn open(choice: &Choice, threads: usize, bar: &Progress, says: bool) -> Result<Box<dyn Device>, DeviceError> {
    let opened = choice.open((threads > 0).then_some(threads))?;
    opened.note.iter().filter(|_| says).for_each(log::say);
    opened.warning.iter().filter(|_| says).for_each(log::warn);
    let mut device = opened.device;
    device.watch(bar.of_kernels());
    Ok(device)
}
