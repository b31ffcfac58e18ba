//! Runs tile kernels through plans on the CPU and on the tile interpreter.
use linc_cases::Case;
pub(crate) use linc_cases::launch::bytes;
use linc_cases::launch::launches;
use linc_device::Device;
use linc_device::cpu::{Cpu, CpuOptions, Level};
use linc_tile::interp::Buffer;
use linc_tile::{Kernel, Mode};

/// Runs a kernel on the machine.
pub(crate) fn run_on(cpu: &mut Cpu, kernel: &Kernel, buffers: &[Buffer]) -> Vec<Buffer> {
    let (plan, spans) = launches(&[(kernel, buffers)]);
    let arena = cpu.allocate(plan.persistent_bytes).expect("memory");
    let program = cpu.load(&plan, arena, plan.persistent_bytes).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    let mut image = spans[0].image(buffers);
    cpu.write(arena, 0, &image).expect("inside");
    cpu.launch(program, 0..1).expect("one step");
    cpu.synchronize().expect("nothing fails");
    cpu.read(arena, 0, &mut image).expect("inside");
    let after = spans[0].buffers(&image, buffers);
    after.unwrap_or_else(|b| panic!("{}: writes outside of buffer {b}", kernel.name))
}

/// All devices that a kernel should give the same results on.
pub(crate) fn devices() -> Vec<Cpu> {
    let mut devices = vec![];
    for level in Level::available() {
        for threads in [1, 2] {
            let options = CpuOptions { threads: Some(threads), level: Some(level) };
            devices.push(Cpu::new(options).expect("an available level"));
        }
    }
    devices
}

/// Compares a kernel on all devices with the interpreter: equal bits for any number of threads, and close to the
/// reference by an absolute tolerance plus a share of each value.
pub(crate) fn check(devices: &mut [Cpu], case: &Case) {
    let Case { kernel, buffers, .. } = case;
    let expected = case.expected();
    let mut previous: Option<(Level, Vec<Buffer>)> = None;
    for cpu in devices {
        let actual = run_on(cpu, kernel, buffers);
        if let Some((level, bits)) = &previous
            && *level == cpu.level()
        {
            for (a, b) in bits.iter().zip(&actual) {
                assert!(bytes(a) == bytes(b), "{}: the number of threads changes bits", kernel.name);
            }
        }
        for (k, (a, e)) in actual.iter().zip(&expected).enumerate() {
            if kernel.params[k].mode == Mode::Read {
                assert!(bytes(a) == bytes(e), "{}: an input has changed", kernel.name);
            }
        }
        if let Some(difference) = case.difference(&actual, &expected) {
            panic!("{difference} on {}\n{kernel}", cpu.describe());
        }
        previous = Some((cpu.level(), actual));
    }
}
