//! Graphs as files: `filetests/<pass>/<case>.ir` goes through the pass, the result is a snapshot beside it. A first line
//! such as `# run: recompute = full` chooses a pass setting.

use std::collections::BTreeSet;
use std::path::Path;

use linc_ir::{DType, Graph, LinearForm};
use linc_passes::attention::{self, LinearOptions};
use linc_passes::placement::AttentionKind;
use linc_passes::recompute::{self, Policy};
use linc_passes::setting::PassSetting;
use linc_passes::{canonicalize, cse, dce, fusion, loss, merge_matmuls, precision, residual, sort_tokens};

/// The value of a setting that the first line of a file gives, or the default.
fn setting<T: PassSetting>(text: &str) -> T {
    let Some(run) = text.lines().next().and_then(|line| line.strip_prefix("# run: ")) else {
        return T::default();
    };
    let value = run.split_once(" = ").filter(|(name, _)| *name == T::NAME);
    let value = value.and_then(|(_, word)| T::from_name(word));
    value.unwrap_or_else(|| panic!("`# run: {run}`, expected {} and one of its words", T::NAME))
}

/// Runs the pass of a folder, and dead code elimination after passes that leave dead code to it.
fn apply(pass: &str, text: &str, graph: &mut Graph) {
    match pass {
        "attention" => {
            let kinds = [AttentionKind::Linear, AttentionKind::Softmax];
            let options = LinearOptions { rope: false, temperature: 1.0, chunk: 64, form: LinearForm::Fused };
            attention::run(graph, &kinds, &options).expect("attention");
        }
        "canonicalize" => canonicalize::run(graph).expect("canonicalize"),
        "cse" => cse::run(graph).expect("cse"),
        "dce" => {}
        "fusion" => fusion::run(graph).expect("fusion"),
        "loss" => loss::chunk(graph, 64).expect("loss"),
        "merge_matmuls" => merge_matmuls::run(graph).expect("merge_matmuls"),
        "precision" => precision::run(graph, "loss", DType::Bf16, &BTreeSet::new()).expect("precision"),
        "recompute" => recompute::run(graph, setting::<Policy>(text), "loss").expect("recompute"),
        "residual" => residual::run(graph).expect("residual"),
        "sort_tokens" => sort_tokens::run(graph).expect("sort_tokens"),
        other => panic!("filetests/{other} names no pass"),
    }
    dce::run(graph);
}

#[test]
fn filetests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let mut count = 0;
    let mut folders: Vec<_> =
        std::fs::read_dir(&root).expect("filetests").flatten().map(|e| e.path()).collect();
    folders.sort();
    for folder in folders {
        let pass = folder.file_name().and_then(|n| n.to_str()).expect("a name").to_string();
        let mut files: Vec<_> =
            std::fs::read_dir(&folder).expect("a folder").flatten().map(|e| e.path()).collect();
        files.sort();
        for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "ir")) {
            let text = std::fs::read_to_string(file).expect("a file");
            let mut graph = linc_ir::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            apply(&pass, &text, &mut graph);
            linc_ir::verify(&graph).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let name = file.file_stem().and_then(|n| n.to_str()).expect("a name");
            insta::with_settings!({
                snapshot_path => folder.clone(), prepend_module_to_snapshot => false, omit_expression => true
            }, {
                insta::assert_snapshot!(name, linc_ir::print(&graph));
            });
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} filetests were found");
}
