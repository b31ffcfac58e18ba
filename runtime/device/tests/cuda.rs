//! NVIDIA's side as far as it goes without a GPU: NVRTC where it is installed, and what is said where things are missing.

use linc_device::cuda::{Arch, Cache, Cuda, Nccl, Nvrtc, UniqueId, inspect};
use linc_device::{Choice, DeviceError, Opened};
use linc_plan::Plan;

/// The compiler, if this machine has it. Set `LINC_NVRTC` to run these tests: then it must be there.
fn nvrtc() -> Option<Nvrtc> {
    let found = Nvrtc::open();
    if let Err(error) = &found {
        assert!(std::env::var_os("LINC_NVRTC").is_none(), "{error}");
        eprintln!("skipped: {error}");
    }
    found.ok()
}

/// The prelude with a kernel that uses it.
fn source(name: &str, body: &str) -> String {
    let (device, common) = (linc_codegen_cuda::DEVICE_PRELUDE, linc_codegen_cuda::COMMON_PRELUDE);
    format!(
        "{device}\n{common}\nextern \"C\" __global__ void __launch_bounds__(128) {name}(const float* x, float* y) {{\n{body}\n}}\n"
    )
}

const EXP: &str = "__shared__ float s[128];
int i = blockIdx.x * 128 + threadIdx.x;
s[threadIdx.x] = x[i];
barrier();
y[i] = s[127 - threadIdx.x] * exp_fast(x[i]);";

#[test]
fn kernels_become_machine_code_and_ptx() {
    let Some(nvrtc) = nvrtc() else { return };
    assert!(nvrtc.version().0 >= 12, "{:?}", nvrtc.version());
    for arch in Arch::ALL {
        let cubin = nvrtc.cubin("k", &source("k", EXP), arch.name()).expect("code");
        assert!(cubin.bytes.starts_with(b"\x7fELF"), "an object file");
        let r = cubin.resources;
        assert!((4..=64).contains(&r.registers), "{r:?}");
        assert_eq!((r.static_shared, r.barriers, r.stack, r.spill_stores), (512, 1, 0, 0), "{}", arch.name());
        let ptx = nvrtc.ptx("k", &source("k", EXP), arch.name()).expect("PTX");
        assert!(ptx.contains(&format!(".target {}", arch.name())) && ptx.contains(".entry k("), "{ptx}");
        assert!(!ptx.contains('\0'));
    }
}

#[test]
fn arrays_that_do_not_fit_registers_are_reported() {
    let Some(nvrtc) = nvrtc() else { return };
    let body = "float a[200]; for (int i = 0; i < 200; i++) a[i] = x[i * i]; for (int i = 0; i < 200; i++) y[i] = a[(int)x[i]];";
    let cubin = nvrtc.cubin("big", &source("big", body), "sm_80").expect("code");
    assert!(cubin.resources.stack >= 800, "{:?}", cubin.resources);
}

#[test]
fn a_broken_kernel_is_shown_with_its_name_and_line() {
    let Some(nvrtc) = nvrtc() else { return };
    let text = source("softmax_k", "y[0] = undefined_function(x[0]);");
    let line = text.lines().position(|l| l.contains("undefined_function")).expect("the line") + 1;
    let error = nvrtc.cubin("softmax_k", &text, "sm_90a").expect_err("broken");
    assert!(matches!(&error, DeviceError::Kernel { kernel, .. } if kernel == "softmax_k"));
    let message = error.to_string();
    for expected in ["softmax_k", &format!("softmax_k.cu({line})"), "undefined_function", "sm_90a"] {
        assert!(message.contains(expected), "{message}");
    }
    let other = nvrtc.cubin("k", &source("another", EXP), "sm_80").expect_err("no such entry").to_string();
    assert!(other.contains("no entry point k"), "{other}");
    let unknown = nvrtc.cubin("k", &source("k", EXP), "sm_777").expect_err("no such GPU").to_string();
    assert!(unknown.contains("sm_777") && unknown.contains("gpu-architecture"), "{unknown}");
    let zero = nvrtc.cubin("k", "a\0b", "sm_80").expect_err("no text").to_string();
    assert!(zero.contains("0 byte"), "{zero}");
}

#[test]
fn one_compiler_serves_many_threads() {
    let Some(nvrtc) = nvrtc() else { return };
    let expected = nvrtc.cubin("k", &source("k", EXP), "sm_80").expect("code");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(nvrtc.cubin("k", &source("k", EXP), "sm_80"), Ok(expected.clone())));
        }
    });
}

#[test]
fn without_a_driver_the_gpu_is_refused_in_words() {
    let Err(error) = Cuda::new(0) else {
        eprintln!("skipped: this machine has a GPU");
        return;
    };
    let message = error.to_string();
    assert!(message.contains("help: "), "{message}");
    // What `auto` says is one line of it.
    let Opened { device, note, .. } = Choice::Auto.open(Some(1)).expect("the CPU");
    assert!(device.describe().starts_with("cpu"));
    let note = note.expect("a reason");
    assert!(!note.contains('\n') && message.starts_with(&note["Running on the CPU: ".len()..]), "{note}");
    assert!(Choice::Cuda(0).open(None).is_err());
    assert!(Choice::Cpu.open(Some(1)).expect("the CPU").note.is_none());
}

#[test]
fn a_plan_without_kernels_has_nothing_to_report() {
    let plan = Plan {
        name: "empty".into(),
        persistent_bytes: 0,
        scratch_bytes: 0,
        buffers: vec![],
        kernels: vec![],
        steps: vec![],
        bindings: vec![],
        world: linc_plan::World::default(),
    };
    let cache = Cache::at(std::env::temp_dir().join("linc-unused"));
    let inspection =
        inspect(&plan, Arch::Sm90a, None, &cache, true, &mut |_, _| true).expect("nothing to compile");
    assert!(inspection.rows.is_empty() && inspection.files.is_empty());
}

#[test]
fn nccl_is_found_by_the_name_of_its_package_and_makes_ids_without_a_gpu() {
    let nccl = match Nccl::open() {
        Ok(nccl) => nccl,
        Err(error) => {
            assert!(std::env::var_os("LINC_NCCL").is_none(), "{error}");
            let message = error.to_string();
            let words =
                ["NCCL, by which GPUs exchange", "libnccl.so.2", "pip install nvidia-nccl-cu13", "LINC_NCCL"];
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            eprintln!("skipped: {message}");
            return;
        }
    };
    assert!(nccl.version() >= [2, 18, 0], "{:?}", nccl.version());
    assert!(nccl.path().to_string_lossy().contains("nccl"));
    let [one, other] = [(); 2].map(|()| nccl.unique_id().expect("an id"));
    assert_ne!(one, other);
    assert_eq!(UniqueId::of(one.bytes()), one);
}
