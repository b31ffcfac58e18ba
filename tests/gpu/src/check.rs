//! Runs checks on a device.

use linc_cases::launch::{Span, launches};
use linc_device::{Arena, Device, DeviceError, Program};
use linc_tile::interp::Buffer;
use linc_tile::{Kernel, Mode};

use crate::group::Check;

/// Checks that share a plan: their kernels are compiled together, on all threads.
const TOGETHER: usize = 100;

/// How a group went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Checks of the group that ran.
    pub cases: usize,
    /// What is wrong, a line each.
    pub failures: Vec<String>,
}

/// Runs all checks. The device is given up at its first failure that is not about one kernel's text: what a GPU does after
/// a fault says nothing.
pub fn run(device: &mut dyn Device, checks: &[Check]) -> Outcome {
    let mut outcome = Outcome { cases: checks.len(), failures: vec![] };
    for together in checks.chunks(TOGETHER) {
        let lost = match load(device, together) {
            Ok(loaded) => run_loaded(device, &loaded, together, &mut outcome.failures),
            // Somebody's kernel does not compile: each by itself says whose.
            Err(_) => together.iter().try_for_each(|check| {
                let one = std::slice::from_ref(check);
                match load(device, one) {
                    Ok(loaded) => run_loaded(device, &loaded, one, &mut outcome.failures),
                    Err(error @ (DeviceError::Kernel { .. } | DeviceError::Plan { .. })) => {
                        outcome.failures.push(error.to_string());
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }),
        };
        if let Err(error) = lost {
            outcome
                .failures
                .push(format!("the device failed, and the rest of the group was not run: {error}"));
            break;
        }
    }
    outcome
}

struct LoadedGroup {
    arena: Arena,
    program: Program,
    spans: Vec<Span>,
}

fn load(device: &mut dyn Device, checks: &[Check]) -> Result<LoadedGroup, DeviceError> {
    let cases: Vec<(&Kernel, &[Buffer])> = checks.iter().map(|c| (c.kernel(), c.buffers())).collect();
    let (plan, spans) = launches(&cases);
    let arena = device.allocate(plan.persistent_bytes)?;
    let program = device.load(&plan, arena, plan.persistent_bytes)?;
    Ok(LoadedGroup { arena, program, spans })
}

fn run_loaded(
    device: &mut dyn Device,
    loaded: &LoadedGroup,
    checks: &[Check],
    failures: &mut Vec<String>,
) -> Result<(), DeviceError> {
    for (step, check) in checks.iter().enumerate() {
        let name = &check.kernel().name;
        let span = &loaded.spans[step];
        let before = span.image(check.buffers());
        let mut run = || -> Result<Vec<u8>, DeviceError> {
            let mut image = before.clone();
            device.write(loaded.arena, span.start, &image)?;
            device.launch(loaded.program, step..step + 1)?;
            device.synchronize()?;
            device.read(loaded.arena, span.start, &mut image)?;
            Ok(image)
        };
        let in_kernel = |error: DeviceError| match error {
            DeviceError::Driver { action, message } => {
                DeviceError::Driver { action, message: format!("{message} (after {name})") }
            }
            other => other,
        };
        let (first, second) = (run().map_err(in_kernel)?, run().map_err(in_kernel)?);
        if first != second {
            failures.push(format!("{name}: two runs differ"));
        }
        let buffers = match span.buffers(&first, check.buffers()) {
            Ok(buffers) => buffers,
            Err(index) => {
                let param = check.kernel().params.get(index).map_or("?", |param| &param.name);
                failures.push(format!("{name}: something is written before or behind {param}"));
                continue;
            }
        };
        for (param, (before, after)) in check.kernel().params.iter().zip(check.buffers().iter().zip(&buffers))
        {
            if param.mode == Mode::Read && before != after {
                failures.push(format!("{name}: the operand {} has changed", param.name));
            }
        }
        failures.extend(check.judge(&buffers));
    }
    Ok(())
}
