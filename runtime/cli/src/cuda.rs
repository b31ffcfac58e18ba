//! `linc compile --target cuda`: what the kernels come to on a GPU, which need not be there.

use anyhow::{Result, bail};
use linc_device::cuda::gpus::ceilings;
use linc_device::cuda::{Cache, Inspection, KernelReport, Limits, MatmulReport, Nvrtc, inspect};
use linc_driver::{Arch, Entry};
use linc_plan::Plan;
use serde_json::{Value, json};

use crate::compile::one_of;
use crate::progress::Progress;
use crate::table::table;

/// The GPU that the options ask for; nothing for the CPU.
pub(crate) fn arch(target: &str, arch: Option<&str>) -> Result<Option<Arch>> {
    match target {
        "cpu" => match arch {
            Some(arch) => {
                bail!("--arch {arch} is of a GPU, but the target is the CPU\n  help: add --target cuda")
            }
            None => Ok(None),
        },
        "cuda" => {
            let name = arch.unwrap_or(Arch::Sm90a.name());
            let names: Vec<&str> = Arch::ALL.iter().map(|a| a.name()).collect();
            match Arch::from_name(name) {
                Some(arch) => Ok(Some(arch)),
                None => bail!("--arch is \"{name}\"; expected {}", one_of(name, &names)),
            }
        }
        other => bail!(
            "--target is \"{other}\"; expected cpu or cuda\n  help: cuda is for NVIDIA GPUs, which need not be there"
        ),
    }
}

/// The kernels of a plan on a GPU.
pub(crate) struct Gpu {
    arch: Arch,
    /// Version of the compiler, or why there is none.
    nvrtc: Result<(i32, i32), String>,
    pub(crate) inspection: Inspection,
}

/// Compiles the kernels of a program, where NVRTC is found; with their files, if they are wanted.
pub(crate) fn compile(plan: &Plan, entry: &Entry, arch: Arch, files: bool) -> Result<Gpu> {
    let nvrtc = Nvrtc::open();
    let mut progress = Progress::new().of_kernels();
    let cache = Cache::of_environment();
    let mut inspection = inspect(plan, arch, nvrtc.as_ref().ok(), &cache, files, &mut progress)?;
    if matches!(entry, Entry::Prefill { .. } | Entry::Decode(_)) {
        // What attention has to do depends on the position.
        inspection.mfu_limit = None;
    }
    let nvrtc = nvrtc.map(|n| n.version()).map_err(|e| e.to_string());
    Ok(Gpu { arch, nvrtc, inspection })
}

impl Gpu {
    /// For programs.
    pub(crate) fn json(&self) -> Result<Value> {
        let version = self.nvrtc.as_ref().ok().map(|(major, minor)| format!("{major}.{minor}"));
        Ok(json!({
            "arch": self.arch.name(),
            "gpu": ceilings(self.arch).name,
            "nvrtc": version,
            "nvrtc_missing": self.nvrtc.as_ref().err(),
            "kernels": serde_json::to_value(&self.inspection.rows)?,
            "matmuls": serde_json::to_value(&self.inspection.matmuls)?,
            "limit_seconds": self.inspection.limit_seconds(),
            "mfu_limit": self.inspection.mfu_limit,
        }))
    }

    /// For people. `convention` is how many operations TorchTitan counts for one of the plan.
    pub(crate) fn text(&self, convention: Option<f64>) -> String {
        let header = [
            "kernel",
            "threads",
            "registers",
            "shared",
            "spills",
            "stack",
            "blocks/SM",
            "warps/SM",
            "memory",
            "compute",
        ];
        let rows: Vec<Vec<String>> = self.inspection.rows.iter().map(row).collect();
        let (arch, gpu) = (self.arch.name(), ceilings(self.arch).name);
        let compiler = match &self.nvrtc {
            Ok((major, minor)) => format!("compiled by NVRTC {major}.{minor}"),
            Err(_) => "not compiled".to_string(),
        };
        format!(
            "Kernels for {arch}, {compiler}\nTimes are of one run if memory, or arithmetic, of a {gpu} were all that limits it\n\n{}\n\n{}{}",
            table(&header, &rows),
            self.matmuls(),
            self.limit(convention)
        )
    }

    /// Why the kernels are not compiled, if they are not, and what to do.
    pub(crate) fn missing(&self) -> Option<String> {
        let why = self.nvrtc.as_ref().err()?;
        // Where it was looked for is of no use here; what it is and how to get it are.
        let ends = [why.lines().next(), why.lines().last().map(str::trim)];
        let ends = ends.into_iter().flatten().collect::<Vec<_>>().join("\n  ");
        Some(format!("The kernels were not compiled: {ends}"))
    }

    /// The matmuls of the library, if there are any.
    fn matmuls(&self) -> String {
        if self.inspection.matmuls.is_empty() {
            return String::new();
        }
        let row = |m: &MatmulReport| {
            let [memory, compute] = times(&m.limits);
            vec![m.name.clone(), m.launches.to_string(), memory, compute]
        };
        let rows: Vec<Vec<String>> = self.inspection.matmuls.iter().map(row).collect();
        format!("{}\n\n", table(&["matmul", "launches", "memory", "compute"], &rows))
    }

    /// What a run would take at all these limits, and its MFU: of operations as they are and, for training, as
    /// TorchTitan counts them, `convention` times as many.
    fn limit(&self, convention: Option<f64>) -> String {
        let time = |seconds: f64| match seconds < 1e-3 {
            true => micros(seconds),
            false => format!("{:.2} ms", 1e3 * seconds),
        };
        let mut text = format!("Limit       {} a run", time(self.inspection.limit_seconds()));
        if !self.inspection.matmuls.is_empty() {
            text.push_str(&format!(", {} of them in matmuls", time(self.inspection.matmul_seconds())));
        }
        if let Some(mfu) = self.inspection.mfu_limit {
            text.push_str(&format!("; MFU {:.1}%", 100.0 * mfu));
            if let Some(convention) = convention {
                text.push_str(&format!(" ({:.1}% in TorchTitan's convention)", 100.0 * mfu * convention));
            }
        }
        text
    }
}

fn row(k: &KernelReport) -> Vec<String> {
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let resource =
        |of: fn(&linc_device::cuda::Resources) -> u32| known(k.resources.as_ref().map(|r| of(r).to_string()));
    let [memory, compute] = times(&k.limits);
    let static_shared = k.resources.map_or(0, |r| r.static_shared);
    vec![
        k.name.clone(),
        k.threads.to_string(),
        resource(|r| r.registers),
        (k.shared_bytes + static_shared).to_string(),
        resource(|r| r.spill_stores + r.spill_loads),
        resource(|r| r.stack),
        known(k.blocks_per_sm.map(|b| b.to_string())),
        known(k.warps_per_sm.map(|w| format!("{w}/{}", k.max_warps_per_sm))),
        memory,
        compute,
    ]
}

fn times(limits: &Limits) -> [String; 2] {
    [limits.memory_seconds, limits.compute_seconds].map(micros)
}

fn micros(seconds: f64) -> String {
    format!("{:.1} us", 1e6 * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linc_device::cuda::Resources;

    fn report(compiled: bool) -> KernelReport {
        let resources = Resources {
            registers: 40,
            spill_stores: 4,
            spill_loads: 8,
            static_shared: 24,
            ..Resources::default()
        };
        KernelReport {
            name: "softmax_forward".into(),
            launches: 2,
            blocks: 10,
            threads: 128,
            shared_bytes: 1000,
            resources: compiled.then_some(resources),
            blocks_per_sm: compiled.then_some(12),
            warps_per_sm: compiled.then_some(48),
            max_warps_per_sm: 64,
            limits: Limits { memory_seconds: 12.34e-6, compute_seconds: 5e-7 },
        }
    }

    #[test]
    fn the_table_has_every_limit() {
        let matmul = MatmulReport {
            name: "gemm_64x32x16_nt_bf16".into(),
            launches: 3,
            limits: Limits { memory_seconds: 1e-6, compute_seconds: 2.5e-3 },
        };
        let inspection = Inspection {
            rows: vec![report(true)],
            matmuls: vec![matmul],
            mfu_limit: Some(0.625),
            ..Inspection::default()
        };
        let text = Gpu { arch: Arch::Sm90a, nvrtc: Ok((13, 0)), inspection }.text(Some(1.2));
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        assert_eq!(lines[4], "softmax_forward 128 40 1024 12 0 12 48/64 12.3 us 0.5 us", "{text}");
        assert_eq!(lines[7], "gemm_64x32x16_nt_bf16 3 1.0 us 2500.0 us", "{text}");
        assert_eq!(
            lines[9],
            "Limit 2.51 ms a run, 2.50 ms of them in matmuls; MFU 62.5% (75.0% in TorchTitan's convention)",
            "{text}"
        );
        assert!(text.contains("sm_90a, compiled by NVRTC 13.0") && text.contains("H200"), "{text}");
    }

    #[test]
    fn without_a_compiler_the_rest_is_shown() {
        let inspection = Inspection { rows: vec![report(false)], ..Inspection::default() };
        let why = "NVRTC was not found\n  looked for\n    here\n  help: pip install it".to_string();
        let gpu = Gpu { arch: Arch::Sm80, nvrtc: Err(why), inspection };
        let text = gpu.text(None);
        assert!(text.starts_with("Kernels for sm_80, not compiled\n"), "{text}");
        let missing = "The kernels were not compiled: NVRTC was not found\n  help: pip install it";
        assert_eq!(gpu.missing().as_deref(), Some(missing));
        assert!(
            text.ends_with(
                "128          -    1000       -      -          -         -  12.3 us   0.5 us\n\n\
                 Limit       12.3 us a run"
            ),
            "{text}"
        );
        let json = gpu.json().expect("JSON");
        assert_eq!(json["kernels"][0]["threads"], 128);
        assert!(json["nvrtc"].is_null() && json["nvrtc_missing"].is_string(), "{json}");
    }

    #[test]
    fn targets_are_named() {
        assert_eq!(arch("cpu", None).expect("a target"), None);
        assert_eq!(arch("cuda", None).expect("a target"), Some(Arch::Sm90a));
        assert_eq!(arch("cuda", Some("sm_80")).expect("a target"), Some(Arch::Sm80));
    }
}
