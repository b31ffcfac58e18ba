//! Matmuls of the device, which on a GPU are a library's, against plain loops: every layout that plans have.

use linc_cases::Random;
use linc_cases::launch::{bytes, from_bytes};
use linc_device::{Device, DeviceError};
use linc_plan::{Action, Buffer, Category, DType, Gemm, Plan, Ref, Space, Step};
use linc_tile::Elem;
use linc_tile::interp::Buffer as Memory;

use crate::check::Outcome;

/// Rows, columns, inner size.
const SIZES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (8, 16, 8),
    (5, 7, 33),
    (64, 64, 64),
    (65, 33, 130),
    (257, 129, 64),
    (256, 512, 1024),
    (400, 600, 100),
];

/// Transposed operands, accumulation, types of operands and result, transposed result.
const KINDS: [(bool, bool, bool, [DType; 2], bool); 16] = {
    let (f32, narrow, sums) = ([DType::F32; 2], [DType::Bf16; 2], [DType::Bf16, DType::F32]);
    let (half, half_sums) = ([DType::F16; 2], [DType::F16, DType::F32]);
    [
        (false, false, false, f32, false),
        (true, false, true, f32, false),
        (false, true, false, f32, false),
        (true, true, true, f32, false),
        (false, true, false, f32, true),
        (false, false, false, narrow, false),
        (false, true, false, narrow, false),
        (true, false, false, narrow, false),
        (true, false, false, narrow, true),
        (true, false, true, sums, false),
        (true, true, false, sums, false),
        (false, true, true, sums, true),
        (false, true, false, half, false),
        (true, false, false, half, true),
        (true, false, true, half_sums, false),
        (false, true, true, half_sums, true),
    ]
};

/// Runs every kind at every size, twice.
///
/// # Errors
/// What the device refuses: then nothing after it can be believed.
pub fn run(device: &mut dyn Device, every: usize) -> Result<Outcome, DeviceError> {
    let mut outcome = Outcome::default();
    let mut random = Random::new(3);
    let all = SIZES.iter().flat_map(|size| KINDS.iter().map(move |kind| (*size, *kind)));
    for ((m, n, k), (trans_a, trans_b, accumulate, [dtype, c_dtype], trans_c)) in all.step_by(every) {
        // Numbers that every type holds: bf16 that are not so small that f16 has fewer bits for them.
        let mut number = || {
            let x = random.normal() as f32;
            if x.abs() < 1e-3 { 0.0 } else { f32::from_bits(x.to_bits() & 0xffff_0000) }
        };
        let mut draw = |len: usize| -> Vec<f32> { (0..len).map(|_| number()).collect() };
        let operands = [(draw(m * k), dtype), (draw(k * n), dtype), (draw(m * n), c_dtype)];
        let mut at = 0;
        let mut buffers = vec![];
        for (values, dtype) in &operands {
            let bytes = values.len() as u64 * dtype.bytes();
            buffers.push(buffer(at, bytes));
            at += bytes.next_multiple_of(64);
        }
        let place = |buffer| Ref { buffer, offset: 0 };
        let c_strides = if trans_c { (1, m) } else { (n, 1) };
        let gemm = Gemm {
            m,
            n,
            k,
            a: place(0),
            a_strides: if trans_a { (1, m) } else { (k, 1) },
            b: place(1),
            b_strides: if trans_b { (1, k) } else { (n, 1) },
            c: place(2),
            c_strides,
            accumulate,
            dtype,
            c_dtype,
        };
        let name =
            format!("matmul {m}x{n}x{k} {dtype:?} to {c_dtype:?}, transposed {trans_a} {trans_b} {trans_c}");
        outcome.cases += 1;
        let plan = Plan {
            name: name.clone(),
            persistent_bytes: at,
            scratch_bytes: 0,
            buffers,
            kernels: vec![],
            steps: vec![Step {
                action: Action::Gemm(gemm.clone()),
                label: name.as_str().into(),
                flops: 1 << 30,
                bytes: 0,
            }],
            bindings: vec![],
            world: linc_plan::World::default(),
        };
        let results = [multiply(device, &plan, &operands)?, multiply(device, &plan, &operands)?];
        if results[0].iter().map(|x| x.to_bits()).ne(results[1].iter().map(|x| x.to_bits())) {
            outcome.failures.push(format!("{name}: two runs differ"));
        }
        outcome.failures.extend(compare(&gemm, &operands, &results[0]).map(|what| format!("{name}: {what}")));
    }
    Ok(outcome)
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

fn multiply(
    device: &mut dyn Device,
    plan: &Plan,
    operands: &[(Vec<f32>, DType)],
) -> Result<Vec<f32>, DeviceError> {
    let arena = device.allocate(plan.persistent_bytes)?;
    let program = device.load(plan, arena, plan.persistent_bytes)?;
    for ((values, dtype), buffer) in operands.iter().zip(&plan.buffers) {
        let values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        device.write(arena, buffer.offset, &bytes(&stored(*dtype, &values)))?;
    }
    device.launch(program, 0..1)?;
    device.synchronize()?;
    let mut result = vec![0; plan.buffers[2].bytes as usize];
    device.read(arena, plan.buffers[2].offset, &mut result)?;
    let found = from_bytes(&stored(operands[2].1, &[]), &result);
    Ok(found.to_f64().iter().map(|x| *x as f32).collect())
}

/// Numbers as a matrix of that type.
fn stored(dtype: DType, values: &[f64]) -> Memory {
    let elem = match dtype {
        DType::F32 => Elem::F32,
        DType::Bf16 => Elem::Bf16,
        DType::F16 => Elem::F16,
        DType::I32 => unreachable!("no kind of matmul has integers"),
    };
    Memory::from_f64(elem, values).expect("a float type")
}

/// The first element that is too far from the sum in double precision.
fn compare(g: &Gemm, operands: &[(Vec<f32>, DType)], found: &[f32]) -> Option<String> {
    let [(a, _), (b, _), (c, _)] = operands else { return Some("has three operands".into()) };
    for i in 0..g.m {
        for j in 0..g.n {
            let at = i * g.c_strides.0 + j * g.c_strides.1;
            let mut sum = if g.accumulate { f64::from(c[at]) } else { 0.0 };
            for p in 0..g.k {
                let left = f64::from(a[i * g.a_strides.0 + p * g.a_strides.1]);
                sum += left * f64::from(b[p * g.b_strides.0 + j * g.b_strides.1]);
            }
            // Sums are in f32, in any order; a narrow result is rounded once, to eight or eleven bits.
            let rounding = match g.c_dtype {
                DType::Bf16 => sum.abs() / 256.0,
                DType::F16 => sum.abs() / 2048.0,
                DType::F32 | DType::I32 => 0.0,
            };
            let allowed = 2e-5 * (g.k as f64).sqrt() + 1e-6 + rounding;
            let off = (f64::from(found[at]) - sum).abs();
            if off > allowed || off.is_nan() {
                return Some(format!("({i}, {j}) is {}, expected {sum} within {allowed:e}", found[at]));
            }
        }
    }
    None
}
