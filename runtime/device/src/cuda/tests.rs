//! The device on a made-up driver (`fake/`): what is called in which order, what is captured, and that nothing is left.
//!
//! The driver is looked for by name, so the test runs itself again where that name means the made-up one. It says
//! nothing about a GPU.

mod ranks;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libloading::Library;
use linc_codegen_cuda::TensorMap;
use linc_plan::{Action, Buffer, Category, Gemm, Kernel, Ref, Space, Step};
use linc_tile::Elem;
use tempfile::TempDir;

use super::*;

/// Says to [`on_the_fake`] that it runs where it should.
const FLAG: &str = "LINC_TEST_FAKE_DRIVER";

/// A folder with the made-up libraries under the names of NVIDIA's; nothing where they cannot be built.
fn made_up_driver() -> Option<TempDir> {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/fake");
    let fake = folder.path().join("libcuda.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&fake);
    compiler.args(["driver.c", "streams.c", "nccl.c"].map(|name| sources.join(name))).arg("-lm");
    if !cfg!(target_os = "linux") || !compiler.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs Linux and a C compiler");
        return None;
    }
    // Names of one file are one library, with one state.
    for name in ["libcublasLt.so", "libnvrtc.so", "libnccl.so.2"] {
        std::fs::hard_link(&fake, folder.path().join(name)).expect("a link");
    }
    Some(folder)
}

/// A test of this program where the names of NVIDIA's libraries mean the made-up ones.
fn on_the_made_up_driver(folder: &Path, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]).env(FLAG, "1").env("LD_LIBRARY_PATH", folder);
    command.envs(["LINC_NVRTC", "LINC_CUBLASLT", "LINC_NCCL"].map(|variable| (variable, folder)));
    command.env("LINC_CACHE_DIR", folder.join("cache"));
    command
}

#[test]
fn a_plan_runs_on_a_made_up_driver() {
    let Some(folder) = made_up_driver() else { return };
    let status = on_the_made_up_driver(folder.path(), "cuda::tests::on_the_fake").status();
    assert!(status.expect("this program runs").success());
}

/// A number that the fake counts.
fn count(name: &str) -> i32 {
    // SAFETY: the library is open already, and its functions take nothing and return an int.
    unsafe {
        let library = Library::new("libcuda.so").expect("the fake");
        let count = library.get::<unsafe extern "C" fn() -> i32>(name.as_bytes()).expect("a counter");
        count()
    }
}

fn at(buffer: usize) -> Ref {
    Ref { buffer, offset: 0 }
}

/// c += a·b with b stored transposed, d = c, then the kernel adds its 3 blocks to the first element of d.
fn plan() -> (Plan, CudaKernel) {
    let buffer = |offset| Buffer {
        name: "b".into(),
        space: Space::Persistent,
        offset,
        bytes: 64,
        category: Category::Workspace,
        live: (0, 0),
    };
    let gemm = Gemm {
        m: 2,
        n: 3,
        k: 4,
        a: at(0),
        a_strides: (4, 1),
        b: at(1),
        b_strides: (1, 4),
        c: at(2),
        c_strides: (3, 1),
        accumulate: true,
        dtype: DType::F32,
        c_dtype: DType::F32,
    };
    let actions = [
        Action::Gemm(gemm),
        Action::Copy { from: at(2), to: at(3), bytes: 24 },
        Action::Launch { kernel: 0, args: vec![at(3)] },
    ];
    let steps = actions.into_iter().map(|action| Step { action, label: "s".into(), flops: 0, bytes: 0 });
    let plan = Plan {
        name: "p".into(),
        persistent_bytes: 256,
        scratch_bytes: 0,
        buffers: [0, 64, 128, 192].map(buffer).to_vec(),
        kernels: vec![Kernel {
            name: "k".into(),
            family: "k".into(),
            text: String::new(),
            grid: [3, 1, 1],
            written: vec![true],
        }],
        steps: steps.collect(),
        bindings: vec![],
        world: linc_plan::World::default(),
    };
    let text = "extern \"C\" __global__ void k(float* x) {}".into();
    (
        plan,
        CudaKernel {
            name: "k".into(),
            instructions: String::new(),
            text,
            threads: 64,
            shared_bytes: 100 << 10,
            registers: 0,
            grid: [3, 1, 1],
            maps: vec![],
        },
    )
}

fn write(cuda: &mut Cuda, arena: Arena, offset: u64, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    cuda.write(arena, offset, &bytes).expect("inside");
}

fn read(cuda: &Cuda, arena: Arena, offset: u64, count: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * count];
    cuda.read(arena, offset, &mut bytes).expect("inside");
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Runs only where [`a_plan_runs_on_a_made_up_driver`] starts it.
#[test]
fn on_the_fake() {
    if std::env::var_os(FLAG).is_none() {
        return;
    }
    let other = Cuda::new(7).err().expect("there is one").to_string();
    assert!(other.contains("no cuda:7") && other.contains("one GPU, cuda:0"), "{other}");
    let mut cuda = Cuda::new(0).expect("a GPU");
    assert!(cuda.describe().contains("Fake H200, compute capability 9.0"), "{}", cuda.describe());
    assert_eq!(cuda.total_bytes(), Some(1 << 30));
    assert_eq!(cuda.peak_flops(), 67e12);

    let refused = cuda.allocate(1 << 40).expect_err("more than there is");
    assert!(
        matches!(&refused, DeviceError::OutOfMemory { needed, available: Some(a) } if *needed == 1 << 40 && a.bytes > 0)
    );
    let arena = cuda.allocate(256).expect("memory");
    assert_eq!(read(&cuda, arena, 0, 64), [0.0; 64], "memory is zeroed");
    assert!(matches!(cuda.write(arena, 250, &[0; 8]), Err(DeviceError::OutOfBounds { to: 258, .. })));

    let (plan, kernel) = plan();
    let program = cuda.load_kernels(&plan, std::slice::from_ref(&kernel), arena, 256).expect("a plan");
    let again = cuda.load_kernels(&plan, std::slice::from_ref(&kernel), arena, 256).expect("a plan");
    assert_eq!(count("fake_heuristics"), 1, "one shape is asked for once");
    assert!(cuda.loading().expect("a line").starts_with("1 kernel for sm_90a"));

    write(&mut cuda, arena, 0, &[1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 0.0, 1.0]);
    write(&mut cuda, arena, 64, &[1.0, 1.0, 1.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0]);
    let product = [10.0, 2.0, 12.0, 2.0, 0.0, 3.0];
    for run in 1..=4 {
        cuda.launch(program, 0..3).expect("three steps");
        cuda.synchronize().expect("done");
        let c = product.map(|x| x * run as f32);
        assert_eq!(read(&cuda, arena, 128, 6), c);
        assert_eq!(read(&cuda, arena, 192, 2), [c[0] + 3.0, c[1]]);
    }
    assert_eq!(count("fake_graph_launches"), 3, "all but the first run are one graph");
    cuda.launch(again, 2..3).expect("one step");
    assert_eq!(read(&cuda, arena, 192, 1), [46.0]);
    assert!(cuda.launch(again, 2..4).is_err() && cuda.launch(Program(9), 0..1).is_err());

    let mut times = [Duration::ZERO; 3];
    cuda.profile(program, &mut times).expect("three steps");
    assert_eq!(times, [Duration::from_micros(500); 3]);
    assert_eq!(read(&cuda, arena, 128, 1), [50.0], "profiling runs the steps");
    assert!(cuda.profile(program, &mut times[..2]).is_err());

    refusals(&mut cuda, arena, &plan, &kernel);
    tensor_maps(&mut cuda, arena, &plan, &kernel);
    inputs(&mut cuda);
    drop(cuda);
    assert_eq!(count("fake_live"), 0, "everything was given back");
}

fn refusals(cuda: &mut Cuda, arena: Arena, plan: &Plan, kernel: &CudaKernel) {
    let mut refused = |kernel: CudaKernel, expected: &str| {
        let text = format!("{} // {expected}", kernel.text);
        let error =
            cuda.load_kernels(plan, &[CudaKernel { text, ..kernel }], arena, 256).expect_err("too much");
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused(CudaKernel { shared_bytes: 228 << 10, ..kernel.clone() }, "233472 bytes of shared memory");
    refused(CudaKernel { grid: [1, 1 << 16, 1], ..kernel.clone() }, "65535");
    let mut strided = plan.clone();
    if let Action::Gemm(g) = &mut strided.steps[0].action {
        g.a_strides = (8, 2);
    }
    let error = cuda.load_kernels(&strided, std::slice::from_ref(kernel), arena, 256).expect_err("strides");
    assert!(error.to_string().contains("one contiguous axis"), "{error}");
    // Through the front door, a kernel's text is parsed.
    assert!(matches!(cuda.load(plan, arena, 256), Err(DeviceError::Kernel { .. })));
    assert!(matches!(cuda.load(plan, arena, 128), Err(DeviceError::Plan { .. })));
}

/// A map is of the argument's buffer, up to its end.
fn tensor_maps(cuda: &mut Cuda, arena: Arena, plan: &Plan, kernel: &CudaKernel) {
    let map = TensorMap { param: 0, elem: Elem::Bf16, stride: 24, rows: 1, columns: 16 };
    let with = |map| {
        let text = format!("{} // {map:?}", kernel.text);
        CudaKernel { text, threads: 96, maps: vec![map], ..kernel.clone() }
    };
    let program = cuda.load_kernels(plan, &[with(map)], arena, 256).expect("a map");
    write(cuda, arena, 192, &[0.0]);
    cuda.launch(program, 2..3).expect("one step");
    // Three blocks; 64 bytes are one row of 24 elements and a part of the next.
    assert_eq!(read(cuda, arena, 192, 1), [3.0 + 2.0]);
    for wrong in [
        TensorMap { stride: 20, ..map },
        TensorMap { rows: 257, ..map },
        TensorMap { columns: 128, ..map },
        TensorMap { elem: Elem::F32, ..map },
    ] {
        let error = cuda.load_kernels(plan, &[with(wrong)], arena, 256).expect_err("refused").to_string();
        assert!(error.contains("tensor map") || error.contains("copies of tiles"), "{error}");
    }
}

/// Small writes go through pinned memory, around its end too; large ones do not.
fn inputs(cuda: &mut Cuda) {
    let arena = cuda.allocate(16 << 20).expect("memory");
    for round in 0..9u8 {
        let small = vec![round; 1 << 20];
        cuda.write(arena, u64::from(round) << 20, &small).expect("inside");
    }
    cuda.write(arena, 9 << 20, &vec![99; 7 << 20]).expect("inside");
    let mut all = vec![0; 16 << 20];
    cuda.read(arena, 0, &mut all).expect("inside");
    let expected = |at: usize| if at < 9 << 20 { (at >> 20) as u8 } else { 99 };
    assert!(all.iter().enumerate().all(|(at, byte)| *byte == expected(at)));
}
