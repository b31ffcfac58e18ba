//! Prints the speed of the CPU device: dots of tiles, transcendentals, streaming kernels, attention and matmuls, one
//! line each. `cargo run --release -p linc-device --example speed [threads] [portable|avx2|avx512] [part of a name]`

use std::time::{Duration, Instant};

use linc_cases::operands::Operands;
use linc_device::Device;
use linc_device::cpu::{Cpu, CpuOptions, Level};
use linc_plan::{Action, Buffer, Category, DType, Gemm, Plan, Ref, Space, Step};
use linc_tile::library::attention::efficient::{efficient_attention_backward, efficient_attention_forward};
use linc_tile::library::attention::softmax::{
    Kept, Round, SoftmaxForwardSpec, softmax_attention_backward, softmax_attention_dkdv,
    softmax_attention_dq, softmax_attention_forward,
};
use linc_tile::library::attention::{HeadShape, HeadStrides};
use linc_tile::library::norm::{RmsNormGradSpec, RmsNormSpec, rms_norm, rms_norm_grad};
use linc_tile::library::optimizer::{AdamWKernelSpec, Decay, adamw};
use linc_tile::library::pointwise::{
    PointBinary, PointInput, PointOutput, PointStep, PointUnary, PointwiseSpec, pointwise,
};
use linc_tile::library::rope::{Positions, RopeSpec, rope};
use linc_tile::{Builder, Elem, Kernel, Mode, Unary};

/// Runs a one-step plan for a while and returns the best seconds of a run.
fn time(cpu: &mut Cpu, sizes: &[u64], action: Action, kernel: Option<&Kernel>) -> f64 {
    let mut end = 0;
    let mut buffers = vec![];
    for bytes in sizes {
        buffers.push(Buffer {
            name: String::new(),
            space: Space::Persistent,
            offset: end,
            bytes: *bytes,
            category: Category::Inputs,
            live: (0, 0),
        });
        end += bytes.next_multiple_of(linc_plan::ALIGN);
    }
    let entry = |k: &Kernel| linc_plan::Kernel {
        name: k.name.clone(),
        family: k.name.clone(),
        text: k.to_string(),
        grid: k.grid,
        written: k.written(),
    };
    let plan = Plan {
        name: "speed".into(),
        persistent_bytes: end,
        scratch_bytes: 0,
        buffers,
        kernels: kernel.map(entry).into_iter().collect(),
        steps: vec![Step { action, label: "speed".into(), flops: 1 << 40, bytes: 0 }],
        bindings: vec![],
        world: linc_plan::World::default(),
    };
    let arena = cpu.allocate(end).expect("memory");
    // Small positive numbers everywhere: nothing is subnormal, and the pages are there.
    let values: Vec<u8> =
        (0..end as usize / 4).flat_map(|i| (0.01f32 + (i % 97) as f32 * 0.01).to_le_bytes()).collect();
    cpu.write(arena, 0, &values).expect("inside");
    let program = cpu.load(&plan, arena, end).expect("a valid plan");
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    let mut runs = 0;
    while runs < 5 || begin.elapsed() < Duration::from_millis(1000) {
        let start = Instant::now();
        cpu.launch(program, 0..1).expect("one step");
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn launch(cpu: &mut Cpu, kernel: &Kernel, sizes: &[usize]) -> f64 {
    let bytes: Vec<u64> = sizes.iter().map(|n| 4 * *n as u64).collect();
    let args = (0..sizes.len()).map(|buffer| Ref { buffer, offset: 0 }).collect();
    time(cpu, &bytes, Action::Launch { kernel: 0, args }, Some(kernel))
}

/// The device, and which lines to print.
struct Bench {
    cpu: Cpu,
    only: String,
}

impl Bench {
    /// Prints the speed of something that takes `flops` operations and moves `bytes`.
    fn line(&mut self, name: &str, flops: f64, bytes: f64, seconds: impl FnOnce(&mut Cpu) -> f64) {
        if !name.contains(&self.only) {
            return;
        }
        let seconds = seconds(&mut self.cpu);
        let (gflops, gb) = (flops / seconds / 1e9, bytes / seconds / 1e9);
        println!("{name:40} {:10.1} us {gflops:8.1} GFLOP/s {gb:7.1} GB/s", seconds * 1e6);
    }
}

/// `rounds` dots of one tile pair that stays in the first-level cache.
fn dots(m: usize, n: usize, k: usize, trans_a: bool, trans_b: bool, rounds: usize) -> Kernel {
    let mut b = Builder::new("dots", [1, 1, 1]);
    let pa = b.param("a", Elem::F32, Mode::Read);
    let pb = b.param("b", Elem::F32, Mode::Read);
    let pc = b.param("c", Elem::F32, Mode::Write);
    let zero = b.index(0);
    let sa = if trans_a { [k, m] } else { [m, k] };
    let sb = if trans_b { [n, k] } else { [k, n] };
    let ta = b.load(pa, zero, &sa, &[(sa[1], None), (1, None)]);
    let tb = b.load(pb, zero, &sb, &[(sb[1], None), (1, None)]);
    let start = b.full(0.0, &[m, n]);
    let end = b.index(rounds);
    let acc =
        b.for_loop(zero, end, 1, &[start], |b, _, acc| vec![b.dot(ta, trans_a, tb, trans_b, Some(acc[0]))]);
    b.store(pc, zero, acc[0], &[(n, None), (1, None)]);
    b.finish()
}

/// A function over one tile, many times.
fn unary(op: Unary, n: usize, rounds: usize) -> Kernel {
    let mut b = Builder::new("unary", [1, 1, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let y = b.param("y", Elem::F32, Mode::Write);
    let (zero, end) = (b.index(0), b.index(rounds));
    let tile = b.load(x, zero, &[n], &[(1, None)]);
    let last = b.for_loop(zero, end, 1, &[tile], |b, _, _| vec![b.unary(op, tile)]);
    b.store(y, zero, last[0], &[(1, None)]);
    b.finish()
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let wanted = args.next();
    let level = Level::available().into_iter().find(|l| Some(l.name()) == wanted.as_deref());
    let mut cpu = Cpu::new(CpuOptions { threads: Some(threads), level }).expect("a CPU");
    println!("{}, peak {:.1} GFLOP/s", cpu.describe(), cpu.peak_flops() / 1e9);
    let mut bench = Bench { cpu, only: args.next().unwrap_or_default() };
    tiles(&mut bench);
    streams(&mut bench);
    attention(&mut bench);
    matmuls(&mut bench);
}

fn tiles(bench: &mut Bench) {
    for (m, n, k, ta, tb) in [
        (64, 64, 64, false, false),
        (64, 64, 64, false, true),
        (64, 64, 64, true, false),
        (32, 64, 64, false, false),
        (64, 32, 64, false, true),
        (128, 128, 128, false, false),
        (16, 16, 16, false, false),
    ] {
        let rounds = 1000;
        bench.line(
            &format!("dot {m}x{n}x{k} {ta} {tb} (x{rounds})"),
            (2 * m * n * k * rounds) as f64,
            0.0,
            |cpu| launch(cpu, &dots(m, n, k, ta, tb, rounds), &[m * k, k * n, m * n]),
        );
    }
    for op in [Unary::Exp, Unary::Exp2, Unary::Log, Unary::Sigmoid, Unary::Tanh] {
        let (n, rounds) = (4096, 1000);
        bench.line(&format!("{op:?} of {n} (x{rounds})"), 0.0, (8 * n * rounds) as f64, |cpu| {
            launch(cpu, &unary(op, n, rounds), &[n, n])
        });
    }
}

fn streams(bench: &mut Bench) {
    let (rows, d) = (2048, 512);
    let numel = rows * 1536;
    let dense = || PointInput { elem: Elem::F32, row_stride: 1536, col_stride: 1 };
    let output = |step| PointOutput { step, elem: Elem::F32, row_stride: 1536 };
    let add = PointwiseSpec {
        rows,
        cols: 1536,
        inputs: vec![dense(), dense()],
        steps: vec![PointStep::Input(0), PointStep::Input(1), PointStep::Binary(PointBinary::Add, 0, 1)],
        outputs: vec![output(2)],
        block: 4096,
    };
    bench.line("add 2048x1536", 0.0, (12 * numel) as f64, |cpu| launch(cpu, &pointwise(&add), &[numel; 3]));
    let gate = PointwiseSpec {
        steps: vec![
            PointStep::Input(0),
            PointStep::Unary(PointUnary::Silu, 0),
            PointStep::Input(1),
            PointStep::Binary(PointBinary::Mul, 1, 2),
        ],
        outputs: vec![output(3)],
        ..add
    };
    bench.line("silu(a)*b 2048x1536", 0.0, (12 * numel) as f64, |cpu| {
        launch(cpu, &pointwise(&gate), &[numel; 3])
    });
    let (x, w, y) = (Elem::F32, Elem::F32, Elem::F32);
    let norm = RmsNormSpec { rows, d, eps: 1e-5, x_stride: d, x, w, y, residual: false };
    bench.line("rms_norm 2048x512", 0.0, (8 * rows * d) as f64, |cpu| {
        launch(cpu, &rms_norm(&norm), &[rows * d, d, rows * d])
    });
    let grad =
        RmsNormGradSpec { rows, d, eps: 1e-5, blocks: 16, x_stride: d, x, w, dy: x, dx: x, residual: true };
    let sizes = [rows * d, d, rows * d, rows * d, rows * d, 16 * d];
    bench.line("rms_norm_grad 2048x512 (+residual)", 0.0, (16 * rows * d) as f64, |cpu| {
        launch(cpu, &rms_norm_grad(&grad), &sizes)
    });
    let strides = [2048 * 512, 512, 64];
    let spec = RopeSpec {
        batch: 1,
        seq: 2048,
        heads: 8,
        dim: 64,
        x: Elem::F32,
        x_strides: strides,
        y: Elem::F32,
        y_strides: strides,
        table_len: 2048,
        block: 32,
        positions: Positions::FromZero,
        inverse: false,
    };
    bench.line("rope 2048x8x64", 0.0, (8 * rows * d) as f64, |cpu| {
        launch(cpu, &rope(&spec), &[rows * d, 2048 * 64, rows * d])
    });
    let numel = 4 << 20;
    let spec = AdamWKernelSpec {
        numel,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        decay: Decay::Decoupled,
        g: Elem::F32,
        guarded: false,
    };
    bench.line("adamw 4M", 0.0, (28 * numel) as f64, |cpu| {
        launch(cpu, &adamw(&spec), &[numel, numel, numel, numel, 16, 16, 16])
    });
}

fn attention(bench: &mut Bench) {
    let elem = Elem::F32;
    // One head alone is over before another process gets the processor.
    for (seq, batch, heads, kv_heads) in [(512, 1, 1, 1), (1024, 1, 1, 1), (512, 4, 8, 4), (2048, 1, 8, 4)] {
        let shape = HeadShape { batch, seq, heads, kv_heads, head_dim: 64 };
        let (q_len, kv_len, rows) = (batch * seq * 512, batch * seq * 256, batch * seq * heads);
        let (query, key) = (HeadStrides::contiguous(seq, 8, 64), HeadStrides::contiguous(seq, 4, 64));
        let operands = Operands { elem, shape, query, key };
        let spec = SoftmaxForwardSpec { kept: Kept::Right, ..operands.softmax(true, 0.125, (64, 64)) };
        let sizes = [q_len, kv_len, kv_len, q_len, rows];
        let flops = 2.0 * (batch * heads * seq * seq * 64) as f64;
        let size_of = format!("{batch}x{seq}x{heads}");
        bench.line(&format!("softmax forward {size_of}"), flops, 0.0, |cpu| {
            launch(cpu, &softmax_attention_forward(&spec), &sizes)
        });
        let spec = operands.softmax_gradients(&spec);
        let kernel = softmax_attention_dq(&spec);
        let size = |name: &str| match name {
            "q" | "out" | "dout" | "dq" => q_len,
            "k" | "v" | "dk" | "dv" => kv_len,
            _ => rows,
        };
        let sizes = |kernel: &Kernel| kernel.params.iter().map(|p| size(&p.name)).collect::<Vec<_>>();
        bench.line(&format!("softmax dq {size_of}"), flops * 1.5, 0.0, |cpu| {
            launch(cpu, &kernel, &sizes(&kernel))
        });
        let kernel = softmax_attention_dkdv(&spec);
        bench.line(&format!("softmax dkdv {size_of}"), flops * 2.0, 0.0, |cpu| {
            launch(cpu, &kernel, &sizes(&kernel))
        });
        let kernel = softmax_attention_backward(&spec, Round { ranges: 1, round: 0 });
        bench.line(&format!("softmax backward {size_of}"), flops * 2.5, 0.0, |cpu| {
            launch(cpu, &kernel, &sizes(&kernel))
        });

        let chunk = 64;
        let spec = operands.linear(chunk, 1.0);
        let states = batch * kv_heads * seq.div_ceil(chunk);
        let (ell, state) = (states * 64, states * 64 * 64);
        bench.line(&format!("linear forward {size_of}"), 0.0, 0.0, |cpu| {
            launch(cpu, &efficient_attention_forward(&spec), &[q_len, kv_len, kv_len, q_len, ell, state])
        });
        let spec = operands.linear_gradients(&spec, false);
        let sizes = [q_len, kv_len, kv_len, ell, state, q_len, q_len, kv_len, kv_len];
        bench.line(&format!("linear backward {size_of}"), 0.0, 0.0, |cpu| {
            launch(cpu, &efficient_attention_backward(&spec), &sizes)
        });
    }
}

fn matmuls(bench: &mut Bench) {
    for (m, n, k, trans_a, trans_b) in [
        (2048, 512, 512, false, true),
        (2048, 1024, 512, false, true),
        (2048, 3072, 512, false, true),
        (2048, 512, 1536, false, true),
        (2048, 512, 3072, false, false),
        (3072, 512, 2048, true, false),
        (512, 4096, 512, false, true),
        (4096, 512, 512, true, false),
    ] {
        for (dtype, c_dtype, types) in [
            (DType::F32, DType::F32, ""),
            (DType::Bf16, DType::Bf16, " bf16"),
            (DType::Bf16, DType::F32, " bf16 to f32"),
        ] {
            let gemm = Gemm {
                m,
                n,
                k,
                a: Ref { buffer: 0, offset: 0 },
                a_strides: if trans_a { (1, m) } else { (k, 1) },
                b: Ref { buffer: 1, offset: 0 },
                b_strides: if trans_b { (1, k) } else { (n, 1) },
                c: Ref { buffer: 2, offset: 0 },
                c_strides: (n, 1),
                accumulate: false,
                dtype,
                c_dtype,
            };
            let sizes = [m * k, k * n, m * n].map(|len| 4 * len as u64);
            let letter = |trans| if trans { 't' } else { 'n' };
            let flops = 2.0 * (m * n * k) as f64;
            let name = format!("matmul {m}x{n}x{k} {}{}{types}", letter(trans_a), letter(trans_b));
            bench.line(&name, flops, 0.0, |cpu| time(cpu, &sizes, Action::Gemm(gemm), None));
        }
    }
}
