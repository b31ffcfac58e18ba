//! The device interface: matmuls against plain loops, copies, and what is refused.

use std::time::Duration;

use linc_cases::Random;
use linc_device::cpu::{Cpu, CpuOptions, Level};
use linc_device::{Device, DeviceError};
use linc_plan::{Action, Buffer, Category, DType, Gemm, Kernel, Plan, Ref, Space, Step};

fn cpu(threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), level: None }).expect("a CPU")
}

fn buffer(offset: u64, bytes: u64) -> Buffer {
    Buffer {
        name: format!("at{offset}"),
        space: Space::Persistent,
        offset,
        bytes,
        category: Category::Inputs,
        live: (0, 0),
    }
}

fn plan(buffers: Vec<Buffer>, actions: Vec<Action>) -> Plan {
    let steps =
        actions.into_iter().map(|action| Step { action, label: "step".into(), flops: 1 << 30, bytes: 0 });
    Plan {
        name: "test".into(),
        persistent_bytes: buffers.iter().map(|b| b.offset + b.bytes).max().unwrap_or(0).next_multiple_of(64),
        scratch_bytes: 0,
        steps: steps.collect(),
        buffers,
        kernels: vec![],
        bindings: vec![],
        world: linc_plan::World::default(),
    }
}

fn at(buffer: usize) -> Ref {
    Ref { buffer, offset: 0 }
}

fn to_bytes(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect(),
        DType::F32 | DType::I32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

fn read(cpu: &Cpu, arena: linc_device::Arena, offset: u64, count: usize, dtype: DType) -> Vec<f32> {
    let mut bytes = vec![0; count * dtype.bytes() as usize];
    cpu.read(arena, offset, &mut bytes).expect("inside");
    let narrow = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    match dtype {
        DType::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        DType::Bf16 => bytes.as_chunks().0.iter().map(narrow).collect(),
        DType::F32 | DType::I32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

/// Where the elements of a result lie.
#[derive(Clone, Copy, PartialEq)]
enum Placed {
    Rows,
    Columns,
    /// Neither rows nor columns are contiguous.
    Apart,
}

/// Transposed operands, accumulation, types of operands and result, layout of the result.
const CASES: [(bool, bool, bool, [DType; 2], Placed); 24] = {
    use Placed::{Apart, Columns, Rows};
    let (f32, narrow, sums) = ([DType::F32; 2], [DType::Bf16; 2], [DType::Bf16, DType::F32]);
    let (half, half_sums) = ([DType::F16; 2], [DType::F16, DType::F32]);
    [
        (false, false, false, f32, Rows),
        (true, false, true, f32, Rows),
        (false, true, false, f32, Rows),
        (true, true, true, f32, Rows),
        (false, false, true, f32, Columns),
        (true, false, false, f32, Columns),
        (false, true, true, f32, Columns),
        (true, true, false, f32, Columns),
        (false, false, false, f32, Apart),
        (true, false, true, f32, Apart),
        (false, true, true, f32, Apart),
        (true, true, false, f32, Apart),
        (false, false, false, narrow, Rows),
        (false, true, false, narrow, Rows),
        (true, false, false, narrow, Columns),
        (true, true, false, narrow, Apart),
        (true, false, true, sums, Rows),
        (true, true, false, sums, Rows),
        (false, true, true, sums, Columns),
        (false, false, true, sums, Apart),
        (false, true, false, half, Rows),
        (true, false, false, half, Columns),
        (true, false, true, half_sums, Rows),
        (false, true, true, half_sums, Columns),
    ]
};

#[test]
fn matmuls_equal_plain_loops() {
    let mut random = Random::new(9);
    let sizes = [
        (1, 1, 1),
        (3, 5, 7),
        (4, 70, 33),
        (5, 16, 1),
        (65, 33, 130),
        (257, 129, 64),
        (1, 300, 200),
        (400, 600, 100),
        (101, 70, 600),
        (7, 41, 130),
        (16, 50, 900),
        (530, 1030, 20),
    ];
    for (m, n, k) in sizes {
        for (trans_a, trans_b, accumulate, [dtype, c_dtype], layout) in CASES {
            // Numbers that every type holds: bf16 that are not so small that f16 has fewer bits for them.
            let mut values = |len: usize| {
                let number = |x: f64| {
                    if x.abs() < 1e-3 { 0.0 } else { f32::from_bits((x as f32).to_bits() & 0xffff_0000) }
                };
                (0..len).map(|_| number(random.normal())).collect::<Vec<f32>>()
            };
            let c_strides = match layout {
                Placed::Rows => (n, 1),
                Placed::Columns => (1, m),
                Placed::Apart => (2 * n + 3, 2),
            };
            let c_len = (m - 1) * c_strides.0 + (n - 1) * c_strides.1 + 1;
            let (a, b, c) = (values(m * k), values(k * n), values(c_len));
            let a_strides = if trans_a { (1, m) } else { (k, 1) };
            let b_strides = if trans_b { (1, k) } else { (n, 1) };
            let typed = [(m * k, dtype), (k * n, dtype), (c_len, c_dtype)];
            let sizes = typed.map(|(len, dtype)| len as u64 * dtype.bytes());
            let b_at = sizes[0].next_multiple_of(64);
            let c_at = b_at + sizes[1].next_multiple_of(64);
            let gemm = Gemm {
                m,
                n,
                k,
                a: at(0),
                a_strides,
                b: at(1),
                b_strides,
                c: at(2),
                c_strides,
                accumulate,
                dtype,
                c_dtype,
            };
            let buffers = vec![buffer(0, sizes[0]), buffer(b_at, sizes[1]), buffer(c_at, sizes[2])];
            let plan = plan(buffers, vec![Action::Gemm(gemm)]);
            let mut results = vec![];
            for (level, threads) in Level::available().into_iter().flat_map(|l| [(l, 1), (l, 2), (l, 3)]) {
                let options = CpuOptions { threads: Some(threads), level: Some(level) };
                let mut cpu = Cpu::new(options).expect("an available level");
                let arena = cpu.allocate(plan.persistent_bytes).expect("memory");
                let program = cpu.load(&plan, arena, plan.persistent_bytes).expect("a valid plan");
                for (offset, data, dtype) in [(0, &a, dtype), (b_at, &b, dtype), (c_at, &c, c_dtype)] {
                    cpu.write(arena, offset, &to_bytes(data, dtype)).expect("inside");
                }
                cpu.launch(program, 0..1).expect("one step");
                results.push(read(&cpu, arena, c_at, c_len, c_dtype));
            }
            for level in results.chunks(3) {
                assert!(level[0] == level[1] && level[0] == level[2], "threads change bits");
            }
            if layout == Placed::Apart {
                // What lies between is nobody's.
                let between = |at: usize| at % c_strides.0 % 2 == 1 || at % c_strides.0 >= 2 * n;
                let kept = |result: &Vec<f32>| (0..c_len).all(|at| !between(at) || result[at] == c[at]);
                assert!(results.iter().all(kept), "{m}x{n}x{k}: something is written between the elements");
            }
            for i in 0..m {
                for j in 0..n {
                    let at = i * c_strides.0 + j * c_strides.1;
                    let mut sum = if accumulate { f64::from(c[at]) } else { 0.0 };
                    for p in 0..k {
                        let left = a[i * a_strides.0 + p * a_strides.1];
                        sum += f64::from(left) * f64::from(b[p * b_strides.0 + j * b_strides.1]);
                    }
                    for result in &results {
                        let off = (f64::from(result[at]) - sum).abs();
                        // One rounding of the sum, to eight or eleven bits.
                        let rounding = match c_dtype {
                            DType::Bf16 => sum.abs() / 256.0,
                            DType::F16 => sum.abs() / 2048.0,
                            DType::F32 | DType::I32 => 0.0,
                        };
                        assert!(
                            off < 1e-5 * (k as f64).sqrt() + 1e-6 + rounding,
                            "{m}x{n}x{k}: ({i}, {j}) is off by {off}"
                        );
                    }
                }
            }
        }
    }
}

/// A row of few has the bits that it has alone, whichever way the rows are worked off: sequences that are decoded together are
/// continued as each would be by itself.
#[test]
fn rows_are_the_same_alone_and_among_others() {
    let (n, most) = (50, 16);
    let mut random = Random::new(3);
    for (k, dtype) in [(100, DType::F32), (1500, DType::F32), (1500, DType::Bf16), (77, DType::F16)] {
        let mut values = |len: usize| (0..len).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        let [a, b] = [values(most * k), values(k * n)].map(|values| to_bytes(&values, dtype));
        let b_at = (a.len() as u64).next_multiple_of(64);
        let c_at = b_at + (b.len() as u64).next_multiple_of(64);
        let c_bytes = (most * n) as u64 * 4;
        for level in Level::available() {
            let product = |m: usize| {
                let gemm = Gemm {
                    m,
                    n,
                    k,
                    a: at(0),
                    a_strides: (k, 1),
                    b: at(1),
                    b_strides: (1, k),
                    c: at(2),
                    c_strides: (n, 1),
                    accumulate: false,
                    dtype,
                    c_dtype: DType::F32,
                };
                let buffers =
                    vec![buffer(0, a.len() as u64), buffer(b_at, b.len() as u64), buffer(c_at, c_bytes)];
                let plan = plan(buffers, vec![Action::Gemm(gemm)]);
                let options = CpuOptions { threads: Some(2), level: Some(level) };
                let mut cpu = Cpu::new(options).expect("an available level");
                let arena = cpu.allocate(plan.persistent_bytes).expect("memory");
                let program = cpu.load(&plan, arena, plan.persistent_bytes).expect("a valid plan");
                cpu.write(arena, 0, &a).expect("inside");
                cpu.write(arena, b_at, &b).expect("inside");
                cpu.launch(program, 0..1).expect("one step");
                read(&cpu, arena, c_at, m * n, DType::F32)
            };
            let all = product(most);
            for m in 1..most {
                assert!(product(m) == all[..m * n], "{m} of {most} rows of {k} {dtype:?}, {level:?}");
            }
        }
    }
}

#[test]
fn copies_copy_and_profiles_time() {
    let len = (3 << 20) + 100;
    let plan = plan(
        vec![buffer(0, len), buffer(len.next_multiple_of(64), len)],
        vec![Action::Copy { from: at(0), to: at(1), bytes: len }],
    );
    let mut cpu = cpu(2);
    let arena = cpu.allocate(plan.persistent_bytes).expect("memory");
    let program = cpu.load(&plan, arena, plan.persistent_bytes).expect("a valid plan");
    let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    cpu.write(arena, 0, &data[..100]).expect("inside");
    let memory = cpu.host_memory(arena).expect("an arena").expect("a CPU reaches its own memory");
    assert_eq!(memory.len() as u64, plan.persistent_bytes);
    memory[100..data.len()].copy_from_slice(&data[100..]);
    let mut times = [Duration::ZERO];
    cpu.profile(program, &mut times).expect("one step");
    assert!(times[0] > Duration::ZERO);
    let mut copied = vec![0; data.len()];
    cpu.read(arena, len.next_multiple_of(64), &mut copied).expect("inside");
    assert!(copied == data);
    assert!(cpu.profile(program, &mut []).is_err());
    assert!(matches!(cpu.launch(program, 0..2), Err(DeviceError::OutOfBounds { to: 2, len: 1, .. })));
}

#[test]
fn bad_plans_are_refused() {
    let mut cpu = cpu(1);
    let arena = cpu.allocate(128).expect("memory");
    let refused = |cpu: &mut Cpu, plan: &Plan, scratch: u64| match cpu.load(plan, arena, scratch) {
        Ok(_) => panic!("the plan was accepted"),
        Err(error) => error.to_string(),
    };
    let good = plan(vec![buffer(0, 128)], vec![]);
    assert!(refused(&mut cpu, &good, 64).contains("do not fit"));
    let large = plan(vec![buffer(0, 256)], vec![]);
    assert!(refused(&mut cpu, &large, 256).contains("do not fit an arena of 128"));
    let outside = plan(vec![buffer(0, 64)], vec![Action::Copy { from: at(0), to: at(1), bytes: 1 }]);
    assert!(refused(&mut cpu, &outside, 64).contains("there is no buffer 1"));

    let mut launch = plan(vec![buffer(0, 64)], vec![Action::Launch { kernel: 0, args: vec![at(0)] }]);
    launch.kernels = vec![Kernel {
        name: "k".into(),
        family: "k".into(),
        text: "kernel k(x: read f32) grid(1, 1, 1) {\n".into(),
        grid: [1; 3],
        written: vec![false],
    }];
    assert!(matches!(cpu.load(&launch, arena, 64), Err(DeviceError::Kernel { .. })));
    launch.kernels[0].text = "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {\n}\n".into();
    assert!(refused(&mut cpu, &launch, 64).contains("1 arguments for 2 parameters"));
    launch.kernels[0].text = "kernel k(x: read f32) grid(2, 1, 1) {\n}\n".into();
    assert!(refused(&mut cpu, &launch, 64).contains("the plan's grid is [1, 1, 1]"));
    launch.kernels[0].text = "kernel k(x: read f32) grid(1, 1, 1) {\n}\n".into();
    let program = cpu.load(&launch, arena, 64).expect("an empty kernel");
    cpu.launch(program, 0..1).expect("nothing to do");
}

#[test]
fn bad_options_are_refused() {
    let zero = Cpu::new(CpuOptions { threads: Some(0), level: None });
    assert!(zero.is_err_and(|e| e.to_string().contains("at least 1")));
    for absurd in [linc_device::threads::MOST + 1, 1_000_000_000_000_000_000, usize::MAX] {
        let many = Cpu::new(CpuOptions { threads: Some(absurd), level: None });
        assert!(many.is_err_and(|e| e.to_string().contains("at most")));
    }
    for level in [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Bf16] {
        let made = Cpu::new(CpuOptions { threads: Some(1), level: Some(level) });
        assert_eq!(made.is_ok(), Level::available().contains(&level));
    }
    assert!(matches!(cpu(1).allocate(1 << 60), Err(DeviceError::OutOfMemory { .. })));
}
