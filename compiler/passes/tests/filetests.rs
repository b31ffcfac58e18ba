//! Graphs as files: `filetests/<pass>/<case>.ir` goes through the pass, the result is a snapshot beside it. A comment above
//! the graph such as `# run: recompute = full` chooses a setting of the pass.

use std::collections::BTreeSet;
use std::path::Path;

use linc_ir::{AttentionKind, EfficientForm, Graph};
use linc_passes::attention::{self, EfficientOptions, EluOptions, SoftmaxOptions};
use linc_passes::precision::Precision;
use linc_passes::recompute::{self, Limit, Mode, Policy};
use linc_passes::setting::PassSetting;
use linc_passes::{
    canonicalize, cse, dce, fusion, loss, merge_matmuls, mix, pack_heads, precision, residual, sort_tokens,
};

/// The settings of passes that the comments above a graph choose, each by a line such as `# run: recompute = full`.
struct Header(Vec<(String, String)>);

impl Header {
    fn of(text: &str) -> Header {
        let comments = text.lines().take_while(|line| line.starts_with('#'));
        let runs = comments.filter_map(|line| line.strip_prefix("# run: "));
        let setting = |run: &str| {
            let (name, word) =
                run.split_once(" = ").unwrap_or_else(|| panic!("`# run: {run}` is not `name = word`"));
            (name.to_string(), word.to_string())
        };
        Header(runs.map(setting).collect())
    }

    /// Takes the value of a setting, or the default.
    fn take<T: PassSetting>(&mut self) -> T {
        let Some(at) = self.0.iter().position(|(name, _)| name == T::NAME) else { return T::default() };
        let (name, word) = self.0.remove(at);
        T::from_name(&word).unwrap_or_else(|| panic!("`# run: {name} = {word}`: {}", T::help()))
    }
}

/// Runs the pass of a folder, and dead code elimination after passes that leave dead code to it.
fn apply(pass: &str, header: &mut Header, graph: &mut Graph) {
    match pass {
        "attention" => {
            let kinds = [AttentionKind::Efficient, AttentionKind::Softmax];
            let efficient =
                EfficientOptions { rope: false, temperature: 1.0, chunk: 64, form: EfficientForm::Fused };
            let options = attention::AttentionOptions {
                softmax: SoftmaxOptions::default(),
                efficient,
                elu: EluOptions { rope: false, chunk: 64 },
            };
            attention::run(graph, &kinds, &options).expect("attention");
        }
        "canonicalize" => canonicalize::run(graph).expect("canonicalize"),
        "cse" => cse::run(graph).expect("cse"),
        "dce" => {}
        "fusion" => fusion::run(graph).expect("fusion"),
        "loss" => loss::chunk(graph, 64).expect("loss"),
        "mix" => {
            mix::run(graph).expect("mix");
        }
        "merge_matmuls" => merge_matmuls::run(graph).expect("merge_matmuls"),
        "precision" => {
            let narrow =
                header.take::<Precision>().narrow().expect("`# run: precision = ` and a narrow format");
            precision::run(graph, "loss", narrow, &BTreeSet::new()).expect("precision");
        }
        "recompute" => {
            recompute::run(graph, Policy::of(header.take::<Mode>(), None, Limit::Share(0.5)), "loss")
                .expect("recompute")
        }
        "residual" => residual::run(graph).expect("residual"),
        "pack_heads" => pack_heads::run(graph, 4).expect("pack_heads"),
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
            let mut header = Header::of(&text);
            apply(&pass, &mut header, &mut graph);
            assert_eq!(header.0, [], "{}: settings that {pass} does not have", file.display());
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
