//! The text of every stage for a hybrid of one linear and one softmax layer, and the report of a shipped model.
//!
//! A change of the compiler shows here as a diff of what it makes. To accept it, read the diff, then run
//! `INSTA_UPDATE=always cargo test --release -p linc-tests snapshots::`, or `cargo insta review`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use insta::{Settings, assert_snapshot};
use linc_driver::{Entry, Options, Report, Room};
use linc_plan::{Action, Plan, Ref};
use linc_tests::models::{FLAVORS, compiled, dumps, flavor, small_hybrid, training};

/// Kernels of the small hybrid whose tile programs are kept, by the beginning of their names: all of attention but what a
/// larger batch takes ([`LARGER`]), and two that show a row kernel and a fused region.
const KERNELS: [&str; 8] = [
    "efficient_attention_forward",
    "efficient_attention_backward",
    "softmax_attention_forward",
    "softmax_attention_delta",
    "softmax_attention_dq",
    "softmax_attention_dkdv",
    "rms_norm_8x32",
    "pointwise_8x48",
];

/// A kernel of the small hybrid with eight sequences: enough programs for a backward in one kernel.
const LARGER: &str = "softmax_attention_backward";

/// One snapshot file a text, named by its stage.
fn check(name: &str, text: &str) {
    let mut settings = Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| assert_snapshot!(name, text));
}

/// The texts of the small hybrid's training program: one sequence of 8 tokens in chunks of 4.
fn small() -> BTreeMap<String, String> {
    dumps_of_batch(1)
}

fn dumps_of_batch(batch: usize) -> BTreeMap<String, String> {
    dumps(&small_hybrid(), &training(), batch, 8)
}

/// What attention of the small hybrid becomes in a program that continues a sequence: operations, and the caches and
/// states that they read.
fn continued(entry: &Entry, tokens: usize) -> String {
    let dumps = dumps(&small_hybrid(), entry, 1, tokens);
    let of_attention = |line: &str| line.contains("/attention") && !line.contains("= param(");
    lines(graph(&dumps, "attention"), of_attention)
}

/// The graph after a pass.
fn graph<'a>(dumps: &'a BTreeMap<String, String>, pass: &str) -> &'a str {
    let end = format!("-{pass}.ir");
    let mut after = dumps.iter().filter(|(path, _)| path.ends_with(&end));
    after.next().unwrap_or_else(|| panic!("no graph after {pass}")).1
}

/// The lines of a graph that are wanted; numbers of values show where others were left out.
fn lines(graph: &str, wanted: impl Fn(&str) -> bool) -> String {
    graph.lines().filter(|line| wanted(line)).fold(String::new(), |text, line| text + line.trim() + "\n")
}

/// True for an operation that computes: no leaf.
fn computes(line: &str) -> bool {
    let leaf =
        ["param", "state", "input", "table", "constant"].iter().any(|op| line.contains(&format!("= {op}(")));
    line.contains(" = ") && !leaf && !line.starts_with("  update") && !line.starts_with("  output")
}

/// True for the model, its gradients and the loss.
fn of_the_model(line: &str) -> bool {
    computes(line) && !line.contains("@optimizer")
}

#[test]
fn passes_are_named_in_order() {
    let dumps = small();
    let paths: Vec<&str> = dumps.keys().filter_map(|path| path.strip_prefix("graph/")).collect();
    check("passes", &paths.join("\n"));
}

#[test]
fn graph_as_built() {
    check("graph__build", graph(&small(), "build"));
}

#[test]
fn graph_with_gradients() {
    check("graph__autodiff", &lines(graph(&small(), "autodiff"), of_the_model));
}

#[test]
fn graph_of_the_optimizer() {
    let text = lines(graph(&small(), "optimizer"), |l| computes(l) && l.contains("@optimizer"));
    assert_eq!(text.matches("= adamw(").count(), 1, "one update for all parameters");
    check("graph__optimizer", &text);
}

#[test]
fn graph_with_attention_lowered() {
    let text = lines(graph(&small(), "attention"), |l| computes(l) && l.contains("/attention"));
    assert_eq!(text.matches("= softmax_attention(").count(), 1, "one softmax layer");
    assert_eq!(text.matches("= efficient_attention(").count(), 1, "one linear layer");
    check("graph__attention", &text);
}

#[test]
fn graph_of_decoding() {
    let text = continued(&Entry::Decode(Room::of_one(8)), 1);
    check("graph__decode", &text);
}

#[test]
fn graph_of_prefill() {
    let text = continued(&Entry::Prefill { room: Room::of_one(8), tokens: 4 }, 4);
    check("graph__prefill", &text);
}

#[test]
fn graph_after_fusion() {
    check("graph__fusion", &lines(graph(&small(), "fusion"), of_the_model));
}

#[test]
fn memory_map() {
    check("memory", &small()["memory.txt"]);
}

#[test]
fn plan() {
    let options = Options::new(1, 8);
    check("plan", &steps(&compiled(&small_hybrid(), &training(), &options).plan));
}

/// One line a step: what runs, on which buffers, and for which node.
fn steps(plan: &Plan) -> String {
    let mut text = String::new();
    for (i, step) in plan.steps.iter().enumerate() {
        let places: Vec<&Ref> = match &step.action {
            Action::Launch { args, .. } => args.iter().collect(),
            Action::Gemm(g) => vec![&g.a, &g.b, &g.c],
            Action::Copy { from, to, .. } => vec![from, to],
            Action::Start { exchange, .. } => vec![&exchange.from, &exchange.to],
            Action::Wait { .. } => vec![],
        };
        let places: Vec<String> = places.iter().map(|at| format!("{}+{}", at.buffer, at.offset)).collect();
        let size = match &step.action {
            Action::Copy { bytes, .. } => format!(" {bytes} bytes"),
            Action::Start { id, .. } | Action::Wait { id } => format!(" {id}"),
            Action::Launch { .. } | Action::Gemm(_) => String::new(),
        };
        let action = format!("{}{size} ({})", plan.work_name(step), places.join(", "));
        let _ = writeln!(text, "{i:3} {:44} {action}", step.label.to_string());
    }
    text
}

#[test]
fn tile_programs() {
    let dumps = small();
    for kernel in KERNELS {
        let prefix = format!("kernels/{kernel}");
        let mut named = dumps.iter().filter(|(path, _)| path.starts_with(&prefix) && path.ends_with(".tile"));
        let (_, text) = named.next().unwrap_or_else(|| panic!("no kernel {kernel}"));
        check(&format!("kernel__{kernel}"), text);
    }
    let attention = dumps.keys().filter(|path| path.contains("attention") && path.ends_with(".tile"));
    let kept = |path: &&String| KERNELS.iter().any(|kernel| path.starts_with(&format!("kernels/{kernel}")));
    let other: Vec<&String> = attention.filter(|path| !kept(path)).collect();
    assert!(other.is_empty(), "attention kernels without a snapshot: {other:?}");

    let dumps = dumps_of_batch(8);
    let of_larger =
        |path: &&String| path.starts_with(&format!("kernels/{LARGER}")) && path.ends_with(".tile");
    let path = dumps.keys().find(of_larger).unwrap_or_else(|| panic!("no kernel {LARGER}"));
    check(&format!("kernel__{LARGER}"), &dumps[path]);
}

#[test]
fn cpu_code_of_a_small_kernel() {
    let dumps = small();
    let mut named = dumps.iter().filter(|(path, _)| path.starts_with("kernels/sum_of_squares_"));
    let (_, text) = named.find(|(path, _)| path.ends_with(".clif")).expect("the kernel's CLIF");
    check("clif__sum_of_squares", text);
}

#[test]
fn cpu_code_of_an_attention_kernel() {
    let dumps = small();
    let mut named = dumps.iter().filter(|(path, _)| path.starts_with("kernels/softmax_attention_delta"));
    let (_, text) = named.find(|(path, _)| path.ends_with(".clif")).expect("the kernel's CLIF");
    check("clif__softmax_attention_delta", text);
}

#[test]
fn report_of_llama3_1b() {
    let model = flavor("1b", "0.75");
    let report = compiled(&model, &training(), &Options::new(1, 2048)).report;
    assert_eq!(report.layer_map, "LLLS LLLS LLLS LLLS");
    assert_eq!(report.params, 1_235_814_400);
    check("report__llama3_1b", &table(&report));
}

/// The report without times.
fn table(report: &Report) -> String {
    let mut text = format!(
        "model {}\nentry {}\nparams {}\nlayers {}\nbatch {} seq {}\n",
        report.model, report.entry, report.params, report.layer_map, report.batch, report.seq
    );
    let _ = writeln!(text, "flops per token {}", report.flops_per_token);
    let _ = writeln!(text, "flops per token in TorchTitan's convention {}", report.titan_flops_per_token);
    let _ = writeln!(text, "peak bytes {}", report.peak_bytes);
    for (category, bytes) in &report.memory {
        let _ = writeln!(text, "  {category:16} {bytes:>14}");
    }
    for pass in &report.passes {
        let _ = writeln!(text, "nodes after {:14} {:>5}", pass.pass, pass.nodes);
    }
    for row in &report.kernels {
        let _ = writeln!(
            text,
            "kernel {} x{} {:.4e} flops {:.4e} bytes",
            row.name, row.launches, row.flops as f64, row.bytes as f64
        );
    }
    text
}

#[test]
fn every_flavour_compiles_with_its_exact_number_of_parameters() {
    for (name, params) in FLAVORS {
        let model = flavor(name, "0.5");
        let Report { params: found, layers, peak_bytes, .. } =
            compiled(&model, &training(), &Options::new(1, 512)).report;
        assert_eq!(found, params, "{name}");
        let linear = layers.iter().filter(|kind| **kind == "linear").count();
        assert_eq!(linear * 2, layers.len(), "{name}: half of the layers are linear");
        // Weights, gradients and two moments of f32.
        assert!(peak_bytes > 16 * params, "{name}: {peak_bytes} bytes");
    }
}
