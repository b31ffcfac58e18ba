//! Random programs of loops around products, for Hopper's TMA copies: loops in loops and behind each other, in
//! branches, with no iteration at all, whose tiles suit TMA or not, are computed on, or stay from before. Numbers are
//! small integers, so that the emulator gives the interpreter's results exactly; it watches every mbarrier and fence.

use linc_cases::exhaustive;
use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel, compile};
use linc_emulator::{Emulator, LaunchOptions, Operation, Order};
use linc_tile::interp::{Buffer, RunOptions, run};
use linc_tile::{Builder, Compare, Elem, Kernel, Mode, ParamId, ValueId, verify};

/// Elements from row to row of the two matrices that are read, and their rows.
const STRIDES: [usize; 2] = [128, 192];
const ROWS: usize = 640;
const PROGRAMS: usize = 2;
/// Columns of the result, and inner positions of products.
const SIDE: usize = 64;

/// Makes programs; a copy goes its own way.
#[derive(Clone)]
struct Generator {
    state: u64,
    matrices: [ParamId; 2],
    pid: ValueId,
    /// Rows of the result.
    rows: usize,
    /// Counters of the loops around.
    counters: Vec<ValueId>,
    /// Tiles from before, `[SIDE, SIDE]`.
    kept: Vec<ValueId>,
}

impl Generator {
    fn below(&mut self, n: usize) -> usize {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) as usize) % n
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn apart(&mut self) -> Generator {
        let mut other = self.clone();
        other.state = other.state.wrapping_add(1 + self.below(1 << 20) as u64);
        other
    }

    /// A tile of one of the matrices, somewhere that depends on the program and the loops around.
    fn load(&mut self, b: &mut Builder, rows: usize, cols: usize) -> ValueId {
        let which = self.below(2);
        let stride = STRIDES[which];
        let columns = (stride - cols) / SIDE + 1;
        // Now and then not at a multiple of the tile's columns.
        let odd = if self.chance(10) && stride > cols { 8 } else { 0 };
        let mut offset = b.index(if odd > 0 { odd } else { self.below(columns) * SIDE });
        let base = b.scale_index(self.pid, 32 * stride);
        offset = b.add(offset, base);
        for counter in self.counters.clone() {
            let step = [16, 32][self.below(2)];
            let moved = b.scale_index(counter, step * stride);
            offset = b.add(offset, moved);
        }
        let bound = self.chance(10).then(|| b.index(self.below(rows + 4)));
        b.load(self.matrices[which], offset, &[rows, cols], &[(stride, bound), (1, None)])
    }

    /// Twice the tile, by way of registers.
    fn computed(&mut self, b: &mut Builder, tile: ValueId) -> ValueId {
        let wide = b.cast(tile, Elem::F32);
        let twice = b.add(wide, wide);
        b.cast(twice, Elem::Bf16)
    }

    fn product(&mut self, b: &mut Builder, acc: ValueId) -> ValueId {
        let (trans_a, trans_b) = (self.chance(30), self.chance(50));
        let mut left = match trans_a {
            true => self.load(b, SIDE, self.rows),
            false => self.load(b, self.rows, SIDE),
        };
        let before = self.below(self.kept.len().max(1));
        let mut right = match self.kept.get(before) {
            Some(kept) if self.state % 10 < 4 => *kept,
            _ => self.load(b, SIDE, SIDE),
        };
        if self.chance(25) {
            left = self.computed(b, left);
        }
        if self.chance(25) {
            right = self.computed(b, right);
        }
        if self.chance(20) {
            self.kept.push(right);
        }
        b.dot(left, trans_a, right, trans_b, Some(acc))
    }

    fn statement(&mut self, b: &mut Builder, depth: usize, acc: ValueId) -> ValueId {
        match self.below(10) {
            0 => {
                let kept = self.load(b, SIDE, SIDE);
                self.kept.push(kept);
                self.product(b, acc)
            }
            1 | 2 => {
                let (two, zero) = (b.index(2), b.index(0));
                let of = *self.counters.last().unwrap_or(&self.pid);
                let rest = b.rem(of, two);
                let even = b.compare(Compare::Eq, rest, zero);
                let (mut then, mut otherwise) = (self.apart(), self.apart());
                b.if_else(
                    even,
                    |b| vec![then.block(b, depth + 1, acc)],
                    |b| vec![if otherwise.chance(50) { acc } else { otherwise.block(b, depth + 1, acc) }],
                )[0]
            }
            3..8 if depth < 3 => {
                let (lower, upper) = (b.index(self.below(2)), b.index(self.below(5)));
                let upper = if self.chance(30) { b.add(upper, self.pid) } else { upper };
                let step = 1 + self.below(2);
                let mut inner = self.apart();
                b.for_loop(lower, upper, step, &[acc], |b, counter, args| {
                    inner.counters.push(counter);
                    vec![inner.block(b, depth + 1, args[0])]
                })[0]
            }
            _ => self.product(b, acc),
        }
    }

    fn block(&mut self, b: &mut Builder, depth: usize, mut acc: ValueId) -> ValueId {
        let from = self.kept.len();
        for _ in 0..1 + self.below(2) {
            acc = self.statement(b, depth, acc);
        }
        self.kept.truncate(from);
        acc
    }
}

fn program(seed: u64) -> Kernel {
    let mut b = Builder::new(format!("pipelines_{seed}"), [PROGRAMS, 1, 1]);
    let matrices = [b.param("a", Elem::Bf16, Mode::Read), b.param("c", Elem::Bf16, Mode::Read)];
    let y = b.param("y", Elem::F32, Mode::Write);
    let pid = b.program_id(0);
    let mut generator = Generator { state: seed, matrices, pid, rows: 0, counters: vec![], kept: vec![] };
    generator.below(2);
    generator.rows = [64, 64, 128, 16][generator.below(4)];
    let rows = generator.rows;
    let mut acc = b.full(0.0, &[rows, SIDE]);
    for _ in 0..2 + generator.below(2) {
        acc = generator.statement(&mut b, 0, acc);
    }
    let offset = b.scale_index(pid, rows * SIDE);
    b.store(y, offset, acc, &[(SIDE, None), (1, None)]);
    b.finish()
}

fn buffers(kernel: &Kernel) -> Vec<Buffer> {
    let lengths = [ROWS * STRIDES[0], ROWS * STRIDES[1], PROGRAMS * 128 * SIDE];
    let number = |i: usize| ((i * 7919 + i / 64 * 31 + 3) % 5) as f64 - 2.0;
    let buffer = |(param, length): (&linc_tile::Param, usize)| {
        Buffer::from_f64(param.elem, &(0..length).map(number).collect::<Vec<f64>>()).expect("numbers")
    };
    kernel.params.iter().zip(lengths).map(buffer).collect()
}

#[test]
fn loops_of_all_kinds_are_exact() {
    let Some(emulator) = Emulator::find() else { return };
    let count = if exhaustive() { 100 } else { 40 };
    let programs: Vec<Kernel> = (1000..1000 + count).map(program).collect();
    let generate = |kernel: &Kernel| -> CudaKernel {
        verify(kernel).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        // Without wgmma, lanes read tiles themselves.
        let arch = if kernel.name.ends_with(['0', '5']) { Arch::Sm90 } else { Arch::Sm90a };
        compile(kernel, &CudaCodegenOptions { arch, alignment: vec![64; 3] })
            .unwrap_or_else(|e| panic!("{e}\n{kernel}"))
    };
    let generated: Vec<CudaKernel> = programs.iter().map(generate).collect();
    let built = emulator.build(&generated).unwrap_or_else(|e| panic!("{e}"));
    let (mut copied, mut nested) = (0, 0);
    for (i, kernel) in programs.iter().enumerate() {
        let mut expected = buffers(kernel);
        run(kernel, &mut expected, &RunOptions::default()).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        let mut actual = buffers(kernel);
        let launch = LaunchOptions {
            alignment: vec![64; 3],
            ..LaunchOptions::ordered(Order::ALL[i % Order::ALL.len()])
        };
        let report = built
            .run(i, &kernel.params, &mut actual, &launch)
            .unwrap_or_else(|e| panic!("{e}\n{kernel}\n{}", generated[i].text));
        assert!(actual == expected, "{kernel}\n{}", generated[i].text);
        copied += usize::from(report.count(Operation::CopyTile) > 0);
        nested += usize::from(generated[i].text.contains("u32 turns[2]"));
    }
    let enough = 5 * copied > programs.len() && 25 * nested > programs.len();
    assert!(enough, "only {copied} with tensor copies, {nested} within each other");
}
