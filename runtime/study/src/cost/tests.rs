//! What made-up measurements show, whose growth is chosen.

use std::collections::BTreeMap;

use linc_bench::{Bounds, Limit, Machine, Times};

use super::*;

/// Training steps at two ratios: attention takes n² or n, the rest n; words that are no HTML.
fn report() -> CostReport {
    let mut rows = vec![];
    for length in [256_usize, 512, 1024, 2048, 4096, 8192] {
        for (ratio, layers) in [(0.0, "SS"), (1.0, "LL")] {
            for work in Work::ALL {
                let n = length as f64;
                let attention = if ratio == 0.0 { 1e-6 * n * n } else { 2e-3 * n };
                let ms = attention + 0.01 * n;
                let memory =
                    [("parameters", 1000), ("workspace", 7 * length as u64), ("attention", length as u64)];
                let mut bounds = Bounds::default();
                bounds.ms.insert(Limit::Flops, attention);
                bounds.ms.insert(Limit::Launch, 0.01 * n);
                rows.push(CostRow {
                    work,
                    ratio,
                    layers: layers.into(),
                    length,
                    ms: Some(Times { median: ms, min: 0.9 * ms, max: 1.1 * ms, runs: 3 }),
                    tokens_per_s: Some(1e3 * n / ms),
                    attention_ms: Some(attention),
                    parts_ms: Some(ms),
                    flops: 1000 * length as u64,
                    attention_flops: if ratio == 0.0 {
                        (length * (length + 1)) as u64
                    } else {
                        length as u64
                    },
                    bytes: 1000 + 8 * length as u64,
                    memory: memory.map(|(name, bytes)| (name.to_owned(), bytes)).into(),
                    resident_bytes: None,
                    cache_bytes: if ratio == 0.0 { 4 * length as u64 } else { 0 },
                    state_bytes: if ratio == 0.0 { 0 } else { 512 },
                    bounds: Some(bounds),
                    error: None,
                });
            }
        }
    }
    let last = rows.last().expect("rows").clone();
    let error = Some("<b>too long</b>".to_owned());
    rows.push(CostRow {
        length: 16384,
        ms: None,
        error,
        memory: BTreeMap::new(),
        bytes: 0,
        bounds: None,
        ..last
    });
    CostReport {
        model: "llama3 <script>".into(),
        precision: "float32".into(),
        batch: 1,
        recompute: "none".into(),
        machine: Machine {
            device: "cpu".into(),
            peak_flops: 1e12,
            peak: "measured".into(),
            copy_bytes: 1e10,
            copies: vec![],
            launch_s: 1e-6,
            instruction_sets: vec![],
        },
        rows,
    }
}

fn fit(fits: &[Fit], work: Work, quantity: Quantity, ratio: f64) -> Fit {
    let found = fits.iter().find(|fit| (fit.work, fit.quantity, fit.ratio) == (work, quantity, ratio));
    *found.expect("a fit")
}

#[test]
fn exponents_and_crossovers_are_those_that_were_chosen() {
    let report = report();
    let found = fits(&report);
    for (ratio, exponent) in [(0.0, 2.0), (1.0, 1.0)] {
        let attention = fit(&found, Work::Training, Quantity::AttentionTime, ratio);
        assert!((attention.power.exponent - exponent).abs() < 1e-9, "{attention:?}");
        assert!(attention.power.half_width.is_some_and(|half| half < 1e-6));
        assert_eq!((attention.theory, attention.points, attention.from), (Some(exponent), 3, 2048));
        assert!((attention.plan.expect("operations") - exponent).abs() < 1e-3);
        let memory = fit(&found, Work::Training, Quantity::Memory, ratio);
        assert!((memory.power.exponent - 1.0).abs() < 1e-9, "parameters do not grow: {memory:?}");
        let kept = fit(&found, Work::Decode, Quantity::Kept, ratio);
        assert!((kept.power.exponent - (exponent - 1.0)).abs() < 1e-9, "{kept:?}");
    }
    // 1e-6 n² = 2e-3 n at 2000.
    let crossover = crossovers(&report)[0];
    let Wins::From { length } = crossover.wins else { panic!("{crossover:?}") };
    assert!((1900.0..2050.0).contains(&length), "{length}");
    let said = sentences(&report).join("\n");
    assert!(said.contains("At 8,192 tokens ratio 1 trains") && said.contains("theory says 2"), "{said}");
    assert!(said.contains("1 of 37 points were not measured"), "{said}");
}

#[test]
fn what_is_written_is_read_again_and_reported_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = report();
    let written = write(&report, folder.path()).expect("written");
    let again = read(folder.path()).expect("read");
    assert_eq!((again.rows.len(), &again.machine.device), (report.rows.len(), &report.machine.device));
    for (found, written) in again.rows.iter().zip(&report.rows) {
        assert_eq!(
            (found.work, found.length, &found.memory, &found.error),
            (written.work, written.length, &written.memory, &written.error)
        );
        // The last digit of a number may be lost on the way.
        let times = found.ms.map(|ms| ms.median).zip(written.ms.map(|ms| ms.median));
        assert!(times.is_none_or(|(found, written)| (found / written - 1.0).abs() < 1e-12));
    }
    let csv = std::fs::read_to_string(&written.csv).expect("a table");
    assert_eq!(csv.lines().count(), 1 + report.rows.len());
    let page = crate::report::write(&[folder.path().to_path_buf()], None).expect("a report");
    let html = std::fs::read_to_string(&page.page).expect("the page");
    for id in
        ["figure-cost-training", "figure-cost-gain-decode", "id=\"cost-exponents\"", "id=\"cost-kernels\""]
    {
        // The made-up kernels have no names, so no table of them.
        assert_eq!(html.contains(id), !id.contains("kernels"), "{id}");
    }
    assert!(!html.contains("<b>too long") && !html.contains("llama3 <script>"), "words became elements");
    assert!(page.summary.iter().all(|sentence| !sentence.contains("0 runs")), "{:?}", page.summary);
}

#[test]
fn a_whole_measurement_stays_until_another_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = report();
    write(&whole, folder.path()).expect("written");
    let first = CostReport { rows: whole.rows[..3].to_vec(), model: "other".into(), ..whole.clone() };
    let kept = keep(&first, folder.path()).expect("written");
    let again = read(folder.path()).expect("read");
    assert_eq!((again.rows.len(), &again.model), (whole.rows.len(), &whole.model));
    let csv = std::fs::read_to_string(&kept.csv).expect("a table");
    assert_eq!(csv.lines().count(), 4, "what there is so far is beside it");
    write(&first, folder.path()).expect("written");
    assert_eq!(read(folder.path()).expect("read").model, "other");
    assert!(!kept.json.exists() && !kept.csv.exists());
}

#[test]
fn a_file_that_is_none_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for text in ["", "{", "{}", "{\"measured\": {\"rows\": 3}}", "[1]"] {
        std::fs::write(folder.path().join(FILE), text).expect("written");
        let error = read(folder.path()).expect_err("none").to_string();
        assert!(error.contains("cost.json is no measurement") && error.contains("help: "), "{error}");
        let error = crate::report::write(&[folder.path().to_path_buf()], None).expect_err("none").to_string();
        assert!(error.contains("cost.json"), "{error}");
    }
}
