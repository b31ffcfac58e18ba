//! Runs a plan on the CPU with the bindings that the interpreter takes.

use std::collections::BTreeMap;

use linc_device::cpu::{Cpu, CpuOptions};
use linc_exec::Executor;
use linc_ir::interp::{Bindings, Data, Tensor};
use linc_plan::{DType, Plan, Role};
use linc_tile::Elem;
use linc_tile::interp::Buffer;

/// Outputs, and parameters and states after one run, by name.
///
/// # Panics
/// If the plan does not load or run, or lacks a tensor: the tests that ask for it cannot go on.
pub fn run(plan: &Plan, bindings: &Bindings<f64>, threads: usize) -> BTreeMap<String, Vec<f64>> {
    let cpu = Cpu::new(CpuOptions { threads: Some(threads), level: None }).unwrap_or_else(|e| panic!("{e}"));
    let mut executor = Executor::new(Box::new(cpu), vec![plan.clone()]).unwrap_or_else(|e| panic!("{e}"));
    executor.initialize(0).unwrap_or_else(|e| panic!("{e}"));
    for binding in &plan.bindings {
        let Some(tensor) = bindings.get(&binding.name) else { continue };
        let written = match &binding.role {
            Role::Input => executor.write_input(0, &binding.name, &bytes(tensor)),
            Role::Param | Role::State(_) => executor.write_tensor(&binding.name, &bytes(tensor)),
            Role::Table | Role::Output => continue,
        };
        written.unwrap_or_else(|e| panic!("{e}"));
    }
    executor.run(0).unwrap_or_else(|e| panic!("{e}"));
    let mut results = BTreeMap::new();
    for binding in &plan.bindings {
        let values: Vec<f64> = match &binding.role {
            Role::Output => {
                let values = executor.output(0, &binding.name).unwrap_or_else(|e| panic!("{e}"));
                values.into_iter().map(f64::from).collect()
            }
            Role::Param | Role::State(_) => {
                let bytes = executor.read_tensor(&binding.name).unwrap_or_else(|e| panic!("{e}"));
                buffer(elem(binding.dtype), &bytes).to_f64()
            }
            Role::Input | Role::Table => continue,
        };
        results.insert(binding.name.clone(), values);
    }
    results
}

/// The type of tiles of numbers of a tensor.
pub(crate) fn elem(dtype: DType) -> Elem {
    match dtype {
        DType::F32 => Elem::F32,
        DType::Bf16 => Elem::Bf16,
        DType::F16 => Elem::F16,
        DType::I32 => Elem::I32,
    }
}

/// Numbers in memory.
pub(crate) fn buffer(elem: Elem, bytes: &[u8]) -> Buffer {
    let words = || bytes.as_chunks::<4>().0.iter();
    let halves = || bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b));
    match elem {
        Elem::F32 => Buffer::F32(words().map(|b| f32::from_le_bytes(*b)).collect()),
        Elem::I32 => Buffer::I32(words().map(|b| i32::from_le_bytes(*b)).collect()),
        Elem::Bf16 => Buffer::Bf16(halves().collect()),
        Elem::F16 => Buffer::F16(halves().collect()),
        Elem::Index | Elem::Bool => panic!("no memory holds {elem}"),
    }
}

/// A tensor of f32 or i32 in memory.
pub(crate) fn bytes(tensor: &Tensor<f64>) -> Vec<u8> {
    match &tensor.data {
        Data::Float(x) => x.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
        Data::Int(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}
