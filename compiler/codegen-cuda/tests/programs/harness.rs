//! Runs hand-written tile programs on the interpreter and on the emulator.

use linc_cases::exhaustive;
use linc_codegen_cuda::{Arch, Options, compile};
use linc_emulator::{Emulator, LaunchOptions, Order};
use linc_tile::interp::{Buffer, RunOptions, run};
use linc_tile::{Elem, Kernel};

/// A program with its operands.
pub(super) struct Program {
    name: String,
    kernel: Kernel,
    buffers: Vec<Buffer>,
}

impl Program {
    pub(super) fn new(name: &str, text: &str, buffers: Vec<Buffer>) -> Program {
        let kernel = linc_tile::parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        linc_tile::verify(&kernel).unwrap_or_else(|e| panic!("{name}: {e}"));
        Program { name: name.to_string(), kernel, buffers }
    }
}

pub(super) fn one(name: &str, text: &str, buffers: Vec<Buffer>) {
    check(&[Program::new(name, text, buffers)]);
}

/// Runs programs on both, for the oldest and the newest architecture, in every order of the threads or, where not
/// everything is asked for, in two of them by turns. Differences beyond a ten thousandth are failures.
pub(super) fn check(programs: &[Program]) {
    let Some(emulator) = Emulator::find() else { return };
    let (mut launches, mut generated) = (vec![], vec![]);
    for program in programs {
        for arch in [Arch::Sm80, Arch::Sm90a] {
            let name = format!("{} for {}", program.name, arch.name());
            let alignment = vec![64; program.kernel.params.len()];
            let cuda = compile(&program.kernel, &Options { arch, alignment });
            generated.push(cuda.unwrap_or_else(|e| panic!("{name}: {e}")));
            launches.push((name, program));
        }
    }
    let built = emulator.build(&generated).unwrap_or_else(|e| panic!("{e}"));
    for (i, (name, Program { kernel, buffers, .. })) in launches.into_iter().enumerate() {
        let mut expected = buffers.clone();
        run(kernel, &mut expected, &RunOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let turns = if exhaustive() { Order::ALL.len() } else { 2 };
        for turn in 0..turns {
            let order = Order::ALL[(i + 2 * turn) % Order::ALL.len()];
            let mut actual = buffers.clone();
            let launch =
                LaunchOptions { alignment: vec![64; kernel.params.len()], ..LaunchOptions::ordered(order) };
            built.run(i, &kernel.params, &mut actual, &launch).unwrap_or_else(|e| panic!("{name}: {e}"));
            for (param, (actual, expected)) in kernel.params.iter().zip(actual.iter().zip(&expected)) {
                for (i, (a, e)) in actual.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
                    let same =
                        (a.is_nan() && e.is_nan()) || a == e || (a - e).abs() <= 1e-4 * e.abs().max(1e-3);
                    assert!(same, "{name}, {order:?}: {}[{i}] is {a}, expected {e}", param.name);
                }
            }
        }
    }
}

pub(super) fn f(n: usize, g: impl Fn(usize) -> f64) -> Buffer {
    Buffer::from_f64(Elem::F32, &(0..n).map(g).collect::<Vec<_>>()).unwrap()
}
pub(super) fn b(n: usize, g: impl Fn(usize) -> f64) -> Buffer {
    Buffer::from_f64(Elem::Bf16, &(0..n).map(g).collect::<Vec<_>>()).unwrap()
}
pub(super) fn frac(i: usize) -> f64 {
    ((i * 7919 + 13) % 101) as f64 / 37.0 - 1.0
}
