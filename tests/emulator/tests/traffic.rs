//! Counts of what memory accesses would cost on the device.

use linc_emulator::{Access, Emulator, LaunchOptions, Order, Report, Traffic};
use linc_tile::interp::Buffer;
use linc_tile::ir::Mode;

use crate::common::{Case, attention, matmul, nans, noise, scale, through_shared};

/// The report, which must be the same in all orders but for the switches.
fn counted(case: &Case) -> Option<Report> {
    let emulator = Emulator::find()?;
    let built = emulator.build(std::slice::from_ref(&case.kernel)).unwrap();
    let reports = Order::ALL.map(|order| {
        let mut buffers = case.buffers.clone();
        let report = built.run(0, &case.params, &mut buffers, &LaunchOptions::ordered(order)).unwrap();
        Report { switches: 0, ..report }
    });
    let [first, ..] = &reports;
    for report in &reports {
        assert_eq!(report, first);
    }
    Some(first.clone())
}

/// y[16 t] = x[place] for 256 threads.
fn gather(place: &str) -> Case {
    let text = "extern \"C\" __global__ void __launch_bounds__(256) gather(const float* x, float* y) {
      int t = threadIdx.x;
      for (int i = 0; i < 2; i++) {
        float v;
        load<1>(&v, x + i * 8192 + PLACE);
        store<1>(y + i * 256 + t, &v);
      }
    }";
    Case::new("gather", text, 256, 0, 1)
        .param("x", Mode::Read, Buffer::F32(noise(2 * 8192, 1)))
        .param("y", Mode::Write, nans(512))
        .with("PLACE", place)
}

#[test]
fn neighbouring_lanes_share_sectors() {
    let loads = |place: &str| counted(&gather(place)).map(|report| report.sectors(Access::Load));
    let Some(unit) = loads("t") else { return };
    // 16 accesses of warps, each of 128 bytes.
    assert_eq!(unit, Traffic { accesses: 16, units: 64, least: 64 });
    assert_eq!(loads("t * 32"), Some(Traffic { accesses: 16, units: 512, least: 64 }));
    assert_eq!(loads("t * 2"), Some(Traffic { accesses: 16, units: 128, least: 64 }));
    // Any order of the lanes is as good; one element for all lanes is one sector; a shift costs one sector more.
    assert_eq!(loads("(t ^ 21)"), Some(unit));
    assert_eq!(loads("t / 32"), Some(Traffic { accesses: 16, units: 16, least: 16 }));
    assert_eq!(loads("t + 1"), Some(Traffic { accesses: 16, units: 80, least: 64 }));
    assert_eq!(loads("t * 32").unwrap().efficiency(), 0.125);
}

#[test]
fn wide_accesses_and_ragged_ends() {
    let Some(report) = counted(&scale()) else { return };
    assert_eq!(report.global.len(), 2);
    assert_eq!((report.global[0].parameter, report.global[0].access), (0, Access::Load));
    assert_eq!((report.global[1].parameter, report.global[1].access), (1, Access::Store));
    for access in [Access::Load, Access::Store] {
        assert_eq!(report.sectors(access), Traffic { accesses: 8, units: 125, least: 125 });
    }
}

#[test]
fn swizzled_tiles_have_no_conflicts() {
    let Some(report) = counted(&matmul()) else { return };
    assert_eq!(report.bank_conflicts(), 0);
    // 4 warps, 4 steps of k, one tile of a and 4 of b, 4 matrices each.
    let matrices = report.wavefronts(Access::Matrices);
    assert_eq!((matrices.accesses, matrices.units), (4 * 4 * 5, 4 * 4 * 5 * 4));
    assert_eq!(report.wavefronts(Access::Copy).efficiency(), 1.0);
    assert_eq!(report.sectors(Access::Copy), Traffic { accesses: 32, units: 512, least: 512 });
    // A row of f32 for four lanes, of two elements each: a whole sector.
    assert_eq!(report.sectors(Access::Store).efficiency(), 1.0);
    assert_eq!(counted(&attention(1)).unwrap().bank_conflicts(), 0);
}

#[test]
fn plain_tiles_have_conflicts() {
    let case = matmul().with("swizzled<8>(row, piece)", "row * 128 + piece * 16");
    let Some(report) = counted(&case) else { return };
    // The eight rows of a matrix lie in the same banks.
    assert_eq!(report.wavefronts(Access::Matrices).efficiency(), 0.125);
    assert_eq!(report.wavefronts(Access::Copy).efficiency(), 1.0);
    assert!(report.bank_conflicts() > 0);
}

#[test]
fn narrow_tiles() {
    // Rows of 64 bytes: a quarter of a warp that writes one piece of each row meets in 8 of the 32 banks.
    let Some(report) = counted(&through_shared()) else { return };
    assert_eq!(report.wavefronts(Access::Copy).efficiency(), 0.25);
    let swizzled = through_shared()
        .with("t * 64 + part * 16, x", "swizzled<4>(t, part), x")
        .with("other * 64 + part * 16", "swizzled<4>(other, part)");
    assert_eq!(counted(&swizzled).unwrap().bank_conflicts(), 0);
}

#[test]
fn words_of_shared_memory() {
    let text = "extern \"C\" __global__ void __launch_bounds__(64) words(const float* x, float* y) {
      int t = threadIdx.x;
      for (int i = t; i < 2048; i += 64) shared_store(i * 4, 1.0f);
      barrier();
      float v = shared_load(PLACE * 4);
      store<1>(y + t, &v);
    }";
    let loads = |place: &str| {
        let case = Case::new("words", text, 64, 8192, 1)
            .param("x", Mode::Read, Buffer::F32(vec![]))
            .param("y", Mode::Write, nans(64))
            .with("PLACE", place);
        counted(&case).map(|report| (report.wavefronts(Access::Load).units, report.bank_conflicts()))
    };
    let Some(unit) = loads("t") else { return };
    assert_eq!(unit, (2, 0));
    assert_eq!(loads("5"), Some((2, 0)));
    assert_eq!(loads("t * 33 % 2048"), Some((2, 0)));
    assert_eq!(loads("t * 2"), Some((4, 2)));
    assert_eq!(loads("t * 32"), Some((64, 62)));
}
