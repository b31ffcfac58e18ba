//! The CUDA compiler's word on the kernels of real models: everything compiles for the oldest and the newest
//! architecture, and no tile has left its registers. The table is kept in `target/nvrtc`. Skips without NVRTC.

use std::fmt::Write as _;
use std::fs;

use linc_device::cuda::{Cache, Nvrtc, inspect};
use linc_driver::{Arch, Entry, Options, PassSetting, Precision, Room, Target};
use linc_tests::models::{compiled, flavor, training};

fn check(model: &str, precision: Precision, seq: usize) {
    let nvrtc = match Nvrtc::open() {
        Ok(nvrtc) => nvrtc,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/nvrtc");
    fs::create_dir_all(folder).expect("a folder below target");
    let mut bad = vec![];
    let programs = [
        ("train", training(), seq),
        ("prefill", Entry::Prefill { room: Room::of_one(seq), tokens: 256 }, seq),
        ("decode", Entry::Decode(Room::of_one(seq)), 1),
    ];
    let archs = [Arch::Sm80, Arch::Sm90, Arch::Sm90a];
    for (arch, (name, entry, seq)) in archs.iter().flat_map(|arch| programs.iter().map(move |p| (*arch, p))) {
        let options = Options { precision, target: Target::Cuda(arch), ..Options::new(1, *seq) };
        let plan = compiled(&flavor(model, "0.5"), entry, &options).plan;
        let cache = Cache::at(format!("{folder}/cache").into());
        let inspection = inspect(&plan, arch, Some(&nvrtc), &cache, false, &mut |_, _| true)
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(inspection.rows.len() > 8, "only {} kernels", inspection.rows.len());
        let mut table = "kernel registers stack spills shared threads blocks/SM\n".to_string();
        for row in inspection.rows {
            let r = row.resources.expect("compiled");
            let spills = r.spill_stores + r.spill_loads;
            let line = format!(
                "{} {} {} {spills} {} {} {}",
                row.name,
                r.registers,
                r.stack,
                row.shared_bytes,
                row.threads,
                row.blocks_per_sm.unwrap_or(0)
            );
            if r.stack > 0 || spills > 0 || r.serialised {
                bad.push(format!("{} {name}: {line}", arch.name()));
            }
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{line}");
        }
        fs::write(format!("{folder}/{model}-{name}-{}-{}.txt", precision.name(), arch.name()), table)
            .expect("a file below target");
    }
    assert!(
        bad.is_empty(),
        "registers, stack, spills, or products that wait for each other:\n{}",
        bad.join("\n")
    );
}

#[test]
fn kernels_of_llama3_1b_stay_in_registers() {
    check("1b", Precision::Bfloat16, 2048);
}

#[test]
fn kernels_of_llama3_1b_in_f16_stay_in_registers() {
    check("1b", Precision::Float16, 2048);
}

#[test]
fn kernels_of_llama3_8b_stay_in_registers() {
    // Long enough for the largest tiles.
    check("8b", Precision::Bfloat16, 8192);
}
