//! Tile programs that are files, with what no kernel of the library has: names that the generated text uses itself, values
//! carried into addresses, windows that overlap from one iteration to the next, extreme numbers, odd operands of products. Each gives
//! the interpreter's values on the emulator.

use linc_cases::exhaustive;
use linc_cases::files::{TileFile, tile_files};
use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel, compile};
use linc_emulator::{Emulator, LaunchOptions, Order};

/// A kernel without what it says of itself, which names the architecture.
fn body(kernel: &CudaKernel) -> (&str, &[linc_codegen_cuda::TensorMap]) {
    let at = kernel.text.find("extern").unwrap_or(0);
    (&kernel.text[at..], &kernel.maps)
}

/// For the oldest and the newest architecture, where their texts differ, in every order of the threads or, where not
/// everything is asked for, in two of them by turns.
#[test]
fn tile_programs_give_the_values_of_the_interpreter() {
    let Some(emulator) = Emulator::find() else { return };
    let files = tile_files();
    let (mut launches, mut generated): (Vec<(String, &TileFile)>, Vec<CudaKernel>) = (vec![], vec![]);
    for file in &files {
        let kernel = &file.case.kernel;
        for arch in [Arch::Sm80, Arch::Sm90a] {
            let name = format!("{} for {}", file.path, arch.name());
            let options = CudaCodegenOptions { arch, alignment: vec![64; kernel.params.len()] };
            let cuda = compile(kernel, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
            let is_new =
                arch == Arch::Sm80 || generated.last().is_none_or(|known| body(known) != body(&cuda));
            if is_new {
                generated.push(cuda);
                launches.push((name, file));
            }
        }
    }
    let built = emulator.build(&generated).unwrap_or_else(|e| panic!("{e}"));
    for (i, (name, TileFile { case, .. })) in launches.into_iter().enumerate() {
        let expected = case.expected();
        let turns = if exhaustive() { Order::ALL.len() } else { 2 };
        for turn in 0..turns {
            let order = Order::ALL[(i + 2 * turn) % Order::ALL.len()];
            let mut actual = case.buffers.clone();
            let launch = LaunchOptions { alignment: vec![64; actual.len()], ..LaunchOptions::ordered(order) };
            let run = built.run(i, &case.kernel.params, &mut actual, &launch);
            run.unwrap_or_else(|e| panic!("{name}, {order:?}: {e}"));
            if let Some(difference) = case.difference(&actual, &expected) {
                panic!("{name}, {order:?}: {difference}");
            }
        }
    }
}

#[test]
fn tiles_that_no_thread_can_hold_are_refused() {
    let text = "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32[2048, 2048] = load x[%o; 2048, 1]
  %b: f32[2048, 2048] = add %a, %a
  store y[%o; 2048, 1], %b
}";
    let kernel = linc_tile::parse(text).unwrap_or_else(|e| panic!("{e}"));
    let error = compile(&kernel, &CudaCodegenOptions { arch: Arch::Sm90a, alignment: vec![64; 2] });
    let message = error.expect_err("16384 numbers a thread").to_string();
    assert!(message.contains("too large"), "{message}");
}
