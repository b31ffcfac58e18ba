//! Runs a plan on the CPU with the bindings that the interpreter takes.

use std::collections::BTreeMap;

use linc_device::cpu::{Cpu, CpuOptions};
use linc_exec::Executor;
use linc_ir::interp::{Bindings, Data, Tensor};
use linc_plan::{Plan, Role};

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
        let written = match binding.role {
            Role::Input => executor.write_input(0, &binding.name, &bytes(tensor)),
            Role::Param | Role::State => executor.write_tensor(&binding.name, &bytes(tensor)),
            Role::Table | Role::Output => continue,
        };
        written.unwrap_or_else(|e| panic!("{e}"));
    }
    executor.run(0).unwrap_or_else(|e| panic!("{e}"));
    let mut results = BTreeMap::new();
    for binding in &plan.bindings {
        let values: Vec<f32> = match binding.role {
            Role::Output => executor.output(0, &binding.name).unwrap_or_else(|e| panic!("{e}")),
            Role::Param | Role::State => {
                let bytes = executor.read_tensor(&binding.name).unwrap_or_else(|e| panic!("{e}"));
                bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            }
            Role::Input | Role::Table => continue,
        };
        results.insert(binding.name.clone(), values.into_iter().map(f64::from).collect());
    }
    results
}

fn bytes(tensor: &Tensor<f64>) -> Vec<u8> {
    match &tensor.data {
        Data::Float(x) => x.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
        Data::Int(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}
