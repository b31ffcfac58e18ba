//! Tiles that TMA copies one iteration ahead: a right kernel, and each mistake with its mbarriers.

use linc_emulator::{Access, Emulator, FaultKind, LaunchOptions, Operation, Order};

use crate::common;
use crate::common::{found, found_any, pipeline};

#[test]
fn tiles_come_in_turns() {
    let Some(emulator) = Emulator::find() else { return };
    for order in Order::ALL {
        let mut case = pipeline();
        let report = case.run(&emulator, &LaunchOptions::ordered(order)).unwrap_or_else(|e| panic!("{e}"));
        let x = case.bf16(0);
        let sum =
            |at: usize| (0..5).fold(0.0, |sum, round| sum + x[(round * 64 + at / 64) * 192 + 64 + at % 64]);
        assert_eq!(case.f32(1), (0..64 * 64).map(sum).collect::<Vec<f32>>());
        assert_eq!((report.count(Operation::CopyTile), report.count(Operation::SyncWarp)), (5, 4 * 5));
        assert_eq!(report.bank_conflicts(), 0);
        // 320 rows of 128 bytes.
        let sectors = report.sectors(Access::Copy);
        assert_eq!((sectors.accesses, sectors.units, sectors.least), (320, 1280, 1280));
        assert_eq!(report.barriers, 1);
    }
}

/// The swizzle goes by bits of the address, for rows of 32 and 64 bytes as for those of 128.
#[test]
fn narrow_tiles_are_exchanged_in_their_own_pattern() {
    let Some(emulator) = Emulator::find() else { return };
    for columns in [16u32, 32] {
        let pieces = columns / 8;
        let mut case = pipeline()
            .with("swizzled<8>", &format!("swizzled<{pieces}>"))
            .with("n < 4", &format!("n < {}", columns / 16))
            .with("n < 8", &format!("n < {}", columns / 8))
            .with("64 * 64 * 2", &format!("64 * {columns} * 2"));
        case.kernel.maps[0].columns = columns;
        case.run(&emulator, &LaunchOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let (x, y) = (case.bf16(0), case.f32(1));
        for (i, j) in (0..64).flat_map(|i| (0..columns as usize).map(move |j| (i, j))) {
            let sum = (0..5).fold(0.0, |sum, round| sum + x[(round * 64 + i) * 192 + 64 + j]);
            assert_eq!(y[i * 64 + j], sum, "{i}, {j} of {columns} columns");
        }
    }
}

#[test]
fn mbarriers_have_to_be_made_known() {
    let unfenced = pipeline().with("    fence_async();\n  }\n", "  }\n");
    found(unfenced, FaultKind::Unfenced, "made with no fence_async() and barrier");
    let alone = pipeline().with("barrier();  // mbarriers are there", "");
    found_any(alone, &[FaultKind::Mbarrier, FaultKind::Unfenced], "mbarrier");
    let none = pipeline().with("pipeline_init(PIPELINE, 4);", "");
    found(none, FaultKind::Mbarrier, "where no mbarrier is");
}

#[test]
fn tiles_have_to_be_waited_for() {
    // Whoever waits last has nothing to fear from the others.
    let early = [FaultKind::CopyPending, FaultKind::SharedRace, FaultKind::Uninitialised];
    found_any(pipeline().with("pipeline_wait(PIPELINE, turn);", ""), &early, "");
    let some = pipeline().with("pipeline_wait(", "if (warp != 2) pipeline_wait(");
    found_any(some, &early, "");
    // The parity of the turn after next is that of the phase before.
    found_any(
        pipeline().with("pipeline_wait(PIPELINE, turn)", "pipeline_wait(PIPELINE, turn + 2)"),
        &early,
        "",
    );
}

#[test]
fn places_have_to_be_waited_for() {
    // A warp that runs ahead may also end phases that others still wait for.
    let kinds = [FaultKind::SharedRace, FaultKind::CopyPending, FaultKind::Mbarrier];
    found_any(pipeline().with("pipeline_acquire(PIPELINE, turn);", ""), &kinds, "");
    let early = pipeline().with("    pipeline_release(PIPELINE, turn, lane);\n", "").with(
        "    for (int n = 0; n < 4; n++) {",
        "    pipeline_release(PIPELINE, turn, lane);\n    for (int n = 0; n < 4; n++) {",
    );
    found_any(early, &kinds, "");
    let untold = pipeline().with("fence_async();  // lanes have read by another way", "");
    found(untold, FaultKind::Unfenced, "which threads have read");
    // Lanes that have not met may still read.
    let release = "pipeline_release(PIPELINE, turn, lane)";
    let unmet = "if (lane == 0) mbarrier_arrive(PIPELINE + 16 + turn % 2 * 8)";
    found(pipeline().with(release, unmet), FaultKind::SharedRace, "copies a tile to");
}

#[test]
fn phases_have_to_end() {
    let stuck = "no thread can go on";
    found(pipeline().with("turn, TILE)", "turn, TILE + 16)"), FaultKind::Mbarrier, stuck);
    found(pipeline().with("turn, TILE)", "turn, TILE / 2)"), FaultKind::Mbarrier, stuck);
    found(
        pipeline().with("pipeline_init(PIPELINE, 4)", "pipeline_init(PIPELINE, 5)"),
        FaultKind::Mbarrier,
        stuck,
    );
    let kinds = [FaultKind::Mbarrier, FaultKind::SharedRace, FaultKind::CopyPending];
    found_any(pipeline().with("pipeline_init(PIPELINE, 4)", "pipeline_init(PIPELINE, 3)"), &kinds, "");
    found(pipeline().with("pipeline_release(PIPELINE, turn, lane);", ""), FaultKind::Mbarrier, stuck);
    let absent = pipeline().with("pipeline_release(", "if (warp != 1) pipeline_release(");
    found(absent, FaultKind::Mbarrier, stuck);
    let crowd = pipeline().with("turn += 1;", "turn += 1; mbarrier_arrive(PIPELINE);");
    found_any(crowd, &kinds, "");
}

#[test]
fn tiles_and_mbarriers_have_their_places() {
    found(
        pipeline().with("turn % 2 * TILE, map", "turn % 2 * TILE + 64, map"),
        FaultKind::Misaligned,
        "multiple of 128",
    );
    found(
        pipeline().with("map, 64, round * 64", "map, 64, round * 64 + 1"),
        FaultKind::OutOfBounds,
        "of x, which has",
    );
    found(
        pipeline().with("map, 64, round", "map, 160, round"),
        FaultKind::OutOfBounds,
        "64 columns at row 0, column 160",
    );
    found(pipeline().with("map, 64, round", "map, -8, round"), FaultKind::OutOfBounds, "column -8");
    let over = pipeline().with("PIPELINE = 2 * TILE", "PIPELINE = 2 * TILE - 32");
    found(over, FaultKind::Mbarrier, "where an mbarrier is");
    let small = pipeline().with("turn % 2 * TILE, map", "turn % 2 * 256, map");
    found_any(small, &[FaultKind::CopyPending, FaultKind::SharedRace], "");
    let far = pipeline().with("turn % 2 * TILE, map", "turn % 2 * TILE + TILE, map");
    found_any(far, &[FaultKind::SharedBounds, FaultKind::Mbarrier, FaultKind::Uninitialised], "");
}

#[test]
fn what_threads_wrote_is_announced_to_the_engine() {
    let written = |fence: &str| {
        let before = format!("shared_store(thread * 4, 0.0f); {fence} barrier();");
        pipeline().with("float sums", &format!("{before}\n  float sums"))
    };
    found(written(""), FaultKind::Unfenced, "copy_tile_async to shared byte 0");
    let Some(emulator) = Emulator::find() else { return };
    written("fence_async();").run(&emulator, &LaunchOptions::default()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_block_that_ends_too_early() {
    let mut ahead = pipeline().with("round + 1 < ROUNDS", "round < ROUNDS");
    ahead.buffers[0] = common::bf16_noise(6 * 64 * 192, 1);
    found(ahead, FaultKind::CopyUnfinished, "the block ends with a tile under way");
}

#[test]
fn maps_that_the_driver_would_refuse() {
    let with = |change: fn(&mut linc_codegen_cuda::TensorMap)| {
        let mut case = pipeline();
        change(&mut case.kernel.maps[0]);
        case
    };
    found(with(|map| map.columns = 128), FaultKind::Misaligned, "rows of 256 bytes");
    found(with(|map| map.rows = 257), FaultKind::Misaligned, "257 rows");
    found(with(|map| map.stride = 100), FaultKind::Misaligned, "100 elements from row to row");
    let mut none = pipeline();
    none.kernel.maps.clear();
    found(none, FaultKind::Signature, "2 parameters here and 3");
}
