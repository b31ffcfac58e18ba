//! Runs tile kernels through plans on the CPU and on the tile interpreter.
pub(crate) use linc_cases::launch::bytes;
use linc_cases::launch::launches;
use linc_cases::{Case, exhaustive};
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

/// Threads of the devices of a level.
const THREADS: [usize; 2] = [1, 2];

/// All devices that a kernel should give the same results on, level by level.
pub(crate) fn devices() -> Vec<Cpu> {
    let mut devices = vec![];
    for level in Level::available() {
        for threads in THREADS {
            let options = CpuOptions { threads: Some(threads), level: Some(level) };
            devices.push(Cpu::new(options).expect("an available level"));
        }
    }
    devices
}

/// Compares kernels on all devices with the interpreter. Where not everything is asked for, each kernel runs on one level,
/// by turns, with either number of threads: what is generated differs between levels in the primitives that it calls.
pub(crate) fn check_all(cases: impl IntoIterator<Item = Case>) {
    let mut devices = devices();
    let levels = devices.len() / THREADS.len();
    for (i, case) in cases.into_iter().enumerate() {
        let turn = turn(i, levels) * THREADS.len();
        let some = if exhaustive() { &mut devices[..] } else { &mut devices[turn..][..THREADS.len()] };
        check(some, &case);
    }
}

/// A number below `count` for case `i`: by the sum of its digits, so that what changes every few cases meets all of them.
fn turn(mut i: usize, count: usize) -> usize {
    let mut sum = 0;
    while count > 1 && i > 0 {
        sum += i % count;
        i /= count;
    }
    sum % count
}

/// Equal bits for any number of threads, and close to the reference by an absolute tolerance plus a share of each value.
fn check(devices: &mut [Cpu], case: &Case) {
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
