//! What the kernels of a plan come to on a GPU, without one: resources, occupancy, and the times that its limits allow.

use std::collections::BTreeMap;

use linc_codegen_cuda::{Arch, CudaKernel};
use linc_plan::{Action, DType, Plan};
use serde::Serialize;

use super::cache::Cache;
use super::gpus::{self, Ceilings, Target};
use super::kernels::{self, Code};
use super::nvrtc::Nvrtc;
use super::resources::Resources;
use crate::{DeviceError, threads};

/// One kernel on one architecture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelReport {
    /// The kernel's name in the plan.
    pub name: String,
    /// Launches in one run of the program.
    pub launches: u64,
    /// Blocks of a launch.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// What its machine code takes; nothing if it was not compiled.
    pub resources: Option<Resources>,
    /// Blocks that run on one multiprocessor at once; 0 if it does not fit. Nothing if it was not compiled.
    pub blocks_per_sm: Option<u32>,
    /// Their warps.
    pub warps_per_sm: Option<u32>,
    /// Warps that a multiprocessor holds at most.
    pub max_warps_per_sm: u32,
    /// Times of all launches in one run. Arithmetic is as the tile program has it: the slowest of products (of the matrix
    /// units where they are of bf16), other operations on f32, and functions such as exp.
    #[serde(flatten)]
    pub limits: Limits,
}

/// What one run takes at least on the largest GPU of an architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Seconds if memory were the only limit.
    pub memory_seconds: f64,
    /// Seconds if arithmetic were.
    pub compute_seconds: f64,
}

impl Limits {
    /// Seconds at the tighter of the two.
    pub fn seconds(&self) -> f64 {
        self.memory_seconds.max(self.compute_seconds)
    }
}

/// Matmuls of one shape, which the library does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MatmulReport {
    /// [`linc_plan::Gemm::name`]
    pub name: String,
    /// How many there are in one run of the program.
    pub launches: u64,
    /// Times of all of them.
    #[serde(flatten)]
    pub limits: Limits,
}

/// All kernels and matmuls of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspection {
    /// One row a kernel, in the order of the plan.
    pub rows: Vec<KernelReport>,
    /// One row a shape, slowest first.
    pub matmuls: Vec<MatmulReport>,
    /// The MFU, of operations as they are, if all kernels and matmuls ran at their limits: operations of one run by those
    /// that the matrix units, or for f32 the lanes, could do in that time. Nothing where there is no matmul.
    pub mfu_limit: Option<f64>,
    /// `NAME.cubin` and `NAME.ptx` with their contents, if they were asked for and the kernels were compiled.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Translates the kernels of a plan and, with NVRTC, compiles them; `progress` hears how many of how many are compiled.
///
/// # Errors
/// [`DeviceError::Kernel`] for one that cannot be translated or compiled.
pub fn inspect(
    plan: &Plan,
    arch: Arch,
    nvrtc: Option<&Nvrtc>,
    cache: &Cache,
    files: bool,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Inspection, DeviceError> {
    let kernels: Vec<CudaKernel> =
        (0..plan.kernels.len()).map(|i| kernels::translate(plan, i, arch)).collect::<Result<_, _>>()?;
    let target = Target::of(arch);
    let mut inspection = Inspection::default();
    let mut resources = vec![None; kernels.len()];
    if let Some(nvrtc) = nvrtc {
        let count = threads::available();
        let (codes, _) = kernels::compile(&kernels, nvrtc, cache, &target, count, progress)?;
        for (resources, code) in resources.iter_mut().zip(&codes) {
            *resources = Some(code.cubin.resources);
        }
        if files {
            let compiled: Vec<(&CudaKernel, Code)> = kernels.iter().zip(codes).collect();
            let ptx = |(kernel, code): &(&CudaKernel, Code)| {
                nvrtc.ptx(&kernel.name, &kernel.source(code.blocks), &target.real)
            };
            let texts = threads::try_map(count, &compiled, &ptx, progress)?;
            for ((kernel, code), text) in compiled.into_iter().zip(texts) {
                inspection.files.push((format!("{}.cubin", kernel.name), code.cubin.bytes));
                inspection.files.push((format!("{}.ptx", kernel.name), text.into_bytes()));
            }
        }
    }
    let mut rows = vec![];
    for (index, (kernel, resources)) in kernels.iter().zip(resources).enumerate() {
        let program = linc_tile::parse(&plan.kernels[index].text)
            .map_err(|e| DeviceError::Kernel { kernel: kernel.name.clone(), message: e.to_string() })?;
        let (launches, bytes) = launches_and_bytes(plan, index);
        let seconds = compute_seconds(&linc_tile::cost::cost(&program), multiplies_narrow(&program), arch);
        rows.push(row((launches, bytes, launches as f64 * seconds), kernel, resources, arch));
    }
    inspection.rows = rows;
    inspection.matmuls = matmuls(plan, arch);
    inspection.mfu_limit = mfu_limit(plan, &inspection, arch);
    Ok(inspection)
}

impl Inspection {
    /// Seconds of one run in which every kernel and every matmul is at its limit, and nothing stays in a cache between
    /// two of them.
    pub fn limit_seconds(&self) -> f64 {
        self.rows.iter().map(|row| row.limits.seconds()).sum::<f64>() + self.matmul_seconds()
    }

    /// The part of matmuls in it.
    pub fn matmul_seconds(&self) -> f64 {
        self.matmuls.iter().map(|row| row.limits.seconds()).sum()
    }
}

fn matmuls(plan: &Plan, arch: Arch) -> Vec<MatmulReport> {
    let ceilings = gpus::ceilings(arch);
    let mut rows: BTreeMap<String, MatmulReport> = BTreeMap::new();
    for step in &plan.steps {
        let Action::Gemm(gemm) = &step.action else { continue };
        let name = gemm.name();
        let row =
            rows.entry(name.clone()).or_insert(MatmulReport { name, launches: 0, limits: Limits::default() });
        row.launches += 1;
        row.limits.memory_seconds += step.bytes as f64 / ceilings.bytes_per_second;
        row.limits.compute_seconds += step.flops as f64 / matmul_rate(gemm.dtype, &ceilings);
    }
    let mut rows: Vec<MatmulReport> = rows.into_values().collect();
    rows.sort_by(|a, b| b.limits.seconds().total_cmp(&a.limits.seconds()));
    rows
}

/// Operations per second of matmuls of a type at most.
fn matmul_rate(dtype: DType, ceilings: &Ceilings) -> f64 {
    if dtype == DType::F32 { ceilings.f32_flops } else { ceilings.bf16_flops }
}

fn mfu_limit(plan: &Plan, inspection: &Inspection, arch: Arch) -> Option<f64> {
    let rates = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Gemm(gemm) => Some(matmul_rate(gemm.dtype, &gpus::ceilings(arch))),
        Action::Launch { .. } | Action::Copy { .. } | Action::Start { .. } | Action::Wait { .. } => None,
    });
    let fastest = rates.max_by(f64::total_cmp)?;
    Some(plan.flops() as f64 / inspection.limit_seconds() / fastest)
}

/// Launches and bytes of a kernel in one run.
fn launches_and_bytes(plan: &Plan, kernel: usize) -> (u64, u64) {
    let launched = |action: &Action| matches!(action, Action::Launch { kernel: k, .. } if *k == kernel);
    let steps = plan.steps.iter().filter(|step| launched(&step.action));
    steps.fold((0, 0), |(launches, bytes), step| (launches + 1, bytes + step.bytes))
}

/// f32 operations in the time of one exp: a multiprocessor has 128 lanes that multiply and add, and 16 for functions.
const FUNCTION: f64 = 16.0;

/// Seconds of a launch if arithmetic were the only limit.
fn compute_seconds(cost: &linc_tile::cost::Cost, narrow: bool, arch: Arch) -> f64 {
    let ceilings = gpus::ceilings(arch);
    let products = cost.dot_flops as f64;
    let pointwise = cost.pointwise_flops as f64;
    let functions = FUNCTION * cost.transcendentals as f64;
    let (on_matrix_units, on_lanes) =
        if narrow { (products, pointwise) } else { (0.0, products + pointwise) };
    (on_matrix_units / ceilings.bf16_flops).max(on_lanes.max(functions) / ceilings.f32_flops)
}

/// Whether a matmul inside the kernel has operands that the matrix units take.
fn multiplies_narrow(kernel: &linc_tile::Kernel) -> bool {
    let mut found = false;
    kernel.for_each_stmt(|stmt| {
        if let linc_tile::Op::Dot { a, b, .. } = &stmt.op {
            found |= [*a, *b].into_iter().all(|operand| kernel.ty(operand).elem.is_narrow());
        }
    });
    found
}

fn row(
    (launches, bytes, compute_seconds): (u64, u64, f64),
    kernel: &CudaKernel,
    resources: Option<Resources>,
    arch: Arch,
) -> KernelReport {
    let has = gpus::multiprocessor(arch);
    let ceilings = gpus::ceilings(arch);
    let occupancy = resources
        .map(|r| gpus::occupancy(&has, kernel.threads, r.registers, kernel.shared_bytes + r.static_shared));
    KernelReport {
        name: kernel.name.clone(),
        launches,
        blocks: kernel.grid.iter().map(|axis| u64::from(*axis)).product(),
        threads: kernel.threads,
        shared_bytes: kernel.shared_bytes,
        resources,
        blocks_per_sm: occupancy.map(|o| o.blocks),
        warps_per_sm: occupancy.map(|o| o.warps),
        max_warps_per_sm: has.warps,
        limits: Limits { memory_seconds: bytes as f64 / ceilings.bytes_per_second, compute_seconds },
    }
}

#[cfg(test)]
mod tests {
    use linc_plan::{Gemm, Ref, Step};

    use super::*;

    #[test]
    fn a_row_says_what_limits_the_kernel() {
        let kernel = CudaKernel {
            name: "k".into(),
            instructions: String::new(),
            text: String::new(),
            threads: 128,
            registers: 0,
            shared_bytes: 64 << 10,
            grid: [10, 2, 1],
            maps: vec![],
        };
        let resources = Resources { registers: 128, ..Resources::default() };
        let made = row((3, 4_800_000, 7e-6), &kernel, Some(resources), Arch::Sm90a);
        assert_eq!((made.launches, made.blocks, made.max_warps_per_sm), (3, 20, 64));
        // 228 KiB hold three times 65 KiB; registers would do for four blocks.
        assert_eq!((made.blocks_per_sm, made.warps_per_sm), (Some(3), Some(12)));
        assert!((made.limits.memory_seconds - 1e-6).abs() < 1e-12, "{}", made.limits.memory_seconds);
        assert_eq!(made.limits.compute_seconds, 7e-6);
        assert_eq!(row((3, 0, 0.0), &kernel, None, Arch::Sm90a).blocks_per_sm, None);
    }

    #[test]
    fn matmuls_of_one_shape_are_a_row_and_bound_the_mfu() {
        let at = Ref { buffer: 0, offset: 0 };
        let matmul = |m, dtype, flops, bytes| {
            let (a, b, c) = (at, at, at);
            let (a_strides, b_strides, c_strides) = ((16, 1), (1, 16), (32, 1));
            let (n, k, accumulate, c_dtype) = (32, 16, false, dtype);
            let gemm = Gemm { m, n, k, a, a_strides, b, b_strides, c, c_strides, accumulate, dtype, c_dtype };
            Step { action: Action::Gemm(gemm), label: "l".into(), flops, bytes }
        };
        let steps = vec![
            matmul(64, DType::Bf16, 989_000_000, 9_600_000),
            matmul(8, DType::F32, 67_000_000, 4_800_000),
            matmul(64, DType::Bf16, 989_000_000, 9_600_000),
        ];
        let plan = Plan {
            name: "p".into(),
            persistent_bytes: 0,
            scratch_bytes: 0,
            buffers: vec![],
            kernels: vec![],
            steps,
            bindings: vec![],
            world: linc_plan::World::default(),
        };
        let mut inspection = Inspection { matmuls: matmuls(&plan, Arch::Sm90a), ..Inspection::default() };
        inspection.mfu_limit = mfu_limit(&plan, &inspection, Arch::Sm90a);
        let rows: Vec<(&str, u64)> =
            inspection.matmuls.iter().map(|m| (m.name.as_str(), m.launches)).collect();
        assert_eq!(rows, [("gemm_64x32x16_nt_bf16", 2), ("gemm_8x32x16_nt_f32", 1)]);
        // Two of 2 us by memory and 1 by arithmetic, one of 1 us by both.
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b, "{a} for {b}");
        close(inspection.limit_seconds(), 5e-6);
        close(inspection.mfu_limit.expect("a limit"), (2.0 * 989e6 + 67e6) / 5e-6 / 989e12);
        assert_eq!(mfu_limit(&Plan { steps: vec![], ..plan }, &inspection, Arch::Sm90a), None);
    }

    #[test]
    fn the_slowest_unit_counts() {
        let cost = |dot_flops, pointwise_flops, transcendentals| linc_tile::cost::Cost {
            dot_flops,
            pointwise_flops,
            transcendentals,
            ..linc_tile::cost::Cost::default()
        };
        let micros = |cost, bf16| 1e6 * compute_seconds(&cost, bf16, Arch::Sm90a);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} for {b}");
        close(micros(cost(989_000_000, 0, 0), true), 1.0);
        close(micros(cost(989_000_000, 134_000_000, 0), true), 2.0);
        close(micros(cost(67_000_000, 67_000_000, 0), false), 2.0);
        close(micros(cost(67_000_000, 0, 67_000_000), false), 16.0);
    }
}
