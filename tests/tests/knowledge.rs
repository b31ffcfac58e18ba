//! What code may know inside of the crates: the compiler nothing of the machine, a pass nothing of another, nobody parts of
//! names, nothing outside of its modules a kind of attention, and one place the ratio.

use std::collections::BTreeSet;

use linc_tests::rust::{code, names, paths};
use linc_tests::tree::{TextFile, rust_files};

use crate::layering::assert_none;

/// What the passes may take from each other: plain vocabulary, and the schedule that the memory plan is made for.
/// The right side is an item, or all items of a file.
const SHARED: [(&str, &str); 11] = [
    ("*", "error"),
    ("*", "setting"),
    ("attention", "positions::POSITION"),
    ("optimizer", "autodiff::Gradients"),
    ("optimizer", "loss_scale::Scaling"),
    ("optimizer", "loss_scale::is_finite"),
    ("accumulate", "autodiff::Gradients"),
    ("parallelize", "autodiff::Gradients"),
    ("memory", "schedule::run"),
    ("memory", "loss::LOSS"),
    ("pipeline", "*"),
];

/// The rust files of the compiler's libraries: `src` folders, without tests.
fn compiler_sources() -> Vec<TextFile> {
    let sources: Vec<TextFile> = rust_files()
        .into_iter()
        .filter(|f| f.path.starts_with("compiler/") && f.path.split('/').nth(2) == Some("src"))
        .collect();
    assert!(sources.len() > 80, "only {} sources of the compiler found", sources.len());
    sources
}

/// Contacts with the machine in code: modules of `std`, and macros that print or read the environment.
fn contacts(code: &str) -> Vec<String> {
    const MODULES: [&str; 7] = ["fs", "env", "time", "thread", "process", "net", "os"];
    const MACROS: [&str; 6] = ["println!", "eprintln!", "print!", "eprint!", "env!", "option_env!"];
    let mut found: Vec<String> = paths(code, "std")
        .into_iter()
        .filter(|path| {
            let module = path.split("::").nth(1).unwrap_or_default();
            MODULES.contains(&module) || path.starts_with("std::io::std")
        })
        .collect();
    let called = |name: &&str| {
        code.match_indices(*name)
            .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    found.extend(MACROS.iter().filter(|name| called(name)).map(|name| (*name).to_string()));
    found
}

#[test]
fn the_compiler_has_no_contact_with_the_machine() {
    assert_eq!(contacts("use std::{fmt, fs::File};\nstd::env::var(x)"), ["std::env::var", "std::fs::File"]);
    assert_eq!(contacts("writeln!(f, x); println!(x)"), ["println!"]);
    let found: Vec<String> = compiler_sources()
        .iter()
        .flat_map(|f| contacts(&code(&f.text)).into_iter().map(|contact| format!("{}: {contact}", f.path)))
        .collect();
    assert_none("compiler sources that touch files, environment, clock, threads or the console", &found);
}

/// What the pass in `file` (a file or folder of `src`) takes from other passes without being allowed to.
fn foreign(file: &str, code: &str) -> Vec<String> {
    let allowed = |item: &str| {
        SHARED.iter().any(|(who, what)| {
            (*who == file || *who == "*")
                && (*what == "*" || item == *what || item.starts_with(&format!("{what}::")))
        })
    };
    paths(code, "crate")
        .into_iter()
        .filter_map(|path| path.strip_prefix("crate::").map(str::to_string))
        .filter(|item| item.split("::").next() != Some(file) && !allowed(item))
        .collect()
}

#[test]
fn no_pass_imports_another() {
    assert_eq!(foreign("cse", "use crate::{dce, error::PassError};"), ["dce"]);
    assert_eq!(
        foreign("memory", "crate::schedule::run(g); crate::schedule::priorities(g)"),
        ["schedule::priorities"]
    );
    let mut found = vec![];
    for file in compiler_sources() {
        let Some(inside) = file.path.strip_prefix("compiler/passes/src/") else { continue };
        let pass = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if pass != "lib" {
            found.extend(foreign(pass, &code(&file.text)).into_iter().map(|item| format!("{pass}: {item}")));
        }
    }
    assert_none("passes that know other passes", &found);
}

/// A file without its comments and its unit tests; literals stay.
fn without_comments_and_tests(file: &TextFile) -> String {
    let shipped = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// What a tensor, a node or a step is, it says by a role, a layer or an operation. Whoever takes strings apart below the
/// level of files and commands reads a text form, or what a user wrote.
#[test]
fn nobody_reads_names_apart() {
    const FOLDERS: [&str; 8] = [
        "compiler/ir/",
        "compiler/passes/",
        "compiler/kernels/",
        "compiler/plan/",
        "compiler/driver/",
        "runtime/exec/",
        "runtime/session/",
        "runtime/bench/",
    ];
    // Text forms of the graph and of tile sizes, the ratio, the list of layers and the limit of memory
    // that a user wrote, and files of the
    // session's own: sizes that were measured, and the list of what it wrote to a folder.
    const READERS: [&str; 8] = [
        "compiler/ir/src/dot.rs",
        "compiler/ir/src/parse.rs",
        "compiler/ir/src/scope.rs",
        "compiler/kernels/src/attention/softmax/tiles.rs",
        "compiler/passes/src/placement.rs",
        "compiler/passes/src/recompute/policy.rs",
        "runtime/session/src/autotune/store.rs",
        "runtime/session/src/output.rs",
    ];
    const METHODS: [&str; 12] = [
        "starts_with(",
        "ends_with(",
        "strip_prefix(",
        "strip_suffix(",
        "split(",
        "rsplit(",
        "split_once(",
        "rsplit_once(",
        "contains(\"",
        "contains('",
        "find(\"",
        "find('",
    ];
    let reads = |text: &str| METHODS.iter().any(|method| text.contains(&format!(".{method}")));
    assert!(reads("name.ends_with(\".grad\")") && reads("n.contains(\".m\")") && !reads("set.contains(&id)"));
    let inside =
        |f: &TextFile| f.path.contains("/src/") && FOLDERS.iter().any(|folder| f.path.starts_with(folder));
    let mut readers: Vec<String> = rust_files()
        .into_iter()
        .filter(|f| inside(f) && reads(&without_comments_and_tests(f)))
        .map(|f| f.path)
        .collect();
    readers.sort();
    assert_eq!(readers, READERS, "files that take strings apart");
}

/// The names of states are those of checkpoints; a pass gives them, and nothing else knows them.
#[test]
fn names_of_states_are_given_in_one_place() {
    for (word, giver) in [
        ("exp_avg", "compiler/ir/src/optimizer/adamw.rs"),
        // With the quote behind it: settings have names that go on.
        (".grad\"", "compiler/passes/src/accumulate.rs"),
        ("loss_scale.", "compiler/passes/src/loss_scale.rs"),
        ("cache_k", "compiler/passes/src/attention/softmax.rs"),
        ("state_sum", "compiler/passes/src/attention/efficient.rs"),
        ("elu_sum", "compiler/passes/src/attention/elu.rs"),
    ] {
        let literal = |text: &str| {
            text.match_indices(word).any(|(at, _)| {
                let line = text[..at].rsplit('\n').next().unwrap_or_default();
                line.matches('"').count() % 2 == 1
            })
        };
        assert!(literal(&format!("f(\"a{word}\")")) && !literal(&format!("x{word}; f(\"a\")")));
        let naming: Vec<String> = rust_files()
            .into_iter()
            .filter(|f| f.path.starts_with("compiler/") || f.path.starts_with("runtime/"))
            .filter(|f| f.path.split('/').nth(2) == Some("src") && !f.path.ends_with("/tests.rs"))
            .filter(|f| literal(&without_comments_and_tests(f)))
            .map(|f| f.path)
            .collect();
        assert_eq!(naming, [giver], "files with a literal of `{word}`");
    }
}

/// A kind of attention is a module at each level, and an arm or a field where its level registers kinds. Whoever else named
/// what belongs to one would assume its formula.
#[test]
fn kinds_of_attention_stay_in_their_modules() {
    const KINDS: [(&str, &[&str]); 3] = [
        ("softmax", &["SoftmaxOp", "SoftmaxOptions", "SoftmaxForwardSpec", "SoftmaxDecodeSpec"]),
        (
            "efficient",
            &["Efficient", "EfficientOp", "EfficientForm", "EfficientSpec", "EfficientOptions", "NO_KEY"],
        ),
        ("elu", &["Elu", "EluOp", "EluSpec", "EluOptions"]),
    ];
    // Where kinds are registered, and where the numbers of a model file become options of kinds.
    const REGISTERS: [&str; 5] = [
        "compiler/driver/src/model.rs",
        "compiler/ir/src/attention/mod.rs",
        "compiler/ir/src/interp/attention/mod.rs",
        "compiler/kernels/src/attention/mod.rs",
        "compiler/passes/src/attention/mod.rs",
    ];
    let is_own = |path: &str, kind: &str| {
        path.split_once("/attention/").is_some_and(|(_, inside)| {
            inside.starts_with(&format!("{kind}/")) || inside == format!("{kind}.rs")
        })
    };
    assert!(is_own("a/src/attention/softmax/tiles.rs", "softmax") && !is_own("a/softmax.rs", "softmax"));
    let mut found = vec![];
    let mut registers = BTreeSet::new();
    let ships = |path: &str| {
        path.split('/').nth(2) == Some("src")
            && (path.starts_with("compiler/") || path.starts_with("runtime/"))
    };
    for file in rust_files().into_iter().filter(|f| ships(&f.path)) {
        let code = code(&file.text);
        let names = names(&code);
        for (kind, own) in KINDS {
            for name in own.iter().filter(|name| names.contains(**name) && !is_own(&file.path, kind)) {
                if REGISTERS.contains(&file.path.as_str()) {
                    registers.insert(file.path.clone());
                } else {
                    found.push(format!("{}: {name}", file.path));
                }
            }
        }
    }
    assert_none("files that know a kind of attention", &found);
    assert_eq!(registers, REGISTERS.map(String::from).into(), "registers of kinds");
}

#[test]
fn the_ratio_is_read_in_one_place() {
    let ratio = |f: &TextFile| {
        let code = code(&f.text);
        let names = names(&code);
        ["Ratio", "linear_attn_ratio"].iter().any(|name| names.contains(name))
    };
    let naming: Vec<String> = compiler_sources()
        .iter()
        .filter(|f| !f.path.starts_with("compiler/driver/"))
        .filter(|f| ratio(f))
        .map(|f| f.path.clone())
        .collect();
    assert_eq!(naming, ["compiler/passes/src/placement.rs"]);
    // The driver takes it from its caller and hands it to the placement: nothing that compiles or reports sees it.
    let driver: Vec<String> = compiler_sources()
        .iter()
        .filter(|f| f.path.starts_with("compiler/driver/") && ratio(f))
        .map(|f| f.path.clone())
        .collect();
    assert_eq!(driver, ["compiler/driver/src/lib.rs", "compiler/driver/src/model.rs"]);
}

/// A setting that nothing reads would be accepted and do nothing: each is taken from the config somewhere, but for those
/// that allow one value or say that they have no effect.
#[test]
fn every_setting_is_read() {
    let has_one_value = |key: &str| {
        ["mixed_precision_reduce", "export_dtype"].contains(&key)
            || (key.ends_with("_parallel_degree") && !key.starts_with("data_"))
    };
    let sources: Vec<TextFile> = rust_files()
        .into_iter()
        .filter(|f| {
            f.path.starts_with("runtime/") && f.path.contains("/src/") && !f.path.ends_with("tests.rs")
        })
        .collect();
    let texts: Vec<String> = sources.iter().map(|f| code(&f.text)).collect();
    let mut unread = vec![];
    let mut count = 0;
    for file in &sources {
        for section in file.text.split("\nsection! {\n").skip(1) {
            let section = section.split("\n}\n").next().unwrap_or_default();
            let fields = section.lines().filter_map(|line| line.strip_prefix("        ")?.split_once(": "));
            let keys = fields
                .map(|(key, _)| key)
                .filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()));
            for key in keys.filter(|key| !has_one_value(key)) {
                count += 1;
                // By a dot, or by taking the section apart.
                let is_read = sources.iter().zip(&texts).any(|(other, text)| {
                    text.contains(&format!(".{key}"))
                        || (other.path != file.path && names(text).contains(key))
                });
                if !is_read {
                    unread.push(format!("{}: {key}", file.path));
                }
            }
        }
    }
    assert!(count > 50, "only {count} settings were found");
    assert_none("settings that nothing reads", &unread);
}
