//! Products of all forms on Hopper, where operands are read by descriptor: sizes that warpgroups do and sizes that they
//! leave to warps, either operand transposed, the left one in memory or computed, with and without an accumulator.
//! Numbers are small integers, so that the emulator's results are those of the interpreter exactly.

use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel, compile};
use linc_emulator::{Emulator, LaunchOptions, Operation};
use linc_tile::Elem;
use linc_tile::interp::{Buffer, RunOptions, run};

struct Form {
    /// Element type of the operands.
    elem: Elem,
    /// Rows, columns, inner positions.
    sizes: [usize; 3],
    /// Which operands are stored transposed.
    transposed: [bool; 2],
    /// The left operand comes from registers.
    computed: bool,
    /// The product is added to a tile.
    added: bool,
}

impl Form {
    fn text(&self) -> String {
        let ([m, n, k], elem) = (self.sizes, if self.elem == Elem::F16 { "f16" } else { "bf16" });
        let shape = |transposed: bool, rows: usize, cols: usize| {
            if transposed { (cols, rows) } else { (rows, cols) }
        };
        let trans = |transposed: bool| if transposed { "trans " } else { "" };
        let ((ar, ac), (br, bc)) = (shape(self.transposed[0], m, k), shape(self.transposed[1], k, n));
        let left = if self.computed {
            format!(
                "  %w: f32[{ar}, {ac}] = cast %x\n  %z: f32[{ar}, {ac}] = add %w, %w\n  %a: {elem}[{ar}, {ac}] = cast %z\n"
            )
        } else {
            String::new()
        };
        let (acc, start) = if self.added {
            (", acc %s", format!("  %s: f32[{m}, {n}] = load y[%o; {n}, 1]\n"))
        } else {
            ("", String::new())
        };
        format!(
            "kernel product(x: read {elem}, v: read {elem}, y: readwrite f32) grid(1, 1, 1) {{
  %o: index = const 0
  %x: {elem}[{ar}, {ac}] = load x[%o; {ac}, 1]
  %b: {elem}[{br}, {bc}] = load v[%o; {bc}, 1]
{left}{start}  %d: f32[{m}, {n}] = dot {}{}, {}%b{acc}
  store y[%o; {n}, 1], %d
}}",
            trans(self.transposed[0]),
            if self.computed { "%a" } else { "%x" },
            trans(self.transposed[1]),
        )
    }

    fn buffers(&self) -> Vec<Buffer> {
        let [m, n, k] = self.sizes;
        let numbers = |count: usize, seed: usize| {
            let number = |i: usize| ((i * 7919 + seed * 104_729) % 17) as f64 - 8.0;
            (0..count).map(number).collect::<Vec<f64>>()
        };
        let buffer = |elem, count, seed| Buffer::from_f64(elem, &numbers(count, seed)).expect("numbers");
        vec![buffer(self.elem, m * k, 1), buffer(self.elem, k * n, 2), buffer(Elem::F32, m * n, 3)]
    }
}

fn forms() -> Vec<Form> {
    let sizes = [
        [64, 64, 64],
        [64, 16, 32],
        [64, 32, 16],
        [128, 128, 64],
        [64, 128, 128],
        [128, 64, 192],
        [64, 256, 48],
        [64, 96, 80],
        [192, 64, 64],
        [64, 24, 40],
        [48, 64, 64],
    ];
    let mut forms = vec![];
    for (i, sizes) in sizes.into_iter().enumerate() {
        for flags in 0..8 {
            let flag = |bit: usize| flags >> bit & 1 == 1;
            let transposed = [flag(0), flag(1)];
            let elem = if (i + flags) % 4 == 0 { Elem::F16 } else { Elem::Bf16 };
            forms.push(Form { elem, sizes, transposed, computed: flag(2), added: (i + flags) % 3 == 0 });
        }
    }
    forms
}

#[test]
fn products_are_exact() {
    let Some(emulator) = Emulator::find() else { return };
    let forms = forms();
    let kernels: Vec<linc_tile::Kernel> = forms
        .iter()
        .map(|f| linc_tile::parse(&f.text()).unwrap_or_else(|e| panic!("{e}\n{}", f.text())))
        .collect();
    let generate = |kernel: &linc_tile::Kernel| {
        linc_tile::verify(kernel).unwrap_or_else(|e| panic!("{e}"));
        let options = CudaCodegenOptions { arch: Arch::Sm90a, alignment: vec![64; 3] };
        compile(kernel, &options).unwrap_or_else(|e| panic!("{e}"))
    };
    let generated: Vec<CudaKernel> = kernels.iter().map(generate).collect();
    let built = emulator.build(&generated).unwrap_or_else(|e| panic!("{e}"));
    let mut by_groups = 0;
    for (i, (form, kernel)) in forms.iter().zip(&kernels).enumerate() {
        let mut expected = form.buffers();
        run(kernel, &mut expected, &RunOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let mut actual = form.buffers();
        let launch = LaunchOptions { alignment: vec![64; 3], ..LaunchOptions::default() };
        let report = built
            .run(i, &kernel.params, &mut actual, &launch)
            .unwrap_or_else(|e| panic!("{e}\n{}\n{}", form.text(), generated[i].text));
        assert!(actual == expected, "{}", form.text());
        let groups = report.count(Operation::Wgmma) > 0;
        assert_ne!(groups, report.count(Operation::Mma) > 0, "{}", form.text());
        by_groups += usize::from(groups);
    }
    assert!(by_groups > 40, "only {by_groups} of {} by warpgroups", forms.len());
}
