//! Wrong kernels: each is a right one with a mistake planted, and is found in every order of the threads.

use linc_emulator::{Emulator, FaultKind, LaunchOptions, Order};
use linc_tile::interp::Buffer;
use linc_tile::ir::Mode;

use crate::common::{
    Case, attention, block_sum, found, found_any, matmul, nans, noise, scale, through_shared, warp_sum,
    warpgroup,
};

// ---- global memory ----

#[test]
fn an_access_behind_the_end() {
    let case = scale().with("if (first < COUNT)", "if (true)");
    let Some(fault) = found(case, FaultKind::OutOfBounds, "load of 16 bytes at x[10") else { return };
    assert_eq!(fault.block, Some([3, 0, 0]));
    assert_eq!(fault.thread, Some(58));
    assert_eq!(
        fault.to_string(),
        "kernel scale, block (3, 0, 0), thread 58: load of 16 bytes at x[1000], but x has 1000 elements"
    );
    // Across the end, and before the start.
    found(scale().with("store<4>(y + first", "store<4>(y + first + 4"), FaultKind::OutOfBounds, "at y[1000]");
    found(
        scale().with("load<4>(v, x + first", "load<4>(v, x + first - 4"),
        FaultKind::OutOfBounds,
        "at x[-4]",
    );
    found(
        scale().with("load<4>(v, x + first", "load<4>(v, (float*)16"),
        FaultKind::OutOfBounds,
        "no parameter",
    );
}

#[test]
fn an_asynchronous_copy_from_behind_the_end() {
    let case = matmul().with("b + row * 64", "b + (row + 1) * 64");
    found(case, FaultKind::OutOfBounds, "but b has 4096 elements");
}

#[test]
fn an_access_that_is_not_aligned() {
    found(
        scale().with("x + first", "x + first - (first > 0)"),
        FaultKind::Misaligned,
        "load of 16 bytes at x[",
    );
    found(
        scale().with("y + first", "y + first + 2 * (first < 4)"),
        FaultKind::Misaligned,
        "16 bytes at y[2]",
    );
    found(matmul().with("a + row * 64 + piece * 8", "a + row * 63"), FaultKind::Misaligned, "bytes at a[");
    // Not even aligned to the element.
    let case = scale().with("load<4>(v, x + first)", "load<1>(v, (float*)((char*)(x + first) + 2))");
    found(case, FaultKind::Misaligned, "load of 4 bytes at x[");
}

#[test]
fn a_pointer_that_is_aligned_less_than_the_kernel_believes() {
    let Some(emulator) = Emulator::find() else { return };
    let run = |alignment: u32| {
        let options = LaunchOptions { alignment: vec![alignment, 16], ..LaunchOptions::default() };
        scale().run(&emulator, &options)
    };
    run(16).unwrap();
    let error = run(8).unwrap_err();
    assert_eq!(error.fault().map(|fault| fault.kind), Some(FaultKind::Misaligned), "{error}");
}

#[test]
fn a_write_to_what_is_read() {
    let case = scale().with("store<4>(y + first", "store<4>((float*)x + first");
    found(case, FaultKind::ReadOnly, "store at x[");
}

#[test]
fn a_read_of_what_is_written() {
    let case = scale().with("load<4>(v, x + first", "load<4>(v, y + first");
    found(case, FaultKind::WriteOnly, "load at y[");
}

/// Each thread reads an element of x and writes one.
fn in_place(read: &str, write: &str) -> Case {
    let text = "extern \"C\" __global__ void __launch_bounds__(64) in_place(float* x) {
      index t = threadIdx.x, b = blockIdx.x;
      float v;
      load<1>(&v, x + READ);
      SYNC
      store<1>(x + WRITE, &v);
    }";
    Case::new("in_place", text, 64, 0, 2)
        .param("x", Mode::ReadWrite, Buffer::F32(noise(256, 1)))
        .with("READ", read)
        .with("WRITE", write)
}

#[test]
fn threads_of_a_block_at_one_element() {
    let neighbours = in_place("b * 64 + t", "b * 64 + (t ^ 1)");
    found(neighbours.clone().with("SYNC", ""), FaultKind::GlobalRace, "with no barrier in between");
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = neighbours.clone().with("SYNC", "barrier();");
        case.run(&emulator, &LaunchOptions::ordered(order)).unwrap();
        let x = noise(256, 1);
        assert!((0..128).all(|i| case.f32(0)[i] == x[i ^ 1]));
    }
    // Two that write one.
    found(
        in_place("b * 64 + t", "128 + b * 64 + t / 2").with("SYNC", ""),
        FaultKind::GlobalRace,
        "writes x[",
    );
}

#[test]
fn blocks_at_one_element() {
    // Both write; one reads what the other writes, whichever comes first.
    let Some(fault) =
        found(in_place("b * 64 + t", "128 + t").with("SYNC", ""), FaultKind::BlockRace, "writes x[")
    else {
        return;
    };
    assert_eq!(fault.block, Some([1, 0, 0]));
    assert!(fault.what.ends_with("which block (0, 0, 0) has written"), "{fault}");
    let shifted = in_place("(1 - b) * 64 + t", "b * 64 + t").with("SYNC", "");
    found(shifted, FaultKind::BlockRace, "which block (");
    // Read by both, written by one, which may be the one that reads last.
    let last = in_place("t", "t + 128 * (1 - b)").with("SYNC", "barrier();");
    found(last, FaultKind::BlockRace, "x[");
}

// ---- shared memory ----

#[test]
fn shared_memory_that_nobody_has_written() {
    found(block_sum().with("t < half", "t <= half"), FaultKind::SharedBounds, "at shared byte 1024");
    let case = block_sum().with("shared_store(t * 4, pass", "if (t > 0) shared_store(t * 4, pass");
    found(case, FaultKind::Uninitialised, "load at shared byte 0");
    let case = matmul().with("i < 64 * 8", "i < 63 * 8");
    found(case, FaultKind::Uninitialised, "load_matrices");
}

#[test]
fn shared_memory_of_the_block_before() {
    // Only the first block writes.
    let case = through_shared().with("copy_async16(t", "if (blockIdx.x == 0) copy_async16(t");
    let mut case = Case { kernel: linc_codegen_cuda::CudaKernel { grid: [2, 1, 1], ..case.kernel }, ..case };
    case.kernel.text = case.kernel.text.replace("y + other", "y + blockIdx.x * 4096 + other");
    case.buffers[1] = Buffer::Bf16(vec![0; 2 * 4096]);
    let Some(fault) = found(case, FaultKind::Uninitialised, "shared byte") else { return };
    assert_eq!(fault.block, Some([1, 0, 0]));
}

#[test]
fn shared_memory_behind_the_end() {
    let mut case = matmul();
    case.kernel.shared_bytes -= 16;
    found(case, FaultKind::SharedBounds, "copy_async16 of 16 bytes at shared byte 16368");
}

#[test]
fn shared_addresses_that_are_not_aligned() {
    found(
        block_sum().with("shared_load(0)", "shared_load(2)"),
        FaultKind::Misaligned,
        "4 bytes at shared byte 2",
    );
    let case = matmul().with("load_matrices(left, place(", "load_matrices(left, 8 + place(");
    found(case, FaultKind::Misaligned, "load_matrices of 16 bytes at shared byte");
}

#[test]
fn a_barrier_that_is_missing() {
    let without = |case: Case, comment: &str| case.with(&format!("barrier();  // {comment}"), "");
    // Between a write and a read of other threads, both ways; of single threads, of whole warps, of tiles copied ahead.
    found(without(block_sum(), "before the result"), FaultKind::SharedRace, "shared byte 0, which thread");
    found(without(block_sum(), "before the next pass"), FaultKind::SharedRace, "has read, with no barrier");
    found(without(attention(3), "the tile may be overwritten"), FaultKind::SharedRace, "as a whole has read");
    // Where the memory is new, the reader may also come before anything is written.
    let early = [FaultKind::SharedRace, FaultKind::Uninitialised, FaultKind::CopyPending];
    found_any(without(block_sum(), "before a level"), &early, "shared byte");
    found_any(without(matmul(), "tiles are there"), &early, "shared byte");
    found_any(without(through_shared(), "rows are there"), &early, "shared byte");
    found_any(without(attention(2), "the tile is there"), &early, "shared byte");
}

#[test]
fn two_threads_that_write_one_word() {
    let case = block_sum().with("shared_store(t * 4, pass", "shared_store(t / 2 * 4, pass");
    found(case, FaultKind::SharedRace, "writes shared byte");
}

#[test]
fn lanes_of_one_warp_need_a_barrier_too() {
    let text = "extern \"C\" __global__ void __launch_bounds__(32) exchange(const float* x, float* y) {
      int t = threadIdx.x;
      float v;
      load<1>(&v, x + t);
      shared_store(t * 4, v);
      v = shuffle(shared_load((t ^ 1) * 4), t);
      store<1>(y + t, &v);
    }";
    let case = Case::new("exchange", text, 32, 128, 1)
        .param("x", Mode::Read, Buffer::F32(noise(32, 1)))
        .param("y", Mode::Write, nans(32));
    found_any(case, &[FaultKind::SharedRace, FaultKind::Uninitialised], "shared byte");
}

// ---- asynchronous copies ----

#[test]
fn a_copy_that_nobody_waits_for() {
    found(
        matmul().with("copy_async_wait<0>();", ""),
        FaultKind::CopyPending,
        "an asynchronous copy of thread",
    );
    found(
        matmul().with("copy_async_commit();", ""),
        FaultKind::CopyPending,
        "an asynchronous copy of thread",
    );
    found(
        attention(2).with("copy_async_wait<1>", "copy_async_wait<2>"),
        FaultKind::CopyPending,
        "load_matrices",
    );
    // A write to where one is going to.
    let case = matmul()
        .with("float sums", "shared_store(t * 64, 0.0f);\n  float sums")
        .with("copy_async_wait<0>();", "");
    found(case, FaultKind::CopyPending, "store at shared byte");
}

#[test]
fn copies_at_the_end_of_a_thread() {
    let case = warp_sum().with("if (lane == 0)", "copy_async16(t * 16, x, true);\n  if (lane == 0)");
    let mut case = case;
    case.kernel.shared_bytes = 2048;
    found(case.clone(), FaultKind::CopyUnfinished, "with 1 copies not committed");
    let case = case.with("x, true);", "x, true); copy_async_commit();");
    found(case, FaultKind::CopyUnfinished, "with 1 copies under way");
}

// ---- products of warpgroups ----

#[test]
fn products_need_fences() {
    found(warpgroup().with("fence_async();", ""), FaultKind::Unfenced, "with no fence_async() and barrier");
    let late = warpgroup().with("fence_async();\n  barrier();", "barrier();\n  fence_async();");
    found(late, FaultKind::Unfenced, "with no fence_async() and barrier");
    found(warpgroup().with("wgmma_fence();", ""), FaultKind::Unfenced, "with no wgmma_fence()");
    let early = warpgroup()
        .with("copy_async_wait<0>();\n  fence_async();", "fence_async();\n  copy_async_wait<0>();");
    found(early, FaultKind::Unfenced, "with no fence_async() and barrier");
}

#[test]
fn products_that_nobody_waits_for() {
    found(
        warpgroup().with("wgmma_wait<0>();", ""),
        FaultKind::ProductPending,
        "ends with products under way",
    );
    found(warpgroup().with("wgmma_wait<0>", "wgmma_wait<1>"), FaultKind::ProductPending, "under way");
    let changed = warpgroup().with("wgmma_wait<0>();", "left[3][0][1] ^= 1;\n  wgmma_wait<0>();");
    found(changed, FaultKind::ProductPending, "changes registers");
    let written = "barrier(); shared_store(t * 4, 0.0f); wgmma_wait<0>();";
    found(warpgroup().with("wgmma_wait<0>();", written), FaultKind::SharedRace, "which thread");
}

#[test]
fn descriptors_of_nothing() {
    let zero = warpgroup().with("right = matrix_descriptor<8>(B_TILE, 512)", "right = 0");
    found(zero, FaultKind::Descriptor, "without a pattern");
    let far = warpgroup().with("matrix_descriptor<8>(B_TILE, 512)", "matrix_descriptor<8>(2 * B_TILE, 512)");
    found(far, FaultKind::SharedBounds, "wgmma");
}

#[test]
fn a_warpgroup_that_does_not_agree() {
    let apart = warpgroup().with("right + k * 2", "right + k * 2 + (t == 77)");
    found(apart, FaultKind::Divergence, "another product");
    let absent = warpgroup().with("float sums", "if (t == 77) return;\n  float sums");
    found(absent, FaultKind::Divergence, "");
    let mut small = warpgroup();
    small.kernel.threads = 64;
    found(small.with("i += 128", "i += 64"), FaultKind::Divergence, "in no whole warpgroup");
}

// ---- threads that wait ----

#[test]
fn lanes_in_different_operations() {
    let case =
        warp_sum().with("shuffle(v, (lane + 3) % 32)", "lane < 16 ? shuffle(v, 0) : shuffle_xor(v, 1)");
    found(case, FaultKind::Divergence, "other lanes of its warp wait in shuffle");
}

#[test]
fn lanes_that_do_not_come() {
    let case = warp_sum().with("shuffle(v, (lane + 3) % 32)", "lane < 16 ? shuffle(v, 0) : v");
    found(case, FaultKind::Divergence, "");
    let case = warp_sum().with("float ahead", "if (t == 70) return;\n  float ahead");
    let Some(fault) = found(case, FaultKind::Divergence, "31 of 32 lanes of warp 2 wait in shuffle") else {
        return;
    };
    assert_eq!(fault.thread, Some(70));
    assert!(fault.what.ends_with("but thread 70 (warp 2, lane 6) has ended"), "{fault}");
    // Half of the warp at a barrier.
    let case = warp_sum().with("float ahead = ", "if (lane < 8) barrier();\n  float ahead = ");
    found(case, FaultKind::Divergence, "24 of 32 lanes of warp");
}

#[test]
fn threads_that_miss_a_barrier() {
    let case = block_sum().with("int t = threadIdx.x;", "int t = threadIdx.x;\n  if (t == 200) return;");
    let Some(fault) = found(case, FaultKind::Barrier, "255 of 256 threads wait at a barrier") else { return };
    assert_eq!(fault.thread, Some(200));
    assert!(fault.what.ends_with("but thread 200 (warp 6, lane 8) has ended"), "{fault}");
    let case = scale().with("index first", "if (threadIdx.x < 32) barrier();\n  index first");
    found(case, FaultKind::Barrier, "32 of 64 threads wait at a barrier for the others, but thread 32");
}

// ---- the process ----

#[test]
fn a_kernel_that_follows_a_pointer() {
    let case = scale().with("load<4>(v, x + first)", "v[0] = x[first]");
    let Some(fault) = found(case, FaultKind::Crash, "follows a pointer") else { return };
    assert!(fault.block.is_some() && fault.thread.is_some());
}

#[test]
fn a_kernel_without_end() {
    let Some(emulator) = Emulator::find() else { return };
    let mut case = warp_sum().with("float ahead", "for (;;) barrier();\n  float ahead");
    let options = LaunchOptions { seconds: 1, ..LaunchOptions::default() };
    let error = case.run(&emulator, &options).unwrap_err();
    assert_eq!(error.fault().map(|fault| fault.kind), Some(FaultKind::Timeout), "{error}");
}

#[test]
fn parameters_of_another_type() {
    found(
        scale()
            .with("const float* x", "const int* xi")
            .with("float v", "const float* x = (const float*)xi; float v"),
        FaultKind::Signature,
        "parameter 0, x, is",
    );
    found(
        scale().with("float* y", "const float* yc").with("(y +", "((float*)yc +"),
        FaultKind::Signature,
        "parameter 1, y, is",
    );
    found(scale().with("float* y", "float* y, float* z"), FaultKind::Signature, "2 parameters here and 3");
}
